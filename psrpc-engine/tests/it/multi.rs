//! Tests of multi calls.

use psrpc_engine::proto::{ErrorCode, ErrorResponse, Frame, Request};
use psrpc_engine::{
    BusError, Call, CallError, Client, ClientConfig, ClientEvent, ClientLimits, Engine, Failure, MultiCall,
    MultiHandle, Reason,
};

use crate::fixture::{Driven, MULTI, QUEUE, at, ms, next_published, route};

fn census() -> MultiCall {
    MultiCall::new(route("Census", MULTI), "all")
}

/// The responses of a multi call, and its outcome if it has ended.
type MultiEvents = (Vec<(String, Result<String, ErrorCode>)>, Option<Result<(), Box<Failure>>>);

trait Multi {
    fn multi(&mut self, call: MultiCall) -> (MultiHandle, Option<Request>);
    fn multi_events(&mut self) -> MultiEvents;
}

impl Multi for Driven<Client> {
    fn multi(&mut self, call: MultiCall) -> (MultiHandle, Option<Request>) {
        let handle = self.engine.multi_call(self.now, call).unwrap();
        self.drain();
        let request = self.frames().into_iter().find_map(|(channel, frame)| match frame {
            Frame::Request(request) if channel == "Hats|Census|REQ" => Some(request),
            _ => None,
        });
        (handle, request)
    }

    fn multi_events(&mut self) -> MultiEvents {
        let (mut responses, mut end) = (Vec::new(), None);
        for event in self.events() {
            match event {
                ClientEvent::Response { server_id, result, .. } => {
                    assert!(end.is_none(), "no event after the end");
                    let result = result.map(|payload| String::from_utf8(payload.to_vec()).unwrap());
                    responses.push((server_id.to_string(), result.map_err(|error| error.code)));
                }
                ClientEvent::MultiEnded { outcome, .. } => {
                    assert!(end.replace(outcome).is_none(), "a multi call ends once");
                }
                _ => {}
            }
        }
        (responses, end)
    }
}

fn response(server: &str, text: &str) -> (String, Result<String, ErrorCode>) {
    (server.to_owned(), Ok(text.to_owned()))
}

#[test]
fn every_server_can_respond_until_the_timeout() {
    let mut client = Driven::client();
    let (_, request) = client.multi(MultiCall { timeout: Some(ms(500)), ..census() });
    let request = request.expect("it is published");
    assert!(request.multi && !request.skip_claim);
    client.response(&request, "SRV_2", Ok("two"));
    client.response(&request, "SRV_1", Err(ErrorResponse::new(ErrorCode::ResourceExhausted, "out of hats")));
    client.response(&request, "SRV_3", Ok("three"));
    let error = ("SRV_1".to_owned(), Err(ErrorCode::ResourceExhausted));
    assert_eq!(client.multi_events().0, [response("SRV_2", "two"), error, response("SRV_3", "three")]);
    client.advance_to(ms(499));
    assert!(client.multi_events().1.is_none());
    client.advance_to(ms(500));
    assert!(matches!(client.multi_events().1, Some(Ok(()))));
    client.response(&request, "SRV_4", Ok("late"));
    assert_eq!(client.dropped(), [Reason::Late]);
    assert_eq!((client.engine.in_flight(), client.engine.poll_timeout()), (0, None));
}

#[test]
fn the_expected_count_ends_a_multi_call() {
    let mut client = Driven::client();
    let (_, request) = client.multi(MultiCall { expected: Some(2), ..census() });
    let request = request.unwrap();
    client.response(&request, "SRV_1", Ok("one"));
    assert!(client.multi_events().1.is_none());
    client.response(&request, "SRV_2", Ok("two"));
    assert!(matches!(client.multi_events().1, Some(Ok(()))));
    assert_eq!(client.engine.poll_timeout(), None);
}

#[test]
fn a_multi_call_that_expects_no_response_ends_without_a_request() {
    let mut client = Driven::client();
    let (_, request) = client.multi(MultiCall { expected: Some(0), ..census() });
    assert!(request.is_none() && matches!(client.multi_events().1, Some(Ok(()))));
}

