//! Options of TLS connections.

use std::fmt;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// Options of TLS connections: the servers that the bus trusts, and its own certificate.
///
/// By default the bus trusts the root certificates of the system and shows no certificate. The
/// certificate of a server must be for the host of its URL. If a sentinel or a cluster announced
/// the server, the certificate must be for the announced host. TLS 1.2 and 1.3 are supported.
/// `Debug` shows no certificate and no key.
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

    /// Sets the host name or IP address that the certificate of each server must be for. Default:
    /// the host of the URL, or the host that a sentinel or a cluster names.
    ///
    /// The bus sends the host to the server (SNI), not this name.
    #[must_use]
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// Returns the configuration of rustls.
    ///
    /// # Errors
    ///
    /// Returns the problem with the options, without any part of a certificate or a key.
    pub fn config(&self) -> Result<ClientConfig, String> {
        let provider = Arc::new(ring::default_provider());
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(self.roots()?), Arc::clone(&provider))
                .build()
                .map_err(|error| format!("TLS: invalid CA certificates: {error}"))?;
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS: {error}"))?;
        let config = match &self.server_name {
            None => config.with_webpki_verifier(verifier),
            Some(name) => {
                let name = ServerName::try_from(name.clone())
                    .map_err(|_| format!("TLS: `{name}` is neither a host name nor an IP address"))?;
                let verifier = Arc::new(NamedServer { name, verifier });
                config.dangerous().with_custom_certificate_verifier(verifier)
            }
        };
        let Some(Identity { certificate, key }) = &self.identity else {
            return Ok(config.with_no_client_auth());
        };
        let chain = certificates(certificate, "client certificate")?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|_| "TLS: the client key is not a private key in PEM format")?;
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

/// Parses one or more certificates. `name` is their name in errors.
fn certificates(pem: &[u8], name: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(format!("TLS: the {name} is not a certificate in PEM format")),
    }
}

/// Verifies certificates as rustls does by default, but for this name instead of the host.
#[derive(Debug)]
struct NamedServer {
    name: ServerName<'static>,
    verifier: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for NamedServer {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _host: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verifier.verify_server_cert(certificate, intermediates, &self.name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
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
    use psrpc_servers::Certificates;

    use super::*;

    #[test]
    fn invalid_certificates_and_keys_are_refused_without_being_shown() {
        let certificates = Certificates::new();
        let (client, other) = (certificates.client(), certificates.unrelated_client());
        let options = || TlsOptions::new().ca(certificates.authority().pem());
        let with = |certificate: &str, key: &str| options().client_certificate(certificate, key);
        assert!(with(client.certificate().pem(), client.key().pem()).config().is_ok());
        let garbage = "-----BEGIN CERTIFICATE-----\ns3cret\n-----END CERTIFICATE-----\n";
        for (options, expected) in [
            (TlsOptions::new().ca("s3cret"), "TLS: the CA is not a certificate in PEM format"),
            (
                TlsOptions::new().ca(garbage),
                "TLS: invalid CA certificate: invalid peer certificate: BadEncoding",
            ),
            (TlsOptions::new().ca(client.key().pem()), "TLS: the CA is not a certificate in PEM format"),
            (
                with("s3cret", client.key().pem()),
                "TLS: the client certificate is not a certificate in PEM format",
            ),
            (
                with(client.certificate().pem(), "s3cret"),
                "TLS: the client key is not a private key in PEM format",
            ),
            (
                with(client.certificate().pem(), other.key().pem()),
                "TLS: client certificate: keys may not be consistent: KeyMismatch",
            ),
        ] {
            assert_eq!(options.config().unwrap_err(), expected);
            assert!(!format!("{options:?}").contains("s3cret"));
        }
    }
}
