//! Error codes, with their HTTP, gRPC and Twirp equivalents.

use core::fmt;

use crate::Text;

/// Declares the codes in one table: variant, text, HTTP status, gRPC code, Twirp code.
macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal, $http:literal, $grpc:ident, $twirp:literal;)*) => {
        /// The code of an error (PROTOCOL section 10).
        ///
        /// An unknown code is preserved as received, so that it can be passed on unchanged.
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ErrorCode {
            $($(#[$doc])* $variant,)*
            /// A code that PSRPC does not define. An empty one counts as `unknown`.
            Other(Text),
        }

        impl ErrorCode {
            /// Every code that PSRPC defines.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$variant),*];

            /// Returns the text of the code on the wire.
            pub fn as_str(&self) -> &str {
                match self {
                    $(ErrorCode::$variant => $text,)*
                    // Never empty: Go reads an error without code and text as success.
                    ErrorCode::Other(code) if code.is_empty() => ErrorCode::Unknown.as_str(),
                    ErrorCode::Other(code) => code.as_str(),
                }
            }

            /// Returns the HTTP status of this code; 500 for a code that PSRPC does not define.
            pub fn http_status(&self) -> u16 {
                match self {
                    $(ErrorCode::$variant => $http,)*
                    ErrorCode::Other(_) => 500,
                }
            }

            /// Returns the gRPC equivalent of this code; `Unknown` for a code that PSRPC does not
            /// define.
            pub fn grpc(&self) -> GrpcCode {
                match self {
                    $(ErrorCode::$variant => GrpcCode::$grpc,)*
                    ErrorCode::Other(_) => GrpcCode::Unknown,
                }
            }

            /// Returns the Twirp equivalent of this code; `unknown` for a code that PSRPC does not
            /// define.
            pub fn twirp(&self) -> &'static str {
                match self {
                    $(ErrorCode::$variant => $twirp,)*
                    ErrorCode::Other(_) => "unknown",
                }
            }

            fn defined(code: &[u8]) -> Option<Self> {
                $(if code == $text.as_bytes() {
                    return Some(ErrorCode::$variant);
                })*
                None
            }
        }
    };
}

codes! {
    /// The caller canceled the call.
    Canceled = "canceled", 503, Cancelled, "canceled";
    /// The server could not decode the request.
    MalformedRequest = "malformed_request", 400, InvalidArgument, "malformed";
    /// The client could not decode the response.
    MalformedResult = "malformed_result", 500, Internal, "malformed";
    /// The deadline passed before a response arrived.
    DeadlineExceeded = "deadline_exceeded", 503, DeadlineExceeded, "deadline_exceeded";
    /// No server took the call.
    Unavailable = "unavailable", 503, Unavailable, "unavailable";
    /// An error without a code.
    Unknown = "unknown", 500, Unknown, "unknown";
    /// An argument is not valid.
    InvalidArgument = "invalid_argument", 400, InvalidArgument, "invalid_argument";
    /// The requested entity does not exist.
    NotFound = "not_found", 404, NotFound, "not_found";
    /// The requested entity is not available in the requested form.
    NotAcceptable = "not_acceptable", 406, Unknown, "unknown";
    /// The entity to create already exists.
    AlreadyExists = "already_exists", 409, AlreadyExists, "already_exists";
    /// The caller lacks the permission.
    PermissionDenied = "permission_denied", 403, PermissionDenied, "permission_denied";
    /// A resource is exhausted, such as a quota, memory or a limit.
    ResourceExhausted = "resource_exhausted", 429, ResourceExhausted, "resource_exhausted";
    /// The system is not in the state that the request requires.
    FailedPrecondition = "failed_precondition", 412, FailedPrecondition, "failed_precondition";
    /// The request was aborted.
    Aborted = "aborted", 409, Aborted, "aborted";
    /// The request is outside the valid range.
    OutOfRange = "out_of_range", 416, OutOfRange, "out_of_range";
    /// The server does not have this method.
    Unimplemented = "unimplemented", 501, Unimplemented, "unimplemented";
    /// The server failed.
    Internal = "internal", 500, Internal, "internal";
    /// Data is lost or corrupt.
    DataLoss = "data_loss", 500, DataLoss, "data_loss";
    /// The caller is not authenticated.
    Unauthenticated = "unauthenticated", 401, Unauthenticated, "unauthenticated";
    /// The request is well formed but cannot be processed.
    UnprocessableEntity = "unprocessable_entity", 422, Unknown, "unknown";
    /// An upstream service of the server failed.
    UpstreamServerError = "upstream_server_error", 502, Internal, "internal";
    /// An upstream service rejected the server's request.
    UpstreamClientError = "upstream_client_error", 424, InvalidArgument, "invalid_argument";
}

