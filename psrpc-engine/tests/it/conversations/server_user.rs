//! The user of a recorded Go server, acting on ours.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use psrpc_engine::proto::{ErrorResponse, Frame, Metadata, Stream, StreamBody, Text};
use psrpc_engine::{
    Engine, Failure, Now, PendingMessage, Received, RequestHandle, Server, ServerEvent, StreamEvent,
    StreamHandle, WallTime,
};
use psrpc_vectors::{Bus, Conversation, Publish};
use serde_json::Value;

use super::{assert_error, decode, fields, route_of};
use crate::fixture::Driven;

pub struct User<'a> {
    bus: Bus,
    conversation: &'a Conversation,
    /// Whether it runs requests by skip claim where the client allows that.
    skips_claims: bool,
    /// The ids of the received requests.
    ids: BTreeMap<RequestHandle, Text>,
    /// Requests whose handlers run.
    running: Vec<RequestHandle>,
    stream: Option<StreamHandle>,
    /// Messages not accepted yet.
    deliveries: VecDeque<PendingMessage>,
    /// The client that opened the stream, and its metadata.
    opened_by: Option<(Text, Metadata)>,
    received: Vec<Bytes>,
    ended: Option<Box<Failure>>,
}

impl<'a> User<'a> {
    pub fn new(bus: Bus, conversation: &'a Conversation, skips_claims: bool) -> Self {
        Self {
            bus,
            conversation,
            skips_claims,
            ids: BTreeMap::new(),
            running: Vec::new(),
            stream: None,
            deliveries: VecDeque::new(),
            opened_by: None,
            received: Vec::new(),
            ended: None,
        }
    }

    /// Issues the command that made the recorded server publish this frame.
    pub fn act(&mut self, server: &mut Driven<Server>, publish: &Publish) {
        let frame = decode(publish);
        self.handle_events(server, Some(&frame));
        match frame {
            Frame::Response(response) => {
                let is_answered = |request: &RequestHandle| self.ids[request] == response.request_id;
                if let Some(position) = self.running.iter().position(is_answered) {
                    let now = sent_at(server, response.sent_at);
                    server.engine.respond(now, self.running.remove(position), response.result);
                }
            }
            Frame::Stream(frame) => self.act_on_stream(server, frame),
            Frame::Other(update) => {
                let route = route_of(self.bus, &publish.channel, &publish.local);
                server.engine.publish(server.now, &route, update, None).unwrap();
            }
            _ => {}
        }
        server.drain();
        self.handle_events(server, None);
    }

    fn act_on_stream(&mut self, server: &mut Driven<Server>, frame: Stream) {
        let now = sent_at(server, frame.sent_at);
        let timeout = WallTime::from_unix_nanos(frame.expiry).since(now.wall);
        let (stream, engine) = (self.stream.expect("an open stream"), &mut server.engine);
        match frame.body.expect("a body") {
            // The engine acknowledges the opening by itself.
            StreamBody::Ack => {
                if let Some(delivery) = self.deliveries.pop_front() {
                    engine.stream_commands().accept(now, delivery);
                    if self.conversation.id != "stream-slow-consumer" {
                        assert!(!engine.stream_commands().taken(stream), "nothing is held back");
                    }
                }
            }
            StreamBody::Message { payload } => {
                engine.stream_commands().send(now, stream, payload, Some(timeout)).unwrap();
            }
            StreamBody::Close { code, text } => {
                let plain = text.as_str() == "stream closed";
                let cause = ErrorResponse::new(code, text);
                match self.conversation.id.as_str() {
                    "stream-server-drain" => engine.drain(now),
                    "stream-server-killed" => engine.kill(now),
                    "stream-malformed-message" => {
                        let delivery = self.deliveries.pop_front().expect("a message that does not decode");
                        engine.stream_commands().reject(now, delivery, Some(cause));
                    }
                    _ => engine.finish_stream(now, stream, if plain { Ok(()) } else { Err(cause) }),
                }
            }
            StreamBody::Open { .. } => panic!("a server opens no streams"),
        }
    }

