//! Bounded work: one call into an engine handles at most `ROUND` items and leaves the rest due at
//! once (I18).

use std::time::Duration;

use psrpc_engine::proto::{Any, Frame, Stream, StreamBody};
use psrpc_engine::{
    Call, CallError, Client, ClientEvent, Due, Engine, MultiCall, Now, ROUND, Reason, RegisterError, Route,
    Server, ServerConfig, ServerEvent, StreamEvent, TimerKind, UpdateError,
};

use crate::fixture::{AFFINITY, Driven, MULTI, QUEUE, SINGLE, at, ms, route, topic_route};

const MANY: usize = 4 * ROUND;

const SECOND: Duration = Duration::from_secs(1);

fn calls(client: &mut Driven<Client>, count: usize) {
    for _ in 0..count {
        client.engine.call(client.now, Call::new(route("OwnerFit", SINGLE), "hat")).unwrap();
    }
    client.drain();
    assert_eq!(client.engine.in_flight(), count);
}

/// Calls `handle_timeout` until nothing more is due, and returns the number of events per call that
/// match `count`.
fn rounds<E: Engine>(driven: &mut Driven<E>, count: impl Fn(&E::Event) -> bool) -> Vec<usize> {
    let mut rounds = Vec::new();
    loop {
        let due = driven.engine.handle_timeout(driven.now);
        driven.drain();
        rounds.push(driven.events().iter().filter(|event| count(event)).count());
        if due == Due::Nothing {
            assert!(driven.engine.poll_timeout().is_none_or(|next| next.at > driven.now.time));
            return rounds;
        }
        assert!(driven.engine.poll_timeout().is_some_and(|next| next.at <= driven.now.time));
    }
}

fn failed_for(reason: Reason) -> impl Fn(&ClientEvent) -> bool {
    move |event| matches!(event, ClientEvent::Resolved { outcome: Err(failure), .. } if failure.reason == reason)
}

/// Asserts that no round exceeds the limit and that the rounds add up to `all`.
fn assert_bounded(rounds: &[usize], all: usize) {
    assert!(rounds.iter().all(|round| *round <= ROUND), "{rounds:?}");
    assert_eq!(rounds.iter().sum::<usize>(), all, "{rounds:?}");
}

#[test]
fn no_call_fires_more_timers_than_a_round() {
    let mut client = Driven::client();
    calls(&mut client, MANY);
    client.now = at(Duration::from_secs(3));
    assert_bounded(&rounds(&mut client, failed_for(Reason::TimedOut)), MANY);
    assert_eq!((client.engine.in_flight(), client.engine.poll_timeout()), (0, None));
}

#[test]
fn a_client_that_is_closed_ends_a_round_of_calls_at_a_time() {
    let mut client = Driven::client();
    calls(&mut client, MANY);
    client.engine.close(client.now);
    client.drain();
    let first = client.events().into_iter().filter(|event| failed_for(Reason::ClientClosed)(event)).count();
    let next = client.engine.poll_timeout().map(|next| (next.at, next.kind));
    assert_eq!(next, Some((client.now.time, TimerKind::Close)), "the rest is due at once");
    let rest = rounds(&mut client, failed_for(Reason::ClientClosed));
    assert_bounded(&[&[first], &rest[..]].concat(), MANY);
    client.confirm_unsubscribed();
    assert!(matches!(client.events()[..], [ClientEvent::Closed { error: None }]));
    assert_eq!((client.engine.in_flight(), client.engine.poll_timeout()), (0, None));
}

#[test]
fn a_server_that_is_killed_ends_a_round_of_requests_at_a_time() {
    let mut server = Driven::server(&[route("Fit", QUEUE)]);
    for number in 0..MANY {
        server.receive("Fit", &format!("REQ_{number}"), SECOND);
    }
    server.events();
    server.engine.kill(server.now);
    server.drain();
    let killed = |event: &ServerEvent| matches!(event, ServerEvent::Abandoned { reason: Reason::Killed, .. });
    let first = server.events().iter().filter(|event| killed(event)).count();
    // A killed server takes no requests, even before the last round.
    server.receive("Fit", "REQ_LATE", SECOND);
    assert_eq!(server.received().len(), 0);
    assert_bounded(&[&[first], &rounds(&mut server, killed)[..]].concat(), MANY);
    assert_eq!((server.engine.in_flight(), server.engine.poll_timeout()), (0, None));
}

#[test]
fn requests_that_were_remembered_are_forgotten_a_round_at_a_time() {
    let mut server = Driven::server(&[route("Pick", AFFINITY)]);
    for number in 0..MANY {
        let request = server.accept("Pick", &format!("REQ_{number}"), ms(1));
        server.bid(request, -1.0);
    }
    assert_eq!(server.engine.remembered(), MANY);
    let forget = server.engine.poll_timeout().unwrap();
    assert_eq!(forget.kind, TimerKind::Forget);
    server.now = Now { time: forget.at, wall: at(Duration::from_secs(9)).wall };
    let mut before = MANY;
    while server.engine.handle_timeout(server.now).is_more() {
        assert!(before - server.engine.remembered() <= ROUND);
        before = server.engine.remembered();
    }
    assert_eq!((server.engine.remembered(), server.engine.poll_timeout()), (0, None));
}

// --- streams of a registration -------------------------------------------------------------------