#[test]
fn a_server_responds_once_and_with_its_id() {
    let mut client = Driven::client();
    let request = client.multi(census()).1.unwrap();
    client.response(&request, "SRV_1", Ok("one"));
    client.response(&request, "SRV_1", Ok("again"));
    client.response(&request, "", Ok("nameless"));
    assert_eq!(client.engine.counters().get(Reason::SecondResponse), 1);
    assert_eq!(client.engine.counters().get(Reason::MissingId), 1);
    assert_eq!(client.multi_events().0, [response("SRV_1", "one")]);
}

#[test]
fn a_multi_response_at_the_deadline_is_late() {
    let mut client = Driven::client();
    let request = client.multi(census()).1.unwrap();
    client.now = at(ms(3000));
    client.response(&request, "SRV_1", Ok("late"));
    assert_eq!(client.dropped(), [Reason::Late]);
    client.advance_to(ms(3000));
    let (responses, ended) = client.multi_events();
    assert!(responses.is_empty());
    assert_eq!(ended.unwrap().unwrap_err().reason, Reason::TimedOut);
}

#[test]
fn multi_responses_are_bounded() {
    let mut config = ClientConfig::new("Hats");
    config.limits = ClientLimits { responses_per_call: 2, ..ClientLimits::DEFAULT };
    let mut client = Driven::client_with(config);
    let request = client.multi(census()).1.unwrap();
    for server in ["SRV_1", "SRV_2", "SRV_3"] {
        client.response(&request, server, Ok("here"));
    }
    assert_eq!(client.multi_events().0.len(), 2);
    assert_eq!(client.engine.counters().get(Reason::ResponsesFull), 1);
}

#[test]
fn the_callers_deadline_clamps_the_expiry_on_the_wire() {
    let mut client = Driven::client();
    let deadline = Some(client.now.time + ms(200));
    let request = client.multi(MultiCall { timeout: Some(ms(1000)), deadline, ..census() }).1.unwrap();
    assert_eq!(request.expiry - request.sent_at, 200_000_000);
    client.advance_to(ms(200));
    assert!(client.multi_events().1.is_some());
}

#[test]
fn a_multi_call_without_responses_fails_with_evidence() {
    for receivers in [Some(2), None] {
        let mut client = Driven::client();
        client.engine.multi_call(client.now, census()).unwrap();
        let (token, ..) = next_published(&mut client.engine).unwrap();
        client.engine.handle_published(client.now, token, Ok(receivers));
        client.advance_to(ms(3000));
        let failure = client.multi_events().1.unwrap().unwrap_err();
        assert_eq!(failure.to_string(), "deadline_exceeded: request timed out");
        assert_eq!((failure.evidence.receivers, failure.evidence.unsent), (receivers, false));
    }
    let mut client = Driven::client();
    let (_, request) = client.multi(MultiCall { timeout: Some(ms(0)), ..census() });
    assert!(request.is_none());
    assert!(client.multi_events().1.unwrap().unwrap_err().evidence.unsent);
}

#[test]
fn a_multi_call_that_reaches_nobody_fails_at_once() {
    let mut client = Driven::client();
    client.engine.multi_call(client.now, census()).unwrap();
    let (token, ..) = next_published(&mut client.engine).unwrap();
    client.engine.handle_published(client.now, token, Ok(Some(0)));
    client.drain();
    let failure = client.multi_events().1.unwrap().unwrap_err();
    assert_eq!(failure.to_string(), "unavailable: no response from servers");
    assert_eq!((failure.reason, failure.evidence.receivers), (Reason::NobodySubscribed, Some(0)));
    assert_eq!((client.engine.in_flight(), client.engine.poll_timeout()), (0, None));
}

#[test]
fn a_multi_call_that_a_server_answered_does_not_fail_if_the_bus_counts_nobody() {
    let mut client = Driven::client();
    client.engine.multi_call(client.now, census()).unwrap();
    let (token, _, frame) = next_published(&mut client.engine).unwrap();
    let Frame::Request(request) = frame else { panic!("not a request: {frame:?}") };
    client.response(&request, "SRV_1", Ok("here"));
    client.engine.handle_published(client.now, token, Ok(Some(0)));
    client.advance_to(ms(3000));
    assert!(client.multi_events().1.unwrap().is_ok());
}

