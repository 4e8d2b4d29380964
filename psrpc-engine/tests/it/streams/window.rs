//! Tests of the window of sends: waiting for a place, and the size of the window.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// A client with a window of at most `limit` sends, and a stream.
fn window_of(limit: usize) -> (Driven<Client>, StreamHandle) {
    let mut client = client_with(|config| config.limits.streams.sends_per_stream = limit);
    let (stream, _) = client.stream();
    (client, stream)
}

/// Starts `count` sends with this timeout.
fn start_sends(client: &mut Driven<Client>, stream: StreamHandle, count: usize, timeout: Duration) {
    for _ in 0..count {
        client.start_send(stream, "hey", timeout);
    }
}

fn texts(frames: &[Stream]) -> Vec<&str> {
    let texts = frames.iter().map(|frame| match &frame.body {
        Some(StreamBody::Message { payload }) => std::str::from_utf8(payload).unwrap(),
        other => panic!("{other:?}"),
    });
    texts.collect()
}

#[test]
fn a_send_beyond_the_window_waits_for_a_place() {
    let (mut client, stream) = window_of(1);
    for text in ["one", "two", "three"] {
        client.start_send(stream, text, SECOND);
    }
    assert_eq!(client.engine.sending(), 3);
    for text in ["one", "two", "three"] {
        let frames = client.stream_frames();
        assert_eq!(texts(&frames), [text], "in order, one at a time");
        client.ack(CLIENT, &frames[0]);
        assert_eq!(client.take(), [Observed::Sent]);
    }
    assert_eq!((client.engine.sending(), client.engine.poll_timeout()), (0, None));
}

/// The timeout counts from the send, not from the publish.
#[test]
fn a_message_that_waited_expires_with_its_send() {
    let (mut client, stream) = window_of(1);
    let first = client.send(stream, "first");
    client.start_send(stream, "second", ms(2500));
    client.advance_to(ms(1000));
    client.ack(CLIENT, &first);
    let second = client.stream_frames().remove(0);
    assert_eq!(second.sent_at, client.now.wall.as_unix_nanos());
    assert_eq!(second.expiry - second.sent_at, 1_500_000_000, "what is left");
    client.advance_to(ms(2499));
    assert_eq!(client.take(), [Observed::Sent]);
    client.advance_to(ms(2500));
    assert_eq!(client.take(), [Observed::Unsent(Reason::TimedOut, "request timed out".into())]);
}

#[test]
fn a_send_that_gets_no_place_in_time_fails_without_a_frame() {
    let (mut client, stream) = window_of(1);
    client.start_send(stream, "first", SECOND);
    client.stream_frames();
    client.start_send(stream, "second", ms(400));
    client.advance_to(ms(400));
    let evidence = client.events().into_iter().find_map(|event| match Client::stream_event(event) {
        Some(StreamEvent::Sent { outcome: Err(failure), .. }) => Some(failure.evidence),
        _ => None,
    });
    assert!(evidence.expect("it fails").unsent);
    assert!(client.stream_frames().is_empty());
    client.advance_to(SECOND);
    assert_eq!(client.take().len(), 1, "the first");
    assert!(client.stream_frames().is_empty());
}

#[test]
fn a_send_whose_deadline_has_passed_is_not_published() {
    let (mut client, stream) = window_of(1);
    let first = client.send(stream, "first");
    client.start_send(stream, "second", ms(400));
    client.start_send(stream, "third", SECOND);
    client.now = at(ms(400));
    client.ack(CLIENT, &first);
    assert!(client.stream_frames().is_empty(), "the second has expired, and the third must not overtake");
    client.advance_to(ms(400));
    assert_eq!(texts(&client.stream_frames()), ["third"]);
}

#[test]
fn a_canceled_send_that_waits_leaves_no_frame() {
    let (mut client, stream) = window_of(1);
    let first = client.send(stream, "first");
    let [second, _] = ["second", "third"].map(|text| client.start_send(stream, text, SECOND));
    client.engine.stream_commands().cancel_send(client.now, second);
    client.ack(CLIENT, &first);
    assert_eq!(texts(&client.stream_frames()), ["third"]);
    assert_eq!((client.take(), client.engine.sending()), (vec![Observed::Sent], 1));
}

