//! Selection: bids in, verdict out.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

use psrpc_proto::{ErrorResponse, Text};

use super::heard::Heard;
use crate::core::map::{HashKeys, Map};
use crate::core::time::Time;
use crate::core::timers::TimerKind;
use crate::error::CallError;
use crate::reason::Reason;
use crate::wire::bid::Bid;
use crate::wire::route::Route;

/// How a call picks its server (PROTOCOL section 6).
///
/// Every option that is set overrides the default of the method, one by one; [`Selection::none`]
/// sets them all, to nothing.
///
/// The defaults: for affinity methods an affinity timeout of 1 s and a short circuit of 200 ms; for
/// others an affinity timeout of 1 s, and the first bid wins.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Selection {
    /// Bids below this do not count. 0 or less means that every bid counts.
    pub minimum_affinity: Option<f32>,
    /// A bid of at least this wins at once. 0 or less means that none does.
    pub maximum_affinity: Option<f32>,
    /// Whether the first bid that counts wins at once.
    pub accept_first_available: Option<bool>,
    /// How long to wait for bids. Zero means until the call's deadline.
    pub affinity_timeout: Option<Duration>,
    /// How long to wait for better bids after the first that counts. Zero means no such limit.
    pub short_circuit_timeout: Option<Duration>,
    /// Whether to ask the caller which of the bids that count shall win
    /// ([`ClientEvent::Select`](crate::ClientEvent::Select)).
    pub ask: bool,
}

impl Selection {
    /// Every option set to nothing: no minimum, no maximum, no timeouts, and the first bid does not
    /// win at once.
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

/// A selection's options once the defaults are filled in.
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
    /// The rules for a call on `route`, or why they cannot be.
    pub(crate) fn new(
        route: &Route,
        options: &Selection,
        affinity_timeout: Duration,
        short_circuit: Duration,
    ) -> Result<Self, CallError> {
        let affinity = route.properties().affinity();
        if route.is_queue() {
            // Of a queue one server alone bids, so nothing that compares bids can take effect.
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
    /// The servers that bid and did not win at once, to tell a second bid.
    bidders: Map<Text>,
    /// What the selection function gets to see.
    counted: Vec<Bid>,
    best: Option<Bid>,
    /// Boxed, since it is large and few calls have one.
    last_error: Option<Box<ErrorResponse>>,
}

/// How a selection ends.
#[derive(Debug, PartialEq)]
pub(crate) enum Verdict {
    /// This server wins.
    Server(Text),
    /// The caller decides.
    Ask(Vec<Bid>),
    /// No server can win, and this is what one of them answered.
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

    /// Takes a bid, or says why not. `true` when it wins at once.
    pub(crate) fn bid(
        &mut self,
        now: Time,
        claim: Bid,
        keys: &HashKeys,
        limit: usize,
        heard: &mut Heard,
    ) -> Result<bool, Reason> {
        if !claim.affinity.is_finite() {
            return Err(Reason::NonFiniteAffinity);
        }
        let hash = keys.hash(claim.server_id.as_bytes());
        let known = self.bidders.get(hash, |known| *known == claim.server_id);
        if known.is_some() {
            return Err(Reason::SecondBid);
        }
        if self.bidders.len() >= limit {
            return Err(Reason::BidsFull);
        }
        heard.bids += 1;
        let Rules { minimum, maximum, accept_first, short_circuit, ask, .. } = self.rules;
        let counts = minimum <= 0.0 || claim.affinity >= minimum;
        if counts && (accept_first || maximum > 0.0 && claim.affinity >= maximum) {
            return Ok(true);
        }
        self.bidders.insert(hash, claim.server_id.clone());
        if !counts {
            heard.below_minimum += 1;
            return Ok(false);
        }
        if self.short_circuit.is_none() && !short_circuit.is_zero() {
            self.short_circuit = Some(now + short_circuit);
        }
        if ask {
            self.counted.push(claim.clone());
        }
        let best = self.best.as_ref().map_or(0.0, |best| best.affinity);
        if claim.affinity > best {
            self.best = Some(claim);
        }
        Ok(false)
    }

    /// Takes an error response.
    pub(crate) fn error(&mut self, error: ErrorResponse) {
        self.last_error = Some(Box::new(error));
    }

    /// The best bid so far.
    pub(crate) fn into_best(self) -> Option<Bid> {
        self.best
    }

    /// When selection ends by itself, and why; `None` while only the call's deadline ends it.
    pub(crate) fn ends(&self) -> Option<(Time, TimerKind)> {
        let affinity_timeout = self.affinity_timeout.map(|at| (at, TimerKind::AffinityTimeout));
        let short_circuit = self.short_circuit.map(|at| (at, TimerKind::ShortCircuit));
        affinity_timeout.into_iter().chain(short_circuit).min_by_key(|(at, _)| *at)
    }

    /// Ends the selection by a timeout of its own, or by the call's deadline.
    pub(crate) fn end(&mut self) -> Verdict {
        if self.rules.ask { Verdict::Ask(core::mem::take(&mut self.counted)) } else { self.end_unasked() }
    }

    /// Ends the selection by what has come, whoever else would choose.
    pub(crate) fn end_unasked(&mut self) -> Verdict {
        match (&self.best, self.last_error.take()) {
            (Some(best), _) => Verdict::Server(best.server_id.clone()),
            (None, Some(error)) => Verdict::Error(*error),
            (None, None) => Verdict::Nobody,
        }
    }
}
