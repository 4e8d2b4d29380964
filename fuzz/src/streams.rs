//! Invariants of the streams of an engine, on either side.

use std::collections::BTreeMap;
use std::time::Duration;

use psrpc_engine::proto::FrameLimits;
use psrpc_engine::{
    Engine, Now, PendingMessage, SendError, SendHandle, SlowConsumer, StreamConfig, StreamEvent,
    StreamHandle, StreamLimits, Time,
};

use crate::input::Input;
use crate::peer;

/// Low limits, which short inputs can exceed.
pub const LIMITS: StreamLimits = StreamLimits {
    streams: 3,
    unread_per_stream: 3,
    held_per_stream: 2,
    held_bytes_per_stream: 8,
    held: 3,
    held_bytes: 12,
    sends_per_stream: 2,
    waiting_per_stream: 2,
    remembered: 6,
};

/// Generates the stream configuration.
pub fn config(input: &mut Input<'_>) -> StreamConfig {
    let idle_timeout = input.flag().then(|| Duration::from_millis(1 + u64::from(input.byte()) * 10));
    let policies = [SlowConsumer::HoldBack, SlowConsumer::Discard, SlowConsumer::Close];
    let slow_consumer = policies[usize::from(input.byte()) % policies.len()];
    StreamConfig { idle_timeout, slow_consumer }
}

/// The number of kinds of steps on streams ([`Streams::step`]).
pub const STEPS: u8 = 6;

/// The streams as the user sees them.
#[derive(Default)]
pub struct Streams {
    open: BTreeMap<StreamHandle, usize>,
    /// The handles of all streams so far, since stale handles may be used.
    handles: Vec<StreamHandle>,
    sends: BTreeMap<SendHandle, Send>,
    deliveries: Vec<PendingMessage>,
}

struct Send {
    stream: StreamHandle,
    deadline: Time,
}

impl Streams {
    /// Records an opened stream.
    pub fn opened(&mut self, stream: StreamHandle) {
        assert!(self.open.insert(stream, 0).is_none(), "a stream opens once");
        self.handles.push(stream);
    }

    /// Returns the number of open streams.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Returns `true` if the stream is open.
    pub fn is_open(&self, stream: StreamHandle) -> bool {
        self.open.contains_key(&stream)
    }

    /// Returns the number of messages in flight.
    pub fn sending(&self) -> usize {
        self.sends.len()
    }

    /// Picks one of all streams so far.
    pub fn pick(&self, input: &mut Input<'_>) -> Option<StreamHandle> {
        input.pick(&self.handles)
    }

    /// Runs one of [`STEPS`] kinds of steps on streams. All events must have been taken before.
    pub fn step(&mut self, engine: &mut impl Engine, now: Now, kind: u8, input: &mut Input<'_>) {
        match kind {
            0 | 1 => {
                let Some(stream) = self.pick(input) else { return };
                let timeout = Duration::from_millis(1 + u64::from(input.byte()) * 8);
                let payload = peer::payload(input);
                let before = self.sends.values().filter(|send| send.stream == stream).count();
                match engine.stream_commands().send(now, stream, payload, Some(timeout)) {
                    Ok(send) => {
                        let limit = LIMITS.sends_per_stream + LIMITS.waiting_per_stream;
                        assert!(self.is_open(stream) && before < limit);
                        let send = self.sends.insert(send, Send { stream, deadline: now.time + timeout });
                        assert!(send.is_none());
                    }
                    Err(SendError::Ended) => assert!(!self.is_open(stream)),
                    Err(SendError::TooMany { limit }) => assert!(before > limit),
                    Err(_) => {}
                }
            }
            2 => {
                let sends: Vec<_> = self.sends.keys().copied().collect();
                if let Some(send) = input.pick(&sends) {
                    engine.stream_commands().cancel_send(now, send);
                    self.sends.remove(&send);
                }
            }
            3 | 4 => {
                let Some(at) = usize::from(input.byte()).checked_rem(self.deliveries.len()) else { return };
                let delivery = self.deliveries.remove(at);
                let stream = delivery.stream();
                let accepted = !input.one_in(4);
                if accepted {
                    engine.stream_commands().accept(now, delivery);
                    if engine.stream_commands().taken(stream) {
                        engine.stream_commands().release(now, stream);
                    }
                } else {
                    let cause = input.flag().then(|| peer::error(input));
                    engine.stream_commands().reject(now, delivery, cause);
                }
                if let Some(unread) = self.open.get_mut(&stream) {
                    *unread -= 1;
                }
            }
            _ => {
                if let Some(stream) = self.pick(input) {
                    let cause = input.flag().then(|| peer::error(input));
                    engine.stream_commands().close(now, stream, cause);
                }
            }
        }
    }

    /// Records an event of a stream.
    pub fn on_event(&mut self, event: StreamEvent) {
        match event {
            StreamEvent::Message { delivery, payload } => {
                let unread = self.open.get_mut(&delivery.stream()).expect("messages come on open streams");
                *unread += 1;
                assert!(*unread <= LIMITS.unread_per_stream);
                assert!(payload.len() <= FrameLimits::DEFAULT.frame_bytes);
                self.deliveries.push(delivery);
            }
            StreamEvent::Sent { send, outcome } => {
                let sent = self.sends.remove(&send).expect("a send ends once");
                assert!(self.is_open(sent.stream), "the sends of a stream end before it does");
                if let Err(failure) = outcome {
                    assert!(!failure.to_string().is_empty());
                }
            }
            StreamEvent::Ended { stream, .. } => {
                assert!(self.open.remove(&stream).is_some(), "a stream ends once");
                assert!(self.sends.values().all(|send| send.stream != stream), "its sends end before it");
            }
            _ => {}
        }
    }

    /// Checks the deadlines after time has passed.
    pub fn check(&self, now: Now) {
        assert!(self.sends.values().all(|send| send.deadline > now.time), "a send ends by its deadline");
    }
}
