//! Our client in the place of a Go client that opens streams.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use psrpc_engine::proto::{ErrorCode, ErrorResponse, Frame, Stream, StreamBody, Text};
use psrpc_engine::{
    Client, ClientEvent, Engine, Failure, Now, OpenStream, PendingMessage, Route, Selection, SendError,
    StreamEvent, StreamHandle, Time, WallTime,
};
use psrpc_vectors::Publish;
use serde_json::{Value, json};

use super::transcript::{Compared, Transcript};
use super::{
    Kind, RecordedPeer, assert_error, decode, fields, for_each_peer, micros, publishes, route_of, selection,
};
use crate::fixture::{Driven, QUEUE, ms};

#[test]
fn our_client_opens_and_ends_streams_as_go_clients_did() {
    let replayed = for_each_peer(Kind::Stream, "client", |peer| Replay::new(peer).run());
    assert_eq!(replayed, 4 * 13 + 2 + 2 * 21);
}

struct Replay<'a> {
    client: Driven<Client>,
    transcript: Transcript<'a>,
    peer: RecordedPeer<'a>,
    started: Time,
    stream: Option<StreamHandle>,
    /// Messages not accepted yet.
    deliveries: VecDeque<PendingMessage>,
    seen: Seen,
}

/// The events that the user of the stream saw.
#[derive(Default)]
struct Seen {
    /// The error of a failed opening, and the time until then.
    refused: Option<(Box<Failure>, Duration)>,
    received: Vec<Bytes>,
    sends: Vec<Result<(), Box<Failure>>>,
    ended: Option<Box<Failure>>,
}

impl<'a> Replay<'a> {
    fn new(peer: RecordedPeer<'a>) -> Self {
        Self {
            client: peer.client("Hats"),
            transcript: Transcript::new(&peer),
            peer,
            started: Time::ZERO,
            stream: None,
            deliveries: VecDeque::new(),
            seen: Seen::default(),
        }
    }

    fn run(mut self) {
        self.peer.check_subscriptions(&self.client);
        match self.peer.id() {
            "stream-open-on-closed-client" => return self.check_closed(),
            // Go publishes a grant at the deadline; we do not.
            "stream-selection-options-minimum" => {
                self.transcript.retain(|publish| !publish.type_url.ends_with("ClaimResponse"));
            }
            _ => {}
        }
        let from = self.peer.from();
        for (_, publish) in publishes(self.peer.conversation) {
            // Our timer may fire a moment earlier or later than Go's.
            let timed = self.times_out_first() && publish.fields.get("close").is_some();
            self.run_until(micros(publish.at_us) + if timed { ms(5) } else { ms(0) });
            if publish.from != from {
                let subscription =
                    self.peer.subscription_for(&self.client, publish).expect("a subscription for the frame");
                self.client.deliver(subscription, self.transcript.incoming(publish));
            } else if let Frame::Stream(frame) = decode(publish) {
                self.act(publish, frame);
            }
            self.handle_events();
        }
        let at_last = self.client.now.time.since(Time::ZERO) + Duration::from_secs(10);
        self.run_until(at_last);
        self.transcript.finish();
        self.check_outcome();
        let engine = &self.client.engine;
        assert_eq!((engine.streams(), engine.sending(), engine.in_flight()), (0, 0, 0));
    }

    fn check_closed(mut self) {
        self.client.engine.close(self.client.now);
        self.client.drain();
        let parade = Route::stream::<&str>("Hats", "Parade", QUEUE, &[]).unwrap();
        let error = self.client.engine.open_stream(self.client.now, OpenStream::new(parade)).unwrap_err();
        self.peer.check_refused(&error.code(), &error.to_string());
        assert!(self.client.frames().is_empty());
    }

    /// Returns `true` if a timer of our client ends the opening.
    fn ends_by_timer(&self) -> bool {
        matches!(self.peer.id(), "stream-no-servers" | "stream-selection-options-minimum")
    }

    /// Returns `true` if a timer of our client fires before the stream is closed.
    fn times_out_first(&self) -> bool {
        self.ends_by_timer() || self.peer.id() == "stream-retry-send"
    }

    fn run_until(&mut self, after: Duration) {
        while let Some(timeout) = self.client.next_timeout(after) {
            self.client.advance_to(timeout);
            self.handle_events();
        }
        self.client.advance_to(after);
    }

