//! Tests of registration, conflicts, deregistration, drain and kill.

use std::time::Duration;

use psrpc_engine::proto::{Frame, MethodProperties, Routing};
use psrpc_engine::{
    BusError, Engine, Output, Reason, RegisterError, Route, Server, ServerConfig, ServerEvent,
    SubscriptionKind,
};

use crate::fixture::{
    AFFINITY, Driven, QUEUE, RequestEvent, SINGLE, all_outputs, is_idle, ms, refuse_next, route, topic_route,
};

const SECOND: Duration = Duration::from_secs(1);

fn channels(server: &Driven<Server>) -> Vec<(&str, SubscriptionKind)> {
    server.subscriptions.iter().map(|(_, channel, kind)| (channel.legacy(), *kind)).collect()
}

#[test]
fn a_server_subscribes_only_to_the_channels_that_its_methods_need() {
    let server = Driven::server(&[
        route("Fit", QUEUE),
        route("Pick", AFFINITY),
        topic_route("OwnerFit", SINGLE, &["me"]),
    ]);
    use SubscriptionKind::{Plain, Queue};
    assert_eq!(
        channels(&server),
        [
            ("Hats|Fit|RCLAIM", Plain),
            ("Hats|Fit|REQ", Queue),
            ("Hats|Pick|RCLAIM", Plain),
            ("Hats|Pick|REQ", Plain),
            ("Hats|OwnerFit|me|REQ", Queue),
        ]
    );
}

#[test]
fn methods_registered_together_are_served_together() {
    let mut server = Server::new(ServerConfig::new("Hats"), [1; 32]).unwrap();
    let registration = server.register(vec![route("Fit", QUEUE), route("Pick", AFFINITY)]).unwrap();
    let subscriptions: Vec<_> = all_outputs(&mut server)
        .into_iter()
        .map(|output| match output {
            Output::Subscribe { subscription, .. } => subscription,
            other => panic!("{other:?}"),
        })
        .collect();
    let now = crate::fixture::at(ms(0));
    for subscription in &subscriptions[1..] {
        server.handle_subscribed(now, *subscription, Ok(()));
    }
    assert!(is_idle(&mut server));
    server.handle_subscribed(now, subscriptions[0], Ok(()));
    let outputs = all_outputs(&mut server);
    assert!(
        matches!(&outputs[..], [Output::Event(ServerEvent::Registered { registration: it, result: Ok(()) })]
            if *it == registration)
    );
}

#[test]
fn methods_registered_together_fail_together() {
    let mut server = Server::new(ServerConfig::new("Hats"), [1; 32]).unwrap();
    server.register(vec![route("Fit", QUEUE), route("Pick", AFFINITY)]).unwrap();
    let subscriptions: Vec<_> = all_outputs(&mut server)
        .into_iter()
        .filter_map(|output| match output {
            Output::Subscribe { subscription, .. } => Some(subscription),
            _ => None,
        })
        .collect();
    let now = crate::fixture::at(ms(0));
    server.handle_subscribed(now, subscriptions[0], Ok(()));
    server.handle_subscribed(now, subscriptions[1], Err(BusError::new("not allowed")));
    let outputs = all_outputs(&mut server);
    assert!(matches!(&outputs[..], [Output::Unsubscribe { .. }]), "{outputs:?}");
    for subscription in [subscriptions[3], subscriptions[0], subscriptions[2]] {
        server.handle_unsubscribed(now, subscription);
    }
    let outputs = all_outputs(&mut server);
    assert!(
        matches!(&outputs[..], [.., Output::Event(ServerEvent::Registered { result: Err(_), .. })]),
        "{outputs:?}"
    );
    assert!(server.register(vec![route("Fit", QUEUE)]).is_ok(), "their names are free after the failure");
}

#[test]
fn a_registration_canceled_before_it_is_live_never_serves() {
    let mut server = Server::new(ServerConfig::new("Hats"), [1; 32]).unwrap();
    let registration = server.register(vec![route("OwnerFit", SINGLE)]).unwrap();
    let [Output::Subscribe { subscription, .. }] = all_outputs(&mut server)[..] else { panic!() };
    let now = crate::fixture::at(ms(0));
    server.deregister(now, registration);
    server.handle_subscribed(now, subscription, Ok(()));
    server.handle_unsubscribed(now, subscription);
    let events: Vec<_> = all_outputs(&mut server);
    assert!(
        matches!(
            &events[..],
            [Output::Unsubscribe { .. }, Output::Event(ServerEvent::Registered { result: Err(_), .. })]
        ),
        "{events:?}"
    );
}

