//! Tests of unary calls at the client.

mod interruptions;
mod lent_frames;
mod nobody;

use std::time::Duration;

use bytes::Bytes;
use psrpc_engine::proto::{
    ClaimResponse, ErrorCode, ErrorResponse, Frame, Metadata, MethodProperties, Request, Response, Routing,
    Text,
};
use psrpc_engine::{
    BusError, Call, CallError, Client, ClientConfig, ClientEvent, ClientLimits, Engine, Output, Reason,
    Selection, TimerKind,
};

use crate::fixture::{
    AFFINITY, Driven, EPOCH, QUEUE, SINGLE, all_outputs, all_published, at, is_idle, ms, next_published,
    refuse_next, route,
};

fn queue_call() -> Call {
    Call::new(route("Fit", QUEUE), "hat")
}

fn affinity_call() -> Call {
    Call::new(route("Pick", AFFINITY), "hat")
}

fn single_call() -> Call {
    Call::new(route("OwnerFit", SINGLE), "hat")
}

fn error(code: &str, text: &str) -> ErrorResponse {
    ErrorResponse::new(ErrorCode::from(code), text)
}

fn refused() -> BusError {
    BusError::new("the bus is down")
}

#[test]
fn a_claimed_call_is_granted_and_answered() {
    let mut client = Driven::client();
    let (_, request) = client.request(queue_call());
    assert_eq!((request.sent_at, request.expiry), (EPOCH, EPOCH + 3_000_000_000));
    assert!(request.skip_claim && !request.multi);
    client.bid(&request, "SRV_1", 1.0);
    let grant = ClaimResponse { request_id: request.request_id.clone(), server_id: "SRV_1".into() };
    assert_eq!(client.frames(), [("Hats|Fit|RCLAIM".to_owned(), Frame::ClaimResponse(grant))]);
    client.response(&request, "SRV_1", Ok("fits"));
    let reply = client.outcome().unwrap().unwrap();
    assert_eq!((reply.server_id.as_str(), &reply.payload[..]), ("SRV_1", &b"fits"[..]));
    assert_eq!(client.engine.in_flight(), 0);
    assert_eq!(client.engine.poll_timeout(), None);
}

#[test]
fn gaps_of_any_size_are_counted() {
    let mut client = Driven::client();
    let bids = client.subscription("Hats|CLI_1|CLAIM");
    client.engine.handle_gap(client.now, bids, Some(u64::MAX));
    client.engine.handle_gap(client.now, bids, Some(u64::MAX));
    client.engine.handle_gap(client.now, bids, None);
    assert_eq!(client.engine.counters().lost, u64::MAX);
}

#[test]
fn a_call_knows_whether_its_request_was_sent() {
    let mut client = Driven::client();
    client.call(Call { timeout: Some(Duration::ZERO), ..queue_call() });
    assert!(client.failure().evidence.unsent, "its time had run out");
    client.call(Call { timeout: Some(ms(50)), ..queue_call() });
    client.advance_to(ms(50));
    assert!(!client.failure().evidence.unsent);
    // The bus stays full until the deadline.
    client.engine.call(client.now, Call { timeout: Some(ms(50)), ..queue_call() }).unwrap();
    assert!(refuse_next(&mut client.engine).is_some());
    client.advance_to(ms(100));
    assert!(client.failure().evidence.unsent);
}

#[test]
fn a_request_that_the_bus_cannot_carry_is_the_callers_fault_and_was_not_sent() {
    let mut client = Driven::client();
    client.engine.call(client.now, queue_call()).unwrap();
    let (token, ..) = next_published(&mut client.engine).unwrap();
    client.engine.handle_published(client.now, token, Err(BusError::invalid("larger than 1 MiB")));
    client.drain();
    let failure = client.failure();
    assert_eq!((failure.reason, failure.code.as_str()), (Reason::PublishFailed, "invalid_argument"));
    assert!(failure.evidence.unsent);
}

