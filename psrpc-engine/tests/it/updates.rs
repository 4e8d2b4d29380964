//! Tests of publishing updates and of subscriptions to them.

use std::time::Duration;

use psrpc_engine::proto::{Any, Frame};
use psrpc_engine::{
    BusError, Call, CallError, Client, ClientConfig, ClientEvent, ClientLimits, Due, Engine, Output, Reason,
    Server, ServerConfig, ServerEvent, SubscriptionHandle, SubscriptionKind, UpdateError,
};

use crate::fixture::{
    Driven, MULTI, QUEUE, SINGLE, all_outputs, at, is_idle, ms, next_published, refuse_next, route,
};

fn update(value: &'static str) -> Any {
    Any { type_url: "type.googleapis.com/hats.Update".into(), value: value.as_bytes().into() }
}

fn listen(client: &mut Driven<Client>) -> SubscriptionHandle {
    let subscription = client.engine.subscribe(&route("Rumour", QUEUE), "hats.Update").unwrap();
    client.drain();
    assert!(
        matches!(client.events()[..], [ClientEvent::Subscribed { subscription: live }] if live == subscription)
    );
    subscription
}

/// Takes the payloads of the received updates, with a text for each gap.
fn received(client: &mut Driven<Client>) -> Vec<String> {
    let received = client.events().into_iter().filter_map(|event| match event {
        ClientEvent::Update { payload, .. } => Some(String::from_utf8(payload.to_vec()).unwrap()),
        ClientEvent::Gap { lost, .. } => Some(format!("gap of {lost:?}")),
        _ => None,
    });
    received.collect()
}

#[test]
fn updates_reach_queue_and_plain_subscribers() {
    let mut client = Driven::client();
    listen(&mut client);
    client.engine.subscribe(&route("Bulletin", MULTI), "hats.Update").unwrap();
    client.drain();
    let kinds: Vec<_> =
        client.subscriptions[2..].iter().map(|(_, name, kind)| (name.legacy(), *kind)).collect();
    let queue = ("Hats|Rumour|REQ", SubscriptionKind::Queue);
    assert_eq!(kinds, [queue, ("Hats|Bulletin|REQ", SubscriptionKind::Plain)]);
    client.events();
    client.frame("Hats|Rumour|REQ", Frame::Other(update("psst")));
    client.frame("Hats|Bulletin|REQ", Frame::Other(update("tide")));
    assert_eq!(received(&mut client), ["psst", "tide"]);
}

#[test]
fn unexpected_frames_are_counted_and_dropped() {
    let mut client = Driven::client();
    listen(&mut client);
    let other = Any { type_url: "type.googleapis.com/hats.Other".into(), ..update("?") };
    client.frame("Hats|Rumour|REQ", Frame::Other(other));
    client.frame("Hats|Rumour|REQ", Frame::Request(psrpc_engine::proto::Request::default()));
    assert_eq!(client.dropped(), [Reason::UnexpectedType; 2]);
}

#[test]
fn an_update_without_room_leaves_a_gap_until_others_are_taken() {
    let mut config = ClientConfig::new("Hats");
    config.limits = ClientLimits { updates_per_subscription: 1, ..ClientLimits::DEFAULT };
    let mut client = Driven::client_with(config);
    let subscription = listen(&mut client);
    for value in ["1", "2"] {
        client.frame("Hats|Rumour|REQ", Frame::Other(update(value)));
    }
    client.engine.taken_update(subscription);
    client.frame("Hats|Rumour|REQ", Frame::Other(update("3")));
    assert_eq!(received(&mut client), ["1", "gap of Some(1)", "3"]);
    assert_eq!(client.engine.counters().get(Reason::SlowConsumer), 1);
}

#[test]
fn a_gap_of_the_bus_is_seen() {
    let mut client = Driven::client();
    let subscription = listen(&mut client);
    client.engine.handle_gap(client.now, subscription, Some(7));
    client.drain();
    assert_eq!(received(&mut client), ["gap of Some(7)"]);
}

