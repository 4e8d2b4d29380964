//! The state of a connection as reported by the client library.

use std::time::Duration;

use psrpc::Time;

/// The number of unexpected refusals within about [`REFUSAL_PERIOD`] after which some may have been
/// missed. The client library buffers 128 errors; this is the part not reserved for refusals of
/// pending requests.
const MAX_REFUSALS: usize = 48;
const REFUSAL_PERIOD: Duration = Duration::from_millis(100);

/// The state of a connection as reported by the client library.
#[derive(Default)]
pub(crate) struct ConnectionStatus {
    /// Whether the bus uses the connection. Refusals on others are ignored.
    pub(crate) is_used: bool,
    /// The last error of the server that was not a refusal.
    pub(crate) last_error: Option<String>,
    /// Whether the server has announced that it is shutting down.
    pub(crate) is_lame_duck: bool,
    /// The number of unexpected refusals in the current period and in the previous one.
    refusals: [usize; 2],
    period_start: Option<Time>,
}

impl ConnectionStatus {
    /// Counts an unexpected refusal. Returns `true` if some may have been missed.
    pub(crate) fn count_refusal(&mut self, now: Time) -> bool {
        if self.period_start.is_none_or(|since| now.since(since) >= REFUSAL_PERIOD) {
            self.refusals = [0, self.refusals[0]];
            self.period_start = Some(now);
        }
        self.refusals[0] += 1;
        self.may_have_missed_refusals()
    }

    /// Returns `true` if the client library may have dropped the error of a refusal.
    pub(crate) fn may_have_missed_refusals(&self) -> bool {
        self.refusals.iter().sum::<usize>() >= MAX_REFUSALS
    }
}
