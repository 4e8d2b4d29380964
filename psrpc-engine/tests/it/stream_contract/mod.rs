//! Property tests of the driving contract for multi calls, streams and updates: nothing panics, no
//! timer is due after it was handled (I18), every operation ends exactly once and by its deadline
//! (I1), no message is delivered twice (I7), and no state remains at the end (I9).

mod client;
mod server;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::Index;
use psrpc_engine::proto::{ErrorCode, ErrorResponse, Frame, Stream, StreamBody, Text};
use psrpc_engine::{
    Engine, PendingMessage, Route, SendHandle, SlowConsumer, StreamConfig, StreamEvent, StreamHandle,
    StreamLimits, SubscriptionHandle, Time,
};

use crate::fixture::{EPOCH, QUEUE, SINGLE, ms};
use crate::steps::Run;

const LIMITS: StreamLimits = StreamLimits {
    streams: 4,
    unread_per_stream: 3,
    held_per_stream: 2,
    held: 4,
    sends_per_stream: 3,
    waiting_per_stream: 3,
    remembered: 12,
    ..StreamLimits::DEFAULT
};

/// Generates a stream configuration.
fn stream_configs() -> impl Strategy<Value = StreamConfig> {
    let policies =
        [SlowConsumer::HoldBack, SlowConsumer::HoldBack, SlowConsumer::Discard, SlowConsumer::Close];
    let idle = prop::option::of(Just(ms(1500)));
    (idle, prop::sample::select(policies.to_vec()))
        .prop_map(|(idle_timeout, slow_consumer)| StreamConfig { idle_timeout, slow_consumer })
}

fn claimed() -> Route {
    Route::stream::<&str>("Hats", "Parade", QUEUE, &[]).unwrap()
}

fn unclaimed() -> Route {
    Route::stream::<&str>("Hats", "OwnerParade", SINGLE, &[]).unwrap()
}

fn cause() -> ErrorResponse {
    ErrorResponse::new(ErrorCode::Aborted, "enough")
}

/// A step that applies to the streams of clients and servers alike.
#[derive(Clone, Debug)]
enum StreamStep {
    Send(Index, u64),
    CancelSend(Index),
    Accept(Index),
    Reject(Index, bool),
    Taken(Index),
    Close(Index),
    /// The other side sends a frame: stream, request id, body.
    Receive(Index, Index, Body),
}

#[derive(Clone, Copy, Debug)]
enum Body {
    /// An ack of a frame that we sent.
    Ack,
    /// The message with this number, possibly a duplicate.
    Message(u8),
    Close,
    Missing,
}

fn stream_steps() -> impl Strategy<Value = StreamStep> {
    let body = prop_oneof![
        6 => Just(Body::Ack),
        8 => (0..6u8).prop_map(Body::Message),
        1 => Just(Body::Close),
        1 => Just(Body::Missing),
    ];
    prop_oneof![
        4 => (any::<Index>(), 0..3000u64).prop_map(|(stream, timeout)| StreamStep::Send(stream, timeout)),
        1 => any::<Index>().prop_map(StreamStep::CancelSend),
        4 => any::<Index>().prop_map(StreamStep::Accept),
        1 => any::<(Index, bool)>().prop_map(|(delivery, ends)| StreamStep::Reject(delivery, ends)),
        3 => any::<Index>().prop_map(StreamStep::Taken),
        1 => any::<Index>().prop_map(StreamStep::Close),
        12 => (any::<Index>(), any::<Index>(), body).prop_map(|(stream, id, body)| StreamStep::Receive(stream, id, body)),
    ]
}

/// The user of the streams on either side.
#[derive(Default)]
struct StreamUser {
    streams: Vec<StreamHandle>,
    deliveries: Vec<PendingMessage>,
    /// Sends, each with its deadline, or `None` if it was canceled.
    sends: BTreeMap<SendHandle, Option<Time>>,
    sent: BTreeMap<SendHandle, u32>,
    ended: BTreeMap<StreamHandle, u32>,
    messages: BTreeSet<Bytes>,
    jumped: bool,
}

impl StreamUser {
    fn record(&mut self, event: StreamEvent) {
        match event {
            StreamEvent::Message { delivery, payload } => {
                assert!(!self.ended.contains_key(&delivery.stream()), "no event after the end");
                let first = self.messages.insert(payload);
                assert!(first || self.jumped, "a message is delivered once (I7)");
                self.deliveries.push(delivery);
            }
            StreamEvent::Sent { send, .. } => *self.sent.entry(send).or_default() += 1,
            StreamEvent::Ended { stream, .. } => *self.ended.entry(stream).or_default() += 1,
            other => panic!("{other:?}"),
        }
    }

