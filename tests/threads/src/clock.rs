//! A virtual clock, controlled by the scenario.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use psrpc::Time;

/// A clock that stands still until it is moved.
///
/// Its lock is not one of shuttle's, since no thread waits while holding it.
#[derive(Clone, Default)]
pub struct Clock(Arc<Mutex<ClockState>>);

#[derive(Default)]
struct ClockState {
    now: Time,
    sleepers: BTreeMap<(Time, u64), Waker>,
    /// The number of sleeps so far, used to tell them apart.
    sleeps: u64,
    /// The tasks that wait for a sleeper.
    sleeper_waiters: Vec<Waker>,
}

impl Clock {
    /// Returns the current time.
    pub fn now(&self) -> Time {
        self.lock().now
    }

    /// Sleeps until `deadline`.
    pub(crate) fn sleep_until(&self, deadline: Time) -> impl Future<Output = ()> + Send + use<> {
        let mut state = self.lock();
        state.sleeps += 1;
        Sleep { clock: self.clone(), key: (deadline, state.sleeps) }
    }

    /// Waits until a task sleeps until `deadline` or earlier.
    pub async fn wait_for_sleeper(&self, deadline: Time) {
        poll_fn(|cx| self.lock().poll_sleeper(deadline, cx)).await;
    }

    /// Advances the clock by `time`.
    pub fn advance(&self, time: Duration) {
        let now = self.now() + time;
        self.move_to(now);
    }

    /// Starts a task that, each time it is scheduled, advances the clock to the end of the next
    /// sleep.
    pub fn run_freely(&self) {
        let clock = self.clone();
        drop(shuttle::future::spawn(async move {
            loop {
                clock.wait_for_sleeper(Time::ZERO + Duration::from_secs(3600)).await;
                let next = clock.lock().sleepers.first_key_value().map(|((deadline, _), _)| *deadline);
                next.into_iter().for_each(|next| clock.move_to(next));
                shuttle::future::yield_now().await;
            }
        }));
    }

    fn move_to(&self, time: Time) {
        let mut state = self.lock();
        let now = state.now.max(time);
        state.now = now;
        let later = state.sleepers.split_off(&(now, u64::MAX));
        let due = std::mem::replace(&mut state.sleepers, later);
        drop(state);
        due.into_values().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, ClockState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClockState {
    fn poll_sleeper(&mut self, deadline: Time, cx: &Context<'_>) -> Poll<()> {
        if self.sleepers.range(..=(deadline, u64::MAX)).next().is_some() {
            return Poll::Ready(());
        }
        self.sleeper_waiters.push(cx.waker().clone());
        Poll::Pending
    }
}

struct Sleep {
    clock: Clock,
    key: (Time, u64),
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.clock.lock();
        if self.key.0 <= state.now {
            return Poll::Ready(());
        }
        state.sleepers.insert(self.key, cx.waker().clone());
        let sleeper_waiters = std::mem::take(&mut state.sleeper_waiters);
        drop(state);
        sleeper_waiters.into_iter().for_each(Waker::wake);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        let sleeper = self.clock.lock().sleepers.remove(&self.key);
        drop(sleeper);
    }
}
