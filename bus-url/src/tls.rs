//! The PEM files of TLS connections.

use std::fs;
use std::path::{Path, PathBuf};

use psrpc_bus_net::TlsOptions;
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

    /// Sets the files of the client certificate, with its chain, and of its private key. Default:
    /// none.
    #[must_use]
    pub fn client_certificate(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.client = Some(ClientFiles { certificate: certificate.into(), key: key.into() });
        self
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ca.is_none() && self.client.is_none()
    }

    /// Reads the files. Returns an error that names the file if one is unreadable or not in PEM
    /// format.
    pub(crate) fn read(&self) -> Result<TlsOptions, String> {
        let mut options = TlsOptions::new();
        if let Some(ca) = &self.ca {
            options = options.ca(certificates(ca)?);
        }
        if let Some(ClientFiles { certificate, key }) = &self.client {
            options = options.client_certificate(certificates(certificate)?, private_key(key)?);
        }
        Ok(options)
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
