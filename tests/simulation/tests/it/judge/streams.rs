//! Tests of the judge: streams.

use super::*;

#[test]
fn a_message_that_is_duplicated_reflected_late_or_never_sent_violates_i7() {
    let received = || History::stream(false).starts_send(CLIENT).receives(SERVER, 1);
    received().passes();
    received().receives(SERVER, 1).violates(Invariant::I7);
    received().receives(CLIENT, 1).violates(Invariant::I7);
    received().receives(SERVER, 2).violates(Invariant::I7);
    let ended = received().starts_send(CLIENT).stream_ends(SERVER, Reason::Closed, "enough");
    ended.receives(SERVER, 2).violates(Invariant::I7);
}

#[test]
fn an_acknowledged_message_that_no_consumer_accepted_violates_i7() {
    let sent = || History::stream(false).starts_send(CLIENT).receives(SERVER, 1).acknowledged(CLIENT, 1, 99);
    sent().accepts(SERVER, 1).send_succeeds(1).passes();
    sent().send_succeeds(1).violates(Invariant::I7);
}

#[test]
fn messages_out_of_order_on_a_fresh_stream_violate_i7() {
    let both = |fresh| History::stream(fresh).starts_send(CLIENT).starts_send(CLIENT);
    both(true).receives(SERVER, 1).receives(SERVER, 2).passes();
    both(true).receives(SERVER, 2).receives(SERVER, 1).violates(Invariant::I7);
    both(false).receives(SERVER, 2).receives(SERVER, 1).passes();
}

#[test]
fn a_stream_with_two_handlers_on_one_server_or_two_ends_on_one_side_violates_i8() {
    History::stream(false).run("SRV_1").violates(Invariant::I8);
    let ended = || {
        History::stream(false).closes(CLIENT, "enough").stream_ends(SERVER, Reason::ClosedByPeer, "enough")
    };
    ended().passes();
    ended().stream_ends(SERVER, Reason::ClosedByPeer, "enough").violates(Invariant::I8);
}

#[test]
fn a_side_that_does_not_see_the_end_of_a_fresh_stream_violates_i8() {
    let closed =
        |fresh| History::stream(fresh).closes(CLIENT, "enough").stream_ends(CLIENT, Reason::Closed, "enough");
    let later = Duration::from_millis(251).as_nanos() as u64;
    closed(true).time(later).violates(Invariant::I8);
    closed(true).stream_ends(SERVER, Reason::ClosedByPeer, "enough").time(later).passes();
    closed(false).time(later).passes();
}

#[test]
fn a_stream_that_ends_with_an_unknown_cause_violates_i6() {
    let closed = || History::stream(false).closes(CLIENT, "enough");
    closed().stream_ends(SERVER, Reason::ClosedByPeer, "enough").passes();
    closed().stream_ends(SERVER, Reason::ClosedByPeer, "too much").violates(Invariant::I6);
    closed().stream_ends(CLIENT, Reason::ClosedByPeer, "enough").violates(Invariant::I6);
}

#[test]
fn a_stream_that_is_open_without_a_server_violates_i5() {
    let opened = |history: History| history.note(Fact::Ended { number: Some(0), outcome: Ok(()) });
    opened(History::new().opening(false).run("SRV_1").ack("REQ_0", 10)).passes();
    opened(History::new().opening(false)).violates(Invariant::I5);
}

#[test]
fn a_fresh_stream_that_ends_by_itself_violates_i16() {
    History::stream(true).stream_ends(SERVER, Reason::Idle, "idle").violates(Invariant::I16);
    History::stream(false).stream_ends(SERVER, Reason::Idle, "idle").passes();
}

#[test]
fn messages_published_out_of_order_violate_i7() {
    let publish = |history: History, by, message: usize| {
        history.publishes_on_stream(by, StreamBody::Message { payload: format!("call {message}").into() })
    };
    let both = || History::stream(false).starts_send(CLIENT).starts_send(CLIENT);
    publish(publish(both(), CLIENT, 1), CLIENT, 2).passes();
    publish(publish(both(), CLIENT, 2), CLIENT, 1).violates(Invariant::I7);
}

#[test]
fn a_message_published_after_its_send_was_canceled_violates_i7() {
    let message = StreamBody::Message { payload: "call 1".into() };
    let sends = || History::stream(false).starts_send(CLIENT);
    sends().publishes_on_stream(CLIENT, message.clone()).passes();
    let canceled = sends().note(Fact::Abandoned { number: 1 });
    canceled.publishes_on_stream(CLIENT, message).violates(Invariant::I7);
}

#[test]
fn a_server_that_does_not_see_a_canceled_opening_without_faults_violates_i8() {
    let canceled = |history: History| {
        let failure = failure(Reason::Canceled, error("request canceled"));
        history.opening(false).run("SRV_1").note(Fact::Ended { number: Some(0), outcome: Err(&failure) })
    };
    let later = Duration::from_millis(251).as_nanos() as u64;
    canceled(History::new().note(Fact::Calm)).time(later).violates(Invariant::I8);
    canceled(History::new()).time(later).passes();
    let seen = canceled(History::new().note(Fact::Calm)).closes(CLIENT, "enough");
    seen.stream_ends(SERVER, Reason::ClosedByPeer, "enough").time(later).passes();
}
