//! The selection of a server among bids.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use psrpc_engine::{Bid, Selection as Options};

use crate::error::Error;

/// The rules by which a call selects a server among the bids (PROTOCOL section 6).
///
/// Each option that is set overrides the method's default. By default, a call of an affinity method
/// waits 1 s for bids, and 200 ms for better ones after the first bid. Any other call takes the
/// first bid.
///
/// On a queue-routed method the bus hands each request to one server, so there are no bids to
/// compare. A minimum above 0, a maximum above 0 or a selection function fails the call with
/// `invalid_argument` there. The other options work.
///
/// ```
/// # use std::time::Duration;
/// use psrpc::Selection;
///
/// let at_least_half_idle =
///     Selection::new().minimum_affinity(0.5).affinity_timeout(Duration::from_millis(100));
/// let worst = Selection::new()
///     .choose(|bids| Ok(bids.iter().min_by(|a, b| a.affinity.total_cmp(&b.affinity))));
/// ```
#[derive(Clone, Default)]
pub struct Selection {
    options: Options,
    choose: Option<Choose>,
}

/// A selection function.
pub(crate) type Choose = Arc<dyn for<'a> Fn(&'a [Bid]) -> Result<Option<&'a Bid>, Error> + Send + Sync>;

impl Selection {
    /// Returns a selection that keeps the defaults of the method.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns a selection that overrides all defaults: no minimum, no maximum, no timeouts other
    /// than the call's deadline, and no immediate win for the first bid.
    pub fn none() -> Self {
        Self { options: Options::none(), choose: None }
    }

    /// Sets the lowest affinity that counts. With 0 or less, all bids count. A bid of 0 or less is
    /// selected only by `accept_first_available` or by a selection function.
    #[must_use]
    pub fn minimum_affinity(mut self, affinity: f32) -> Self {
        self.options.minimum_affinity = Some(affinity);
        self
    }

    /// Sets the affinity at or above which a bid wins at once. With 0 or less, no bid wins at once.
    #[must_use]
    pub fn maximum_affinity(mut self, affinity: f32) -> Self {
        self.options.maximum_affinity = Some(affinity);
        self
    }

    /// Sets whether the first bid that counts wins at once.
    #[must_use]
    pub fn accept_first_available(mut self, accept: bool) -> Self {
        self.options.accept_first_available = Some(accept);
        self
    }

    /// Sets how long to wait for bids. Zero waits until the call's deadline.
    #[must_use]
    pub fn affinity_timeout(mut self, timeout: Duration) -> Self {
        self.options.affinity_timeout = Some(timeout);
        self
    }

    /// Sets how long to wait for better bids after the first one that counts. Zero means no such
    /// limit.
    #[must_use]
    pub fn short_circuit_timeout(mut self, timeout: Duration) -> Self {
        self.options.short_circuit_timeout = Some(timeout);
        self
    }

    /// Sets a function that selects a bid once a timeout has ended the wait. It gets the bids that
    /// count, in order of arrival, and possibly none, unless the bus knows that nobody is
    /// subscribed. If it returns `None`, the call fails as if no bid were acceptable. If it returns
    /// an error, the call fails with that error. The function is not called if a bid wins at once,
    /// by `maximum_affinity` or `accept_first_available`.
    ///
    /// The function is also called if the deadline passes during the selection. If it then returns
    /// an error, the call fails with that error. If it selects a bid, the bid is not granted, and
    /// the call fails with `deadline_exceeded`.
    ///
    /// The function runs on the client's background task, and must not block.
    #[must_use]
    pub fn choose<F>(mut self, choose: F) -> Self
    where
        F: for<'a> Fn(&'a [Bid]) -> Result<Option<&'a Bid>, Error> + Send + Sync + 'static,
    {
        self.options.ask = true;
        self.choose = Some(Arc::new(choose));
        self
    }

    /// Merges other options into these. The options that are set in `other` take precedence.
    pub(crate) fn with(self, other: Self) -> Self {
        let (base, overrides) = (self.options, other.options);
        let options = Options {
            minimum_affinity: overrides.minimum_affinity.or(base.minimum_affinity),
            maximum_affinity: overrides.maximum_affinity.or(base.maximum_affinity),
            accept_first_available: overrides.accept_first_available.or(base.accept_first_available),
            affinity_timeout: overrides.affinity_timeout.or(base.affinity_timeout),
            short_circuit_timeout: overrides.short_circuit_timeout.or(base.short_circuit_timeout),
            ask: overrides.ask || base.ask,
        };
        Self { options, choose: other.choose.or(self.choose) }
    }

    pub(crate) fn into_parts(self) -> (Options, Option<Choose>) {
        (self.options, self.choose)
    }
}

impl fmt::Debug for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.options.fmt(f)
    }
}
