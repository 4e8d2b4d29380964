//! The inbox: deliveries on one thread, received on another.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use futures_core::Stream;
use psrpc::bus::{Delivery, Inbox, Sink, WakeList};
use psrpc::proto::{Any, Frame};
use psrpc_threads::{explore, explore_all};
use shuttle::future::block_on;
use shuttle::thread;

fn frame(number: u8) -> Frame {
    Frame::Other(Any { value: vec![number].into(), ..Any::default() })
}

fn deliver(sink: &Sink, numbers: impl IntoIterator<Item = u8>) {
    numbers.into_iter().for_each(|number| sink.deliver(frame(number), &mut WakeList::new()));
}

async fn next(inbox: &mut Inbox) -> Option<Delivery> {
    poll_fn(|cx| Pin::new(&mut *inbox).poll_next(cx)).await
}

/// Receives until the end. Returns `1` for frame 1, and `-2` for a gap of two.
async fn receive_all(mut inbox: Inbox) -> Vec<i64> {
    let mut arrived = Vec::new();
    while let Some(delivery) = next(&mut inbox).await {
        match delivery {
            Delivery::Frame(Frame::Other(any)) => arrived.push(i64::from(any.value[0])),
            Delivery::Gap(Some(lost)) => arrived.push(-(lost as i64)),
            Delivery::Ended(None) => {}
            other => panic!("{other:?}"),
        }
    }
    arrived
}

#[test]
fn a_delivery_wakes_the_waiting_task() {
    explore_all(|| {
        let (sink, inbox) = Inbox::new(2);
        let taking = thread::spawn(move || block_on(receive_all(inbox)));
        deliver(&sink, [1, 2]);
        drop(sink);
        assert_eq!(taking.join().unwrap(), [1, 2]);
    });
}

/// Checks that each frame arrives in its place, or is counted in a gap there.
fn deliver_to_a_full_inbox(frames: u8) {
    let (sink, inbox) = Inbox::new(1);
    let taking = thread::spawn(move || block_on(receive_all(inbox)));
    deliver(&sink, 1..=frames);
    drop(sink);
    let mut seen = 0;
    for arrived in taking.join().unwrap() {
        match arrived {
            lost if lost < 0 => seen -= lost,
            number => {
                seen += 1;
                assert_eq!(number, seen, "a gap comes before the frames that follow it");
            }
        }
    }
    assert_eq!(seen, i64::from(frames), "each frame arrived or is counted in a gap");
}

#[test]
fn a_gap_is_reported_where_frames_are_missing() {
    explore_all(|| deliver_to_a_full_inbox(2));
    explore(1000, || deliver_to_a_full_inbox(4));
}

#[test]
fn two_threads_that_deliver_each_keep_their_order() {
    explore(3000, || {
        let (sink, inbox) = Inbox::new(9);
        let sink = Arc::new(sink);
        let other = Arc::clone(&sink);
        let taking = thread::spawn(move || block_on(receive_all(inbox)));
        let delivering = thread::spawn(move || deliver(&other, [11, 12, 13]));
        deliver(&sink, [1, 2, 3]);
        drop(sink);
        delivering.join().unwrap();
        let arrived = taking.join().unwrap();
        let (small, large): (Vec<_>, Vec<_>) = arrived.into_iter().partition(|number| *number < 10);
        assert_eq!((small, large), (vec![1, 2, 3], vec![11, 12, 13]));
    });
}

#[test]
fn an_inbox_that_moves_to_another_task_wakes_the_new_task() {
    explore_all(|| {
        let (sink, mut inbox) = Inbox::new(2);
        let delivering = thread::spawn(move || deliver(&sink, [1]));
        let taking = thread::spawn(move || {
            // This task polls once and then stops waiting.
            let first =
                block_on(poll_fn(|cx: &mut Context<'_>| Poll::Ready(Pin::new(&mut inbox).poll_next(cx))));
            (first.is_ready(), inbox)
        });
        let (took, inbox) = taking.join().unwrap();
        let rest = block_on(receive_all(inbox));
        assert_eq!(rest, if took { vec![] } else { vec![1] });
        delivering.join().unwrap();
    });
}

/// A task that is dropped with the last of its wakers.
struct Task(#[expect(dead_code, reason = "it is only dropped")] Sink);

impl Wake for Task {
    fn wake(self: Arc<Self>) {}
}

#[test]
fn a_task_that_is_dropped_with_its_waker_may_hold_the_sink() {
    explore_all(|| {
        let (sink, mut inbox) = Inbox::new(2);
        let waker = Waker::from(Arc::new(Task(sink)));
        let polled = Pin::new(&mut inbox).poll_next(&mut Context::from_waker(&waker));
        drop(waker);
        assert!(polled.is_pending());
        assert_eq!(block_on(receive_all(inbox)), [], "dropping the sink ends the inbox");
    });
}
