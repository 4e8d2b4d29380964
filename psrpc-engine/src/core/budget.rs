//! The budget: how much an engine does in one call, before its driver lets others have their turn.

/// How many timers [`Engine::handle_timeout`](crate::Engine::handle_timeout) fires in one call at
/// most, and how many calls, requests, streams or subscriptions an engine that closes ends in one:
/// 256.
pub const ROUND: usize = 256;

/// Whether more is due than one call of [`Engine::handle_timeout`](crate::Engine::handle_timeout)
/// has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "while more is due, `handle_timeout` must be called again"]
pub enum Due {
    /// Nothing is due any more: sleep until the next timeout.
    Nothing,
    /// More is due: take the outputs, and call `handle_timeout` again.
    More,
}

impl Due {
    /// Returns `true` if more is due.
    pub fn is_more(self) -> bool {
        self == Due::More
    }
}

/// How much is left of a [`ROUND`].
pub(crate) struct Budget(usize);

impl Budget {
    /// The budget of one call.
    pub(crate) const fn round() -> Self {
        Self(ROUND)
    }

    /// Spends some of it. What is left does not go below nothing: one thing may cost more than is
    /// left.
    pub(crate) fn spend(&mut self, cost: usize) {
        self.0 = self.0.saturating_sub(cost);
    }

    pub(crate) fn is_spent(&self) -> bool {
        self.0 == 0
    }

    pub(crate) fn left(&self) -> usize {
        self.0
    }
}

/// One step of a walk over all things of a table, which the budget may interrupt.
pub(crate) enum Step<H> {
    /// The next thing.
    Next(H),
    /// There was no other.
    Done,
    /// The budget is spent: the walk goes on in the next round.
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
