//! Short names of nodes, requests and streams, which a chart shows instead of their ids.

use std::collections::BTreeMap;

/// The short names of the ids so far.
#[derive(Default)]
pub(crate) struct ShortNames {
    names: BTreeMap<String, String>,
    requests: usize,
    streams: usize,
}

impl ShortNames {
    /// Sets the name of the node with an id.
    pub(crate) fn name(&mut self, id: &str, name: &str) {
        self.names.insert(id.to_owned(), name.to_owned());
    }

    /// Replaces the ids in a text: of nodes by their names, of requests by `r1`, `r2`, ... in order
    /// of appearance, of streams by `s1`, `s2`, ...
    pub(crate) fn replace_ids(&mut self, text: &str) -> String {
        let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
        let mut named = String::new();
        let mut rest = text;
        while let Some(start) = rest.find(is_part) {
            let (before, word) = rest.split_at(start);
            let (word, after) = word.split_at(word.find(|letter| !is_part(letter)).unwrap_or(word.len()));
            named.push_str(before);
            named.push_str(&self.of(word));
            rest = after;
        }
        named + rest
    }

    fn of(&mut self, word: &str) -> String {
        let counted = match word.split_at_checked(4) {
            Some(("REQ_", _)) => Some(('r', &mut self.requests)),
            Some(("STR_", _)) => Some(('s', &mut self.streams)),
            _ => None,
        };
        match (self.names.get(word), counted) {
            (Some(name), _) => name.clone(),
            (None, Some((kind, count))) => {
                *count += 1;
                let name = format!("{kind}{count}");
                self.names.insert(word.to_owned(), name.clone());
                name
            }
            (None, None) => word.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_always_gets_the_same_name_and_other_words_stay() {
        let mut names = ShortNames::default();
        names.name("SRV_ash", "server-0");
        let text = "bid of 0.5 for REQ_hat by SRV_ash, not SRV_elm; STR_a, REQ_fez, REQ_hat";
        assert_eq!(names.replace_ids(text), "bid of 0.5 for r1 by server-0, not SRV_elm; s1, r2, r1");
    }
}
