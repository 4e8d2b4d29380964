//! The rules of PROTOCOL section 6 for selecting a server, applied to the bids that the client has
//! received. This implementation is independent of the engine's.

use std::time::Duration;

use psrpc_engine::Time;
use psrpc_engine::proto::{ClaimRequest, Text};

use super::violation::{Checked, Invariant};

/// The selection rules of a call, with all defaults applied. A minimum, maximum or duration of zero
/// disables its rule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SelectionRules {
    /// Bids below this do not count.
    pub minimum: f32,
    /// A bid of at least this wins at once.
    pub maximum: f32,
    /// Whether the first bid that counts wins at once.
    pub accept_first: bool,
    /// How long to wait for bids.
    pub affinity_timeout: Duration,
    /// How long to wait for better bids after the first that counts.
    pub short_circuit: Duration,
    /// Whether a selection function of the caller selects the server.
    pub ask: bool,
    /// The maximum number of bids that are considered.
    pub limit: usize,
}

/// The bids that a client has received for one call.
pub(super) struct SelectionHistory {
    rules: SelectionRules,
    /// The start of the call, by the client's clock.
    start: Time,
    /// The first bid of each server, and the time when it was received.
    bids: Vec<(Text, f32, Time)>,
}

impl SelectionHistory {
    pub(super) fn new(rules: SelectionRules, start: Time) -> Self {
        Self { rules, start, bids: Vec::new() }
    }

    pub(super) fn received(&mut self, bid: &ClaimRequest, now: Time) {
        let is_new = !self.bids.iter().any(|(server, ..)| *server == bid.server_id);
        if is_new && bid.affinity.is_finite() && self.bids.len() < self.rules.limit {
            self.bids.push((bid.server_id.clone(), bid.affinity, now));
        }
    }

    /// Returns the number of servers that bid.
    pub(super) fn bids(&self) -> usize {
        self.bids.len()
    }

    /// Returns `true` if only the selection function can end the selection.
    pub(super) fn must_ask(&self) -> bool {
        self.rules.ask && !self.bids.iter().any(|(_, affinity, _)| self.wins_at_once(*affinity))
    }

    fn counts(&self, affinity: f32) -> bool {
        self.rules.minimum <= 0.0 || affinity >= self.rules.minimum
    }

    fn wins_at_once(&self, affinity: f32) -> bool {
        let SelectionRules { maximum, accept_first, .. } = self.rules;
        self.counts(affinity) && (accept_first || maximum > 0.0 && affinity >= maximum)
    }

    /// Returns the end of the selection if no bid wins at once, by the client's clock.
    fn end(&self) -> Option<Time> {
        let SelectionRules { affinity_timeout, short_circuit, .. } = self.rules;
        let first = self.bids.iter().find(|(_, affinity, _)| self.counts(*affinity)).map(|(.., at)| *at);
        let after =
            |from: Option<Time>, wait: Duration| from.filter(|_| !wait.is_zero()).map(|from| from + wait);
        after(Some(self.start), affinity_timeout).into_iter().chain(after(first, short_circuit)).min()
    }

    /// Checks a grant at `now`. A full bus or a pause last blocked the client at `last_blocked`,
    /// which excuses a late grant.
    pub(super) fn check_grant(
        &self,
        server: &Text,
        now: Time,
        deadline: Time,
        last_blocked: Option<Time>,
    ) -> Checked {
        let bid = self.bids.iter().find(|(bidder, affinity, _)| bidder == server && self.counts(*affinity));
        let Some((_, affinity, _)) = bid else {
            return Invariant::I5.violated(format!("granted to {server}, which made no bid that counts"));
        };
        if self.wins_at_once(*affinity) {
            return self.check_first(server);
        }
        if self.rules.ask {
            return Ok(());
        }
        let end = self.end().map_or(deadline, |end| end.min(deadline));
        if now < end {
            return Invariant::I5.violated(format!("granted to {server} {:?} early", end.since(now)));
        }
        if last_blocked.is_some_and(|last_blocked| last_blocked >= end) {
            return Ok(());
        }
        // A fast clock skips a nanosecond now and then.
        if now > end + Duration::from_nanos(1) {
            return Invariant::I1.violated(format!("granted to {server} {:?} late", now.since(end)));
        }
        // A bid that arrives at the very end of the selection may count or not. The end is
        // uncertain by the skipped nanosecond.
        let (with, without) = (self.best(|at| at <= now), self.best(|at| at < end));
        if with != Some(server) && without != Some(server) {
            return Invariant::I5
                .violated(format!("granted to {server}, and the best of {:?} is {with:?}", self.bids));
        }
        Ok(())
    }

    /// Returns the best of the bids that count and were received in time.
    fn best(&self, in_time: impl Fn(Time) -> bool) -> Option<&Text> {
        let mut best: Option<&(Text, f32, Time)> = None;
        for bid in &self.bids {
            if self.counts(bid.1) && in_time(bid.2) && bid.1 > best.map_or(0.0, |best| best.1) {
                best = Some(bid);
            }
        }
        best.map(|(server, ..)| server)
    }

    /// Checks that no earlier bid wins at once.
    fn check_first(&self, server: &Text) -> Checked {
        let first = self.bids.iter().find(|(_, affinity, _)| self.wins_at_once(*affinity));
        match first {
            Some((first, ..)) if first != server => {
                Invariant::I5.violated(format!("granted to {server}, and {first} had won at once"))
            }
            _ => Ok(()),
        }
    }
}