#[test]
fn a_call_without_a_claim_takes_the_first_response() {
    let mut client = Driven::client();
    let (_, request) = client.request(single_call());
    assert!(request.skip_claim, "Go advertises it on every queue-routed call, claimed or not");
    client.response(&request, "SRV_9", Ok("fits"));
    assert_eq!(client.outcome().unwrap().unwrap().server_id, "SRV_9");
    client.response(&request, "SRV_9", Ok("fits again"));
    assert_eq!(client.dropped(), [Reason::Late]);
    client.response(&request, "SRV_8", Ok("fits too"));
    assert_eq!(client.dropped(), [Reason::SecondServer]);
}

#[test]
fn a_cancellation_is_published_as_a_grant_without_a_server_id_if_enabled() {
    for (call, channel) in [(queue_call(), "Hats|Fit|RCLAIM"), (single_call(), "Hats|OwnerFit|REQ")] {
        let config = ClientConfig { tells_cancellation: true, ..ClientConfig::new("Hats") };
        let mut client = Driven::client_with(config);
        let (handle, request) = client.request(call);
        client.engine.cancel(client.now, handle);
        client.drain();
        let cancellation = ClaimResponse { request_id: request.request_id, server_id: Text::EMPTY };
        assert_eq!(client.frames(), [(channel.to_owned(), Frame::ClaimResponse(cancellation))]);
    }
}

#[test]
fn only_the_selected_server_may_answer() {
    let mut client = Driven::client();
    let (_, request) = client.request(affinity_call());
    client.bid(&request, "SRV_1", 0.5);
    client.response(&request, "SRV_1", Ok("before it was granted"));
    client.advance_to(ms(200));
    assert_eq!(client.granted(), ["SRV_1"]);
    client.response(&request, "SRV_2", Ok("never granted"));
    client.response(&request, "SRV_2", Err(error("internal", "never granted")));
    assert_eq!(client.dropped(), [Reason::NotSelected; 3]);
    client.response(&request, "SRV_1", Ok("fits"));
    assert!(client.outcome().unwrap().is_ok());
}

#[test]
fn an_error_of_the_server_is_the_error_of_the_call() {
    let mut client = Driven::client();
    let (_, request) = client.request(queue_call());
    client.bid(&request, "SRV_1", 1.0);
    client.response(&request, "SRV_1", Err(error("hat_on_fire", "run")));
    let failure = client.failure();
    assert_eq!(
        (failure.reason, failure.code.as_str(), failure.text.as_str()),
        (Reason::Answered, "hat_on_fire", "run")
    );
}

#[test]
fn on_a_queue_an_error_before_any_bid_ends_the_call_at_once() {
    let mut client = Driven::client();
    let (_, request) = client.request(queue_call());
    client.response(&request, "SRV_1", Err(error("malformed_request", "no hat")));
    assert_eq!(client.failure().code, ErrorCode::MalformedRequest);
}

#[test]
fn off_queues_an_error_does_not_end_the_selection() {
    let mut client = Driven::client();
    let (_, request) = client.request(affinity_call());
    client.response(&request, "SRV_1", Err(error("malformed_request", "no hat")));
    assert!(client.outcome().is_none());
    client.bid(&request, "SRV_2", 0.5);
    client.advance_to(ms(200));
    assert_eq!(client.granted(), ["SRV_2"]);
}

#[test]
fn the_reasons_of_servers_that_refuse_are_kept_and_bounded() {
    let mut client = Driven::client();
    let (_, request) = client.request(affinity_call());
    client.response(&request, "SRV_0", Err(error("not_found", &"é".repeat(200))));
    for server in 1..20 {
        client.response(&request, &format!("SRV_{server}"), Err(error("unavailable", "full")));
    }
    client.advance_to(ms(1000));
    let failure = client.failure();
    assert_eq!((failure.reason, failure.evidence.errors), (Reason::Answered, 20));
    let refusals = failure.evidence.refusals;
    assert_eq!(refusals.len(), 8);
    assert_eq!((&refusals[0].code, &refusals[0].text), (&ErrorCode::NotFound, &"é".repeat(128)));
    assert_eq!((refusals[1].server_id.as_str(), refusals[1].text.as_str()), ("SRV_1", "full"));
}

