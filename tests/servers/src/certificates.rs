//! Certificates for TLS tests: valid ones, and one for each kind of defect.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use tempfile::TempDir;

/// An authority and certificates signed by it, and a second, unrelated authority. Each value has
/// new keys and certificates.
///
/// A clone shares the files. They are removed when the last clone is dropped; a server with TLS
/// keeps a clone.
#[derive(Clone)]
pub struct Certificates(Arc<Inner>);

struct Inner {
    authority: PemFile,
    unrelated_authority: PemFile,
    server: Identity,
    expired_server: Identity,
    wrong_name_server: Identity,
    unrelated_server: Identity,
    client: Identity,
    unrelated_client: Identity,
    _directory: TempDir,
}

/// A file in PEM format.
#[derive(Clone)]
pub struct PemFile {
    path: PathBuf,
    pem: String,
}

/// A certificate and its private key.
#[derive(Clone)]
pub struct Identity {
    certificate: PemFile,
    key: PemFile,
}

impl Certificates {
    /// Makes keys and certificates, and writes them to a temporary directory.
    ///
    /// # Panics
    ///
    /// Panics if the files cannot be written.
    #[expect(clippy::new_without_default, reason = "it writes files")]
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let authority = Authority::new("authority");
        let unrelated = Authority::new("unrelated authority");
        let at = directory.path();
        let mut expired = params("expired server", ExtendedKeyUsagePurpose::ServerAuth, &HERE);
        expired.not_before = rcgen::date_time_ymd(2000, 1, 1);
        expired.not_after = rcgen::date_time_ymd(2001, 1, 1);
        let server = |name| params(name, ExtendedKeyUsagePurpose::ServerAuth, &HERE);
        let client = |name| params(name, ExtendedKeyUsagePurpose::ClientAuth, &[]);
        let elsewhere =
            params("wrong name server", ExtendedKeyUsagePurpose::ServerAuth, &["elsewhere.example"]);
        Self(Arc::new(Inner {
            authority: PemFile::write(at, "authority", authority.pem.clone()),
            unrelated_authority: PemFile::write(at, "unrelated-authority", unrelated.pem.clone()),
            server: authority.identity(at, "server", &server("server")),
            expired_server: authority.identity(at, "expired-server", &expired),
            wrong_name_server: authority.identity(at, "wrong-name-server", &elsewhere),
            unrelated_server: unrelated.identity(at, "unrelated-server", &server("unrelated server")),
            client: authority.identity(at, "client", &client("client")),
            unrelated_client: unrelated.identity(at, "unrelated-client", &client("unrelated client")),
            _directory: directory,
        }))
    }

    /// The certificate of the authority that signed all certificates but the unrelated ones.
    pub fn authority(&self) -> &PemFile {
        &self.0.authority
    }

    /// The certificate of an authority that signed the unrelated certificates only.
    pub fn unrelated_authority(&self) -> &PemFile {
        &self.0.unrelated_authority
    }

    /// A valid server certificate for `127.0.0.1` and `localhost`.
    pub fn server(&self) -> &Identity {
        &self.0.server
    }

    /// A server certificate that expired in 2001.
    pub fn expired_server(&self) -> &Identity {
        &self.0.expired_server
    }

    /// A server certificate for `elsewhere.example` alone.
    pub fn wrong_name_server(&self) -> &Identity {
        &self.0.wrong_name_server
    }

    /// A server certificate for `127.0.0.1` and `localhost`, signed by the unrelated authority.
    pub fn unrelated_server(&self) -> &Identity {
        &self.0.unrelated_server
    }

    /// A valid client certificate. Its common name is `client`.
    pub fn client(&self) -> &Identity {
        &self.0.client
    }

    /// A client certificate that is signed by the unrelated authority.
    pub fn unrelated_client(&self) -> &Identity {
        &self.0.unrelated_client
    }
}

impl PemFile {
    fn write(directory: &Path, name: &str, pem: String) -> Self {
        let path = directory.join(format!("{name}.pem"));
        fs::write(&path, &pem).expect("a file can be written to a temporary directory");
        Self { path, pem }
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the content of the file.
    pub fn pem(&self) -> &str {
        &self.pem
    }
}

impl Identity {
    /// The certificate.
    pub fn certificate(&self) -> &PemFile {
        &self.certificate
    }

    /// The private key, in PKCS #8.
    pub fn key(&self) -> &PemFile {
        &self.key
    }
}

/// The names of the servers that the tests start.
const HERE: [&str; 2] = ["127.0.0.1", "localhost"];

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = new_key();
        let pem = params.self_signed(&key).expect("an authority signs itself").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    fn identity(&self, directory: &Path, name: &str, params: &CertificateParams) -> Identity {
        let key = new_key();
        let certificate = params.signed_by(&key, &self.issuer).expect("an authority signs a certificate");
        Identity {
            certificate: PemFile::write(directory, name, certificate.pem()),
            key: PemFile::write(directory, &format!("{name}-key"), key.serialize_pem()),
        }
    }
}

fn params(name: &str, usage: ExtendedKeyUsagePurpose, hosts: &[&str]) -> CertificateParams {
    let hosts: Vec<_> = hosts.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(hosts).expect("the names of hosts are valid");
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    params
}

fn new_key() -> KeyPair {
    KeyPair::generate().expect("a key can be generated")
}
