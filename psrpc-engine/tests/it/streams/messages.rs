//! Tests of stream messages and their acks.

use super::*;

#[test]
fn a_send_resolves_with_its_ack() {
    let mut client = client();
    let (stream, id) = client.stream();
    let sent = client.send(stream, "hey");
    assert_eq!(sent.stream_id.as_str(), id);
    assert_eq!(client.take(), []);
    client.ack(CLIENT, &sent);
    assert_eq!(client.take(), [Observed::Sent]);
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
    assert_eq!(client.take(), [Observed::Unsent(Reason::TimedOut, "request timed out".into())]);
    client.ack(CLIENT, &lost);
    assert_eq!(client.dropped(), [Reason::Late]);
    let sent = client.send(stream, "again");
    client.ack(CLIENT, &sent);
    assert_eq!(client.take(), [Observed::Sent]);
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
    assert_eq!(client.take(), [Observed::Unsent(Reason::TimedOut, "request timed out".into())]);
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
    assert_eq!(client.take(), [Observed::Sent]);
    client.ack(CLIENT, &second);
    assert_eq!(client.dropped(), [Reason::Late]);
    client.ack(CLIENT, &first);
    assert_eq!(client.take(), [Observed::Sent]);
}

#[test]
fn a_message_is_acknowledged_when_its_consumer_has_it() {
    let mut server = server();
    server.stream("STR_1");
    server.message(OWNER, "STR_1", "REQ_7", "hey");
    assert!(server.frames().is_empty(), "not before");
    assert_eq!(server.take(), [Observed::Message("hey".into())]);
    let acks = server.stream_frames();
    assert_eq!((body(&acks), acks[0].request_id.as_str()), (vec![&StreamBody::Ack], "REQ_7"));
}

#[test]
fn a_message_is_delivered_once() {
    let mut server = server();
    server.stream("STR_1");
    server.message(OWNER, "STR_1", "REQ_7", "hey");
    server.message(OWNER, "STR_1", "REQ_7", "hey");
    assert_eq!(server.take(), [Observed::Message("hey".into())]);
    assert_eq!(server.engine.counters().get(Reason::Duplicate), 1);
    server.advance_to(ms(10_000));
    assert_eq!((server.engine.remembered(), server.engine.poll_timeout()), (0, None));
}

#[test]
fn an_expired_message_is_dropped_with_its_lateness() {
    let mut server = server();
    server.stream("STR_1");
    let frame = server.new_frame("STR_1", "REQ_7", StreamBody::Message { payload: "hey".into() });
    server.advance_to(ms(3000));
    server.frame(OWNER, frame);
    assert_eq!(server.request_events(), [crate::fixture::RequestEvent::Dropped(Reason::ExpiredMessage)]);
}

#[test]
fn a_message_without_sent_at_is_delivered() {
    let mut server = server();
    server.stream("STR_1");
    let message = StreamBody::Message { payload: "hey".into() };
    let Frame::Stream(frame) = server.new_frame("STR_1", "REQ_7", message) else { panic!() };
    server.frame(OWNER, Frame::Stream(Stream { sent_at: 0, ..frame }));
    assert_eq!(server.take(), [Observed::Message("hey".into())]);
}

#[test]
fn an_ack_that_the_bus_has_taken_does_not_count_as_unread() {
    let mut server = server_with(|config| config.limits.streams.unread_per_stream = 1);
    server.open(OWNER, "STR_1", "REQ_STR_1");
    let received = server.received().pop().unwrap();
    server.engine.bid(server.now, received.request, 1.0);
    let _ = all_outputs(&mut server.engine);
    assert_eq!(all_published(&mut server.engine).len(), 1, "the ack of the opening");
    server.message(OWNER, "STR_1", "REQ_7", "hey");
    assert_eq!(server.take(), [Observed::Message("hey".into())]);
}

