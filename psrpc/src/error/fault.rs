//! Which party caused an error, whether a retry may succeed, and whether a handler may have run.

use psrpc_engine::Reason;
use psrpc_engine::proto::ErrorCode;

use super::Error;

/// The party that caused an error. Look there first.
///
/// For a call that failed, as returned by [`Error::fault`]:
///
/// | fault | reasons | a server's error with code |
/// |---|---|---|
/// | [`Caller`](Self::Caller) | `SelectionFailed`, `RuntimeEnded`; a call that could not be made | `invalid_argument`, `malformed_request`, `not_found`, `not_acceptable`, `already_exists`, `aborted`, `permission_denied`, `unauthenticated`, `resource_exhausted`, `failed_precondition`, `out_of_range`, `unprocessable_entity` |
/// | [`Server`](Self::Server) | `NoResponse`, `NobodySubscribed`, `NotAcceptable`, `TimedOut`, `MalformedResult` | `unknown`, `internal`, `unavailable`, `deadline_exceeded`, `unimplemented`, `data_loss`, `malformed_result`, `upstream_server_error`, `upstream_client_error`, any that PSRPC does not define |
/// | [`Bus`](Self::Bus) | `PublishFailed`, `SubscriptionLost`, `Interrupted`, `Gap` | |
/// | [`Nobody`](Self::Nobody) | `Canceled`, `ClientClosed`, `ServerClosed`, `Withdrawn` | `canceled` |
///
/// In short, codes with an HTTP status of 4xx are the caller's fault, and codes with 5xx the
/// server's. There are two exceptions: `canceled` is nobody's fault, and `upstream_client_error` is
/// the server's, since it sent a bad request to another service.
///
/// For a frame that was dropped or a request that was abandoned, as returned by
/// [`From<Reason>`](#impl-From%3CReason%3E-for-Fault):
///
/// | fault | reasons |
/// |---|---|
/// | `Caller` | `FarFuture`, `IdTaken`, `RequestsFull`, `DedupFull`, `Busy`, `StreamsFull`, `MalformedRequest` |
/// | `Server` | `NonFiniteAffinity`, `SecondBid`, `BidsFull`, `SecondResponse`, `SecondServer`, `ResponsesFull`, `NotSelected`, `Overran` |
/// | [`Peer`](Self::Peer) | `Malformed`, `UnexpectedType`, `MissingId`, `FrameLimit`, `MalformedMessage`, `MessagesFull` |
/// | [`Consumer`](Self::Consumer) | `SlowConsumer` |
/// | `Bus` | `Duplicate` |
/// | `Nobody` | `Misrouted`, `Expired`, `ExpiredMessage`, `Draining`, `Late`, `Elsewhere`, `NoStream`, `Refused`, `NoBid`, `BidLost`, `NotGranted`, `Killed` |
///
/// For a stream that ended, `ClosedByPeer` and `Idle` are the peer's fault, `SlowConsumer` is the
/// consumer's, and `Closed` and `Eof` are nobody's.
///
/// A few `Expired` and `ExpiredMessage` are nobody's fault. Many of them mean that clocks differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// The caller: it made an invalid call, or too many. The same call fails again; change it.
    Caller,
    /// The servers: there was none, or the server that had the call failed. Another server may
    /// succeed.
    Server,
    /// The peer: the other side of a stream ended it or went away, or some participant on the bus
    /// sends frames that the protocol does not define. Such frames fail no call.
    Peer,
    /// The reader of a stream or subscription: it fell behind.
    Consumer,
    /// The bus: it did not carry a frame. Check its servers, and the network in between.
    Bus,
    /// Nobody: a party changed its mind, or nothing is wrong.
    Nobody,
}

