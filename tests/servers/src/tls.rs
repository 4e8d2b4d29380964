//! The TLS settings of a server, and their form in the configuration of each kind of server.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::certificates::{Certificates, Identity, PemFile};

/// Settings of a server with TLS: the certificate that it shows, and whether clients need one.
#[derive(Clone)]
pub struct ServerTls {
    certificates: Certificates,
    identity: Identity,
    requires_client_certificate: bool,
}

impl ServerTls {
    /// Shows the valid server certificate, and takes clients without a certificate.
    pub fn new(certificates: &Certificates) -> Self {
        Self {
            identity: certificates.server().clone(),
            certificates: certificates.clone(),
            requires_client_certificate: false,
        }
    }

    /// Shows this certificate instead.
    #[must_use]
    pub fn show(mut self, identity: &Identity) -> Self {
        self.identity = identity.clone();
        self
    }

    /// Refuses clients without a certificate of [`Certificates::authority`].
    #[must_use]
    pub fn require_client_certificate(mut self) -> Self {
        self.requires_client_certificate = true;
        self
    }

    /// Returns the certificates that these settings choose from.
    pub fn certificates(&self) -> &Certificates {
        &self.certificates
    }

    /// The arguments of `redis-server`. Servers show a client certificate to each other.
    pub(crate) fn redis_arguments(&self) -> Vec<String> {
        let client = self.certificates.client();
        let files = [
            ("--tls-cert-file", self.identity.certificate()),
            ("--tls-key-file", self.identity.key()),
            ("--tls-client-cert-file", client.certificate()),
            ("--tls-client-key-file", client.key()),
            ("--tls-ca-cert-file", self.certificates.authority()),
        ];
        let auth_clients = if self.requires_client_certificate { "yes" } else { "no" };
        let words =
            [("--tls-auth-clients", auth_clients), ("--tls-replication", "yes"), ("--tls-cluster", "yes")];
        let files = files.into_iter().map(|(option, file)| (option, text(file.path())));
        let words = words.into_iter().map(|(option, word)| (option, word.to_owned()));
        files.chain(words).flat_map(|(option, value)| [option.to_owned(), value]).collect()
    }

    /// The block of `nats-server`'s configuration.
    pub(crate) fn nats_block(&self) -> String {
        let file = |file: &PemFile| text(file.path());
        format!(
            "tls {{ cert_file: \"{}\", key_file: \"{}\", ca_file: \"{}\", verify: {} }}",
            file(self.identity.certificate()),
            file(self.identity.key()),
            file(self.certificates.authority()),
            self.requires_client_certificate,
        )
    }

    /// The settings of a client of such a server. It shows the client certificate.
    pub(crate) fn client_config(&self) -> ClientConfig {
        let client = self.certificates.client();
        ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring has the default versions")
            .with_root_certificates(self.roots())
            .with_client_auth_cert(vec![certificate(client.certificate())], key(client))
            .expect("the client's key fits its certificate")
    }

    /// The settings of a server of this process.
    pub(crate) fn server_config(&self) -> ServerConfig {
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("ring has the default versions");
        let builder = if self.requires_client_certificate {
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots()), provider).build();
            builder.with_client_cert_verifier(verifier.expect("there is an authority"))
        } else {
            builder.with_no_client_auth()
        };
        let chain = vec![certificate(self.identity.certificate())];
        builder.with_single_cert(chain, key(&self.identity)).expect("the server's key fits its certificate")
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(certificate(self.certificates.authority())).expect("an authority is a certificate");
        roots
    }
}

fn certificate(file: &PemFile) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(file.pem().as_bytes()).expect("a certificate is in PEM format")
}

fn key(identity: &Identity) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_slice(identity.key().pem().as_bytes()).expect("a key is in PEM format")
}

fn text(path: &Path) -> String {
    path.to_str().expect("the path of a temporary directory is UTF-8").to_owned()
}