impl ErrorCode {
    /// Returns `true` if a retry may help: for `unavailable` and `deadline_exceeded`, as in Go's
    /// retry middleware.
    pub fn is_retryable(&self) -> bool {
        matches!(self, ErrorCode::Unavailable | ErrorCode::DeadlineExceeded)
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            ErrorCode::Other(code) if !code.is_empty() => code.as_bytes(),
            code => code.as_str().as_bytes(),
        }
    }
}

impl From<Text> for ErrorCode {
    /// Returns the code named `code`; `unknown` if the name is empty.
    fn from(code: Text) -> Self {
        if code.is_empty() {
            return ErrorCode::Unknown;
        }
        ErrorCode::defined(code.as_bytes()).unwrap_or(ErrorCode::Other(code))
    }
}

impl From<&str> for ErrorCode {
    fn from(code: &str) -> Self {
        ErrorCode::from(Text::from(code))
    }
}

impl From<GrpcCode> for ErrorCode {
    /// Returns the equivalent of a gRPC code; `unknown` for `Ok`.
    fn from(code: GrpcCode) -> Self {
        match code {
            GrpcCode::Ok | GrpcCode::Unknown => ErrorCode::Unknown,
            GrpcCode::Cancelled => ErrorCode::Canceled,
            GrpcCode::InvalidArgument => ErrorCode::InvalidArgument,
            GrpcCode::DeadlineExceeded => ErrorCode::DeadlineExceeded,
            GrpcCode::NotFound => ErrorCode::NotFound,
            GrpcCode::AlreadyExists => ErrorCode::AlreadyExists,
            GrpcCode::PermissionDenied => ErrorCode::PermissionDenied,
            GrpcCode::ResourceExhausted => ErrorCode::ResourceExhausted,
            GrpcCode::FailedPrecondition => ErrorCode::FailedPrecondition,
            GrpcCode::Aborted => ErrorCode::Aborted,
            GrpcCode::OutOfRange => ErrorCode::OutOfRange,
            GrpcCode::Unimplemented => ErrorCode::Unimplemented,
            GrpcCode::Internal => ErrorCode::Internal,
            GrpcCode::Unavailable => ErrorCode::Unavailable,
            GrpcCode::DataLoss => ErrorCode::DataLoss,
            GrpcCode::Unauthenticated => ErrorCode::Unauthenticated,
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A gRPC status code, with its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are gRPC's own")]
pub enum GrpcCode {
    Ok = 0,
    Cancelled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

impl GrpcCode {
    const ALL: [GrpcCode; 17] = [
        GrpcCode::Ok,
        GrpcCode::Cancelled,
        GrpcCode::Unknown,
        GrpcCode::InvalidArgument,
        GrpcCode::DeadlineExceeded,
        GrpcCode::NotFound,
        GrpcCode::AlreadyExists,
        GrpcCode::PermissionDenied,
        GrpcCode::ResourceExhausted,
        GrpcCode::FailedPrecondition,
        GrpcCode::Aborted,
        GrpcCode::OutOfRange,
        GrpcCode::Unimplemented,
        GrpcCode::Internal,
        GrpcCode::Unavailable,
        GrpcCode::DataLoss,
        GrpcCode::Unauthenticated,
    ];

    /// Returns the code with this number; `Unknown` if gRPC does not define it.
    pub fn from_number(number: i32) -> Self {
        usize::try_from(number)
            .ok()
            .and_then(|number| Self::ALL.get(number).copied())
            .unwrap_or(GrpcCode::Unknown)
    }

    /// Returns the number of the code.
    pub fn number(self) -> i32 {
        self as i32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_codes_stand_at_their_numbers() {
        for (number, code) in GrpcCode::ALL.into_iter().enumerate() {
            assert_eq!(code.number(), number as i32);
            assert_eq!(GrpcCode::from_number(number as i32), code);
        }
        assert_eq!(GrpcCode::from_number(17), GrpcCode::Unknown);
        assert_eq!(GrpcCode::from_number(-1), GrpcCode::Unknown);
    }

    #[test]
    fn an_unknown_code_survives() {
        assert_eq!(ErrorCode::from("hat_on_fire").as_str(), "hat_on_fire");
        assert_eq!(ErrorCode::from(""), ErrorCode::Unknown);
    }
}
