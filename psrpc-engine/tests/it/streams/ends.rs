//! Tests of how streams end.

use super::*;

#[test]
fn a_close_ends_both_sides_and_pending_sends_with_its_cause() {
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
        [Observed::Unsent(Reason::Closed, rain()), Observed::Ended(Reason::Closed, rain())]
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
    assert_eq!(server.take(), [Observed::Ended(Reason::ClosedByPeer, rain())]);
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
fn a_close_is_accepted_after_its_expiry() {
    let mut client = client();
    let (_, id) = client.stream();
    let frame = client.new_frame(&id, "REQ_1", closed(ErrorCode::Unavailable, "EOF"));
    client.advance_to(ms(60_000));
    client.frame(CLIENT, frame);
    assert_eq!(client.take(), [Observed::Ended(Reason::ClosedByPeer, "EOF".into())]);
}

#[test]
fn an_idle_stream_ends_if_an_idle_timeout_is_set() {
    let mut client = client_with(|config| config.streams.idle_timeout = Some(ms(1000)));
    let (_, id) = client.stream();
    client.advance_to(ms(600));
    client.message(CLIENT, &id, "REQ_1", "hey");
    client.advance_to(ms(1599));
    assert_eq!(client.take(), [Observed::Message("hey".into())]);
    client.advance_to(ms(1600));
    let text = "stream was idle for too long";
    assert_eq!(client.take(), [Observed::Ended(Reason::Idle, text.into())]);
    assert_eq!(body(&client.stream_frames())[1..], [&closed(ErrorCode::DeadlineExceeded, text)]);
    client.advance_to(ms(10_000));
    assert_eq!((client.engine.streams(), client.engine.poll_timeout()), (0, None));
}

#[test]
fn a_silent_stream_stays_open_by_default() {
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
    let mut closes: Vec<_> =
        frames.iter().map(|frame| (frame.stream_id.as_str(), frame.body.clone().unwrap())).collect();
    closes.sort_by_key(|(stream, _)| *stream == opening.stream_id.as_str());
    let expected = [
        (id.as_str(), closed(ErrorCode::Canceled, "stream closed")),
        (opening.stream_id.as_str(), closed(ErrorCode::Canceled, "client is closed")),
    ];
    assert_eq!(closes, expected);
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
    let eof = || Observed::Ended(Reason::Eof, "EOF".into());
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
    server.bid_for_opening();
    server.engine.drain(server.now);
    server.drain();
    server.frames();
    server.grant("Parade", "REQ_1", "SRV_1");
    assert!(server.accepted().is_none());
    assert_eq!(body(&server.stream_frames()), [&closed(ErrorCode::Unavailable, "EOF")]);
    server.open(SERVER, "STR_2", "REQ_2");
    let received = server.received().pop().unwrap();
    server.bid(received.request, 1.0);
    assert_eq!(server.request_events(), [crate::fixture::RequestEvent::Abandoned(Reason::Draining)]);
}

#[test]
fn deregistering_ends_the_streams_of_a_method_and_waits_for_their_handlers() {
    let mut server = Driven::server(&[]);
    let registration = server.register(&[owner_parade()]);
    server.register(&[parade()]);
    server.events();
    let stream = server.stream("STR_1");
    server.open(SERVER, "STR_2", "REQ_2");
    server.bid_for_opening();
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
fn a_killed_server_closes_its_streams_and_stops_their_handlers() {
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
        assert_eq!(client.take(), [Observed::Message("hey".into())]);
    }
}

#[test]
fn requests_beyond_the_concurrency_limit_get_no_bid_and_on_a_queue_an_error() {
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

/// Invariant I14: a drain waits until a full bus has room, but not forever.
#[test]
fn a_drained_server_closes_once_the_bus_has_its_stream_closes() {
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
        // The server unsubscribes from grants after it has unsubscribed from requests.
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
fn a_client_closes_once_the_bus_has_its_stream_closes() {
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
