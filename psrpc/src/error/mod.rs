//! The error type of calls and handlers.

mod convert;
mod explanation;
mod fault;
mod fixed;
#[cfg(feature = "tonic")]
mod grpc;
#[cfg(feature = "http")]
mod http;
mod result;

use std::error::Error as StdError;
use std::fmt;

use prost::{DecodeError, Message, Name};
use psrpc_engine::proto::{Any, ErrorCode, ErrorResponse, Text};
use psrpc_engine::{Evidence, Reason};

pub use fault::Fault;
pub use result::ResultExt;

/// An error of PSRPC, with a code, a text and a reason.
///
/// A handler returns an `Error` to its caller; the code, text and details are sent. A failed call
/// returns an `Error`, which comes either from the server or from this process.
/// [`reason`](Self::reason) tells which.
///
/// # Handling errors
///
/// | question | answer |
/// |---|---|
/// | Which error is it? | [`code`](Self::code); for errors that PSRPC defines, [`is_no_response`](Self::is_no_response) and similar |
/// | Whose fault was it? | [`fault`](Self::fault) |
/// | May a retry succeed? | [`is_retryable`](Self::is_retryable) |
/// | May a retry run the call twice? | [`may_have_run`](Self::may_have_run) |
/// | What can I show to users? | [`text`](Self::text), [`explanation`](Self::explanation) |
/// | Did the server send details? | [`detail`](Self::detail) |
///
/// # Conversions
///
/// With the feature `http`, an error converts into an `http::StatusCode`. With the feature `tonic`,
/// errors and `tonic::Status` convert into each other, keeping code, text and details, so that a
/// handler can use `?` on a `tonic::Status`. Without these features, [`ErrorCode`] returns the
/// HTTP, gRPC and Twirp codes.
///
/// The feature `tonic` depends on tokio, since tonic uses tokio's channels. It starts no tokio
/// runtime, and works with any runtime.
///
/// Both `Display` and `Debug` print the code, the text and the [explanation](Self::explanation).
/// `Debug` is what `main` prints when it returns an error.
pub struct Error(Box<Inner>);

struct Inner {
    code: ErrorCode,
    text: String,
    details: Vec<Any>,
    reason: Option<Reason>,
    fault: Option<Fault>,
    evidence: Evidence,
    /// Whether a handler may have run in any of several attempts; `None` for a single call.
    may_have_run: Option<bool>,
    /// The error that this one was converted from. It has the same text.
    inner: Option<Box<dyn StdError + Send + Sync>>,
}

/// The common deadline of several attempts has passed. Holds the error of the last attempt.
#[derive(Debug)]
struct OutOfTime(Error);

impl fmt::Display for OutOfTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("request timed out")
    }
}

impl StdError for OutOfTime {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.0)
    }
}