#[test]
fn a_canceled_send_gives_up_its_place() {
    let (mut client, stream) = window_of(1);
    let [first, _] = ["first", "second"].map(|text| client.start_send(stream, text, SECOND));
    assert_eq!(texts(&client.stream_frames()), ["first"]);
    client.engine.stream_commands().cancel_send(client.now, first);
    client.drain();
    assert_eq!(texts(&client.stream_frames()), ["second"]);
}

#[test]
fn a_send_that_the_bus_refuses_gives_up_its_place() {
    let (mut client, stream) = window_of(1);
    for text in ["first", "second"] {
        client.engine.stream_commands().send(client.now, stream, text, None).unwrap();
    }
    let (token, ..) = next_published(&mut client.engine).unwrap();
    client.engine.handle_published(client.now, token, Err(BusError::new("down")));
    client.drain();
    assert_eq!(texts(&client.stream_frames()), ["second"]);
}

#[test]
fn a_stream_that_ends_fails_the_sends_that_wait() {
    let (mut client, stream) = window_of(1);
    let id = client.send(stream, "first").stream_id;
    client.start_send(stream, "second", SECOND);
    client.close(CLIENT, id.as_str(), ErrorCode::Aborted, "enough");
    let unsent = || Observed::Unsent(Reason::ClosedByPeer, "enough".into());
    assert_eq!(client.take(), [unsent(), unsent(), Observed::Ended(Reason::ClosedByPeer, "enough".into())]);
    assert!(client.stream_frames().is_empty());
    assert_eq!((client.engine.sending(), client.engine.poll_timeout()), (0, None));
}

/// Invariant I12.
#[test]
fn sends_that_wait_delay_no_other_stream() {
    let (mut client, stream) = window_of(1);
    let (other, _) = client.stream();
    start_sends(&mut client, stream, 3, SECOND);
    client.stream_frames();
    let sent = client.send(other, "quick");
    client.ack(CLIENT, &sent);
    assert_eq!(client.take(), [Observed::Sent]);
}

#[test]
fn the_window_starts_at_64_and_grows_by_one_with_each_ack_up_to_its_limit() {
    let (mut client, stream) = window_of(66);
    start_sends(&mut client, stream, 80, SECOND);
    let sent = client.stream_frames();
    assert_eq!(sent.len(), 64);
    for (ack, published) in sent.iter().zip([2, 2, 1, 1]) {
        client.ack(CLIENT, ack);
        assert_eq!(client.stream_frames().len(), published);
    }
}

#[test]
fn the_window_halves_with_each_send_that_times_out_down_to_one() {
    let (mut client, stream) = window_of(16);
    let mut passed = Duration::ZERO;
    for (timed_out, size) in [(1, 8), (1, 4), (2, 1), (1, 1)] {
        start_sends(&mut client, stream, timed_out, ms(1));
        passed += ms(1);
        client.advance_to(passed);
        client.stream_frames();
        let sends: Vec<_> = (0..16).map(|_| client.start_send(stream, "hey", SECOND)).collect();
        assert_eq!(client.stream_frames().len(), size);
        for send in sends {
            client.engine.stream_commands().cancel_send(client.now, send);
        }
        client.drain();
        client.stream_frames();
    }
}

#[test]
fn a_send_that_times_out_without_a_place_does_not_shrink_the_window() {
    let (mut client, stream) = window_of(4);
    let sent: Vec<_> = (0..4).map(|_| client.send(stream, "hey")).collect();
    start_sends(&mut client, stream, 8, ms(1));
    client.advance_to(ms(1));
    for ack in &sent {
        client.ack(CLIENT, ack);
    }
    start_sends(&mut client, stream, 8, SECOND);
    assert_eq!(client.stream_frames().len(), 4);
}

#[test]
fn sends_that_wait_are_bounded_and_checked() {
    let mut client = client_with(|config| {
        let limits = &mut config.limits;
        (limits.streams.sends_per_stream, limits.streams.waiting_per_stream) = (1, 1);
        limits.frame.frame_bytes = 100_000;
    });
    let (stream, _) = client.stream();
    for count in 0..2 {
        let large = client.engine.stream_commands().send(client.now, stream, vec![0; 100_000], None);
        assert!(matches!(large, Err(SendError::TooLarge { .. })), "after {count}: {large:?}");
        client.start_send(stream, "hey", SECOND);
    }
    let refused = client.engine.stream_commands().send(client.now, stream, "three", None).unwrap_err();
    assert_eq!(refused, SendError::TooMany { limit: 1 });
}
