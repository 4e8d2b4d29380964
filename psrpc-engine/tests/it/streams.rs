//! Streams, case by case, on either side.

use std::time::Duration;

use psrpc_engine::proto::{
    Any, ClaimRequest, ClaimResponse, ErrorCode, ErrorResponse, Frame, Metadata, MethodProperties, Routing,
    Stream, StreamBody,
};
use psrpc_engine::{
    BusError, CallError, CallHandle, Client, ClientConfig, ClientEvent, Delivery, Engine, Failure,
    OpenStream, Output, Reason, Received, Route, SendError, Server, ServerConfig, ServerEvent, SlowConsumer,
    StreamEvent, StreamHandle, TimerKind,
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

/// What happened to streams, in short.
#[derive(Debug, PartialEq)]
enum Happened {
    Message(String),
    Sent,
    Unsent(Reason, String),
    Ended(Reason, String),
}

impl<E: StreamEngine> Driven<E> {
    /// What happened to streams since the last look; messages are accepted with `accept`.
    fn happened(&mut self, mut accept: impl FnMut(&mut E, psrpc_engine::Now, Delivery)) -> Vec<Happened> {
        let mut happened = Vec::new();
        for event in self.events().into_iter().filter_map(E::stream_event) {
            happened.push(match event {
                StreamEvent::Message { delivery, payload } => {
                    accept(&mut self.engine, self.now, delivery);
                    Happened::Message(String::from_utf8(payload.to_vec()).unwrap())
                }
                StreamEvent::Sent { outcome: Ok(()), .. } => Happened::Sent,
                StreamEvent::Sent { outcome: Err(failure), .. } => {
                    Happened::Unsent(failure.reason, failure.text.to_string())
                }
                StreamEvent::Ended { cause, .. } => Happened::Ended(cause.reason, cause.text.to_string()),
                other => panic!("{other:?}"),
            });
        }
        self.drain();
        happened
    }

    /// The frames of streams published since the last look.
    fn stream_frames(&mut self) -> Vec<Stream> {
        let frames = self.frames().into_iter().filter_map(|(_, frame)| match frame {
            Frame::Stream(frame) => Some(frame),
            _ => None,
        });
        frames.collect()
    }

    fn send(&mut self, stream: StreamHandle, text: &'static str) -> Stream {
        self.engine.stream_commands().send(self.now, stream, text, None).unwrap();
        self.drain();
        self.stream_frames().pop().expect("a send publishes a message")
    }

    fn a_frame(&self, stream: &str, id: &str, body: StreamBody) -> Frame {
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
        let frame = self.a_frame(stream, id, StreamBody::Message { payload: text.as_bytes().into() });
        self.frame(channel, frame);
    }

    fn ack(&mut self, channel: &str, frame: &Stream) {
        let ack = Stream { body: Some(StreamBody::Ack), ..frame.clone() };
        self.frame(channel, Frame::Stream(ack));
    }

    fn close(&mut self, channel: &str, stream: &str, code: ErrorCode, text: &'static str) {
        let frame = self.a_frame(stream, "REQ_close", StreamBody::Close { code, text: text.into() });
        self.frame(channel, frame);
    }
}

impl Driven<Client> {
    /// Starts to open a stream, and gives the frame that does.
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

    /// An open stream, and its id.
    fn stream(&mut self) -> (StreamHandle, String) {
        let (_, open) = self.opening(OpenStream::new(owner_parade()));
        self.ack(CLIENT, &open);
        (self.opened().unwrap().unwrap(), open.stream_id.to_string())
    }

    fn take(&mut self) -> Vec<Happened> {
        self.happened(|client, now, delivery| client.stream_commands().accept(now, delivery))
    }
}

impl Driven<Server> {
    fn open(&mut self, channel: &str, stream: &str, id: &str) {
        let open =
            StreamBody::Open { node_id: "CLI_1".into(), metadata: Metadata::from_iter([("day", "1")]) };
        let frame = self.a_frame(stream, id, open);
        self.frame(channel, frame);
    }

    fn admit(&mut self) -> Received {
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

    /// An open stream of this id, nothing to be claimed.
    fn stream(&mut self, id: &str) -> StreamHandle {
        self.open(OWNER, id, &format!("REQ_{id}"));
        self.admit();
        let stream = self.accepted().expect("it is open");
        self.frames();
        stream
    }

    fn take(&mut self) -> Vec<Happened> {
        self.happened(|server, now, delivery| server.stream_commands().accept(now, delivery))
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

// --- opening, at the client ----------------------------------------------------------------------------------

#[test]
fn a_claimed_stream_is_granted_and_open_with_its_ack() {
    let mut client = client();
    let metadata = Metadata::from_iter([("band", "brass")]);
    let (_, open) = client.opening(OpenStream { metadata: metadata.clone(), ..OpenStream::new(parade()) });
    assert_eq!(open.expiry - open.sent_at, 3_000_000_000);
    assert_eq!(open.body, Some(StreamBody::Open { node_id: "CLI_1".into(), metadata }));
    client.ack(CLIENT, &open);
    assert!(client.opened().is_none(), "nobody was granted it yet");
    client.claim_stream(&open, "SRV_1");
    let grant = ClaimResponse { request_id: open.request_id.clone(), server_id: "SRV_1".into() };
    assert_eq!(client.frames(), [("Hats|Parade|RCLAIM".to_owned(), Frame::ClaimResponse(grant))]);
    client.ack(CLIENT, &open);
    assert!(client.opened().unwrap().is_ok());
    assert_eq!(
        (client.engine.streams(), client.engine.in_flight(), client.engine.poll_timeout()),
        (1, 0, None)
    );
}

#[test]
fn a_message_of_the_server_tells_that_it_has_taken_the_stream() {
    let mut client = client();
    let (_, open) = client.opening(OpenStream::new(owner_parade()));
    client.message(CLIENT, open.stream_id.as_str(), "REQ_1", "hello");
    let events = client.events();
    assert!(
        matches!(&events[..], [ClientEvent::Opened { outcome: Ok(_), .. }, ClientEvent::Stream(_)]),
        "{events:?}"
    );
}

#[test]
fn a_stream_that_nobody_claims_is_closed_for_a_late_winner() {
    let mut client = client();
    let (_, open) = client.opening(OpenStream::new(parade()));
    client.advance_to(ms(1000));
    let failure = client.opened().unwrap().unwrap_err();
    assert_eq!(failure.reason, Reason::NoResponse);
    let frames = client.stream_frames();
    assert_eq!(body(&frames), [&closed(ErrorCode::Unavailable, "no response from servers")]);
    assert_eq!(frames[0].stream_id, open.stream_id);
    client.ack(CLIENT, &open);
    assert_eq!(client.dropped(), [Reason::NoStream]);
    assert_eq!((client.engine.streams(), client.engine.poll_timeout()), (0, None));
}

#[test]
fn an_opening_that_a_server_takes_or_refuses_at_its_deadline_has_timed_out() {
    type Answer = fn(&mut Driven<Client>, &Stream);
    let answers: [Answer; 3] = [
        |client, open| client.ack(CLIENT, open),
        |client, open| client.message(CLIENT, open.stream_id.as_str(), "REQ_1", "hello"),
        |client, open| client.close(CLIENT, open.stream_id.as_str(), ErrorCode::NotFound, "no band"),
    ];
    for answer in answers {
        let mut client = client();
        let (_, open) = client.opening(OpenStream::new(owner_parade()));
        client.now = at(ms(3000));
        answer(&mut client, &open);
        assert_eq!(client.dropped(), [Reason::Late]);
        client.advance_to(ms(3000));
        assert_eq!(client.opened().unwrap().unwrap_err().reason, Reason::TimedOut);
        let frames = client.stream_frames();
        assert_eq!(body(&frames), [&closed(ErrorCode::DeadlineExceeded, "request timed out")]);
    }
}

#[test]
fn an_opening_that_is_canceled_grants_nobody_and_closes() {
    let mut client = client();
    let (call, open) =
        client.opening(OpenStream::new(Route::stream::<&str>("Hats", "Parade", AFFINITY, &[]).unwrap()));
    client.claim_stream(&open, "SRV_1");
    client.engine.cancel(client.now, call);
    client.drain();
    assert_eq!(client.opened().unwrap().unwrap_err().code, ErrorCode::Canceled);
    assert_eq!(body(&client.stream_frames()), [&closed(ErrorCode::Canceled, "request canceled")]);
}

#[test]
fn a_server_that_refuses_a_stream_fails_its_opening() {
    let mut client = client();
    let (_, open) = client.opening(OpenStream::new(owner_parade()));
    client.close(CLIENT, open.stream_id.as_str(), ErrorCode::ResourceExhausted, "too many");
    let failure = client.opened().unwrap().unwrap_err();
    assert_eq!((failure.reason, failure.code), (Reason::Answered, ErrorCode::ResourceExhausted));
    assert!(client.frames().is_empty(), "it needs not be told");
    assert_eq!(client.engine.streams(), 0);
}

#[test]
fn a_stream_that_one_server_refuses_is_closed_for_another_that_was_granted_it() {
    let mut client = client();
    let (_, open) = client.opening(OpenStream::new(parade()));
    client.claim_stream(&open, "SRV_2");
    client.frames();
    // Of a server that could not read the opening and has taken its time to say so.
    client.close(CLIENT, open.stream_id.as_str(), ErrorCode::MalformedRequest, "what?");
    assert_eq!(client.opened().unwrap().unwrap_err().reason, Reason::Answered);
    assert_eq!(body(&client.stream_frames()), [&closed(ErrorCode::MalformedRequest, "what?")]);
}

#[test]
fn what_cannot_be_opened_is_refused() {
    let mut closed = Driven::client();
    let refused = closed.engine.open_stream(closed.now, OpenStream::new(parade())).unwrap_err();
    assert_eq!(refused, CallError::NoStreams { method: "Parade".into() });
    let mut client = client_with(|config| config.limits.streams.streams = 1);
    let unary = OpenStream::new(crate::fixture::route("Fit", QUEUE));
    let refused = client.engine.open_stream(client.now, unary).unwrap_err();
    assert_eq!(refused.to_string(), "Fit is no stream");
    let call = psrpc_engine::Call::new(parade(), "");
    let refused = client.engine.call(client.now, call).unwrap_err();
    assert_eq!(refused.to_string(), "Parade is a stream, which is to be opened");
    client.stream();
    let refused = client.engine.open_stream(client.now, OpenStream::new(parade())).unwrap_err();
    assert_eq!(refused, CallError::TooManyStreams { limit: 1 });
}

#[test]
fn an_interrupted_client_opens_no_stream_and_sends_nothing() {
    for channel in [CLIENT, "Hats|CLI_1|CLAIM", "Hats|CLI_1|RES"] {
        let mut client = client();
        let (stream, _) = client.stream();
        let (_, pending) = client.opening(OpenStream::new(owner_parade()));
        client.interrupt(channel, "connection reset");
        for route in [parade(), owner_parade()] {
            client.engine.open_stream(client.now, OpenStream::new(route)).unwrap();
            client.drain();
            let failure = client.opened().unwrap().unwrap_err();
            assert_eq!((failure.reason, &failure.code), (Reason::Interrupted, &ErrorCode::Unavailable));
            assert_eq!(failure.text.as_str(), "subscription interrupted: connection reset");
            assert_eq!(failure.source.as_ref().unwrap().to_string(), "connection reset");
            assert!(failure.evidence.unsent);
            assert!(client.frames().is_empty(), "neither the opening leaves nor a close");
            assert_eq!((client.engine.streams(), client.engine.in_flight()), (2, 1));
        }
        // What is open or being opened goes on.
        let message = client.send(stream, "hey");
        client.ack(CLIENT, &message);
        assert_eq!(client.take(), [Happened::Sent]);
        client.ack(CLIENT, &pending);
        assert!(client.opened().unwrap().is_ok());
        client.resume(channel);
        let events = client.events();
        assert!(
            matches!(events[..], [ClientEvent::Resumed { count: 1 }, ClientEvent::Gap { lost: None, .. }]),
            "{events:?}"
        );
        client.stream();
    }
}

#[test]
fn a_stream_whose_opening_has_not_left_needs_no_close() {
    let mut client = client();
    let call = client.engine.open_stream(client.now, OpenStream::new(parade())).unwrap();
    client.engine.cancel(client.now, call);
    client.drain();
    let failure = client.opened().unwrap().unwrap_err();
    assert_eq!((failure.reason, failure.evidence.unsent), (Reason::Canceled, true));
    assert!(client.frames().is_empty());
    assert_eq!(client.engine.counters().get(Reason::Withdrawn), 1, "the opening");
}

#[test]
fn a_lock_that_the_bus_refuses_is_no_evidence_of_an_opening() {
    let mut client = client();
    client.opening(OpenStream::new(parade()));
    client.engine.lock_refused(client.now, &BusError::new("NOPERM"));
    client.advance_to(ms(3000));
    let failure = client.opened().unwrap().unwrap_err();
    assert_eq!(failure.evidence.lock_refusal, None, "the bus hands streams to every server");
}

// --- opening, at the server ----------------------------------------------------------------------------------

#[test]
fn a_server_bids_for_a_stream_and_acknowledges_it_when_granted() {
    let mut server = server();
    server.open(SERVER, "STR_1", "REQ_1");
    let received = server.admit();
    assert_eq!((received.client_id.as_str(), received.metadata.get("day").unwrap().as_str()), ("CLI_1", "1"));
    assert!(
        matches!(&server.frames()[..], [(channel, Frame::ClaimRequest(_))] if channel == "Hats|CLI_1|CLAIM")
    );
    server.grant("Parade", "REQ_1", "SRV_1");
    assert!(server.accepted().is_some());
    let frames = server.frames();
    let [(channel, Frame::Stream(ack))] = &frames[..] else { panic!("{frames:?}") };
    assert_eq!(
        (channel.as_str(), ack.request_id.as_str(), &ack.body),
        (CLIENT, "REQ_1", &Some(StreamBody::Ack))
    );
    assert_eq!((ack.sent_at, ack.expiry), (EPOCH, EPOCH + 3_000_000_000), "as in the opening");
    assert_eq!((server.engine.streams(), server.engine.in_flight()), (1, 0));
}

#[test]
fn a_stream_is_opened_once() {
    let mut server = server();
    let stream = server.stream("STR_1");
    server.open(OWNER, "STR_1", "REQ_STR_1");
    server.open(OWNER, "STR_1", "REQ_2");
    let dropped: Vec<_> = server.fates();
    assert_eq!(dropped, [crate::fixture::Fate::Dropped(Reason::Duplicate); 2]);
    server.finish(stream, Ok(()));
    server.open(OWNER, "STR_1", "REQ_3");
    assert!(server.received().is_empty(), "nor after its end");
}

#[test]
fn two_clients_with_one_stream_id_get_one_stream() {
    let mut server = server();
    server.stream("STR_1");
    let open = StreamBody::Open { node_id: "CLI_2".into(), metadata: Metadata::new() };
    let frame = server.a_frame("STR_1", "REQ_2", open);
    server.frame(OWNER, frame);
    assert_eq!(server.fates(), [crate::fixture::Fate::Dropped(Reason::IdTaken)]);
}

#[test]
fn a_client_that_gives_up_before_the_grant_is_not_waited_for() {
    let mut server = server();
    server.open(SERVER, "STR_1", "REQ_1");
    server.admit();
    server.close(SERVER, "STR_1", ErrorCode::Canceled, "request canceled");
    assert_eq!(server.fates(), [crate::fixture::Fate::Abandoned(Reason::ClosedByPeer)]);
    server.grant("Parade", "REQ_1", "SRV_1");
    assert!(server.accepted().is_none());
    assert_eq!(server.engine.in_flight(), 0);
}

#[test]
fn a_full_server_does_not_bid_and_says_so_where_no_other_can() {
    let mut server = server_with(|config| config.limits.streams.streams = 1);
    server.stream("STR_1");
    server.open(SERVER, "STR_2", "REQ_2");
    server.open(OWNER, "STR_3", "REQ_3");
    assert_eq!(server.fates(), [crate::fixture::Fate::Dropped(Reason::StreamsFull); 2]);
    let frames = server.stream_frames();
    assert_eq!(
        body(&frames),
        [&closed(ErrorCode::ResourceExhausted, "the server has too many open streams")]
    );
    assert_eq!(frames[0].stream_id, "STR_3");
}

#[test]
fn a_rejected_stream_is_closed_with_the_error() {
    let mut server = server();
    server.open(SERVER, "STR_1", "REQ_1");
    let received = server.received().pop().unwrap();
    server.engine.reject(server.now, received.request, cause(ErrorCode::PermissionDenied, "no"));
    server.drain();
    assert_eq!(body(&server.stream_frames()), [&closed(ErrorCode::PermissionDenied, "no")]);
    assert_eq!(server.engine.in_flight(), 0);
}

// --- messages ------------------------------------------------------------------------------------------------

#[test]
fn a_send_resolves_with_its_ack() {
    let mut client = client();
    let (stream, id) = client.stream();
    let sent = client.send(stream, "hey");
    assert_eq!(sent.stream_id.as_str(), id);
    assert_eq!(client.take(), []);
    client.ack(CLIENT, &sent);
    assert_eq!(client.take(), [Happened::Sent]);
    client.ack(CLIENT, &sent);
    assert_eq!(client.dropped(), [Reason::Late]);
    assert_eq!((client.engine.sending(), client.engine.poll_timeout()), (0, None));
}

#[test]
fn a_send_without_an_ack_ends_at_its_deadline_and_the_stream_goes_on() {
    let mut client = client();
    let (stream, _) = client.stream();
    let lost = client.send(stream, "hey");
    client.advance_to(ms(3000));
    assert_eq!(client.take(), [Happened::Unsent(Reason::TimedOut, "request timed out".into())]);
    client.ack(CLIENT, &lost);
    assert_eq!(client.dropped(), [Reason::Late]);
    let sent = client.send(stream, "again");
    client.ack(CLIENT, &sent);
    assert_eq!(client.take(), [Happened::Sent]);
}

#[test]
fn an_ack_at_the_deadline_of_its_send_is_late() {
    let mut client = client();
    let (stream, _) = client.stream();
    let sent = client.send(stream, "hey");
    client.now = at(ms(3000));
    client.ack(CLIENT, &sent);
    assert_eq!(client.dropped(), [Reason::Late]);
    client.advance_to(ms(3000));
    assert_eq!(client.take(), [Happened::Unsent(Reason::TimedOut, "request timed out".into())]);
}

#[test]
fn an_ack_counts_for_its_own_stream_alone() {
    let mut client = client();
    let (stream, _) = client.stream();
    let (_, other) = client.stream();
    let sent = client.send(stream, "hey");
    client.ack(CLIENT, &Stream { stream_id: other.as_str().into(), ..sent });
    assert_eq!(client.dropped(), [Reason::Late]);
}

#[test]
fn an_ack_counts_for_its_own_message_alone() {
    let mut client = client();
    let (stream, _) = client.stream();
    let (first, second) = (client.send(stream, "hey"), client.send(stream, "ho"));
    client.ack(CLIENT, &second);
    assert_eq!(client.take(), [Happened::Sent]);
    client.ack(CLIENT, &second);
    assert_eq!(client.dropped(), [Reason::Late]);
    client.ack(CLIENT, &first);
    assert_eq!(client.take(), [Happened::Sent]);
}

#[test]
fn a_message_is_acknowledged_when_its_consumer_has_it() {
    let mut server = server();
    server.stream("STR_1");
    server.message(OWNER, "STR_1", "REQ_7", "hey");
    assert!(server.frames().is_empty(), "not before");
    assert_eq!(server.take(), [Happened::Message("hey".into())]);
    let acks = server.stream_frames();
    assert_eq!((body(&acks), acks[0].request_id.as_str()), (vec![&StreamBody::Ack], "REQ_7"));
}

#[test]
fn a_message_is_delivered_once() {
    let mut server = server();
    server.stream("STR_1");
    server.message(OWNER, "STR_1", "REQ_7", "hey");
    server.message(OWNER, "STR_1", "REQ_7", "hey");
    assert_eq!(server.take(), [Happened::Message("hey".into())]);
    assert_eq!(server.engine.counters().get(Reason::Duplicate), 1);
    server.advance_to(ms(10_000));
    assert_eq!((server.engine.remembered(), server.engine.poll_timeout()), (0, None));
}

#[test]
fn an_expired_message_is_dropped_with_its_lateness() {
    let mut server = server();
    server.stream("STR_1");
    let frame = server.a_frame("STR_1", "REQ_7", StreamBody::Message { payload: "hey".into() });
    server.advance_to(ms(3000));
    server.frame(OWNER, frame);
    assert_eq!(server.fates(), [crate::fixture::Fate::Dropped(Reason::ExpiredMessage)]);
}

#[test]
fn a_message_of_a_peer_that_does_not_say_when_it_sent_is_delivered() {
    let mut server = server();
    server.stream("STR_1");
    let message = StreamBody::Message { payload: "hey".into() };
    let Frame::Stream(frame) = server.a_frame("STR_1", "REQ_7", message) else { panic!() };
    server.frame(OWNER, Frame::Stream(Stream { sent_at: 0, ..frame }));
    assert_eq!(server.take(), [Happened::Message("hey".into())]);
}

#[test]
fn an_ack_whose_publish_is_not_reported_yet_takes_no_room_of_messages() {
    let mut server = server_with(|config| config.limits.streams.unread_per_stream = 1);
    server.open(OWNER, "STR_1", "REQ_STR_1");
    let received = server.received().pop().unwrap();
    server.engine.bid(server.now, received.request, 1.0);
    let _ = all_outputs(&mut server.engine);
    assert_eq!(all_published(&mut server.engine).len(), 1, "the ack of the opening");
    server.message(OWNER, "STR_1", "REQ_7", "hey");
    assert_eq!(server.take(), [Happened::Message("hey".into())]);
}

/// Invariant I10: the ends of streams wait for a full bus, but not without bound.
#[test]
fn a_full_bus_ends_the_flood_of_streams_that_open_and_end() {
    let mut server = server();
    let owner = server.subscription(OWNER);
    let update = Any { type_url: "type.googleapis.com/hats.Update".into(), value: "tide".into() };
    server.engine.publish(server.now, &crate::fixture::route("Rumour", QUEUE), update, None).unwrap();
    assert!(refuse_next(&mut server.engine).is_some());
    let mut opened = 0;
    for id in 0..70_000 {
        let open = StreamBody::Open { node_id: "CLI_1".into(), metadata: Metadata::new() };
        let frame = server.a_frame(&format!("STR_{id}"), &format!("REQ_{id}"), open);
        server.engine.handle_frame(server.now, owner, frame);
        for output in all_outputs(&mut server.engine) {
            match output {
                Output::Event(ServerEvent::Received(received)) => {
                    server.engine.bid(server.now, received.request, 1.0);
                }
                other => assert!(matches!(other, Output::Event(ServerEvent::Dropped(_))), "{other:?}"),
            }
        }
        for output in all_outputs(&mut server.engine) {
            let Output::Event(ServerEvent::Accepted { stream, .. }) = output else { continue };
            opened += 1;
            server.engine.finish_stream(server.now, stream, Ok(()));
        }
        let _ = all_outputs(&mut server.engine);
        assert!(server.engine.poll_publish().is_none(), "the bus has no room");
    }
    assert_eq!(opened, 65_536, "an ack and a close each");
    assert_eq!(server.engine.counters().get(Reason::StreamsFull), 70_000 - 65_536);
    server.engine.handle_room();
    server.stream("STR_room");
}

#[test]
fn a_full_consumer_says_nothing_until_it_takes() {
    let mut server = server_with(|config| config.limits.streams.unread_per_stream = 1);
    let stream = server.stream("STR_1");
    server.message(OWNER, "STR_1", "REQ_1", "one");
    server.message(OWNER, "STR_1", "REQ_2", "two");
    assert_eq!(server.take(), [Happened::Message("one".into())]);
    assert_eq!(server.stream_frames().len(), 1);
    assert_eq!(server.engine.counters().get(Reason::SlowConsumer), 1);
    server.engine.stream_commands().taken(stream);
    server.message(OWNER, "STR_1", "REQ_3", "three");
    assert_eq!(server.take(), [Happened::Message("three".into())]);
}

#[test]
fn a_slow_consumer_may_end_its_stream_instead() {
    let mut server = server_with(|config| {
        config.limits.streams.unread_per_stream = 1;
        config.streams.slow_consumer = SlowConsumer::Close;
    });
    server.stream("STR_1");
    server.message(OWNER, "STR_1", "REQ_1", "one");
    server.message(OWNER, "STR_1", "REQ_2", "two");
    let text = "stream message discarded by slow consumer";
    assert_eq!(
        server.take(),
        [Happened::Message("one".into()), Happened::Ended(Reason::SlowConsumer, text.into())]
    );
    assert_eq!(body(&server.stream_frames()), [&closed(ErrorCode::Unavailable, text)]);
}

#[test]
fn a_message_that_does_not_decode_ends_the_stream_and_one_that_is_refused_does_not() {
    let mut server = server();
    server.stream("STR_1");
    server.message(OWNER, "STR_1", "REQ_1", "spam");
    server.happened(|server, now, delivery| server.stream_commands().reject(now, delivery, None));
    assert!(server.stream_frames().is_empty());
    server.message(OWNER, "STR_1", "REQ_2", "\u{fffd}");
    let malformed = cause(ErrorCode::MalformedRequest, "no UTF-8");
    server.happened(|server, now, delivery| {
        server.stream_commands().reject(now, delivery, Some(malformed.clone()));
    });
    assert_eq!(body(&server.stream_frames()), [&closed(ErrorCode::MalformedRequest, "no UTF-8")]);
    assert_eq!(server.take(), [Happened::Ended(Reason::MalformedMessage, "no UTF-8".into())]);
}

#[test]
fn a_frame_of_a_stream_that_is_not_here_is_counted_and_answered_by_nothing() {
    let mut server = server();
    server.message(OWNER, "STR_9", "REQ_1", "hey");
    server.close(OWNER, "STR_9", ErrorCode::Canceled, "stream closed");
    assert_eq!(server.engine.counters().get(Reason::Elsewhere), 2);
    let mut client = client();
    client.message(CLIENT, "STR_9", "REQ_1", "hey");
    assert_eq!(client.engine.counters().get(Reason::NoStream), 1);
    assert!(server.frames().is_empty() && client.frames().is_empty());
}

#[test]
fn sends_are_bounded_and_checked() {
    let mut client = client_with(|config| {
        config.limits.streams.sends_per_stream = 1;
        config.limits.frame.frame_bytes = 100_000;
    });
    let (stream, _) = client.stream();
    let large = client.engine.stream_commands().send(client.now, stream, vec![0; 100_000], None).unwrap_err();
    assert!(matches!(large, SendError::TooLarge { .. }), "{large}");
    client.send(stream, "one");
    let refused = client.engine.stream_commands().send(client.now, stream, "two", None).unwrap_err();
    assert_eq!(refused, SendError::TooMany { limit: 1 });
}

#[test]
fn a_cause_that_nobody_would_read_is_replaced() {
    let mut server = server_with(|config| config.limits.frame.frame_bytes = 100_000);
    let stream = server.stream("STR_1");
    let large = cause(ErrorCode::NotFound, &"x".repeat(100_000));
    server.engine.finish_stream(server.now, stream, Err(large));
    server.drain();
    let frames = server.stream_frames();
    let [StreamBody::Close { code: ErrorCode::ResourceExhausted, text }] = body(&frames)[..] else {
        panic!("the stream is not closed with another cause");
    };
    assert!(text.as_str().starts_with("the cause is too large: 100"), "{text}");
    assert_eq!(server.engine.counters().get(Reason::FrameLimit), 1);
}

#[test]
fn a_send_that_nobody_waits_for_is_forgotten_and_withdrawn() {
    let mut client = client();
    let (stream, _) = client.stream();
    let send = client.engine.stream_commands().send(client.now, stream, "hey", None).unwrap();
    client.engine.stream_commands().cancel_send(send);
    assert!(is_idle(&mut client.engine));
    assert_eq!((client.engine.sending(), client.engine.poll_timeout()), (0, None));
}

#[test]
fn a_message_that_the_bus_does_not_take_fails_its_send() {
    let mut client = client();
    let (stream, _) = client.stream();
    client.engine.stream_commands().send(client.now, stream, "hey", None).unwrap();
    let (token, ..) = next_published(&mut client.engine).unwrap();
    client.engine.handle_published(client.now, token, Err(BusError::new("down")));
    client.drain();
    assert_eq!(client.take(), [Happened::Unsent(Reason::PublishFailed, "publish failed: down".into())]);
}

#[test]
fn acks_that_a_full_bus_holds_up_take_the_room_of_messages() {
    let mut server = server_with(|config| config.limits.streams.unread_per_stream = 2);
    let stream = server.stream("STR_1");
    for id in ["REQ_1", "REQ_2", "REQ_3"] {
        let frame = server.a_frame("STR_1", id, StreamBody::Message { payload: "hey".into() });
        let subscription = server.subscription(OWNER);
        server.engine.handle_frame(server.now, subscription, frame);
        let mut messages = 0;
        for output in all_outputs(&mut server.engine) {
            if let Output::Event(ServerEvent::Stream(StreamEvent::Message { delivery, .. })) = output {
                messages += 1;
                server.engine.stream_commands().taken(stream);
                server.engine.stream_commands().accept(server.now, delivery);
            }
        }
        assert_eq!(refuse_next(&mut server.engine).is_some(), id == "REQ_1", "{id}");
        assert!(is_idle(&mut server.engine));
        assert_eq!(messages, usize::from(id != "REQ_3"), "{id}");
    }
}

// --- the end -------------------------------------------------------------------------------------------------

#[test]
fn a_close_ends_both_sides_with_its_cause_and_what_is_on_its_way() {
    let mut client = client();
    let (stream, id) = client.stream();
    client.send(stream, "hey");
    client.engine.stream_commands().close(
        client.now,
        stream,
        Some(cause(ErrorCode::FailedPrecondition, "rain")),
    );
    client.drain();
    let rain = || "rain".to_owned();
    assert_eq!(
        client.take(),
        [Happened::Unsent(Reason::Closed, rain()), Happened::Ended(Reason::Closed, rain())]
    );
    assert_eq!(body(&client.stream_frames()), [&closed(ErrorCode::FailedPrecondition, "rain")]);
    assert_eq!(
        client.engine.stream_commands().send(client.now, stream, "more", None).unwrap_err(),
        SendError::Ended
    );
    client.engine.stream_commands().close(client.now, stream, None);
    assert!(is_idle(&mut client.engine), "it is closed once");

    let mut server = server();
    let stream = server.stream(&id);
    server.close(OWNER, &id, ErrorCode::FailedPrecondition, "rain");
    assert_eq!(server.take(), [Happened::Ended(Reason::ClosedByPeer, rain())]);
    assert_eq!(server.engine.streams(), 1, "its handler is not done");
    server.finish(stream, Ok(()));
    assert_eq!((server.engine.streams(), server.frames().len()), (0, 0));
}

#[test]
fn the_end_of_its_handler_ends_a_stream() {
    for (result, sent) in [
        (Ok(()), closed(ErrorCode::Canceled, "stream closed")),
        (
            Err(cause(ErrorCode::PermissionDenied, "the street is closed")),
            closed(ErrorCode::PermissionDenied, "the street is closed"),
        ),
    ] {
        let mut server = server();
        let stream = server.stream("STR_1");
        server.finish(stream, result);
        assert_eq!(body(&server.stream_frames()), [&sent]);
        assert_eq!(server.engine.streams(), 0);
    }
}

#[test]
fn a_late_close_is_a_close() {
    let mut client = client();
    let (_, id) = client.stream();
    let frame = client.a_frame(&id, "REQ_1", closed(ErrorCode::Unavailable, "EOF"));
    client.advance_to(ms(60_000));
    client.frame(CLIENT, frame);
    assert_eq!(client.take(), [Happened::Ended(Reason::ClosedByPeer, "EOF".into())]);
}

#[test]
fn an_idle_stream_ends_when_that_is_asked_for() {
    let mut client = client_with(|config| config.streams.idle_timeout = Some(ms(1000)));
    let (_, id) = client.stream();
    client.advance_to(ms(600));
    client.message(CLIENT, &id, "REQ_1", "hey");
    client.advance_to(ms(1599));
    assert_eq!(client.take(), [Happened::Message("hey".into())]);
    client.advance_to(ms(1600));
    let text = "stream was idle for too long";
    assert_eq!(client.take(), [Happened::Ended(Reason::Idle, text.into())]);
    assert_eq!(body(&client.stream_frames())[1..], [&closed(ErrorCode::DeadlineExceeded, text)]);
    client.advance_to(ms(10_000));
    assert_eq!((client.engine.streams(), client.engine.poll_timeout()), (0, None));
}

#[test]
fn a_silent_stream_lives_on_by_default() {
    let mut client = client();
    let (stream, _) = client.stream();
    client.advance_to(Duration::from_secs(86_400));
    assert_eq!(client.take(), []);
    client.send(stream, "still here");
}

#[test]
fn the_close_of_a_client_ends_its_streams_and_openings() {
    let mut client = client();
    let (_, id) = client.stream();
    let (_, opening) = client.opening(OpenStream::new(parade()));
    client.engine.close(client.now);
    client.drain();
    let frames = client.stream_frames();
    let mut told: Vec<_> =
        frames.iter().map(|frame| (frame.stream_id.as_str(), frame.body.clone().unwrap())).collect();
    told.sort_by_key(|(stream, _)| *stream == opening.stream_id.as_str());
    let expected = [
        (id.as_str(), closed(ErrorCode::Canceled, "stream closed")),
        (opening.stream_id.as_str(), closed(ErrorCode::Canceled, "client is closed")),
    ];
    assert_eq!(told, expected);
    let mut events = client.events().into_iter();
    assert!(events.any(|event| matches!(
        event,
        ClientEvent::Opened { outcome: Err(failure), .. } if failure.reason == Reason::ClientClosed
    )));
    assert!(events.any(|event| matches!(
        event,
        ClientEvent::Stream(StreamEvent::Ended { cause, .. })
            if cause.reason == Reason::ClientClosed && cause.text == "client is closed"
    )));
    assert_eq!(client.engine.streams(), 0);
}

#[test]
fn a_drain_ends_streams_and_gives_their_handlers_one_second() {
    let mut server = server();
    let (first, _) = (server.stream("STR_1"), server.stream("STR_2"));
    server.engine.drain(server.now);
    server.drain();
    server.confirm_unsubscribed();
    let eof = || Happened::Ended(Reason::Eof, "EOF".into());
    assert_eq!(server.take(), [eof(), eof()]);
    assert_eq!(body(&server.stream_frames()), [&closed(ErrorCode::Unavailable, "EOF"); 2]);
    server.finish(first, Ok(()));
    server.advance_to(ms(999));
    assert!(server.events().is_empty());
    assert_eq!(server.engine.poll_timeout().unwrap().kind, TimerKind::Linger);
    server.advance_to(ms(1000));
    server.confirm_unsubscribed();
    let events = server.events();
    assert!(events.iter().any(|event| matches!(event, ServerEvent::StopHandler { .. })), "{events:?}");
    assert!(events.iter().any(|event| matches!(event, ServerEvent::Closed)), "{events:?}");
    assert_eq!(server.engine.poll_timeout(), None);
}

#[test]
fn a_stream_that_is_granted_while_the_server_drains_sees_eof_at_once() {
    let mut server = server();
    server.open(SERVER, "STR_1", "REQ_1");
    server.admit();
    server.engine.drain(server.now);
    server.drain();
    server.frames();
    server.grant("Parade", "REQ_1", "SRV_1");
    assert!(server.accepted().is_none());
    assert_eq!(body(&server.stream_frames()), [&closed(ErrorCode::Unavailable, "EOF")]);
    server.open(SERVER, "STR_2", "REQ_2");
    let received = server.received().pop().unwrap();
    server.bid(received.request, 1.0);
    assert_eq!(server.fates(), [crate::fixture::Fate::Abandoned(Reason::Draining)]);
}

#[test]
fn deregistering_ends_the_streams_of_a_method_and_waits_for_their_handlers() {
    let mut server = Driven::server(&[]);
    let registration = server.register(&[owner_parade()]);
    server.register(&[parade()]);
    server.events();
    let stream = server.stream("STR_1");
    server.open(SERVER, "STR_2", "REQ_2");
    server.admit();
    server.grant("Parade", "REQ_2", "SRV_1");
    assert!(server.accepted().is_some());
    server.engine.deregister(server.now, registration);
    server.drain();
    server.confirm_unsubscribed();
    let events = server.events();
    assert!(matches!(&events[..], [ServerEvent::Stream(StreamEvent::Ended { .. })]), "{events:?}");
    server.finish(stream, Ok(()));
    assert!(matches!(server.events()[..], [ServerEvent::Deregistered { .. }]));
    assert_eq!(server.engine.streams(), 1);
}

#[test]
fn a_killed_server_tells_its_clients_and_stops_its_handlers() {
    let mut server = server();
    server.stream("STR_1");
    server.engine.kill(server.now);
    server.drain();
    assert_eq!(body(&server.stream_frames()), [&closed(ErrorCode::Unavailable, "EOF")]);
    let events = server.events();
    assert!(
        matches!(
            &events[..],
            [
                ServerEvent::Stream(StreamEvent::Ended { .. }),
                ServerEvent::StopHandler { .. },
                ServerEvent::Closed
            ]
        ),
        "{events:?}"
    );
    assert_eq!((server.engine.streams(), server.engine.poll_timeout()), (0, None));
}

#[test]
fn ten_thousand_streams_share_one_channel() {
    let mut client = client();
    let subscriptions = client.subscriptions.len();
    let streams: Vec<_> = (0..10_000).map(|_| client.stream()).collect();
    assert_eq!(client.subscriptions.len(), subscriptions);
    for (_, id) in streams.iter().step_by(997) {
        client.message(CLIENT, id, "REQ_1", "hey");
        assert_eq!(client.take(), [Happened::Message("hey".into())]);
    }
}

#[test]
fn requests_beyond_the_concurrency_limit_get_no_bid_and_on_a_queue_an_answer() {
    let mut config = ServerConfig::new("Hats");
    config.concurrency = Some(1);
    let affinity = MethodProperties { routing: Routing::Affinity, require_claim: true };
    let routes =
        [crate::fixture::route("Fit", QUEUE), crate::fixture::route("Pick", affinity), owner_parade()];
    let mut server = Driven::server_with(config, &routes);
    let first = server.accept("Fit", "REQ_1", ms(1000));
    server.bid(first, 1.0);
    server.frames();
    server.receive("Pick", "REQ_2", ms(1000));
    assert!(server.frames().is_empty());
    server.receive("Fit", "REQ_3", ms(1000));
    let frames = server.frames();
    let [(_, Frame::Response(response))] = &frames[..] else { panic!("{frames:?}") };
    assert_eq!(response.result.as_ref().unwrap_err().code, ErrorCode::ResourceExhausted);
    assert_eq!(server.engine.counters().get(Reason::Busy), 2);
    server.stream("STR_1");
    server.grant("Fit", "REQ_1", "SRV_1");
    server.respond(first);
    let next = server.accept("Fit", "REQ_4", ms(1000));
    server.bid(next, 1.0);
    server.advance_to(ms(1000));
    server.accept("Fit", "REQ_5", ms(1000));
}

/// Invariant I14: a drain that meets a full bus waits for room, and not for ever.
#[test]
fn a_drained_server_is_closed_when_the_bus_has_the_ends_of_its_streams() {
    for room in [true, false] {
        let mut server = server();
        let stream = server.stream("STR_1");
        server.engine.drain(server.now);
        server.engine.finish_stream(server.now, stream, Ok(()));
        for output in all_outputs(&mut server.engine) {
            match output {
                Output::Unsubscribe { subscription } => server.unsubscribed.push(subscription),
                other => assert!(!matches!(other, Output::Event(ServerEvent::Closed)), "it waits for room"),
            }
        }
        assert!(refuse_next(&mut server.engine).is_some(), "the end of the stream");
        assert!(is_idle(&mut server.engine), "it waits for room");
        server.confirm_unsubscribed();
        // The grant channels are given up after the request channels.
        server.confirm_unsubscribed();
        assert!(!server.events().iter().any(|event| matches!(event, ServerEvent::Closed)));
        if room {
            server.engine.handle_room();
            server.drain();
            assert_eq!(body(&server.stream_frames()), [&self::closed(ErrorCode::Unavailable, "EOF")]);
        } else {
            server.advance_to(ms(3000));
        }
        assert!(matches!(server.events()[..], [.., ServerEvent::Closed]));
    }
}

#[test]
fn a_client_is_closed_when_the_bus_has_the_ends_of_its_streams() {
    for room in [true, false] {
        let mut client = client();
        client.stream();
        client.engine.close(client.now);
        for output in all_outputs(&mut client.engine) {
            if let Output::Unsubscribe { subscription } = output {
                client.unsubscribed.push(subscription);
            }
        }
        assert!(refuse_next(&mut client.engine).is_some(), "the end of the stream");
        assert!(is_idle(&mut client.engine), "it waits for room");
        client.confirm_unsubscribed();
        assert!(client.events().is_empty(), "it waits for room");
        if room {
            client.engine.handle_room();
            client.drain();
            assert_eq!(body(&client.stream_frames()), [&closed(ErrorCode::Canceled, "stream closed")]);
        } else {
            client.advance_to(ms(3000));
        }
        assert!(matches!(client.events()[..], [ClientEvent::Closed { error: None }]));
    }
}
