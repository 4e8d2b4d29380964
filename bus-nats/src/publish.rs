//! Publishing: the path of a frame from the offer to the connection.
//!
//! The caller of [`Publisher::publish`] may hold locks, so the frame is only queued there, and sent
//! once the locks are released: `publish` adds a waker to the caller's [`WakeList`]. On the
//! caller's thread, this waker encodes the queued frames and passes them to the client library. If
//! another thread is already sending, it takes the new frame too. When many calls are in flight, a
//! task sends instead, after one turn of the executor ([`Pace`]).
//!
//! ```text
//! queued --> encoded (large frames in a task) --> sent --> confirmed by a round trip, unless the
//!                                                          subject is known to be allowed
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use async_nats::{Client, Subject};
use bytes::Bytes;
use psrpc::bus::{Accepted, Full, Lock, Offer, Receipt, WakeList, assert_unlocked};
use psrpc::proto::{Channel, Compression, Frame};
use psrpc::{BusError, Runtime};
use tokio::task::{unconstrained, yield_now};

use crate::error::Failure;
use crate::options::NatsOptions;
use crate::pace::Pace;
use crate::permissions::{Permissions, Unconfirmed};
use crate::signal::Signal;
use crate::subject;

/// The size from which a frame is encoded in its own task.
const LARGE: usize = 64 * 1024;
/// The number of bytes that is counted for a frame in addition to its value. The encoding adds less
/// than that, unless the frame has much metadata.
const FRAME_BYTES: usize = 512;
/// The maximum amount passed to the client library and not written yet.
const MAX_UNWRITTEN: Size = Size { bytes: 512 * 1024, frames: 1024 };
/// The amount after which a flush is started, to learn when it is written.
const FLUSH_AFTER: Size = Size { bytes: 256 * 1024, frames: 512 };
/// The maximum number of frames that are encoded before the first of them is sent.
const BATCH: usize = 64;

/// The capacity of the client library. It exceeds the number of frames that the bus passes to the
/// library before they are written.
pub(crate) const CLIENT_CAPACITY: usize = 2 * MAX_UNWRITTEN.frames;

/// Publishes frames on the current connection.
pub(crate) struct Publisher {
    queue: Lock<Queue>,
    servers: String,
    limit: usize,
    compression: Option<Compression>,
    runtime: Arc<dyn Runtime>,
    /// Wakes the task of the bus when a flush or a round trip is needed.
    work: Arc<Signal>,
}

struct Queue {
    connection: ConnectionState,
    frames: VecDeque<QueuedFrame>,
    /// The size of the frames that were accepted and not sent yet.
    bytes: usize,
    /// The frames waiting for a large frame of their channel to be encoded, by channel.
    held_back: BTreeMap<Box<str>, VecDeque<QueuedFrame>>,
    /// Whether a thread is sending.
    sending: bool,
    /// The amount sent since the current flush began.
    unflushed: Size,
    /// The amount covered by the current flush.
    flushing: Size,
    /// The number of lost connections. Distinguishes the frames of the current connection from
    /// earlier ones.
    losses: u64,
    permissions: Permissions,
    pace: Pace,
    /// The tasks waiting for room.
    wakers: Vec<Waker>,
}

enum ConnectionState {
    Up(Arc<LiveConnection>),
    Down(String),
    Stopped,
}

/// An established connection.
struct LiveConnection {
    client: Client,
    max_payload: usize,
}

/// A frame waiting to be sent.
struct QueuedFrame {
    subject: Subject,
    channel: Channel,
    content: Content,
    /// `None` if the result was reported when the frame was accepted.
    receipt: Option<Receipt>,
    bytes: usize,
}

enum Content {
    Frame(Frame),
    Encoded(Bytes),
    /// The task that encodes the frame was dropped or panicked.
    Failed,
}

#[derive(Clone, Copy, Default)]
struct Size {
    bytes: usize,
    frames: usize,
}

