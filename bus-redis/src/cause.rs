//! Causes: why something failed, in the words of the server or of the operating system, and without
//! secrets.
//!
//! The bus sends its password when it connects, and a server may repeat what it was sent. The
//! password is not cut out of the text: that would reveal it, since anybody can see which part of
//! an ordinary sentence is missing. Instead:
//!
//! * Arguments that the server repeats are dropped. Redis does so in one form: `, with args
//!   beginning with: '...' '...'`.
//! * A sentence that Redis is known to say is shown as it is, even if it happens to contain the
//!   password.
//! * Any other text of a server is withheld as a whole if it contains the password.
//!
//! So what is shown of ordinary sentences does not depend on the password.

use redis::{ErrorKind, RedisError};

/// How sentences begin that Redis says to a client that connects. None of them repeats an argument.
const ORDINARY: [&str; 22] = [
    "BUSY Redis is busy",
    "CLUSTERDOWN ",
    "DENIED Redis is running in protected mode",
    "ERR AUTH <password> called without any password configured",
    "ERR Client sent AUTH, but no password is set",
    "ERR DB index is out of range",
    "ERR Protocol error",
    "ERR Syntax error in HELLO option",
    "ERR invalid DB index",
    "ERR invalid password",
    "ERR max number of clients",
    "ERR unknown command",
    "LOADING Redis is loading",
    "MASTERDOWN Link with MASTER is down",
    "MISCONF Redis is configured to save RDB snapshots",
    "NOAUTH Authentication required",
    "NOAUTH HELLO must be called with the client already authenticated",
    "NOPERM User ",
    "NOPERM this user has no permissions",
    "NOPROTO unsupported protocol version",
    "OOM command not allowed",
    "WRONGPASS invalid username-password pair",
];

/// How much of a text is shown, in characters.
const LONGEST: usize = 500;

/// Why a client could not be made: its own words, which hold no secret.
pub(crate) fn of_client(error: &RedisError) -> String {
    of(error, None)
}

/// Why the server, which may have been told the password, did not do as asked.
pub(crate) fn of(error: &RedisError, password: Option<&str>) -> String {
    if error.is_timeout() {
        return "it did not answer in time".into();
    }
    match (error.kind(), error.code()) {
        (ErrorKind::RESP3NotSupported, _) => "it does not know RESP3, which needs Redis 6 or later".into(),
        (ErrorKind::Parse, _) => "what it answers is not Redis".into(),
        (_, Some(code)) => of_server(&format!("{code} {}", error.detail().unwrap_or_default()), password),
        _ => error.to_string(),
    }
}

/// What a server said, a line that begins with a code.
pub(crate) fn of_server(line: &str, password: Option<&str>) -> String {
    let line = line.split(", with args beginning with:").next().unwrap_or_default().trim();
    if line.starts_with("ERR unknown command") {
        return "it does not know a command that the bus needs, which takes Redis 6 or later".into();
    }
    let repeats = |password: &str| !password.is_empty() && line.contains(password);
    if password.is_some_and(repeats) && !ORDINARY.iter().any(|sentence| line.starts_with(sentence)) {
        return "it refused with an error that is withheld, since it repeats the password".into();
    }
    let is_long = line.chars().nth(LONGEST).is_some();
    let shown = line.chars().take(LONGEST).map(|each| if each.is_control() { ' ' } else { each });
    shown.chain(is_long.then_some("...").into_iter().flat_map(str::chars)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_sentences_are_shown_whatever_the_password_is() {
        for line in [
            "WRONGPASS invalid username-password pair or user is disabled.",
            "NOAUTH HELLO must be called with the client already authenticated, otherwise [...]",
            "ERR max number of clients reached",
            "DENIED Redis is running in protected mode because protected mode is enabled [...]",
        ] {
            for password in ["redis", "a", "password", "invalid", "Redis", "r", ""] {
                assert_eq!(of_server(line, Some(password)), line);
            }
        }
    }

    #[test]
    fn what_a_server_repeats_is_not_shown() {
        let echo = "ERR unknown command 'HELLO', with args beginning with: '3' 'AUTH' 'default' 's3cret' ";
        assert!(!of_server(echo, Some("s3cret")).contains("s3cret"));
        let told = "ERR wrong number of things, with args beginning with: 's3cret'";
        assert_eq!(of_server(told, Some("s3cret")), "ERR wrong number of things");
        for line in ["ECHO HELLO 3 AUTH default s3cret", "ERR HELLO 3 AUTH default s3cret", "s3cret"] {
            let shown = of_server(line, Some("s3cret"));
            assert_eq!(shown, "it refused with an error that is withheld, since it repeats the password");
            assert_eq!(of_server(line, Some("other")), line);
        }
    }

    #[test]
    fn errors_of_the_operating_system_are_shown_whatever_the_password_is() {
        let error = RedisError::from(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
        assert_eq!(of(&error, Some("connection")), "connection reset");
    }

    #[test]
    fn a_long_text_is_cut_and_holds_no_control_characters() {
        let shown = of_server(&format!("ERR\t{}", "x".repeat(1000)), None);
        assert!(shown.starts_with("ERR xxx") && shown.ends_with("x...") && shown.len() == LONGEST + 3);
    }
}