#[test]
fn a_call_without_bids_fails_with_evidence() {
    let mut client = Driven::client();
    client.call(queue_call());
    let published = client.published();
    client.engine.handle_published(client.now, published[0].0, Ok(Some(2)));
    client.advance_to(ms(999));
    assert!(client.outcome().is_none());
    client.advance_to(ms(1000));
    let failure = client.failure();
    assert_eq!(failure.to_string(), "unavailable: no response from servers");
    assert_eq!(failure.reason, Reason::NoResponse);
    assert_eq!((failure.evidence.receivers, failure.evidence.bids), (Some(2), 0));
}

#[test]
fn a_call_with_losing_bids_reports_their_number() {
    let mut client = Driven::client();
    let selection = Selection { minimum_affinity: Some(0.9), ..Selection::default() };
    let (_, request) = client.request(Call { selection, ..affinity_call() });
    client.bid(&request, "SRV_1", 0.5);
    client.bid(&request, "SRV_2", 0.6);
    client.advance_to(ms(1000));
    let failure = client.failure();
    assert_eq!(failure.to_string(), "unavailable: no servers available (received 2 responses)");
    assert_eq!((failure.evidence.bids, failure.evidence.below_minimum), (2, 2));
}

#[test]
fn a_granted_call_without_a_response_times_out_at_its_deadline() {
    let mut client = Driven::client();
    let (_, request) = client.request(Call { timeout: Some(ms(500)), ..queue_call() });
    client.bid(&request, "SRV_1", 1.0);
    client.advance_to(ms(499));
    assert!(client.outcome().is_none());
    client.advance_to(ms(500));
    let failure = client.failure();
    assert_eq!(failure.to_string(), "deadline_exceeded: request timed out");
    assert_eq!(failure.evidence.selected.as_ref().map(Text::as_str), Some("SRV_1"));
    client.response(&request, "SRV_1", Ok("late"));
    assert_eq!(client.dropped(), [Reason::Late]);
}

#[test]
fn the_earlier_of_timeout_and_deadline_is_the_expiry() {
    let mut client = Driven::client();
    let deadline = Some(at(ms(400)).time);
    let (_, request) = client.request(Call { timeout: Some(ms(2000)), deadline, ..queue_call() });
    assert_eq!(request.expiry - request.sent_at, 400_000_000);
    let (_, request) = client.request(Call { timeout: Some(ms(100)), deadline, ..queue_call() });
    assert_eq!(request.expiry - request.sent_at, 100_000_000);
}

#[test]
fn a_call_without_any_time_left_publishes_nothing() {
    let mut client = Driven::client();
    client.call(Call { timeout: Some(Duration::ZERO), ..queue_call() });
    assert!(client.frames().is_empty());
    assert_eq!(client.failure().code, ErrorCode::DeadlineExceeded);
}

#[test]
fn a_call_canceled_before_its_grant_is_never_granted() {
    let mut client = Driven::client();
    let (call, request) = client.request(affinity_call());
    client.bid(&request, "SRV_1", 0.5);
    client.engine.cancel(client.now, call);
    client.drain();
    assert_eq!(client.failure().to_string(), "canceled: request canceled");
    client.bid(&request, "SRV_2", 0.9);
    client.advance_to(ms(3000));
    assert!(client.frames().is_empty());
    assert_eq!(client.engine.counters().get(Reason::Late), 1);
    client.engine.cancel(client.now, call);
    assert!(is_idle(&mut client.engine), "a stale handle does nothing");
}

#[test]
fn frames_that_wait_for_a_full_bus_are_withdrawn_when_their_call_ends() {
    let mut client = Driven::client();
    let call = client.engine.call(client.now, queue_call()).unwrap();
    client.engine.cancel(client.now, call);
    let outputs = all_outputs(&mut client.engine);
    assert!(matches!(outputs[..], [Output::Event(ClientEvent::Resolved { .. })]), "{outputs:?}");
    assert!(all_published(&mut client.engine).is_empty());
    assert_eq!(client.engine.counters().get(Reason::Withdrawn), 1);
}

