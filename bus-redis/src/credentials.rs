//! Credentials, and functions that the bus calls for each connection.

use std::fmt;
use std::sync::Arc;

/// Any error of a function that provides credentials or certificates.
pub(crate) type ProviderError = Box<dyn std::error::Error + Send + Sync>;

/// A user of the server and a password. `Debug` does not show the password.
#[derive(Clone)]
pub struct Credentials {
    pub(crate) user: Option<String>,
    pub(crate) password: String,
}

impl Credentials {
    /// Returns the credentials of a user of the server's access control list.
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self { user: Some(user.into()), password: password.into() }
    }

    /// Returns the credentials of the default user (`requirepass`).
    pub fn of_default_user(password: impl Into<String>) -> Self {
        Self { user: None, password: password.into() }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// A function that the bus calls for each connection.
pub(crate) struct Provider<T>(Arc<dyn Fn() -> Result<T, ProviderError> + Send + Sync>);

impl<T> Provider<T> {
    pub(crate) fn new<E: Into<ProviderError>>(
        provide: impl Fn() -> Result<T, E> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(move || provide().map_err(Into::into)))
    }

    pub(crate) fn provide(&self) -> Result<T, ProviderError> {
        (self.0)()
    }
}

impl<T> Clone for Provider<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> fmt::Debug for Provider<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider").finish_non_exhaustive()
    }
}
