//! The streams of one driver: events of the engine, queued for the tasks that wait for them.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use psrpc_engine::{Failure, PendingMessage, SendHandle, StreamEvent, StreamHandle};
use slab::Slab;

use super::codec::Codec;
use super::received::{Place, ReceivedMessages};
use crate::cancellation::CancellationToken;
use crate::info::CallInfo;
use crate::message::AnyMessage;
use crate::waiting;
use crate::waiting::{WaiterKey, Waiters};

/// The streams of one driver, and the tasks that wait for them.
#[derive(Default)]
pub(crate) struct StreamTable {
    slots: Slab<Slot>,
    /// The keys of the slots of streams that the engine has, by the index of the stream handle.
    streams: Vec<Option<(StreamHandle, usize)>>,
    senders: Slab<Sender>,
    /// The keys of the senders, by the index of the send handle.
    sends: Vec<Option<usize>>,
}

/// A stream that user code holds or whose handler runs.
struct Slot {
    stream: StreamHandle,
    codec: Arc<Codec>,
    messages: ReceivedMessages,
    /// Tasks that wait for a message, or for the end after the last one.
    receivers: Waiters,
    /// Tasks that wait for the end only.
    watchers: Waiters,
    cause: Option<Box<Failure>>,
    /// Whether user code holds the stream.
    held: bool,
    /// Cancels the handler, at a server.
    handler: Option<Arc<CancellationToken>>,
    hijacked: bool,
}

/// The event that a task waits for.
#[derive(Clone, Copy)]
pub(crate) enum Awaited {
    Message,
    End,
}

/// A task that waits for the outcome of a send.
struct Sender {
    send: SendHandle,
    outcome: Option<Result<(), Box<Failure>>>,
    waker: Option<Waker>,
}

/// A message to decode.
pub(crate) struct IncomingMessage {
    pub(crate) delivery: PendingMessage,
    pub(crate) payload: Bytes,
    pub(crate) at: IncomingPlace,
}

/// Where a message goes once it is decoded.
#[derive(Clone, Copy)]
pub(crate) struct IncomingPlace {
    stream: StreamHandle,
    /// The key of the stream's slot.
    key: usize,
    place: Place,
}

/// Work for streams, to be done after the lock is released.
pub(crate) enum StreamTask {
    /// Decode and accept a message.
    Message(IncomingMessage, Arc<Codec>),
    /// Reject a message whose stream is no longer held.
    Reject(PendingMessage),
    Ended(Arc<Codec>, Box<Failure>),
    Wake(Waker),
}

/// Whether a stream stays open after user code has dropped it or its handler has returned.
pub(crate) enum StreamUse {
    /// It stays open: its handler runs, or user code holds the hijacked stream.
    InUse,
    /// It ends.
    Unused,
}

impl StreamTable {
    /// Adds a slot for an open stream, and returns its key.
    pub(crate) fn open(
        &mut self,
        stream: StreamHandle,
        codec: Arc<Codec>,
        handler: Option<Arc<CancellationToken>>,
    ) -> usize {
        let slot = Slot {
            stream,
            codec,
            messages: ReceivedMessages::default(),
            receivers: Waiters::default(),
            watchers: Waiters::default(),
            cause: None,
            held: true,
            handler,
            hijacked: false,
        };
        let key = self.slots.insert(slot);
        insert_at(&mut self.streams, stream.index(), (stream, key));
        key
    }

    pub(crate) fn on_event(&mut self, event: StreamEvent, tasks: &mut impl FnMut(StreamTask)) {
        match event {
            StreamEvent::Message { delivery, payload } => {
                let key = self.find(delivery.stream()).filter(|key| self.slots[*key].held);
                let Some(key) = key else { return tasks(StreamTask::Reject(delivery)) };
                let slot = &mut self.slots[key];
                let at = IncomingPlace { stream: delivery.stream(), key, place: slot.messages.reserve() };
                let message = IncomingMessage { delivery, payload, at };
                tasks(StreamTask::Message(message, Arc::clone(&slot.codec)));
            }
            StreamEvent::Sent { send, outcome } => {
                // A send that was dropped has no sender.
                if let Some(sender) = self.sends.get_mut(send.index()).and_then(Option::take) {
                    let sender = &mut self.senders[sender];
                    sender.outcome = Some(outcome);
                    sender.waker.take().map(StreamTask::Wake).into_iter().for_each(tasks);
                }
            }
            StreamEvent::Ended { stream, cause } => {
                let Some(key) = self.find(stream) else { return };
                let slot = &mut self.slots[key];
                tasks(StreamTask::Ended(Arc::clone(&slot.codec), cause.clone()));
                slot.cause = Some(cause);
                slot.receivers.take().chain(slot.watchers.take()).map(StreamTask::Wake).for_each(tasks);
                if !slot.held && slot.handler.is_none() {
                    self.slots.remove(key);
                    self.streams[stream.index()] = None;
                }
            }
            _ => {}
        }
    }

