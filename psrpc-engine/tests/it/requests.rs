//! Tests of requests at the server.

use std::time::Duration;

use bytes::Bytes;
use psrpc_engine::proto::{ClaimResponse, ErrorCode, ErrorResponse, Frame, MethodProperties, Request};
use psrpc_engine::{
    BusError, Due, Engine, Now, Reason, Server, ServerConfig, ServerEvent, ServerLimits, Time, TimerKind,
    WallTime,
};

use crate::fixture::{
    AFFINITY, Driven, EPOCH, QUEUE, RequestEvent, SINGLE, all_outputs, at, is_idle, ms, next_published,
    refuse_next, route,
};

fn server() -> Driven<Server> {
    server_with(|_| {})
}

fn server_with(change: impl FnOnce(&mut ServerConfig)) -> Driven<Server> {
    let mut config = ServerConfig::new("Hats");
    change(&mut config);
    let routes = [route("Fit", QUEUE), route("Pick", AFFINITY), route("OwnerFit", SINGLE)];
    Driven::server_with(config, &routes)
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_claimed_request_is_bid_for_granted_run_and_answered() {
    let mut server = server();
    let request = server.accept("Fit", "REQ_1", SECOND);
    server.bid(request, 0.5);
    let bids = server.frames();
    assert!(
        matches!(&bids[..], [(channel, Frame::ClaimRequest(claim))]
            if channel == "Hats|CLI_1|CLAIM" && claim.affinity == 0.5 && !claim.handling),
        "{bids:?}"
    );
    server.grant("Fit", "REQ_1", "SRV_1");
    assert_eq!(server.request_events(), [RequestEvent::Run]);
    server.respond(request);
    let responses = server.frames();
    assert!(
        matches!(&responses[..], [(channel, Frame::Response(response))]
            if channel == "Hats|CLI_1|RES" && response.result == Ok("done".into()) && response.sent_at == EPOCH),
        "{responses:?}"
    );
    assert_eq!(server.engine.in_flight(), 0);
}

#[test]
fn a_request_without_a_claim_runs_at_once() {
    let mut server = server();
    let request = server.accept("OwnerFit", "REQ_1", SECOND);
    server.bid(request, 1.0);
    assert!(server.frames().is_empty());
    assert_eq!(server.request_events(), [RequestEvent::Run]);
}

#[test]
fn a_request_granted_elsewhere_is_abandoned() {
    let mut server = server();
    let request = server.accept("Pick", "REQ_1", SECOND);
    server.bid(request, 0.5);
    server.grant("Pick", "REQ_1", "SRV_2");
    assert_eq!(server.request_events(), [RequestEvent::Abandoned(Reason::BidLost)]);
    server.grant("Pick", "REQ_1", "SRV_1");
    assert!(server.request_events().is_empty(), "an abandoned request stays abandoned");
}

#[test]
fn grants_of_requests_at_other_servers_are_only_counted() {
    let mut server = server();
    server.grant("Fit", "REQ_elsewhere", "SRV_2");
    assert!(server.events().is_empty());
    assert_eq!(server.engine.counters().get(Reason::Elsewhere), 1);
}

#[test]
fn a_second_grant_runs_nothing_twice() {
    let mut server = server();
    let request = server.accept("Fit", "REQ_1", SECOND);
    server.bid(request, 1.0);
    server.grant("Fit", "REQ_1", "SRV_1");
    server.grant("Fit", "REQ_1", "SRV_1");
    assert_eq!(server.request_events(), [RequestEvent::Run, RequestEvent::Dropped(Reason::Late)]);
}

#[test]
fn a_negative_or_non_finite_affinity_is_no_bid() {
    let mut server = server();
    for (affinity, reason) in [
        (-0.5, Reason::NoBid),
        (f32::NAN, Reason::NonFiniteAffinity),
        (f32::INFINITY, Reason::NonFiniteAffinity),
    ] {
        let request = server.accept("Pick", &format!("REQ_{affinity}"), SECOND);
        server.bid(request, affinity);
        assert_eq!(server.request_events(), [RequestEvent::Abandoned(reason)]);
        assert!(server.frames().is_empty());
    }
    let request = server.accept("Pick", "REQ_0", SECOND);
    server.bid(request, 0.0);
    assert_eq!(server.frames().len(), 1, "0 is a bid");
}

#[test]
fn a_duplicate_is_dropped_while_the_request_runs_and_until_it_expires() {
    let mut server = server();
    for method in ["Fit", "OwnerFit"] {
        let id = format!("REQ_{method}");
        let first = Frame::Request(server.new_request(&id, SECOND));
        server.frame(&format!("Hats|{method}|REQ"), first.clone());
        let request = server.received()[0].request;
        server.frame(&format!("Hats|{method}|REQ"), first.clone());
        assert_eq!(server.request_events(), [RequestEvent::Dropped(Reason::Duplicate)]);
        server.bid(request, 1.0);
        if method == "Fit" {
            server.grant(method, &id, "SRV_1");
        }
        assert_eq!(server.request_events(), [RequestEvent::Run]);
        server.respond(request);
        server.frame(&format!("Hats|{method}|REQ"), first);
        assert_eq!(server.request_events(), [RequestEvent::Dropped(Reason::Duplicate)]);
    }
    assert_eq!(server.engine.remembered(), 2);
    server.advance_to(3 * SECOND);
    assert_eq!(server.engine.remembered(), 0);
    assert_eq!(server.engine.poll_timeout(), None, "no timer remains");
}

#[test]
fn two_clients_may_use_the_same_request_id_in_turn() {
    let mut server = server();
    let request = server.accept("OwnerFit", "REQ_1", SECOND);
    let other = Request { client_id: "CLI_2".into(), ..server.new_request("REQ_1", SECOND) };
    server.frame("Hats|OwnerFit|REQ", Frame::Request(other.clone()));
    assert_eq!(
        server.request_events(),
        [RequestEvent::Dropped(Reason::IdTaken)],
        "a grant does not distinguish them"
    );
    server.bid(request, 1.0);
    server.respond(request);
    server.events();
    server.frame("Hats|OwnerFit|REQ", Frame::Request(other));
    assert_eq!(server.received().len(), 1);
}

#[test]
fn an_expired_request_is_dropped_with_the_amount_of_skew() {
    let mut server = server();
    server.now = at(ms(5000));
    let request = Request { expiry: EPOCH + 2_000_000_000, ..server.new_request("REQ_1", SECOND) };
    server.frame("Hats|Fit|REQ", Frame::Request(request));
    let events = server.events();
    assert!(
        matches!(&events[..], [ServerEvent::Dropped(dropped)]
            if dropped.reason == Reason::Expired && dropped.late_by == 3 * SECOND
                && dropped.peer == "CLI_1" && dropped.request_id == "REQ_1"),
        "{events:?}"
    );
}

#[test]
fn a_request_is_expired_at_its_expiry_plus_the_allowance() {
    let mut server = server_with(|config| config.skew_allowance = ms(100));
    let lateness = |late: u64| at(SECOND + ms(late));
    let request = server.new_request("REQ_1", SECOND);
    server.now = lateness(100);
    server.frame("Hats|Fit|REQ", Frame::Request(request.clone()));
    assert_eq!(server.request_events(), [RequestEvent::Dropped(Reason::Expired)]);
    server.now = lateness(99);
    server.frame("Hats|Fit|REQ", Frame::Request(request));
    assert_eq!(server.received().len(), 1);
}

#[test]
fn a_grant_that_comes_too_late_starts_nothing() {
    let mut server = server();
    let request = server.accept("Fit", "REQ_1", SECOND);
    server.bid(request, 1.0);
    // The wall clock jumps past the expiry. The timer runs on the monotonic clock and has not
    // fired.
    server.now = Now { time: at(ms(10)).time, wall: at(2 * SECOND).wall };
    server.grant("Fit", "REQ_1", "SRV_1");
    assert_eq!(server.request_events(), [RequestEvent::Abandoned(Reason::NotGranted)]);
}

#[test]
fn a_request_that_is_never_granted_is_abandoned_at_its_expiry() {
    let mut server = server();
    let request = server.accept("Fit", "REQ_1", SECOND);
    server.bid(request, 1.0);
    assert_eq!(server.engine.poll_timeout().unwrap().kind, TimerKind::Expiry);
    server.advance_to(SECOND);
    assert_eq!(server.request_events(), [RequestEvent::Abandoned(Reason::NotGranted)]);
}

#[test]
fn a_handler_that_runs_past_the_expiry_is_abandoned_without_a_response() {
    let mut server = server();
    let request = server.accept("OwnerFit", "REQ_1", SECOND);
    server.bid(request, 1.0);
    server.advance_to(SECOND);
    assert_eq!(server.request_events(), [RequestEvent::Run, RequestEvent::Abandoned(Reason::Overran)]);
    server.respond(request);
    assert!(server.frames().is_empty());
}

#[test]
fn a_malformed_request_is_answered_at_once() {
    let mut server = server();
    let request = server.accept("Fit", "REQ_1", SECOND);
    let error = ErrorResponse::new(ErrorCode::MalformedRequest, "no hat");
    server.engine.reject(server.now, request, error.clone());
    server.drain();
    let responses = server.frames();
    assert!(matches!(&responses[..], [(_, Frame::Response(response))] if response.result == Err(error)));
    assert_eq!(server.engine.counters().get(Reason::MalformedRequest), 1);
    assert_eq!(server.request_events(), [RequestEvent::Dropped(Reason::MalformedRequest)]);
}

#[test]
fn a_skip_claim_request_is_announced_and_runs_without_a_grant() {
    let mut server = server();
    let request = Request { skip_claim: true, ..server.new_request("REQ_1", SECOND) };
    server.frame("Hats|Fit|REQ", Frame::Request(request));
    let received = server.received();
    assert!(received[0].may_skip_claim);
    server.engine.skip_claim(server.now, received[0].request);
    server.drain();
    assert!(matches!(&server.frames()[..], [(_, Frame::ClaimRequest(claim))] if claim.handling));
    assert_eq!(server.request_events(), [RequestEvent::Run]);
    server.grant("Fit", "REQ_1", "SRV_1");
    assert_eq!(server.request_events(), [RequestEvent::Dropped(Reason::Late)], "a stray grant is ignored");
}

#[test]
fn a_skip_claim_request_is_announced_even_if_its_handler_responds_at_once() {
    let mut server = server();
    let request = Request { skip_claim: true, ..server.new_request("REQ_1", SECOND) };
    server.frame("Hats|Fit|REQ", Frame::Request(request));
    let request = server.received()[0].request;
    server.engine.skip_claim(server.now, request);
    server.respond(request);
    let frames = server.frames();
    assert!(
        matches!(&frames[..], [(_, Frame::ClaimRequest(claim)), (_, Frame::Response(_))] if claim.handling),
        "{frames:?}"
    );
    assert_eq!(server.engine.counters().get(Reason::Withdrawn), 0);
}

#[test]
fn a_request_that_does_not_allow_skip_claim_gets_a_bid() {
    let mut server = server();
    let queue = server.accept("Fit", "REQ_1", SECOND);
    let request = Request { skip_claim: true, ..server.new_request("REQ_2", SECOND) };
    server.frame("Hats|Pick|REQ", Frame::Request(request));
    let affinity = server.received();
    assert!(!affinity[0].may_skip_claim, "only queue methods allow it");
    for request in [queue, affinity[0].request] {
        server.engine.skip_claim(server.now, request);
        server.drain();
        assert!(matches!(&server.frames()[..], [(_, Frame::ClaimRequest(claim))] if !claim.handling));
        assert!(server.request_events().is_empty());
    }
}

#[test]
fn a_bid_that_the_bus_refuses_abandons_the_request() {
    let mut server = server();
    let request = server.accept("Fit", "REQ_1", SECOND);
    server.bid(request, 1.0);
    let token = server.published()[0].0;
    server.engine.handle_published(server.now, token, Err(BusError::new("down")));
    server.drain();
    assert_eq!(server.request_events(), [RequestEvent::Abandoned(Reason::PublishFailed)]);
}

#[test]
fn a_response_that_the_bus_refuses_is_reported() {
    let mut server = server();
    let request = server.accept("OwnerFit", "REQ_1", SECOND);
    server.bid(request, 1.0);
    server.events();
    server.respond(request);
    let token = server.published()[0].0;
    server.engine.handle_published(server.now, token, Err(BusError::new("down")));
    server.drain();
    assert_eq!(server.request_events(), [RequestEvent::Dropped(Reason::PublishFailed)]);
}

#[test]
fn a_response_that_the_bus_cannot_carry_becomes_an_error_response() {
    let mut server = server();
    let request = server.accept("OwnerFit", "REQ_1", SECOND);
    server.bid(request, 1.0);
    server.events();
    server.engine.respond(server.now, request, Ok("a large hat".into()));
    let (token, ..) = next_published(&mut server.engine).unwrap();
    let error = BusError::invalid("a frame of 2000 bytes is over the limit of 1000");
    server.engine.handle_published(server.now, token, Err(error.clone()));
    let (token, channel, frame) = next_published(&mut server.engine).unwrap();
    let Frame::Response(response) = frame else { panic!("{frame:?}") };
    let error_response = response.result.unwrap_err();
    assert_eq!(error_response.code, ErrorCode::ResourceExhausted);
    assert_eq!(
        error_response.text,
        "the bus cannot carry the response: a frame of 2000 bytes is over the limit of 1000"
    );
    assert_eq!((channel.legacy(), response.request_id.as_str()), ("Hats|CLI_1|RES", "REQ_1"));
    // Nothing replaces the error response if the bus cannot carry that either.
    server.engine.handle_published(server.now, token, Err(error));
    server.drain();
    assert_eq!(server.request_events(), [RequestEvent::Dropped(Reason::PublishFailed); 2]);
    assert!(server.published().is_empty());
    assert_eq!(server.engine.in_flight(), 0);
}

#[test]
fn a_full_server_responds_only_if_no_other_server_can() {
    let mut server = server_with(|config| {
        config.limits = ServerLimits { requests: 1, ..ServerLimits::DEFAULT };
    });
    let first = server.new_request("REQ_1", SECOND);
    server.frame("Hats|Fit|REQ", Frame::Request(first.clone()));
    let of_one_server = MethodProperties { require_claim: false, ..AFFINITY };
    server.register(&[route("OwnerPick", of_one_server)]);
    server.events();
    server.receive("Pick", "REQ_2", SECOND);
    assert_eq!(server.request_events(), [RequestEvent::Dropped(Reason::RequestsFull)]);
    assert!(server.frames().is_empty(), "other servers see it too");
    for (method, id) in [("Fit", "REQ_3"), ("OwnerPick", "REQ_4")] {
        server.receive(method, id, SECOND);
        assert_eq!(server.request_events(), [RequestEvent::Dropped(Reason::RequestsFull)]);
        let responses = server.frames();
        assert!(
            matches!(&responses[..], [(_, Frame::Response(response))]
                if response.result.as_ref().is_err_and(|error| error.code == ErrorCode::ResourceExhausted)),
            "{method}: {responses:?}"
        );
    }
    server.frame("Hats|Fit|REQ", Frame::Request(first));
    assert_eq!(server.request_events(), [RequestEvent::Dropped(Reason::Duplicate)]);
    assert!(server.frames().is_empty(), "a duplicate does not fail the request in flight");
}

#[test]
fn remembered_requests_are_limited_and_never_forgotten_early() {
    let mut server = server_with(|config| {
        config.limits = ServerLimits { remembered: 1, ..ServerLimits::DEFAULT };
    });
    let first = server.new_request("REQ_1", SECOND);
    server.frame("Hats|OwnerFit|REQ", Frame::Request(first.clone()));
    let request = server.received()[0].request;
    server.bid(request, 1.0);
    server.events();
    server.respond(request);
    server.frames();
    server.receive("Fit", "REQ_2", SECOND);
    assert_eq!(server.request_events(), [RequestEvent::Dropped(Reason::DedupFull)]);
    assert_eq!(server.frames().len(), 1, "an error response, since no other server saw it");
    server.frame("Hats|OwnerFit|REQ", Frame::Request(first));
    assert_eq!(server.request_events(), [RequestEvent::Dropped(Reason::Duplicate)]);
}

#[test]
fn the_bytes_of_requests_in_flight_are_bounded() {
    let mut server = server_with(|config| {
        config.limits = ServerLimits { request_bytes: 10, ..ServerLimits::DEFAULT };
    });
    let template = server.new_request("REQ_1", SECOND);
    let sized = |id: &str, bytes: usize| {
        let payload = vec![0; bytes].into();
        Frame::Request(Request { request_id: id.into(), payload, ..template.clone() })
    };
    server.frame("Hats|Fit|REQ", sized("REQ_1", 6));
    let request = server.received()[0].request;
    server.frame("Hats|Fit|REQ", sized("REQ_2", 5));
    assert_eq!(server.request_events(), [RequestEvent::Dropped(Reason::RequestsFull)]);
    server.bid(request, -1.0);
    server.events();
    server.frame("Hats|Fit|REQ", sized("REQ_3", 10));
    assert_eq!(server.received().len(), 1, "the bytes of a request that is over are free again");
}

#[test]
fn a_far_expiry_is_moved_to_the_horizon() {
    let mut server = server_with(|config| config.horizon = 10 * SECOND);
    let request = Request { expiry: i64::MAX, ..server.new_request("REQ_1", SECOND) };
    server.frame("Hats|Fit|REQ", Frame::Request(request));
    assert_eq!(server.received()[0].deadline, Time::ZERO + 10 * SECOND);
}

#[test]
fn a_request_from_the_far_future_is_dropped() {
    let mut server = server_with(|config| config.horizon = 10 * SECOND);
    let sent_at = EPOCH + 11_000_000_000;
    let request = Request { sent_at, expiry: i64::MAX, ..server.new_request("REQ_1", SECOND) };
    server.frame("Hats|Fit|REQ", Frame::Request(request));
    assert_eq!(server.request_events(), [RequestEvent::Dropped(Reason::FarFuture)]);
    assert_eq!(server.engine.remembered(), 0);
}

#[test]
fn a_request_without_sent_at_is_accepted() {
    let mut server = server();
    let request = Request { sent_at: 0, ..server.new_request("REQ_1", SECOND) };
    server.frame("Hats|Fit|REQ", Frame::Request(request));
    assert_eq!(server.received()[0].deadline, Time::ZERO + SECOND);
}

#[test]
fn a_jump_of_the_wall_clock_moves_no_deadline() {
    let mut server = server();
    let request = server.accept("OwnerFit", "REQ_1", SECOND);
    server.bid(request, 1.0);
    server.events();
    // The wall clock is set back by an hour; the handler's deadline stays.
    server.now = Now { time: at(SECOND).time, wall: WallTime::from_unix_nanos(EPOCH - 3_600_000_000_000) };
    assert_eq!(server.engine.handle_timeout(server.now), Due::Nothing);
    server.drain();
    assert_eq!(server.request_events(), [RequestEvent::Abandoned(Reason::Overran)]);
}

#[test]
fn frames_that_cannot_be_requests_are_counted_and_ignored() {
    let mut server = server();
    let nameless = Request { request_id: "".into(), ..server.new_request("x", SECOND) };
    server.frame("Hats|Fit|REQ", Frame::Request(nameless));
    let clientless = Request { client_id: "".into(), ..server.new_request("REQ_1", SECOND) };
    server.frame("Hats|Fit|REQ", Frame::Request(clientless));
    server.frame("Hats|Fit|REQ", Frame::Raw(Bytes::from_static(b"\x80\x80")));
    let request = Frame::Request(server.new_request("REQ_1", SECOND));
    server.frame("Hats|Fit|RCLAIM", request);
    let long = Request { client_id: "C".repeat(257).into(), ..server.new_request("REQ_2", SECOND) };
    server.frame("Hats|Fit|REQ", Frame::Request(long.clone()));
    server.frame("Hats|Fit|REQ", Frame::Raw(Frame::Request(long).encode("")));
    assert_eq!(
        server.request_events(),
        [
            Reason::MissingId,
            Reason::MissingId,
            Reason::Malformed,
            Reason::UnexpectedType,
            Reason::FrameLimit,
            Reason::FrameLimit
        ]
        .map(RequestEvent::Dropped)
    );
    assert_eq!(server.engine.counters().frames, 6);
}

#[test]
fn commands_for_a_request_in_another_state_do_nothing() {
    let mut server = server();
    let request = server.accept("Fit", "REQ_1", SECOND);
    server.respond(request);
    assert!(server.frames().is_empty(), "it does not run");
    server.bid(request, 1.0);
    server.bid(request, 1.0);
    assert_eq!(server.frames().len(), 1, "one bid");
    server.advance_to(SECOND);
    server.events();
    server.bid(request, 1.0);
    server.respond(request);
    server.engine.skip_claim(server.now, request);
    server.engine.reject(server.now, request, ErrorResponse::new(ErrorCode::Internal, "x"));
    assert!(is_idle(&mut server.engine));
}

#[test]
fn a_duplicate_with_another_expiry_is_a_duplicate() {
    let mut server = server();
    let request = server.accept("OwnerFit", "REQ_1", SECOND);
    server.bid(request, 1.0);
    server.respond(request);
    server.events();
    server.receive("OwnerFit", "REQ_1", 10 * SECOND);
    assert_eq!(server.request_events(), [RequestEvent::Dropped(Reason::Duplicate)]);
}

#[test]
fn a_request_without_sent_at_runs_once() {
    let mut server = server_with(|config| config.horizon = 10 * SECOND);
    let undated =
        |server: &Driven<Server>, id, timeout| Request { sent_at: 0, ..server.new_request(id, timeout) };
    let far = undated(&server, "REQ_1", 12 * SECOND);
    server.frame("Hats|OwnerFit|REQ", Frame::Request(far.clone()));
    assert_eq!(server.request_events(), [RequestEvent::Dropped(Reason::FarFuture)]);
    // Now its expiry is within the horizon.
    server.advance_to(5 * SECOND);
    for expected in [None, Some(Reason::Duplicate)] {
        server.frame("Hats|OwnerFit|REQ", Frame::Request(far.clone()));
        let events = server.events();
        match (expected, &events[..]) {
            (None, [ServerEvent::Received(_)]) => {}
            (Some(reason), [ServerEvent::Dropped(dropped)]) if dropped.reason == reason => {}
            (expected, events) => panic!("{expected:?}: {events:?}"),
        }
        server.advance_to(6 * SECOND);
    }
}

#[test]
fn a_jump_of_the_wall_clock_does_not_stop_a_running_handler() {
    let mut server = server();
    let request = server.accept("OwnerFit", "REQ_1", 3 * SECOND);
    server.bid(request, 1.0);
    server.now = Now { time: at(SECOND).time, wall: at(11 * SECOND).wall };
    server.respond(request);
    assert_eq!(server.frames().len(), 1);
}

#[test]
fn a_result_over_the_frame_limit_becomes_an_error() {
    let mut server = server();
    let limit = ServerLimits::DEFAULT.frame.frame_bytes;
    for (id, size) in [("REQ_1", limit - 1000), ("REQ_2", limit)] {
        let request = server.accept("OwnerFit", id, SECOND);
        server.bid(request, 1.0);
        server.engine.respond(server.now, request, Ok(vec![0; size].into()));
        server.drain();
        let frames = server.frames();
        let [(_, frame)] = &frames[..] else { panic!("{frames:?}") };
        assert!(Frame::decode(&frame.encode("Fit.RES"), &ServerLimits::DEFAULT.frame).is_ok());
        let Frame::Response(response) = frame else { panic!("{frame:?}") };
        match &response.result {
            Ok(payload) => assert_eq!((id, payload.len()), ("REQ_1", size)),
            Err(error) => {
                assert_eq!((id, &error.code), ("REQ_2", &ErrorCode::ResourceExhausted));
                assert!(
                    error.text.as_str().contains("bytes of a frame are over the limit of 16777216"),
                    "{error:?}"
                );
            }
        }
    }
    assert_eq!(server.engine.counters().get(Reason::FrameLimit), 1);
}

#[test]
fn responses_that_wait_for_a_full_bus_are_withdrawn_at_their_expiry() {
    let mut server = server();
    let respond = |server: &mut Driven<Server>, id: &str| {
        let request = server.accept("OwnerFit", id, SECOND);
        server.bid(request, 1.0);
        server.engine.respond(server.now, request, Ok(vec![0; 100].into()));
    };
    respond(&mut server, "REQ_1");
    let _ = all_outputs(&mut server.engine);
    assert!(refuse_next(&mut server.engine).is_some(), "the first response");
    for number in 2..=1000 {
        respond(&mut server, &format!("REQ_{number}"));
    }
    assert_eq!(server.engine.in_flight(), 1000, "waiting responses count against the limit");
    server.advance_to(SECOND);
    assert_eq!(server.engine.in_flight(), 0);
    server.engine.handle_room();
    server.drain();
    assert!(server.frames().is_empty());
    assert_eq!(server.engine.counters().get(Reason::Withdrawn), 1000);
}

#[test]
fn a_timeout_at_the_end_of_time_is_handled() {
    let mut server = server();
    server.accept("OwnerFit", "REQ_1", SECOND);
    let end = Time::from_nanos(u64::MAX);
    assert_eq!(server.engine.handle_timeout(Now { time: end, wall: at(ms(1)).wall }), Due::Nothing);
    server.drain();
    assert_eq!(server.request_events(), [RequestEvent::Abandoned(Reason::NotGranted)]);
    assert!(server.engine.poll_timeout().is_none_or(|timeout| timeout.at > end));
}

#[test]
fn a_misrouted_queue_request_gets_an_error_response() {
    let mut server = server();
    let subscription = server.subscription("Hats|Fit|REQ");
    let request = server.new_request("REQ_1", SECOND);
    server.engine.handle_misrouted(server.now, subscription, Frame::Request(request.clone()));
    server.drain();
    let frames = server.frames();
    let error = ErrorResponse::new(ErrorCode::Unimplemented, "method is not implemented");
    assert!(
        matches!(&frames[..], [(channel, Frame::Response(response))]
            if channel == "Hats|CLI_1|RES" && response.request_id == "REQ_1" && response.result == Err(error)),
        "{frames:?}"
    );
    assert_eq!(server.request_events(), [RequestEvent::Dropped(Reason::Misrouted)]);
    // No response to an expired request, to other frames, or on another kind of channel.
    let expired = Request { expiry: EPOCH, ..request.clone() };
    let nameless = Request { client_id: "".into(), ..request.clone() };
    let grants = server.subscription("Hats|Fit|RCLAIM");
    for (subscription, frame) in [
        (subscription, Frame::Request(expired)),
        (subscription, Frame::Request(nameless)),
        (subscription, Frame::ClaimResponse(ClaimResponse::default())),
        (grants, Frame::Request(request)),
    ] {
        server.engine.handle_misrouted(server.now, subscription, frame);
        server.drain();
        assert!(server.frames().is_empty());
        assert_eq!(server.request_events(), [RequestEvent::Dropped(Reason::Misrouted)]);
    }
}

#[test]
fn a_grant_without_a_server_id_stops_the_handler() {
    let mut server = server_with(|config| config.heeds_cancellation = true);
    let claimed = server.accept("Fit", "REQ_1", ms(1000));
    server.bid(claimed, 1.0);
    server.grant("Fit", "REQ_1", "SRV_1");
    let unclaimed = server.accept("OwnerFit", "REQ_2", ms(1000));
    server.bid(unclaimed, 1.0);
    server.request_events();
    server.grant("Fit", "REQ_1", "");
    let cancellation = ClaimResponse { request_id: "REQ_2".into(), server_id: "".into() };
    server.frame("Hats|OwnerFit|REQ", Frame::ClaimResponse(cancellation));
    assert_eq!(server.request_events(), [RequestEvent::Abandoned(Reason::Canceled); 2]);
    assert_eq!(server.engine.in_flight(), 0);
}

#[test]
fn a_grant_without_a_server_id_is_ignored_by_default() {
    let mut server = server();
    let request = server.accept("Fit", "REQ_1", ms(1000));
    server.bid(request, 1.0);
    server.grant("Fit", "REQ_1", "SRV_1");
    server.request_events();
    server.grant("Fit", "REQ_1", "");
    assert_eq!(server.request_events(), [RequestEvent::Dropped(Reason::Late)]);
}