impl Fault {
    /// Returns the fault from the tables above, or `None` if the reason is not in them.
    fn of(reason: Reason) -> Option<Self> {
        Some(match reason {
            Reason::FarFuture
            | Reason::IdTaken
            | Reason::RequestsFull
            | Reason::DedupFull
            | Reason::MalformedRequest
            | Reason::Busy
            | Reason::StreamsFull
            | Reason::SelectionFailed
            | Reason::RuntimeEnded => Fault::Caller,
            Reason::NonFiniteAffinity
            | Reason::SecondBid
            | Reason::BidsFull
            | Reason::NotSelected
            | Reason::SecondResponse
            | Reason::SecondServer
            | Reason::ResponsesFull
            | Reason::Overran
            | Reason::NoResponse
            | Reason::NobodySubscribed
            | Reason::NotAcceptable
            | Reason::TimedOut
            | Reason::Answered
            | Reason::MalformedResult => Fault::Server,
            Reason::Malformed
            | Reason::UnexpectedType
            | Reason::MissingId
            | Reason::FrameLimit
            | Reason::MalformedMessage
            | Reason::MessagesFull
            | Reason::ClosedByPeer
            | Reason::Idle => Fault::Peer,
            Reason::Duplicate
            | Reason::PublishFailed
            | Reason::SubscriptionLost
            | Reason::Interrupted
            | Reason::Gap => Fault::Bus,
            Reason::SlowConsumer => Fault::Consumer,
            Reason::Misrouted
            | Reason::Expired
            | Reason::ExpiredMessage
            | Reason::Draining
            | Reason::Late
            | Reason::NoStream
            | Reason::Refused
            | Reason::Closed
            | Reason::Eof
            | Reason::ServerClosed
            | Reason::Elsewhere
            | Reason::NoBid
            | Reason::BidLost
            | Reason::NotGranted
            | Reason::Killed
            | Reason::Canceled
            | Reason::ClientClosed
            | Reason::Withdrawn => Fault::Nobody,
            _ => return None,
        })
    }
}

impl From<Reason> for Fault {
    /// Returns the party that caused `reason`. [`Reason::Answered`] maps to the server; the code of
    /// the error is more precise.
    fn from(reason: Reason) -> Self {
        Self::of(reason).unwrap_or(Fault::Nobody)
    }
}

impl From<&ErrorCode> for Fault {
    /// Returns the party at fault when a handler returns this code.
    fn from(code: &ErrorCode) -> Self {
        match code {
            ErrorCode::Canceled => Fault::Nobody,
            ErrorCode::UpstreamClientError => Fault::Server,
            code if code.http_status() < 500 => Fault::Caller,
            _ => Fault::Server,
        }
    }
}

impl Error {
    /// Returns the party that caused the error. Decides by the code if a server returned the error
    /// or no call was made, and by the reason otherwise.
    pub fn fault(&self) -> Fault {
        match (self.0.fault, self.reason()) {
            (Some(fault), _) => fault,
            // The bus cannot carry this frame, for example because of its size.
            (None, Some(Reason::PublishFailed)) if *self.code() == ErrorCode::InvalidArgument => {
                Fault::Caller
            }
            (None, None | Some(Reason::Answered)) => self.code().into(),
            (None, Some(reason)) => reason.into(),
        }
    }

    /// Returns `true` if a retry may succeed. That is the case for the codes `unavailable` and
    /// `deadline_exceeded`, as in Go's retries. The exception is [`Reason::RuntimeEnded`], since
    /// every later call on the same client fails too.
    ///
    /// To find out whether a retry may do harm, see [`may_have_run`](Self::may_have_run).
    pub fn is_retryable(&self) -> bool {
        self.code().is_retryable() && self.reason() != Some(Reason::RuntimeEnded)
    }

    /// Returns `true` if a handler may have run. If `false`, making the call again cannot run it
    /// twice.
    ///
    /// No handler has run if:
    ///
    /// * nothing was sent, or the call was invalid;
    /// * no server was selected ([`NoResponse`](Reason::NoResponse),
    ///   [`NotAcceptable`](Reason::NotAcceptable), [`SelectionFailed`](Reason::SelectionFailed));
    /// * the bus knows that there was no subscriber
    ///   ([`NobodySubscribed`](Reason::NobodySubscribed), [`TimedOut`](Reason::TimedOut)), and no
    ///   server responded.
    ///
    /// In all other cases the result is `true`. In particular, the bus may have delivered a frame
    /// even if the publish failed, since the connection can break after the server read it. On a
    /// queue-routed method a handler may have run even if no bid arrived, since servers may run
    /// calls there without a grant. An error that is not from PSRPC counts as `true`.
    ///
    /// After [`Retry`](crate::middleware::Retry) the result covers all attempts.
    pub fn may_have_run(&self) -> bool {
        if let Some(may_have_run) = self.0.may_have_run {
            return may_have_run;
        }
        match self.reason() {
            _ if self.0.evidence.unsent => false,
            // A server that subscribes later does not receive the request.
            Some(Reason::NobodySubscribed) => false,
            Some(Reason::TimedOut) if self.0.evidence.is_unheard() => false,
            Some(Reason::NoResponse | Reason::NotAcceptable) => self.0.evidence.may_skip_claim,
            reason => reason != Some(Reason::SelectionFailed),
        }
    }
}

