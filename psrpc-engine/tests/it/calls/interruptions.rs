//! Tests of calls while subscriptions are interrupted or the bus refuses locks.

use super::*;

const BIDS: &str = "Hats|CLI_1|CLAIM";
const RESPONSES: &str = "Hats|CLI_1|RES";

/// Returns the error of the bus while the client is interrupted.
fn interruption(client: &Driven<Client>) -> Option<String> {
    client.engine.interruption().map(ToString::to_string)
}

/// Makes a call, and asserts that it fails at once with `cause` and sends nothing.
fn assert_interrupted(client: &mut Driven<Client>, call: Call, cause: &str) {
    let in_flight = client.engine.in_flight();
    client.call(call);
    assert!(client.frames().is_empty(), "no request is published");
    let failure = client.failure();
    assert_eq!((failure.reason, &failure.code), (Reason::Interrupted, &ErrorCode::Unavailable));
    assert_eq!(failure.text.as_str(), format!("subscription interrupted: {cause}"));
    assert_eq!(failure.source.as_ref().unwrap().to_string(), cause);
    assert!(failure.evidence.unsent);
    assert_eq!(client.engine.in_flight(), in_flight);
}

/// Takes the only event, an interruption, and returns its cause.
fn take_interruption(client: &mut Driven<Client>) -> String {
    let events = client.events();
    let [ClientEvent::Interrupted { cause }] = &events[..] else { panic!("{events:?}") };
    cause.to_string()
}

/// Takes the events of a client whose subscription to `channel` is live again, and asserts that
/// there is a gap. `last_of` is the number of interrupted subscriptions if this was the last of
/// them.
fn assert_resumed(client: &mut Driven<Client>, channel: &str, last_of: Option<u32>) {
    let events = client.events();
    let resumed = match &events[..] {
        [ClientEvent::Resumed { count }, ClientEvent::Gap { .. }] => Some(*count),
        [ClientEvent::Gap { .. }] => None,
        events => panic!("{events:?}"),
    };
    assert_eq!(resumed, last_of);
    assert!(
        matches!(events.last(), Some(ClientEvent::Gap { subscription, lost: None })
            if *subscription == client.subscription(channel)),
        "{events:?}"
    );
}

#[test]
fn an_interrupted_client_fails_new_calls_at_once_until_its_subscription_is_live_again() {
    for channel in [BIDS, RESPONSES] {
        let config = ClientConfig { tells_cancellation: true, ..ClientConfig::new("Hats") };
        let mut client = Driven::client_with(config);
        assert_eq!(interruption(&client), None);
        client.interrupt(channel, "connection reset");
        assert_eq!(interruption(&client).as_deref(), Some("connection reset"));
        assert_eq!(take_interruption(&mut client), "connection reset");
        for call in [queue_call(), affinity_call(), single_call()] {
            assert_interrupted(&mut client, call, "connection reset");
        }
        assert_eq!(client.engine.counters().get(Reason::Interrupted), 3);
        assert_eq!(client.engine.poll_timeout(), None, "no timer remains");
        client.resume(channel);
        assert_eq!(interruption(&client), None);
        assert_resumed(&mut client, channel, Some(1));
        let (_, request) = client.request(single_call());
        client.response(&request, "SRV_1", Ok("fits"));
        assert!(client.outcome().unwrap().is_ok());
    }
}

#[test]
fn a_call_that_is_pending_at_an_interruption_goes_on() {
    let mut client = Driven::client();
    let (_, during) = client.request(queue_call());
    let (_, after) = client.request(queue_call());
    client.call(queue_call());
    client.interrupt(RESPONSES, "down");
    client.bid(&during, "SRV_1", 1.0);
    assert_eq!(client.granted(), ["SRV_1"]);
    client.response(&during, "SRV_1", Ok("fits"));
    assert!(client.outcome().unwrap().is_ok());
    client.advance_to(ms(100));
    client.resume(RESPONSES);
    assert_resumed(&mut client, RESPONSES, Some(1));
    client.response(&after, "SRV_1", Ok("fits too"));
    assert!(client.outcome().unwrap().is_ok());
    client.advance_to(ms(1000));
    let failure = client.failure();
    assert_eq!((failure.reason, failure.evidence.gap), (Reason::NoResponse, true));
}

