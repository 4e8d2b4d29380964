//! Monitors, which report the status and the events of a bus connection.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use futures_core::Stream;
use psrpc_engine::{BusError, WallTime};

use super::event::BusEvent;
use super::mailbox::Mailbox;
use super::wake_list::WakeList;
use crate::sync::Lock;

/// The status of a bus.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Status {
    /// Connected, or the bus needs no connection.
    Connected,
    /// Disconnected and trying to reconnect. Publishes fail, and subscriptions are interrupted.
    Reconnecting {
        /// The wall-clock time at which the connection was lost.
        since: WallTime,
        /// The cause, as reported by the bus.
        cause: BusError,
    },
    /// Stopped for good: it was closed, or its runtime has shut down.
    Stopped {
        /// The cause.
        cause: BusError,
    },
}

/// The status and the events of a bus connection. The bus updates it; clients, servers and programs
/// read it. Cheap to clone; all clones share one state.
#[derive(Clone)]
pub struct Monitor(Arc<Lock<MonitorState>>);

struct MonitorState {
    status: Status,
    watchers: Vec<Weak<Mailbox>>,
}

impl Monitor {
    /// Returns a monitor with the status [`Connected`](Status::Connected).
    pub fn new() -> Self {
        Self(Arc::new(Lock::new(MonitorState { status: Status::Connected, watchers: Vec::new() })))
    }

    /// Returns the current status.
    pub fn status(&self) -> Status {
        self.0.lock().status.clone()
    }

    /// Waits until the bus is connected.
    ///
    /// # Errors
    ///
    /// Returns the cause if the bus has stopped.
    pub async fn connected(&self) -> Result<(), BusError> {
        let mut watcher = self.watch();
        loop {
            match self.status() {
                Status::Connected => return Ok(()),
                Status::Stopped { cause } => return Err(cause),
                Status::Reconnecting { .. } => {}
            }
            poll_fn(|cx| Pin::new(&mut watcher).poll_next(cx)).await;
        }
    }

    /// Returns a stream of the events from now on. The stream does not end.
    pub fn watch(&self) -> Watcher {
        let mailbox = Arc::new(Mailbox::default());
        self.attach(&mailbox);
        Watcher(mailbox)
    }

    pub(crate) fn attach(&self, mailbox: &Arc<Mailbox>) {
        let mut state = self.0.lock();
        state.watchers.retain(|watcher| watcher.strong_count() > 0);
        state.watchers.push(Arc::downgrade(mailbox));
    }

    /// Sends an event to all watchers, and updates the status. Called by the bus itself.
    pub fn report(&self, event: BusEvent, wakes: &mut WakeList) {
        let mut watchers = Vec::new();
        let mut state = self.0.lock();
        match &event {
            _ if matches!(state.status, Status::Stopped { .. }) => {}
            BusEvent::ConnectionLost { since, cause } => {
                state.status = Status::Reconnecting { since: *since, cause: cause.clone() };
            }
            BusEvent::Reconnected { .. } => state.status = Status::Connected,
            BusEvent::Stopped { cause } => state.status = Status::Stopped { cause: cause.clone() },
            _ => {}
        }
        watchers.extend(state.watchers.iter().filter_map(Weak::upgrade));
        for watcher in &watchers {
            watcher.put_event(event.clone(), wakes);
        }
        drop(state);
        // Dropping the last reference to a mailbox may drop wakers, and the bus may hold a lock
        // here.
        if !watchers.is_empty() {
            wakes.discard(watchers);
        }
    }
}

impl Default for Monitor {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Monitor").field("status", &self.status()).finish()
    }
}

/// A stream of the events of a bus, which does not end. If a watcher is far behind, the newest
/// events are lost.
pub struct Watcher(Arc<Mailbox>);

impl Stream for Watcher {
    type Item = BusEvent;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<BusEvent>> {
        self.0.poll_event(cx).map(Some)
    }
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watcher").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;
    use std::time::Duration;

    use super::*;

    fn lost() -> BusEvent {
        BusEvent::ConnectionLost { since: WallTime::from_unix_nanos(7), cause: BusError::new("reset") }
    }

    fn refused(count: u64) -> BusEvent {
        BusEvent::LockRefused { channel: "Hats|Fit|REQ".into(), cause: BusError::new("READONLY"), count }
    }

    #[test]
    fn the_status_follows_the_events_and_a_stopped_bus_stays_so() {
        let monitor = Monitor::new();
        let report = |event| monitor.report(event, &mut WakeList::new());
        assert!(matches!(monitor.status(), Status::Connected));
        report(lost());
        assert!(
            matches!(monitor.status(), Status::Reconnecting { cause, .. } if cause.to_string() == "reset")
        );
        let mut connected = Box::pin(monitor.connected());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(connected.as_mut().poll(&mut cx).is_pending());
        report(BusEvent::Reconnected { after: Duration::from_secs(1) });
        assert!(matches!(connected.as_mut().poll(&mut cx), Poll::Ready(Ok(()))));
        report(BusEvent::Stopped { cause: BusError::new("closed") });
        report(BusEvent::Reconnected { after: Duration::from_secs(1) });
        assert!(matches!(monitor.status(), Status::Stopped { .. }));
    }

    #[test]
    fn events_that_are_counted_become_one_and_a_watcher_that_is_behind_is_bounded() {
        let monitor = Monitor::new();
        let mut watcher = monitor.watch();
        monitor.report(refused(1), &mut WakeList::new());
        monitor.report(lost(), &mut WakeList::new());
        monitor.report(refused(2), &mut WakeList::new());
        let mut cx = Context::from_waker(Waker::noop());
        let mut next = || Pin::new(&mut watcher).poll_next(&mut cx);
        assert!(matches!(next(), Poll::Ready(Some(BusEvent::LockRefused { count: 3, .. }))));
        assert!(matches!(next(), Poll::Ready(Some(BusEvent::ConnectionLost { .. }))));
        assert!(next().is_pending());
        (0..1000).for_each(|_| monitor.report(lost(), &mut WakeList::new()));
        let waiting = std::iter::from_fn(|| next().is_ready().then_some(())).count();
        assert_eq!(waiting, 128, "twice the room of other events");
    }
}
