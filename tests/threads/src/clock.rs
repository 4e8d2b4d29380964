//! A clock that a scenario moves.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use psrpc::Time;

/// A clock that stands still until it is moved.
///
/// Its lock is none of shuttle's: nothing waits while it is held.
#[derive(Clone, Default)]
pub struct Clock(Arc<Mutex<Hands>>);

#[derive(Default)]
struct Hands {
    now: Time,
    sleepers: BTreeMap<(Time, u64), Waker>,
    /// How many slept so far, by which they are told apart.
    sleeps: u64,
    /// Who waits for somebody to sleep.
    watchers: Vec<Waker>,
}

impl Clock {
    /// What time it is.
    pub fn now(&self) -> Time {
        self.lock().now
    }

    /// Resolves when it is `deadline`.
    pub(crate) fn sleep_until(&self, deadline: Time) -> impl Future<Output = ()> + Send + use<> {
        let mut hands = self.lock();
        hands.sleeps += 1;
        Sleep { clock: self.clone(), key: (deadline, hands.sleeps) }
    }

    /// Resolves when somebody sleeps until `deadline` or a time before it.
    pub async fn somebody_sleeps_until(&self, deadline: Time) {
        poll_fn(|cx| self.lock().poll_sleeper(deadline, cx)).await;
    }

    /// Moves on by so much.
    pub fn pass(&self, time: Duration) {
        let now = self.now() + time;
        self.move_to(now);
    }

    /// Lets time pass from here on, whenever its turn comes: each time to when the next one wakes.
    pub fn run(&self) {
        let clock = self.clone();
        drop(shuttle::future::spawn(async move {
            loop {
                clock.somebody_sleeps_until(Time::ZERO + Duration::from_secs(3600)).await;
                let next = clock.lock().sleepers.first_key_value().map(|((deadline, _), _)| *deadline);
                next.into_iter().for_each(|next| clock.move_to(next));
                shuttle::future::yield_now().await;
            }
        }));
    }

    fn move_to(&self, time: Time) {
        let mut hands = self.lock();
        let now = hands.now.max(time);
        hands.now = now;
        let later = hands.sleepers.split_off(&(now, u64::MAX));
        let due = std::mem::replace(&mut hands.sleepers, later);
        drop(hands);
        due.into_values().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, Hands> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hands {
    fn poll_sleeper(&mut self, deadline: Time, cx: &Context<'_>) -> Poll<()> {
        if self.sleepers.range(..=(deadline, u64::MAX)).next().is_some() {
            return Poll::Ready(());
        }
        self.watchers.push(cx.waker().clone());
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
        let mut hands = self.clock.lock();
        if self.key.0 <= hands.now {
            return Poll::Ready(());
        }
        hands.sleepers.insert(self.key, cx.waker().clone());
        let watchers = std::mem::take(&mut hands.watchers);
        drop(hands);
        watchers.into_iter().for_each(Waker::wake);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        let sleeper = self.clock.lock().sleepers.remove(&self.key);
        drop(sleeper);
    }
}
