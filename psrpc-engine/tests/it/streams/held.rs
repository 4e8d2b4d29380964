//! Tests of messages that are held back until their consumer has room.

use super::*;

/// A server whose streams have room for one message, and hold back those that follow.
fn narrow_server(change: impl FnOnce(&mut ServerConfig)) -> Driven<Server> {
    server_with(|config| {
        config.limits.streams.unread_per_stream = 1;
        change(config);
    })
}

fn messages(server: &mut Driven<Server>, stream: &str, ids: std::ops::Range<u32>) {
    for id in ids {
        server.message(OWNER, stream, &format!("REQ_{stream}_{id}"), "hey");
    }
}

/// Takes the events, and returns the reasons of the dropped frames.
fn dropped(server: &mut Driven<Server>) -> Vec<Reason> {
    let events = server.events().into_iter().filter_map(|event| match event {
        ServerEvent::Dropped(dropped) => Some(dropped.reason),
        _ => None,
    });
    events.collect()
}

fn discarded(server: &Driven<Server>) -> u64 {
    server.engine.counters().get(Reason::SlowConsumer)
}

#[test]
fn a_message_without_room_is_delivered_and_acknowledged_once_there_is_room() {
    let mut server = narrow_server(|_| ());
    let stream = server.stream("STR_1");
    for (id, text) in [("REQ_1", "one"), ("REQ_2", "two"), ("REQ_3", "three")] {
        server.message(OWNER, "STR_1", id, text);
    }
    assert_eq!(server.take(), [Observed::Message("one".into())]);
    assert_eq!(server.stream_frames()[0].request_id.as_str(), "REQ_1");
    assert_eq!(server.engine.held(), 2);
    for (id, text) in [("REQ_2", "two"), ("REQ_3", "three")] {
        server.taken(stream);
        assert!(server.stream_frames().is_empty(), "no ack before the consumer has it");
        assert_eq!(server.take(), [Observed::Message(text.into())]);
        let acks = server.stream_frames();
        assert_eq!((body(&acks), acks[0].request_id.as_str()), (vec![&StreamBody::Ack], id));
    }
    assert_eq!((server.engine.held(), discarded(&server)), (0, 0));
}

#[test]
fn a_message_does_not_overtake_those_that_are_held_back() {
    let mut server = narrow_server(|_| ());
    let stream = server.stream("STR_1");
    for (id, text) in [("REQ_1", "one"), ("REQ_2", "two")] {
        server.message(OWNER, "STR_1", id, text);
    }
    assert_eq!(server.take(), [Observed::Message("one".into())]);
    assert!(server.engine.stream_commands().taken(stream));
    server.message(OWNER, "STR_1", "REQ_3", "three");
    server.engine.stream_commands().release(server.now, stream);
    server.drain();
    assert_eq!(server.take(), [Observed::Message("two".into())]);
    server.taken(stream);
    assert_eq!(server.take(), [Observed::Message("three".into())]);
}

#[test]
fn a_message_that_is_rejected_makes_room() {
    let mut server = narrow_server(|_| ());
    server.stream("STR_1");
    messages(&mut server, "STR_1", 0..2);
    server.observe(|server, now, delivery| server.stream_commands().reject(now, delivery, None));
    assert_eq!(server.take(), [Observed::Message("hey".into())]);
}

/// The allowance for skewed clocks does not count: the sender has given up, and may have sent the
/// message again.
#[test]
fn a_message_that_is_held_back_expires_at_its_own_expiry() {
    let mut server = narrow_server(|config| config.skew_allowance = ms(1000));
    let stream = server.stream("STR_1");
    messages(&mut server, "STR_1", 0..2);
    server.take();
    server.advance_to(ms(2999));
    assert_eq!(server.engine.held(), 1);
    let timeout = server.engine.poll_timeout().unwrap();
    assert_eq!((timeout.at, timeout.kind), (at(ms(3000)).time, TimerKind::Expiry));
    server.advance_to(ms(3000));
    assert_eq!(dropped(&mut server), [Reason::SlowConsumer]);
    assert_eq!(server.engine.held(), 0);
    server.taken(stream);
    assert_eq!(server.take(), []);
    // Within the allowance, a message is delivered if there is room, and not held back otherwise.
    for (id, reasons) in [("REQ_late", vec![]), ("REQ_later", vec![Reason::SlowConsumer])] {
        let message = StreamBody::Message { payload: "late".into() };
        let Frame::Stream(frame) = server.new_frame("STR_1", id, message) else { panic!() };
        let expiry = server.now.wall.as_unix_nanos();
        server.frame(OWNER, Frame::Stream(Stream { sent_at: expiry - 1, expiry, ..frame }));
        assert_eq!(dropped(&mut server), reasons, "{id}");
    }
}

#[test]
fn messages_that_are_held_back_expire_in_the_order_of_their_expiries() {
    let mut server = narrow_server(|_| ());
    let stream = server.stream("STR_1");
    for (id, millis) in [("REQ_1", 9000), ("REQ_2", 500), ("REQ_3", 200), ("REQ_4", 900)] {
        let message = StreamBody::Message { payload: id.as_bytes().into() };
        let Frame::Stream(frame) = server.new_frame("STR_1", id, message) else { panic!() };
        let expiry = frame.sent_at + millis * 1_000_000;
        server.frame(OWNER, Frame::Stream(Stream { expiry, ..frame }));
    }
    assert_eq!(server.take(), [Observed::Message("REQ_1".into())]);
    for (millis, held) in [(199, 3), (200, 2), (499, 2), (500, 1)] {
        server.advance_to(ms(millis));
        assert_eq!(server.engine.held(), held, "after {millis} ms");
    }
    server.taken(stream);
    assert_eq!(server.take(), [Observed::Message("REQ_4".into())]);
}

