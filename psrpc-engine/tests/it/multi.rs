//! Multi calls, case by case.

use psrpc_engine::proto::{ErrorCode, ErrorResponse, Frame, Request};
use psrpc_engine::{
    BusError, Call, CallError, Client, ClientConfig, ClientEvent, ClientLimits, Engine, Failure, MultiCall,
    MultiHandle, Reason,
};

use crate::fixture::{Driven, MULTI, QUEUE, at, ms, next_published, route};

fn census() -> MultiCall {
    MultiCall::new(route("Census", MULTI), "all")
}

/// What a multi call gave since the last look, and how it ended, if it did.
type Given = (Vec<(String, Result<String, ErrorCode>)>, Option<Result<(), Box<Failure>>>);

trait Multi {
    fn multi(&mut self, call: MultiCall) -> (MultiHandle, Option<Request>);
    fn given(&mut self) -> Given;
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

    fn given(&mut self) -> Given {
        let (mut answers, mut end) = (Vec::new(), None);
        for event in self.events() {
            match event {
                ClientEvent::Response { server_id, result, .. } => {
                    assert!(end.is_none(), "nothing comes after the end");
                    let result = result.map(|payload| String::from_utf8(payload.to_vec()).unwrap());
                    answers.push((server_id.to_string(), result.map_err(|error| error.code)));
                }
                ClientEvent::MultiEnded { outcome, .. } => {
                    assert!(end.replace(outcome).is_none(), "a multi call ends once");
                }
                _ => {}
            }
        }
        (answers, end)
    }
}

fn answer(server: &str, text: &str) -> (String, Result<String, ErrorCode>) {
    (server.to_owned(), Ok(text.to_owned()))
}

#[test]
fn every_server_answers_until_the_timeout() {
    let mut client = Driven::client();
    let (_, request) = client.multi(MultiCall { timeout: Some(ms(500)), ..census() });
    let request = request.expect("it is published");
    assert!(request.multi && !request.skip_claim);
    client.response(&request, "SRV_2", Ok("two"));
    client.response(&request, "SRV_1", Err(ErrorResponse::new(ErrorCode::ResourceExhausted, "out of hats")));
    client.response(&request, "SRV_3", Ok("three"));
    let error = ("SRV_1".to_owned(), Err(ErrorCode::ResourceExhausted));
    assert_eq!(client.given().0, [answer("SRV_2", "two"), error, answer("SRV_3", "three")]);
    client.advance_to(ms(499));
    assert!(client.given().1.is_none());
    client.advance_to(ms(500));
    assert!(matches!(client.given().1, Some(Ok(()))));
    client.response(&request, "SRV_4", Ok("late"));
    assert_eq!(client.dropped(), [Reason::Late]);
    assert_eq!((client.engine.in_flight(), client.engine.poll_timeout()), (0, None));
}

#[test]
fn the_expected_count_ends_it() {
    let mut client = Driven::client();
    let (_, request) = client.multi(MultiCall { expected: Some(2), ..census() });
    let request = request.unwrap();
    client.response(&request, "SRV_1", Ok("one"));
    assert!(client.given().1.is_none());
    client.response(&request, "SRV_2", Ok("two"));
    assert!(matches!(client.given().1, Some(Ok(()))));
    assert_eq!(client.engine.poll_timeout(), None);
}

#[test]
fn a_call_that_expects_nobody_is_over_at_once_and_asks_nobody() {
    let mut client = Driven::client();
    let (_, request) = client.multi(MultiCall { expected: Some(0), ..census() });
    assert!(request.is_none() && matches!(client.given().1, Some(Ok(()))));
}

#[test]
fn a_server_answers_once_and_by_its_name() {
    let mut client = Driven::client();
    let request = client.multi(census()).1.unwrap();
    client.response(&request, "SRV_1", Ok("one"));
    client.response(&request, "SRV_1", Ok("again"));
    client.response(&request, "", Ok("nameless"));
    assert_eq!(client.engine.counters().get(Reason::SecondResponse), 1);
    assert_eq!(client.engine.counters().get(Reason::MissingId), 1);
    assert_eq!(client.given().0, [answer("SRV_1", "one")]);
}

#[test]
fn an_answer_at_the_deadline_is_late() {
    let mut client = Driven::client();
    let request = client.multi(census()).1.unwrap();
    client.now = at(ms(3000));
    client.response(&request, "SRV_1", Ok("late"));
    assert_eq!(client.dropped(), [Reason::Late]);
    client.advance_to(ms(3000));
    let (answers, ended) = client.given();
    assert!(answers.is_empty());
    assert_eq!(ended.unwrap().unwrap_err().reason, Reason::TimedOut);
}

#[test]
fn answers_are_bounded() {
    let mut config = ClientConfig::new("Hats");
    config.limits = ClientLimits { answers_per_call: 2, ..ClientLimits::DEFAULT };
    let mut client = Driven::client_with(config);
    let request = client.multi(census()).1.unwrap();
    for server in ["SRV_1", "SRV_2", "SRV_3"] {
        client.response(&request, server, Ok("here"));
    }
    assert_eq!(client.given().0.len(), 2);
    assert_eq!(client.engine.counters().get(Reason::ResponsesFull), 1);
}

#[test]
fn the_callers_deadline_clamps_it_also_on_the_wire() {
    let mut client = Driven::client();
    let deadline = Some(client.now.time + ms(200));
    let request = client.multi(MultiCall { timeout: Some(ms(1000)), deadline, ..census() }).1.unwrap();
    assert_eq!(request.expiry - request.sent_at, 200_000_000);
    client.advance_to(ms(200));
    assert!(client.given().1.is_some());
}