#[test]
fn a_failed_publish_fails_the_call_at_once_with_the_error_of_the_bus() {
    let mut client = Driven::client();
    client.call(queue_call());
    let token = client.published()[0].0;
    client.engine.handle_published(client.now, token, Err(refused()));
    client.drain();
    let failure = client.failure();
    assert_eq!((failure.reason, &failure.code), (Reason::PublishFailed, &ErrorCode::Unavailable));
    assert_eq!(failure.source.unwrap().to_string(), "the bus is down");
}

#[test]
fn a_failed_grant_fails_the_call_at_once() {
    let mut client = Driven::client();
    let (_, request) = client.request(queue_call());
    client.bid(&request, "SRV_1", 1.0);
    let token = client.published()[0].0;
    client.engine.handle_published(client.now, token, Err(refused()));
    client.drain();
    assert_eq!(client.failure().reason, Reason::PublishFailed);
}

#[test]
fn a_bid_proves_that_the_request_was_published() {
    let mut client = Driven::client();
    client.call(affinity_call());
    let published = client.published();
    let Frame::Request(request) = published[0].2.clone() else { panic!("a request") };
    client.bid(&request, "SRV_1", 0.5);
    client.engine.handle_published(client.now, published[0].0, Err(refused()));
    client.drain();
    assert!(client.outcome().is_none());
}

#[test]
fn an_announcement_selects_without_a_grant() {
    let mut client = Driven::client();
    let (_, request) = client.request(queue_call());
    client.announce(&request, "SRV_1");
    assert!(client.granted().is_empty());
    client.response(&request, "SRV_2", Ok("from another server"));
    assert_eq!(client.dropped(), [Reason::NotSelected]);
    client.announce(&request, "SRV_2");
    client.bid(&request, "SRV_3", 1.0);
    assert_eq!(client.dropped(), [Reason::Late; 2]);
    client.response(&request, "SRV_1", Ok("fits"));
    assert_eq!(client.outcome().unwrap().unwrap().server_id, "SRV_1");
}

#[test]
fn on_a_queue_a_response_before_any_announcement_or_bid_ends_the_call_at_once() {
    let mut client = Driven::client();
    let (_, request) = client.request(queue_call());
    client.response(&request, "SRV_1", Ok("fits"));
    assert_eq!(client.outcome().unwrap().unwrap().server_id, "SRV_1");
    client.announce(&request, "SRV_1");
    assert!(client.dropped().is_empty(), "an announcement after its response is usual, and only counted");
    assert_eq!(client.engine.counters().get(Reason::Late), 1);
    assert_eq!((client.engine.in_flight(), client.engine.poll_timeout()), (0, None));
}

#[test]
fn on_a_queue_a_response_before_the_grant_selects_its_server() {
    let mut client = Driven::client();
    let accept_first_available = Some(false);
    let selection = Selection { accept_first_available, ..Selection::default() };
    let (_, request) = client.request(Call { selection, ..queue_call() });
    client.bid(&request, "SRV_1", 1.0);
    client.response(&request, "SRV_2", Ok("fits"));
    assert_eq!(client.outcome().unwrap().unwrap().server_id, "SRV_2");
    client.advance_to(ms(3000));
    assert!(client.granted().is_empty());
}

#[test]
fn off_queues_an_announcement_ends_the_selection_and_a_response_does_not() {
    let mut client = Driven::client();
    let (_, request) = client.request(affinity_call());
    assert!(!request.skip_claim);
    client.bid(&request, "SRV_1", 0.5);
    client.response(&request, "SRV_1", Ok("early"));
    assert_eq!(client.dropped(), [Reason::NotSelected]);
    client.announce(&request, "SRV_2");
    client.response(&request, "SRV_2", Ok("fits"));
    assert_eq!(client.outcome().unwrap().unwrap().server_id, "SRV_2");
}

#[test]
fn a_queue_call_without_bids_may_have_run() {
    let mut client = Driven::client();
    client.request(queue_call());
    client.advance_to(ms(1000));
    let failure = client.failure();
    assert_eq!((failure.reason, failure.evidence.may_skip_claim), (Reason::NoResponse, true));

    client.request(affinity_call());
    client.advance_to(ms(2000));
    let failure = client.failure();
    assert_eq!((failure.reason, failure.evidence.may_skip_claim), (Reason::NoResponse, false));
}