#[test]
fn calls_go_on_while_updates_are_interrupted() {
    let mut client = Driven::client();
    let subscription = listen(&mut client);
    client.call(Call::new(route("OwnerFit", SINGLE), "hat"));
    client.interrupt("Hats|Rumour|REQ", "down");
    assert!(client.engine.interruption().is_none());
    let events = client.events();
    assert!(
        matches!(&events[..], [ClientEvent::Interrupted { cause }] if cause.to_string() == "down"),
        "{events:?}"
    );
    let (_, request) = client.request(Call::new(route("OwnerFit", SINGLE), "hat"));
    client.response(&request, "SRV_1", Ok("fits"));
    assert!(client.outcome().unwrap().is_ok());
    client.resume("Hats|Rumour|REQ");
    let events = client.events();
    assert!(
        matches!(events[..], [ClientEvent::Resumed { count: 1 }, ClientEvent::Gap { subscription: live, lost: None }]
            if live == subscription),
        "{events:?}"
    );
    client.frame("Hats|Rumour|REQ", Frame::Other(update("psst")));
    assert_eq!(received(&mut client), ["psst"]);
    client.advance_to(ms(3000));
    let failure = client.failure();
    assert_eq!((failure.reason, failure.evidence.gap), (Reason::TimedOut, false), "no response was lost");
}

#[test]
fn an_interruption_of_the_calls_is_no_gap_of_updates() {
    let mut client = Driven::client();
    let subscription = listen(&mut client);
    client.interrupt("Hats|CLI_1|RES", "down");
    client.frame("Hats|Rumour|REQ", Frame::Other(update("psst")));
    client.resume("Hats|CLI_1|RES");
    let events = client.events();
    assert!(
        matches!(
            events[..],
            [
                ClientEvent::Interrupted { .. },
                ClientEvent::Update { .. },
                ClientEvent::Resumed { count: 1 },
                ClientEvent::Gap { subscription: interrupted, .. },
            ] if interrupted != subscription
        ),
        "{events:?}"
    );
}

#[test]
fn calls_fail_for_their_own_subscriptions_while_updates_are_interrupted_too() {
    let mut client = Driven::client();
    listen(&mut client);
    client.interrupt("Hats|Rumour|REQ", "down");
    client.interrupt("Hats|CLI_1|RES", "down");
    client.call(Call::new(route("OwnerFit", SINGLE), "hat"));
    assert_eq!(client.failure().reason, Reason::Interrupted);
    client.resume("Hats|CLI_1|RES");
    assert!(client.engine.interruption().is_none(), "interrupted updates do not count");
    assert!(matches!(client.events()[..], [ClientEvent::Gap { .. }]), "the interruption goes on");
    client.request(Call::new(route("OwnerFit", SINGLE), "hat"));
    client.resume("Hats|Rumour|REQ");
    assert!(matches!(client.events()[..], [ClientEvent::Resumed { count: 2 }, ClientEvent::Gap { .. }]));
}

#[test]
fn an_interrupted_subscription_can_be_unsubscribed() {
    for resumed in [false, true] {
        let mut client = Driven::client();
        let subscription = listen(&mut client);
        client.interrupt("Hats|Rumour|REQ", "down");
        client.events();
        client.engine.unsubscribe(subscription);
        client.drain();
        assert_eq!(client.unsubscribed, [subscription]);
        assert!(client.events().is_empty(), "it is not live again");
        if resumed {
            client.resume("Hats|Rumour|REQ");
            assert!(client.events().is_empty(), "an ended subscription is not reported");
        }
        client.confirm_unsubscribed();
        let events = client.events();
        assert!(matches!(events[..], [ClientEvent::Unsubscribed { error: None, .. }]), "{events:?}");
        client.resume("Hats|Rumour|REQ");
        assert!(client.events().is_empty(), "a stale handle does nothing");
    }
}

#[test]
fn the_end_of_a_subscription_does_not_end_its_client() {
    for lost in [false, true] {
        let mut client = Driven::client();
        let subscription = listen(&mut client);
        if !lost {
            client.engine.unsubscribe(subscription);
            client.drain();
            assert_eq!(client.unsubscribed, [subscription]);
        }
        client.engine.handle_unsubscribed(client.now, subscription);
        client.drain();
        let ended = client.events();
        assert!(
            matches!(&ended[..], [ClientEvent::Unsubscribed { error, .. }] if error.is_some() == lost),
            "{ended:?}"
        );
        assert_eq!(client.engine.listening(), 0);
        assert!(
            client.engine.subscribe(&route("Rumour", QUEUE), "hats.Update").is_ok(),
            "the client goes on"
        );
    }
}

#[test]
fn a_refused_subscription_ends_with_the_error_of_the_bus() {
    let mut client = Driven::client();
    let subscription = client.engine.subscribe(&route("Rumour", QUEUE), "hats.Update").unwrap();
    let _ = all_outputs(&mut client.engine);
    client.engine.handle_subscribed(client.now, subscription, Err(BusError::new("no right to it")));
    client.drain();
    let ended = client.events();
    let [ClientEvent::Unsubscribed { error: Some(error), .. }] = &ended[..] else { panic!("{ended:?}") };
    assert_eq!(error.to_string(), "unavailable: subscription lost: no right to it");
}

