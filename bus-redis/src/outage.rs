//! The status of a bus, derived from its two connections.
//!
//! An outage begins when either connection is lost. It ends when both connections have been
//! confirmed since. If only one connection is known to be lost, the other one is checked. A server
//! restart is therefore one outage, whichever connection notices it first.

use std::task::{Context, Poll, Waker};

use psrpc::bus::{BusEvent, Lock, Monitor, WakeList};
use psrpc::{BusError, Now};

/// One of the two connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Commands,
    Subscriptions,
}

/// Tracks the status and reports its changes to the monitor.
#[derive(Default)]
pub(crate) struct Outages {
    pub(crate) monitor: Monitor,
    state: Lock<OutageState>,
}

#[derive(Default)]
struct OutageState {
    outage: Option<Outage>,
    /// The tasks waiting for an outage, by side.
    waiting: [Option<Waker>; 2],
}

struct Outage {
    since: Now,
    /// The sides confirmed since the outage began.
    confirmed: [bool; 2],
    /// Whether a refusal by the server has been reported.
    refused: bool,
}

impl Outages {
    /// Records that a connection was lost.
    pub(crate) fn lost(&self, side: Side, now: Now, cause: &BusError) {
        let mut wakes = WakeList::new();
        let mut state = self.state.lock();
        if let Some(outage) = &mut state.outage {
            outage.confirmed[side as usize] = false;
            return;
        }
        state.outage = Some(Outage { since: now, confirmed: [false; 2], refused: false });
        wakes.extend(state.waiting.iter_mut().filter_map(Option::take));
        // Under the lock, so that events are reported in order.
        self.monitor.report(BusEvent::ConnectionLost { since: now.wall, cause: cause.clone() }, &mut wakes);
    }

    /// Records that the server refuses the credentials or the certificate of the bus, which the
    /// cause of the outage does not show. Reported once per outage.
    pub(crate) fn refused(&self, cause: &BusError) {
        let mut wakes = WakeList::new();
        let mut state = self.state.lock();
        let Some(outage) = state.outage.as_mut().filter(|outage| !outage.refused) else { return };
        outage.refused = true;
        let since = outage.since.wall;
        self.monitor.report(BusEvent::ConnectionLost { since, cause: cause.clone() }, &mut wakes);
    }

    /// Records that a connection responded to a check.
    pub(crate) fn confirmed(&self, side: Side, now: Now) {
        let mut wakes = WakeList::new();
        let mut state = self.state.lock();
        let Some(outage) = &mut state.outage else { return };
        outage.confirmed[side as usize] = true;
        if outage.confirmed == [true; 2] {
            let after = now.time.since(outage.since.time);
            state.outage = None;
            self.monitor.report(BusEvent::Reconnected { after }, &mut wakes);
        }
    }

    /// Completes when this side must be checked because of an outage.
    pub(crate) fn poll_check_due(&self, side: Side, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        if state.outage.as_ref().is_some_and(|outage| !outage.confirmed[side as usize]) {
            return Poll::Ready(());
        }
        let replaced = state.waiting[side as usize].replace(cx.waker().clone());
        drop(state);
        drop(replaced);
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use psrpc::bus::Status;
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
        outages.refused(&BusError::new("WRONGPASS"));
        outages.refused(&BusError::new("NOAUTH"));
        outages.confirmed(other, now(5));
        assert!(matches!(outages.monitor.status(), Status::Reconnecting { .. }));
        outages.confirmed(one, now(6));
        assert!(matches!(outages.monitor.status(), Status::Connected));
        let mut next = || futures_core::Stream::poll_next(Pin::new(&mut events), &mut cx);
        assert!(
            matches!(next(), Poll::Ready(Some(BusEvent::ConnectionLost { cause, .. })) if cause.to_string() == "reset")
        );
        assert!(
            matches!(next(), Poll::Ready(Some(BusEvent::ConnectionLost { cause, .. })) if cause.to_string() == "WRONGPASS")
        );
        assert!(
            matches!(next(), Poll::Ready(Some(BusEvent::Reconnected { after })) if after.as_nanos() == 5)
        );
        assert!(next().is_pending());
    }
}
