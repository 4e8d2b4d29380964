//! The events of one bus during a run, and which of them a fault must cause.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use futures_core::Stream;
use psrpc::bus::{Bus, BusEvent, Watcher};
use psrpc::{Now, Time};

use crate::fleet::crew::Crew;

/// How often events are taken from a bus, which keeps them until then.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// The time that a bus may take, after it has published a frame on another connection, to notice
/// that the connection of an earlier frame was lost.
const EVENT_DELAY: Duration = Duration::from_millis(100);

/// The events that the buses must report about a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// Every bus loses its connection once and has it back once.
    Outage,
    /// Like `Outage`, but a bus may report a refusal of the credentials as a second lost
    /// connection.
    RefusedOutage,
    /// Every bus loses its connection twice, and has it back twice.
    TwoOutages,
    /// At least one bus loses its connection once and has it back once. The others lose nothing.
    OutageOfSome,
    /// No bus loses its connection.
    Nothing,
    /// No bus loses its connection, and the bus of at least one server reports refused locks.
    RefusedLocks,
    /// Every bus reports refused subscriptions, and loses its connection at most once.
    RefusedSubscriptions,
}

/// The events of one bus.
#[derive(Clone, Default)]
pub struct BusLog(Arc<Mutex<Vec<(Time, BusEvent)>>>);

/// How often each event was reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    lost: usize,
    restored: usize,
    refused_locks: usize,
    refused_subscriptions: usize,
    stopped: usize,
}

impl BusLog {
    /// Records the events of a bus until the fleet stops.
    pub fn record(bus: &dyn Bus, name: &str, crew: &Crew) -> Self {
        let log = Self::default();
        if let Some(monitor) = bus.monitor() {
            let (mut watcher, entries, own) = (monitor.watch(), log.clone(), crew.clone());
            crew.tasks.spawn(format!("events of {name}"), async move {
                loop {
                    let is_over = own.is_stopped();
                    while let Some(event) = waiting(&mut watcher).await {
                        entries.lock().push((time_of(&event, own.runtime.now()), event));
                    }
                    if is_over {
                        return;
                    }
                    own.sleep(POLL_INTERVAL).await;
                }
            });
        }
        log
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Time, BusEvent)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets the events so far.
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// Returns `true` if the bus lost its connection between two publishes, so that the frame of
    /// the first may have been lost.
    pub fn may_lose(&self, published: Time, next: Time) -> bool {
        let in_between = published..=next + EVENT_DELAY;
        let is_loss = |event: &BusEvent| matches!(event, BusEvent::ConnectionLost { .. });
        self.lock().iter().any(|(at, event)| is_loss(event) && in_between.contains(at))
    }

    /// Describes the events.
    pub fn describe(&self) -> String {
        let describe = |(at, event): &(Time, BusEvent)| format!("{at:?} {event:?}");
        self.lock().iter().map(describe).collect::<Vec<_>>().join("; ")
    }

    /// Returns the causes that the events name.
    pub fn causes(&self) -> Vec<String> {
        let cause = |(_, event): &(Time, BusEvent)| match event {
            BusEvent::ConnectionLost { cause, .. }
            | BusEvent::Stopped { cause }
            | BusEvent::SubscriptionRefused { cause, .. }
            | BusEvent::LockRefused { cause, .. } => Some(cause.to_string()),
            _ => None,
        };
        self.lock().iter().filter_map(cause).collect()
    }

    fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for (_, event) in self.lock().iter() {
            match event {
                BusEvent::ConnectionLost { .. } => counts.lost += 1,
                BusEvent::Reconnected { .. } => counts.restored += 1,
                BusEvent::LockRefused { .. } => counts.refused_locks += 1,
                BusEvent::SubscriptionRefused { .. } => counts.refused_subscriptions += 1,
                BusEvent::Stopped { .. } => counts.stopped += 1,
                _ => {}
            }
        }
        counts
    }
}

