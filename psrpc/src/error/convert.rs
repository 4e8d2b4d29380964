//! Conversions from errors of the engine, and to the wire.

use psrpc_engine::proto::{ErrorCode, ErrorResponse};
use psrpc_engine::{BusError, CallError, ConfigError, Failure, Reason, RegisterError, UpdateError};

use super::{Error, Fault, Inner};

impl Error {
    /// Returns the error in its wire form.
    pub(crate) fn into_response(self) -> ErrorResponse {
        let Inner { code, text, details, .. } = *self.0;
        ErrorResponse { code, text: text.into(), details }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let Failure { reason, code, text, details, evidence, source } = failure;
        Self(Box::new(Inner {
            code,
            text: text.as_str().to_owned(),
            details,
            reason: Some(reason),
            fault: None,
            evidence,
            may_have_run: None,
            inner: source.map(Into::into),
        }))
    }
}

impl From<CallError> for Error {
    fn from(error: CallError) -> Self {
        let reason = match error {
            CallError::Closed => Some(Reason::ClientClosed),
            CallError::RuntimeEnded => Some(Reason::RuntimeEnded),
            _ => None,
        };
        let mut converted = Self::from_source(error.code(), error).unsent();
        converted.0.reason = reason;
        converted
    }
}

impl From<ConfigError> for Error {
    fn from(error: ConfigError) -> Self {
        Self::from_source(ErrorCode::InvalidArgument, error)
    }
}

impl From<RegisterError> for Error {
    fn from(error: RegisterError) -> Self {
        let reason = (error == RegisterError::RuntimeEnded).then_some(Reason::RuntimeEnded);
        let code = match error {
            RegisterError::Closed => ErrorCode::Canceled,
            RegisterError::RuntimeEnded => ErrorCode::Unavailable,
            RegisterError::Duplicate { .. } | RegisterError::Conflict { .. } => ErrorCode::AlreadyExists,
            _ => ErrorCode::InvalidArgument,
        };
        let mut converted = Self::from_source(code, error);
        converted.0.reason = reason;
        converted
    }
}

impl From<UpdateError> for Error {
    fn from(error: UpdateError) -> Self {
        let reason = match error {
            UpdateError::Closed => Some(Reason::ServerClosed),
            UpdateError::RuntimeEnded => Some(Reason::RuntimeEnded),
            _ => None,
        };
        let mut converted = Self::from_source(error.code(), error);
        converted.0.reason = reason;
        converted
    }
}

impl From<BusError> for Error {
    fn from(error: BusError) -> Self {
        match error.is_invalid() {
            true => Self::from_source(ErrorCode::InvalidArgument, error).with_fault(Fault::Caller),
            false => Self::from_source(ErrorCode::Unavailable, error).with_fault(Fault::Bus),
        }
    }
}