impl Publisher {
    pub(crate) fn new(
        servers: String,
        options: &NatsOptions,
        runtime: Arc<dyn Runtime>,
        work: Arc<Signal>,
    ) -> Self {
        let queue = Queue {
            connection: ConnectionState::Down("not connected yet".to_owned()),
            frames: VecDeque::new(),
            bytes: 0,
            held_back: BTreeMap::new(),
            sending: false,
            unflushed: Size::default(),
            flushing: Size::default(),
            losses: 0,
            permissions: Permissions::default(),
            pace: Pace::default(),
            wakers: Vec::new(),
        };
        let (limit, compression) = (options.queue_bytes.max(1), options.compression);
        Self { queue: Lock::new(queue), servers, limit, compression, runtime, work }
    }

    /// Queues a frame, if there is room.
    ///
    /// NATS does not confirm publishes. The result is known immediately if the subject is known to
    /// be allowed and the frame is within the server's limit. Otherwise a receipt reports it later.
    pub(crate) fn publish(
        self: &Arc<Self>,
        offer: Offer<'_>,
        wakes: &mut WakeList,
    ) -> Result<Accepted, Full> {
        let mut queue = self.queue.lock();
        let max_payload = match &queue.connection {
            ConnectionState::Up(connection) => connection.max_payload,
            ConnectionState::Down(cause) => {
                let failure = Failure::NotConnected { servers: self.servers.clone(), cause: cause.clone() };
                return Ok(Accepted::Failed(failure.into()));
            }
            ConnectionState::Stopped => return Ok(Accepted::Failed(Failure::Stopped.into())),
        };
        if queue.bytes >= self.limit {
            return Err(Full);
        }
        let bytes = offer.frame().value_len() + FRAME_BYTES;
        let allowed = queue.permissions.allowed(offer.channel().server());
        // The envelope also holds the channel name and, for user messages, the type.
        let is_small = bytes < LARGE && 2 * bytes <= max_payload;
        let frame = match allowed {
            Some(subject) if is_small => {
                let channel = offer.channel().clone();
                let content = Content::Frame(offer.take());
                QueuedFrame { subject, channel, content, receipt: None, bytes }
            }
            allowed => {
                let name = offer.channel().server();
                if allowed.is_none()
                    && let Err(failure) = subject::check(name)
                {
                    return Ok(Accepted::Failed(failure.into()));
                }
                let subject = allowed.unwrap_or_else(|| name.into());
                let (channel, frame, receipt) = offer.take_for_later();
                let content = Content::Frame(frame);
                QueuedFrame { subject, channel, content, receipt: Some(receipt), bytes }
            }
        };
        let accepted = if frame.receipt.is_none() { Accepted::Done(None) } else { Accepted::Later };
        queue.bytes += bytes;
        queue.frames.push_back(frame);
        // If other frames are queued, a waker is registered already.
        if queue.frames.len() == 1 && !queue.sending {
            wakes.push(Waker::from(Arc::clone(self)));
        }
        Ok(accepted)
    }

