//! Using `?` in handlers on errors of any type.

use std::error::Error as StdError;

use psrpc_engine::proto::ErrorCode;

use super::Error;

/// An extension trait that converts the error of a `Result` into an [`Error`] that a handler can
/// return.
///
/// ```
/// use psrpc::{Error, ErrorCode, ResultExt};
///
/// fn price(share: &str) -> Result<u32, Error> {
///     let cents = std::env::var(share).code(ErrorCode::NotFound)?;
///     cents.parse().internal()
/// }
/// assert_eq!(price("OAK").unwrap_err().code(), &ErrorCode::NotFound);
/// ```
///
/// The caller gets the code and the text of the error. The server logs the error with its sources,
/// the service, the method and the request id. The level is error if the server is at
/// [fault](Error::fault), and debug otherwise. If the text must not reach the caller, return an
/// [`Error::new`] with another text.
pub trait ResultExt<T> {
    /// Converts the error to an [`Error`] with this code.
    ///
    /// # Errors
    ///
    /// Returns the converted error.
    fn code(self, code: ErrorCode) -> Result<T, Error>;

    /// Converts the error to an [`Error`] with the code `internal`.
    ///
    /// # Errors
    ///
    /// Returns the converted error.
    fn internal(self) -> Result<T, Error>;
}

impl<T, E: Into<Box<dyn StdError + Send + Sync>>> ResultExt<T> for Result<T, E> {
    fn code(self, code: ErrorCode) -> Result<T, Error> {
        self.map_err(|error| Error::from_source(code, error))
    }

    fn internal(self) -> Result<T, Error> {
        self.code(ErrorCode::Internal)
    }
}
