//! Faults: every kind that a run can suffer, how likely each is, and how often each happened.

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
            /// Every kind.
            pub const ALL: &'static [Fault] = &[$(Fault::$variant),*];

            /// The name that reports use.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Fault::$variant => $text,)*
                }
            }
        }
    };
}

faults! {
    // What can happen to a delivery.

    /// It is lost.
    Drop = "drop";
    /// It comes twice, on a queue perhaps to two subscribers, the second time up to seconds later.
    Duplicate = "duplicate";
    /// It comes late, and what follows on the same subscription waits for it.
    Delay = "delay";
    /// What follows overtakes it.
    Reorder = "reorder";
    /// It comes when every call of its time is over.
    Late = "late";
    /// It comes damaged.
    Damage = "damage";
    /// Random bytes come with it.
    Noise = "noise";
    /// A message that has no business on its channel comes with it.
    UnexpectedType = "unexpected_type";
    /// A bid, grant or answer for a call that nobody made comes with it.
    UnknownCall = "unknown_call";
    /// With a bid comes another of the same server, with another affinity.
    SecondBid = "second_bid";
    /// With a bid comes one of a stranger whose affinity is infinite or not a number.
    NonFiniteAffinity = "non_finite_affinity";
    /// With a bid comes an answer of a stranger that nobody granted anything.
    ForgedAnswer = "forged_answer";
    /// It is lost, and the bus says that something may be.
    Gap = "gap";
    /// With a bid come many of strangers for the same call.
    FloodOfBids = "flood_of_bids";
    /// With an answer come many of strangers to the same call.
    FloodOfAnswers = "flood_of_answers";
    /// With the opening of a stream come many of strangers.
    FloodOfOpens = "flood_of_opens";

    // What can happen between nodes for a while, counted once for each frame that it meets.

    /// Two groups of nodes do not hear each other.
    Partition = "partition";
    /// One group of nodes does not hear the other.
    OneWayPartition = "one_way_partition";
    /// What goes to a node is held up, and then comes all at once.
    Clog = "clog";

    // What can happen to a publish.

    /// The bus does not take the frame, and says so.
    PublishError = "publish_error";
    /// The bus delivers the frame, and says that it did not.
    FalsePublishError = "false_publish_error";
    /// The bus has no room for the frame, nor for what follows, until some time later.
    FullBus = "full_bus";

    // What can happen to a subscription.

    /// It is live long after it was asked for.
    LateSubscribe = "late_subscribe";
    /// The bus refuses it, or gives it up later.
    LostSubscribe = "lost_subscribe";

    // What can happen to a call, a client or a server.

    /// A caller cancels.
    Cancel = "cancel";
    /// A caller cancels in the very moment in which a bid comes in.
    HastyCancel = "hasty_cancel";
    /// A consumer of a stream or of updates takes its time.
    SlowConsumer = "slow_consumer";
    /// A wall clock is off, counted once for each node that starts with one.
    Skew = "skew";
    /// Clocks are too fast or too slow, counted once for each node that starts with them.
    Drift = "drift";
    /// A wall clock jumps.
    ClockJump = "clock_jump";
    /// A node does nothing for a while, and what comes to it waits.
    Pause = "pause";
    /// A handler runs past the deadline.
    Overrun = "overrun";
    /// A client closes.
    Close = "close";
    /// A server drains.
    Drain = "drain";
    /// A server is killed.
    Kill = "kill";
    /// A client or a server is gone from one moment to the next, and another takes its place.
    Crash = "crash";
    /// What takes the place of one that crashed has its id.
    Restart = "restart";
    /// The runtime of a client or a server shuts down, while its users go on elsewhere.
    RuntimeEnd = "runtime_end";
}

const DELIVERY: &[Fault] = &[
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
    Fault::ForgedAnswer,
    Fault::Gap,
    Fault::FloodOfBids,
    Fault::FloodOfAnswers,
    Fault::FloodOfOpens,
];

const PUBLISH: &[Fault] = &[Fault::PublishError, Fault::FalsePublishError];

/// Each of these brings many frames.
const FLOODS: &[Fault] = &[Fault::FloodOfBids, Fault::FloodOfAnswers, Fault::FloodOfOpens];

const USERS: &[Fault] = &[Fault::Cancel, Fault::HastyCancel, Fault::SlowConsumer];

/// A fault that comes by chance in a run: its kind, and how many of that kind came before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Strike(Fault, u64);

/// Faults of the bus that are neither a delivery's nor a publish's alone.
const OTHERS_OF_BUS: &[Fault] = &[Fault::FullBus, Fault::LateSubscribe, Fault::LostSubscribe];

impl Fault {
    /// Whether it is one that the bus does by chance.
    pub(crate) fn is_of_bus(self) -> bool {
        [DELIVERY, PUBLISH, OTHERS_OF_BUS].iter().any(|faults| faults.contains(&self))
    }
}

