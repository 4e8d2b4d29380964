//! The bus that a URL names, for programs that leave the choice to whoever runs them.

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
/// | `nats://[user:password@]host[:port]`, several with commas | NATS (`psrpc-bus-nats`) |
///
/// Whoever needs a bus's options connects by its own crate.
///
/// # Errors
///
/// `invalid_argument` when no bus has the URL's scheme, or the URL is not valid; `unavailable` when the server cannot be
/// reached, or refuses us. The text names the server and the cause, and no secret.
pub async fn connect(url: &str, runtime: impl Runtime) -> Result<Arc<dyn Bus>, Error> {
    let scheme = url.split_once(':').map_or(if url == "local" { url } else { "" }, |(scheme, _)| scheme);
    match scheme {
        "local" => match LocalBus::from_url(url) {
            Ok(bus) => Ok(Arc::new(bus)),
            Err(error) => Err(Error::from_source(ErrorCode::InvalidArgument, error)),
        },
        "redis" | "rediss" => Ok(Arc::new(RedisBus::connect(url, runtime).await?)),
        "nats" | "tls" => Ok(Arc::new(NatsBus::connect(url).await?)),
        // The rest of it may hold a password, and so may what looks like a scheme and is none.
        _ => {
            let is_one = !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_lowercase());
            let problem =
                if is_one { format!("no bus has the scheme `{scheme}:`") } else { "no scheme".into() };
            let text = format!("bus URL: {problem}; there are `local:`, `redis://` and `nats://`");
            Err(Error::new(ErrorCode::InvalidArgument, text))
        }
    }
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
        for url in ["s3cret-token@host:4222", "s3cret", "s3cret@host", ""] {
            let said = refusal(url).await;
            assert!(said.starts_with("invalid_argument: bus URL: no scheme; "), "{said}");
        }
        assert!(refusal("rediss://x").await.contains("TLS") && refusal("tls://x").await.contains("TLS"));
        assert!(refusal("local://x").await.contains("takes nothing after the colon"));
    }
}
