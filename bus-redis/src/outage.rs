//! Outages: the one status of a bus that has two connections.
//!
//! An outage begins when either connection is lost, and ends when both have answered since: a
//! connection that is not known to be lost is asked. So one restart of a server is one outage,
//! whichever connection notices it first.

use std::task::{Context, Poll, Waker};

use psrpc::bus::{BusEvent, Lock, Monitor, WakeList};
use psrpc::{BusError, Now};

/// Which of the two connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Commands,
    Subscriptions,
}

/// Keeps the status, and reports its changes to the monitor.
#[derive(Default)]
pub(crate) struct Outages {
    pub(crate) monitor: Monitor,
    state: Lock<OutageState>,
}

#[derive(Default)]
struct OutageState {
    outage: Option<Outage>,
    /// The tasks that wait for an outage, by side.
    waiting: [Option<Waker>; 2],
}

struct Outage {
    since: Now,
    /// Which sides have answered since.
    answered: [bool; 2],
}

impl Outages {
    /// A connection was lost.
    pub(crate) fn lost(&self, side: Side, now: Now, cause: &BusError) {
        let mut wakes = WakeList::new();
        let mut state = self.state.lock();
        if let Some(outage) = &mut state.outage {
            outage.answered[side as usize] = false;
            return;
        }
        state.outage = Some(Outage { since: now, answered: [false; 2] });
        wakes.extend(state.waiting.iter_mut().filter_map(Option::take));
        // Under the lock, so that events are told in the order in which they came about.
        self.monitor.report(BusEvent::ConnectionLost { since: now.wall, cause: cause.clone() }, &mut wakes);
    }

    /// A connection has answered what it was asked because of an outage.
    pub(crate) fn answered(&self, side: Side, now: Now) {
        let mut wakes = WakeList::new();
        let mut state = self.state.lock();
        let Some(outage) = &mut state.outage else { return };
        outage.answered[side as usize] = true;
        if outage.answered == [true; 2] {
            let after = now.time.since(outage.since.time);
            state.outage = None;
            self.monitor.report(BusEvent::Reconnected { after }, &mut wakes);
        }
    }

    /// Ready while there is an outage in which this side has not answered.
    pub(crate) fn poll_unanswered(&self, side: Side, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        if state.outage.as_ref().is_some_and(|outage| !outage.answered[side as usize]) {
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
    fn one_outage_is_told_once_whichever_side_notices_it() {
        let outages = Outages::default();
        let mut events = outages.monitor.watch();
        let mut cx = Context::from_waker(Waker::noop());
        let now = |seconds| Now { time: Time::from_nanos(seconds), wall: WallTime::from_unix_nanos(7) };
        let [one, other] = [Side::Commands, Side::Subscriptions];
        outages.answered(one, now(0));
        assert!(outages.poll_unanswered(one, &cx).is_pending());
        outages.lost(one, now(1), &BusError::new("reset"));
        assert!(outages.poll_unanswered(other, &cx).is_ready(), "it is asked");
        outages.answered(one, now(2));
        assert!(matches!(outages.monitor.status(), Status::Reconnecting { .. }), "the other may be lost too");
        outages.lost(other, now(3), &BusError::new("closed"));
        outages.lost(one, now(4), &BusError::new("refused"));
        outages.answered(other, now(5));
        assert!(matches!(outages.monitor.status(), Status::Reconnecting { .. }));
        outages.answered(one, now(6));
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
