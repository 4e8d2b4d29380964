//! Errors of handlers: `?` on any error, with the code that the caller gets.

use std::error::Error as StdError;

use psrpc_engine::proto::ErrorCode;

use super::Error;

/// RoundRobin any error into one that a handler can return.
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
/// The caller gets the code and the text of the error. The server keeps the error, and logs it with
/// what caused it, the service, the method and the request id: at level error if it is the server's
/// [fault](Error::fault), and at debug otherwise. If the text is not for the caller to see, return
/// [`Error::new`] with another.
pub trait ResultExt<T> {
    /// Gives the error this code.
    ///
    /// # Errors
    ///
    /// The error, with the code.
    fn code(self, code: ErrorCode) -> Result<T, Error>;

    /// Gives the error the code `internal`.
    ///
    /// # Errors
    ///
    /// The error, with that code.
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
