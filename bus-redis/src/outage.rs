//! The status of a bus, derived from its two connections.
//!
//! An outage begins when either connection is lost. It ends when both connections have been
//! confirmed since. If only one connection is known to be lost, the other one is checked. A server
//! restart is therefore one outage, whichever connection notices it first.

use std::task::{Context, Poll, Waker};

use psrpc::bus::{Lock, Monitor, WakeList};
use psrpc::{BusError, Now};
use psrpc_bus_net::Outage;

/// One of the two connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Commands,
    Subscriptions,
}

/// Tracks the status and reports its changes to the monitor.
pub(crate) struct Outages {
    pub(crate) monitor: Monitor,
    state: Lock<OutageState>,
}

struct OutageState {
    outage: Outage,
    /// The sides confirmed since the outage began.
    confirmed: [bool; 2],
    /// The tasks waiting for an outage, by side.
    waiting: [Option<Waker>; 2],
}

impl Outages {
    /// Records that a connection was lost.
    pub(crate) fn lost(&self, side: Side, now: Now, cause: &BusError) {
        let mut wakes = WakeList::new();
        let mut state = self.state.lock();
        if state.outage.is_ongoing() {
            state.confirmed[side as usize] = false;
            return;
        }
        state.confirmed = [false; 2];
        wakes.extend(state.waiting.iter_mut().filter_map(Option::take));
        // Under the lock, so that events are reported in order.
        state.outage.lost(now, cause, &mut wakes);
    }

    /// Records that the server refuses the credentials or the certificate of the bus, or that a
    /// function of the options failed to return them. The cause reported at the beginning of the
    /// outage does not show this, so it is reported too, once per outage.
    pub(crate) fn refused(&self, cause: &BusError) {
        let mut wakes = WakeList::new();
        self.state.lock().outage.refused(cause, &mut wakes);
    }

    /// Records that a connection responded to a check.
    pub(crate) fn confirmed(&self, side: Side, now: Now) {
        let mut wakes = WakeList::new();
        let mut state = self.state.lock();
        state.confirmed[side as usize] = true;
        if state.confirmed == [true; 2] {
            state.outage.ended(now, &mut wakes);
        }
    }

    /// Completes when this side must be checked because of an outage.
    pub(crate) fn poll_check_due(&self, side: Side, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        if state.outage.is_ongoing() && !state.confirmed[side as usize] {
            return Poll::Ready(());
        }
        let replaced = state.waiting[side as usize].replace(cx.waker().clone());
        drop(state);
        drop(replaced);
        Poll::Pending
    }
}

impl Default for Outages {
    fn default() -> Self {
        let monitor = Monitor::new();
        let outage = Outage::new(monitor.clone());
        let state = OutageState { outage, confirmed: [false; 2], waiting: [None, None] };
        Self { monitor, state: Lock::new(state) }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use psrpc::bus::{BusEvent, Status};
    use psrpc::{Time, WallTime};

    use super::*;

    #[test]
    fn one_outage_is_reported_once_whichever_side_notices_it() {
        let outages = Outages::default();
        let mut events = outages.monitor.watch();
        let mut cx = Context::from_waker(Waker::noop());
        let now = |seconds| Now { time: Time::from_nanos(seconds), wall: WallTime::from_unix_nanos(7) };
        let [one, other] = [Side::Commands, Side::Subscriptions];
        outages.confirmed(one, now(0));
        assert!(outages.poll_check_due(one, &cx).is_pending());
        outages.lost(one, now(1), &BusError::new("reset"));
        assert!(outages.poll_check_due(other, &cx).is_ready(), "the other side is checked");
        outages.confirmed(one, now(2));
        assert!(
            matches!(outages.monitor.status(), Status::Reconnecting { .. }),
            "the other side is not confirmed"
        );
        outages.lost(other, now(3), &BusError::new("closed"));
        outages.lost(one, now(4), &BusError::new("refused"));
        outages.confirmed(other, now(5));
        assert!(matches!(outages.monitor.status(), Status::Reconnecting { .. }));
        outages.confirmed(one, now(6));
        assert!(matches!(outages.monitor.status(), Status::Connected));
        let mut next = || futures_core::Stream::poll_next(Pin::new(&mut events), &mut cx);
        assert!(
            matches!(next(), Poll::Ready(Some(BusEvent::ConnectionLost { cause, .. })) if cause.to_string() == "reset")
        );
        assert!(
            matches!(next(), Poll::Ready(Some(BusEvent::Reconnected { after })) if after.as_nanos() == 5)
        );
        assert!(next().is_pending());
    }
}