/// Returns the time of an event. The event of a lost connection contains the time of the loss. For
/// other events, `now` is precise enough.
fn time_of(event: &BusEvent, now: Now) -> Time {
    let BusEvent::ConnectionLost { since, .. } = event else { return now.time };
    let nanos = now.wall.as_unix_nanos() - since.as_unix_nanos();
    let elapsed = Duration::from_nanos(u64::try_from(nanos).unwrap_or(0));
    Time::ZERO + now.time.since(Time::ZERO + elapsed)
}

/// Returns the next event, if one is waiting.
async fn waiting(watcher: &mut Watcher) -> Option<BusEvent> {
    poll_fn(|cx| match Pin::new(&mut *watcher).poll_next(cx) {
        Poll::Ready(event) => Poll::Ready(event),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

impl Sight {
    /// Checks the events of all buses of a fleet.
    ///
    /// # Errors
    ///
    /// Returns a description of the first bus with wrong events.
    pub fn check(self, logs: &[(String, BusLog)]) -> Result<(), String> {
        let counts: Vec<_> = logs.iter().map(|(name, log)| (name, log, log.counts())).collect();
        for (name, log, counts) in &counts {
            if !self.allows(counts) {
                return Err(format!("the bus of {name}: expected {self:?}, got: {}", log.describe()));
            }
        }
        let total =
            |count: fn(&Counts) -> usize| counts.iter().map(|(.., counts)| count(counts)).sum::<usize>();
        let missing = match self {
            Self::OutageOfSome => total(|counts| counts.lost) == 0,
            Self::RefusedLocks => total(|counts| counts.refused_locks) == 0,
            _ => false,
        };
        if missing { Err(format!("no bus reported the fault: expected {self:?}")) } else { Ok(()) }
    }

    fn allows(self, counts: &Counts) -> bool {
        let Counts { lost, restored, refused_subscriptions, stopped, .. } = *counts;
        let seen = match self {
            Self::Outage => (lost, restored) == (1, 1),
            Self::TwoOutages => (lost, restored) == (2, 2),
            Self::RefusedOutage => (1..=2).contains(&lost) && restored == 1,
            Self::OutageOfSome => lost == restored && lost <= 1,
            Self::Nothing | Self::RefusedLocks => (lost, restored) == (0, 0),
            Self::RefusedSubscriptions => lost == restored && lost <= 1 && refused_subscriptions > 0,
        };
        seen && stopped == 0
    }
}

#[cfg(test)]
mod tests {
    use psrpc::{BusError, WallTime};

    use super::*;

    fn lost() -> BusEvent {
        BusEvent::ConnectionLost { since: WallTime::from_unix_nanos(7), cause: BusError::new("reset") }
    }

    fn restored() -> BusEvent {
        BusEvent::Reconnected { after: std::time::Duration::from_secs(1) }
    }

    fn log(events: impl IntoIterator<Item = BusEvent>) -> (String, BusLog) {
        let log = BusLog::default();
        log.lock().extend(events.into_iter().map(|event| (Time::ZERO, event)));
        ("a hatter".to_owned(), log)
    }

    #[test]
    fn an_outage_is_reported_exactly_once_by_each_bus() {
        let once = || log([lost(), restored()]);
        assert_eq!(Sight::Outage.check(&[once(), once()]), Ok(()));
        for wrong in [log([]), log([lost()]), log([lost(), lost(), restored()])] {
            assert!(Sight::Outage.check(&[once(), wrong]).is_err());
        }
        assert_eq!(Sight::OutageOfSome.check(&[once(), log([])]), Ok(()));
        assert!(Sight::OutageOfSome.check(&[log([]), log([])]).is_err());
        assert_eq!(Sight::Nothing.check(&[log([])]), Ok(()));
        assert!(Sight::Nothing.check(&[once()]).is_err());
        assert_eq!(Sight::RefusedOutage.check(&[log([lost(), lost(), restored()])]), Ok(()));
    }
}
