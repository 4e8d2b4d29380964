//! Refusals reported by the server.

use crate::listeners::Group;

/// A refusal reported by the server.
#[derive(Debug, PartialEq)]
pub(crate) enum Refusal<'a> {
    Publish(&'a str),
    /// A subscription to this subject, with its group if known.
    Subscription(&'a str, Option<Group>),
    /// One of the pending subscriptions, not named.
    UnnamedSubscription,
}

impl<'a> Refusal<'a> {
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let Some(rest) = text.strip_prefix("Permissions Violation for ") else {
            // "maximum subscriptions exceeded", "Invalid Subject"
            let text = text.to_ascii_lowercase();
            let is_one = text.contains("subscription") || text == "invalid subject";
            return is_one.then_some(Refusal::UnnamedSubscription);
        };
        if let Some(rest) = rest.strip_prefix("Publish to \"") {
            return Some(Refusal::Publish(rest.split_once('"')?.0));
        }
        let (subject, rest) = rest.strip_prefix("Subscription to \"")?.split_once('"')?;
        let group = match rest.strip_prefix(" using queue \"") {
            Some(rest) => Some(Group::Queue(rest.split_once('"')?.0.into())),
            // The refusal of a live subscription does not name its group.
            None if rest.contains("(sid ") => None,
            None => Some(Group::Plain),
        };
        Some(Refusal::Subscription(subject, group))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_parsed_with_its_subject_and_group() {
        let parse = Refusal::parse;
        let text = "Permissions Violation for Subscription to \"SRV.Hats\"";
        assert_eq!(parse(text), Some(Refusal::Subscription("SRV.Hats", Some(Group::Plain))));
        let text = "Permissions Violation for Subscription to \"SRV.Hats.Q\" using queue \"bus\"";
        let group = Group::Queue("bus".into());
        assert_eq!(parse(text), Some(Refusal::Subscription("SRV.Hats.Q", Some(group))));
        let text = "Permissions Violation for Subscription to \"SRV.Hats.Q\" (sid \"3\")";
        assert_eq!(parse(text), Some(Refusal::Subscription("SRV.Hats.Q", None)));
        let text = "Permissions Violation for Publish to \"SRV.Hats\"";
        assert_eq!(parse(text), Some(Refusal::Publish("SRV.Hats")));
        assert_eq!(parse("maximum subscriptions exceeded"), Some(Refusal::UnnamedSubscription));
        assert_eq!(parse("Invalid Subject"), Some(Refusal::UnnamedSubscription));
        assert_eq!(parse("Stale Connection"), None);
    }
}
