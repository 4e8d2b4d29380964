//! Tests of streams, on the client and on the server.

mod ends;
mod held;
mod messages;
mod opening;
mod window;

use std::time::Duration;

use psrpc_engine::proto::{
    Any, ClaimRequest, ClaimResponse, ErrorCode, ErrorResponse, Frame, Metadata, MethodProperties, Routing,
    Stream, StreamBody,
};
use psrpc_engine::{
    BusError, CallError, CallHandle, Client, ClientConfig, ClientEvent, Engine, Failure, OpenStream, Output,
    PendingMessage, Reason, Received, Route, SendError, SendHandle, Server, ServerConfig, ServerEvent,
    SlowConsumer, StreamEvent, StreamHandle, TimerKind,
};

use crate::fixture::{
    AFFINITY, Driven, EPOCH, QUEUE, SINGLE, all_outputs, all_published, at, is_idle, ms, next_published,
    refuse_next,
};

const CLIENT: &str = "Hats|CLI_1|STR";
const SERVER: &str = "Hats|Parade|STR";
const OWNER: &str = "Hats|OwnerParade|STR";

fn parade() -> Route {
    Route::stream::<&str>("Hats", "Parade", QUEUE, &[]).unwrap()
}

fn owner_parade() -> Route {
    Route::stream::<&str>("Hats", "OwnerParade", SINGLE, &[]).unwrap()
}

fn client_with(change: impl FnOnce(&mut ClientConfig)) -> Driven<Client> {
    let mut config = ClientConfig { opens_streams: true, ..ClientConfig::new("Hats") };
    change(&mut config);
    Driven::client_with(config)
}

fn client() -> Driven<Client> {
    client_with(|_| ())
}

fn server_with(change: impl FnOnce(&mut ServerConfig)) -> Driven<Server> {
    let mut config = ServerConfig::new("Hats");
    change(&mut config);
    Driven::server_with(config, &[parade(), owner_parade()])
}

fn server() -> Driven<Server> {
    server_with(|_| ())
}

fn cause(code: ErrorCode, text: &str) -> ErrorResponse {
    ErrorResponse::new(code, text)
}

/// An engine whose events include those of streams.
pub trait StreamEngine: Engine {
    fn stream_event(event: Self::Event) -> Option<StreamEvent>;
}

impl StreamEngine for Client {
    fn stream_event(event: ClientEvent) -> Option<StreamEvent> {
        if let ClientEvent::Stream(event) = event { Some(event) } else { None }
    }
}

impl StreamEngine for Server {
    fn stream_event(event: ServerEvent) -> Option<StreamEvent> {
        if let ServerEvent::Stream(event) = event { Some(event) } else { None }
    }
}

/// A stream event, reduced to what the tests compare.
#[derive(Debug, PartialEq)]
enum Observed {
    Message(String),
    Sent,
    Unsent(Reason, String),
    Ended(Reason, String),
}

impl<E: StreamEngine> Driven<E> {
    /// Takes the stream events, and calls `accept` for each message.
    fn observe(
        &mut self,
        mut accept: impl FnMut(&mut E, psrpc_engine::Now, PendingMessage),
    ) -> Vec<Observed> {
        let mut observe = Vec::new();
        for event in self.events().into_iter().filter_map(E::stream_event) {
            observe.push(match event {
                StreamEvent::Message { delivery, payload } => {
                    accept(&mut self.engine, self.now, delivery);
                    Observed::Message(String::from_utf8(payload.to_vec()).unwrap())
                }
                StreamEvent::Sent { outcome: Ok(()), .. } => Observed::Sent,
                StreamEvent::Sent { outcome: Err(failure), .. } => {
                    Observed::Unsent(failure.reason, failure.text.to_string())
                }
                StreamEvent::Ended { cause, .. } => Observed::Ended(cause.reason, cause.text.to_string()),
                other => panic!("{other:?}"),
            });
        }
        self.drain();
        observe
    }

    /// Takes the published stream frames.
    fn stream_frames(&mut self) -> Vec<Stream> {
        let frames = self.frames().into_iter().filter_map(|(_, frame)| match frame {
            Frame::Stream(frame) => Some(frame),
            _ => None,
        });
        frames.collect()
    }

    /// Starts a send, which may have to wait.
    fn start_send(&mut self, stream: StreamHandle, text: &'static str, timeout: Duration) -> SendHandle {
        let send = self.engine.stream_commands().send(self.now, stream, text, Some(timeout)).unwrap();
        self.drain();
        send
    }

