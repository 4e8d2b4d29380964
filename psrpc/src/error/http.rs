//! Conversions from errors to HTTP status codes.

use http::StatusCode;

use super::Error;

impl From<&Error> for StatusCode {
    /// Returns the HTTP status of the error's code (PROTOCOL section 10).
    fn from(error: &Error) -> Self {
        Self::from_u16(error.code().http_status()).unwrap_or(Self::INTERNAL_SERVER_ERROR)
    }
}

impl From<Error> for StatusCode {
    /// Returns the HTTP status of the error's code (PROTOCOL section 10).
    fn from(error: Error) -> Self {
        Self::from(&error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_the_status_that_go_gives_it() {
        for row in psrpc_vectors::error_codes().into_iter().filter(|row| !row.code.is_empty()) {
            let status = StatusCode::from(Error::new(row.code.as_str().into(), "no"));
            assert_eq!(status.as_u16(), row.http, "{}", row.code);
        }
    }
}
