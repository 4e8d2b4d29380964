//! The queue between whoever publishes and the connection, bounded in bytes, and the task that empties it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use async_nats::Subject;
use bytes::Bytes;
use psrpc::bus::{Accepted, Full, Lock, Offer, Receipt};
use psrpc::proto::{Channel, Frame};
use tokio::sync::Notify;

use crate::error::Fault;
use crate::grants;
use crate::link::Link;
use crate::shared::Shared;

/// How many bytes are written before they are flushed; what is not flushed when the connection is lost has failed.
const BATCH_BYTES: usize = 256 * 1024;
/// From this size on a frame is encoded on a thread of its own.
const LARGE: usize = 64 * 1024;
/// What a frame counts for beside its bytes, so that empty ones are bounded too.
const FRAME_BYTES: usize = 128;

/// A frame on its way.
pub(crate) struct Outgoing {
    pub(crate) channel: Channel,
    pub(crate) frame: Frame,
    pub(crate) receipt: Receipt,
    /// How much room it takes.
    bytes: usize,
}

/// The frames that wait for the connection.
pub(crate) struct Outbox {
    queue: Lock<Queue>,
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

impl Outbox {
    pub(crate) fn new(limit: usize) -> Self {
        let queue = Queue { frames: VecDeque::new(), bytes: 0, wakers: Vec::new(), state: State::Open };
        Self { queue: Lock::new(queue), limit: limit.max(1), work: Notify::new() }
    }

    /// Takes a frame that is offered. The task that writes is to be [notified](Self::notify) of it.
    pub(crate) fn push(&self, offer: Offer<'_>) -> Result<Accepted, Full> {
        let mut queue = self.queue.lock();
        if queue.state == State::Stopped {
            return Ok(Accepted::Failed(Fault::Stopped.into()));
        }
        if queue.bytes >= self.limit {
            return Err(Full);
        }
        let bytes = offer.frame().value_len() + FRAME_BYTES;
        let (channel, frame, receipt) = offer.take_for_later();
        queue.bytes += bytes;
        queue.frames.push_back(Outgoing { channel, frame, receipt, bytes });
        Ok(Accepted::Later)
    }

    pub(crate) fn notify(&self) {
        self.work.notify_one();
    }

    /// Ready when there is room.
    pub(crate) fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        let mut queue = self.queue.lock();
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
        self.queue.lock().state = State::Closed;
        self.work.notify_one();
    }

    /// The next frames to write; nothing when there will be no more.
    async fn next(&self) -> Option<Vec<Outgoing>> {
        loop {
            {
                let mut queue = self.queue.lock();
                let mut bytes = 0;
                let fits = |frame: &&Outgoing| {
                    let first = bytes == 0;
                    bytes += frame.bytes;
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
        let mut queue = self.queue.lock();
        queue.bytes -= bytes;
        if queue.bytes < self.limit {
            let wakers = std::mem::take(&mut queue.wakers);
            drop(queue);
            wakers.into_iter().for_each(Waker::wake);
        }
    }
}

/// Writes what is published, until the bus has been dropped.
pub(crate) async fn write(shared: Arc<Shared>) {
    let _stopped = StopAtEnd(&shared.outbox);
    let mut link = shared.link.subscribe();
    while let Some(batch) = shared.outbox.next().await {
        let bytes = batch.iter().map(|outgoing| outgoing.bytes).sum();
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
    for Outgoing { channel, frame, receipt, .. } in waiting {
        let payload = encode(shared, &channel, frame).await;
        let (subject, limit) = (Subject::from(channel.server()), shared.client.max_payload());
        if payload.len() > limit {
            let (subject, size) = (subject.to_string(), payload.len());
            receipt.failed(Fault::TooLarge { subject, size, limit }.into());
            continue;
        }
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

/// Encodes a frame, a large one where it holds up nothing else.
async fn encode(shared: &Shared, channel: &Channel, frame: Frame) -> Bytes {
    let (channel, compression) = (channel.clone(), shared.options.compression);
    let encode = move |frame: &Frame| {
        psrpc::bus::assert_unlocked("a frame is encoded");
        frame.encode_with(channel.local(), compression)
    };
    if frame.value_len() < LARGE {
        return encode(&frame);
    }
    let task = encode.clone();
    let large = frame.clone();
    match tokio::task::spawn_blocking(move || task(&large)).await {
        Ok(payload) => payload,
        // The runtime shuts down.
        Err(_) => encode(&frame),
    }
}

/// Fails what waits once nobody writes any more, also when the runtime drops the task.
struct StopAtEnd<'a>(&'a Outbox);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        let mut queue = self.0.queue.lock();
        queue.state = State::Stopped;
        queue.bytes = 0;
        let (frames, wakers) = (std::mem::take(&mut queue.frames), std::mem::take(&mut queue.wakers));
        drop(queue);
        wakers.into_iter().for_each(Waker::wake);
        frames.into_iter().for_each(|frame| frame.receipt.failed(Fault::Stopped.into()));
    }
}