    /// Completes when there is room.
    pub(crate) fn poll_ready(&self, cx: &Context<'_>) -> Poll<()> {
        let mut queue = self.queue.lock();
        if queue.bytes < self.limit {
            return Poll::Ready(());
        }
        if !queue.wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
            queue.wakers.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Passes queued frames to the client library, unless another thread is doing so.
    fn send(self: &Arc<Self>) {
        assert_unlocked("frames are encoded and sent");
        let mut batch = Batch::default();
        loop {
            let Some(connection) = self.begin_batch(&mut batch) else { return };
            batch.large.drain(..).for_each(|frame| self.encode_in_task(frame, batch.losses));
            batch.encode(&connection, self.compression);
            self.track_unconfirmed(batch.losses, &mut batch.unconfirmed);
            batch
                .messages
                .drain(..)
                .for_each(|(subject, payload)| send_to_client(&connection.client, subject, payload));
            self.end_batch(&batch);
        }
    }

    /// Takes the frames that can be sent now. Returns the connection, or `None` if there is nothing
    /// to send.
    fn begin_batch(&self, batch: &mut Batch) -> Option<Arc<LiveConnection>> {
        let mut queue = self.queue.lock();
        if queue.sending {
            return None;
        }
        let ConnectionState::Up(connection) = &queue.connection else { return None };
        let connection = Arc::clone(connection);
        queue.fill(batch);
        batch.losses = queue.losses;
        batch.is_limited = queue.permissions.is_limited();
        queue.sending = !batch.is_empty();
        queue.sending.then_some(connection)
    }

    /// Tracks frames until they are confirmed or the connection is lost.
    fn track_unconfirmed(&self, losses: u64, frames: &mut Vec<Unconfirmed>) {
        if frames.is_empty() {
            return;
        }
        let mut queue = self.queue.lock();
        if queue.losses == losses {
            return queue.permissions.sending(frames);
        }
        drop(queue);
        frames.drain(..).for_each(|frame| frame.receipt.failed(self.lost_error()));
    }

    /// Records that a batch has been sent.
    fn end_batch(&self, batch: &Batch) {
        let mut wakes = WakeList::new();
        let mut queue = self.queue.lock();
        queue.sending = false;
        // The receipts of lost frames have been failed already.
        if queue.losses != batch.losses {
            return;
        }
        queue.permissions.sent();
        queue.release(batch.bytes, self.limit, &mut wakes);
        let is_needed = queue.needs_flush() || queue.permissions.needs_round();
        drop(queue);
        if is_needed {
            self.work.notify();
        }
    }

    /// Encodes a large frame in a task, so that it delays only frames of its own channel.
    fn encode_in_task(self: &Arc<Self>, frame: QueuedFrame, losses: u64) {
        let mut task = EncodeTask { publisher: Arc::clone(self), frame: Some(frame), losses };
        self.runtime.spawn(Box::pin(async move { task.run() }));
    }

    /// Requeues a large frame after encoding, followed by the frames that waited for it.
    fn on_encoded(self: &Arc<Self>, frame: QueuedFrame, losses: u64) {
        let mut queue = self.queue.lock();
        if queue.losses != losses {
            let lost = self.lost_error();
            drop(queue);
            return frame.fail(lost);
        }
        let mut held_back = queue.held_back.remove(frame.channel.legacy()).unwrap_or_default();
        while let Some(frame) = held_back.pop_back() {
            queue.frames.push_front(frame);
        }
        queue.frames.push_front(frame);
        drop(queue);
        self.send();
    }

    fn lost_error(&self) -> BusError {
        Failure::Lost { servers: self.servers.clone() }.into()
    }

    // --- the connection --------------------------------------------------------------------------

    /// Records that a connection is established.
    pub(crate) fn connected(&self, client: &Client) {
        drop(self.replace_connection(client));
    }

    /// Publishes on another connection from now on. Frames that were sent on the old one stay
    /// tracked. Returns once no thread sends on the old one.
    pub(crate) async fn move_to(&self, client: &Client) {
        let replaced = self.replace_connection(client);
        while matches!(&replaced, ConnectionState::Up(old) if Arc::strong_count(old) > 1) {
            // The other thread finishes soon.
            yield_now().await;
        }
    }

    fn replace_connection(&self, client: &Client) -> ConnectionState {
        let connection = LiveConnection { client: client.clone(), max_payload: client.max_payload() };
        let connection = ConnectionState::Up(Arc::new(connection));
        std::mem::replace(&mut self.queue.lock().connection, connection)
    }

    /// Records that the connection was lost.
    pub(crate) fn lost(&self, cause: &str) {
        self.disconnect(ConnectionState::Down(cause.to_owned()), &self.lost_error());
    }

    /// Fails all current and later frames.
    pub(crate) fn stop(&self) {
        self.disconnect(ConnectionState::Stopped, &Failure::Stopped.into());
    }

    fn disconnect(&self, connection: ConnectionState, cause: &BusError) {
        let mut wakes = WakeList::new();
        let mut queue = self.queue.lock();
        let replaced = std::mem::replace(&mut queue.connection, connection);
        let held_back = std::mem::take(&mut queue.held_back).into_values().flatten();
        let frames: Vec<_> = queue.frames.drain(..).chain(held_back).collect();
        let unconfirmed = queue.permissions.lost();
        queue.losses += 1;
        (queue.unflushed, queue.flushing) = (Size::default(), Size::default());
        let bytes = queue.bytes;
        queue.release(bytes, self.limit, &mut wakes);
        drop(queue);
        // Dropping it may wake a task of the client library.
        drop(replaced);
        frames.into_iter().for_each(|frame| frame.fail(cause.clone()));
        unconfirmed.into_iter().for_each(|frame| frame.receipt.failed(cause.clone()));
    }

    /// Begins a flush if one is needed. The previous flush must have [completed](Self::flushed).
    pub(crate) fn begin_flush(&self) -> bool {
        let mut queue = self.queue.lock();
        let is_needed = queue.needs_flush();
        if is_needed {
            queue.flushing = std::mem::take(&mut queue.unflushed);
        }
        is_needed
    }

    /// Handles a completed flush.
    pub(crate) fn flushed(self: &Arc<Self>) {
        self.queue.lock().flushing = Size::default();
        self.send();
    }

    // --- round trips -----------------------------------------------------------------------------

    /// Starts a round. Returns `true` if it is needed to confirm a frame.
    pub(crate) fn begin_round(&self) -> bool {
        self.queue.lock().permissions.begin_round()
    }

    /// Handles the end of a round.
    pub(crate) fn end_round(self: &Arc<Self>) {
        let confirmed = self.queue.lock().permissions.confirm_publishes();
        confirmed.into_iter().for_each(|frame| frame.receipt.published(None));
        // Frames may be waiting for the confirmation.
        self.send();
    }

    /// Handles a refused frame. Returns `true` if it was sent while the number of unconfirmed
    /// frames was limited.
    pub(crate) fn refused(self: &Arc<Self>, subject: &str, text: &str) -> bool {
        let (refused, is_expected) = self.queue.lock().permissions.refuse(subject);
        for frame in refused {
            let (servers, subject) = (self.servers.clone(), subject.to_owned());
            let failure = Failure::PublishRefused { servers, subject, text: text.to_owned() };
            frame.receipt.failed(failure.into());
        }
        // Frames may be waiting for the result.
        self.send();
        is_expected
    }

    /// Returns `true` if every accepted frame has been sent.
    pub(crate) fn is_idle(&self) -> bool {
        let queue = self.queue.lock();
        queue.bytes == 0 || !matches!(queue.connection, ConnectionState::Up(_))
    }
}

impl Wake for Publisher {
    /// Sends the queued frames, or spawns a task that sends them after other tasks have added
    /// theirs.
    fn wake(self: Arc<Self>) {
        let now = self.runtime.now().time;
        if !self.queue.lock().pace.should_batch(now) {
            return self.send();
        }
        let publisher = Arc::clone(&self);
        self.runtime.spawn(Box::pin(async move {
            yield_now().await;
            let mut queue = publisher.queue.lock();
            let frames = queue.frames.len();
            queue.pace.record_batch(frames);
            drop(queue);
            publisher.send();
        }));
    }
}

impl Queue {
    /// Takes frames until the client library or the window of unconfirmed frames is full.
    fn fill(&mut self, batch: &mut Batch) {
        batch.bytes = 0;
        let mut unconfirmed = self.permissions.room();
        while let Some(frame) = self.frames.front()
            && batch.frames.len() < BATCH
            && !self.is_client_full()
            && (frame.receipt.is_none() || unconfirmed > 0)
            && let Some(frame) = self.frames.pop_front()
        {
            if !self.held_back.is_empty()
                && let Some(held_back) = self.held_back.get_mut(frame.channel.legacy())
            {
                held_back.push_back(frame);
            } else if frame.is_large() {
                self.held_back.insert(frame.channel.legacy().into(), VecDeque::new());
                batch.large.push(frame);
            } else {
                unconfirmed -= usize::from(frame.receipt.is_some());
                self.unflushed.bytes += frame.bytes;
                self.unflushed.frames += 1;
                batch.bytes += frame.bytes;
                batch.frames.push(frame);
            }
        }
    }