    /// Issues the command that made the Go client publish this frame.
    fn act(&mut self, publish: &Publish, Stream { sent_at, expiry, body, .. }: Stream) {
        let wall = WallTime::from_unix_nanos(sent_at);
        let now = Now { wall, ..self.client.now };
        let timeout = Some(WallTime::from_unix_nanos(expiry).since(wall));
        let engine = &mut self.client.engine;
        match (body.expect("a body"), self.stream) {
            (StreamBody::Open { metadata, .. }, _) => {
                let route = route_of(self.peer.bus, &publish.channel, &publish.local);
                let selection = match self.peer.id() {
                    "stream-selection-options-minimum" => {
                        selection(|selection| selection.minimum_affinity = Some(0.5))
                    }
                    _ => Selection::default(),
                };
                let open = OpenStream { metadata, timeout, selection, ..OpenStream::new(route) };
                engine.open_stream(now, open).unwrap();
                self.started = now.time;
            }
            (StreamBody::Message { payload }, Some(stream)) => {
                engine.stream_commands().send(now, stream, payload, timeout).unwrap();
            }
            (StreamBody::Ack, Some(stream)) => {
                engine
                    .stream_commands()
                    .accept(now, self.deliveries.pop_front().expect("a message to be acknowledged"));
                assert!(!engine.stream_commands().taken(stream), "nothing is held back");
            }
            (StreamBody::Close { code, text }, Some(stream)) => match self.peer.id() {
                "stream-client-closed" => engine.close(now),
                "stream-client-context-canceled" => {
                    engine.stream_commands().close(now, stream, Some(canceled()));
                }
                "stream-open-context-deadline" => {
                    engine.stream_commands().close(now, stream, Some(timed_out()));
                }
                _ => {
                    let plain = text.as_str() == "stream closed";
                    let cause = (!plain).then(|| ErrorResponse::new(code, text));
                    engine.stream_commands().close(now, stream, cause);
                }
            },
            (StreamBody::Close { .. }, None) if self.peer.id() == "stream-client-closed-while-opening" => {
                engine.close(now);
            }
            // No server took the stream; our timer has closed it.
            (StreamBody::Close { .. }, None) => assert!(self.ends_by_timer(), "{}", self.peer.context()),
            (StreamBody::Ack, None) => assert!(self.ends_by_timer(), "{}", self.peer.context()),
            (body, None) => panic!("{}: no stream to send {body:?} on", self.peer.context()),
        }
        self.client.drain();
    }

    fn handle_events(&mut self) {
        let id = self.peer.id();
        self.transcript.check(self.client.published(), |ours, recorded| check_deviation(id, ours, recorded));
        for event in self.client.events() {
            match event {
                ClientEvent::Opened { outcome: Ok(stream), .. } => self.stream = Some(stream),
                ClientEvent::Opened { outcome: Err(failure), .. } => {
                    self.seen.refused = Some((failure, self.client.now.time.since(self.started)));
                }
                ClientEvent::Stream(StreamEvent::Message { delivery, payload }) => {
                    self.deliveries.push_back(delivery);
                    self.seen.received.push(payload);
                }
                ClientEvent::Stream(StreamEvent::Sent { outcome, .. }) => self.seen.sends.push(outcome),
                ClientEvent::Stream(StreamEvent::Ended { cause, .. }) => {
                    assert!(self.seen.ended.replace(cause).is_none(), "a stream ends once");
                }
                // A bid after the grant to another server.
                ClientEvent::Dropped(_) if id == "stream-two-servers" => {}
                ClientEvent::Closed { .. } if id.starts_with("stream-client-closed") => {}
                other => panic!("{}: {other:?}", self.peer.context()),
            }
        }
    }