#[test]
fn the_choice_of_the_selection_function_is_granted() {
    let mut client = Driven::client();
    let selection = Selection { ask: true, ..Selection::default() };
    let (call, request) = client.request(Call { selection, ..affinity_call() });
    client.bid(&request, "SRV_1", 0.5);
    client.bid(&request, "SRV_2", 0.9);
    client.advance_to(ms(200));
    let events = client.events();
    assert!(matches!(&events[..], [ClientEvent::Select { bids, .. }] if bids.len() == 2));
    assert_eq!(client.engine.poll_timeout().unwrap().kind, TimerKind::Deadline);
    client.bid(&request, "SRV_3", 1.0);
    assert_eq!(client.dropped(), [Reason::Late], "no bids while the selection function decides");
    client.engine.select(client.now, call, Ok(Some("SRV_1".into())));
    client.drain();
    assert_eq!(client.granted(), ["SRV_1"]);
}

#[test]
fn a_selection_function_that_chooses_an_unknown_server_fails_the_call() {
    let mut client = Driven::client();
    let selection = Selection { ask: true, ..Selection::default() };
    let (call, request) = client.request(Call { selection, ..affinity_call() });
    client.bid(&request, "SRV_1", 0.5);
    client.advance_to(ms(200));
    client.engine.select(client.now, call, Ok(Some("SRV_7".into())));
    client.drain();
    let failure = client.failure();
    assert_eq!(failure.reason, Reason::SelectionFailed);
    assert_eq!(failure.text, "the selection function chose \"SRV_7\", which made no bid");
}

#[test]
fn invalid_bids_are_dropped_with_their_reason() {
    let mut client = Driven::client();
    let (_, request) = client.request(affinity_call());
    client.bid(&request, "SRV_1", f32::NAN);
    client.bid(&request, "SRV_1", f32::INFINITY);
    client.bid(&request, "", 0.5);
    client.bid(&request, "SRV_1", 0.5);
    client.bid(&request, "SRV_1", 0.9);
    let other = Request { request_id: "REQ_unknown".into(), ..Request::default() };
    client.bid(&other, "SRV_1", 0.9);
    assert_eq!(
        client.dropped(),
        [
            Reason::NonFiniteAffinity,
            Reason::NonFiniteAffinity,
            Reason::MissingId,
            Reason::SecondBid,
            Reason::Late
        ]
    );
}

#[test]
fn bids_are_limited() {
    let limits = ClientLimits { bids_per_call: 2, ..ClientLimits::DEFAULT };
    let mut client = Driven::client_with(ClientConfig { limits, ..ClientConfig::new("Hats") });
    let (_, request) = client.request(affinity_call());
    for server in ["SRV_1", "SRV_2", "SRV_3"] {
        client.bid(&request, server, 0.5);
    }
    assert_eq!(client.dropped(), [Reason::BidsFull]);
}

#[test]
fn late_bids_are_dropped() {
    let mut client = Driven::client();
    let (_, request) = client.request(queue_call());
    client.bid(&request, "SRV_0", 1.0);
    client.response(&request, "SRV_0", Ok("fits"));
    client.events();
    for server in 1..=1000 {
        client.bid(&request, &format!("SRV_{server}"), 1.0);
    }
    assert_eq!(client.dropped(), [Reason::Late; 1000]);
    let (_, request) = client.request(queue_call());
    client.bid(&request, "SRV_1", 1.0);
    assert_eq!(client.granted(), ["SRV_1"]);
}