    /// Takes an accepted message on behalf of the consumer.
    fn taken(&mut self, stream: StreamHandle) {
        if self.engine.stream_commands().taken(stream) {
            self.engine.stream_commands().release(self.now, stream);
        }
        self.drain();
    }

    fn send(&mut self, stream: StreamHandle, text: &'static str) -> Stream {
        self.engine.stream_commands().send(self.now, stream, text, None).unwrap();
        self.drain();
        self.stream_frames().pop().expect("a send publishes a message")
    }

    fn new_frame(&self, stream: &str, id: &str, body: StreamBody) -> Frame {
        let sent_at = self.now.wall.as_unix_nanos();
        let expiry = (self.now.wall + ms(3000)).as_unix_nanos();
        Frame::Stream(Stream {
            stream_id: stream.into(),
            request_id: id.into(),
            sent_at,
            expiry,
            body: Some(body),
        })
    }

    fn message(&mut self, channel: &str, stream: &str, id: &str, text: &'static str) {
        let frame = self.new_frame(stream, id, StreamBody::Message { payload: text.as_bytes().into() });
        self.frame(channel, frame);
    }

    fn ack(&mut self, channel: &str, frame: &Stream) {
        let ack = Stream { body: Some(StreamBody::Ack), ..frame.clone() };
        self.frame(channel, Frame::Stream(ack));
    }

    fn close(&mut self, channel: &str, stream: &str, code: ErrorCode, text: &'static str) {
        let frame = self.new_frame(stream, "REQ_close", StreamBody::Close { code, text: text.into() });
        self.frame(channel, frame);
    }
}

impl Driven<Client> {
    /// Starts to open a stream, and returns the published frame.
    fn opening(&mut self, open: OpenStream) -> (CallHandle, Stream) {
        let call = self.engine.open_stream(self.now, open).unwrap();
        self.drain();
        (call, self.stream_frames().pop().expect("an opening is published"))
    }

    fn opened(&mut self) -> Option<Result<StreamHandle, Box<Failure>>> {
        self.events().into_iter().find_map(|event| match event {
            ClientEvent::Opened { outcome, .. } => Some(outcome),
            _ => None,
        })
    }

    fn claim_stream(&mut self, open: &Stream, server: &str) {
        let (request_id, server_id) = (open.request_id.clone(), server.into());
        let claim = ClaimRequest { request_id, server_id, affinity: 1.0, handling: false };
        self.frame("Hats|CLI_1|CLAIM", Frame::ClaimRequest(claim));
    }

    /// Opens a stream, and returns it with its id.
    fn stream(&mut self) -> (StreamHandle, String) {
        let (_, open) = self.opening(OpenStream::new(owner_parade()));
        self.ack(CLIENT, &open);
        (self.opened().unwrap().unwrap(), open.stream_id.to_string())
    }

    fn take(&mut self) -> Vec<Observed> {
        self.observe(|client, now, delivery| client.stream_commands().accept(now, delivery))
    }
}

impl Driven<Server> {
    fn open(&mut self, channel: &str, stream: &str, id: &str) {
        let open =
            StreamBody::Open { node_id: "CLI_1".into(), metadata: Metadata::from_iter([("day", "1")]) };
        let frame = self.new_frame(stream, id, open);
        self.frame(channel, frame);
    }

    fn bid_for_opening(&mut self) -> Received {
        let received = self.received().pop().expect("the opening comes in");
        assert!(received.opens_stream);
        self.engine.bid(self.now, received.request, 1.0);
        self.drain();
        received
    }

    fn accepted(&mut self) -> Option<StreamHandle> {
        self.events().into_iter().find_map(|event| match event {
            ServerEvent::Accepted { stream, .. } => Some(stream),
            _ => None,
        })
    }

    /// Opens a stream with this id on an unclaimed method.
    fn stream(&mut self, id: &str) -> StreamHandle {
        self.open(OWNER, id, &format!("REQ_{id}"));
        self.bid_for_opening();
        let stream = self.accepted().expect("it is open");
        self.frames();
        stream
    }

    fn take(&mut self) -> Vec<Observed> {
        self.observe(|server, now, delivery| server.stream_commands().accept(now, delivery))
    }

    fn finish(&mut self, stream: StreamHandle, result: Result<(), ErrorResponse>) {
        self.engine.finish_stream(self.now, stream, result);
        self.drain();
    }
}

fn body(frames: &[Stream]) -> Vec<&StreamBody> {
    frames.iter().filter_map(|frame| frame.body.as_ref()).collect()
}

fn closed(code: ErrorCode, text: &'static str) -> StreamBody {
    StreamBody::Close { code, text: text.into() }
}
