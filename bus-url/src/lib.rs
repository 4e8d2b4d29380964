//! The bus that a URL names, for programs that leave the choice to whoever runs them.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

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
    let (scheme, _) = url.split_once(':').unwrap_or((url, ""));
    match scheme {
        "local" => match LocalBus::from_url(url) {
            Ok(bus) => Ok(Arc::new(bus)),
            Err(error) => Err(Error::from_source(ErrorCode::InvalidArgument, error)),
        },
        "redis" | "rediss" => Ok(Arc::new(RedisBus::connect(url, runtime).await?)),
        "nats" | "tls" => Ok(Arc::new(NatsBus::connect(url).await?)),
        // The rest of it may hold a password.
        _ => {
            let text =
                format!("no bus has the scheme of `{scheme}:`; there are `local:`, `redis://` and `nats://`");
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
        assert!(said.starts_with("invalid_argument: no bus has the scheme of `amqp:`"), "{said}");
        assert!(refusal("rediss://x").await.contains("TLS") && refusal("tls://x").await.contains("TLS"));
        assert!(refusal("local://x").await.contains("takes nothing after the colon"));
        assert!(refusal("").await.starts_with("invalid_argument: "));
    }
}
