//! Error texts from the server or the operating system, without secrets.
//!
//! The bus sends its password when it connects, and a server may repeat it in an error. Cutting the
//! password out of the text would reveal it, because the missing part of a well-known sentence can
//! be guessed. Instead:
//!
//! * Repeated arguments are dropped. Redis always introduces them with `, with args beginning
//!   with:`.
//! * Well-known Redis errors are shown as they are, even if they happen to contain the password.
//! * Any other error that contains the password is withheld completely.
//!
//! Whether a well-known error is shown therefore does not depend on the password.

use redis::{ErrorKind, RedisError};

/// The beginnings of well-known errors during connection setup. None of them repeats an argument.
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

/// The maximum number of characters shown.
const LONGEST: usize = 500;

/// Returns the text of an error from creating a client, which contains no secret.
pub(crate) fn of_client(error: &RedisError) -> String {
    of(error, None)
}

/// Returns the text of an error from a server that may know the password.
pub(crate) fn of(error: &RedisError, password: Option<&str>) -> String {
    if error.is_timeout() {
        return "the server did not reply in time".into();
    }
    match (error.kind(), error.code()) {
        (ErrorKind::RESP3NotSupported, _) => {
            "the server does not support RESP3: Redis 6 or later is required".into()
        }
        (ErrorKind::Parse, _) => "the server does not speak the Redis protocol".into(),
        (_, Some(code)) => of_server(&format!("{code} {}", error.detail().unwrap_or_default()), password),
        _ => excerpt(&error.to_string()),
    }
}

/// Returns the text of an error line from the server, which begins with a code.
pub(crate) fn of_server(line: &str, password: Option<&str>) -> String {
    let line = line.split(", with args beginning with:").next().unwrap_or_default().trim();
    if line.starts_with("ERR unknown command") {
        return "the server does not know a command that the bus needs: Redis 6 or later is required".into();
    }
    let repeats = |password: &str| !password.is_empty() && line.contains(password);
    if password.is_some_and(repeats) && !ORDINARY.iter().any(|sentence| line.starts_with(sentence)) {
        return "the server sent an error that contains the password, so it is not shown".into();
    }
    excerpt(line)
}

/// Returns the beginning of a text that a server has sent, without control characters.
pub(crate) fn excerpt(text: &str) -> String {
    let is_long = text.chars().nth(LONGEST).is_some();
    let shown = text.chars().take(LONGEST).map(|each| if each.is_control() { ' ' } else { each });
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
        let line = "ERR wrong number of things, with args beginning with: 's3cret'";
        assert_eq!(of_server(line, Some("s3cret")), "ERR wrong number of things");
        for line in ["ECHO HELLO 3 AUTH default s3cret", "ERR HELLO 3 AUTH default s3cret", "s3cret"] {
            let shown = of_server(line, Some("s3cret"));
            assert_eq!(shown, "the server sent an error that contains the password, so it is not shown");
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