#[cfg(test)]
mod tests {
    use psrpc_engine::{BusError, CallError, ConfigError, RegisterError};

    use super::*;

    fn failed(reason: Reason) -> Error {
        Error::new(ErrorCode::Unknown, "no").with_reason(reason)
    }

    #[test]
    fn every_reason_has_its_place() {
        for reason in Reason::ALL {
            assert!(Fault::of(*reason).is_some(), "{reason:?} is new: say in `Fault::of` whose fault it is");
        }
    }

    #[test]
    fn every_code_is_somebodys_fault() {
        let of = |fault| ErrorCode::ALL.iter().filter(move |code| Fault::from(*code) == fault);
        let names = |fault| of(fault).map(ErrorCode::as_str).collect::<Vec<_>>().join(" ");
        assert_eq!(names(Fault::Nobody), "canceled");
        assert_eq!(
            names(Fault::Caller),
            "malformed_request invalid_argument not_found not_acceptable already_exists permission_denied \
             resource_exhausted failed_precondition aborted out_of_range unauthenticated unprocessable_entity"
        );
        assert_eq!(
            names(Fault::Server),
            "malformed_result deadline_exceeded unavailable unknown unimplemented internal data_loss \
             upstream_server_error upstream_client_error"
        );
        assert_eq!(Fault::from(&ErrorCode::from("hat_on_fire")), Fault::Server);
    }

    #[test]
    fn the_code_counts_if_a_server_answered_or_no_call_was_made() {
        let not_found = || Error::new(ErrorCode::NotFound, "no hat");
        assert_eq!(not_found().fault(), Fault::Caller);
        assert_eq!(not_found().with_reason(Reason::Answered).fault(), Fault::Caller);
        assert_eq!(not_found().with_reason(Reason::TimedOut).fault(), Fault::Server);
        assert_eq!(not_found().with_fault(Fault::Bus).fault(), Fault::Bus);
    }

    #[test]
    fn what_could_not_be_done_is_the_fault_of_who_asked_or_of_the_bus() {
        let calls = [CallError::NotFinite { option: "minimum" }, CallError::TooManyCalls { limit: 1 }];
        assert!(calls.into_iter().all(|error| Error::from(error).fault() == Fault::Caller));
        assert_eq!(Error::from(ConfigError::NoService).fault(), Fault::Caller);
        assert_eq!(Error::from(CallError::Closed).fault(), Fault::Nobody);
        assert_eq!(Error::from(RegisterError::Closed).fault(), Fault::Nobody);
        assert_eq!(Error::from(BusError::new("gone")).fault(), Fault::Bus);
    }

    #[test]
    fn a_handler_may_have_run_unless_nobody_was_picked() {
        let may_not: Vec<_> =
            Reason::ALL.iter().copied().filter(|reason| !failed(*reason).may_have_run()).collect();
        assert_eq!(
            may_not,
            [Reason::NoResponse, Reason::NobodySubscribed, Reason::NotAcceptable, Reason::SelectionFailed]
        );
        assert!(Error::new(ErrorCode::InvalidArgument, "of anybody").may_have_run());
        assert!(!Error::new(ErrorCode::InvalidArgument, "no topic").unsent().may_have_run());
        for error in [CallError::Closed, CallError::TooManyCalls { limit: 1 }] {
            assert!(!Error::from(error).may_have_run());
        }
        let mut of_a_queue = failed(Reason::NoResponse);
        of_a_queue.0.evidence.may_skip_claim = true;
        assert!(of_a_queue.may_have_run());
        let mut timed_out = failed(Reason::TimedOut);
        timed_out.0.evidence.receivers = Some(0);
        assert!(!timed_out.may_have_run());
        timed_out.0.evidence.selected = Some("SRV_1".into());
        assert!(timed_out.may_have_run(), "the bus was wrong: somebody had it");
        let mut unsent = failed(Reason::TimedOut);
        unsent.0.evidence.unsent = true;
        assert!(!unsent.may_have_run());
    }

    #[test]
    fn what_may_be_tried_again_is_what_go_tries_again() {
        for row in psrpc_vectors::error_codes().into_iter().filter(|row| !row.code.is_empty()) {
            let error = Error::new(row.code.as_str().into(), "no");
            assert_eq!(error.is_retryable(), row.retried_by_default, "{}", row.code);
        }
    }
}
