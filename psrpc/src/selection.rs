//! Selection: how a call picks its server.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use psrpc_engine::{Bid, Selection as Options};

use crate::error::Error;

/// How a call picks its server among those that bid (PROTOCOL section 6).
///
/// Each option that is set overrides the default of the method. The defaults: a call of an affinity
/// method waits 1 s for bids, and from the first bid on 200 ms for better ones; any other call
/// takes the first bid.
///
/// On a queue-routed method a minimum above 0, a maximum above 0 and a selection function fail the
/// call with `invalid_argument`, since the bus hands each request to one server and there are no
/// bids to compare. The other options work.
///
/// ```
/// # use std::time::Duration;
/// use psrpc::Selection;
///
/// let at_least_half_idle =
///     Selection::new().minimum_affinity(0.5).affinity_timeout(Duration::from_millis(100));
/// let worst = Selection::new()
///     .choose(|claims| Ok(claims.iter().min_by(|a, b| a.affinity.total_cmp(&b.affinity))));
/// ```
#[derive(Clone, Default)]
pub struct Selection {
    options: Options,
    choose: Option<Choose>,
}

/// The caller's own function.
pub(crate) type Choose = Arc<dyn for<'a> Fn(&'a [Bid]) -> Result<Option<&'a Bid>, Error> + Send + Sync>;

impl Selection {
    /// The defaults of the method.
    pub fn new() -> Self {
        Self::default()
    }

    /// Every option set to nothing: no minimum, no maximum, no timeouts but the call's own
    /// deadline, and the first bid does not win at once.
    pub fn none() -> Self {
        Self { options: Options::none(), choose: None }
    }

    /// Bids below this do not count. 0 or less: every bid counts, though one of 0 or less cannot be
    /// the best.
    #[must_use]
    pub fn minimum_affinity(mut self, affinity: f32) -> Self {
        self.options.minimum_affinity = Some(affinity);
        self
    }

    /// A bid of at least this wins at once. 0 or less: none does.
    #[must_use]
    pub fn maximum_affinity(mut self, affinity: f32) -> Self {
        self.options.maximum_affinity = Some(affinity);
        self
    }

    /// Whether the first bid that counts wins at once.
    #[must_use]
    pub fn accept_first_available(mut self, accept: bool) -> Self {
        self.options.accept_first_available = Some(accept);
        self
    }

    /// How long to wait for bids. Zero: until the call's deadline.
    #[must_use]
    pub fn affinity_timeout(mut self, timeout: Duration) -> Self {
        self.options.affinity_timeout = Some(timeout);
        self
    }

    /// How long to wait for better bids after the first that counts. Zero: no such limit.
    #[must_use]
    pub fn short_circuit_timeout(mut self, timeout: Duration) -> Self {
        self.options.short_circuit_timeout = Some(timeout);
        self
    }

    /// Asks a function which bid wins, once a timeout has ended the waiting. It sees the bids that
    /// count, in the order in which they came; there may be none. `None` fails the call as if
    /// nobody had bid well enough; an error becomes the call's. A bid that wins at once, by
    /// `maximum_affinity` or `accept_first_available`, is not put to it.
    ///
    /// A call that still selects at its deadline asks the function too. Its error is the call's,
    /// but the server that it chooses is not granted: the call is `deadline_exceeded`.
    ///
    /// It runs on the client's background task, which it must not block.
    #[must_use]
    pub fn choose<F>(mut self, choose: F) -> Self
    where
        F: for<'a> Fn(&'a [Bid]) -> Result<Option<&'a Bid>, Error> + Send + Sync + 'static,
    {
        self.options.ask = true;
        self.choose = Some(Arc::new(choose));
        self
    }

    /// Adds other options: those that are set replace what is set here.
    pub(crate) fn with(self, other: Self) -> Self {
        let (mine, others) = (self.options, other.options);
        let options = Options {
            minimum_affinity: others.minimum_affinity.or(mine.minimum_affinity),
            maximum_affinity: others.maximum_affinity.or(mine.maximum_affinity),
            accept_first_available: others.accept_first_available.or(mine.accept_first_available),
            affinity_timeout: others.affinity_timeout.or(mine.affinity_timeout),
            short_circuit_timeout: others.short_circuit_timeout.or(mine.short_circuit_timeout),
            ask: others.ask || mine.ask,
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
