//! The inbox: where a bus puts what it delivers, bounded for each subscription.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};

use futures_core::Stream;
use psrpc_engine::proto::Frame;
use psrpc_engine::{BusError, SubscriptionHandle, Token};
use slab::Slab;

use crate::sync::{AtomicBool, Mutex, MutexGuard};
use crate::waiting;

/// What a bus delivers on a subscription.
#[derive(Clone, Debug)]
pub enum Delivery {
    /// The subscription is live.
    Live,
    /// A frame.
    Frame(Frame),
    /// A frame for a channel that nobody here subscribed to, which the bus handed to this queue subscription's member of
    /// the queue, and to no other.
    Untaken(Frame),
    /// Frames may be missing here; how many, where that is known.
    Gap(Option<u64>),
    /// The subscription has ended; why, if that was not asked for. Nothing comes after it.
    Ended(Option<BusError>),
}

/// The bus's end of a subscription. Dropping it ends the subscription.
///
/// It never blocks. When the subscriber is behind by as many frames as it has room for, the newest frame is lost, with a
/// [gap](Delivery::Gap) in its place; no other subscriber notices.
pub struct Sink {
    target: Target,
    error: Option<BusError>,
}

enum Target {
    /// The subscriber in a slot of a queue.
    Queue(Arc<Queue>, usize),
    Closure(Box<dyn Fn(Delivery) + Send + Sync>),
}

impl Sink {
    /// A sink that calls `take` with each delivery, the last of which is [`Delivery::Ended`]: for a bus that wraps another
    /// and looks at what that delivers. `take` is called as the bus delivers, so it must neither wait nor use the bus.
    pub fn new(take: impl Fn(Delivery) + Send + Sync + 'static) -> Self {
        Self { target: Target::Closure(Box::new(take)), error: None }
    }

    /// Tells that the subscription is live.
    pub fn live(&self) {
        self.put(Delivery::Live);
    }

    /// Delivers a frame.
    pub fn deliver(&self, frame: Frame) {
        self.put(Delivery::Frame(frame));
    }

    /// Delivers a frame for a channel that nobody here subscribed to, where the bus carries several channels in one queue
    /// and this subscription is one of those: a server then answers for the method that it lacks.
    pub fn untaken(&self, frame: Frame) {
        self.put(Delivery::Untaken(frame));
    }

    /// Tells that frames may have been lost here; how many, where that is known.
    pub fn gap(&self, lost: Option<u64>) {
        self.put(Delivery::Gap(lost));
    }

    /// Ends the subscription: it could not be had, or is lost for good.
    pub fn fail(mut self, error: BusError) {
        self.error = Some(error);
    }

    pub(crate) fn put(&self, delivery: Delivery) {
        match &self.target {
            Target::Queue(queue, slot) => queue.put(*slot, delivery),
            Target::Closure(take) => take(delivery),
        }
    }
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sink").finish_non_exhaustive()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let error = self.error.take();
        self.put(Delivery::Ended(error));
    }
}

/// A subscription's frames as a stream, for those who use a bus without a client or a server.
pub struct Inbox(Arc<Queue>);

impl Inbox {
    /// An inbox with room for so many frames, and the sink that fills it.
    pub fn new(capacity: usize) -> (Sink, Inbox) {
        let queue = Arc::new(Queue::default());
        (queue.sink(capacity, None), Inbox(queue))
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

/// What waits for a driver or an inbox, in the order in which it came.
///
/// It holds for each subscription as many frames as that has room for, and a gap before each of them at most.
#[derive(Default)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    /// Whether the driver publishes right now, and will look at what comes of it by itself.
    publishing: AtomicBool,
}

#[derive(Default)]
struct Waiting {
    items: VecDeque<Item>,
    /// What became of frames, while the driver published.
    published: Vec<Published>,
    /// How many items were taken before the first that waits.
    taken: u64,
    subscribers: Slab<Subscriber>,
    waker: Option<Waker>,
    poked: bool,
}

pub(crate) enum Item {
    Delivery(Recipient, Delivery),
    Published(Published),
}

/// Whom a delivery is for.
#[derive(Clone, Copy)]
pub(crate) struct Recipient {
    slot: usize,
    /// What a driver names it by; nothing in an inbox.
    pub(crate) handle: Option<SubscriptionHandle>,
}

/// What became of a frame.
pub(crate) type Published = (Token, Result<Option<u64>, BusError>);

/// How much of the queue is a subscription's. There may be many, so it is small.
struct Subscriber {
    handle: Option<SubscriptionHandle>,
    capacity: u32,
    frames: u32,
    /// The place of a gap of its own making, while no frame of it came after.
    gap: Option<u64>,
}

impl Queue {
    /// A sink with room for so many frames.
    pub(crate) fn sink(self: &Arc<Self>, capacity: usize, handle: Option<SubscriptionHandle>) -> Sink {
        let capacity = u32::try_from(capacity).unwrap_or(u32::MAX).max(1);
        let subscriber = Subscriber { handle, capacity, frames: 0, gap: None };
        let slot = self.lock().subscribers.insert(subscriber);
        Sink { target: Target::Queue(Arc::clone(self), slot), error: None }
    }

