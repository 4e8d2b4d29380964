//! Error codes, and what they are in HTTP, gRPC and Twirp.

use core::fmt;

use crate::Text;

/// Declares the codes in one table: variant, text, HTTP status, gRPC code, Twirp code.
macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal, $http:literal, $grpc:ident, $twirp:literal;)*) => {
        /// The code of an error (PROTOCOL section 10).
        ///
        /// A code that this version does not know is kept as it came, so that it survives being
        /// passed on.
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ErrorCode {
            $($(#[$doc])* $variant,)*
            /// A code that PSRPC does not define. An empty one is `unknown`.
            Other(Text),
        }

        impl ErrorCode {
            /// Every code that PSRPC defines.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$variant),*];

            /// The code as it travels.
            pub fn as_str(&self) -> &str {
                match self {
                    $(ErrorCode::$variant => $text,)*
                    // Never nothing: an error that travels without code and text reads as success.
                    ErrorCode::Other(code) if code.is_empty() => ErrorCode::Unknown.as_str(),
                    ErrorCode::Other(code) => code.as_str(),
                }
            }

            /// The HTTP status of this code, 500 for a code that PSRPC does not define.
            pub fn http_status(&self) -> u16 {
                match self {
                    $(ErrorCode::$variant => $http,)*
                    ErrorCode::Other(_) => 500,
                }
            }

            /// The gRPC code of this code, `Unknown` for a code that PSRPC does not define.
            pub fn grpc(&self) -> GrpcCode {
                match self {
                    $(ErrorCode::$variant => GrpcCode::$grpc,)*
                    ErrorCode::Other(_) => GrpcCode::Unknown,
                }
            }

            /// The Twirp code of this code, `unknown` for a code that PSRPC does not define.
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
    /// The deadline passed before an answer came.
    DeadlineExceeded = "deadline_exceeded", 503, DeadlineExceeded, "deadline_exceeded";
    /// No server took the call.
    Unavailable = "unavailable", 503, Unavailable, "unavailable";
    /// An error without a code.
    Unknown = "unknown", 500, Unknown, "unknown";
    /// An argument is not valid.
    InvalidArgument = "invalid_argument", 400, InvalidArgument, "invalid_argument";
    /// What was asked for does not exist.
    NotFound = "not_found", 404, NotFound, "not_found";
    /// What was asked for cannot be had in the form asked for.
    NotAcceptable = "not_acceptable", 406, Unknown, "unknown";
    /// What was to be created exists already.
    AlreadyExists = "already_exists", 409, AlreadyExists, "already_exists";
    /// The caller may not do this.
    PermissionDenied = "permission_denied", 403, PermissionDenied, "permission_denied";
    /// Something has been used up: a quota, memory, a limit.
    ResourceExhausted = "resource_exhausted", 429, ResourceExhausted, "resource_exhausted";
    /// The system is not in the state that the request needs.
    FailedPrecondition = "failed_precondition", 412, FailedPrecondition, "failed_precondition";
    /// The request was aborted.
    Aborted = "aborted", 409, Aborted, "aborted";
    /// The request reached past the valid range.
    OutOfRange = "out_of_range", 416, OutOfRange, "out_of_range";
    /// The server does not have this method.
    Unimplemented = "unimplemented", 501, Unimplemented, "unimplemented";
    /// The server failed.
    Internal = "internal", 500, Internal, "internal";
    /// Data is lost or corrupt.
    DataLoss = "data_loss", 500, DataLoss, "data_loss";
    /// The caller is not known.
    Unauthenticated = "unauthenticated", 401, Unauthenticated, "unauthenticated";
    /// The request is well formed but cannot be followed.
    UnprocessableEntity = "unprocessable_entity", 422, Unknown, "unknown";
    /// A service behind the server failed.
    UpstreamServerError = "upstream_server_error", 502, Internal, "internal";
    /// A service behind the server refused what the server asked.
    UpstreamClientError = "upstream_client_error", 424, InvalidArgument, "invalid_argument";
}

impl ErrorCode {
    /// Whether trying again may help: `unavailable` and `deadline_exceeded`, as Go's retry
    /// middleware has it.
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
    /// The code of that name; `unknown` for an empty one.
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
    /// The code of a gRPC status; `Ok` and numbers that gRPC does not define read as `unknown`.
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

    /// The code of that number; `Unknown` if gRPC does not define it.
    pub fn from_number(number: i32) -> Self {
        usize::try_from(number)
            .ok()
            .and_then(|number| Self::ALL.get(number).copied())
            .unwrap_or(GrpcCode::Unknown)
    }

    /// Its number.
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
