//! A subscription as a stream, for use without a client or a server.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;

use super::delivery::Delivery;
use super::mailbox::Mailbox;
use super::sink::Sink;

/// A stream of the deliveries of one subscription, for programs that use a bus without a client or
/// a server.
pub struct Inbox(Arc<Mailbox>);

impl Inbox {
    /// Returns an inbox with room for `capacity` frames, and the sink that fills it.
    pub fn new(capacity: usize) -> (Sink, Inbox) {
        let mailbox = Arc::new(Mailbox::default());
        (Sink::into_mailbox(&mailbox, capacity, None), Inbox(mailbox))
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").finish_non_exhaustive()
    }
}

impl Stream for Inbox {
    type Item = Delivery;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Delivery>> {
        self.0.poll_delivery(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use psrpc_engine::BusError;
    use psrpc_engine::proto::{Any, Frame};

    use super::*;
    use crate::bus::WakeList;
    use crate::sync::Mutex;

    fn frame(number: u8) -> Frame {
        Frame::Other(Any { value: vec![number].into(), ..Any::default() })
    }

    /// Polls all deliveries, abbreviated: `1` is a frame, `-2` a gap of two.
    fn arrived(inbox: &mut Inbox) -> Vec<i64> {
        let mut cx = Context::from_waker(Waker::noop());
        let mut arrived = Vec::new();
        while let Poll::Ready(Some(delivery)) = Pin::new(&mut *inbox).poll_next(&mut cx) {
            match delivery {
                Delivery::Frame(Frame::Other(any)) => arrived.push(i64::from(any.value[0])),
                Delivery::Gap(lost) => arrived.push(-(lost.unwrap_or(99) as i64)),
                other => panic!("{other:?}"),
            }
        }
        arrived
    }

    #[test]
    fn the_newest_frames_are_lost_and_a_gap_stands_in_their_place() {
        let (sink, mut inbox) = Inbox::new(2);
        (1..=4).for_each(|number| sink.deliver(frame(number), &mut WakeList::new()));
        assert_eq!(arrived(&mut inbox), [1, 2, -2]);
        (5..=7).for_each(|number| sink.deliver(frame(number), &mut WakeList::new()));
        assert_eq!(arrived(&mut inbox), [5, 6, -1]);
    }

    #[test]
    fn gaps_of_any_size_are_one_of_the_largest_size_there_is() {
        let (sink, mut inbox) = Inbox::new(2);
        sink.gap(Some(u64::MAX), &mut WakeList::new());
        sink.gap(Some(u64::MAX), &mut WakeList::new());
        let polled = Pin::new(&mut inbox).poll_next(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(polled, Poll::Ready(Some(Delivery::Gap(Some(u64::MAX))))));
    }

    #[test]
    fn each_place_where_frames_are_missing_has_a_gap_of_its_own() {
        let (sink, mut inbox) = Inbox::new(2);
        let mut cx = Context::from_waker(Waker::noop());
        (1..=3).for_each(|number| sink.deliver(frame(number), &mut WakeList::new()));
        assert!(Pin::new(&mut inbox).poll_next(&mut cx).is_ready());
        (4..=6).for_each(|number| sink.deliver(frame(number), &mut WakeList::new()));
        assert_eq!(arrived(&mut inbox), [2, -1, 4, -2]);
    }

    #[test]
    fn a_subscription_that_is_behind_takes_no_room_from_others() {
        let mailbox = Arc::new(Mailbox::default());
        let (slow, fast) = (Sink::into_mailbox(&mailbox, 1, None), Sink::into_mailbox(&mailbox, 1, None));
        (1..=9).for_each(|number| slow.deliver(frame(number), &mut WakeList::new()));
        fast.deliver(frame(10), &mut WakeList::new());
        assert_eq!(arrived(&mut Inbox(mailbox)), [1, -8, 10]);
    }

    #[test]
    fn a_sink_of_a_closure_hands_on_every_delivery_and_the_end_last() {
        let (sink, mut inbox) = Inbox::new(2);
        let sink = Mutex::new(Some(sink));
        let wrapper = Sink::new(move |delivery, wakes| match delivery {
            Delivery::Ended(Some(error)) => sink.lock().unwrap().take().unwrap().fail(error, wakes),
            delivery => sink.lock().unwrap().as_ref().unwrap().put(delivery, wakes),
        });
        let mut wakes = WakeList::new();
        wrapper.live(&mut wakes);
        wrapper.deliver(frame(1), &mut wakes);
        wrapper.misrouted(frame(2), &mut wakes);
        wrapper.gap(Some(3), &mut wakes);
        wrapper.interrupted(BusError::new("not now"), &mut wakes);
        wrapper.fail(BusError::new("gone"), &mut wakes);
        let mut cx = Context::from_waker(Waker::noop());
        let mut next = || Pin::new(&mut inbox).poll_next(&mut cx);
        assert!(matches!(next(), Poll::Ready(Some(Delivery::Live))));
        assert!(matches!(next(), Poll::Ready(Some(Delivery::Frame(_)))));
        assert!(matches!(next(), Poll::Ready(Some(Delivery::Misrouted(_)))));
        assert!(matches!(next(), Poll::Ready(Some(Delivery::Gap(Some(3))))));
        assert!(matches!(next(), Poll::Ready(Some(Delivery::Interrupted(_)))));
        assert!(matches!(next(), Poll::Ready(Some(Delivery::Ended(Some(_))))));
        assert!(matches!(next(), Poll::Ready(None)));
    }

    #[test]
    fn the_end_comes_after_all_that_was_delivered() {
        let (sink, mut inbox) = Inbox::new(2);
        let mut wakes = WakeList::new();
        sink.live(&mut wakes);
        sink.deliver(frame(1), &mut wakes);
        sink.fail(BusError::new("gone"), &mut wakes);
        let mut cx = Context::from_waker(Waker::noop());
        let mut next = || Pin::new(&mut inbox).poll_next(&mut cx);
        assert!(matches!(next(), Poll::Ready(Some(Delivery::Live))));
        assert!(matches!(next(), Poll::Ready(Some(Delivery::Frame(_)))));
        assert!(matches!(next(), Poll::Ready(Some(Delivery::Ended(Some(_))))));
        assert!(matches!(next(), Poll::Ready(None)));
    }
}
