//! TLS handshakes.

use std::io;
use std::sync::Arc;

use psrpc_bus_net::TlsOptions;
use rustls::InvalidMessage;
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::stream::Stream;

/// Performs the handshake with the server at `host`.
pub(crate) async fn handshake(
    options: &TlsOptions,
    host: &str,
    stream: Box<dyn Stream>,
) -> Result<TlsStream<Box<dyn Stream>>, HandshakeError> {
    let server_name = ServerName::try_from(host.to_owned()).map_err(|_| {
        HandshakeError::Refused(format!("TLS: `{host}` is neither a host name nor an IP address"))
    })?;
    let connector = TlsConnector::from(Arc::new(options.config().map_err(HandshakeError::Refused)?));
    connector.connect(server_name, stream).await.map_err(|error| of_handshake(&error))
}

/// Why a handshake failed.
pub(crate) enum HandshakeError {
    /// One side refuses the certificate of the other, or the options are invalid.
    Refused(String),
    /// The connection was lost, or the server does not speak TLS.
    Failed(String),
}

fn of_handshake(error: &io::Error) -> HandshakeError {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            HandshakeError::Failed("the server does not speak TLS".into())
        }
        Some(_) => HandshakeError::Refused(format!("TLS: {error}")),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            HandshakeError::Failed("the server closed the connection during the TLS handshake".into())
        }
        None => HandshakeError::Failed(format!("TLS: {error}")),
    }
}