/// The faults of a run: how likely each kind is at each opportunity, and how often it happened.
pub(crate) struct Faults {
    /// In permille, of those that come by chance; `None` once they have stopped.
    rates: Option<[u64; Fault::ALL.len()]>,
    counts: FaultCounts,
    /// How many of each kind have come by chance, those that are muted too.
    came: FaultCounts,
    /// The only ones that are not muted, if some are.
    kept: Option<BTreeSet<Strike>>,
}

impl Faults {
    /// Draws the rates for a run. Half of the kinds stay out of it, so that rare combinations of
    /// the others come up.
    pub(crate) fn new(rng: &mut Rng) -> Self {
        let mut rates = [0; Fault::ALL.len()];
        for fault in [DELIVERY, PUBLISH, &[Fault::FullBus]].concat() {
            rates[fault as usize] = rng.pick(&[0, 0, 0, 3, 15, 50]);
        }
        for fault in FLOODS {
            rates[*fault as usize] = rng.pick(&[0, 0, 0, 2, 5, 10]);
        }
        for fault in USERS {
            rates[*fault as usize] = rng.pick(&[0, 30, 300]);
        }
        rates[Fault::LateSubscribe as usize] = rng.pick(&[0, 0, 30, 150]);
        rates[Fault::LostSubscribe as usize] = rng.pick(&[0, 0, 0, 20]);
        let (counts, came) = (FaultCounts::default(), FaultCounts::default());
        Self { rates: Some(rates), counts, came, kept: None }
    }

    /// Of those that come by chance only these happen.
    pub(crate) fn keep_only(&mut self, kept: BTreeSet<Strike>) {
        self.kept = Some(kept);
    }

    /// Those that came by chance and were not muted.
    pub(crate) fn strikes_kept(&self) -> BTreeSet<Strike> {
        let came = self.came.iter().flat_map(|(fault, count)| (0..count).map(move |n| Strike(fault, n)));
        came.filter(|strike| self.is_kept(strike)).collect()
    }

    fn is_kept(&self, strike: &Strike) -> bool {
        self.kept.as_ref().is_none_or(|kept| kept.contains(strike))
    }

    /// A fault comes by chance: whether it is to happen, too.
    fn comes(&mut self, fault: Fault) -> bool {
        let before = &mut self.came.0[fault as usize];
        let strike = Strike(fault, *before);
        *before += 1;
        self.is_kept(&strike)
    }

    /// No faults, until some are [set](Self::set).
    pub(crate) fn none() -> Self {
        let (counts, came) = (FaultCounts::default(), FaultCounts::default());
        Self { rates: None, counts, came, kept: None }
    }

    /// Sets the rate of one kind of fault, in permille.
    pub(crate) fn set(&mut self, fault: Fault, permille: u64) {
        self.rates.get_or_insert([0; Fault::ALL.len()])[fault as usize] = permille;
    }

    /// Draws all rates anew. What was counted stays.
    pub(crate) fn redraw(&mut self, rng: &mut Rng) {
        self.rates = Self::new(rng).rates;
    }

    /// From here on nothing goes wrong, and users behave.
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

    /// Whether this fault happens now; if so, it is counted.
    pub(crate) fn strikes(&mut self, fault: Fault, rng: &mut Rng) -> bool {
        let strikes = self.would_strike(fault, rng);
        if strikes {
            self.count(fault);
        }
        strikes
    }

    /// Whether this fault is to happen. Not counted, since it may come too late to.
    pub(crate) fn would_strike(&mut self, fault: Fault, rng: &mut Rng) -> bool {
        self.rates.is_some_and(|rates| rng.chance(rates[fault as usize])) && self.comes(fault)
    }

    /// What is to happen to a delivery, if anything is. Not counted, since not every frame can
    /// suffer it.
    pub(crate) fn of_delivery(&mut self, rng: &mut Rng) -> Option<Fault> {
        self.one_of(DELIVERY, rng).filter(|fault| self.comes(*fault))
    }

    /// What is to happen to a publish, if anything is.
    pub(crate) fn of_publish(&mut self, rng: &mut Rng) -> Option<Fault> {
        self.one_of(PUBLISH, rng).filter(|fault| self.comes(*fault))
    }

    fn one_of(&self, faults: &[Fault], rng: &mut Rng) -> Option<Fault> {
        let rates = self.rates.as_ref()?;
        let mut drawn = rng.below(1000);
        for fault in faults {
            match drawn.checked_sub(rates[*fault as usize]) {
                Some(rest) => drawn = rest,
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

    /// How often this kind happened.
    pub fn of(&self, fault: Fault) -> u64 {
        self.0[fault as usize]
    }

    /// Every kind, and how often it happened.
    pub fn iter(&self) -> impl Iterator<Item = (Fault, u64)> {
        Fault::ALL.iter().map(|fault| (*fault, self.0[*fault as usize]))
    }
}
