//! The outage of a bus, and its events.

use psrpc::bus::{BusEvent, Monitor, WakeList};
use psrpc::{BusError, Now};

/// The outage of a bus, if there is one. Reports it to the monitor of the bus: its beginning, the
/// first refusal, and its end.
#[derive(Debug)]
pub struct Outage {
    monitor: Monitor,
    current: Option<Current>,
}

#[derive(Debug)]
struct Current {
    since: Now,
    /// Whether a refusal has been reported.
    is_refused: bool,
}

impl Outage {
    /// Returns the state of a bus that is connected.
    pub fn new(monitor: Monitor) -> Self {
        Self { monitor, current: None }
    }

    /// Returns `true` during an outage.
    pub fn is_ongoing(&self) -> bool {
        self.current.is_some()
    }

    /// Records that the connection was lost. Reports [`BusEvent::ConnectionLost`] if the outage
    /// begins.
    pub fn lost(&mut self, now: Now, cause: &BusError, wakes: &mut WakeList) {
        if self.current.is_none() {
            self.current = Some(Current { since: now, is_refused: false });
            self.report(now, cause, wakes);
        }
    }

    /// Records that a server refuses the bus. Reports [`BusEvent::ConnectionLost`] once more for
    /// the first refusal of an outage, because the cause reported at its beginning does not show
    /// the refusal.
    pub fn refused(&mut self, cause: &BusError, wakes: &mut WakeList) {
        if let Some(current) = &mut self.current
            && !std::mem::replace(&mut current.is_refused, true)
        {
            let since = current.since;
            self.report(since, cause, wakes);
        }
    }

    /// Records that the connection works. Reports [`BusEvent::Reconnected`] if that ends an outage.
    pub fn ended(&mut self, now: Now, wakes: &mut WakeList) {
        if let Some(Current { since, .. }) = self.current.take() {
            self.monitor.report(BusEvent::Reconnected { after: now.time.since(since.time) }, wakes);
        }
    }

    fn report(&self, since: Now, cause: &BusError, wakes: &mut WakeList) {
        self.monitor.report(BusEvent::ConnectionLost { since: since.wall, cause: cause.clone() }, wakes);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    use futures_core::Stream;
    use psrpc::{Time, WallTime};

    use super::*;

    #[test]
    fn an_outage_its_first_refusal_and_its_end_are_reported_once() {
        let monitor = Monitor::new();
        let mut events = monitor.watch();
        let mut outage = Outage::new(monitor);
        let now = |nanos| Now { time: Time::from_nanos(nanos), wall: WallTime::from_unix_nanos(7) };
        let mut wakes = WakeList::new();
        outage.ended(now(0), &mut wakes);
        outage.refused(&BusError::new("too early"), &mut wakes);
        for start in [1, 11] {
            outage.lost(now(start), &BusError::new("reset"), &mut wakes);
            outage.lost(now(start + 1), &BusError::new("closed"), &mut wakes);
            outage.refused(&BusError::new("WRONGPASS"), &mut wakes);
            outage.refused(&BusError::new("NOAUTH"), &mut wakes);
            assert!(outage.is_ongoing());
            outage.ended(now(start + 5), &mut wakes);
            outage.ended(now(start + 6), &mut wakes);
            assert!(!outage.is_ongoing());
        }
        let mut reported = Vec::new();
        while let Poll::Ready(Some(event)) =
            Pin::new(&mut events).poll_next(&mut Context::from_waker(Waker::noop()))
        {
            reported.push(match event {
                BusEvent::ConnectionLost { cause, .. } => cause.to_string(),
                BusEvent::Reconnected { after } => format!("{after:?}"),
                other => panic!("{other:?}"),
            });
        }
        assert_eq!(reported, ["reset", "WRONGPASS", "5ns", "reset", "WRONGPASS", "5ns"]);
    }
}
