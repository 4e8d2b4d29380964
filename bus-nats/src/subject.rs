//! Validation of NATS subjects.

use crate::error::Failure;

/// The maximum length. A server closes the connection on a line longer than 4,096 bytes.
const LONGEST: usize = 3_840;

/// Refuses a name that NATS would not treat as a literal subject. Parts of names, such as ids, are
/// chosen by peers.
pub(crate) fn check(subject: &str) -> Result<(), Failure> {
    let odd = |c: char| c.is_whitespace() || c.is_control() || c == '*' || c == '>';
    let problem = if subject.split('.').any(str::is_empty) {
        "it has an empty part"
    } else if subject.contains(odd) {
        "it contains whitespace, a control character, `*` or `>`"
    } else if subject.len() > LONGEST {
        let start = subject.chars().take(60).collect::<String>() + "...";
        return Err(Failure::Subject(start, "it is longer than 3,840 bytes"));
    } else {
        return Ok(());
    };
    Err(Failure::Subject(subject.to_owned(), problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_subjects_are_refused() {
        for subject in
            ["", ".", "a.", ".a", "a..b", "a b", "a\t", "a\r\nPUB b", "a.*", "a.>", "a\u{0}", "a\u{a0}b"]
        {
            assert!(check(subject).is_err(), "{subject:?}");
        }
        assert!(check(&"a".repeat(LONGEST + 1)).unwrap_err().to_string().len() < 200);
        for subject in ["a", "SRV.Hats.u+00e9.Q", "CLI.Hats.CLI_é.RES", &"a".repeat(LONGEST)] {
            assert!(check(subject).is_ok(), "{subject:?}");
        }
    }
}
