//! Calls that reach no subscriber, as far as the bus knows.

use psrpc_engine::{Call, Client, Engine, Reason};

use super::{affinity_call, error, queue_call, single_call};
use crate::fixture::{Driven, at, ms, next_published};
use psrpc_engine::proto::{ErrorCode, Frame};

/// A client whose frames reach this many subscribers.
fn client(receivers: u64) -> Driven<Client> {
    let mut client = Driven::client();
    client.receivers = Some(receivers);
    client
}

fn waiting(call: Call) -> Call {
    Call { waits_for_subscriber: true, ..call }
}

#[test]
fn a_call_that_reaches_nobody_fails_at_once() {
    for call in [queue_call(), affinity_call(), single_call()] {
        let mut client = client(0);
        client.call(call);
        let failure = client.failure();
        assert_eq!(failure.to_string(), "unavailable: no response from servers");
        assert_eq!((failure.reason, failure.evidence.receivers), (Reason::NobodySubscribed, Some(0)));
        assert_eq!((client.engine.in_flight(), client.engine.poll_timeout()), (0, None));
    }
}

#[test]
fn a_bid_before_the_count_shows_that_somebody_is_subscribed() {
    let mut client = Driven::client();
    client.engine.call(client.now, queue_call()).unwrap();
    let (token, _, frame) = next_published(&mut client.engine).unwrap();
    let Frame::Request(request) = frame else { panic!("not a request: {frame:?}") };
    client.bid(&request, "SRV_1", 1.0);
    client.engine.handle_published(client.now, token, Ok(Some(0)));
    client.drain();
    assert_eq!(client.granted(), ["SRV_1"]);
    client.response(&request, "SRV_1", Ok("fits"));
    assert!(client.outcome().unwrap().is_ok());
}

#[test]
fn a_call_that_waits_is_published_again_until_somebody_is_subscribed() {
    let mut client = client(0);
    let (_, first) = client.request(waiting(affinity_call()));
    let mut times = Vec::new();
    while let Some(next) = client.next_timeout(ms(500)) {
        client.advance_to(next);
        times.push(next.as_millis());
        for (_, frame) in client.frames() {
            assert_eq!(frame, Frame::Request(first.clone()), "the same request");
        }
    }
    assert_eq!(times, [5, 15, 35, 75, 155, 315]);
    client.receivers = Some(1);
    client.advance_to(ms(999));
    assert_eq!(client.frames().len(), 1, "it has reached somebody");
    client.bid(&first, "SRV_1", 1.0);
    client.advance_to(ms(1000));
    assert_eq!(client.granted(), ["SRV_1"]);
}

#[test]
fn a_call_that_waits_in_vain_fails_when_the_selection_ends() {
    let mut client = client(0);
    client.request(waiting(queue_call()));
    client.advance_to(ms(999));
    assert!(client.outcome().is_none());
    client.advance_to(ms(1000));
    let failure = client.failure();
    assert_eq!((failure.reason, &failure.code), (Reason::NobodySubscribed, &ErrorCode::Unavailable));
    client.frames();
    client.advance_to(ms(9000));
    assert!(client.frames().is_empty(), "nothing is published afterwards");
    assert_eq!((client.engine.in_flight(), client.engine.poll_timeout()), (0, None));
}

#[test]
fn a_call_that_needs_no_claim_waits_until_its_deadline() {
    let mut client = client(0);
    client.request(waiting(single_call()));
    client.advance_to(ms(2999));
    assert!(client.outcome().is_none());
    client.advance_to(ms(3000));
    assert_eq!(client.failure().reason, Reason::TimedOut);
}

#[test]
fn a_request_whose_latest_publish_is_not_confirmed_may_have_been_heard() {
    for (call, reason, end) in
        [(queue_call(), Reason::NoResponse, 1000), (single_call(), Reason::TimedOut, 3000)]
    {
        let mut client = client(0);
        client.request(waiting(call));
        client.now = at(ms(5));
        while client.engine.handle_timeout(client.now).is_more() {}
        let again = next_published(&mut client.engine).expect("it is published again");
        // The bus does not report its result.
        assert!(matches!(again, (_, _, Frame::Request(_))));
        client.advance_to(ms(end));
        let failure = client.failure();
        assert_eq!((failure.reason, failure.evidence.receivers), (reason, None));
    }
}

#[test]
fn a_request_that_a_server_has_replied_to_is_not_published_again() {
    let mut client = client(0);
    let (_, request) = client.request(waiting(queue_call()));
    client.bid(&request, "SRV_1", 1.0);
    client.advance_to(ms(999));
    let frames = client.frames();
    assert!(matches!(&frames[..], [(_, Frame::ClaimResponse(_))]), "{frames:?}");

    let (_, request) = client.request(waiting(affinity_call()));
    client.bid(&request, "SRV_1", 0.5);
    client.advance_to(ms(1198));
    assert!(client.frames().is_empty(), "the selection goes on until its short circuit");
    client.advance_to(ms(1199));
    assert_eq!(client.granted(), ["SRV_1"]);

    let (_, request) = client.request(waiting(affinity_call()));
    client.response(&request, "SRV_1", Err(error("unavailable", "full")));
    client.advance_to(ms(2198));
    assert!(client.frames().is_empty() && client.outcome().is_none());
    client.advance_to(ms(2199));
    assert_eq!(client.failure().reason, Reason::Answered);
}

#[test]
fn after_a_pause_of_the_process_the_selection_ends_before_anything_is_published() {
    let mut client = client(0);
    client.request(waiting(queue_call()));
    client.now = at(ms(2000));
    while client.engine.handle_timeout(client.now).is_more() {}
    client.drain();
    assert_eq!(client.failure().reason, Reason::NobodySubscribed);
    assert!(client.frames().is_empty());
}