impl Error {
    /// Returns an error with a code and a text.
    pub fn new(code: ErrorCode, text: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            code,
            text: text.into(),
            details: Vec::new(),
            reason: None,
            fault: None,
            evidence: Evidence::default(),
            may_have_run: None,
            inner: None,
        }))
    }

    /// Returns an error with the given code and the text of another error. Only the code and the
    /// text are sent; the other error stays available locally ([`get_ref`](Self::get_ref)), and a
    /// server logs its sources. [`ResultExt`](crate::ResultExt) does this for a `Result`.
    pub fn from_source(code: ErrorCode, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        let source = source.into();
        let mut error = Self::new(code, source.to_string());
        error.0.inner = Some(source);
        error
    }

    /// Adds a detail: a message that is sent along under its full protobuf name.
    ///
    /// Messages that `psrpc-build` generates implement [`Name`].
    ///
    /// ```
    /// # #[derive(Clone, PartialEq, prost::Message)]
    /// # struct Measure { #[prost(double, tag = 1)] inches: f64 }
    /// # impl prost::Name for Measure {
    /// #     const NAME: &'static str = "Measure";
    /// #     const PACKAGE: &'static str = "hats.v1";
    /// # }
    /// use psrpc::{Error, ErrorCode};
    ///
    /// let error = Error::new(ErrorCode::OutOfRange, "too large").with_detail(&Measure { inches: 12.5 });
    /// assert_eq!(error.detail::<Measure>(), Some(Ok(Measure { inches: 12.5 })));
    /// ```
    #[must_use]
    pub fn with_detail<M: Message + Name>(self, detail: &M) -> Self {
        // Not `Name::type_url`, which may lack the host that Go looks for.
        let type_url = format!("type.googleapis.com/{}", M::full_name()).into();
        self.with_any_detail(Any { type_url, value: detail.encode_to_vec().into() })
    }

    /// Adds a detail that is already encoded.
    #[must_use]
    pub fn with_any_detail(mut self, detail: Any) -> Self {
        self.0.details.push(detail);
        self
    }

    /// Overrides the result of [`fault`](Self::fault). Intended for bus implementations. Not sent.
    #[must_use]
    pub fn with_fault(mut self, fault: Fault) -> Self {
        self.0.fault = Some(fault);
        self
    }

    /// Marks the error as one of the given server.
    pub(crate) fn of_server(mut self, server_id: Text) -> Self {
        self.0.evidence.selected = Some(server_id);
        self
    }

    /// Returns the error that a server responded with.
    pub(crate) fn from_response(response: ErrorResponse, evidence: Evidence) -> Self {
        let ErrorResponse { code, text, details } = response;
        let mut error = Self::new(code, text.as_str()).with_reason(Reason::Answered);
        (error.0.details, error.0.evidence) = (details, evidence);
        error
    }

    /// Returns the error of several attempts whose common deadline has passed. `self` is the error
    /// of the last attempt.
    pub(crate) fn out_of_time(self) -> Self {
        if self.is_timed_out() {
            return self;
        }
        let mut error = Self::timed_out().with_reason(Reason::TimedOut);
        error.0.inner = Some(OutOfTime(self).into());
        error
    }

    /// Sets whether a handler may have run in any of several attempts.
    pub(crate) fn of_attempts(mut self, may_have_run: bool) -> Self {
        self.0.may_have_run = Some(may_have_run);
        self
    }

    /// Marks the error as one of a call that was not sent.
    pub(crate) fn unsent(mut self) -> Self {
        self.0.evidence.unsent = true;
        self
    }

    pub(crate) fn with_reason(mut self, reason: Reason) -> Self {
        self.0.reason = Some(reason);
        self
    }

    /// Returns the code.
    pub fn code(&self) -> &ErrorCode {
        &self.0.code
    }

    /// Returns the text. The texts that PSRPC defines are those of Go, which says "responses" for
    /// bids.
    pub fn text(&self) -> &str {
        &self.0.text
    }

    /// Returns the first detail of the type `M`, found by its full protobuf name, or `None` if
    /// there is none.
    ///
    /// # Errors
    ///
    /// Returns an error if the detail has the right name but does not decode.
    pub fn detail<M: Message + Name + Default>(&self) -> Option<Result<M, DecodeError>> {
        let name = M::full_name();
        let named = |detail: &&Any| detail.type_url.as_str().rsplit('/').next() == Some(name.as_str());
        self.0.details.iter().find(named).map(|detail| M::decode(detail.value.clone()))
    }

    /// Returns all details, of any type.
    pub fn details(&self) -> &[Any] {
        &self.0.details
    }

    /// Returns why the call failed, or `None` if no call was made. With [`Reason::Answered`] the
    /// error comes from the server, and with [`Reason::ClosedByPeer`] from the other side of the
    /// stream. With any other reason it comes from this process.
    pub fn reason(&self) -> Option<Reason> {
        self.0.reason
    }

    /// Returns the id of the server that returned this error or was granted the call, if there is
    /// one.
    pub fn server_id(&self) -> Option<&str> {
        self.0.evidence.selected.as_ref().map(Text::as_str)
    }

    /// Returns the error that this one was converted from, for
    /// [`downcast_ref`](StdError#method.downcast_ref). Since both have the same text,
    /// [`source`](StdError::source) skips it and returns its source.
    pub fn get_ref(&self) -> Option<&(dyn StdError + Send + Sync + 'static)> {
        self.0.inner.as_deref()
    }

    /// Returns what the client knew about the call when it failed.
    pub fn evidence(&self) -> &Evidence {
        &self.0.evidence
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.code, self.0.text)?;
        match self.explanation() {
            Some(explanation) => write!(f, " ({explanation})"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.inner.as_deref().and_then(StdError::source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, PartialEq, Message)]
    struct Measure {
        #[prost(double, tag = 1)]
        inches: f64,
    }

    impl Name for Measure {
        const NAME: &'static str = "Measure";
        const PACKAGE: &'static str = "hats.v1";
    }

    #[test]
    fn a_detail_is_found_by_its_name_whatever_its_host() {
        let measure = Measure { inches: 12.5 };
        let any = |type_url: &str, value| Any { type_url: type_url.into(), value };
        let bytes: bytes::Bytes = measure.encode_to_vec().into();
        for host in ["type.googleapis.com/", "example.com/types/", "/", ""] {
            let error = Error::new(ErrorCode::OutOfRange, "too large")
                .with_any_detail(any("type.googleapis.com/hats.v1.Other", bytes.clone()))
                .with_any_detail(any(&format!("{host}hats.v1.Measure"), bytes.clone()));
            assert_eq!(error.detail::<Measure>(), Some(Ok(measure.clone())), "{host}");
        }
        let error = Error::new(ErrorCode::OutOfRange, "too large").with_detail(&measure);
        assert_eq!(error.details(), [any("type.googleapis.com/hats.v1.Measure", bytes)]);
    }

    #[test]
    fn a_detail_that_does_not_decode_is_told_from_one_that_is_not_there() {
        let error = Error::new(ErrorCode::Internal, "no");
        assert_eq!(error.detail::<Measure>(), None);
        let detail = Any { type_url: "/hats.v1.Measure".into(), value: b"\xff".as_slice().into() };
        assert!(error.with_any_detail(detail).detail::<Measure>().unwrap().is_err());
    }
}