#[test]
fn a_conflict_names_what_is_still_registered() {
    let mut server = Driven::server(&[]);
    let first = server.register(&[topic_route("A", QUEUE, &["Q"])]);
    server.register(&[topic_route("B", QUEUE, &["Q"])]);
    server.engine.deregister(server.now, first);
    for _ in 0..2 {
        server.drain();
        server.confirm_unsubscribed();
    }
    let error = server.engine.register(vec![route("C", QUEUE)]).unwrap_err().to_string();
    assert!(error.contains("with Hats.B"), "{error}");
}

#[test]
fn a_method_is_registered_once_for_a_topic() {
    let mut server = Driven::server(&[topic_route("Fit", QUEUE, &["eu"])]);
    server.register(&[topic_route("Fit", QUEUE, &["us"])]);
    let error = server.engine.register(vec![topic_route("Fit", QUEUE, &["eu"])]).unwrap_err();
    assert_eq!(error.to_string(), "Hats.Fit[\"eu\"] is already registered");
    let error = server
        .engine
        .register(vec![topic_route("Pick", AFFINITY, &["x"]), topic_route("Pick", AFFINITY, &["x"])])
        .unwrap_err();
    assert!(matches!(error, RegisterError::Duplicate { .. }));
    assert!(is_idle(&mut server.engine), "nothing is subscribed");
    server.register(&[topic_route("Pick", AFFINITY, &["x"])]);
}

#[test]
fn topics_that_would_share_names_are_refused_naming_both() {
    let refusal = |first: Route, second: Route| {
        let mut server = Driven::server(&[first]);
        server.engine.register(vec![second]).unwrap_err().to_string()
    };
    // One legacy name for both.
    assert_eq!(
        refusal(topic_route("Fit", QUEUE, &[]), topic_route("Fit", QUEUE, &[""])),
        "cannot register Hats.Fit[\"\"]: it would share the name \"Hats|Fit|REQ\" with Hats.Fit"
    );
    // One subject for both.
    assert_eq!(
        refusal(topic_route("Fit", QUEUE, &["", "b"]), topic_route("Fit", QUEUE, &["b", ""])),
        "cannot register Hats.Fit[\"b\", \"\"]: it would share the name \"SRV.Hats.b.Q\" with Hats.Fit[\"\", \"b\"]"
    );
    // A topic that looks like the queue suffix: queue and plain subscriptions would mix on one
    // subject.
    assert_eq!(
        refusal(route("Fit", QUEUE), topic_route("Pick", AFFINITY, &["Q"])),
        "cannot register Hats.Pick[\"Q\"]: it would share the name \"SRV.Hats.Q\" with Hats.Fit"
    );
    let mut server = Driven::server(&[topic_route("Fit", QUEUE, &["", "b"])]);
    server.register(&[topic_route("Other", QUEUE, &["b", ""])]);
}

#[test]
fn names_are_free_again_after_deregistration() {
    let mut server = Driven::server(&[]);
    let first =
        server.register(&[topic_route("Fit", QUEUE, &["eu"]), topic_route("Pick", AFFINITY, &["eu"])]);
    server.engine.deregister(server.now, first);
    server.drain();
    let error = server.engine.register(vec![topic_route("Fit", QUEUE, &["eu"])]).unwrap_err();
    assert!(matches!(error, RegisterError::Duplicate { .. }), "not before the bus has confirmed");
    server.confirm_unsubscribed();
    server.confirm_unsubscribed();
    server.register(&[topic_route("Fit", QUEUE, &["eu"])]);
}

#[test]
fn a_method_of_another_service_is_refused() {
    let mut server = Driven::server(&[]);
    let elsewhere = Route::new::<&str>("Coats", "Fit", QUEUE, &[]).unwrap();
    let error = server.engine.register(vec![elsewhere]).unwrap_err();
    assert_eq!(error.to_string(), "Coats.Fit is not a method of Hats");
}

