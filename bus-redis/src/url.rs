//! Parsing of Redis URLs.

use redis::Client;

use crate::cause;
use crate::error::ConnectError;

/// Returns a client for the server at a URL.
///
/// Errors show only the scheme, because the rest of the URL may contain a password.
pub(crate) fn client(url: &str) -> Result<Client, ConnectError> {
    match scheme(url) {
        Some("redis") => {}
        Some(scheme) => return Err(ConnectError::Url { cause: unsupported(scheme) }),
        None => return Err(ConnectError::Url { cause: "the URL must begin with `redis://`".into() }),
    }
    Client::open(url).map_err(|error| ConnectError::Url { cause: cause::of_client(&error) })
}

/// Returns the scheme of a URL, or `None` if the text before `://` is not a valid scheme and may be
/// a secret.
fn scheme(url: &str) -> Option<&str> {
    let (scheme, _) = url.split_once("://")?;
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    is_scheme.then_some(scheme)
}

fn unsupported(scheme: &str) -> String {
    let problem = match scheme.to_ascii_lowercase().as_str() {
        "rediss" | "valkeys" => "needs TLS, which is not supported yet",
        "redis+sentinel" | "redis-sentinel" | "rediss+sentinel" | "sentinel" => {
            "needs Sentinel, which is not supported yet"
        }
        "redis+cluster" | "redis-cluster" => {
            "needs Redis Cluster, which is not supported yet: use `redis://` with the address of one node"
        }
        "redis+unix" | "redis+socket" | "redis-socket" | "valkey+unix" | "unix" => {
            "is a Unix socket, which needs `RedisBus::from_client`"
        }
        "valkey" => "is not supported: use `redis://` for a Valkey server",
        _ => return format!("the scheme is `{scheme}://`, expected `redis://`"),
    };
    format!("`{scheme}://` {problem}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(url: &str) -> String {
        client(url).expect_err("it is not supported").to_string()
    }

    #[test]
    fn an_unsupported_scheme_is_named_and_nothing_else_of_the_url() {
        for (scheme, expected) in [
            ("rediss", "TLS"),
            ("valkeys", "TLS"),
            ("redis+sentinel", "Sentinel"),
            ("redis-sentinel", "Sentinel"),
            ("redis+cluster", "Cluster"),
            ("redis+unix", "Unix socket"),
            ("unix", "Unix socket"),
            ("valkey", "use `redis://`"),
            ("nats", "expected `redis://`"),
        ] {
            let text = refusal(&format!("{scheme}://:s3cret@x"));
            assert!(text.contains(&format!("`{scheme}://`")) && text.contains(expected), "{text}");
            assert!(!text.contains("s3cret"), "{text}");
        }
    }

    #[test]
    fn text_that_is_no_scheme_is_not_shown() {
        for url in ["s3cret", "user:s3cret@host", "user:s3cret://x", "s3cret@host://x", "://s3cret", ""] {
            assert_eq!(refusal(url), "invalid Redis URL: the URL must begin with `redis://`");
        }
        for url in
            ["redis://:s3cret@[", "redis://:s3cret@127.0.0.1:1/nonsense", "redis://:s3cret@127.0.0.1:x"]
        {
            assert!(!refusal(url).contains("s3cret"), "{}", refusal(url));
        }
    }
}
