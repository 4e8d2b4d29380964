//! The budget: a bound on the work of one method call, so that the driver stays responsive.

/// The maximum number of timers that one call of
/// [`Engine::handle_timeout`](crate::Engine::handle_timeout) fires: 256. When an engine closes, one
/// method call also ends at most this many calls, requests, streams and subscriptions.
pub const ROUND: usize = 256;

/// Whether more work is due after a call of
/// [`Engine::handle_timeout`](crate::Engine::handle_timeout).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "while more is due, `handle_timeout` must be called again"]
pub enum Due {
    /// Nothing is due: sleep until the next timeout.
    Nothing,
    /// More is due: take the outputs, then call `handle_timeout` again.
    More,
}

impl Due {
    /// Returns `true` if more is due.
    pub fn is_more(self) -> bool {
        self == Due::More
    }
}

/// What remains of a [`ROUND`].
pub(crate) struct Budget(usize);

impl Budget {
    /// Creates the budget of one method call.
    pub(crate) const fn round() -> Self {
        Self(ROUND)
    }

    /// Spends `cost`. Saturates at zero, because a single step may cost more than what remains.
    pub(crate) fn spend(&mut self, cost: usize) {
        self.0 = self.0.saturating_sub(cost);
    }

    pub(crate) fn is_spent(&self) -> bool {
        self.0 == 0
    }

    pub(crate) fn remaining(&self) -> usize {
        self.0
    }
}

/// One step of a walk over a table, which the budget may interrupt.
pub(crate) enum Step<H> {
    /// The next entry.
    Next(H),
    /// There are no more entries.
    Done,
    /// The budget is spent. The walk continues in the next round.
    Spent,
}

impl<H> Step<H> {
    pub(crate) fn map<T>(self, map: impl FnOnce(H) -> T) -> Step<T> {
        match self {
            Step::Next(handle) => Step::Next(map(handle)),
            Step::Done => Step::Done,
            Step::Spent => Step::Spent,
        }
    }
}