    fn is_client_full(&self) -> bool {
        self.unflushed.bytes + self.flushing.bytes >= MAX_UNWRITTEN.bytes
            || self.unflushed.frames + self.flushing.frames >= MAX_UNWRITTEN.frames
    }

    fn needs_flush(&self) -> bool {
        let is_much =
            self.unflushed.bytes >= FLUSH_AFTER.bytes || self.unflushed.frames >= FLUSH_AFTER.frames;
        is_much && self.flushing.frames == 0
    }

    /// Releases the bytes of frames that were sent or have failed.
    fn release(&mut self, bytes: usize, limit: usize, wakes: &mut WakeList) {
        self.bytes -= bytes;
        if self.bytes < limit {
            wakes.extend(self.wakers.drain(..));
        }
    }
}

impl QueuedFrame {
    fn is_large(&self) -> bool {
        let is_to_encode = matches!(&self.content, Content::Frame(frame) if !matches!(frame, Frame::Raw(_)));
        is_to_encode && self.bytes >= LARGE
    }

    fn encode(&mut self, compression: Option<Compression>) {
        if let Content::Frame(frame) = &self.content {
            self.content = Content::Encoded(frame.encode_with(self.channel.local(), compression));
        }
    }

    fn fail(self, cause: BusError) {
        if let Some(receipt) = self.receipt {
            receipt.failed(cause);
        }
    }
}

/// The frames sent together.
#[derive(Default)]
struct Batch {
    frames: Vec<QueuedFrame>,
    /// The large frames, to be encoded in tasks.
    large: Vec<QueuedFrame>,
    /// The total size of `frames`.
    bytes: usize,
    messages: Vec<(Subject, Bytes)>,
    /// The frames whose result is unknown. They are tracked before they are sent, because a refusal
    /// may arrive immediately.
    unconfirmed: Vec<Unconfirmed>,
    is_limited: bool,
    /// The number of lost connections when the frames were taken.
    losses: u64,
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.frames.is_empty() && self.large.is_empty()
    }