#[test]
fn deregistration_ends_when_the_running_handlers_have_ended() {
    let mut server = Driven::server(&[]);
    let registration = server.register(&[route("Fit", QUEUE)]);
    server.events();
    let request = server.accept("Fit", "REQ_1", SECOND);
    server.bid(request, 1.0);
    server.engine.deregister(server.now, registration);
    server.drain();
    assert_eq!(server.unsubscribed, [server.subscription("Hats|Fit|REQ")], "grants are still needed");
    // Delivered before the bus has confirmed, so the server still serves it.
    let second = server.accept("Fit", "REQ_2", SECOND);
    server.confirm_unsubscribed();
    server.receive("Fit", "REQ_3", SECOND);
    assert!(server.received().is_empty(), "no new requests after that");
    for (request, id) in [(request, "REQ_1"), (second, "REQ_2")] {
        server.bid(request, 1.0);
        server.grant("Fit", id, "SRV_1");
        assert_eq!(server.request_events(), [RequestEvent::Run]);
        server.respond(request);
    }
    assert_eq!(server.unsubscribed, [server.subscription("Hats|Fit|RCLAIM")]);
    assert!(server.events().is_empty());
    server.confirm_unsubscribed();
    assert!(matches!(server.events()[..], [ServerEvent::Deregistered { .. }]));
}

#[test]
fn a_lost_subscription_takes_its_registration_with_it() {
    let mut server = Driven::server(&[route("Fit", QUEUE), route("Pick", AFFINITY)]);
    let lost = server.subscription("Hats|Fit|RCLAIM");
    server.engine.handle_unsubscribed(server.now, lost);
    server.drain();
    assert!(matches!(server.events()[..], [ServerEvent::RegistrationLost { .. }]));
    server.confirm_unsubscribed();
    assert!(matches!(server.events()[..], [ServerEvent::Deregistered { .. }]));
    server.accept("Pick", "REQ_1", SECOND);
}

#[test]
fn a_drained_server_finishes_accepted_requests() {
    let mut server = Driven::server(&[route("Fit", QUEUE), route("OwnerFit", SINGLE)]);
    let claimed = server.accept("Fit", "REQ_1", SECOND);
    server.bid(claimed, 1.0);
    server.frames();
    server.engine.drain(server.now);
    server.drain();
    let late = server.accept("OwnerFit", "REQ_2", SECOND);
    server.bid(late, 1.0);
    server.grant("Fit", "REQ_1", "SRV_1");
    server.confirm_unsubscribed();
    server.respond(claimed);
    server.respond(late);
    assert_eq!(server.frames().len(), 2, "both got a response");
    server.confirm_unsubscribed();
    let events = server.events();
    assert!(matches!(events.last(), Some(ServerEvent::Closed)), "{events:?}");
    assert_eq!(server.engine.poll_timeout(), None);
    assert_eq!(server.engine.register(vec![route("Fit", QUEUE)]).unwrap_err(), RegisterError::Closed);
}

#[test]
fn a_server_without_anything_to_wait_for_closes_at_once() {
    let mut server = Driven::server(&[]);
    server.engine.drain(server.now);
    server.drain();
    assert!(matches!(server.events()[..], [ServerEvent::Closed]));
}

#[test]
fn a_drain_ends_by_the_expiry_of_the_last_request() {
    let mut server = Driven::server(&[route("OwnerFit", SINGLE)]);
    let request = server.accept("OwnerFit", "REQ_1", 10 * SECOND);
    server.bid(request, 1.0);
    server.engine.drain(server.now);
    server.drain();
    server.confirm_unsubscribed();
    server.advance_to(10 * SECOND - ms(1));
    assert!(!server.events().iter().any(|event| matches!(event, ServerEvent::Closed)));
    server.advance_to(10 * SECOND);
    let events = server.events();
    assert!(
        matches!(
            events[..],
            [
                ServerEvent::Abandoned { reason: Reason::Overran, .. },
                ServerEvent::Deregistered { .. },
                ServerEvent::Closed
            ]
        ),
        "{events:?}"
    );
}

#[test]
fn a_drain_times_out_if_the_bus_does_not_confirm() {
    let mut server = Driven::server(&[route("Fit", QUEUE)]);
    server.engine.drain(server.now);
    server.drain();
    server.advance_to(3 * SECOND - ms(1));
    assert!(server.events().is_empty());
    server.advance_to(3 * SECOND);
    assert!(matches!(server.events()[..], [ServerEvent::Closed]));
    assert_eq!(server.engine.poll_timeout(), None);
}