#[test]
fn unexpected_frames_are_counted_and_ignored() {
    let mut client = Driven::client();
    let (_, request) = client.request(queue_call());
    let raw = |bytes: &'static [u8]| Frame::Raw(Bytes::from_static(bytes));
    client.frame("Hats|CLI_1|CLAIM", raw(b"\xff\xff\xff"));
    client.frame("Hats|CLI_1|RES", raw(b"\x0a\x03"));
    client.frame("Hats|CLI_1|RES", Frame::Request(request.clone()));
    client.frame("Hats|CLI_1|CLAIM", Frame::Other(psrpc_engine::proto::Any::default()));
    assert_eq!(
        client.dropped(),
        [Reason::Malformed, Reason::Malformed, Reason::UnexpectedType, Reason::UnexpectedType]
    );
    let long = "S".repeat(300);
    client.bid(&request, &long, 1.0);
    assert_eq!(client.dropped(), [Reason::FrameLimit]);
    let response = Response {
        request_id: request.request_id.clone(),
        server_id: "SRV_1".into(),
        sent_at: 0,
        result: Ok("x".into()),
    };
    client.bid(&request, "SRV_1", 1.0);
    client.frame("Hats|CLI_1|RES", Frame::Raw(Frame::Response(response).encode("")));
    assert!(client.outcome().unwrap().is_ok(), "a raw frame that decodes is accepted");
}

#[test]
fn closing_the_client_resolves_its_calls_at_once() {
    let mut client = Driven::client();
    client.call(queue_call());
    client.call(affinity_call());
    client.engine.close(client.now);
    client.drain();
    let events = client.events();
    let closed = events.iter().filter(|event| {
        matches!(event, ClientEvent::Resolved { outcome: Err(failure), .. }
            if failure.to_string() == "canceled: client is closed")
    });
    assert_eq!(closed.count(), 2);
    assert_eq!(client.engine.poll_timeout().unwrap().kind, TimerKind::Drain, "it waits for the bus");
    assert_eq!(client.engine.call(client.now, queue_call()).unwrap_err(), CallError::Closed);
    client.confirm_unsubscribed();
    assert!(matches!(client.events()[..], [ClientEvent::Closed { error: None }]));
    assert_eq!(client.engine.poll_timeout(), None);
    client.engine.close(client.now);
    assert!(is_idle(&mut client.engine), "closing twice does nothing");
}

#[test]
fn a_client_is_not_ready_before_both_subscriptions_are_live() {
    let mut client = Client::new(ClientConfig::new("Hats"), [1; 32]).unwrap();
    assert_eq!(client.call(at(ms(0)), queue_call()).unwrap_err(), CallError::NotReady);
    let subscriptions: Vec<_> = all_outputs(&mut client)
        .into_iter()
        .map(|output| match output {
            Output::Subscribe { subscription, .. } => subscription,
            other => panic!("{other:?}"),
        })
        .collect();
    client.handle_subscribed(at(ms(0)), subscriptions[0], Ok(()));
    assert_eq!(client.call(at(ms(0)), queue_call()).unwrap_err(), CallError::NotReady);
    client.handle_subscribed(at(ms(0)), subscriptions[1], Ok(()));
    assert!(client.call(at(ms(0)), queue_call()).is_ok());
}

#[test]
fn a_client_that_cannot_subscribe_closes_with_an_error() {
    let mut client = Client::new(ClientConfig::new("Hats"), [1; 32]).unwrap();
    let subscriptions: Vec<_> = all_outputs(&mut client)
        .into_iter()
        .filter_map(|output| match output {
            Output::Subscribe { subscription, .. } => Some(subscription),
            _ => None,
        })
        .collect();
    client.handle_subscribed(at(ms(0)), subscriptions[0], Err(refused()));
    let outputs = all_outputs(&mut client);
    assert!(matches!(outputs[..], [Output::Unsubscribe { .. }]), "{outputs:?}");
    client.handle_unsubscribed(at(ms(0)), subscriptions[1]);
    let outputs = all_outputs(&mut client);
    assert!(
        matches!(&outputs[..], [Output::Event(ClientEvent::Closed { error: Some(error) })]
            if error.to_string() == "the bus is down"),
        "{outputs:?}"
    );
}

#[test]
fn a_client_whose_subscription_is_lost_fails_its_calls_and_closes() {
    let mut client = Driven::client();
    client.call(queue_call());
    let responses = client.subscription("Hats|CLI_1|RES");
    client.engine.handle_unsubscribed(client.now, responses);
    client.drain();
    assert_eq!(client.failure().reason, Reason::SubscriptionLost);
    client.confirm_unsubscribed();
    assert!(matches!(&client.events()[..], [ClientEvent::Closed { error: Some(_) }]));
}