    /// Moves what waits to `arrivals`, which is empty, up to `limit`; registers the task to be woken if that was all.
    pub(crate) fn take(&self, arrivals: &mut VecDeque<Item>, limit: usize, cx: &Context<'_>) {
        let mut waiting = self.lock();
        if waiting.items.len() <= limit {
            // Frames are large: they stay where they are.
            std::mem::swap(&mut waiting.items, arrivals);
        } else {
            arrivals.extend(waiting.items.drain(..limit));
        }
        arrivals.iter().for_each(|item| waiting.taken(item));
        waiting.poked = false;
        if waiting.items.is_empty() {
            wait(waiting, cx);
        }
    }

    /// Wakes the task, so that it looks at what changed elsewhere.
    pub(crate) fn poke(&self) {
        let mut waiting = self.lock();
        if !waiting.poked {
            waiting.poked = true;
            wake(waiting);
        }
    }

    pub(crate) fn published(&self, published: Published) {
        let mut waiting = self.lock();
        // Read under the lock: whoever clears it takes what was put there before.
        if self.publishing.load(Ordering::Relaxed) {
            return waiting.published.push(published);
        }
        if planted!(ReceiptsLost) {
            return;
        }
        waiting.items.push_back(Item::Published(published));
        wake(waiting);
    }

    /// Runs `publish`, and moves what is known afterwards of what became of frames to `published`, which is empty: so
    /// nobody is woken for what the driver can look at by itself.
    pub(crate) fn publishing<T>(&self, published: &mut Vec<Published>, publish: impl FnOnce() -> T) -> T {
        self.publishing.store(true, Ordering::Relaxed);
        let result = publish();
        let mut waiting = self.lock();
        self.publishing.store(false, Ordering::Relaxed);
        std::mem::swap(&mut waiting.published, published);
        result
    }

    fn put(&self, slot: usize, delivery: Delivery) {
        let mut waiting = self.lock();
        let subscriber = &mut waiting.subscribers[slot];
        match &delivery {
            Delivery::Frame(_) | Delivery::Untaken(_) if subscriber.frames < subscriber.capacity => {
                subscriber.frames += 1;
                subscriber.gap = None;
            }
            // Its frames fill the queue, so the task was woken when they came.
            Delivery::Frame(_) | Delivery::Untaken(_) => return waiting.gap(slot, Some(1)),
            Delivery::Gap(lost) => {
                waiting.gap(slot, *lost);
                return wake(waiting);
            }
            Delivery::Live | Delivery::Ended(_) => {}
        }
        let recipient = Recipient { slot, handle: subscriber.handle };
        waiting.items.push_back(Item::Delivery(recipient, delivery));
        wake(waiting);
    }

