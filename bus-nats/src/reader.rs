//! Reading the messages of one subscription.

use std::mem;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use async_nats::Subscriber;
use bytes::Bytes;
use futures_core::Stream;
use psrpc::bus::{Lock, WakeList};
use tokio::task::{unconstrained, yield_now};

/// More messages than a server counts to. A server that is told to end a subscription after so many
/// ends it at once, and the client library goes on handing out what is on its way; its own
/// `unsubscribe` and `drain` throw that away. Nothing but that rests on the number: when the round
/// has ended, the server is told to unsubscribe in any case.
const AT_ONCE: u64 = u64::MAX;

/// Reads the messages of a subscription.
///
/// It has no task: the client library's connection wakes it with each message, and it routes the
/// message on that thread. So messages of all subjects are delivered in the order in which they
/// came. Its waker may be called while it reads, even by the channel that it reads from: then it
/// reads once more.
pub(crate) struct Reader {
    /// Takes each message.
    route: Box<RouteFn>,
    reading: Lock<Reading>,
}

type RouteFn = dyn Fn(Bytes, &mut WakeList) + Send + Sync;

#[derive(Default)]
struct Reading {
    /// `None` while a thread reads, and once it is closed or the connection has ended.
    subscriber: Option<Subscriber>,
    /// Whether a thread reads.
    is_busy: bool,
    /// Whether that thread is to read once more.
    again: bool,
    closed: bool,
}

enum Begun {
    Reading(Subscriber),
    /// Another thread reads.
    Busy,
    Ended,
}

impl Reader {
    /// Returns a reader, which is to [read](Self::read) for the first time.
    pub(crate) fn new(
        subscriber: Option<Subscriber>,
        route: impl Fn(Bytes, &mut WakeList) + Send + Sync + 'static,
    ) -> Arc<Self> {
        let reading = Reading { subscriber, ..Reading::default() };
        Arc::new(Self { route: Box::new(route), reading: Lock::new(reading) })
    }

    /// Routes what has come, and is woken by what comes next.
    pub(crate) fn read(self: &Arc<Self>) {
        if let Begun::Reading(subscriber) = self.begin() {
            self.read_on(subscriber);
        }
    }

    /// Routes what has come, and ends the subscription.
    pub(crate) fn close(self: &Arc<Self>) {
        self.reading.lock().closed = true;
        self.read();
    }

    /// Has the server end the subscription. What it had handed out by then is still read.
    pub(crate) async fn unsubscribe(self: &Arc<Self>) {
        loop {
            match self.begin() {
                Begun::Reading(mut subscriber) => {
                    // If this fails, the connection was lost.
                    let _ = subscriber.unsubscribe_after(AT_ONCE).await;
                    return self.read_on(subscriber);
                }
                // It is done soon.
                Begun::Busy => yield_now().await,
                Begun::Ended => return,
            }
        }
    }

    /// Takes the subscriber, to read from it; or has the thread that does so read once more.
    fn begin(&self) -> Begun {
        let mut reading = self.reading.lock();
        reading.again = reading.is_busy;
        if reading.is_busy {
            return Begun::Busy;
        }
        let Some(subscriber) = reading.subscriber.take() else { return Begun::Ended };
        reading.is_busy = true;
        Begun::Reading(subscriber)
    }

    fn read_on(self: &Arc<Self>, mut subscriber: Subscriber) {
        let waker = Waker::from(Arc::clone(self));
        let mut cx = Context::from_waker(&waker);
        loop {
            let has_ended = self.drain(&mut subscriber, &mut cx);
            let mut reading = self.reading.lock();
            reading.closed |= has_ended;
            if has_ended || !mem::take(&mut reading.again) {
                reading.is_busy = false;
                if !reading.closed {
                    reading.subscriber = Some(subscriber);
                }
                return;
            }
        }
    }

    /// Routes what has come. Returns `true` if nothing more will.
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

/// Polls whatever tokio thinks of this task's share: the waker would be called at once if that were
/// used up.
fn poll_next(subscriber: &mut Subscriber, cx: &mut Context<'_>) -> Poll<Option<async_nats::Message>> {
    let next = std::future::poll_fn(|cx| Pin::new(&mut *subscriber).poll_next(cx));
    pin!(unconstrained(next)).poll(cx)
}
