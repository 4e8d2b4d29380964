//! Planted defects: plausible bugs, each a condition at the place of the code that is right, for a simulator to find.
//!
//! Not for use, and no part of what versions promise: they are there with the feature `planted` alone.

use alloc::string::String;
use core::sync::atomic::{AtomicUsize, Ordering};

/// Whether a defect is planted.
macro_rules! planted {
    ($defect:ident) => {
        $crate::planted::Defect::$defect.is_planted()
    };
}

/// The place of the defect that is planted in [`Defect::ALL`], counted from 1; 0 for none.
static PLANTED: AtomicUsize = AtomicUsize::new(0);

/// Plants a defect in every engine of this process, instead of the one that was; or none.
pub fn plant(defect: Option<Defect>) {
    PLANTED.store(defect.map_or(0, |defect| defect as usize + 1), Ordering::Relaxed);
}

macro_rules! defects {
    ($(#[doc = $what:literal] $defect:ident)*) => {
        /// A bug that can be planted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Defect {
            $(#[doc = $what] $defect,)*
        }

        impl Defect {
            /// Every defect.
            pub const ALL: &'static [Defect] = &[$(Defect::$defect),*];

            /// What the bug is, in a sentence.
            pub fn what(self) -> &'static str {
                match self {
                    $(Defect::$defect => $what.trim_ascii(),)*
                }
            }

            /// The name, in snake case.
            pub fn name(self) -> String {
                let mut name = String::new();
                for letter in match self { $(Defect::$defect => stringify!($defect),)* }.chars() {
                    if letter.is_ascii_uppercase() && !name.is_empty() {
                        name.push('_');
                    }
                    name.push(letter.to_ascii_lowercase());
                }
                name
            }

            /// Whether it is planted.
            pub fn is_planted(self) -> bool {
                PLANTED.load(Ordering::Relaxed) == self as usize + 1
            }
        }
    };
}