    fn check_outcome(&mut self) {
        let (outcome, context) = (&self.peer.conversation.outcome, self.peer.context());
        let mut checked =
            vec!["server_received", "server_saw_open", "server_stream_err", "shutdown_returned"];
        checked.extend(["kill_returned", "server_close_error", "s1_observed", "send_2_took_ms"]);
        let mut recorded = |name: &'static str| {
            checked.push(name);
            outcome.get(name)
        };
        if let Some(error) = recorded("error") {
            let (failure, after) = self.seen.refused.take().expect("it is not opened");
            assert_error(&failure.code, &failure.text, error, &context);
            let took = recorded("took_ms").and_then(Value::as_u64).unwrap_or(3000);
            assert!((after.as_millis() as u64).abs_diff(took) <= 5, "{context}: {after:?}, {took} ms in Go");
        } else {
            let ended = self.seen.ended.as_ref().expect("it ends");
            match recorded("stream_err") {
                Some(_) if self.peer.id() == "stream-client-context-canceled" => {
                    assert_eq!(
                        (&ended.code, ended.text.as_str()),
                        (&ErrorCode::Canceled, "request canceled")
                    );
                }
                Some(_) if self.peer.id() == "stream-open-context-deadline" => {
                    assert_eq!(
                        (&ended.code, ended.text.as_str()),
                        (&ErrorCode::DeadlineExceeded, "request timed out")
                    );
                }
                // In Go the user gets "stream closed" too, as the server does.
                Some(_) if self.peer.id() == "stream-client-closed" => {
                    assert_eq!(
                        (&ended.code, ended.text.as_str()),
                        (&ErrorCode::Canceled, "client is closed")
                    );
                }
                Some(error) => assert_error(&ended.code, &ended.text, error, &context),
                None => assert_eq!(ended.text.as_str(), "stream closed"),
            }
            // In Go a second close or a later send returns the stream's cause. Here a second close
            // does nothing.
            for error in [recorded("second_close_error"), recorded("send_after_close")].into_iter().flatten()
            {
                assert_error(&ended.code, &ended.text, error, &context);
            }
            assert!(recorded("close_error").is_none_or(Value::is_null));
            let stream = self.stream.expect("it was open");
            assert_eq!(
                self.client.engine.stream_commands().send(self.client.now, stream, "late", None),
                Err(SendError::Ended)
            );
            self.client.engine.stream_commands().close(self.client.now, stream, None);
            self.client.drain();
            assert!(self.client.published().is_empty(), "{context}: it ends once");
        }
        let sends: Vec<_> = match recorded("send_errors") {
            Some(errors) => errors.as_array().expect("errors").iter().collect(),
            None => {
                [recorded("send"), recorded("send_1"), recorded("send_2")].into_iter().flatten().collect()
            }
        };
        // Retries happen above the engine; each attempt fails like the last one.
        let sends = match (self.peer.id(), &sends[..]) {
            ("stream-retry-send", [first, last]) => vec![*first, *last, *last, *last],
            _ => sends,
        };
        assert_eq!(self.seen.sends.len(), sends.len(), "{context}");
        for (sent, recorded) in self.seen.sends.iter().zip(sends) {
            match sent {
                Ok(()) => assert!(recorded.is_null(), "{context}: {recorded}"),
                Err(failure) => assert_error(&failure.code, &failure.text, recorded, &context),
            }
        }
        let received: Vec<_> = match recorded("received") {
            Some(Value::Array(messages)) => messages.clone(),
            Some(message @ Value::Object(_)) => vec![message.clone()],
            Some(closed) => {
                assert_eq!(*closed, json!("closed"));
                Vec::new()
            }
            None => Vec::new(),
        };
        assert!(recorded("received_after").is_none_or(|closed| *closed == json!("closed")));
        let ours = self.seen.received.iter().map(|payload| fields(self.peer.conversation, payload));
        assert_eq!(ours.collect::<Vec<_>>(), received, "{context}");
        let known = |name: &String| checked.contains(&name.as_str());
        assert!(outcome.as_object().expect("an outcome").keys().all(known), "{context}: {outcome}");
    }
}

fn canceled() -> ErrorResponse {
    ErrorResponse::new(ErrorCode::Canceled, "request canceled")
}

fn timed_out() -> ErrorResponse {
    ErrorResponse::new(ErrorCode::DeadlineExceeded, "request timed out")
}

fn check_deviation(id: &str, ours: &mut Frame, recorded: &Frame) -> Option<Compared> {
    let (Frame::Stream(ours), Frame::Stream(recorded)) = (ours, recorded) else { return None };
    let Some(StreamBody::Close { code, text }) = &mut ours.body else { return None };
    match id {
        // Go sends the error of its context.
        "stream-client-context-canceled" => {
            assert_eq!(ErrorResponse::new(code.clone(), text.clone()), canceled());
            (*code, *text) = (ErrorCode::Unknown, Text::from("context canceled"));
        }
        "stream-open-context-deadline" => {
            assert_eq!(ErrorResponse::new(code.clone(), text.clone()), timed_out());
            (*code, *text) = (ErrorCode::Unknown, Text::from("context deadline exceeded"));
            // A Go stream uses the remaining time of its opening as the timeout of its frames.
            ours.expiry = recorded.expiry;
        }
        // Go sends this text or "stream closed", depending on a race.
        "stream-client-closed-while-opening" => {
            assert_eq!((&*code, text.as_str()), (&ErrorCode::Canceled, "client is closed"));
            let Some(StreamBody::Close { text: theirs, .. }) = &recorded.body else { panic!("a close") };
            *text = theirs.clone();
        }
        // Frames sent by a timer have the time of the timer.
        "stream-no-servers" | "stream-selection-options-minimum" => {
            let apart = recorded.sent_at.abs_diff(ours.sent_at);
            assert!(apart <= 5_000_000, "{apart} ns between our timer and Go's");
            assert_eq!(ours.expiry - ours.sent_at, recorded.expiry - recorded.sent_at);
            (ours.sent_at, ours.expiry) = (recorded.sent_at, recorded.expiry);
        }
        _ => {}
    }
    None
}