fn opening(server: &Driven<Server>, stream: usize) -> Frame {
    let (sent_at, expiry) = (server.now.wall.as_unix_nanos(), (server.now.wall + SECOND).as_unix_nanos());
    let body = Some(StreamBody::Open { node_id: "CLI_1".into(), metadata: Default::default() });
    let (stream_id, request_id) = (format!("STR_{stream}").into(), format!("REQ_{stream}").into());
    Frame::Stream(Stream { stream_id, request_id, sent_at, expiry, body })
}

/// Returns a server with one stream on the topic `few` and `many` streams on the topic `many`.
fn with_streams(many: usize) -> (Driven<Server>, [Route; 2]) {
    let routes = ["few", "many"].map(|topic| Route::stream("Hats", "Parade", SINGLE, &[topic]).unwrap());
    let mut server = Driven::server_with(ServerConfig::new("Hats"), &routes);
    for number in 0..=many {
        let topic = if number == many / 2 { "few" } else { "many" };
        let frame = opening(&server, number);
        server.frame(&format!("Hats|Parade|{topic}|STR"), frame);
        let received = server.received();
        server.bid(received[0].request, 1.0);
    }
    server.events();
    assert_eq!(server.engine.streams(), many + 1);
    (server, routes)
}

fn has_ended(event: &ServerEvent) -> bool {
    matches!(event, ServerEvent::Stream(StreamEvent::Ended { .. }))
}

#[test]
fn deregistering_a_topic_visits_no_streams_of_other_topics() {
    let (mut server, [few, _]) = with_streams(MANY);
    let registration = server.engine.registration(&[few]).unwrap();
    server.engine.deregister(server.now, registration);
    server.drain();
    assert_eq!(server.events().iter().filter(|event| has_ended(event)).count(), 1);
    let next = server.engine.poll_timeout();
    assert!(next.is_none_or(|next| next.kind != TimerKind::Close), "it has visited other streams: {next:?}");
}

#[test]
fn streams_end_a_round_at_a_time() {
    let (mut server, [_, many]) = with_streams(MANY);
    let registration = server.engine.registration(&[many]).unwrap();
    server.engine.deregister(server.now, registration);
    server.drain();
    let first = server.events().iter().filter(|event| has_ended(event)).count();
    assert_bounded(&[&[first], &rounds(&mut server, has_ended)[..]].concat(), MANY);
    server.engine.drain(server.now);
    server.drain();
    let rest = server.events().iter().filter(|event| has_ended(event)).count();
    assert_eq!(rest + rounds(&mut server, has_ended).iter().sum::<usize>(), 1);
    // The grace period of the handlers ends.
    server.now = at(SECOND);
    let stopped = |event: &ServerEvent| matches!(event, ServerEvent::StopHandler { .. });
    assert_bounded(&rounds(&mut server, stopped), MANY + 1);
    assert_eq!(server.engine.streams(), 0);
}

// --- abandoned -----------------------------------------------------------------------------------

#[test]
fn an_abandoned_client_fails_pending_and_later_calls() {
    let mut client = Driven::client();
    calls(&mut client, MANY);
    client.engine.multi_call(client.now, MultiCall::new(route("Census", MULTI), "")).unwrap();
    let news = client.engine.subscribe(&route("News", MULTI), "hats.News").unwrap();
    client.drain();
    client.events();
    client.engine.abandon(client.now);
    let ended = |event: &ClientEvent| match event {
        ClientEvent::MultiEnded { outcome: Err(failure), .. } => failure.reason == Reason::RuntimeEnded,
        ClientEvent::Unsubscribed { subscription, error: Some(failure) } => {
            *subscription == news && failure.reason == Reason::RuntimeEnded
        }
        ClientEvent::Closed { error: None } => true,
        event => failed_for(Reason::RuntimeEnded)(event),
    };
    client.drain();
    let first = client.events().iter().filter(|event| ended(event)).count();
    let rest = rounds(&mut client, ended).iter().sum::<usize>();
    assert_eq!(first + rest, MANY + 3, "the bus confirms nothing, and the client does not wait");
    assert_eq!((client.engine.in_flight(), client.engine.listening()), (0, 0));
    assert_eq!(client.engine.poll_timeout(), None);
    let later = client.engine.call(client.now, Call::new(route("Fit", QUEUE), "hat"));
    assert_eq!(later, Err(CallError::RuntimeEnded));
    assert_eq!(later.unwrap_err().to_string(), "the runtime this client was created on has shut down");
}

#[test]
fn an_abandoned_server_fails_pending_requests_and_later_commands() {
    let mut server = Driven::server(&[route("Fit", QUEUE)]);
    server.accept("Fit", "REQ_1", SECOND);
    let (topic, news) = (topic_route("Fit", QUEUE, &["elsewhere"]), route("News", MULTI));
    server.engine.abandon(server.now);
    server.drain();
    let events = server.events();
    assert!(
        matches!(
            events[..],
            [ServerEvent::Abandoned { reason: Reason::RuntimeEnded, .. }, ServerEvent::Closed]
        ),
        "{events:?}"
    );
    assert!(server.engine.is_abandoned());
    assert_eq!(server.engine.poll_timeout(), None);
    let error = server.engine.register(vec![topic]).unwrap_err();
    assert_eq!(error, RegisterError::RuntimeEnded);
    assert_eq!(error.to_string(), "the runtime this server was created on has shut down");
    let published = server.engine.publish(server.now, &news, Any::default(), None);
    assert_eq!(published, Err(UpdateError::RuntimeEnded));
}