    fn poll_delivery(&self, cx: &Context<'_>) -> Poll<Option<Delivery>> {
        let mut waiting = self.lock();
        let item = waiting.items.pop_front();
        if let Some(item) = &item {
            waiting.taken(item);
        }
        match item {
            Some(Item::Delivery(_, delivery)) => Poll::Ready(Some(delivery)),
            Some(Item::Published(_)) => unreachable!("an inbox publishes nothing"),
            None if waiting.subscribers.is_empty() => Poll::Ready(None),
            None => {
                wait(waiting, cx);
                Poll::Pending
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// An item was taken, the first of those that waited.
    fn taken(&mut self, item: &Item) {
        self.taken += 1;
        let Item::Delivery(Recipient { slot, .. }, delivery) = item else { return };
        match delivery {
            Delivery::Frame(_) | Delivery::Untaken(_) => self.subscribers[*slot].frames -= 1,
            // Its slot is free for another from here on.
            Delivery::Ended(_) => drop(self.subscribers.remove(*slot)),
            Delivery::Live | Delivery::Gap(_) => {}
        }
    }

    /// Adds a gap, to the one that is there if no frame came after it.
    fn gap(&mut self, slot: usize, lost: Option<u64>) {
        let subscriber = &mut self.subscribers[slot];
        let place = subscriber.gap.and_then(|place| place.checked_sub(self.taken));
        if let Some(Item::Delivery(_, Delivery::Gap(known))) =
            place.and_then(|at| self.items.get_mut(at as usize))
        {
            *known = known.zip(lost).map(|(known, more)| known.saturating_add(more));
            return;
        }
        subscriber.gap = Some(self.taken + self.items.len() as u64);
        let recipient = Recipient { slot, handle: subscriber.handle };
        self.items.push_back(Item::Delivery(recipient, Delivery::Gap(lost)));
    }
}

/// Registers the task to be woken. The one that waited before is dropped once the queue is free again: what it holds may use the
/// queue.
fn wait(mut waiting: MutexGuard<'_, Waiting>, cx: &Context<'_>) {
    let replaced = waiting::replace(&mut waiting.waker, cx);
    drop(waiting);
    drop(replaced);
}

/// Wakes the task, once the queue is free again.
fn wake(mut waiting: MutexGuard<'_, Waiting>) {
    let waker = waiting.waker.take();
    drop(waiting);
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use psrpc_engine::proto::Any;

    use super::*;

    fn frame(number: u8) -> Frame {
        Frame::Other(Any { value: vec![number].into(), ..Any::default() })
    }

    /// What has arrived, in short: `1` for a frame, `-2` for a gap of two.
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
        (1..=4).for_each(|number| sink.deliver(frame(number)));
        assert_eq!(arrived(&mut inbox), [1, 2, -2]);
        (5..=7).for_each(|number| sink.deliver(frame(number)));
        assert_eq!(arrived(&mut inbox), [5, 6, -1]);
    }

    #[test]
    fn gaps_of_any_size_are_one_of_the_largest_size_there_is() {
        let (sink, mut inbox) = Inbox::new(2);
        sink.gap(Some(u64::MAX));
        sink.gap(Some(u64::MAX));
        let polled = Pin::new(&mut inbox).poll_next(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(polled, Poll::Ready(Some(Delivery::Gap(Some(u64::MAX))))));
    }

    #[test]
    fn each_place_where_frames_are_missing_has_a_gap_of_its_own() {
        let (sink, mut inbox) = Inbox::new(2);
        let mut cx = Context::from_waker(Waker::noop());
        (1..=3).for_each(|number| sink.deliver(frame(number)));
        assert!(Pin::new(&mut inbox).poll_next(&mut cx).is_ready());
        (4..=6).for_each(|number| sink.deliver(frame(number)));
        assert_eq!(arrived(&mut inbox), [2, -1, 4, -2]);
    }

    #[test]
    fn a_subscription_that_is_behind_takes_no_room_from_others() {
        let queue = Arc::new(Queue::default());
        let (slow, fast) = (queue.sink(1, None), queue.sink(1, None));
        (1..=9).for_each(|number| slow.deliver(frame(number)));
        fast.deliver(frame(10));
        assert_eq!(arrived(&mut Inbox(queue)), [1, -8, 10]);
    }

    #[test]
    fn a_sink_of_a_closure_hands_on_every_delivery_and_the_end_last() {
        let (sink, mut inbox) = Inbox::new(2);
        let sink = Mutex::new(Some(sink));
        let wrapper = Sink::new(move |delivery| match delivery {
            Delivery::Ended(Some(error)) => sink.lock().unwrap().take().unwrap().fail(error),
            delivery => sink.lock().unwrap().as_ref().unwrap().put(delivery),
        });
        wrapper.live();
        wrapper.deliver(frame(1));
        wrapper.untaken(frame(2));
        wrapper.gap(Some(3));
        wrapper.fail(BusError::new("gone"));
        let mut cx = Context::from_waker(Waker::noop());
        let mut next = || Pin::new(&mut inbox).poll_next(&mut cx);
        assert!(matches!(next(), Poll::Ready(Some(Delivery::Live))));
        assert!(matches!(next(), Poll::Ready(Some(Delivery::Frame(_)))));
        assert!(matches!(next(), Poll::Ready(Some(Delivery::Untaken(_)))));
        assert!(matches!(next(), Poll::Ready(Some(Delivery::Gap(Some(3))))));
        assert!(matches!(next(), Poll::Ready(Some(Delivery::Ended(Some(_))))));
        assert!(matches!(next(), Poll::Ready(None)));
    }

    #[test]
    fn the_end_comes_after_all_that_was_delivered() {
        let (sink, mut inbox) = Inbox::new(2);
        sink.live();
        sink.deliver(frame(1));
        sink.fail(BusError::new("gone"));
        let mut cx = Context::from_waker(Waker::noop());
        let mut next = || Pin::new(&mut inbox).poll_next(&mut cx);
        assert!(matches!(next(), Poll::Ready(Some(Delivery::Live))));
        assert!(matches!(next(), Poll::Ready(Some(Delivery::Frame(_)))));
        assert!(matches!(next(), Poll::Ready(Some(Delivery::Ended(Some(_))))));
        assert!(matches!(next(), Poll::Ready(None)));
    }
}