    /// Asserts that every send past its deadline has ended once, and that no stream has ended
    /// twice.
    fn check(&self, now: Time) {
        for (send, deadline) in &self.sends {
            let ended = self.sent.get(send).copied().unwrap_or_default();
            match deadline {
                Some(deadline) if *deadline <= now => assert_eq!(ended, 1, "{send:?} ends by its deadline"),
                Some(_) => assert!(ended <= 1, "{send:?} ends once"),
                None => {}
            }
        }
        assert!(self.ended.values().all(|times| *times == 1), "a stream ends once");
    }
}

fn pick<T: Clone>(items: &[T], index: &Index) -> Option<T> {
    (!items.is_empty()).then(|| index.get(items).clone())
}

/// Returns the stream id and the request id of each published stream frame.
fn published(frames: &[Frame]) -> Vec<(Text, Text)> {
    let frames = frames.iter().filter_map(|frame| match frame {
        Frame::Stream(stream) => Some((stream.stream_id.clone(), stream.request_id.clone())),
        _ => None,
    });
    frames.collect()
}

/// Applies a step to the streams of one side. `ids` are the stream ids that the other side may use.
fn step<E: Engine>(
    run: &mut Run<E>,
    user: &mut StreamUser,
    stream_channel: SubscriptionHandle,
    ids: &[Text],
    step: &StreamStep,
) where
    E::Event: std::fmt::Debug,
{
    match step {
        StreamStep::Send(index, timeout) => {
            let Some(stream) = pick(&user.streams, index) else { return };
            if let Ok(send) = run.engine.stream_commands().send(run.now, stream, "ours", Some(ms(*timeout))) {
                user.sends.insert(send, Some(run.now.time + ms(*timeout)));
            }
        }
        StreamStep::CancelSend(index) => {
            let sends: Vec<_> = user.sends.keys().copied().collect();
            let Some(send) = pick(&sends, index) else { return };
            run.engine.stream_commands().cancel_send(run.now, send);
            user.sends.insert(send, None);
        }
        StreamStep::Accept(index) | StreamStep::Reject(index, _) => {
            if user.deliveries.is_empty() {
                return;
            }
            let delivery = user.deliveries.swap_remove(index.index(user.deliveries.len()));
            let mut streams = run.engine.stream_commands();
            match step {
                StreamStep::Reject(_, ends) => streams.reject(run.now, delivery, ends.then(cause)),
                _ => streams.accept(run.now, delivery),
            }
        }
        StreamStep::Taken(index) => {
            let Some(stream) = pick(&user.streams, index) else { return };
            if run.engine.stream_commands().taken(stream) {
                run.engine.stream_commands().release(run.now, stream);
            }
        }
        StreamStep::Close(index) => {
            let Some(stream) = pick(&user.streams, index) else { return };
            run.engine.stream_commands().close(run.now, stream, Some(cause()));
        }
        StreamStep::Receive(index, id, body) => {
            let stream_id = pick(ids, index).unwrap_or_else(|| "STR_none".into());
            let ours = published(&run.frames).into_iter().filter(|(of, _)| *of == stream_id);
            let ours: Vec<_> = ours.map(|(_, request_id)| request_id).collect();
            // Duplicates of a message have the same times.
            let (request_id, sent_at, body) = match body {
                Body::Ack => (pick(&ours, id).unwrap_or_default(), EPOCH, Some(StreamBody::Ack)),
                Body::Message(number) => {
                    let payload = Bytes::from(format!("{stream_id}: {number}"));
                    let sent_at = EPOCH + i64::from(*number) * 1_000_000_000;
                    (format!("REQ_{number}").into(), sent_at, Some(StreamBody::Message { payload }))
                }
                Body::Close => {
                    let close = StreamBody::Close { code: ErrorCode::Aborted, text: "done".into() };
                    ("REQ_close".into(), EPOCH, Some(close))
                }
                Body::Missing => ("REQ_missing".into(), EPOCH, None),
            };
            let expiry = sent_at + 5_000_000_000;
            let frame = Stream { stream_id, request_id, sent_at, expiry, body };
            run.engine.handle_frame(run.now, stream_channel, Frame::Stream(frame));
        }
    }
}
