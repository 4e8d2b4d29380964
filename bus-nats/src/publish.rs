//! PublishFuture: from an offer to the connection.
//!
//! A frame takes its place in a queue, under the locks of those who publish. It leaves once these locks are free: the
//! waker that the queue adds to the publisher's [`WakeList`] encodes what is queued and hands it to the client library, on
//! the publisher's own thread. If another thread is doing so already, that one takes the new frame too. With many calls in
//! flight a task does it instead, after one turn of the executor ([`Pace`]).
//!
//! ```text
//! queued --> encoded, small ones here, large ones in a task --> handed over --> confirmed by a round trip,
//!                                                                               unless the subject is known
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

/// From this size on a frame is encoded in a task of its own.
const LARGE: usize = 64 * 1024;
/// What a frame counts for beside its value. Its encoding adds less, apart from metadata.
const FRAME_BYTES: usize = 512;
/// How much the client library is handed before it has written any of it.
const MOST_UNWRITTEN: Size = Size { bytes: 512 * 1024, frames: 1024 };
/// After how much the library is asked to tell when it has written that.
const FLUSH_AFTER: Size = Size { bytes: 256 * 1024, frames: 512 };
/// How many frames are encoded before any of them is handed over.
const BATCH: usize = 64;

/// How many commands the client library has room for: more than it is handed before it has written
/// them.
pub(crate) const CLIENT_CAPACITY: usize = 2 * MOST_UNWRITTEN.frames;

/// Publishes frames on the connection, while there is one.
pub(crate) struct Publisher {
    queue: Lock<Queue>,
    servers: String,
    limit: usize,
    compression: Option<Compression>,
    runtime: Arc<dyn Runtime>,
    /// Tells the bus's task that a flush or a round trip is needed.
    work: Arc<Signal>,
}

struct Queue {
    connection: Connection,
    frames: VecDeque<QueuedFrame>,
    /// How much was accepted and not handed over.
    bytes: usize,
    /// The frames that wait for a large one of their channel, which is being encoded; by channel.
    held_back: BTreeMap<Box<str>, VecDeque<QueuedFrame>>,
    /// Whether a thread is handing frames over.
    sending: bool,
    /// What was handed over since the flush under way began.
    handed: Size,
    /// What the flush under way covers.
    flushing: Size,
    permissions: Permissions,
    pace: Pace,
    /// The tasks that wait for room.
    wakers: Vec<Waker>,
}

enum Connection {
    Up(Up),
    Down(String),
    Stopped,
}

/// A connection that there is.
#[derive(Clone)]
struct Up {
    client: Client,
    max_payload: usize,
    /// Tells it from earlier ones.
    number: u64,
}

/// A frame that waits for its turn.
struct QueuedFrame {
    subject: Subject,
    channel: Channel,
    content: Content,
    /// `None` where the result was told when the frame was accepted.
    receipt: Option<Receipt>,
    bytes: usize,
}

