//! The selection of a server among bids.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

use psrpc_proto::{ErrorResponse, Text};

use super::observed::Observed;
use crate::core::map::{HashKeys, Map};
use crate::core::time::Time;
use crate::core::timers::TimerKind;
use crate::error::CallError;
use crate::reason::Reason;
use crate::wire::bid::Bid;
use crate::wire::route::Route;

/// How a call picks its server (PROTOCOL section 6).
///
/// An option that is set overrides the method's default for that option. [`Selection::none`] turns
/// every option off.
///
/// Affinity methods default to an affinity timeout of 1 s and a short-circuit timeout of 200 ms.
/// Other methods default to an affinity timeout of 1 s, and the first bid wins. A bid of 0 can only
/// win as the first bid or as the caller's choice: the best bid must be above 0.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Selection {
    /// The lowest affinity that counts. At 0 or less, every bid counts.
    pub minimum_affinity: Option<f32>,
    /// The affinity from which a bid wins at once. At 0 or less, no bid does.
    pub maximum_affinity: Option<f32>,
    /// Whether the first bid that counts wins at once.
    pub accept_first_available: Option<bool>,
    /// How long to wait for bids. Zero waits until the call's deadline.
    pub affinity_timeout: Option<Duration>,
    /// How long to wait for better bids after the first one that counts. Zero means no limit.
    pub short_circuit_timeout: Option<Duration>,
    /// Whether the caller chooses among the bids that count
    /// ([`ClientEvent::Select`](crate::ClientEvent::Select)).
    pub ask: bool,
}

impl Selection {
    /// Returns a selection without a minimum, a maximum or timeouts, in which the first bid does
    /// not win at once.
    pub const fn none() -> Self {
        Self {
            minimum_affinity: Some(0.0),
            maximum_affinity: Some(0.0),
            accept_first_available: Some(false),
            affinity_timeout: Some(Duration::ZERO),
            short_circuit_timeout: Some(Duration::ZERO),
            ask: false,
        }
    }
}

/// The options of a selection with the defaults filled in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    minimum: f32,
    maximum: f32,
    accept_first: bool,
    affinity_timeout: Duration,
    short_circuit: Duration,
    ask: bool,
}

impl Rules {
    /// Fills in the defaults for a call on `route`. Fails if an option is invalid or has no effect
    /// there.
    pub(crate) fn new(
        route: &Route,
        options: &Selection,
        affinity_timeout: Duration,
        short_circuit: Duration,
    ) -> Result<Self, CallError> {
        let affinity = route.properties().affinity();
        if route.is_queue() {
            // Only one server of a queue bids, so options that compare bids have no effect.
            let above_zero = |affinity: Option<f32>| affinity.is_some_and(|affinity| affinity > 0.0);
            let set = [
                (above_zero(options.minimum_affinity), "minimum_affinity"),
                (above_zero(options.maximum_affinity), "maximum_affinity"),
                (options.ask, "the selection function"),
            ];
            let options: Vec<_> = set.into_iter().filter(|(set, _)| *set).map(|(_, option)| option).collect();
            if !options.is_empty() {
                return Err(CallError::SelectionOnQueue { method: route.method().clone(), options });
            }
        }
        let finite = |value: Option<f32>, option| match value.unwrap_or(0.0) {
            value if value.is_finite() => Ok(value),
            _ => Err(CallError::NotFinite { option }),
        };
        Ok(Self {
            minimum: finite(options.minimum_affinity, "minimum_affinity")?,
            maximum: finite(options.maximum_affinity, "maximum_affinity")?,
            accept_first: options.accept_first_available.unwrap_or(!affinity),
            affinity_timeout: options.affinity_timeout.unwrap_or(affinity_timeout),
            short_circuit: options.short_circuit_timeout.unwrap_or(if affinity {
                short_circuit
            } else {
                Duration::ZERO
            }),
            ask: options.ask,
        })
    }
}