#[test]
fn a_request_that_waits_for_a_full_bus_at_an_interruption_is_still_sent() {
    let mut client = Driven::client();
    client.engine.call(client.now, queue_call()).unwrap();
    let waiting = refuse_next(&mut client.engine).expect("the request");
    client.interrupt(BIDS, "down");
    assert_interrupted(&mut client, queue_call(), "down");
    client.engine.handle_room();
    client.drain();
    assert_eq!(client.frames(), [("Hats|Fit|REQ".to_owned(), waiting)]);
    assert_eq!(client.engine.counters().get(Reason::Withdrawn), 1, "the request of the call that failed");
}

#[test]
fn an_interrupted_client_resumes_once_all_its_subscriptions_are_live_again() {
    let mut client = Driven::client();
    client.interrupt(BIDS, "connection reset");
    client.interrupt(BIDS, "still down");
    client.interrupt(RESPONSES, "not allowed");
    assert_eq!(take_interruption(&mut client), "connection reset", "the first is reported");
    assert_eq!(interruption(&client).as_deref(), Some("not allowed"), "the latest error");
    client.resume(BIDS);
    assert_resumed(&mut client, BIDS, None);
    assert_interrupted(&mut client, queue_call(), "not allowed");
    client.interrupt(BIDS, "connection reset once more");
    client.resume(BIDS);
    assert_resumed(&mut client, BIDS, None);
    client.resume(RESPONSES);
    assert_resumed(&mut client, RESPONSES, Some(3));
    assert_eq!(interruption(&client), None);
    client.request(queue_call());
    client.interrupt(BIDS, "down");
    assert_eq!(take_interruption(&mut client), "down", "each interruption is reported");
    client.resume(BIDS);
    assert_resumed(&mut client, BIDS, Some(1));
}

#[test]
fn only_a_live_subscription_is_interrupted() {
    let now = at(ms(0));
    let mut client = Client::new(ClientConfig::new("Hats"), [1; 32]).unwrap();
    let subscriptions: Vec<_> = all_outputs(&mut client)
        .into_iter()
        .map(|output| match output {
            Output::Subscribe { subscription, .. } => subscription,
            other => panic!("{other:?}"),
        })
        .collect();
    client.handle_interrupted(now, subscriptions[0], refused());
    assert!(client.interruption().is_none(), "it is not live yet");
    client.handle_subscribed(now, subscriptions[0], Ok(()));
    assert!(is_idle(&mut client));
    // A live subscription can be interrupted before the client is ready.
    client.handle_interrupted(now, subscriptions[0], refused());
    client.handle_subscribed(now, subscriptions[1], Ok(()));
    let outputs = all_outputs(&mut client);
    assert!(
        matches!(
            outputs[..],
            [Output::Event(ClientEvent::Interrupted { .. }), Output::Event(ClientEvent::Ready)]
        ),
        "{outputs:?}"
    );
    client.call(now, queue_call()).unwrap();
    let outputs = all_outputs(&mut client);
    assert!(
        matches!(&outputs[..], [Output::Event(ClientEvent::Resolved { outcome: Err(failure), .. })]
            if failure.reason == Reason::Interrupted),
        "{outputs:?}"
    );
    client.handle_subscribed(now, subscriptions[0], Ok(()));
    let outputs = all_outputs(&mut client);
    assert!(
        matches!(
            outputs[..],
            [Output::Event(ClientEvent::Resumed { count: 1 }), Output::Event(ClientEvent::Gap { .. })]
        ),
        "{outputs:?}"
    );
    assert!(client.interruption().is_none());
}

#[test]
fn a_call_without_any_time_left_resolves_once_during_an_interruption() {
    let mut client = Driven::client();
    client.interrupt(RESPONSES, "down");
    client.call(Call { timeout: Some(Duration::ZERO), ..queue_call() });
    let failure = client.failure();
    assert_eq!((failure.reason, failure.evidence.unsent), (Reason::TimedOut, true));
    assert!(client.frames().is_empty());
}

