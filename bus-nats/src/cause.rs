//! Texts that explain why an attempt to connect failed or a connection was lost.

use std::error::Error;
use std::io::{self, ErrorKind};

use async_nats::rustls::{self, InvalidMessage};
use async_nats::{ConnectError, ConnectErrorKind, ServerError};

use crate::connect::AttemptError;
use crate::options::NatsOptions;
use crate::url::Servers;

/// Returns the cause of an error of the client library, with a remedy if one is known.
pub(crate) fn explain(error: &ConnectError, servers: &Servers, options: &NatsOptions) -> AttemptError {
    use AttemptError::{Failed, Refused};

    let io = io_error(error);
    match error.kind() {
        ConnectErrorKind::TimedOut => return Failed(timed_out(servers, options)),
        ConnectErrorKind::AuthorizationViolation => {
            return Refused(server_words(&ServerError::AuthorizationViolation));
        }
        ConnectErrorKind::Authentication => return Refused(error.to_string()),
        _ => {}
    }
    match io.and_then(io::Error::get_ref).and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            let hint = if options.tls_first { " first: unset `tls_first`" } else { ": use a `nats://` URL" };
            Failed(format!("the server does not speak TLS{hint}"))
        }
        Some(error) if servers.tls => Refused(format!("TLS: {error}")),
        Some(error) => Refused(format!("the server requires TLS (use a `tls://` URL): {error}")),
        None if servers.tls && io.is_some_and(is_end) => Refused(
            "the server ended the connection during or after the TLS handshake, perhaps because it requires a client certificate".to_owned()
        ),
        None => Failed(error.to_string()),
    }
}

/// Returns the cause of a panic. For a `nats://` URL the client library uses the default crypto
/// provider of the process. If the server requires TLS and there is no such provider, it panics.
pub(crate) fn explain_panic(text: &str, servers: &Servers) -> String {
    match text.contains("CryptoProvider") && !servers.tls {
        true => {
            "the server requires TLS: use a `tls://` URL, with the feature `tls` of psrpc-bus-nats".to_owned()
        }
        false => format!("connecting panicked: {text}"),
    }
}

/// Returns the server's message.
pub(crate) fn server_words(error: &ServerError) -> String {
    let text = error.to_string();
    text.strip_prefix("nats: ").unwrap_or(&text).to_owned()
}

/// Returns the cause of an attempt that took too long.
pub(crate) fn timed_out(servers: &Servers, options: &NatsOptions) -> String {
    let hint = match servers.tls && !options.tls_first {
        true => "; a server with `handshake_first` requires `NatsOptions::tls_first`",
        false => "",
    };
    format!("no response from a NATS server within {:?}{hint}", options.connection_timeout)
}

fn io_error(error: &ConnectError) -> Option<&io::Error> {
    error.source().and_then(|source| source.downcast_ref())
}

fn is_end(error: &io::Error) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}