/// The bids for one call.
pub(crate) struct Bids {
    rules: Rules,
    affinity_timeout: Option<Time>,
    short_circuit: Option<Time>,
    /// The servers whose bids did not win at once, to detect a second bid.
    bidders: Map<Text>,
    /// The bids that count, for the selection function.
    counted: Vec<Bid>,
    best: Option<Bid>,
    /// Boxed because it is large and few calls have one.
    last_error: Option<Box<ErrorResponse>>,
}

/// The result of a selection.
#[derive(Debug, PartialEq)]
pub(crate) enum Verdict {
    /// This server wins.
    Server(Text),
    /// The caller chooses among these bids.
    Ask(Vec<Bid>),
    /// No server can win, and one of them answered with this error.
    Error(ErrorResponse),
    /// No server can win.
    Nobody,
}

impl Bids {
    pub(crate) fn new(rules: Rules, now: Time) -> Self {
        Self {
            affinity_timeout: (!rules.affinity_timeout.is_zero()).then(|| now + rules.affinity_timeout),
            short_circuit: None,
            bidders: Map::new(),
            counted: Vec::new(),
            best: None,
            last_error: None,
            rules,
        }
    }

    /// Adds a bid, or returns the reason to drop it. Returns `true` if the bid wins at once.
    pub(crate) fn bid(
        &mut self,
        now: Time,
        bid: Bid,
        keys: &HashKeys,
        limit: usize,
        observed: &mut Observed,
    ) -> Result<bool, Reason> {
        if !bid.affinity.is_finite() {
            return Err(Reason::NonFiniteAffinity);
        }
        let hash = keys.hash(bid.server_id.as_bytes());
        let known = self.bidders.get(hash, |known| *known == bid.server_id);
        if known.is_some() {
            return Err(Reason::SecondBid);
        }
        if self.bidders.len() >= limit {
            return Err(Reason::BidsFull);
        }
        observed.bids += 1;
        let Rules { minimum, maximum, accept_first, short_circuit, ask, .. } = self.rules;
        let counts = minimum <= 0.0 || bid.affinity >= minimum;
        if counts && (accept_first || maximum > 0.0 && bid.affinity >= maximum) {
            return Ok(true);
        }
        self.bidders.insert(hash, bid.server_id.clone());
        if !counts {
            observed.below_minimum += 1;
            return Ok(false);
        }
        if self.short_circuit.is_none() && !short_circuit.is_zero() {
            self.short_circuit = Some(now + short_circuit);
        }
        if ask {
            self.counted.push(bid.clone());
        }
        let best = self.best.as_ref().map_or(0.0, |best| best.affinity);
        if bid.affinity > best {
            self.best = Some(bid);
        }
        Ok(false)
    }

    /// Records an error response.
    pub(crate) fn error(&mut self, error: ErrorResponse) {
        self.last_error = Some(Box::new(error));
    }

    /// Returns the best bid so far.
    pub(crate) fn into_best(self) -> Option<Bid> {
        self.best
    }

    /// Returns the earlier of the selection's own timeouts, with its kind; `None` if only the
    /// call's deadline ends the selection.
    pub(crate) fn next_timeout(&self) -> Option<(Time, TimerKind)> {
        let affinity_timeout = self.affinity_timeout.map(|at| (at, TimerKind::AffinityTimeout));
        let short_circuit = self.short_circuit.map(|at| (at, TimerKind::ShortCircuit));
        affinity_timeout.into_iter().chain(short_circuit).min_by_key(|(at, _)| *at)
    }

    /// Ends the selection at its own timeout or at the call's deadline.
    pub(crate) fn end(&mut self) -> Verdict {
        if self.rules.ask {
            Verdict::Ask(core::mem::take(&mut self.counted))
        } else {
            self.end_without_asking()
        }
    }

    /// Ends the selection with the best bid or the last error, without asking the caller.
    pub(crate) fn end_without_asking(&mut self) -> Verdict {
        match (&self.best, self.last_error.take()) {
            (Some(best), _) => Verdict::Server(best.server_id.clone()),
            (None, Some(error)) => Verdict::Error(*error),
            (None, None) => Verdict::Nobody,
        }
    }
}