#[test]
fn a_message_that_has_expired_by_the_wall_clock_is_not_released() {
    let mut server = narrow_server(|_| ());
    let stream = server.stream("STR_1");
    messages(&mut server, "STR_1", 0..2);
    server.take();
    server.now.wall = at(ms(3000)).wall;
    server.taken(stream);
    assert_eq!(dropped(&mut server), [Reason::SlowConsumer]);
    assert_eq!(server.engine.held(), 0);
}

#[test]
fn a_duplicate_of_a_message_that_is_held_back_is_dropped() {
    let mut server = narrow_server(|_| ());
    let stream = server.stream("STR_1");
    for id in ["REQ_1", "REQ_2", "REQ_2"] {
        server.message(OWNER, "STR_1", id, "hey");
    }
    assert_eq!(server.take(), [Observed::Message("hey".into())]);
    assert_eq!((server.engine.held(), server.engine.counters().get(Reason::Duplicate)), (1, 1));
    server.taken(stream);
    assert_eq!(server.take(), [Observed::Message("hey".into())]);
}

/// Invariant I10.
#[test]
fn what_is_held_back_is_bounded_in_each_stream_and_in_all() {
    let mut server = narrow_server(|config| {
        let limits = &mut config.limits.streams;
        (limits.held_per_stream, limits.held_bytes_per_stream) = (3, 7);
        (limits.held, limits.held_bytes) = (5, 13);
    });
    for (stream, text, held, discards) in [
        // One is delivered. Three of two bytes are held back.
        ("STR_1", "ab", 3, 2),
        // Two of three bytes fit into the seven of the stream, and reach the five of all.
        ("STR_2", "abc", 5, 5),
        ("STR_3", "", 5, 10),
    ] {
        server.stream(stream);
        for id in 0..6 {
            server.message(OWNER, stream, &format!("REQ_{stream}_{id}"), text);
        }
        assert_eq!((server.engine.held(), discarded(&server)), (held, discards), "{stream}");
    }
    // Six bytes leave room for seven of the thirteen.
    let first = server.engine.held();
    server.close(OWNER, "STR_2", ErrorCode::Canceled, "stream closed");
    assert_eq!((first, server.engine.held()), (5, 3), "the end of a stream makes room for others");
    server.message(OWNER, "STR_3", "REQ_large", "abcdefgh");
    server.message(OWNER, "STR_3", "REQ_fits", "abcdefg");
    server.message(OWNER, "STR_3", "REQ_none_left", "a");
    server.message(OWNER, "STR_3", "REQ_empty", "");
    assert_eq!(server.engine.held(), 5);
}

#[test]
fn a_stream_that_ends_drops_what_it_holds_back() {
    let mut server = narrow_server(|_| ());
    let stream = server.stream("STR_1");
    messages(&mut server, "STR_1", 0..4);
    server.close(OWNER, "STR_1", ErrorCode::Canceled, "stream closed");
    let observed = server.take();
    let ended = Observed::Ended(Reason::ClosedByPeer, "stream closed".into());
    assert_eq!(observed, [Observed::Message("hey".into()), ended]);
    assert_eq!((server.engine.held(), discarded(&server)), (0, 3));
    server.finish(stream, Ok(()));
    server.advance_to(ms(10_000));
    assert_eq!((server.engine.remembered(), server.engine.poll_timeout()), (0, None));
}

/// Invariant I12.
#[test]
fn a_stream_that_holds_back_messages_delays_no_other() {
    let mut server = narrow_server(|_| ());
    server.stream("STR_1");
    messages(&mut server, "STR_1", 0..4);
    server.take();
    server.stream_frames();
    server.stream("STR_2");
    server.message(OWNER, "STR_2", "REQ_2", "quick");
    assert_eq!(server.take(), [Observed::Message("quick".into())]);
    assert_eq!(body(&server.stream_frames()), [&StreamBody::Ack]);
}

#[test]
fn a_message_that_is_held_back_for_a_full_bus_is_delivered_when_the_bus_takes_an_ack() {
    let mut server = narrow_server(|_| ());
    let stream = server.stream("STR_1");
    let owner = server.subscription(OWNER);
    let handle = |server: &mut Driven<Server>, id: &str| {
        let frame = server.new_frame("STR_1", id, StreamBody::Message { payload: "hey".into() });
        server.engine.handle_frame(server.now, owner, frame);
        accept_all(server, stream)
    };
    assert_eq!(handle(&mut server, "REQ_1"), 1);
    assert!(refuse_next(&mut server.engine).is_some());
    assert_eq!(handle(&mut server, "REQ_2"), 0, "an ack waits for the bus");
    server.engine.handle_room();
    let (token, ..) = next_published(&mut server.engine).expect("the ack");
    server.engine.handle_published(server.now, token, Ok(None));
    assert_eq!(accept_all(&mut server, stream), 1);
    assert_eq!(server.engine.held(), 0);
}

/// Accepts and takes the messages, without passing frames to the bus. Returns their number.
fn accept_all(server: &mut Driven<Server>, stream: StreamHandle) -> usize {
    let mut messages = 0;
    for output in all_outputs(&mut server.engine) {
        if let Output::Event(ServerEvent::Stream(StreamEvent::Message { delivery, .. })) = output {
            messages += 1;
            server.engine.stream_commands().accept(server.now, delivery);
            assert!(!server.engine.stream_commands().taken(stream), "nothing is held back");
        }
    }
    messages
}
