//! The queue between whoever publishes and the connection, bounded in bytes, and the task that empties it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use async_nats::Subject;
use bytes::Bytes;
use psrpc::bus::Receipt;
use tokio::sync::Notify;

use crate::error::Fault;
use crate::grants;
use crate::link::Link;
use crate::shared::Shared;

/// How many bytes are written before they are flushed; what is not flushed when the connection is lost has failed.
const BATCH_BYTES: usize = 256 * 1024;
/// What a frame counts for beside its bytes, so that empty ones are bounded too.
const FRAME_BYTES: usize = 128;

/// A frame on its way.
pub(crate) struct Outgoing {
    pub(crate) subject: Subject,
    pub(crate) payload: Bytes,
    pub(crate) receipt: Receipt,
}

/// The frames that wait for the connection.
pub(crate) struct Outbox {
    queue: Mutex<Queue>,
    limit: usize,
    work: Notify,
}

struct Queue {
    frames: VecDeque<Outgoing>,
    /// Of those that wait, and of those that are being written.
    bytes: usize,
    /// Whoever waits for room.
    wakers: Vec<Waker>,
    /// What becomes of frames.
    state: State,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Open,
    /// The bus was dropped: what waits is still written.
    Closed,
    /// Nobody writes any more.
    Stopped,
}

impl Outgoing {
    fn bytes(&self) -> usize {
        self.payload.len() + FRAME_BYTES
    }
}

impl Outbox {
    pub(crate) fn new(limit: usize) -> Self {
        let queue = Queue { frames: VecDeque::new(), bytes: 0, wakers: Vec::new(), state: State::Open };
        Self { queue: Mutex::new(queue), limit: limit.max(1), work: Notify::new() }
    }

    /// Adds a frame; gives it back when there is no room.
    pub(crate) fn push(&self, outgoing: Outgoing) -> Result<(), Outgoing> {
        let mut queue = self.lock();
        if queue.state == State::Stopped {
            drop(queue);
            outgoing.receipt.failed(Fault::Stopped.into());
        } else if queue.bytes >= self.limit {
            return Err(outgoing);
        } else {
            queue.bytes += outgoing.bytes();
            queue.frames.push_back(outgoing);
            drop(queue);
            self.work.notify_one();
        }
        Ok(())
    }

    /// Ready when there is room.
    pub(crate) fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        let mut queue = self.lock();
        if queue.bytes < self.limit {
            return Poll::Ready(());
        }
        if !queue.wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
            queue.wakers.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Ends the task that writes, once it has written what waits.
    pub(crate) fn close(&self) {
        self.lock().state = State::Closed;
        self.work.notify_one();
    }

    /// The next frames to write; nothing when there will be no more.
    async fn next(&self) -> Option<Vec<Outgoing>> {
        loop {
            {
                let mut queue = self.lock();
                let mut bytes = 0;
                let fits = |frame: &&Outgoing| {
                    let first = bytes == 0;
                    bytes += frame.bytes();
                    first || bytes <= BATCH_BYTES
                };
                let count = queue.frames.iter().take_while(fits).count();
                if count > 0 {
                    return Some(queue.frames.drain(..count).collect());
                }
                if queue.state != State::Open {
                    return None;
                }
            }
            self.work.notified().await;
        }
    }

    /// Makes room of what was written, or has failed.
    fn release(&self, bytes: usize) {
        let mut queue = self.lock();
        queue.bytes -= bytes;
        if queue.bytes < self.limit {
            let wakers = std::mem::take(&mut queue.wakers);
            drop(queue);
            wakers.into_iter().for_each(Waker::wake);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes what is published, until the bus has been dropped.
pub(crate) async fn write(shared: Arc<Shared>) {
    let _stopped = StopAtEnd(&shared.outbox);
    let mut link = shared.link.subscribe();
    while let Some(batch) = shared.outbox.next().await {
        let bytes = batch.iter().map(Outgoing::bytes).sum();
        let up = *link.borrow_and_update() != Link::Down;
        let (mut waiting, mut written) = (batch.into_iter(), Vec::new());
        let outcome = tokio::select! {
            biased;
            // Whatever comes after `Up` is a loss, since a connection that comes back is `Up` with another number.
            () = async { if up { drop(link.changed().await) } } => Err(()),
            () = send(&shared, &mut waiting, &mut written) => Ok(()),
        };
        shared.outbox.release(bytes);
        let mut unproven = Vec::new();
        for (subject, receipt) in written {
            match outcome {
                Ok(()) if shared.grants.is_allowed(&subject) => receipt.published(None),
                Ok(()) => unproven.push((subject, receipt)),
                Err(()) => receipt.failed(shared.lost().into()),
            }
        }
        if !unproven.is_empty() {
            shared.spawn(grants::prove(Arc::clone(&shared), link.clone(), unproven));
        }
        waiting.for_each(|outgoing| outgoing.receipt.failed(shared.not_connected().into()));
    }
}

/// Hands frames to the client until none is left, and waits until they are on the socket.
async fn send(
    shared: &Shared,
    waiting: &mut impl Iterator<Item = Outgoing>,
    written: &mut Vec<(Subject, Receipt)>,
) {
    for Outgoing { subject, payload, receipt } in waiting {
        // Told as written or lost, should this be canceled while the client has no room.
        written.push((subject.clone(), receipt));
        if let Err(cause) = shared.client.publish(subject, payload).await
            && let Some((subject, receipt)) = written.pop()
        {
            receipt.failed(Fault::Publish { subject: subject.to_string(), cause }.into());
        }
    }
    if shared.client.flush().await.is_err() {
        written.drain(..).for_each(|(_, receipt)| receipt.failed(Fault::Stopped.into()));
    }
}

/// Fails what waits once nobody writes any more, also when the runtime drops the task.
struct StopAtEnd<'a>(&'a Outbox);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        queue.state = State::Stopped;
        queue.bytes = 0;
        let (frames, wakers) = (std::mem::take(&mut queue.frames), std::mem::take(&mut queue.wakers));
        drop(queue);
        wakers.into_iter().for_each(Waker::wake);
        frames.into_iter().for_each(|frame| frame.receipt.failed(Fault::Stopped.into()));
    }
}
