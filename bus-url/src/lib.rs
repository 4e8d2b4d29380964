//! The bus that a URL names, for programs whose users choose the bus.

#![forbid(unsafe_code)]
#![deny(missing_docs, missing_debug_implementations)]

use std::sync::Arc;

use psrpc::bus::Bus;
use psrpc::{Error, ErrorCode, Runtime};
use psrpc_bus_local::LocalBus;
use psrpc_bus_nats::NatsBus;
use psrpc_bus_redis::RedisBus;

/// Connects to the bus that a URL names.
///
/// | URL | bus |
/// |---|---|
/// | `local:` | in-process, a bus of its own with each call (`psrpc-bus-local`) |
/// | `redis://[[user]:password@]host[:port][/database]` | Redis (`psrpc-bus-redis`) |
/// | `redis+unix:///path` | Redis at a Unix socket |
/// | `redis+sentinel://[[user]:password@]host[:port],.../NAME[/database]` | the Redis master that the sentinels call `NAME` |
/// | `redis+cluster://[[user]:password@]host[:port],...` | a Redis Cluster |
/// | `rediss://`, `rediss+sentinel://`, `rediss+cluster://` | the same with TLS (feature `tls`) |
/// | `nats://[user:password@]host[:port]`, several with commas | NATS (`psrpc-bus-nats`) |
///
/// `valkey` and `valkeys` mean the same as `redis` and `rediss`.
///
/// To set a bus's options, connect by its own crate. The features `tokio` (the default) and `smol`
/// choose the runtimes that `psrpc-bus-redis` connects on.
///
/// # Errors
///
/// `invalid_argument` when no bus has the URL's scheme, or the URL is not valid; `unavailable` when
/// the server cannot be reached, or refuses us. The text names the server and the cause, and no
/// secret.
pub async fn connect(url: &str, runtime: impl Runtime) -> Result<Arc<dyn Bus>, Error> {
    match scheme(url) {
        Some("local") => match LocalBus::from_url(url) {
            Ok(bus) => Ok(Arc::new(bus)),
            Err(error) => Err(Error::from_source(ErrorCode::InvalidArgument, error)),
        },
        Some("nats" | "tls") => Ok(Arc::new(NatsBus::connect(url, runtime).await?)),
        // Its crate says which of these are not supported, and why.
        Some(scheme) if is_redis(scheme) => Ok(Arc::new(RedisBus::connect(url, runtime).await?)),
        scheme => {
            let problem =
                scheme.map_or("no scheme".into(), |scheme| format!("no bus has the scheme `{scheme}:`"));
            let text = format!("bus URL: {problem}; there are `local:`, `redis://` and `nats://`");
            Err(Error::new(ErrorCode::InvalidArgument, text))
        }
    }
}

/// Returns the scheme of a URL, which errors may show; `None` if it has none. The rest may hold a
/// password, and so may text that looks like a scheme, but with `//` behind it.
fn scheme(url: &str) -> Option<&str> {
    let Some((scheme, rest)) = url.split_once(':') else { return (url == "local").then_some(url) };
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    (is_scheme && (rest.starts_with("//") || scheme == "local")).then_some(scheme)
}

fn is_redis(scheme: &str) -> bool {
    ["redis", "valkey"].iter().any(|prefix| scheme.starts_with(prefix)) || scheme == "unix"
}

#[cfg(test)]
mod tests {
    use psrpc_tokio::TokioRuntime;

    use super::*;

    async fn refusal(url: &str) -> String {
        connect(url, TokioRuntime::current().unwrap()).await.err().expect("there is no such bus").to_string()
    }

    #[tokio::test]
    async fn a_scheme_that_no_bus_has_is_named_without_the_rest() {
        assert!(connect("local:", TokioRuntime::current().unwrap()).await.is_ok());
        let said = refusal("amqp://user:s3cret@x").await;
        assert!(said.starts_with("invalid_argument: bus URL: no bus has the scheme `amqp:`; "), "{said}");
        for scheme in ["amqp+ssl", "coap-tcp", "z39.50r"] {
            let said = refusal(&format!("{scheme}://:s3cret@x")).await;
            assert!(said.contains(&format!("no bus has the scheme `{scheme}:`")), "{said}");
        }
        for url in
            ["s3cret-token@host:4222", "s3cret", "s3cret@host", "s3cret:4222", "9s3cret://x", "://s3cret", ""]
        {
            let said = refusal(url).await;
            assert!(said.starts_with("invalid_argument: bus URL: no scheme; "), "{said}");
        }
        assert!(refusal("tls://x").await.contains("TLS"));
        assert!(refusal("local://x").await.contains("takes nothing after the colon"));
    }

    #[tokio::test]
    async fn the_bus_refuses_schemes_of_redis_that_it_does_not_know() {
        for (scheme, expected) in [
            ("redis-sentinel", "expected `redis+sentinel://`"),
            ("redis+ssl", "expected `rediss://`"),
            ("redis+sentinel", "the name of the master"),
        ] {
            let text = refusal(&format!("{scheme}://:s3cret@x")).await;
            assert!(text.starts_with("invalid_argument: ") && text.contains(expected), "{text}");
            assert!(text.contains(&format!("`{scheme}://")) && !text.contains("s3cret"), "{text}");
        }
        if !cfg!(feature = "tls") {
            let text = refusal("rediss://:s3cret@x").await;
            assert!(text.contains("enable the feature `tls` of psrpc-bus-redis"), "{text}");
        }
    }
}
