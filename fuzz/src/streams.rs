//! What must be true of the streams of an engine, whichever side it is.

use std::collections::BTreeMap;
use std::time::Duration;

use psrpc_engine::proto::FrameLimits;
use psrpc_engine::{
    Engine, Now, PendingMessage, SendError, SendHandle, SlowConsumer, StreamConfig, StreamEvent,
    StreamHandle, StreamLimits, Time,
};

use crate::input::Input;
use crate::peer;

/// So tight that short inputs go beyond them.
pub const LIMITS: StreamLimits =
    StreamLimits { streams: 3, unread_per_stream: 3, sends_per_stream: 2, remembered: 6 };

/// How the streams of a run behave.
pub fn config(input: &mut Input<'_>) -> StreamConfig {
    let idle_timeout = input.flag().then(|| Duration::from_millis(1 + u64::from(input.byte()) * 10));
    let slow_consumer = if input.flag() { SlowConsumer::Close } else { SlowConsumer::Discard };
    StreamConfig { idle_timeout, slow_consumer }
}

/// How many of the kinds of steps are those of streams ([`Streams::step`]).
pub const STEPS: u8 = 6;

/// The streams as their user sees them.
#[derive(Default)]
pub struct Streams {
    open: BTreeMap<StreamHandle, usize>,
    /// Every stream there ever was, since stale handles may be used.
    handles: Vec<StreamHandle>,
    sends: BTreeMap<SendHandle, Send>,
    deliveries: Vec<PendingMessage>,
}

struct Send {
    stream: StreamHandle,
    deadline: Time,
}

impl Streams {
    /// A stream is open.
    pub fn opened(&mut self, stream: StreamHandle) {
        assert!(self.open.insert(stream, 0).is_none(), "a stream opens once");
        self.handles.push(stream);
    }

    /// How many streams are open.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether a stream is open.
    pub fn is_open(&self, stream: StreamHandle) -> bool {
        self.open.contains_key(&stream)
    }

    /// How many messages are on their way.
    pub fn sending(&self) -> usize {
        self.sends.len()
    }

    /// One of all streams there ever were.
    pub fn pick(&self, input: &mut Input<'_>) -> Option<StreamHandle> {
        input.pick(&self.handles)
    }

    /// A step of a user of streams, of [`STEPS`] kinds. All events were seen before.
    pub fn step(&mut self, engine: &mut impl Engine, now: Now, kind: u8, input: &mut Input<'_>) {
        match kind {
            0 | 1 => {
                let Some(stream) = self.pick(input) else { return };
                let timeout = Duration::from_millis(1 + u64::from(input.byte()) * 8);
                let payload = peer::payload(input);
                let before = self.sends.values().filter(|send| send.stream == stream).count();
                match engine.stream_commands().send(now, stream, payload, Some(timeout)) {
                    Ok(send) => {
                        assert!(self.is_open(stream) && before < LIMITS.sends_per_stream);
                        let send = self.sends.insert(send, Send { stream, deadline: now.time + timeout });
                        assert!(send.is_none());
                    }
                    Err(SendError::Ended) => assert!(!self.is_open(stream)),
                    Err(SendError::TooMany { .. }) => assert_eq!(before, LIMITS.sends_per_stream),
                    Err(_) => {}
                }
            }
            2 => {
                let sends: Vec<_> = self.sends.keys().copied().collect();
                if let Some(send) = input.pick(&sends) {
                    engine.stream_commands().cancel_send(send);
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
                    engine.stream_commands().taken(stream);
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

    /// Something happened to a stream.
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

    /// Time has passed.
    pub fn check(&self, now: Now) {
        assert!(self.sends.values().all(|send| send.deadline > now.time), "a send ends by its deadline");
    }
}