#[test]
fn a_canceled_multi_call_gets_no_more_responses() {
    let mut client = Driven::client();
    let (call, request) = client.multi(census());
    client.engine.cancel_multi(client.now, call);
    client.response(&request.unwrap(), "SRV_1", Ok("late"));
    assert_eq!(client.dropped(), [Reason::Late]);
    assert_eq!((client.engine.in_flight(), client.engine.poll_timeout()), (0, None));
}

#[test]
fn a_failed_publish_fails_a_multi_call_without_responses() {
    for responded in [false, true] {
        let mut client = Driven::client();
        let call = client.engine.multi_call(client.now, census()).unwrap();
        let Some((token, _, Frame::Request(request))) = next_published(&mut client.engine) else {
            panic!("{call:?}")
        };
        if responded {
            client.response(&request, "SRV_1", Ok("one"));
        }
        client.engine.handle_published(client.now, token, Err(BusError::new("down")));
        client.drain();
        let end = client.multi_events().1.map(|outcome| outcome.unwrap_err().reason);
        assert_eq!(end, (!responded).then_some(Reason::PublishFailed));
    }
}

#[test]
fn closing_the_client_ends_its_multi_calls_at_once() {
    let mut client = Driven::client();
    client.multi(census());
    client.engine.close(client.now);
    client.drain();
    assert_eq!(client.multi_events().1.unwrap().unwrap_err().reason, Reason::ClientClosed);
}

#[test]
fn unary_and_multi_calls_refuse_each_others_methods() {
    let mut client = Driven::client();
    let unary = client.engine.call(client.now, Call::new(route("Census", MULTI), "")).unwrap_err();
    assert_eq!(unary, CallError::Multi { method: "Census".into() });
    let multi = client.engine.multi_call(client.now, MultiCall::new(route("Fit", QUEUE), "")).unwrap_err();
    assert_eq!(multi, CallError::NotMulti { method: "Fit".into() });
}

#[test]
fn an_interrupted_client_fails_new_multi_calls_and_sends_nothing() {
    let mut client = Driven::client();
    let (_, pending) = client.multi(census());
    client.interrupt("Hats|CLI_1|RES", "connection reset");
    let (_, request) = client.multi(census());
    assert!(request.is_none());
    let (responses, end) = client.multi_events();
    let failure = end.unwrap().unwrap_err();
    assert!(responses.is_empty());
    assert_eq!((failure.reason, &failure.code), (Reason::Interrupted, &ErrorCode::Unavailable));
    assert_eq!(failure.to_string(), "unavailable: subscription interrupted: connection reset");
    assert_eq!(failure.source.as_ref().unwrap().to_string(), "connection reset");
    assert!(failure.evidence.unsent);
    assert_eq!((client.engine.in_flight(), client.engine.counters().get(Reason::Interrupted)), (1, 1));
    // Calls that end at once are not affected.
    client.multi(MultiCall { expected: Some(0), ..census() });
    assert!(client.multi_events().1.unwrap().is_ok());
    client.multi(MultiCall { timeout: Some(ms(0)), ..census() });
    assert_eq!(client.multi_events().1.unwrap().unwrap_err().reason, Reason::TimedOut);
    // A pending call goes on.
    client.response(&pending.unwrap(), "SRV_1", Ok("one"));
    assert_eq!(client.multi_events().0, [response("SRV_1", "one")]);
    client.resume("Hats|CLI_1|RES");
    let events = client.events();
    assert!(
        matches!(events[..], [ClientEvent::Resumed { count: 1 }, ClientEvent::Gap { lost: None, .. }]),
        "{events:?}"
    );
    let (_, request) = client.multi(MultiCall { expected: Some(1), ..census() });
    client.response(&request.unwrap(), "SRV_1", Ok("one"));
    assert!(client.multi_events().1.unwrap().is_ok());
}

#[test]
fn a_multi_request_is_sent_once_its_frame_is_taken() {
    for taken in [false, true] {
        let mut client = Driven::client();
        client.engine.multi_call(client.now, census()).unwrap();
        let outgoing = client.engine.poll_publish().expect("the request");
        if taken {
            let _ = outgoing.take();
        }
        client.advance_to(ms(3000));
        let failure = client.multi_events().1.unwrap().unwrap_err();
        assert_eq!((failure.reason, failure.evidence.unsent), (Reason::TimedOut, !taken));
        assert!(client.frames().is_empty(), "a request whose frame was not taken is withdrawn");
    }
}
