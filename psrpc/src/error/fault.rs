//! Whose fault an error was, and what that means for trying again.

use psrpc_engine::Reason;
use psrpc_engine::proto::ErrorCode;

use super::Error;

/// Whose fault it was, which says where to look.
///
/// Of a call that failed, as [`Error::fault`] tells:
///
/// | fault | reasons | an answered error with code |
/// |---|---|---|
/// | [`Caller`](Self::Caller) | `SelectionFailed`, `RuntimeEnded`; a call that could not be made | `invalid_argument`, `malformed_request`, `not_found`, `not_acceptable`, `already_exists`, `aborted`, `permission_denied`, `unauthenticated`, `resource_exhausted`, `failed_precondition`, `out_of_range`, `unprocessable_entity` |
/// | [`Server`](Self::Server) | `NoResponse`, `NotAcceptable`, `TimedOut`, `MalformedResult` | `unknown`, `internal`, `unavailable`, `deadline_exceeded`, `unimplemented`, `data_loss`, `malformed_result`, `upstream_server_error`, `upstream_client_error`, any that PSRPC does not define |
/// | [`Bus`](Self::Bus) | `PublishFailed`, `SubscriptionLost`, `Interrupted`, `Gap` | |
/// | [`Nobody`](Self::Nobody) | `Canceled`, `ClientClosed`, `ServerClosed`, `Withdrawn` | `canceled` |
///
/// So the codes are the caller's whose HTTP status begins with 4, and the server's where it begins
/// with 5, but for two: `canceled` is nobody's, and `upstream_client_error` the server's, who asked
/// somebody else the wrong thing.
///
/// Of a frame that was dropped and a request that was abandoned, by
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
/// Of a stream that ended: `ClosedByPeer` and `Idle` are the peer's, `SlowConsumer` the consumer's,
/// `Closed` and `Eof` nobody's.
///
/// `Expired` and `ExpiredMessage` are nobody's as long as there are few: many mean that clocks
/// differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// Who made the call: it asked for what cannot be, or for too much. The same call fails again;
    /// change it.
    Caller,
    /// The servers: none was there, or the one that had the call failed. Look there; another one
    /// may do better.
    Server,
    /// The other side of a stream ended it or went away; or somebody on the bus sends what the
    /// protocol does not have, for which no call fails.
    Peer,
    /// Who reads a stream or a subscription: not fast enough for what is sent.
    Consumer,
    /// The bus: it did not carry what it was given. Look at its servers, and at the way there.
    Bus,
    /// Nobody's: somebody changed their mind, or nothing is wrong.
    Nobody,
}

impl Fault {
    /// As the table says; `None` for a reason that is not in it.
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
    /// Whose fault a reason is. [`Reason::Answered`] is the server's here; the error's code tells
    /// more.
    fn from(reason: Reason) -> Self {
        Self::of(reason).unwrap_or(Fault::Nobody)
    }
}

impl From<&ErrorCode> for Fault {
    /// Whose fault it is that a handler answers with this code.
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
    /// Whose fault it was: by the reason; by the code if a server answered, or no call was made.
    pub fn fault(&self) -> Fault {
        match (self.0.fault, self.reason()) {
            (Some(fault), _) => fault,
            // The bus cannot carry what it was given.
            (None, Some(Reason::PublishFailed)) if *self.code() == ErrorCode::InvalidArgument => {
                Fault::Caller
            }
            (None, None | Some(Reason::Answered)) => self.code().into(),
            (None, Some(reason)) => reason.into(),
        }
    }

    /// Whether trying again may help: the codes `unavailable` and `deadline_exceeded`, as for Go's
    /// retries, but for [`Reason::RuntimeEnded`], since what is tried on the same client fails
    /// again.
    ///
    /// Whether it may do harm is another question: [`may_have_run`](Self::may_have_run).
    pub fn is_retryable(&self) -> bool {
        self.code().is_retryable() && self.reason() != Some(Reason::RuntimeEnded)
    }

    /// Whether a handler may have run; if not, making the call again does nothing twice.
    ///
    /// It cannot have when nothing was sent, or when the bus knows that nobody was subscribed and
    /// nobody was heard. Nor can it when no server was picked
    /// ([`NoResponse`](Reason::NoResponse), [`NotAcceptable`](Reason::NotAcceptable),
    /// [`SelectionFailed`](Reason::SelectionFailed)), and when the call could not be made at all.
    /// After [`Retry`](crate::middleware::Retry) this holds for all attempts together. In all
    /// other cases it may: where the bus did not take a frame, since a connection can be lost
    /// after the server has read it; where no bid came on a queue, since its servers run calls
    /// without a grant; and where nothing is known of the error, since it is not PSRPC's.
    pub fn may_have_run(&self) -> bool {
        if let Some(known) = self.0.may_have_run {
            return known;
        }
        match self.reason() {
            _ if self.0.evidence.unsent => false,
            // A server that was subscribed later did not get it.
            Some(Reason::TimedOut | Reason::NoResponse) if self.0.evidence.is_unheard() => false,
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
        assert_eq!(may_not, [Reason::NoResponse, Reason::NotAcceptable, Reason::SelectionFailed]);
        assert!(Error::new(ErrorCode::InvalidArgument, "of anybody").may_have_run());
        assert!(!Error::new(ErrorCode::InvalidArgument, "no topic").unsent().may_have_run());
        for error in [CallError::Closed, CallError::TooManyCalls { limit: 1 }] {
            assert!(!Error::from(error).may_have_run());
        }
        let mut of_a_queue = failed(Reason::NoResponse);
        of_a_queue.0.evidence.may_skip_claim = true;
        assert!(of_a_queue.may_have_run());
        of_a_queue.0.evidence.receivers = Some(0);
        assert!(!of_a_queue.may_have_run(), "nobody was subscribed");
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
