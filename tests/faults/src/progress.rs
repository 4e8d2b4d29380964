//! Goals: what each user of a fleet must have reached after a fault for the service to be back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use psrpc::Time;

/// One thing that must work again: a kind of call of a client, or the updates of a server.
pub type Goal = String;

/// Which goals were reached by acts that began after a given time.
#[derive(Default)]
pub struct Progress {
    state: Mutex<ProgressState>,
    reached: Condvar,
}

#[derive(Default)]
struct ProgressState {
    since: Option<Time>,
    missing: BTreeSet<Goal>,
    reached: BTreeMap<Goal, Time>,
}

impl Progress {
    /// Sets new goals. Only acts that begin at `since` or later reach them.
    pub fn begin(&self, since: Time, goals: impl IntoIterator<Item = Goal>) {
        let missing = goals.into_iter().collect();
        *self.lock() = ProgressState { since: Some(since), missing, reached: BTreeMap::new() };
    }

    /// Notes that an act which began at `start` has succeeded at `now`.
    pub fn succeeded(&self, goal: &str, start: Time, now: Time) {
        let mut state = self.lock();
        if state.since.is_some_and(|since| start >= since) && state.missing.remove(goal) {
            state.reached.insert(goal.to_owned(), now);
            self.reached.notify_all();
        }
    }

    /// Returns `true` if a goal has not been reached.
    pub fn misses(&self, goal: &str) -> bool {
        self.lock().missing.contains(goal)
    }

    /// Waits until all goals are reached. Returns the last goal, and how long after `since` it was
    /// reached.
    ///
    /// # Errors
    ///
    /// Returns the goals that were not reached within `limit`.
    pub fn wait(&self, limit: Duration) -> Result<(Duration, Goal), Vec<Goal>> {
        let misses = |state: &mut ProgressState| !state.missing.is_empty();
        let waited = self.reached.wait_timeout_while(self.lock(), limit, misses);
        let (mut state, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        if timeout.timed_out() {
            let missing = std::mem::take(&mut state.missing);
            return Err(missing.into_iter().collect());
        }
        let since = state.since.unwrap_or_default();
        let last = state.reached.iter().max_by_key(|(_, at)| **at);
        Ok(last.map_or_else(Default::default, |(goal, at)| (at.since(since), goal.clone())))
    }

    fn lock(&self) -> MutexGuard<'_, ProgressState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acts_that_began_before_do_not_count_and_the_last_goal_decides() {
        let at = |millis| Time::ZERO + Duration::from_millis(millis);
        let progress = Progress::default();
        progress.begin(at(10), ["call".to_owned(), "stream".to_owned()]);
        progress.succeeded("call", at(9), at(11));
        progress.succeeded("call", at(10), at(15));
        progress.succeeded("call", at(20), at(30));
        assert_eq!(progress.wait(Duration::ZERO), Err(vec!["stream".to_owned()]));
        progress.begin(at(10), ["call".to_owned(), "stream".to_owned()]);
        progress.succeeded("call", at(10), at(15));
        progress.succeeded("stream", at(12), at(18));
        assert_eq!(progress.wait(Duration::ZERO), Ok((Duration::from_millis(8), "stream".to_owned())));
    }
}
