//! Functions that a bus calls for each connection.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// An error of a function that returns credentials or TLS options.
pub type ProviderError = Box<dyn Error + Send + Sync>;

/// A function that a bus calls for each connection, so that its result can change while the bus
/// runs. Cheap to clone.
pub struct Provider<T> {
    name: &'static str,
    provide: Arc<dyn Fn() -> Result<T, ProviderError> + Send + Sync>,
}

impl<T> Provider<T> {
    /// Wraps a function. Errors refer to its values as `name`.
    pub fn new<E: Into<ProviderError>>(
        name: &'static str,
        provide: impl Fn() -> Result<T, E> + Send + Sync + 'static,
    ) -> Self {
        Self { name, provide: Arc::new(move || provide().map_err(Into::into)) }
    }

    /// Calls the function.
    ///
    /// # Errors
    ///
    /// Returns the name of the values and the error of the function.
    pub fn provide(&self) -> Result<T, String> {
        (self.provide)().map_err(|error| format!("no {}: {error}", self.name))
    }
}

impl<T> Clone for Provider<T> {
    fn clone(&self) -> Self {
        Self { name: self.name, provide: Arc::clone(&self.provide) }
    }
}

impl<T> fmt::Debug for Provider<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider").field("name", &self.name).finish_non_exhaustive()
    }
}
