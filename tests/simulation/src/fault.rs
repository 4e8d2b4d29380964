//! Faults: every kind that a run can suffer, its probability, and how often it happened.

use std::collections::BTreeSet;

use crate::rng::Rng;

macro_rules! faults {
    ($($(#[$doc:meta])* $variant:ident = $text:literal;)*) => {
        /// A kind of fault.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Fault {
            $($(#[$doc])* $variant,)*
        }

        impl Fault {
            /// Every kind of fault.
            pub const ALL: &'static [Fault] = &[$(Fault::$variant),*];

            /// Returns the name that reports use.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Fault::$variant => $text,)*
                }
            }
        }
    };
}

faults! {
    // Faults of a delivery.

    /// The frame is lost.
    Drop = "drop";
    /// The frame arrives twice, on a queue perhaps at two subscribers, the second time up to
    /// seconds later.
    Duplicate = "duplicate";
    /// The frame is delayed, and later frames of the same subscription wait for it.
    Delay = "delay";
    /// Later frames overtake the frame.
    Reorder = "reorder";
    /// The frame arrives after every call that was pending at its publish has ended.
    Late = "late";
    /// The frame arrives damaged.
    Damage = "damage";
    /// Random bytes arrive as an extra frame.
    Noise = "noise";
    /// A frame of a type that does not belong on the channel arrives as an extra frame.
    UnexpectedType = "unexpected_type";
    /// A bid, grant, response or stream frame for an unknown call arrives as an extra frame.
    UnknownCall = "unknown_call";
    /// After a bid, the same server bids again with another affinity.
    SecondBid = "second_bid";
    /// After a bid or an announcement, a forged server bids with an affinity that is infinite or
    /// not a number.
    NonFiniteAffinity = "non_finite_affinity";
    /// After a bid or an announcement, a forged server responds without a grant.
    ForgedResponse = "forged_response";
    /// The frame is lost, and the bus reports a gap.
    Gap = "gap";
    /// After a bid or an announcement, many forged servers bid for the same call.
    FloodOfBids = "flood_of_bids";
    /// After a response, many forged servers respond to the same call.
    FloodOfResponses = "flood_of_responses";
    /// After the opening of a stream, many forged clients open streams.
    FloodOfOpens = "flood_of_opens";

    // Faults between nodes that last for a while. Each counts once for each frame it affects.

    /// Two groups of nodes cannot reach each other.
    Partition = "partition";
    /// One group of nodes cannot reach the other.
    OneWayPartition = "one_way_partition";
    /// Frames to a node are held up and then arrive all at once.
    Clog = "clog";

    // Faults of a publish.

    /// The bus rejects the frame with an error.
    PublishError = "publish_error";
    /// The bus delivers the frame and reports an error.
    FalsePublishError = "false_publish_error";
    /// For a while, the bus has no room for this frame and later ones.
    FullBus = "full_bus";

    // Faults of a subscription.

    /// The subscription becomes live late.
    LateSubscribe = "late_subscribe";
    /// The bus refuses the subscription, or ends it later.
    LostSubscribe = "lost_subscribe";

    // Faults of calls, clients and servers.

    /// A caller cancels a call, or a send on a stream.
    Cancel = "cancel";
    /// A caller cancels a call at the moment when a bid arrives.
    HastyCancel = "hasty_cancel";
    /// A consumer of a stream or of updates is slow.
    SlowConsumer = "slow_consumer";
    /// A wall clock starts with an error. Counted once for each node.
    Skew = "skew";
    /// Clocks run too fast or too slow. Counted once for each node.
    Drift = "drift";
    /// A wall clock jumps.
    ClockJump = "clock_jump";
    /// A node does nothing for a while, and its input waits.
    Pause = "pause";
    /// A handler runs past the deadline.
    Overrun = "overrun";
    /// A client closes.
    Close = "close";
    /// A server drains.
    Drain = "drain";
    /// A server is killed.
    Kill = "kill";
    /// A client or a server crashes, and another takes its place.
    Crash = "crash";
    /// The replacement of a crashed client or server has the same id.
    Restart = "restart";
    /// The runtime of a client or a server shuts down, while user code runs on.
    RuntimeEnd = "runtime_end";
}

const DELIVERY_FAULTS: &[Fault] = &[
    Fault::Drop,
    Fault::Duplicate,
    Fault::Delay,
    Fault::Reorder,
    Fault::Late,
    Fault::Damage,
    Fault::Noise,
    Fault::UnexpectedType,
    Fault::UnknownCall,
    Fault::SecondBid,
    Fault::NonFiniteAffinity,
    Fault::ForgedResponse,
    Fault::Gap,
    Fault::FloodOfBids,
    Fault::FloodOfResponses,
    Fault::FloodOfOpens,
];

const PUBLISH_FAULTS: &[Fault] = &[Fault::PublishError, Fault::FalsePublishError];

/// Each of these causes many frames.
const FLOODS: &[Fault] = &[Fault::FloodOfBids, Fault::FloodOfResponses, Fault::FloodOfOpens];

const USER_FAULTS: &[Fault] = &[Fault::Cancel, Fault::HastyCancel, Fault::SlowConsumer];

/// A fault drawn at random: its kind, and its index among the faults of that kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FaultOccurrence(Fault, u64);

/// Random faults of the bus that belong to neither a delivery nor a publish.
const OTHER_BUS_FAULTS: &[Fault] = &[Fault::FullBus, Fault::LateSubscribe, Fault::LostSubscribe];

impl Fault {
    /// Returns `true` if this is a random fault of the bus.
    pub(crate) fn is_bus_fault(self) -> bool {
        [DELIVERY_FAULTS, PUBLISH_FAULTS, OTHER_BUS_FAULTS].iter().any(|faults| faults.contains(&self))
    }
}

/// The faults of a run: the rate of each kind, and how often it happened.
pub(crate) struct Faults {
    /// The probability of each random fault at each opportunity, in permille; `None` after the
    /// faults have stopped.
    rates: Option<[u64; Fault::ALL.len()]>,
    counts: FaultCounts,
    /// The number of drawn faults of each kind, including those that were suppressed.
    drawn: FaultCounts,
    /// If set, all random faults but these are suppressed.
    allowed: Option<BTreeSet<FaultOccurrence>>,
}

impl Faults {
    /// Draws the rates for a run. About half of the kinds get a rate of zero, so that rare
    /// combinations of the others come up.
    pub(crate) fn new(rng: &mut Rng) -> Self {
        let mut rates = [0; Fault::ALL.len()];
        for fault in [DELIVERY_FAULTS, PUBLISH_FAULTS, &[Fault::FullBus]].concat() {
            rates[fault as usize] = rng.pick(&[0, 0, 0, 3, 15, 50]);
        }
        for fault in FLOODS {
            rates[*fault as usize] = rng.pick(&[0, 0, 0, 2, 5, 10]);
        }
        for fault in USER_FAULTS {
            rates[*fault as usize] = rng.pick(&[0, 30, 300]);
        }
        rates[Fault::LateSubscribe as usize] = rng.pick(&[0, 0, 30, 150]);
        rates[Fault::LostSubscribe as usize] = rng.pick(&[0, 0, 0, 20]);
        let (counts, drawn) = (FaultCounts::default(), FaultCounts::default());
        Self { rates: Some(rates), counts, drawn, allowed: None }
    }

    /// Suppresses all random faults except these.
    pub(crate) fn allow_only(&mut self, allowed: BTreeSet<FaultOccurrence>) {
        self.allowed = Some(allowed);
    }

    /// Returns the random faults that were drawn and not suppressed.
    pub(crate) fn allowed_occurrences(&self) -> BTreeSet<FaultOccurrence> {
        let drawn =
            self.drawn.iter().flat_map(|(fault, count)| (0..count).map(move |n| FaultOccurrence(fault, n)));
        drawn.filter(|occurrence| self.is_allowed(occurrence)).collect()
    }

    fn is_allowed(&self, occurrence: &FaultOccurrence) -> bool {
        self.allowed.as_ref().is_none_or(|allowed| allowed.contains(occurrence))
    }

    /// Counts a drawn fault. Returns `true` unless it is suppressed.
    fn admit(&mut self, fault: Fault) -> bool {
        let before = &mut self.drawn.0[fault as usize];
        let occurrence = FaultOccurrence(fault, *before);
        *before += 1;
        self.is_allowed(&occurrence)
    }

    /// Creates a set without random faults. [`set`](Self::set) adds some.
    pub(crate) fn none() -> Self {
        let (counts, drawn) = (FaultCounts::default(), FaultCounts::default());
        Self { rates: None, counts, drawn, allowed: None }
    }

    /// Sets the rate of one kind of fault, in permille.
    pub(crate) fn set(&mut self, fault: Fault, permille: u64) {
        self.rates.get_or_insert([0; Fault::ALL.len()])[fault as usize] = permille;
    }

    /// Draws all rates anew. The counts stay.
    pub(crate) fn redraw(&mut self, rng: &mut Rng) {
        self.rates = Self::new(rng).rates;
    }

    /// Stops all random faults.
    pub(crate) fn stop(&mut self) {
        self.rates = None;
    }

    pub(crate) fn stopped(&self) -> bool {
        self.rates.is_none()
    }

    pub(crate) fn count(&mut self, fault: Fault) {
        self.counts.0[fault as usize] += 1;
    }

    pub(crate) fn counts(&self) -> FaultCounts {
        self.counts
    }

    /// Draws whether a fault happens now, and counts it if so.
    pub(crate) fn happens(&mut self, fault: Fault, rng: &mut Rng) -> bool {
        let happens = self.draws(fault, rng);
        if happens {
            self.count(fault);
        }
        happens
    }

    /// Draws whether a fault happens. The caller counts it, since it may still turn out not to
    /// apply.
    pub(crate) fn draws(&mut self, fault: Fault, rng: &mut Rng) -> bool {
        self.rates.is_some_and(|rates| rng.chance(rates[fault as usize])) && self.admit(fault)
    }

    /// Draws the fault of a delivery, if any. The caller counts it, since it does not apply to
    /// every frame.
    pub(crate) fn draw_delivery_fault(&mut self, rng: &mut Rng) -> Option<Fault> {
        self.draw_one(DELIVERY_FAULTS, rng).filter(|fault| self.admit(*fault))
    }

    /// Draws the fault of a publish, if any.
    pub(crate) fn draw_publish_fault(&mut self, rng: &mut Rng) -> Option<Fault> {
        self.draw_one(PUBLISH_FAULTS, rng).filter(|fault| self.admit(*fault))
    }

    fn draw_one(&self, faults: &[Fault], rng: &mut Rng) -> Option<Fault> {
        let rates = self.rates.as_ref()?;
        let mut point = rng.below(1000);
        for fault in faults {
            match point.checked_sub(rates[*fault as usize]) {
                Some(rest) => point = rest,
                None => return Some(*fault),
            }
        }
        None
    }
}

/// How often each kind of fault happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultCounts([u64; Fault::ALL.len()]);

impl Default for FaultCounts {
    fn default() -> Self {
        Self([0; Fault::ALL.len()])
    }
}

impl FaultCounts {
    pub(crate) fn add(&mut self, others: &FaultCounts) {
        for (sum, other) in self.0.iter_mut().zip(others.0) {
            *sum += other;
        }
    }

    /// Returns how often this kind happened.
    pub fn of(&self, fault: Fault) -> u64 {
        self.0[fault as usize]
    }

    /// Iterates over all kinds with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (Fault, u64)> {
        Fault::ALL.iter().map(|fault| (*fault, self.0[*fault as usize]))
    }
}
