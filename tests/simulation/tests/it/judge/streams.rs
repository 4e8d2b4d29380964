//! Tests of the judge: streams.

use super::*;

#[test]
fn a_message_that_comes_twice_or_back_or_after_the_end_or_that_nobody_sent_violates_i7() {
    let came = || History::stream(false).sends(CLIENT).comes(SERVER, 1);
    came().passes();
    came().comes(SERVER, 1).violates(Invariant::I7);
    came().comes(CLIENT, 1).violates(Invariant::I7);
    came().comes(SERVER, 2).violates(Invariant::I7);
    let ended = came().sends(CLIENT).stream_ends(SERVER, Reason::Closed, "enough");
    ended.comes(SERVER, 2).violates(Invariant::I7);
}

#[test]
fn an_acknowledged_message_that_no_consumer_has_violates_i7() {
    let sent = || History::stream(false).sends(CLIENT).comes(SERVER, 1).acknowledged(CLIENT, 1, 99);
    sent().accepts(SERVER, 1).sent(1).passes();
    sent().sent(1).violates(Invariant::I7);
}

#[test]
fn messages_out_of_order_on_a_fresh_stream_violate_i7() {
    let both = |fresh| History::stream(fresh).sends(CLIENT).sends(CLIENT);
    both(true).comes(SERVER, 1).comes(SERVER, 2).passes();
    both(true).comes(SERVER, 2).comes(SERVER, 1).violates(Invariant::I7);
    both(false).comes(SERVER, 2).comes(SERVER, 1).passes();
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
    let told =
        |fresh| History::stream(fresh).closes(CLIENT, "enough").stream_ends(CLIENT, Reason::Closed, "enough");
    let later = Duration::from_millis(251).as_nanos() as u64;
    told(true).time(later).violates(Invariant::I8);
    told(true).stream_ends(SERVER, Reason::ClosedByPeer, "enough").time(later).passes();
    told(false).time(later).passes();
}

#[test]
fn a_stream_that_ends_by_a_cause_that_nobody_gave_violates_i6() {
    let closed = || History::stream(false).closes(CLIENT, "enough");
    closed().stream_ends(SERVER, Reason::ClosedByPeer, "enough").passes();
    closed().stream_ends(SERVER, Reason::ClosedByPeer, "too much").violates(Invariant::I6);
    closed().stream_ends(CLIENT, Reason::ClosedByPeer, "enough").violates(Invariant::I6);
}

#[test]
fn a_stream_that_is_open_though_no_server_has_it_violates_i5() {
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
fn messages_that_leave_out_of_order_violate_i7() {
    let says = |history: History, by, message: usize| {
        history.says(by, StreamBody::Message { payload: format!("call {message}").into() })
    };
    let both = || History::stream(false).sends(CLIENT).sends(CLIENT);
    says(says(both(), CLIENT, 1), CLIENT, 2).passes();
    says(says(both(), CLIENT, 2), CLIENT, 1).violates(Invariant::I7);
}

#[test]
fn a_server_that_does_not_see_that_a_stream_was_given_up_violates_i8_once_nothing_is_lost() {
    let given_up = |history: History| {
        let failure = failure(Reason::Canceled, error("request canceled"));
        history.opening(false).run("SRV_1").note(Fact::Ended { number: Some(0), outcome: Err(&failure) })
    };
    let later = Duration::from_millis(251).as_nanos() as u64;
    given_up(History::new().note(Fact::Calm)).time(later).violates(Invariant::I8);
    given_up(History::new()).time(later).passes();
    let seen = given_up(History::new().note(Fact::Calm)).closes(CLIENT, "enough");
    seen.stream_ends(SERVER, Reason::ClosedByPeer, "enough").time(later).passes();
}