    fn find(&self, stream: StreamHandle) -> Option<usize> {
        let (handle, key) = self.streams.get(stream.index()).copied().flatten()?;
        (handle == stream).then_some(key)
    }

    // --- messages in -----------------------------------------------------------------------------

    /// Queues a decoded message, and returns the tasks to wake. Returns the message if the stream
    /// has no consumer.
    pub(crate) fn push(&mut self, at: IncomingPlace, message: AnyMessage) -> Result<Vec<Waker>, AnyMessage> {
        match self.slot_of(at) {
            Some(slot) if slot.held => Ok(match slot.messages.fill(at.place, message) {
                true => slot.receivers.take().collect(),
                false => Vec::new(),
            }),
            _ => Err(message),
        }
    }

    /// Records that a message was rejected. Returns the tasks to wake, since it may have been the
    /// last message before the end.
    pub(crate) fn message_rejected(&mut self, at: IncomingPlace) -> Vec<Waker> {
        let Some(slot) = self.slot_of(at) else { return Vec::new() };
        slot.messages.reject(at.place);
        slot.receivers.take().collect()
    }

    /// Returns the slot of a message. Looks it up by its key, since the stream may have ended and
    /// its index may have been reused.
    fn slot_of(&mut self, at: IncomingPlace) -> Option<&mut Slot> {
        self.slots.get_mut(at.key).filter(|slot| slot.stream == at.stream)
    }

    /// Returns the next message, or `None` once the stream has ended and all messages were taken.
    /// Also returns a waker to drop after the lock is released.
    pub(crate) fn poll_message(
        &mut self,
        key: usize,
        waiter: &mut WaiterKey,
        cx: &Context<'_>,
    ) -> (Poll<Option<AnyMessage>>, Option<Waker>) {
        let slot = &mut self.slots[key];
        match slot.messages.pop() {
            Some(message) => (Poll::Ready(Some(message)), slot.receivers.remove(waiter)),
            None if slot.cause.is_some() && slot.messages.is_empty() => {
                (Poll::Ready(None), slot.receivers.remove(waiter))
            }
            None => (Poll::Pending, slot.receivers.wait(waiter, cx)),
        }
    }

    pub(crate) fn cause(&self, key: usize) -> Option<Box<Failure>> {
        self.slots[key].cause.clone()
    }

    /// Returns why the stream has ended, once it has, and a waker to drop after the lock is
    /// released.
    pub(crate) fn poll_ended(
        &mut self,
        key: usize,
        waiter: &mut WaiterKey,
        cx: &Context<'_>,
    ) -> (Poll<Box<Failure>>, Option<Waker>) {
        let slot = &mut self.slots[key];
        match &slot.cause {
            Some(cause) => (Poll::Ready(cause.clone()), slot.watchers.remove(waiter)),
            None => (Poll::Pending, slot.watchers.wait(waiter, cx)),
        }
    }

    /// Removes the waker of a task. Returns it, to drop after the lock is released.
    pub(crate) fn remove_waiter(
        &mut self,
        key: usize,
        awaited: Awaited,
        waiter: &mut WaiterKey,
    ) -> Option<Waker> {
        let slot = &mut self.slots[key];
        match awaited {
            Awaited::Message => slot.receivers.remove(waiter),
            Awaited::End => slot.watchers.remove(waiter),
        }
    }

    // --- messages out ----------------------------------------------------------------------------

