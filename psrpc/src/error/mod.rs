//! The error of a call: what the caller gets, and what a handler answers with.

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

/// An error of PSRPC: a code, a text, and what is known of the reason.
///
/// A handler returns one to answer its caller with it; its code, text and details travel. A call
/// fails with one, which is either the server's own or ours, as [`reason`](Self::reason) tells.
///
/// # What to do about it
///
/// | question | answer |
/// |---|---|
/// | Which error is it? | [`code`](Self::code); for those that PSRPC itself has, [`is_no_response`](Self::is_no_response) and its like |
/// | Whose fault was it? | [`fault`](Self::fault) |
/// | May trying again help? | [`is_retryable`](Self::is_retryable) |
/// | May it do harm? | [`may_have_run`](Self::may_have_run) |
/// | What do I tell people? | [`text`](Self::text), [`explanation`](Self::explanation) |
/// | What did the server say beside? | [`detail`](Self::detail) |
///
/// # In other systems
///
/// With the feature `http` an error becomes an `http::StatusCode`. With the feature `tonic` it
/// becomes a `tonic::Status` and a `tonic::Status` becomes an error, so that a handler can return
/// one with `?`; code, text and details survive both ways. Without them [`ErrorCode`] names the
/// HTTP, gRPC and Twirp code.
///
/// The feature `tonic` has tokio among its dependencies, as a library of channels alone: tonic does
/// not do without. Nothing of it is run, so it goes with any runtime.
///
/// Its `Display` form is the code, the text and the [explanation](Self::explanation); so is its
/// `Debug` form, which `main` shows when it returns one.
pub struct Error(Box<Inner>);

struct Inner {
    code: ErrorCode,
    text: String,
    details: Vec<Any>,
    reason: Option<Reason>,
    fault: Option<Fault>,
    evidence: Evidence,
    /// Whether a handler may have run, where that is known of several attempts.
    may_have_run: Option<bool>,
    /// The error that it was made of, whose text it has.
    inner: Option<Box<dyn StdError + Send + Sync>>,
}

/// That the time for several attempts is up, and how the last one failed.
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
    /// An error with a code and a text.
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

    /// An error with a code and the text of another error, which is kept
    /// ([`get_ref`](Self::get_ref)). The code and the text travel, and nothing else of it; a
    /// server logs what caused it. [`ResultExt`](crate::ResultExt) does this to a `Result`.
    pub fn from_source(code: ErrorCode, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        let source = source.into();
        let mut error = Self::new(code, source.to_string());
        error.0.inner = Some(source);
        error
    }

    /// The same error with one more message that says more, which travels under its full protobuf
    /// name.
    ///
    /// Generated messages know their names when `build.rs` calls `enable_type_names` on
    /// `psrpc_build::Config::prost`.
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
        // Not `Name::type_url`, which has no host where nobody set one, and Go looks for one.
        let type_url = format!("type.googleapis.com/{}", M::full_name()).into();
        self.with_any_detail(Any { type_url, value: detail.encode_to_vec().into() })
    }

    /// The same error with one more message that says more, encoded already.
    #[must_use]
    pub fn with_any_detail(mut self, detail: Any) -> Self {
        self.0.details.push(detail);
        self
    }

    /// The same error, of which it is known whose fault it was. For buses and the like: without it,
    /// the code tells. Does not travel.
    #[must_use]
    pub fn with_fault(mut self, fault: Fault) -> Self {
        self.0.fault = Some(fault);
        self
    }

    /// The same error as one of this server.
    pub(crate) fn of_server(mut self, server_id: Text) -> Self {
        self.0.evidence.selected = Some(server_id);
        self
    }

    /// An error that a server has answered with.
    pub(crate) fn from_response(response: ErrorResponse, evidence: Evidence) -> Self {
        let ErrorResponse { code, text, details } = response;
        let mut error = Self::new(code, text.as_str()).with_reason(Reason::Answered);
        (error.0.details, error.0.evidence) = (details, evidence);
        error
    }

    /// The error of several attempts whose common deadline has come; this is how the last attempt
    /// failed.
    pub(crate) fn out_of_time(self) -> Self {
        if self.is_timed_out() {
            return self;
        }
        let mut error = Self::timed_out().with_reason(Reason::TimedOut);
        error.0.inner = Some(OutOfTime(self).into());
        error
    }

    /// The same error as of several attempts, in one of which a handler may have run or not.
    pub(crate) fn of_attempts(mut self, may_have_run: bool) -> Self {
        self.0.may_have_run = Some(may_have_run);
        self
    }

    /// The same error as of something of which nothing was sent.
    pub(crate) fn unsent(mut self) -> Self {
        self.0.evidence.unsent = true;
        self
    }

    pub(crate) fn with_reason(mut self, reason: Reason) -> Self {
        self.0.reason = Some(reason);
        self
    }

    /// The code.
    pub fn code(&self) -> &ErrorCode {
        &self.0.code
    }

    /// The text. Those of our own are the ones that Go uses, where "responses" are bids.
    pub fn text(&self) -> &str {
        &self.0.text
    }

    /// The first detail that is a message of the type `M`, by its full protobuf name; `None` if
    /// there is none.
    ///
    /// # Errors
    ///
    /// When the detail has the name of the type and does not decode as one.
    pub fn detail<M: Message + Name + Default>(&self) -> Option<Result<M, DecodeError>> {
        let name = M::full_name();
        let named = |detail: &&Any| detail.type_url.as_str().rsplit('/').next() == Some(name.as_str());
        self.0.details.iter().find(named).map(|detail| M::decode(detail.value.clone()))
    }

    /// The messages that say more, of whatever type.
    pub fn details(&self) -> &[Any] {
        &self.0.details
    }

    /// Why the call failed, if it was made: [`Reason::Answered`] when this is the server's own
    /// error, another one when it is ours.
    pub fn reason(&self) -> Option<Reason> {
        self.0.reason
    }

    /// The server that answered with it, or that the call was granted to, if there is one.
    pub fn server_id(&self) -> Option<&str> {
        self.0.evidence.selected.as_ref().map(Text::as_str)
    }

    /// The error that this one was made of, if there is one: for
    /// [`downcast_ref`](StdError#method.downcast_ref). Its text is that of this error, so it is
    /// not the [source](StdError::source), which is the source of it.
    pub fn get_ref(&self) -> Option<&(dyn StdError + Send + Sync + 'static)> {
        self.0.inner.as_deref()
    }

    /// What happened to the call until it failed.
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
