//! The driving contract once more, for multi calls, streams and updates: nothing panics, no timer
//! is due after it was handled (I18), everything that begins ends exactly once and by its deadline
//! (I1), no message is delivered twice (I7), and nothing is left behind (I9).

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

const LIMITS: StreamLimits =
    StreamLimits { streams: 4, unread_per_stream: 3, sends_per_stream: 3, remembered: 12 };

fn streams(idle: bool, close: bool) -> StreamConfig {
    StreamConfig {
        idle_timeout: idle.then(|| ms(1500)),
        slow_consumer: if close { SlowConsumer::Close } else { SlowConsumer::Discard },
    }
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

/// What can happen to the streams of either side.
#[derive(Clone, Debug)]
enum OnStream {
    Send(Index, u64),
    CancelSend(Index),
    Accept(Index),
    Reject(Index, bool),
    Taken(Index),
    Close(Index),
    /// The other side sends: on which stream, for or as which id, and what.
    Hear(Index, Index, Body),
}

#[derive(Clone, Copy, Debug)]
enum Body {
    /// An ack of something that we sent.
    Ack,
    /// Message number so much, which may have been sent before.
    Message(u8),
    Close,
    Nothing,
}

fn on_streams() -> impl Strategy<Value = OnStream> {
    let body = prop_oneof![
        6 => Just(Body::Ack),
        8 => (0..6u8).prop_map(Body::Message),
        1 => Just(Body::Close),
        1 => Just(Body::Nothing),
    ];
    prop_oneof![
        4 => (any::<Index>(), 0..3000u64).prop_map(|(stream, timeout)| OnStream::Send(stream, timeout)),
        1 => any::<Index>().prop_map(OnStream::CancelSend),
        4 => any::<Index>().prop_map(OnStream::Accept),
        1 => any::<(Index, bool)>().prop_map(|(delivery, ends)| OnStream::Reject(delivery, ends)),
        3 => any::<Index>().prop_map(OnStream::Taken),
        1 => any::<Index>().prop_map(OnStream::Close),
        12 => (any::<Index>(), any::<Index>(), body).prop_map(|(stream, id, body)| OnStream::Hear(stream, id, body)),
    ]
}

/// Streams as their user knows them, on either side.
#[derive(Default)]
struct Known {
    streams: Vec<StreamHandle>,
    deliveries: Vec<PendingMessage>,
    /// Each with its deadline; none if it was canceled.
    sends: BTreeMap<SendHandle, Option<Time>>,
    sent: BTreeMap<SendHandle, u32>,
    ended: BTreeMap<StreamHandle, u32>,
    messages: BTreeSet<Bytes>,
    jumped: bool,
}

impl Known {
    fn happened(&mut self, event: StreamEvent) {
        match event {
            StreamEvent::Message { delivery, payload } => {
                assert!(!self.ended.contains_key(&delivery.stream()), "nothing comes after the end");
                let first = self.messages.insert(payload);
                assert!(first || self.jumped, "a message is delivered once (I7)");
                self.deliveries.push(delivery);
            }
            StreamEvent::Sent { send, .. } => *self.sent.entry(send).or_default() += 1,
            StreamEvent::Ended { stream, .. } => *self.ended.entry(stream).or_default() += 1,
            other => panic!("{other:?}"),
        }
    }

    /// Every send that is due has ended, and none twice or though it was canceled.
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

/// Every frame of a stream that was published, as its stream and its id.
fn published(frames: &[Frame]) -> Vec<(Text, Text)> {
    let frames = frames.iter().filter_map(|frame| match frame {
        Frame::Stream(stream) => Some((stream.stream_id.clone(), stream.request_id.clone())),
        _ => None,
    });
    frames.collect()
}

/// Lets something happen to the streams of a side; `ids` are those of the streams that the other
/// side may name.
fn step<E: Engine>(
    run: &mut Run<E>,
    known: &mut Known,
    heard_on: SubscriptionHandle,
    ids: &[Text],
    step: &OnStream,
) where
    E::Event: std::fmt::Debug,
{
    match step {
        OnStream::Send(index, timeout) => {
            let Some(stream) = pick(&known.streams, index) else { return };
            if let Ok(send) = run.engine.stream_commands().send(run.now, stream, "ours", Some(ms(*timeout))) {
                known.sends.insert(send, Some(run.now.time + ms(*timeout)));
            }
        }
        OnStream::CancelSend(index) => {
            let sends: Vec<_> = known.sends.keys().copied().collect();
            let Some(send) = pick(&sends, index) else { return };
            run.engine.stream_commands().cancel_send(send);
            known.sends.insert(send, None);
        }
        OnStream::Accept(index) | OnStream::Reject(index, _) => {
            if known.deliveries.is_empty() {
                return;
            }
            let delivery = known.deliveries.swap_remove(index.index(known.deliveries.len()));
            let mut streams = run.engine.stream_commands();
            match step {
                OnStream::Reject(_, ends) => streams.reject(run.now, delivery, ends.then(cause)),
                _ => streams.accept(run.now, delivery),
            }
        }
        OnStream::Taken(index) => {
            let Some(stream) = pick(&known.streams, index) else { return };
            run.engine.stream_commands().taken(stream);
        }
        OnStream::Close(index) => {
            let Some(stream) = pick(&known.streams, index) else { return };
            run.engine.stream_commands().close(run.now, stream, Some(cause()));
        }
        OnStream::Hear(index, id, body) => {
            let stream_id = pick(ids, index).unwrap_or_else(|| "STR_none".into());
            let ours = published(&run.frames).into_iter().filter(|(of, _)| *of == stream_id);
            let ours: Vec<_> = ours.map(|(_, request_id)| request_id).collect();
            // A message has the same times whenever it is heard.
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
                Body::Nothing => ("REQ_nothing".into(), EPOCH, None),
            };
            let expiry = sent_at + 5_000_000_000;
            let frame = Stream { stream_id, request_id, sent_at, expiry, body };
            run.engine.handle_frame(run.now, heard_on, Frame::Stream(frame));
        }
    }
}
