//! The PEM files of TLS connections.

use std::fs;
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// The PEM files of TLS connections. By default there are none: the bus trusts the root
/// certificates of the system, and shows no certificate.
///
/// The bus reads the files for each connection, so they can be replaced while it runs.
#[derive(Clone, Debug, Default)]
pub struct TlsFiles {
    ca: Option<PathBuf>,
    client: Option<ClientFiles>,
}

#[derive(Clone, Debug)]
struct ClientFiles {
    certificate: PathBuf,
    key: PathBuf,
}

/// The contents of the files.
#[derive(Default)]
struct Pem {
    ca: Option<Vec<u8>>,
    client: Option<(Vec<u8>, Vec<u8>)>,
}

impl TlsFiles {
    /// Returns the default: no files.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the file with the certificates of the authorities that the bus trusts. Default: those
    /// of the system.
    #[must_use]
    pub fn ca(mut self, file: impl Into<PathBuf>) -> Self {
        self.ca = Some(file.into());
        self
    }

    /// Sets the files with the certificate that the bus shows to the server, with its chain, and
    /// with its private key. Default: none.
    #[must_use]
    pub fn client_certificate(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.client = Some(ClientFiles { certificate: certificate.into(), key: key.into() });
        self
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ca.is_none() && self.client.is_none()
    }

    /// Checks that each file is readable and in PEM format. The error names the file.
    pub(crate) fn check(&self) -> Result<(), String> {
        self.read().map(|_| ())
    }

    pub(crate) fn redis(&self) -> Result<psrpc_bus_redis::TlsOptions, String> {
        let Pem { ca, client } = self.read()?;
        let mut options = psrpc_bus_redis::TlsOptions::new();
        if let Some(ca) = ca {
            options = options.ca(ca);
        }
        if let Some((certificate, key)) = client {
            options = options.client_certificate(certificate, key);
        }
        Ok(options)
    }

    pub(crate) fn nats(&self) -> Result<psrpc_bus_nats::TlsOptions, String> {
        let Pem { ca, client } = self.read()?;
        let mut options = psrpc_bus_nats::TlsOptions::new();
        if let Some(ca) = ca {
            options = options.ca(ca);
        }
        if let Some((certificate, key)) = client {
            options = options.client_certificate(certificate, key);
        }
        Ok(options)
    }

    fn read(&self) -> Result<Pem, String> {
        let ca = self.ca.as_deref().map(certificates).transpose()?;
        let client = match &self.client {
            Some(client) => Some((certificates(&client.certificate)?, private_key(&client.key)?)),
            None => None,
        };
        Ok(Pem { ca, client })
    }
}

fn certificates(file: &Path) -> Result<Vec<u8>, String> {
    let pem = read(file)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(pem),
        _ => Err(format!("{}: not a certificate in PEM format", file.display())),
    }
}

fn private_key(file: &Path) -> Result<Vec<u8>, String> {
    let pem = read(file)?;
    match PrivateKeyDer::from_pem_slice(&pem) {
        Ok(_) => Ok(pem),
        Err(_) => Err(format!("{}: not a private key in PEM format", file.display())),
    }
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    fs::read(file).map_err(|error| format!("{}: {error}", file.display()))
}
