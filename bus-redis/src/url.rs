//! URLs of Redis servers.

use redis::Client;

use crate::cause;
use crate::error::ConnectError;

/// Returns the client of the server that a URL names.
///
/// An error shows nothing of the URL but its scheme: the rest may hold a password.
pub(crate) fn client(url: &str) -> Result<Client, ConnectError> {
    match scheme(url) {
        Some("redis") => {}
        Some(scheme) => return Err(ConnectError::Url { cause: unsupported(scheme) }),
        None => return Err(ConnectError::Url { cause: "it does not begin with `redis://`".into() }),
    }
    Client::open(url).map_err(|error| ConnectError::Url { cause: cause::of_client(&error) })
}

/// Returns the scheme of a URL; `None` if the text before `://` cannot be one, and so may be
/// anything.
fn scheme(url: &str) -> Option<&str> {
    let (scheme, _) = url.split_once("://")?;
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    is_scheme.then_some(scheme)
}

fn unsupported(scheme: &str) -> String {
    let known = match scheme.to_ascii_lowercase().as_str() {
        "rediss" | "valkeys" => "needs TLS, which is not supported yet",
        "redis+sentinel" | "redis-sentinel" | "rediss+sentinel" | "sentinel" => {
            "needs Sentinel, which is not supported yet"
        }
        "redis+cluster" | "redis-cluster" => {
            "needs Redis Cluster, which is not supported yet: name one node by `redis://`"
        }
        "redis+unix" | "redis+socket" | "redis-socket" | "valkey+unix" | "unix" => {
            "names a Unix socket, which is supported by `RedisBus::from_client` alone"
        }
        "valkey" => "is not supported: name a Valkey server by `redis://`",
        _ => return format!("its scheme is `{scheme}://`, not `redis://`"),
    };
    format!("`{scheme}://` {known}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(url: &str) -> String {
        client(url).expect_err("it is not supported").to_string()
    }

    #[test]
    fn an_unsupported_scheme_is_named_and_nothing_else_of_the_url() {
        for (scheme, said) in [
            ("rediss", "TLS"),
            ("valkeys", "TLS"),
            ("redis+sentinel", "Sentinel"),
            ("redis-sentinel", "Sentinel"),
            ("redis+cluster", "Cluster"),
            ("redis+unix", "Unix socket"),
            ("unix", "Unix socket"),
            ("valkey", "by `redis://`"),
            ("nats", "not `redis://`"),
        ] {
            let text = refusal(&format!("{scheme}://:s3cret@x"));
            assert!(text.contains(&format!("`{scheme}://`")) && text.contains(said), "{text}");
            assert!(!text.contains("s3cret"), "{text}");
        }
    }

    #[test]
    fn text_that_is_no_scheme_is_not_shown() {
        for url in ["s3cret", "user:s3cret@host", "user:s3cret://x", "s3cret@host://x", "://s3cret", ""] {
            assert_eq!(refusal(url), "not the URL of a Redis server: it does not begin with `redis://`");
        }
        for url in
            ["redis://:s3cret@[", "redis://:s3cret@127.0.0.1:1/nonsense", "redis://:s3cret@127.0.0.1:x"]
        {
            assert!(!refusal(url).contains("s3cret"), "{}", refusal(url));
        }
    }
}
