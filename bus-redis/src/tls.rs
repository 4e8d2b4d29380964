//! TLS: its options, and the handshake.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, InvalidMessage, RootCertStore};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::stream::Stream;

/// Options of TLS connections: which servers the bus trusts, and how it identifies itself.
///
/// By default the bus trusts the root certificates of the system, shows no certificate of its own,
/// and expects the certificate to be for the host of the URL. It speaks TLS 1.2 and 1.3.
#[derive(Clone, Default)]
pub struct TlsOptions {
    ca: Option<Vec<u8>>,
    identity: Option<Identity>,
    server_name: Option<String>,
}

#[derive(Clone)]
struct Identity {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl TlsOptions {
    /// Returns the default options.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the certificates of the authorities that the bus trusts, in PEM format. Default: those
    /// of the system.
    #[must_use]
    pub fn ca(mut self, certificates: impl Into<Vec<u8>>) -> Self {
        self.ca = Some(certificates.into());
        self
    }

    /// Sets the certificate that the bus shows to the server, with its chain, and its private key,
    /// both in PEM format. Default: none.
    #[must_use]
    pub fn client_certificate(mut self, certificate: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        self.identity = Some(Identity { certificate: certificate.into(), key: key.into() });
        self
    }

    /// Sets the name that the server's certificate must be for. The bus also sends it to the
    /// server. Default: the host of the URL, or the host that a sentinel or a cluster names.
    #[must_use]
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// Performs the handshake with the server at `host`.
    pub(crate) async fn handshake(
        &self,
        host: &str,
        stream: Box<dyn Stream>,
    ) -> Result<TlsStream<Box<dyn Stream>>, HandshakeError> {
        let name = self.server_name.as_deref().unwrap_or(host);
        let server_name = ServerName::try_from(name.to_owned())
            .map_err(|_| format!("TLS: `{name}` is neither a host name nor an IP address"));
        let server_name = server_name.map_err(HandshakeError::Refused)?;
        let config = self.config().map_err(HandshakeError::Refused)?;
        let connector = TlsConnector::from(Arc::new(config));
        connector.connect(server_name, stream).await.map_err(|error| of_handshake(&error))
    }

    fn config(&self) -> Result<ClientConfig, String> {
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(self.roots()?), provider.clone());
        let verifier = verifier.build().map_err(|error| format!("TLS: invalid CA certificates: {error}"))?;
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS: {error}"))?
            .with_webpki_verifier(verifier);
        let Some(Identity { certificate, key }) = &self.identity else {
            return Ok(config.with_no_client_auth());
        };
        let chain = certificates(certificate, "client certificate")?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|_| "TLS: the client key is no private key in PEM format")?;
        config.with_client_auth_cert(chain, key).map_err(|error| format!("TLS: client certificate: {error}"))
    }

    fn roots(&self) -> Result<RootCertStore, String> {
        let mut roots = RootCertStore::empty();
        let Some(ca) = &self.ca else {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            return match roots.is_empty() {
                true => Err("TLS: the system has no root certificates: set `TlsOptions::ca`".into()),
                false => Ok(roots),
            };
        };
        for certificate in certificates(ca, "CA")? {
            roots.add(certificate).map_err(|error| format!("TLS: invalid CA certificate: {error}"))?;
        }
        Ok(roots)
    }
}

/// Reads at least one certificate. `what` names them in errors.
fn certificates(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(format!("TLS: the {what} is no certificate in PEM format")),
    }
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

impl fmt::Debug for TlsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsOptions")
            .field("ca", &self.ca.is_some())
            .field("client_certificate", &self.identity.is_some())
            .field("server_name", &self.server_name)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_certificate_or_key_is_refused_without_being_shown() {
        let refusal = |options: TlsOptions| options.config().expect_err("it is not PEM");
        assert_eq!(refusal(TlsOptions::new().ca("s3cret")), "TLS: the CA is no certificate in PEM format");
        let garbage = "-----BEGIN CERTIFICATE-----\ns3cret\n-----END CERTIFICATE-----\n";
        let said = refusal(TlsOptions::new().ca(garbage));
        assert!(said.contains("CA") && !said.contains("s3cret"), "{said}");
        let shown = format!("{:?}", TlsOptions::new().ca("s3cret").client_certificate("s3cret", "s3cret"));
        assert!(!shown.contains("s3cret"), "{shown}");
    }
}
