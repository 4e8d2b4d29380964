//! What a bus says when it could not do as asked.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::error::Error;
use core::fmt;

/// What a bus reports when it could not do as asked. Cheap to clone.
#[derive(Clone)]
pub struct BusError {
    error: Arc<dyn Error + Send + Sync>,
    invalid: bool,
}

impl BusError {
    /// An error of the bus, with whatever it has to say.
    pub fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { error: Arc::from(error.into()), invalid: false }
    }

    /// The bus cannot carry this frame, however often it is tried: it is larger than the server of
    /// the bus allows, for example. Nothing was sent. What failed for this is
    /// `invalid_argument`.
    pub fn invalid(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { error: Arc::from(error.into()), invalid: true }
    }

    /// Whether the bus cannot carry the frame, however often it is tried.
    pub fn is_invalid(&self) -> bool {
        self.invalid
    }
}

impl fmt::Debug for BusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.error, f)
    }
}

impl fmt::Display for BusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.error, f)
    }
}

impl Error for BusError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.source()
    }
}