/// Returns a draining server with a response that waits for room on the bus.
fn draining_on_a_full_bus() -> Driven<Server> {
    let mut server = Driven::server(&[route("OwnerFit", SINGLE)]);
    let request = server.accept("OwnerFit", "REQ_1", SECOND);
    server.bid(request, 1.0);
    server.events();
    server.engine.respond(server.now, request, Ok("a hat".into()));
    assert!(refuse_next(&mut server.engine).is_some(), "the response");
    server.engine.drain(server.now);
    server.drain();
    server.confirm_unsubscribed();
    server
}

#[test]
fn a_drained_server_is_closed_when_its_last_response_has_left() {
    let mut server = draining_on_a_full_bus();
    let closed = |events: Vec<ServerEvent>| events.iter().any(|event| matches!(event, ServerEvent::Closed));
    assert!(!closed(server.events()), "the response waits");
    server.engine.handle_room();
    server.drain();
    assert_eq!(server.frames().len(), 1);
    assert!(closed(server.events()), "it has left");
    assert_eq!(server.engine.poll_timeout(), None);
}

#[test]
fn a_drain_on_a_full_bus_ends_when_the_waiting_response_expires() {
    let mut server = draining_on_a_full_bus();
    server.events();
    server.advance_to(SECOND - ms(1));
    assert!(server.events().is_empty());
    server.advance_to(SECOND);
    assert!(matches!(server.events()[..], [ServerEvent::Deregistered { .. }, ServerEvent::Closed]));
    assert_eq!(server.engine.counters().get(Reason::Withdrawn), 1);
    server.engine.handle_room();
    server.drain();
    assert!(server.frames().is_empty() && server.engine.poll_timeout().is_none());
}

#[test]
fn a_drain_does_not_wait_for_requests_that_have_ended() {
    let mut server = Driven::server(&[route("OwnerFit", SINGLE)]);
    let request = server.accept("OwnerFit", "REQ_1", 1800 * SECOND);
    server.bid(request, 1.0);
    server.respond(request);
    server.events();
    server.engine.drain(server.now);
    server.drain();
    server.advance_to(3 * SECOND);
    assert!(matches!(server.events()[..], [ServerEvent::Closed]), "the bus did not confirm in time");
}

#[test]
fn requests_delivered_after_the_drain_timeout_are_dropped() {
    let mut server = Driven::server(&[route("OwnerFit", SINGLE)]);
    server.engine.drain(server.now);
    server.drain();
    server.advance_to(SECOND);
    let request = server.accept("OwnerFit", "REQ_1", 10 * SECOND);
    server.bid(request, 1.0);
    server.events();
    server.advance_to(5 * SECOND);
    server.receive("OwnerFit", "REQ_2", 10 * SECOND);
    assert_eq!(server.request_events(), [RequestEvent::Dropped(Reason::Draining)]);
    server.respond(request);
    assert_eq!(server.frames().len(), 1);
    assert!(matches!(server.events()[..], [ServerEvent::Closed]), "nothing is in flight any more");
}

#[test]
fn a_frame_that_waits_when_its_server_is_killed_is_withdrawn() {
    let mut server = Driven::server(&[route("OwnerFit", SINGLE)]);
    let request = server.accept("OwnerFit", "REQ_1", SECOND);
    server.bid(request, 1.0);
    server.events();
    server.engine.respond(server.now, request, Ok("a hat".into()));
    assert!(server.engine.poll_publish().is_some(), "the response is polled and not taken");
    server.engine.kill(server.now);
    server.engine.handle_full();
    server.engine.handle_room();
    server.drain();
    assert!(server.frames().is_empty());
    assert!(matches!(server.events()[..], [ServerEvent::Closed]), "its handler had finished");
}

#[test]
fn a_killed_server_abandons_everything_at_once_and_publishes_nothing() {
    let mut server = Driven::server(&[route("Fit", QUEUE), route("OwnerFit", SINGLE)]);
    let running = server.accept("OwnerFit", "REQ_1", SECOND);
    server.bid(running, 1.0);
    let bidding = server.accept("Fit", "REQ_2", SECOND);
    server.bid(bidding, 1.0);
    server.events();
    server.frames();
    server.engine.kill(server.now);
    server.drain();
    let killed = |event: &ServerEvent| matches!(event, ServerEvent::Abandoned { reason: Reason::Killed, .. });
    let events = server.events();
    assert!(events.len() == 3 && events[..2].iter().all(killed), "{events:?}");
    assert!(matches!(events[2], ServerEvent::Closed));
    assert_eq!(server.unsubscribed.len(), 3);
    assert_eq!((server.engine.in_flight(), server.engine.remembered()), (0, 0));
    assert_eq!(server.engine.poll_timeout(), None);
    server.respond(running);
    server.receive("Fit", "REQ_3", SECOND);
    server.confirm_unsubscribed();
    assert!(server.frames().is_empty() && server.events().is_empty());
}

