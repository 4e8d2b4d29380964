//! Reads the messages of one subscription.

use std::mem;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use async_nats::Subscriber;
use bytes::Bytes;
use futures_core::Stream;
use psrpc::bus::{Lock, WakeList};
use tokio::task::{unconstrained, yield_now};

/// The message count passed to `unsubscribe_after`. It exceeds the range of the server, which
/// therefore ends the subscription immediately, while the client library still delivers the
/// messages in flight. The library's `unsubscribe` and `drain` would discard them. Should a server
/// count instead, the reader unsubscribes when it is closed at the end of the round.
const UNREACHED_COUNT: u64 = u64::MAX;

/// Reads the messages of a subscription.
///
/// A reader has no task. The connection of the client library wakes it for each message, and the
/// reader routes the message on that thread. Messages of all subjects are thus delivered in the
/// order of arrival. The waker may be called while a thread reads, even by the channel being read.
/// That thread then reads once more.
pub(crate) struct Reader {
    /// Handles a message.
    route: Box<RouteFn>,
    reading: Lock<Reading>,
}

type RouteFn = dyn Fn(Bytes, &mut WakeList) + Send + Sync;

#[derive(Default)]
struct Reading {
    /// `None` while a thread is reading, and after the reader was closed or the connection ended.
    subscriber: Option<Subscriber>,
    /// Whether a thread is reading.
    is_busy: bool,
    /// Whether that thread must read once more.
    read_again: bool,
    closed: bool,
}

enum BeginRead {
    Reading(Subscriber),
    /// Another thread is reading.
    Busy,
    Ended,
}

impl Reader {
    /// Returns a reader. The caller must call [`read`](Self::read) once.
    pub(crate) fn new(
        subscriber: Option<Subscriber>,
        route: impl Fn(Bytes, &mut WakeList) + Send + Sync + 'static,
    ) -> Arc<Self> {
        let reading = Reading { subscriber, ..Reading::default() };
        Arc::new(Self { route: Box::new(route), reading: Lock::new(reading) })
    }

    /// Routes the messages that have arrived, and registers for later ones.
    pub(crate) fn read(self: &Arc<Self>) {
        if let BeginRead::Reading(subscriber) = self.begin() {
            self.read_until_pending(subscriber);
        }
    }

    /// Routes the messages that have arrived, and ends the subscription.
    pub(crate) fn close(self: &Arc<Self>) {
        self.reading.lock().closed = true;
        self.read();
    }

    /// Ends the subscription at the server. Messages sent before that are still read.
    pub(crate) async fn unsubscribe(self: &Arc<Self>) {
        loop {
            match self.begin() {
                BeginRead::Reading(mut subscriber) => {
                    // If this fails, the connection was lost.
                    let _ = subscriber.unsubscribe_after(UNREACHED_COUNT).await;
                    return self.read_until_pending(subscriber);
                }
                // The other thread finishes soon.
                BeginRead::Busy => yield_now().await,
                BeginRead::Ended => return,
            }
        }
    }

    /// Takes the subscriber for reading. If another thread has it, makes that thread read once
    /// more.
    fn begin(&self) -> BeginRead {
        let mut reading = self.reading.lock();
        reading.read_again = reading.is_busy;
        if reading.is_busy {
            return BeginRead::Busy;
        }
        let Some(subscriber) = reading.subscriber.take() else { return BeginRead::Ended };
        reading.is_busy = true;
        BeginRead::Reading(subscriber)
    }

    fn read_until_pending(self: &Arc<Self>, mut subscriber: Subscriber) {
        let waker = Waker::from(Arc::clone(self));
        let mut cx = Context::from_waker(&waker);
        loop {
            let has_ended = self.drain(&mut subscriber, &mut cx);
            let mut reading = self.reading.lock();
            reading.closed |= has_ended;
            if has_ended || !mem::take(&mut reading.read_again) {
                reading.is_busy = false;
                if !reading.closed {
                    reading.subscriber = Some(subscriber);
                }
                return;
            }
        }
    }

    /// Routes the messages that have arrived. Returns `true` if the subscription has ended.
    fn drain(&self, subscriber: &mut Subscriber, cx: &mut Context<'_>) -> bool {
        let mut wakes = WakeList::new();
        loop {
            match poll_next(subscriber, cx) {
                Poll::Ready(Some(message)) => {
                    (self.route)(message.payload, &mut wakes);
                }
                Poll::Ready(None) => return true,
                Poll::Pending => return false,
            }
        }
    }
}

impl Wake for Reader {
    fn wake(self: Arc<Self>) {
        self.read();
    }
}

/// Polls the subscriber without tokio's cooperative budget. With an exhausted budget, the waker
/// would be called immediately.
fn poll_next(subscriber: &mut Subscriber, cx: &mut Context<'_>) -> Poll<Option<async_nats::Message>> {
    let next = std::future::poll_fn(|cx| Pin::new(&mut *subscriber).poll_next(cx));
    pin!(unconstrained(next)).poll(cx)
}
