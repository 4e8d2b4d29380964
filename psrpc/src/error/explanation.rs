//! Human-readable explanations of failed calls.

use psrpc_engine::{Evidence, Reason, Refusal};

use super::Error;

impl Error {
    /// Returns a human-readable explanation of why no server took the call or responded, or `None`
    /// if the text of the error says it all.
    ///
    /// The explanation contains only what the client knows. For example, only the server knows that
    /// a request arrived too late by the server's clock. The server logs that, and reports it, with
    /// the difference, to its observers ([`Expired`](crate::middleware::Observation::Expired)).
    pub fn explanation(&self) -> Option<String> {
        let Evidence {
            unsent,
            receivers,
            bids,
            below_minimum,
            late_bids,
            selected,
            best,
            asked,
            errors,
            gap,
            refusals,
            lock_refusal,
            may_skip_claim: _,
        } = &self.0.evidence;
        let mut facts = Vec::new();
        let reached = |count: &u64| match count {
            0 => "nobody was subscribed".to_owned(),
            count => format!("the request reached {}", counted(*count, "subscriber")),
        };
        match self.0.reason? {
            Reason::TimedOut | Reason::NoResponse if *unsent => {
                facts.push("the request was not sent".to_owned());
            }
            Reason::NobodySubscribed => facts.push("nobody was subscribed".to_owned()),
            Reason::NoResponse => {
                facts.extend(receivers.as_ref().map(reached));
                if receivers.is_some() {
                    facts.push("no server bid".to_owned());
                }
            }
            Reason::NotAcceptable => {
                facts.push(format!("{} bid", counted((*bids).into(), "server")));
                if *below_minimum > 0 {
                    facts.push(format!("{below_minimum} of them below the minimum affinity"));
                }
                match bids - below_minimum {
                    0 => {}
                    _ if *asked => facts.push("the selection function selected none".to_owned()),
                    rest => facts.push(format!("{rest} of them with an affinity of 0 or less")),
                }
            }
            Reason::TimedOut => match (selected, best) {
                (Some(server), _) => {
                    facts.push(format!("server {server} was selected and did not respond in time"));
                }
                (None, Some(best)) => facts.push(format!(
                    "the deadline passed during the selection; the best bid was {}, of server {}",
                    best.affinity, best.server_id
                )),
                (None, None) => facts.extend(receivers.as_ref().map(reached)),
            },
            Reason::Answered if refusals.len() > 1 => {}
            _ => return None,
        }
        if *late_bids > 0 {
            facts.push(format!("{} arrived after the deadline", counted((*late_bids).into(), "bid")));
        }
        if *errors > 0 {
            facts.push(format!("{} responded with an error", counted((*errors).into(), "server")));
        }
        for Refusal { server_id, code, text } in refusals {
            let server = if server_id.is_empty() { "another server" } else { server_id.as_str() };
            facts.push(format!("{server}: {code}: {text}"));
        }
        if let Some(cause) = lock_refusal {
            facts.push(format!("the bus refused to lock requests, so no server received them: {cause}"));
        }
        if *gap {
            facts.push("the bus lost frames for this client during the call".to_owned());
        }
        (!facts.is_empty()).then(|| facts.join("; "))
    }
}

/// Returns a count with its noun: `1 server`, `2 servers`.
fn counted(count: u64, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use psrpc_engine::Bid;
    use psrpc_engine::proto::ErrorCode;

    use super::*;

    fn explained(reason: Reason, evidence: Evidence) -> Option<String> {
        let mut error = Error::new(ErrorCode::Unavailable, "no").with_reason(reason);
        error.0.evidence = evidence;
        error.explanation()
    }

    #[test]
    fn what_is_known_of_a_failure_is_put_into_words() {
        let nothing = Evidence::default;
        let refusal =
            |id: &str| Refusal { server_id: id.into(), code: ErrorCode::Unavailable, text: "full".into() };
        let reached = |receivers| Evidence { receivers: Some(receivers), ..nothing() };
        let best = Bid { server_id: "SRV_1".into(), affinity: 0.5 };
        for (reason, evidence, words) in [
            (Reason::NobodySubscribed, reached(0), "nobody was subscribed"),
            (Reason::NoResponse, reached(1), "the request reached 1 subscriber; no server bid"),
            (
                Reason::NoResponse,
                Evidence { late_bids: 2, ..reached(3) },
                "the request reached 3 subscribers; no server bid; 2 bids arrived after the deadline",
            ),
            (
                Reason::NoResponse,
                Evidence { gap: true, ..nothing() },
                "the bus lost frames for this client during the call",
            ),
            (
                Reason::NotAcceptable,
                Evidence { bids: 3, below_minimum: 2, ..nothing() },
                "3 servers bid; 2 of them below the minimum affinity; 1 of them with an affinity of 0 or less",
            ),
            (
                Reason::NotAcceptable,
                Evidence { bids: 1, asked: true, ..nothing() },
                "1 server bid; the selection function selected none",
            ),
            (
                Reason::TimedOut,
                Evidence { selected: Some("SRV_1".into()), errors: 1, ..nothing() },
                "server SRV_1 was selected and did not respond in time; 1 server responded with an error",
            ),
            (
                Reason::Answered,
                Evidence { errors: 2, refusals: vec![refusal("SRV_1"), refusal("")], ..nothing() },
                "2 servers responded with an error; SRV_1: unavailable: full; another server: unavailable: full",
            ),
            (
                Reason::TimedOut,
                Evidence { best: Some(best), ..nothing() },
                "the deadline passed during the selection; the best bid was 0.5, of server SRV_1",
            ),
            (Reason::TimedOut, reached(0), "nobody was subscribed"),
            (
                Reason::NoResponse,
                Evidence { lock_refusal: Some("READONLY".into()), ..reached(1) },
                "the request reached 1 subscriber; no server bid; \
                 the bus refused to lock requests, so no server received them: READONLY",
            ),
            (Reason::TimedOut, Evidence { unsent: true, ..nothing() }, "the request was not sent"),
        ] {
            assert_eq!(explained(reason, evidence).as_deref(), Some(words));
        }
        assert_eq!(explained(Reason::NoResponse, nothing()), None);
        assert_eq!(explained(Reason::Answered, reached(1)), None, "the text says it all");
    }
}