#[test]
fn a_gap_is_reported_and_is_part_of_the_evidence() {
    let mut client = Driven::client();
    client.call(queue_call());
    let bids = client.subscription("Hats|CLI_1|CLAIM");
    client.engine.handle_gap(client.now, bids, Some(3));
    client.drain();
    assert!(matches!(client.events()[..], [ClientEvent::Gap { lost: Some(3), .. }]));
    assert_eq!(client.engine.counters().lost, 3);
    client.advance_to(ms(1000));
    assert!(client.failure().evidence.gap);
    client.advance_to(ms(2000));
    client.call(queue_call());
    client.advance_to(ms(3000));
    assert!(!client.failure().evidence.gap, "the gap was before this call");
}

#[test]
fn calls_that_cannot_be_made_are_refused_by_name() {
    let limits = ClientLimits { calls: 1, ..ClientLimits::DEFAULT };
    let mut client = Driven::client_with(ClientConfig { limits, ..ClientConfig::new("Hats") });
    let mut refusal = |call: Call| client.engine.call(client.now, call).unwrap_err();

    let multi = MethodProperties { routing: Routing::Multi, require_claim: false };
    let error = refusal(Call::new(route("Census", multi), ""));
    assert_eq!(error.to_string(), "Census is a multi method: call it with a multi call");
    assert_eq!(error.code(), ErrorCode::InvalidArgument);

    let elsewhere = psrpc_engine::Route::new::<&str>("Coats", "Fit", QUEUE, &[]).unwrap();
    assert_eq!(refusal(Call::new(elsewhere, "")).to_string(), "Coats.Fit is not a method of Hats");

    for (option, selection) in [
        ("minimum_affinity", Selection { minimum_affinity: Some(0.5), ..Selection::default() }),
        ("maximum_affinity", Selection { maximum_affinity: Some(0.5), ..Selection::default() }),
        ("the selection function", Selection { ask: true, ..Selection::default() }),
    ] {
        let error = refusal(Call { selection, ..queue_call() });
        assert!(error.to_string().starts_with(&format!("Fit: cannot set {option}: the bus")), "{error}");
        assert_eq!(error.code(), ErrorCode::InvalidArgument);
    }
    let selection = Selection { minimum_affinity: Some(f32::NAN), ..Selection::default() };
    for call in [affinity_call(), queue_call()] {
        let error = refusal(Call { selection, ..call });
        assert_eq!(error.to_string(), "minimum_affinity must be a finite number");
    }

    let metadata: Metadata = (0..200).map(|name| (format!("name {name}"), "")).collect();
    let error = refusal(Call { metadata, ..queue_call() });
    assert_eq!(error.to_string(), "request too large: 200 entries of metadata exceed the limit of 128");

    let payload = Bytes::from(vec![0; ClientLimits::DEFAULT.frame.frame_bytes + 1]);
    let error = refusal(Call { payload, ..queue_call() });
    assert_eq!(
        error.to_string(),
        "request too large: 16777321 bytes of a frame exceed the limit of 16777216"
    );

    client.call(queue_call());
    let error = client.engine.call(client.now, queue_call()).unwrap_err();
    assert_eq!(error.to_string(), "too many calls in flight: the limit is 1");
    assert_eq!(error.code(), ErrorCode::ResourceExhausted);
    assert_eq!(client.frames().len(), 1, "a refused call publishes nothing");
}