    /// Handles the server's events. `frame` is the frame that the recorded server published in
    /// reaction.
    pub fn handle_events(&mut self, server: &mut Driven<Server>, frame: Option<&Frame>) {
        loop {
            let events = server.events();
            if events.is_empty() {
                return;
            }
            for event in events {
                self.handle_event(server, event, frame);
            }
            server.drain();
        }
    }

    fn handle_event(&mut self, server: &mut Driven<Server>, event: ServerEvent, frame: Option<&Frame>) {
        let now = server.now;
        match (event, frame) {
            (ServerEvent::Received(received), frame) => {
                let request = received.request;
                self.ids.insert(request, received.request_id.clone());
                if received.opens_stream {
                    self.opened_by = Some((received.client_id.clone(), received.metadata.clone()));
                }
                match frame {
                    Some(Frame::ClaimRequest(_)) if self.skips_claims && received.may_skip_claim => {
                        server.engine.skip_claim(now, request);
                    }
                    Some(Frame::ClaimRequest(claim)) => server.engine.bid(now, request, claim.affinity),
                    // This request came before the one that the response is for.
                    Some(Frame::Response(response)) if response.request_id != received.request_id => {}
                    Some(Frame::Response(response)) => match self.refusal(&received, &response.result) {
                        Some(error) => {
                            server.engine.reject(sent_at(server, response.sent_at), request, error);
                        }
                        None => server.engine.bid(now, request, 1.0),
                    },
                    Some(Frame::Stream(_)) => server.engine.bid(now, request, 1.0),
                    _ => {}
                }
            }
            (ServerEvent::Run { request }, _) => self.running.push(request),
            (ServerEvent::Accepted { stream, .. }, _) => self.stream = Some(stream),
            (ServerEvent::Stream(event), _) => self.handle_stream_event(server, event),
            (ServerEvent::Updated { outcome, .. }, _) => assert!(outcome.is_ok()),
            _ => {}
        }
    }

    /// Returns the error for a request that does not decode, which needs no bid.
    fn refusal<T>(&self, received: &Received, result: &Result<T, ErrorResponse>) -> Option<ErrorResponse> {
        if !received.route.properties().require_claim {
            return None;
        }
        let context =
            || format!("{} on {:?}: only errors come without a bid", self.conversation.id, self.bus);
        Some(result.as_ref().err().cloned().unwrap_or_else(|| panic!("{}", context())))
    }

    fn handle_stream_event(&mut self, server: &mut Driven<Server>, event: StreamEvent) {
        match event {
            StreamEvent::Message { delivery, payload } => {
                self.deliveries.push_back(delivery);
                self.received.push(payload);
            }
            StreamEvent::Sent { outcome, .. } => assert!(outcome.is_ok(), "{}", self.conversation.id),
            StreamEvent::Ended { stream, cause } => {
                self.ended = Some(cause);
                server.engine.finish_stream(server.now, stream, Ok(()));
            }
            other => panic!("{}: {other:?}", self.conversation.id),
        }
    }

    /// Compares the stream's events with the recording, if this server had the stream.
    pub fn check_outcome(&self, context: &str) {
        let outcome = &self.conversation.outcome;
        if self.stream.is_none() {
            return;
        }
        if let Some(received) = outcome.get("server_received") {
            let ours: Vec<_> =
                self.received.iter().map(|payload| fields(self.conversation, payload)).collect();
            assert_eq!(*received, Value::Array(ours), "{context}");
        }
        if let Some(open) = outcome.get("server_saw_open") {
            let (client, metadata) = self.opened_by.as_ref().expect("an opening");
            assert_eq!(open["remote_id"], client.as_str(), "{context}");
            let recorded = open["metadata"].as_object();
            assert_eq!(metadata.len(), recorded.map_or(0, serde_json::Map::len), "{context}");
            for (name, value) in metadata.iter() {
                assert_eq!(open["metadata"][name.as_str()], value.as_str(), "{context}");
            }
        }
        let ended = self.ended.as_ref().expect("the stream ends");
        if let Some(cause) = outcome.get("server_stream_err") {
            assert_error(&ended.code, &ended.text, cause, context);
        }
    }
}

/// Returns the current time with the recorded server's wall clock.
fn sent_at(server: &Driven<Server>, nanos: i64) -> Now {
    Now { wall: WallTime::from_unix_nanos(nanos), ..server.now }
}