#[test]
fn subscriptions_end_with_their_client() {
    let mut client = Driven::client();
    listen(&mut client);
    client.engine.close(client.now);
    client.drain();
    assert_eq!(client.unsubscribed.len(), 3);
    client.confirm_unsubscribed();
    let events = client.events();
    assert!(matches!(
        &events[..],
        [ClientEvent::Unsubscribed { error: None, .. }, ClientEvent::Closed { error: None }]
    ));
    let refused = client.engine.subscribe(&route("Rumour", QUEUE), "hats.Update").unwrap_err();
    assert_eq!(refused, CallError::Closed);
}

#[test]
fn a_subscription_ends_with_its_client_even_if_the_bus_does_not_confirm() {
    let mut client = Driven::client();
    listen(&mut client);
    client.engine.close(client.now);
    client.advance_to(ms(3000));
    let events = client.events();
    assert!(
        matches!(
            &events[..],
            [ClientEvent::Unsubscribed { error: None, .. }, ClientEvent::Closed { error: None }]
        ),
        "{events:?}"
    );
}

/// Returns a server without registrations.
fn publisher() -> Server {
    Server::new(ServerConfig::new("Hats"), [1; 32]).unwrap()
}

/// Takes the outcomes of published updates.
fn outcomes(server: &mut Server) -> Vec<Result<Option<u64>, Reason>> {
    let outcomes = all_outputs(server).into_iter().filter_map(|output| match output {
        Output::Event(ServerEvent::Updated { outcome, .. }) => {
            Some(outcome.map_err(|failure| failure.reason))
        }
        _ => None,
    });
    outcomes.collect()
}

#[test]
fn an_update_is_published_as_the_users_message_and_its_outcome_is_reported() {
    for result in [Ok(Some(3)), Err(())] {
        let mut server = publisher();
        let now = at(Duration::ZERO);
        server.publish(now, &route("Rumour", QUEUE), update("psst"), None).unwrap();
        let (token, channel, frame) = next_published(&mut server).unwrap();
        assert_eq!((channel.legacy(), channel.server()), ("Hats|Rumour|REQ", "SRV.Hats.Q"));
        assert_eq!(frame, Frame::Other(update("psst")));
        server.handle_published(now, token, result.map_err(|()| BusError::new("down")));
        assert_eq!(outcomes(&mut server), [result.map_err(|()| Reason::PublishFailed)]);
        assert_eq!((server.publishing(), server.poll_timeout()), (0, None));
    }
}

#[test]
fn an_update_that_the_bus_has_no_room_for_fails_at_its_timeout_and_is_withdrawn() {
    let mut server = publisher();
    let now = at(Duration::ZERO);
    server.publish(now, &route("Rumour", QUEUE), update("psst"), Some(ms(50))).unwrap();
    assert!(refuse_next(&mut server).is_some());
    assert_eq!(server.handle_timeout(at(ms(50))), Due::Nothing);
    assert_eq!(outcomes(&mut server), [Err(Reason::TimedOut)]);
    server.handle_room();
    assert!(is_idle(&mut server));
}

#[test]
fn a_drain_waits_for_updates_and_a_closed_server_publishes_none() {
    let mut server = publisher();
    let now = at(Duration::ZERO);
    server.publish(now, &route("Rumour", QUEUE), update("psst"), None).unwrap();
    let (token, ..) = next_published(&mut server).unwrap();
    server.drain(now);
    assert!(is_idle(&mut server), "it is not closed yet");
    server.handle_published(now, token, Ok(None));
    let outputs = all_outputs(&mut server);
    assert!(matches!(
        outputs[..],
        [Output::Event(ServerEvent::Updated { .. }), Output::Event(ServerEvent::Closed)]
    ));
    let refused = server.publish(now, &route("Rumour", QUEUE), update("psst"), None).unwrap_err();
    assert_eq!(refused, UpdateError::Closed);
}

#[test]
fn a_killed_server_fails_its_updates() {
    let mut server = publisher();
    let now = at(Duration::ZERO);
    server.publish(now, &route("Rumour", QUEUE), update("psst"), None).unwrap();
    server.kill(now);
    assert_eq!(outcomes(&mut server), [Err(Reason::ServerClosed)]);
}