#[test]
fn selection_options_that_compare_no_bids_take_effect_on_queues() {
    let timeout = Selection { affinity_timeout: Some(ms(300)), ..Selection::none() };
    let first = Selection { accept_first_available: Some(true), ..Selection::none() };
    let circuit = Selection { short_circuit_timeout: Some(ms(100)), ..Selection::none() };
    let zeros =
        Selection { minimum_affinity: Some(0.0), maximum_affinity: Some(-1.0), ..Selection::default() };
    for (selection, granted_at) in [(timeout, 300), (circuit, 100), (first, 0), (zeros, 0)] {
        let mut client = Driven::client();
        let (_, request) = client.request(Call { selection, ..queue_call() });
        client.bid(&request, "SRV_1", 1.0);
        if granted_at > 0 {
            client.advance_to(ms(granted_at - 1));
            assert!(client.granted().is_empty(), "{selection:?}");
        }
        client.advance_to(ms(granted_at));
        assert_eq!(client.granted(), ["SRV_1"], "{selection:?}");
    }
    let mut client = Driven::client();
    client.call(Call { selection: timeout, ..queue_call() });
    client.advance_to(ms(300));
    assert_eq!(client.failure().reason, Reason::NoResponse);
    // Without any options the call waits until its deadline, and grants no server then.
    let (_, request) = client.request(Call { selection: Selection::none(), ..queue_call() });
    client.bid(&request, "SRV_1", 1.0);
    client.advance_to(ms(3300));
    assert_eq!(client.failure().reason, Reason::TimedOut);
    assert!(client.granted().is_empty());
}

#[test]
fn names_that_cannot_be_carried_are_refused_by_name() {
    let client = |service: &str, id: &str| {
        let config = ClientConfig { id: id.into(), ..ClientConfig::new(service) };
        Client::new(config, [1; 32]).err().map(|error| error.to_string())
    };
    assert_eq!(client("Hats", "node_1"), None);
    assert_eq!(client("", "node_1").unwrap(), "the service must have a name");
    assert_eq!(
        client("Hats", "node.1").unwrap(),
        "invalid id \"node.1\": must not contain '.', which would change the NATS subject"
    );
    assert!(client("Hat Shop", "node_1").unwrap().starts_with("invalid service \"Hat Shop\": "));
    let topic = psrpc_engine::Route::new("Hats", "Fit", QUEUE, &["x".repeat(2000)]);
    assert!(topic.unwrap_err().to_string().ends_with("longer than 1024 bytes"));
    assert!(psrpc_engine::Route::new::<&str>("Hats", "", QUEUE, &[]).is_err());
}

#[test]
fn a_full_bus_holds_back_frames_but_no_events() {
    let mut client = Driven::client();
    for _ in 0..2 {
        client.engine.call(client.now, Call { timeout: Some(ms(100)), ..single_call() }).unwrap();
    }
    let first = refuse_next(&mut client.engine).expect("the first request");
    assert!(is_idle(&mut client.engine), "the waiting frame holds back the next one");
    let call = client.engine.call(client.now, single_call()).unwrap();
    client.engine.cancel(client.now, call);
    client.drain();
    assert!(client.outcome().is_some_and(|outcome| outcome.is_err()), "events are not held back");
    client.engine.handle_room();
    client.drain();
    let frames = client.frames();
    assert_eq!((frames.len(), &frames[0].1), (2, &first), "in order");
    assert_eq!(client.engine.counters().published, 2);
}

#[test]
fn frames_that_wait_for_a_full_bus_are_bounded_by_calls_in_flight() {
    let mut client = Driven::client();
    client.engine.call(client.now, single_call()).unwrap();
    assert!(refuse_next(&mut client.engine).is_some(), "the first request");
    let payload = Bytes::from(vec![0; 100]);
    for _ in 0..10_000 {
        let call = Call { payload: payload.clone(), ..single_call() };
        let call = client.engine.call(client.now, call).unwrap();
        client.engine.cancel(client.now, call);
        client.drain();
    }
    assert!(client.engine.counters().get(Reason::Withdrawn) >= 9_900, "{:?}", client.engine.counters());
}

#[test]
fn a_close_times_out_if_the_bus_does_not_confirm() {
    let mut client = Driven::client();
    client.engine.close(client.now);
    client.drain();
    client.advance_to(ms(2999));
    assert!(client.events().is_empty());
    client.advance_to(ms(3000));
    assert!(matches!(client.events()[..], [ClientEvent::Closed { error: None }]));
    client.confirm_unsubscribed();
    assert!(client.events().is_empty() && client.engine.poll_timeout().is_none());
}