    pub(crate) fn start_send(&mut self, send: SendHandle) -> usize {
        let sender = self.senders.insert(Sender { send, outcome: None, waker: None });
        insert_at(&mut self.sends, send.index(), sender);
        sender
    }

    /// Returns the outcome of a send, once it has ended, and a waker to drop after the lock is
    /// released.
    pub(crate) fn poll_sent(
        &mut self,
        sender: usize,
        cx: &Context<'_>,
    ) -> (Poll<Result<(), Box<Failure>>>, Option<Waker>) {
        let waiting = &mut self.senders[sender];
        match waiting.outcome.take() {
            Some(outcome) => {
                let Sender { waker, .. } = self.senders.remove(sender);
                (Poll::Ready(outcome), waker)
            }
            None => (Poll::Pending, waiting::replace(&mut waiting.waker, cx)),
        }
    }

    /// Removes the sender of a send that was dropped. Returns the send, if it is still in flight.
    pub(crate) fn remove_send(&mut self, sender: usize) -> (Option<SendHandle>, Option<Waker>) {
        let Sender { send, outcome, waker } = self.senders.remove(sender);
        if outcome.is_some() {
            return (None, waker);
        }
        self.sends[send.index()] = None;
        (Some(send), waker)
    }

    // --- the end ---------------------------------------------------------------------------------

    /// Keeps the stream open after its handler has returned.
    pub(crate) fn hijack(&mut self, key: usize) {
        self.slots[key].hijacked = true;
    }

    /// Releases a stream that user code has dropped.
    pub(crate) fn release(&mut self, key: usize) -> (StreamUse, DiscardedStream) {
        let slot = &mut self.slots[key];
        slot.held = false;
        let mut discarded = DiscardedStream::of(slot);
        if slot.handler.is_some() {
            return (StreamUse::InUse, discarded);
        }
        discarded.slot = self.remove_ended(key);
        (StreamUse::Unused, discarded)
    }

    /// Releases a stream whose handler has returned.
    pub(crate) fn handler_done(&mut self, key: usize, failed: bool) -> (StreamUse, DiscardedStream) {
        let slot = &mut self.slots[key];
        let mut discarded = DiscardedStream { handler: slot.handler.take(), ..DiscardedStream::default() };
        let (held, in_use) = (slot.held, slot.held && slot.hijacked && !failed);
        if !held {
            discarded.slot = self.remove_ended(key);
        }
        (if in_use { StreamUse::InUse } else { StreamUse::Unused }, discarded)
    }

    /// Removes the slot of an unused stream if the stream has ended.
    fn remove_ended(&mut self, key: usize) -> Option<Slot> {
        self.slots[key].cause.as_ref()?;
        let slot = self.slots.remove(key);
        if self.find(slot.stream) == Some(key) {
            self.streams[slot.stream.index()] = None;
        }
        Some(slot)
    }

    /// Returns the service, method and topic of a stream.
    pub(crate) fn info(&self, stream: StreamHandle) -> Option<&CallInfo> {
        Some(self.slots[self.find(stream)?].codec.info())
    }

    /// Returns the token that cancels the handler of a stream.
    pub(crate) fn stop_handler(&mut self, stream: StreamHandle) -> Option<Arc<CancellationToken>> {
        let slot = self.slots.get(self.find(stream)?)?;
        slot.handler.clone()
    }
}

/// Values to drop after the lock is released, since they may have user-defined destructors.
#[derive(Default)]
#[expect(dead_code, reason = "it is only dropped")]
pub(crate) struct DiscardedStream {
    messages: ReceivedMessages,
    waiting: [Waiters; 2],
    handler: Option<Arc<CancellationToken>>,
    slot: Option<Slot>,
}

impl DiscardedStream {
    fn of(slot: &mut Slot) -> Self {
        let messages = std::mem::take(&mut slot.messages);
        let waiting = [&mut slot.receivers, &mut slot.watchers].map(std::mem::take);
        Self { messages, waiting, ..Self::default() }
    }
}

fn insert_at<T>(slots: &mut Vec<Option<T>>, index: usize, value: T) {
    if slots.len() <= index {
        slots.resize_with(index + 1, || None);
    }
    slots[index] = Some(value);
}
