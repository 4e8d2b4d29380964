//! Credentials of a client of a NATS server.

use std::fmt;

use async_nats::ConnectOptions;

/// Credentials of a client of a NATS server. `Debug` does not show secrets.
#[derive(Clone, PartialEq)]
pub struct Credentials(Kind);

#[derive(Clone, PartialEq)]
enum Kind {
    Token(String),
    User {
        name: String,
        password: String,
    },
    #[cfg(feature = "nkeys")]
    NKey(String),
    /// The content of a credentials file.
    #[cfg(feature = "nkeys")]
    File(String),
}

/// The problem with an NKey seed or a credentials file. The text does not show them.
#[cfg(feature = "nkeys")]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialsError {
    /// The text is not an NKey seed.
    #[error("invalid NKey seed: expected the seed of a user (`SU...`, 58 characters)")]
    Seed,
    /// The text does not contain a user JWT and a seed.
    #[error(
        "invalid credentials file: expected the blocks `NATS USER JWT` and `USER NKEY SEED` as `nsc` writes them"
    )]
    File,
}

impl Credentials {
    /// Returns a token.
    pub fn token(token: impl Into<String>) -> Self {
        Self(Kind::Token(token.into()))
    }

    /// Returns a user and a password.
    pub fn user(name: impl Into<String>, password: impl Into<String>) -> Self {
        Self(Kind::User { name: name.into(), password: password.into() })
    }

    /// Returns the NKey with this seed, which signs a nonce of the server.
    ///
    /// # Errors
    ///
    /// Returns [`CredentialsError::Seed`] if the text is not the seed of a user.
    #[cfg(feature = "nkeys")]
    pub fn nkey(seed: &str) -> Result<Self, CredentialsError> {
        let key = nkeys::KeyPair::from_seed(seed.trim()).map_err(|_| CredentialsError::Seed)?;
        match key.key_pair_type() {
            nkeys::KeyPairType::User => Ok(Self(Kind::NKey(seed.trim().to_owned()))),
            _ => Err(CredentialsError::Seed),
        }
    }

    /// Returns the credentials in the content of a credentials file (`*.creds`): a user JWT, and
    /// the seed that signs a nonce of the server.
    ///
    /// # Errors
    ///
    /// Returns [`CredentialsError::File`] if the text is not a credentials file.
    #[cfg(feature = "nkeys")]
    pub fn from_creds(content: &str) -> Result<Self, CredentialsError> {
        ConnectOptions::new().credentials(content).map_err(|_| CredentialsError::File)?;
        Ok(Self(Kind::File(content.to_owned())))
    }

    pub(crate) fn apply(self, client: ConnectOptions) -> ConnectOptions {
        match self.0 {
            Kind::Token(token) => client.token(token),
            Kind::User { name, password } => client.user_and_password(name, password),
            #[cfg(feature = "nkeys")]
            Kind::NKey(seed) => client.nkey(seed),
            #[cfg(feature = "nkeys")]
            Kind::File(content) => client.credentials(&content).expect("`from_creds` has parsed it"),
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Token(_) => f.write_str("Credentials::Token"),
            Kind::User { name, .. } => write!(f, "Credentials::User({name:?})"),
            #[cfg(feature = "nkeys")]
            Kind::NKey(_) => f.write_str("Credentials::NKey"),
            #[cfg(feature = "nkeys")]
            Kind::File(_) => f.write_str("Credentials::File"),
        }
    }
}

#[cfg(all(test, feature = "nkeys"))]
mod tests {
    use super::*;

    #[test]
    fn invalid_seeds_and_files_are_refused_without_being_shown() {
        let user = nkeys::KeyPair::new_user().seed().unwrap();
        assert!(Credentials::nkey(&format!("{user}\n")).is_ok());
        let account = nkeys::KeyPair::new_account().seed().unwrap();
        for seed in [&account, &user[1..], "SUs3cret", ""] {
            assert_eq!(Credentials::nkey(seed), Err(CredentialsError::Seed), "{seed:?}");
        }
        let file = |seed: &str| {
            let block = |name, text| format!("-----BEGIN {name}-----\n{text}\n------END {name}------\n");
            block("NATS USER JWT", "e30.e30.sig") + &block("USER NKEY SEED", seed)
        };
        assert!(Credentials::from_creds(&file(&user)).is_ok());
        for content in [file("SUs3cret"), user.clone(), String::new()] {
            assert_eq!(Credentials::from_creds(&content), Err(CredentialsError::File), "{content}");
        }
        for credentials in [
            Credentials::token("s3cret"),
            Credentials::user("me", "s3cret"),
            Credentials::nkey(&user).unwrap(),
            Credentials::from_creds(&file(&user)).unwrap(),
        ] {
            let shown = format!("{credentials:?}");
            assert!(!shown.contains("s3cret") && !shown.contains(&user[2..]), "{shown}");
        }
    }
}