defects! {
    // Calls, seen from the client.

    /// A call ends a nanosecond after its deadline.
    CallLateByOne
    /// A request expires as if the monotonic clock had started when it was made.
    ExpiryFromOrigin
    /// A client that has dropped more than 100 late frames hears no more.
    LateFramesWedge
    /// A client is ready before the last of its subscriptions is live.
    ReadyEarly
    /// A client whose subscription is lost goes on without it.
    LossIgnored
    /// A call whose request the bus did not take waits out its timeout.
    PublishFailureIgnored
    /// The response of a server that was not selected is taken.
    UnselectedAnswers
    /// An announcement selects its server though another was selected before.
    AnnouncementOverrides
    /// A response on a queue that comes before its announcement does not end the call.
    UnannouncedIgnored
    /// A response that comes at the deadline or after it is taken.
    LateResponseCounts
    /// A bid that comes at the deadline or after it counts.
    LateBidCounts
    /// A call that still selects at its deadline grants the best bid.
    DeadlineGrants
    /// The selection function is not asked at the deadline.
    DeadlineUnasked
    /// A server that the selection function chooses at the deadline is granted.
    DeadlineChoiceGranted
    /// A call whose selection function is asked at the deadline waits for its answer.
    DeadlineChoiceAwaited
    /// An error without a text is read as a success.
    EmptyErrorSucceeds
    /// A grant that waits for the bus leaves though its call has ended.
    CanceledGrantLeaves
    /// To cancel a call that has ended resolves it again.
    CanceledTwice
    /// One call of a client that is closed stays pending.
    CloseLeavesACall

    // The selection.

    /// A bid that is infinite or not a number counts.
    InfinityWins
    /// Of equal bids the last wins.
    LastBestWins
    /// A second bid of the same server counts.
    SecondBidCounts
    /// A bid below the minimum counts.
    MinimumIgnored
    /// Each bid starts the short circuit again.
    ShortCircuitRestarts
    /// Nothing wakes a call when its short circuit is over.
    ShortCircuitSleeps

    // Multi calls.

    /// A server's second answer to a multi call is taken.
    SecondAnswerCounts
    /// An answer to a multi call that comes at the deadline or after it is taken.
    LateAnswerCounts
    /// A multi call ends one answer before it has all that are expected.
    MultiEndsEarly
    /// A multi call that is canceled goes on.
    CanceledMultiStays

    // Requests, seen from the server.

    /// A duplicate of a request that was answered runs again.
    DuplicateRuns
    /// A duplicate of the opening of a stream opens it again.
    StreamOpensTwice
    /// Requests and messages are forgotten up to a second before they expire.
    ForgetsEarly
    /// When the wall clock is set back, requests and messages are forgotten before they expire by it.
    ForgetsByOneClock
    /// What there is no room to remember is let in.
    FullMeansNew
    /// What was remembered is never forgotten.
    RememberedForever
    /// A request that expires this very nanosecond may still run.
    ExpiryLateByOne
    /// Expiry is checked when a request comes in, and not when it is granted.
    GrantedPastExpiry
    /// The allowance for skewed clocks does not count.
    AllowanceIgnored
    /// The allowance for skewed clocks counts twice.
    AllowanceTwice
    /// A handler's time is read from the wall clock too, which may have jumped.
    AnswersByWallClock
    /// A handler runs on when its request expires, and answers all the same.
    AnswersLate
    /// A grant to another server is taken for one to this.
    AnyGrantIsOurs
    /// A server that elects to run a request does not announce it.
    ElectsInSilence
    /// More requests are in flight than the limit allows.
    RequestLimitIgnored
    /// A request that was answered counts as running for ever.
    BusyLeaks

    // Registrations and the drain.

    /// A registration is there before the last of its subscriptions is live.
    RegisteredEarly
    /// A registration that leaves gives up its grants while requests wait for them.
    GrantsLeftEarly
    /// A registration that is gone is kept, and its names stay taken.
    NamesLeak
    /// A server that drains drops what comes in before the bus confirms that nothing more will.
    DrainIsDeaf
    /// A server that drains is closed before the bus confirms that nothing more will come.
    DrainUnconfirmed
    /// A server that drains does not wait for requests in flight.
    DrainForgetsRequests

    // Streams.

    /// A server that takes a stream at the opening's deadline or after it opens it.
    LateOpeningCounts
    /// A duplicate of a message is delivered.
    MessageComesTwice
    /// A message is acknowledged when it comes, whether or not its consumer takes it.
    AckOnArrival
    /// An ack is taken for that of the first message that waits for one.
    AckOfAnother
    /// An ack of a message that comes at the send's deadline or after it is taken.
    LateAckCounts
    /// A send ends a nanosecond after its deadline.
    SendLateByOne
    /// Messages on their way outlive their stream.
    SendsOutlive
    /// One message more than the limit waits to be taken.
    UnreadLimitByOne
    /// A message that was taken makes no room for another.
    UnreadLeaks
    /// A stream is never idle for too long.
    IdleForever
    /// A stream that ends does not tell the other side.
    CloseUntold
    /// A server that takes a stream late is not told that its client gave up.
    AbortUntold
    /// A stream that has ended still delivers messages.
    EndedStreamReceives
    /// A client keeps streams that have ended.
    EndedStreamStays
    /// A server counts streams that are open among those that are being opened.
    OpeningsLeak

    // Updates.

    /// An update of another type than that subscribed to is delivered.
    AnyTypeIsAnUpdate
    /// An update that there is no room for leaves no gap behind.
    LostUpdateUnsaid
    /// An update that was taken makes no room for another.
    UpdateRoomLeaks
    /// A gap that the bus reports to a client is not passed on.
    GapUnsaid
    /// A subscription that has ended is still counted.
    ListenersLeak
    /// An update that the bus did not take counts as published.
    UpdateFailureIgnored
    /// An update's own timeout does not count.
    UpdateTimeoutIgnored

    // What all share.

    /// A frame that has no business on its channel panics.
    UnexpectedTypePanics
    /// A stale handle finds what took its place.
    StaleHandlesLive
    /// The ids of what has ended stay in their table.
    IdsLeak
    /// The timers of what has ended stay armed.
    TimersLeak
    /// A timer that is moved keeps its place in the queue.
    MovedTimerStays
    /// That the bus has room again goes unnoticed.
    RoomUnnoticed
    /// A full bus holds back events too.
    FullBusHoldsEvents
    /// A frame that the bus had no room for goes to the end of the queue.
    HeldFrameGoesLast

    // The driver.

    /// A deadline that is earlier than the one that the driver sleeps until does not wake it.
    EarlierDeadlineSleeps
    /// What became of a frame is lost, unless the bus says so at once.
    ReceiptsLost
    /// Nothing asks a bus that was full whether it has room again.
    RoomUnasked
    /// What a client or server has pending stays so when its runtime ends.
    EndedRuntimeHangs
    /// To drop the future of a call does not cancel it.
    DroppedCallStays
    /// The callers of a client that is closed are not woken.
    ClosedCallersSleep
    /// A subscription resolves before it is live.
    SubscribedEarly
    /// A shutdown resolves when it begins.
    ShutdownUnawaited
    /// A request whose handler panics is not answered.
    PanicUnanswered
    /// A handler runs on when its request is over.
    HandlerUnstopped
    /// A stream that is dropped is not closed.
    DroppedStreamStays
    /// A message of a stream that its handler has dropped is acknowledged.
    UnwantedIsAcked
    /// Messages that wait to be taken are gone once their stream has ended.
    EndHidesMessages
    /// What may have run is tried again where it must not be.
    RetriesWhatRan
}
