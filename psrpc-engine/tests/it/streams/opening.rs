//! Tests of opening a stream, on the client and on the server.

use super::*;

#[test]
fn a_claimed_stream_is_granted_and_open_with_its_ack() {
    let mut client = client();
    let metadata = Metadata::from_iter([("band", "brass")]);
    let (_, open) = client.opening(OpenStream { metadata: metadata.clone(), ..OpenStream::new(parade()) });
    assert_eq!(open.expiry - open.sent_at, 3_000_000_000);
    assert_eq!(open.body, Some(StreamBody::Open { node_id: "CLI_1".into(), metadata }));
    client.ack(CLIENT, &open);
    assert!(client.opened().is_none(), "no server has a grant yet");
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
fn a_message_from_the_server_counts_as_the_ack_of_the_opening() {
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
fn an_opening_without_bids_sends_a_close() {
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
fn an_opening_that_reaches_nobody_fails_at_once_unless_it_waits() {
    let mut client = client();
    client.receivers = Some(0);
    client.engine.open_stream(client.now, OpenStream::new(parade())).unwrap();
    client.drain();
    assert_eq!(client.opened().unwrap().unwrap_err().reason, Reason::NobodySubscribed);
    assert_eq!((client.engine.streams(), client.engine.poll_timeout()), (0, None));
    let waiting = OpenStream { waits_for_subscriber: true, ..OpenStream::new(parade()) };
    client.engine.open_stream(client.now, waiting).unwrap();
    client.drain();
    client.receivers = Some(1);
    client.advance_to(ms(5));
    client.advance_to(ms(999));
    assert!(client.opened().is_none());
    client.advance_to(ms(1005));
    assert_eq!(client.opened().unwrap().unwrap_err().reason, Reason::NoResponse);
}

#[test]
fn an_opening_that_a_server_takes_or_refuses_at_its_deadline_has_timed_out() {
    type Reaction = fn(&mut Driven<Client>, &Stream);
    let reactions: [Reaction; 3] = [
        |client, open| client.ack(CLIENT, open),
        |client, open| client.message(CLIENT, open.stream_id.as_str(), "REQ_1", "hello"),
        |client, open| client.close(CLIENT, open.stream_id.as_str(), ErrorCode::NotFound, "no band"),
    ];
    for react in reactions {
        let mut client = client();
        let (_, open) = client.opening(OpenStream::new(owner_parade()));
        client.now = at(ms(3000));
        react(&mut client, &open);
        assert_eq!(client.dropped(), [Reason::Late]);
        client.advance_to(ms(3000));
        assert_eq!(client.opened().unwrap().unwrap_err().reason, Reason::TimedOut);
        let frames = client.stream_frames();
        assert_eq!(body(&frames), [&closed(ErrorCode::DeadlineExceeded, "request timed out")]);
    }
}

#[test]
fn a_canceled_opening_grants_no_server_and_sends_a_close() {
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
    assert!(client.frames().is_empty(), "it needs no close");
    assert_eq!(client.engine.streams(), 0);
}

#[test]
fn an_opening_refused_by_one_server_sends_a_close_to_the_granted_one() {
    let mut client = client();
    let (_, open) = client.opening(OpenStream::new(parade()));
    client.claim_stream(&open, "SRV_2");
    client.frames();
    // A late close from a server that could not decode the opening.
    client.close(CLIENT, open.stream_id.as_str(), ErrorCode::MalformedRequest, "what?");
    assert_eq!(client.opened().unwrap().unwrap_err().reason, Reason::Answered);
    assert_eq!(body(&client.stream_frames()), [&closed(ErrorCode::MalformedRequest, "what?")]);
}

#[test]
fn streams_that_cannot_be_opened_are_refused() {
    let mut closed = Driven::client();
    let refused = closed.engine.open_stream(closed.now, OpenStream::new(parade())).unwrap_err();
    assert_eq!(refused, CallError::NoStreams { method: "Parade".into() });
    let mut client = client_with(|config| config.limits.streams.streams = 1);
    let unary = OpenStream::new(crate::fixture::route("Fit", QUEUE));
    let refused = client.engine.open_stream(client.now, unary).unwrap_err();
    assert_eq!(refused.to_string(), "Fit is not a stream method: call it instead of opening a stream");
    let call = psrpc_engine::Call::new(parade(), "");
    let refused = client.engine.call(client.now, call).unwrap_err();
    assert_eq!(refused.to_string(), "Parade is a stream method: open a stream instead of calling it");
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
            assert!(client.frames().is_empty(), "neither an opening nor a close is published");
            assert_eq!((client.engine.streams(), client.engine.in_flight()), (2, 1));
        }
        // Open streams and pending openings go on.
        let message = client.send(stream, "hey");
        client.ack(CLIENT, &message);
        assert_eq!(client.take(), [Observed::Sent]);
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
fn an_unsent_opening_needs_no_close() {
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
fn a_refused_lock_is_no_evidence_for_an_opening() {
    let mut client = client();
    client.opening(OpenStream::new(parade()));
    client.engine.lock_refused(client.now, &BusError::new("NOPERM"));
    client.advance_to(ms(3000));
    let failure = client.opened().unwrap().unwrap_err();
    assert_eq!(failure.evidence.lock_refusal, None, "the bus delivers openings to every server");
}

#[test]
fn a_server_bids_for_a_stream_and_acknowledges_it_when_granted() {
    let mut server = server();
    server.open(SERVER, "STR_1", "REQ_1");
    let received = server.bid_for_opening();
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
    let dropped: Vec<_> = server.request_events();
    assert_eq!(dropped, [crate::fixture::RequestEvent::Dropped(Reason::Duplicate); 2]);
    server.finish(stream, Ok(()));
    server.open(OWNER, "STR_1", "REQ_3");
    assert!(server.received().is_empty(), "not even after its end");
}

#[test]
fn two_clients_with_one_stream_id_get_one_stream() {
    let mut server = server();
    server.stream("STR_1");
    let open = StreamBody::Open { node_id: "CLI_2".into(), metadata: Metadata::new() };
    let frame = server.new_frame("STR_1", "REQ_2", open);
    server.frame(OWNER, frame);
    assert_eq!(server.request_events(), [crate::fixture::RequestEvent::Dropped(Reason::IdTaken)]);
}

#[test]
fn a_close_before_the_grant_abandons_the_opening() {
    let mut server = server();
    server.open(SERVER, "STR_1", "REQ_1");
    server.bid_for_opening();
    server.close(SERVER, "STR_1", ErrorCode::Canceled, "request canceled");
    assert_eq!(server.request_events(), [crate::fixture::RequestEvent::Abandoned(Reason::ClosedByPeer)]);
    server.grant("Parade", "REQ_1", "SRV_1");
    assert!(server.accepted().is_none());
    assert_eq!(server.engine.in_flight(), 0);
}

#[test]
fn a_full_server_closes_the_stream_only_if_no_other_server_can_take_it() {
    let mut server = server_with(|config| config.limits.streams.streams = 1);
    server.stream("STR_1");
    server.open(SERVER, "STR_2", "REQ_2");
    server.open(OWNER, "STR_3", "REQ_3");
    assert_eq!(server.request_events(), [crate::fixture::RequestEvent::Dropped(Reason::StreamsFull); 2]);
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