enum Content {
    Frame(Frame),
    Encoded(Bytes),
    /// The task that was to encode it has ended without doing so.
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
            connection: Connection::Down("it was never connected".to_owned()),
            frames: VecDeque::new(),
            bytes: 0,
            held_back: BTreeMap::new(),
            sending: false,
            handed: Size::default(),
            flushing: Size::default(),
            permissions: Permissions::default(),
            pace: Pace::default(),
            wakers: Vec::new(),
        };
        let (limit, compression) = (options.queue_bytes.max(1), options.compression);
        Self { queue: Lock::new(queue), servers, limit, compression, runtime, work }
    }

    /// Takes a frame, if there is room for it. Its result is known at once if its subject is known to be allowed and its
    /// size is within the server's limit: NATS confirms nothing. Otherwise a receipt tells it later.
    pub(crate) fn publish(
        self: &Arc<Self>,
        offer: Offer<'_>,
        wakes: &mut WakeList,
    ) -> Result<Accepted, Full> {
        let mut queue = self.queue.lock();
        let max_payload = match &queue.connection {
            Connection::Up(up) => up.max_payload,
            Connection::Down(cause) => {
                let failure = Failure::NotConnected { servers: self.servers.clone(), cause: cause.clone() };
                return Ok(Accepted::Failed(failure.into()));
            }
            Connection::Stopped => return Ok(Accepted::Failed(Failure::Stopped.into())),
        };
        if queue.bytes >= self.limit {
            return Err(Full);
        }
        let bytes = offer.frame().value_len() + FRAME_BYTES;
        let allowed = queue.permissions.allowed(offer.channel().server());
        // The channel's name in the envelope, and the type of a user's message, come on top.
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
        // The frames before it have a waker already.
        if queue.frames.len() == 1 && !queue.sending {
            wakes.push(Waker::from(Arc::clone(self)));
        }
        Ok(accepted)
    }

    /// Ready when there is room.
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

    /// Hands what is queued to the client library, unless another thread is doing so.
    fn send(self: &Arc<Self>) {
        assert_unlocked("frames are encoded and sent");
        let mut batch = Batch::default();
        loop {
            let Some(up) = self.begin(&mut batch) else { return };
            batch.large.drain(..).for_each(|frame| self.encode_in_task(frame, up.number));
            batch.encode(&up, self.compression);
            self.await_confirmation(up.number, &mut batch.unconfirmed);
            batch.messages.drain(..).for_each(|(subject, payload)| hand_over(&up.client, subject, payload));
            self.end(up.number, &batch);
        }
    }

    /// Takes what can be sent now. Returns the connection, or `None` if there is nothing to send.
    fn begin(&self, batch: &mut Batch) -> Option<Up> {
        let mut queue = self.queue.lock();
        if queue.sending {
            return None;
        }
        let Connection::Up(up) = &queue.connection else { return None };
        let up = up.clone();
        queue.fill(batch);
        batch.is_limited = queue.permissions.is_limited();
        queue.sending = !batch.is_empty();
        queue.sending.then_some(up)
    }

    /// Keeps frames until they are confirmed, or the connection is lost.
    fn await_confirmation(&self, number: u64, frames: &mut Vec<Unconfirmed>) {
        if frames.is_empty() {
            return;
        }
        let mut queue = self.queue.lock();
        if queue.connection.is(number) {
            return queue.permissions.sending(frames);
        }
        drop(queue);
        frames.drain(..).for_each(|frame| frame.receipt.failed(self.lost_frame()));
    }

    /// What was taken has been handed over.
    fn end(&self, number: u64, batch: &Batch) {
        let mut wakes = WakeList::new();
        let mut queue = self.queue.lock();
        queue.sending = false;
        // The receipts of what was lost meanwhile were told so.
        if !queue.connection.is(number) {
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

    /// Encodes a large frame elsewhere, so that it holds up the frames of its own channel alone.
    fn encode_in_task(self: &Arc<Self>, frame: QueuedFrame, number: u64) {
        let mut task = Encoding { publisher: Arc::clone(self), frame: Some(frame), number };
        self.runtime.spawn(Box::pin(async move { task.run() }));
    }

    /// A large frame was encoded, or could not be. It takes its place again, and so do the frames
    /// that waited for it.
    fn encoded(self: &Arc<Self>, frame: QueuedFrame, number: u64) {
        let mut queue = self.queue.lock();
        if !queue.connection.is(number) {
            let lost = self.lost_frame();
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

    fn lost_frame(&self) -> BusError {
        Failure::Lost { servers: self.servers.clone() }.into()
    }

    // --- the connection --------------------------------------------------------------------------

    /// There is a connection, with this number.
    pub(crate) fn connected(self: &Arc<Self>, client: Client, number: u64) {
        let max_payload = client.max_payload();
        self.queue.lock().connection = Connection::Up(Up { client, max_payload, number });
    }

    /// The connection was lost.
    pub(crate) fn lost(&self, cause: &str) {
        self.disconnect(Connection::Down(cause.to_owned()), &self.lost_frame());
    }

    /// Fails all frames from here on.
    pub(crate) fn stop(&self) {
        self.disconnect(Connection::Stopped, &Failure::Stopped.into());
    }

    fn disconnect(&self, connection: Connection, cause: &BusError) {
        let mut wakes = WakeList::new();
        let mut queue = self.queue.lock();
        let replaced = std::mem::replace(&mut queue.connection, connection);
        let held_back = std::mem::take(&mut queue.held_back).into_values().flatten();
        let frames: Vec<_> = queue.frames.drain(..).chain(held_back).collect();
        let unconfirmed = queue.permissions.lost();
        (queue.handed, queue.flushing) = (Size::default(), Size::default());
        let bytes = queue.bytes;
        queue.release(bytes, self.limit, &mut wakes);
        drop(queue);
        // It may wake a task of the client library.
        drop(replaced);
        frames.into_iter().for_each(|frame| frame.fail(cause.clone()));
        unconfirmed.into_iter().for_each(|frame| frame.receipt.failed(cause.clone()));
    }

    /// Begins a flush, if one is needed. To be called once the one before has
    /// [ended](Self::flushed).
    pub(crate) fn begin_flush(&self) -> bool {
        let mut queue = self.queue.lock();
        let is_needed = queue.needs_flush();
        if is_needed {
            queue.flushing = std::mem::take(&mut queue.handed);
        }
        is_needed
    }

    /// The client library has written what it had when the flush began.
    pub(crate) fn flushed(self: &Arc<Self>) {
        self.queue.lock().flushing = Size::default();
        self.send();
    }

    // --- round trips -----------------------------------------------------------------------------

    /// A round is about to begin. Returns `true` if it is about any frame.
    pub(crate) fn begin_round(&self) -> bool {
        self.queue.lock().permissions.begin()
    }

    /// The round has ended.
    pub(crate) fn end_round(self: &Arc<Self>) {
        let confirmed = self.queue.lock().permissions.confirm();
        confirmed.into_iter().for_each(|frame| frame.receipt.published(None));
        // Frames may have waited for that.
        self.send();
    }

    /// The server has refused a frame. Returns `true` if few refusals like this one can come at a
    /// time.
    pub(crate) fn refused(self: &Arc<Self>, subject: &str, text: &str) -> bool {
        let (refused, is_expected) = self.queue.lock().permissions.refuse(subject);
        for frame in refused {
            let (servers, subject) = (self.servers.clone(), subject.to_owned());
            let failure = Failure::PublishRefused { servers, subject, text: text.to_owned() };
            frame.receipt.failed(failure.into());
        }
        // Frames may have waited for that.
        self.send();
        is_expected
    }

    /// Returns `true` if every frame was handed to the client library.
    pub(crate) fn is_idle(&self) -> bool {
        let queue = self.queue.lock();
        queue.bytes == 0 || !matches!(queue.connection, Connection::Up(_))
    }
}

impl Wake for Publisher {
    /// Sends the queued frames, or spawns a task that does so once other tasks have added theirs.
    fn wake(self: Arc<Self>) {
        let now = self.runtime.now().time;
        if !self.queue.lock().pace.gathers(now) {
            return self.send();
        }
        let publisher = Arc::clone(&self);
        self.runtime.spawn(Box::pin(async move {
            yield_now().await;
            let mut queue = publisher.queue.lock();
            let gathered = queue.frames.len();
            queue.pace.gathered(gathered);
            drop(queue);
            publisher.send();
        }));
    }
}

impl Connection {
    fn is(&self, number: u64) -> bool {
        matches!(self, Connection::Up(up) if up.number == number)
    }
}

impl Queue {
    /// Takes frames for as long as there is room for them at the client library, and as many
    /// unconfirmed ones as may be.
    fn fill(&mut self, batch: &mut Batch) {
        batch.bytes = 0;
        let mut unconfirmed = self.permissions.room();
        while let Some(frame) = self.frames.front()
            && batch.frames.len() < BATCH
            && !self.is_unwritten_full()
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
                self.handed.bytes += frame.bytes;
                self.handed.frames += 1;
                batch.bytes += frame.bytes;
                batch.frames.push(frame);
            }
        }
    }

    fn is_unwritten_full(&self) -> bool {
        self.handed.bytes + self.flushing.bytes >= MOST_UNWRITTEN.bytes
            || self.handed.frames + self.flushing.frames >= MOST_UNWRITTEN.frames
    }

    fn needs_flush(&self) -> bool {
        let is_much = self.handed.bytes >= FLUSH_AFTER.bytes || self.handed.frames >= FLUSH_AFTER.frames;
        is_much && self.flushing.frames == 0
    }

    /// Makes room of what was handed over, or has failed.
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

/// What is sent at a time.
#[derive(Default)]
struct Batch {
    frames: Vec<QueuedFrame>,
    /// The large frames, which are encoded elsewhere first.
    large: Vec<QueuedFrame>,
    /// How much the frames count for.
    bytes: usize,
    messages: Vec<(Subject, Bytes)>,
    /// The frames whose result is not known. They wait for their confirmation from before they are
    /// handed over, so that a refusal finds them however soon it comes.
    unconfirmed: Vec<Unconfirmed>,
    is_limited: bool,
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.frames.is_empty() && self.large.is_empty()
    }

    /// Makes messages of the frames. One that the server would not take fails.
    fn encode(&mut self, up: &Up, compression: Option<Compression>) {
        for mut frame in self.frames.drain(..) {
            frame.encode(compression);
            let (subject, limit) = (frame.subject.clone(), up.max_payload);
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

/// Hands a message to the client library, which has room for it: no more is handed over before it
/// has written.
fn hand_over(client: &Client, subject: Subject, payload: Bytes) {
    // Whatever tokio thinks of this task's share.
    let publish = pin!(unconstrained(client.publish(subject, payload)));
    let handed = publish.poll(&mut Context::from_waker(Waker::noop()));
    // It fails if the connection was lost, which the bus's task notices by itself.
    debug_assert!(handed.is_ready(), "the client library has room");
}

/// The task that encodes one large frame.
struct Encoding {
    publisher: Arc<Publisher>,
    frame: Option<QueuedFrame>,
    /// The number of the connection.
    number: u64,
}

impl Encoding {
    fn run(&mut self) {
        let frame = self.frame.as_mut().expect("it is taken at the end alone");
        frame.encode(self.publisher.compression);
    }
}

impl Drop for Encoding {
    /// Hands the frame back in any case, since others wait for it.
    fn drop(&mut self) {
        let Some(mut frame) = self.frame.take() else { return };
        if let Content::Frame(_) = frame.content {
            frame.content = Content::Failed;
        }
        self.publisher.encoded(frame, self.number);
    }
}