    /// Encodes the frames into messages. Fails frames that exceed the server's limit.
    fn encode(&mut self, connection: &LiveConnection, compression: Option<Compression>) {
        for mut frame in self.frames.drain(..) {
            frame.encode(compression);
            let (subject, limit) = (frame.subject.clone(), connection.max_payload);
            match &frame.content {
                Content::Encoded(payload) if payload.len() <= limit => {
                    self.messages.push((subject.clone(), payload.clone()));
                    let is_limited = self.is_limited;
                    let unconfirmed = |receipt| Unconfirmed { subject, receipt, is_limited };
                    self.unconfirmed.extend(frame.receipt.map(unconfirmed));
                }
                Content::Encoded(payload) => {
                    let (subject, size) = (subject.to_string(), payload.len());
                    frame.fail(Failure::TooLarge { subject, size, limit }.into());
                }
                Content::Failed | Content::Frame(_) => {
                    frame.fail(Failure::NotEncoded { subject: subject.to_string() }.into());
                }
            }
        }
    }
}

/// Passes a message to the client library, which has room: the amount not written yet is limited.
fn send_to_client(client: &Client, subject: Subject, payload: Bytes) {
    // Ignore the cooperative budget of the current tokio task.
    let publish = pin!(unconstrained(client.publish(subject, payload)));
    let sent = publish.poll(&mut Context::from_waker(Waker::noop()));
    // If this fails, the connection was lost, which the task of the bus notices.
    debug_assert!(sent.is_ready(), "the client library must have room");
}

/// The task that encodes one large frame.
struct EncodeTask {
    publisher: Arc<Publisher>,
    frame: Option<QueuedFrame>,
    losses: u64,
}

impl EncodeTask {
    fn run(&mut self) {
        let frame = self.frame.as_mut().expect("only `drop` takes the frame");
        frame.encode(self.publisher.compression);
    }
}

impl Drop for EncodeTask {
    /// Requeues the frame, even if encoding failed, because other frames wait for it.
    fn drop(&mut self) {
        let Some(mut frame) = self.frame.take() else { return };
        if let Content::Frame(_) = frame.content {
            frame.content = Content::Failed;
        }
        self.publisher.on_encoded(frame, self.losses);
    }
}