/// Invariant I10: the number of stream closes that wait for room on the bus is bounded.
#[test]
fn a_full_bus_bounds_a_flood_of_short_streams() {
    let mut server = server();
    let owner = server.subscription(OWNER);
    let update = Any { type_url: "type.googleapis.com/hats.Update".into(), value: "tide".into() };
    server.engine.publish(server.now, &crate::fixture::route("Rumour", QUEUE), update, None).unwrap();
    assert!(refuse_next(&mut server.engine).is_some());
    let mut opened = 0;
    for id in 0..70_000 {
        let open = StreamBody::Open { node_id: "CLI_1".into(), metadata: Metadata::new() };
        let frame = server.new_frame(&format!("STR_{id}"), &format!("REQ_{id}"), open);
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
fn a_full_consumer_that_discards_gets_no_ack_until_it_takes_a_message() {
    let mut server = server_with(|config| {
        config.limits.streams.unread_per_stream = 1;
        config.streams.slow_consumer = SlowConsumer::Discard;
    });
    let stream = server.stream("STR_1");
    server.message(OWNER, "STR_1", "REQ_1", "one");
    server.message(OWNER, "STR_1", "REQ_2", "two");
    assert_eq!(server.take(), [Observed::Message("one".into())]);
    assert_eq!(server.stream_frames().len(), 1);
    assert_eq!(server.engine.counters().get(Reason::SlowConsumer), 1);
    server.taken(stream);
    server.message(OWNER, "STR_1", "REQ_3", "three");
    assert_eq!(server.take(), [Observed::Message("three".into())]);
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
        [Observed::Message("one".into()), Observed::Ended(Reason::SlowConsumer, text.into())]
    );
    assert_eq!(body(&server.stream_frames()), [&closed(ErrorCode::Unavailable, text)]);
}

#[test]
fn a_message_that_does_not_decode_ends_the_stream_and_one_that_is_refused_does_not() {
    let mut server = server();
    server.stream("STR_1");
    server.message(OWNER, "STR_1", "REQ_1", "spam");
    server.observe(|server, now, delivery| server.stream_commands().reject(now, delivery, None));
    assert!(server.stream_frames().is_empty());
    server.message(OWNER, "STR_1", "REQ_2", "\u{fffd}");
    let malformed = cause(ErrorCode::MalformedRequest, "no UTF-8");
    server.observe(|server, now, delivery| {
        server.stream_commands().reject(now, delivery, Some(malformed.clone()));
    });
    assert_eq!(body(&server.stream_frames()), [&closed(ErrorCode::MalformedRequest, "no UTF-8")]);
    assert_eq!(server.take(), [Observed::Ended(Reason::MalformedMessage, "no UTF-8".into())]);
}

#[test]
fn a_frame_of_an_unknown_stream_is_counted_and_ignored() {
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
fn a_cause_over_the_frame_limit_is_replaced() {
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
fn a_canceled_send_is_withdrawn() {
    let mut client = client();
    let (stream, _) = client.stream();
    let send = client.engine.stream_commands().send(client.now, stream, "hey", None).unwrap();
    client.engine.stream_commands().cancel_send(client.now, send);
    assert!(is_idle(&mut client.engine));
    assert_eq!((client.engine.sending(), client.engine.poll_timeout()), (0, None));
}

#[test]
fn a_message_that_the_bus_refuses_fails_its_send() {
    let mut client = client();
    let (stream, _) = client.stream();
    client.engine.stream_commands().send(client.now, stream, "hey", None).unwrap();
    let (token, ..) = next_published(&mut client.engine).unwrap();
    client.engine.handle_published(client.now, token, Err(BusError::new("down")));
    client.drain();
    assert_eq!(client.take(), [Observed::Unsent(Reason::PublishFailed, "publish failed: down".into())]);
}

#[test]
fn acks_that_wait_for_a_full_bus_count_as_unread_messages() {
    let mut server = server_with(|config| config.limits.streams.unread_per_stream = 2);
    let stream = server.stream("STR_1");
    for id in ["REQ_1", "REQ_2", "REQ_3"] {
        let frame = server.new_frame("STR_1", id, StreamBody::Message { payload: "hey".into() });
        let subscription = server.subscription(OWNER);
        server.engine.handle_frame(server.now, subscription, frame);
        let mut messages = 0;
        for output in all_outputs(&mut server.engine) {
            if let Output::Event(ServerEvent::Stream(StreamEvent::Message { delivery, .. })) = output {
                messages += 1;
                assert!(!server.engine.stream_commands().taken(stream), "nothing is held back");
                server.engine.stream_commands().accept(server.now, delivery);
            }
        }
        assert_eq!(refuse_next(&mut server.engine).is_some(), id == "REQ_1", "{id}");
        assert!(is_idle(&mut server.engine));
        assert_eq!(messages, usize::from(id != "REQ_3"), "{id}");
    }
}