#[test]
fn a_multi_method_runs_its_requests_without_a_claim() {
    let multi = MethodProperties { routing: Routing::Multi, require_claim: false };
    let mut server = Driven::server(&[route("Census", multi)]);
    assert_eq!(channels(&server), [("Hats|Census|REQ", SubscriptionKind::Plain)]);
    let request = server.accept("Census", "REQ_1", SECOND);
    server.bid(request, 1.0);
    assert_eq!(server.request_events(), [RequestEvent::Run]);
    server.respond(request);
    assert!(matches!(&server.frames()[..], [(_, Frame::Response(_))]));
}

// --- interruptions -------------------------------------------------------------------------------

/// Returns the error of the bus while the server is interrupted.
fn interruption(server: &Driven<Server>) -> Option<String> {
    server.engine.interruption().map(ToString::to_string)
}

#[test]
fn an_interrupted_server_serves_requests_that_arrive_and_sees_a_gap_when_it_resumes() {
    let mut server = Driven::server(&[route("OwnerFit", SINGLE)]);
    let pending = server.accept("OwnerFit", "REQ_1", SECOND);
    assert_eq!(interruption(&server), None);
    server.interrupt("Hats|OwnerFit|REQ", "connection reset");
    assert_eq!(interruption(&server).as_deref(), Some("connection reset"));
    let events = server.events();
    assert!(
        matches!(&events[..], [ServerEvent::Interrupted { cause }] if cause.to_string() == "connection reset"),
        "nothing is lost: {events:?}"
    );
    server.bid(pending, 1.0);
    server.respond(pending);
    let next = server.accept("OwnerFit", "REQ_2", SECOND);
    server.bid(next, 1.0);
    server.respond(next);
    assert_eq!(server.frames().len(), 2, "both get a response");
    // A new registration during the interruption succeeds.
    server.events();
    server.register(&[route("Pick", AFFINITY)]);
    assert!(matches!(server.events()[..], [ServerEvent::Registered { result: Ok(()), .. }]));
    assert!(interruption(&server).is_some());
    server.resume("Hats|OwnerFit|REQ");
    assert_eq!(interruption(&server), None);
    let events = server.events();
    assert!(
        matches!(events[..], [ServerEvent::Resumed { count: 1 }, ServerEvent::Gap { subscription, lost: None }]
            if subscription == server.subscription("Hats|OwnerFit|REQ")),
        "{events:?}"
    );
}

#[test]
fn an_interrupted_server_resumes_once_all_its_subscriptions_are_live_again() {
    let mut server = Driven::server(&[route("Fit", QUEUE), route("OwnerFit", SINGLE)]);
    let channels = ["Hats|Fit|RCLAIM", "Hats|Fit|REQ", "Hats|OwnerFit|REQ"];
    for channel in channels {
        server.interrupt(channel, "connection reset");
        server.interrupt(channel, "still down");
    }
    let events = server.events();
    assert!(
        matches!(&events[..], [ServerEvent::Interrupted { cause }] if cause.to_string() == "connection reset"),
        "the first is reported: {events:?}"
    );
    for channel in channels {
        assert_eq!(interruption(&server).as_deref(), Some("still down"), "the latest error");
        server.resume(channel);
        let events = server.events();
        match channels.last() == Some(&channel) {
            true => assert!(
                matches!(
                    events[..],
                    [ServerEvent::Resumed { count: 3 }, ServerEvent::Gap { lost: None, .. }]
                ),
                "{events:?}"
            ),
            false => assert!(matches!(events[..], [ServerEvent::Gap { lost: None, .. }]), "{events:?}"),
        }
    }
    assert_eq!(interruption(&server), None);
}

