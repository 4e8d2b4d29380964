//! Tests that a call accepts no response, bid or grant at or past its deadline (invariant I1), even
//! if the engine handles frames before its timers, as after a pause of the process.

use psrpc_engine::proto::{ErrorCode, ErrorResponse};
use psrpc_engine::{Call, CallHandle, Client, ClientEvent, Engine, Reason, Selection, TimerKind};

use crate::fixture::{AFFINITY, Driven, QUEUE, SINGLE, at, ms, route};

const ASK: Selection = Selection { ask: true, ..Selection::none() };

fn queue_call() -> Call {
    Call::new(route("Fit", QUEUE), "hat")
}

fn affinity_call() -> Call {
    Call::new(route("Pick", AFFINITY), "hat")
}

fn refusal(text: &'static str) -> ErrorResponse {
    ErrorResponse::new(ErrorCode::FailedPrecondition, text)
}

/// Advances time to the deadline of every call here, without a tick.
fn skip_to_deadline(client: &mut Driven<Client>) {
    client.now = at(ms(3000));
}

/// Asserts that the selection function is called once, with this many bids, and makes its choice.
fn choose(client: &mut Driven<Client>, bids: usize, choice: Result<Option<&str>, ErrorResponse>) {
    let events: Vec<_> =
        client.events().into_iter().filter(|event| !matches!(event, ClientEvent::Dropped(_))).collect();
    let [ClientEvent::Select { call, bids: offered }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(offered.len(), bids);
    client.engine.select(client.now, *call, choice.map(|server| server.map(Into::into)));
    client.drain();
}

#[test]
fn a_response_at_the_deadline_is_late() {
    for granted in [true, false] {
        let mut client = Driven::client();
        let call = if granted { queue_call() } else { Call::new(route("OwnerFit", SINGLE), "hat") };
        let (_, request) = client.request(call);
        if granted {
            client.bid(&request, "SRV_1", 1.0);
        }
        skip_to_deadline(&mut client);
        client.response(&request, "SRV_1", Ok("fits"));
        client.response(&request, "SRV_1", Err(refusal("full")));
        assert_eq!(client.dropped(), [Reason::Late; 2]);
        client.advance_to(ms(3000));
        let failure = client.failure();
        assert_eq!((failure.reason, failure.evidence.errors), (Reason::TimedOut, 0));
    }
}

#[test]
fn a_bid_and_an_announcement_at_the_deadline_are_late() {
    let mut client = Driven::client();
    let (_, request) = client.request(queue_call());
    skip_to_deadline(&mut client);
    client.bid(&request, "SRV_1", 1.0);
    client.announce(&request, "SRV_2");
    // From a server that got a duplicate of the request.
    client.response(&request, "SRV_3", Err(refusal("full")));
    assert_eq!(client.dropped(), [Reason::Late; 3]);
    client.advance_to(ms(3000));
    let failure = client.failure();
    assert_eq!((failure.reason, failure.evidence.late_bids), (Reason::NoResponse, 2));
    assert!(client.granted().is_empty());
}

#[test]
fn a_call_that_still_selects_at_its_deadline_grants_no_server() {
    let patient = || Call { selection: Selection::none(), ..affinity_call() };
    let mut client = Driven::client();
    let (_, request) = client.request(patient());
    client.bid(&request, "SRV_1", 0.5);
    client.response(&request, "SRV_2", Err(refusal("no felt")));
    client.advance_to(ms(3000));
    let failure = client.failure();
    assert_eq!((failure.reason, failure.code), (Reason::TimedOut, ErrorCode::DeadlineExceeded));
    assert_eq!(failure.evidence.best.unwrap().server_id, "SRV_1");

    let (_, request) = client.request(patient());
    client.response(&request, "SRV_1", Err(refusal("no felt")));
    client.response(&request, "SRV_2", Err(refusal("no wool")));
    client.advance_to(ms(6000));
    assert_eq!(client.failure().text, "no wool");

    let (_, request) = client.request(patient());
    client.bid(&request, "SRV_1", 0.0);
    client.advance_to(ms(9000));
    assert_eq!(client.failure().text, "no servers available (received 1 responses)");
    assert!(client.granted().is_empty());
}

#[test]
fn the_selection_function_is_called_at_the_deadline_without_a_grant() {
    type Choice = Result<Option<&'static str>, ErrorResponse>;
    let choices: [(Choice, ErrorCode, &str); 4] = [
        (Err(refusal("cannot choose")), ErrorCode::FailedPrecondition, "cannot choose"),
        (Ok(Some("SRV_1")), ErrorCode::DeadlineExceeded, "request timed out"),
        (Ok(Some("SRV_7")), ErrorCode::DeadlineExceeded, "request timed out"),
        (Ok(None), ErrorCode::Unavailable, "no servers available (received 1 responses)"),
    ];
    for (choice, code, text) in choices {
        let mut client = Driven::client();
        let (_, request) = client.request(Call { selection: ASK, ..affinity_call() });
        client.bid(&request, "SRV_1", 0.5);
        client.advance_to(ms(3000));
        client.bid(&request, "SRV_2", 0.5);
        choose(&mut client, 1, choice);
        let failure = client.failure();
        assert_eq!((&failure.code, failure.text.as_str()), (&code, text));
        assert!(failure.evidence.asked && client.granted().is_empty());
        assert_eq!((client.engine.in_flight(), client.engine.poll_timeout()), (0, None));
    }
    let mut client = Driven::client();
    client.call(Call { selection: ASK, ..affinity_call() });
    client.advance_to(ms(3000));
    choose(&mut client, 0, Err(refusal("no server to choose from")));
    assert_eq!(client.failure().text, "no server to choose from");
}

#[test]
fn a_selection_function_without_a_choice_at_the_deadline_delays_the_call_by_one_tick() {
    let mut client = Driven::client();
    client.call(Call { selection: ASK, ..affinity_call() });
    client.advance_to(ms(3000));
    assert!(client.outcome().is_none(), "it has one tick to choose");
    let timeout = client.engine.poll_timeout().unwrap();
    assert_eq!((timeout.at, timeout.kind), (at(ms(3001)).time, TimerKind::Deadline));
    client.advance_to(ms(3001));
    assert_eq!(client.failure().reason, Reason::TimedOut);
}

#[test]
fn a_selection_function_called_before_the_deadline_gets_no_more_time() {
    let select_early = |client: &mut Driven<Client>| -> CallHandle {
        let selection = Selection { affinity_timeout: Some(ms(200)), ..ASK };
        let (call, request) = client.request(Call { selection, ..affinity_call() });
        client.bid(&request, "SRV_1", 1.0);
        client.advance_to(ms(200));
        assert!(matches!(client.events()[..], [ClientEvent::Select { .. }]));
        call
    };
    let mut client = Driven::client();
    select_early(&mut client);
    client.advance_to(ms(3000));
    assert_eq!(client.failure().reason, Reason::TimedOut);

    let mut client = Driven::client();
    let call = select_early(&mut client);
    skip_to_deadline(&mut client);
    client.engine.select(client.now, call, Ok(Some("SRV_1".into())));
    client.drain();
    assert_eq!(client.failure().reason, Reason::TimedOut);
    assert!(client.granted().is_empty());
}