#[test]
fn an_invalid_call_is_refused_during_an_interruption() {
    let mut client = Driven::client();
    client.interrupt(RESPONSES, "down");
    let census = Call::new(route("Census", crate::fixture::MULTI), "");
    assert_eq!(
        client.engine.call(client.now, census).unwrap_err(),
        CallError::Multi { method: "Census".into() }
    );
    assert!(is_idle(&mut client.engine));
}

#[test]
fn an_interrupted_client_closes_as_usual() {
    let mut client = Driven::client();
    client.call(queue_call());
    client.interrupt(RESPONSES, "down");
    client.engine.close(client.now);
    client.drain();
    assert_eq!(client.failure().reason, Reason::ClientClosed);
    assert_eq!(interruption(&client), None, "it has left the subscription");
    assert_eq!(client.engine.call(client.now, queue_call()).unwrap_err(), CallError::Closed);
    // Reports about a subscription that has ended are ignored.
    client.interrupt(RESPONSES, "still down");
    assert_eq!(interruption(&client), None);
    client.resume(RESPONSES);
    assert!(client.events().is_empty());
    client.confirm_unsubscribed();
    assert!(matches!(client.events()[..], [ClientEvent::Closed { error: None }]));
    client.interrupt(RESPONSES, "still down");
    assert_eq!(interruption(&client), None);
}

#[test]
fn a_client_whose_interrupted_subscription_is_lost_closes() {
    let mut client = Driven::client();
    client.call(queue_call());
    client.interrupt(RESPONSES, "down");
    let responses = client.subscription(RESPONSES);
    client.engine.handle_subscribed(client.now, responses, Err(refused()));
    client.drain();
    let failure = client.failure();
    assert_eq!((failure.reason, failure.evidence.unsent), (Reason::SubscriptionLost, false));
    assert_eq!(interruption(&client), None);
    client.confirm_unsubscribed();
    assert!(matches!(&client.events()[..], [ClientEvent::Closed { error: Some(error) }]
        if error.to_string() == "the bus is down"));
}

#[test]
fn a_refused_lock_is_evidence_for_queue_calls_in_flight() {
    let refusals = |client: &mut Driven<Client>| {
        let failures = client.events().into_iter().filter_map(|event| match event {
            ClientEvent::Resolved { outcome: Err(failure), .. } => Some(failure),
            _ => None,
        });
        let refusals: Vec<_> = failures.map(|failure| failure.evidence.lock_refusal).collect();
        refusals
    };
    let mut client = Driven::client();
    client.call(queue_call());
    client.call(affinity_call());
    client.call(single_call());
    client.advance_to(ms(100));
    client.call(queue_call());
    client.engine.lock_refused(client.now, &BusError::new("READONLY"));
    client.engine.lock_refused(client.now, &BusError::new("NOPERM"));
    assert!(is_idle(&mut client.engine), "a refused lock alone fails nothing");
    client.advance_to(ms(101));
    client.call(queue_call());
    client.advance_to(ms(1000));
    let refusal = || Some("NOPERM".to_owned());
    assert_eq!(refusals(&mut client), [refusal(), None], "the queue call, then the affinity call");
    client.advance_to(ms(1100));
    assert_eq!(refusals(&mut client), [refusal()], "this call started when the lock was refused");
    client.advance_to(ms(1101));
    assert_eq!(refusals(&mut client), [None], "this call started later");
    client.advance_to(ms(3000));
    assert_eq!(refusals(&mut client), [refusal()], "a queue call without a claim");
}

#[test]
fn a_refused_lock_does_not_fail_a_call_with_a_response() {
    let mut client = Driven::client();
    let (_, request) = client.request(queue_call());
    client.engine.lock_refused(client.now, &BusError::new("READONLY"));
    client.response(&request, "SRV_1", Ok("fits"));
    assert!(client.outcome().unwrap().is_ok());
}