#[test]
fn a_call_that_nobody_answers_ends_with_an_error_that_says_what_is_known() {
    for receivers in [Some(0), None] {
        let mut client = Driven::client();
        client.engine.multi_call(client.now, census()).unwrap();
        let (token, ..) = next_published(&mut client.engine).unwrap();
        client.engine.handle_published(client.now, token, Ok(receivers));
        client.advance_to(ms(3000));
        let failure = client.given().1.unwrap().unwrap_err();
        assert_eq!(failure.to_string(), "deadline_exceeded: request timed out");
        assert_eq!((failure.evidence.receivers, failure.evidence.unsent), (receivers, false));
    }
    let mut client = Driven::client();
    let (_, request) = client.multi(MultiCall { timeout: Some(ms(0)), ..census() });
    assert!(request.is_none());
    assert!(client.given().1.unwrap().unwrap_err().evidence.unsent);
}

#[test]
fn a_caller_that_has_enough_hears_no_more() {
    let mut client = Driven::client();
    let (call, request) = client.multi(census());
    client.engine.cancel_multi(client.now, call);
    client.response(&request.unwrap(), "SRV_1", Ok("late"));
    assert_eq!(client.dropped(), [Reason::Late]);
    assert_eq!((client.engine.in_flight(), client.engine.poll_timeout()), (0, None));
}

#[test]
fn a_publish_that_fails_fails_it_unless_somebody_has_answered() {
    for answered in [false, true] {
        let mut client = Driven::client();
        let call = client.engine.multi_call(client.now, census()).unwrap();
        let Some((token, _, Frame::Request(request))) = next_published(&mut client.engine) else {
            panic!("{call:?}")
        };
        if answered {
            client.response(&request, "SRV_1", Ok("one"));
        }
        client.engine.handle_published(client.now, token, Err(BusError::new("down")));
        client.drain();
        let end = client.given().1.map(|outcome| outcome.unwrap_err().reason);
        assert_eq!(end, (!answered).then_some(Reason::PublishFailed));
    }
}

#[test]
fn the_close_of_the_client_ends_it_at_once() {
    let mut client = Driven::client();
    client.multi(census());
    client.engine.close(client.now);
    client.drain();
    assert_eq!(client.given().1.unwrap().unwrap_err().reason, Reason::ClientClosed);
}

#[test]
fn one_kind_of_call_is_not_the_other() {
    let mut client = Driven::client();
    let unary = client.engine.call(client.now, Call::new(route("Census", MULTI), "")).unwrap_err();
    assert_eq!(unary, CallError::Multi { method: "Census".into() });
    let multi = client.engine.multi_call(client.now, MultiCall::new(route("Fit", QUEUE), "")).unwrap_err();
    assert_eq!(multi, CallError::NotMulti { method: "Fit".into() });
}

#[test]
fn an_interrupted_client_fails_it_at_once_and_sends_nothing() {
    let mut client = Driven::client();
    let (_, pending) = client.multi(census());
    client.interrupt("Hats|CLI_1|RES", "connection reset");
    let (_, request) = client.multi(census());
    assert!(request.is_none());
    let (answers, end) = client.given();
    let failure = end.unwrap().unwrap_err();
    assert!(answers.is_empty());
    assert_eq!((failure.reason, &failure.code), (Reason::Interrupted, &ErrorCode::Unavailable));
    assert_eq!(failure.to_string(), "unavailable: subscription interrupted: connection reset");
    assert_eq!(failure.source.as_ref().unwrap().to_string(), "connection reset");
    assert!(failure.evidence.unsent);
    assert_eq!((client.engine.in_flight(), client.engine.counters().get(Reason::Interrupted)), (1, 1));
    // Those that end at once end as ever.
    client.multi(MultiCall { expected: Some(0), ..census() });
    assert!(client.given().1.unwrap().is_ok());
    client.multi(MultiCall { timeout: Some(ms(0)), ..census() });
    assert_eq!(client.given().1.unwrap().unwrap_err().reason, Reason::TimedOut);
    // One that is pending goes on.
    client.response(&pending.unwrap(), "SRV_1", Ok("one"));
    assert_eq!(client.given().0, [answer("SRV_1", "one")]);
    client.resume("Hats|CLI_1|RES");
    let events = client.events();
    assert!(
        matches!(events[..], [ClientEvent::Resumed { count: 1 }, ClientEvent::Gap { lost: None, .. }]),
        "{events:?}"
    );
    let (_, request) = client.multi(MultiCall { expected: Some(1), ..census() });
    client.response(&request.unwrap(), "SRV_1", Ok("one"));
    assert!(client.given().1.unwrap().is_ok());
}

#[test]
fn its_request_is_sent_once_its_frame_is_taken() {
    for taken in [false, true] {
        let mut client = Driven::client();
        client.engine.multi_call(client.now, census()).unwrap();
        let outgoing = client.engine.poll_publish().expect("the request");
        if taken {
            let _ = outgoing.take();
        }
        client.advance_to(ms(3000));
        let failure = client.given().1.unwrap().unwrap_err();
        assert_eq!((failure.reason, failure.evidence.unsent), (Reason::TimedOut, !taken));
        assert!(client.frames().is_empty(), "a request that is not taken is withdrawn");
    }
}
