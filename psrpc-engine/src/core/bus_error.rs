//! The error of a bus.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::error::Error;
use core::fmt;

/// An error that a bus reports. Cheap to clone.
#[derive(Clone)]
pub struct BusError {
    error: Arc<dyn Error + Send + Sync>,
    invalid: bool,
}

impl BusError {
    /// Creates an error with the message and the source of `error`.
    pub fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { error: Arc::from(error.into()), invalid: false }
    }

    /// Creates an error for a frame that the bus can never carry, for example because it exceeds a
    /// limit of the bus's server. Nothing was sent. The call, message or update fails with
    /// `invalid_argument`.
    pub fn invalid(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { error: Arc::from(error.into()), invalid: true }
    }

    /// Returns `true` if the bus can never carry the frame.
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