#[test]
fn a_registration_interrupted_before_it_is_live_still_succeeds() {
    let mut server = Server::new(ServerConfig::new("Hats"), [1; 32]).unwrap();
    server.register(vec![route("Fit", QUEUE)]).unwrap();
    let subscriptions: Vec<_> = all_outputs(&mut server)
        .into_iter()
        .map(|output| match output {
            Output::Subscribe { subscription, .. } => subscription,
            other => panic!("{other:?}"),
        })
        .collect();
    let now = crate::fixture::at(ms(0));
    server.handle_interrupted(now, subscriptions[0], BusError::new("down"));
    assert!(server.interruption().is_none(), "it is not live yet");
    server.handle_subscribed(now, subscriptions[0], Ok(()));
    server.handle_interrupted(now, subscriptions[0], BusError::new("down"));
    server.handle_subscribed(now, subscriptions[0], Ok(()));
    let outputs = all_outputs(&mut server);
    assert!(
        matches!(
            outputs[..],
            [
                Output::Event(ServerEvent::Interrupted { .. }),
                Output::Event(ServerEvent::Resumed { count: 1 }),
                Output::Event(ServerEvent::Gap { .. }),
            ]
        ),
        "the other subscription is not live: {outputs:?}"
    );
    server.handle_subscribed(now, subscriptions[1], Ok(()));
    let outputs = all_outputs(&mut server);
    assert!(
        matches!(outputs[..], [Output::Event(ServerEvent::Registered { result: Ok(()), .. })]),
        "{outputs:?}"
    );
}

#[test]
fn an_interrupted_registration_can_be_deregistered() {
    let mut server = Driven::server(&[route("OwnerFit", SINGLE)]);
    let registration = server.register(&[route("Fit", QUEUE)]);
    server.events();
    let request = server.accept("Fit", "REQ_1", SECOND);
    server.bid(request, 1.0);
    server.interrupt("Hats|Fit|REQ", "down");
    server.interrupt("Hats|Fit|RCLAIM", "down");
    server.events();
    server.engine.deregister(server.now, registration);
    server.drain();
    assert_eq!(server.unsubscribed, [server.subscription("Hats|Fit|REQ")]);
    assert!(interruption(&server).is_some(), "grants are still needed");
    server.resume("Hats|Fit|REQ");
    assert!(server.events().is_empty(), "a deregistered method takes no requests");
    server.confirm_unsubscribed();
    server.resume("Hats|Fit|RCLAIM");
    let events = server.events();
    assert!(
        matches!(events[..], [ServerEvent::Resumed { count: 2 }, ServerEvent::Gap { lost: None, .. }]),
        "{events:?}"
    );
    server.interrupt("Hats|Fit|RCLAIM", "down once more");
    server.advance_to(SECOND);
    assert_eq!(server.request_events(), [RequestEvent::Abandoned(Reason::NotGranted)]);
    assert_eq!(interruption(&server), None, "it has left the subscription");
    server.confirm_unsubscribed();
    assert!(matches!(server.events()[..], [ServerEvent::Deregistered { .. }]));
    server.register(&[route("Fit", QUEUE)]);
}

#[test]
fn an_interrupted_subscription_that_is_lost_takes_its_registration_with_it() {
    let mut server = Driven::server(&[route("OwnerFit", SINGLE)]);
    server.interrupt("Hats|OwnerFit|REQ", "down");
    server.events();
    let lost = server.subscription("Hats|OwnerFit|REQ");
    server.engine.handle_subscribed(server.now, lost, Err(BusError::new("not allowed")));
    server.drain();
    let events = server.events();
    assert!(
        matches!(events[..], [ServerEvent::RegistrationLost { .. }, ServerEvent::Deregistered { .. }]),
        "{events:?}"
    );
    assert_eq!(interruption(&server), None);
}

#[test]
fn an_interrupted_server_closes_as_usual() {
    for killed in [false, true] {
        let mut server = Driven::server(&[route("Fit", QUEUE)]);
        server.interrupt("Hats|Fit|REQ", "down");
        server.interrupt("Hats|Fit|RCLAIM", "down");
        if killed {
            server.engine.kill(server.now);
        } else {
            server.engine.drain(server.now);
        }
        for _ in 0..2 {
            server.drain();
            server.confirm_unsubscribed();
        }
        assert_eq!(interruption(&server), None);
        let events = server.events();
        assert!(matches!(events[..], [.., ServerEvent::Closed]), "{events:?}");
        server.interrupt("Hats|Fit|REQ", "still down");
        server.resume("Hats|Fit|REQ");
        assert!(interruption(&server).is_none() && server.events().is_empty());
    }
}
