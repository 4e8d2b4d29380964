//! The error of a call: what the caller gets, and what a handler answers with.

use std::error::Error as StdError;
use std::fmt;

use psrpc_engine::proto::{Any, ErrorCode, ErrorResponse};
use psrpc_engine::{BusError, CallError, ConfigError, Evidence, Failure, Reason, RegisterError};

/// An error of PSRPC: a code, a text, and what is known of the reason.
///
/// A handler returns one to answer its caller with it; its code, text and details travel. A call fails with one, which is
/// either the server's own or ours, as [`reason`](Self::reason) tells.
///
/// Its `Debug` form, which `main` shows when it returns one, is its text with the explanation.
pub struct Error(Box<Inner>);

struct Inner {
    code: ErrorCode,
    text: String,
    details: Vec<Any>,
    reason: Option<Reason>,
    evidence: Evidence,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error with a code and a text.
    pub fn new(code: ErrorCode, text: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            code,
            text: text.into(),
            details: Vec::new(),
            reason: None,
            evidence: Evidence::default(),
            source: None,
        }))
    }

    /// An error with a code and the text of another error, which becomes its source. The source does not travel.
    pub fn from_source(code: ErrorCode, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        let source = source.into();
        let mut error = Self::new(code, source.to_string());
        error.0.source = Some(source);
        error
    }

    /// The same error with one more message that says more, which travels.
    #[must_use]
    pub fn with_detail(mut self, detail: Any) -> Self {
        self.0.details.push(detail);
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

    /// The messages that say more.
    pub fn details(&self) -> &[Any] {
        &self.0.details
    }

    /// Why the call failed, if it was made: [`Reason::Answered`] when this is the server's own error, another one when it
    /// is ours.
    pub fn reason(&self) -> Option<Reason> {
        self.0.reason
    }

    /// What happened to the call until it failed.
    pub fn evidence(&self) -> &Evidence {
        &self.0.evidence
    }

    /// What is known of why nobody took or answered the call, in words for people; `None` when the text says it all.
    pub fn explanation(&self) -> Option<String> {
        let Evidence { receivers, bids, below_minimum, late_bids, selected, best, asked, errors, gap } =
            &self.0.evidence;
        let mut known = Vec::new();
        let reached = |count: &u64| match count {
            0 => "nobody was subscribed".to_owned(),
            count => format!("the request reached {}", counted(*count, "subscriber")),
        };
        match self.0.reason? {
            Reason::NoResponse => {
                known.extend(receivers.as_ref().map(reached));
                if receivers.is_some_and(|count| count > 0) {
                    known.push("no bid came back".to_owned());
                }
            }
            Reason::NotAcceptable => {
                known.push(format!("{} bid", counted((*bids).into(), "server")));
                if *below_minimum > 0 {
                    known.push(format!("{below_minimum} of them below the minimum affinity"));
                }
                match bids - below_minimum {
                    0 => {}
                    _ if *asked => known.push("the selection function chose none".to_owned()),
                    rest => known.push(format!("{rest} of them with an affinity of 0 or less")),
                }
            }
            Reason::TimedOut => match (selected, best) {
                (Some(server), _) => known.push(format!("server {server} had it and did not answer in time")),
                (None, Some(best)) => known.push(format!(
                    "the deadline came before the selection was over; the best bid was {} of server {}",
                    best.affinity, best.server_id
                )),
                (None, None) => known.extend(receivers.as_ref().map(reached)),
            },
            _ => return None,
        }
        if *late_bids > 0 {
            known.push(format!("{} came after the deadline", counted((*late_bids).into(), "bid")));
        }
        if *errors > 0 {
            known.push(format!("{} answered with an error", counted((*errors).into(), "server")));
        }
        if *gap {
            known.push("the bus lost frames to this client meanwhile".to_owned());
        }
        (!known.is_empty()).then(|| known.join("; "))
    }

    pub(crate) fn into_response(self) -> ErrorResponse {
        let Inner { code, text, details, .. } = *self.0;
        ErrorResponse { code, text: text.into(), details }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.code, self.0.text)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)?;
        match self.explanation() {
            Some(explanation) => write!(f, " ({explanation})"),
            None => Ok(()),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

/// A number of things: `1 server`, `2 servers`.
fn counted(count: u64, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let Failure { reason, code, text, details, evidence, source } = failure;
        Self(Box::new(Inner {
            code,
            text: text.as_str().to_owned(),
            details,
            reason: Some(reason),
            evidence,
            source: source.map(Into::into),
        }))
    }
}

impl From<CallError> for Error {
    fn from(error: CallError) -> Self {
        let reason = (error == CallError::Closed).then_some(Reason::ClientClosed);
        let mut converted = Self::from_source(error.code(), error);
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
        let code = match error {
            RegisterError::Closed => ErrorCode::Canceled,
            RegisterError::Duplicate { .. } | RegisterError::Conflict { .. } => ErrorCode::AlreadyExists,
            _ => ErrorCode::InvalidArgument,
        };
        Self::from_source(code, error)
    }
}

impl From<BusError> for Error {
    fn from(error: BusError) -> Self {
        Self::from_source(ErrorCode::Unavailable, error)
    }
}
