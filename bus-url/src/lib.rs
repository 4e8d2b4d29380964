//! The PSRPC bus that a URL names, for programs whose configuration chooses the bus.
//!
//! ```
//! # use psrpc_tokio as psrpc;
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), psrpc::Error> {
//! let url = std::env::var("BUS_URL").unwrap_or_else(|_| "local:".to_owned());
//! let bus = psrpc_bus_url::connect(&url, psrpc::default_runtime()?).await?;
//! # let _ = bus;
//! # Ok(())
//! # }
//! ```
//!
//! [`connect`] lists the URLs. `redis://127.0.0.1:6379` and `nats://127.0.0.1:4222` connect to
//! servers, and `local:` makes an in-process bus.

#![forbid(unsafe_code)]
#![deny(missing_docs, missing_debug_implementations)]

#[cfg(feature = "tls")]
mod tls;

use std::sync::Arc;

use psrpc::bus::Bus;
use psrpc::{Error, ErrorCode, Runtime};
use psrpc_bus_local::LocalBus;
use psrpc_bus_nats::{NatsBus, NatsOptions};
use psrpc_bus_redis::{RedisBus, RedisOptions};

#[cfg(feature = "tls")]
pub use crate::tls::TlsFiles;

/// Connects to the bus at a URL.
///
/// | URL | bus |
/// |---|---|
/// | `local:` | in-process, a new bus for each call (`psrpc-bus-local`) |
/// | `redis://[[user]:password@]host[:port][/database]` | Redis (`psrpc-bus-redis`) |
/// | `redis+unix:///path` | Redis at a Unix socket |
/// | `redis+sentinel://[[user]:password@]host[:port],.../NAME[/database]` | the Redis master that the sentinels call `NAME` |
/// | `redis+cluster://[[user]:password@]host[:port],...` | a Redis Cluster |
/// | `rediss://`, `rediss+sentinel://`, `rediss+cluster://` | the same with TLS (feature `tls`) |
/// | `nats://[user:password@]host[:port]`, several separated by commas | NATS (`psrpc-bus-nats`) |
/// | `tls://...`, otherwise like `nats://` | NATS over TLS (feature `tls`) |
///
/// `valkey` and `valkeys` mean the same as `redis` and `rediss`.
///
/// To set options, use the crate of the bus; `connect_with_tls` takes TLS files (feature `tls`).
/// The features `tokio` (the default) and `smol` choose
/// the runtimes that `psrpc-bus-redis` supports.
///
/// # Errors
///
/// Returns `invalid_argument` if the URL is invalid or its scheme is unknown, `failed_precondition`
/// if the feature of `psrpc-bus-redis` for the runtime is off, and `unavailable` if the server is
/// unreachable or refuses the connection. The text names the server and the cause, but no secret.
pub async fn connect(url: &str, runtime: impl Runtime) -> Result<Arc<dyn Bus>, Error> {
    open(url, runtime, Options::default()).await
}

/// Connects to the bus at a URL that asks for TLS, with PEM files.
///
/// Without files, this is [`connect`].
///
/// ```no_run
/// # use psrpc_tokio as psrpc;
/// # async fn example() -> Result<(), psrpc::Error> {
/// use psrpc_bus_url::TlsFiles;
///
/// let files = TlsFiles::new().ca("ca.pem").client_certificate("client.pem", "client-key.pem");
/// let url = "rediss://redis.internal";
/// let bus = psrpc_bus_url::connect_with_tls(url, psrpc::default_runtime()?, files).await?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// Returns the errors of [`connect`], and `invalid_argument` if a file is unreadable or not in PEM
/// format (the text names the file), or if there are files and the URL does not ask for TLS. If a
/// file becomes unreadable later, the attempt to reconnect fails with that cause.
#[cfg(feature = "tls")]
pub async fn connect_with_tls(
    url: &str,
    runtime: impl Runtime,
    files: TlsFiles,
) -> Result<Arc<dyn Bus>, Error> {
    if files.is_empty() {
        return connect(url, runtime).await;
    }
    files.read().map_err(|problem| Error::new(ErrorCode::InvalidArgument, format!("TLS: {problem}")))?;
    if scheme(url) == Some("local") {
        return Err(Error::new(
            ErrorCode::InvalidArgument,
            "there are TLS files, which need a URL that asks for TLS; `local:` does not",
        ));
    }
    let for_redis = files.clone();
    let options = Options {
        redis: RedisOptions::new().tls(move || for_redis.read()),
        nats: NatsOptions::new().tls(move || files.read()),
    };
    open(url, runtime, options).await
}

/// Options of the buses that connect to servers.
#[derive(Default)]
struct Options {
    redis: RedisOptions,
    nats: NatsOptions,
}

async fn open(url: &str, runtime: impl Runtime, options: Options) -> Result<Arc<dyn Bus>, Error> {
    match scheme(url) {
        Some("local") => match LocalBus::from_url(url) {
            Ok(bus) => Ok(Arc::new(bus)),
            Err(error) => Err(Error::from_source(ErrorCode::InvalidArgument, error)),
        },
        Some("nats" | "tls") => Ok(Arc::new(NatsBus::connect_with(url, runtime, options.nats).await?)),
        // `RedisBus` reports the schemes that it does not support.
        Some(scheme) if is_redis(scheme) => {
            Ok(Arc::new(RedisBus::connect_with(url, runtime, options.redis).await?))
        }
        scheme => {
            let problem =
                scheme.map_or("the scheme is missing".into(), |scheme| format!("unknown scheme `{scheme}:`"));
            let text = format!("invalid bus URL: {problem} (expected `local:`, `redis://` or `nats://`)");
            Err(Error::new(ErrorCode::InvalidArgument, text))
        }
    }
}

/// Returns the scheme of a URL for use in errors, or `None` if there is none. The rest of the URL
/// may contain a password, and so may text before a `:` that is not followed by `//`.
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
        connect(url, TokioRuntime::current().unwrap())
            .await
            .err()
            .expect("the URL must be refused")
            .to_string()
    }

    #[tokio::test]
    async fn an_unknown_scheme_is_named_without_the_rest_of_the_url() {
        assert!(connect("local:", TokioRuntime::current().unwrap()).await.is_ok());
        let text = refusal("amqp://user:s3cret@x").await;
        assert!(text.starts_with("invalid_argument: invalid bus URL: unknown scheme `amqp:` ("), "{text}");
        for scheme in ["amqp+ssl", "coap-tcp", "z39.50r"] {
            let text = refusal(&format!("{scheme}://:s3cret@x")).await;
            assert!(text.contains(&format!("unknown scheme `{scheme}:`")), "{text}");
        }
        for url in
            ["s3cret-token@host:4222", "s3cret", "s3cret@host", "s3cret:4222", "9s3cret://x", "://s3cret", ""]
        {
            let text = refusal(url).await;
            assert!(text.starts_with("invalid_argument: invalid bus URL: the scheme is missing ("), "{text}");
        }
        #[cfg(not(feature = "tls"))]
        assert!(refusal("tls://x").await.contains("TLS"));
        assert!(refusal("local://x").await.contains("after `local:`"));
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
