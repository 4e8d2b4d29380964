//! Our client where Go's was, making multi calls.

use std::time::Duration;

use psrpc_engine::proto::{ErrorResponse, Frame, Request, Text};
use psrpc_engine::{Client, ClientEvent, MultiCall, MultiHandle, Now, Reason, Time, WallTime};
use psrpc_vectors::Publish;
use serde_json::Value;

use super::transcript::{Compared, Transcript};
use super::{Kind, Place, assert_error, decode, each_place, fields, micros, publishes, route_of};
use crate::fixture::{Driven, MULTI, ms, route};

#[test]
fn our_client_gets_the_answers_that_go_clients_got() {
    let replayed = each_place(Kind::Multi, "client", |place| Replay::new(place).run());
    assert_eq!(replayed, 4 * 14 + 2 + 2 * 23);
}

struct Replay<'a> {
    client: Driven<Client>,
    transcript: Transcript<'a>,
    place: Place<'a>,
    call: Option<MultiHandle>,
    started: Time,
    answers: Vec<(Text, Result<Value, ErrorResponse>)>,
    dropped: Vec<Reason>,
    /// How long after its start the call ended.
    ended: Option<Duration>,
}

impl<'a> Replay<'a> {
    fn new(place: Place<'a>) -> Self {
        let (client, transcript) = (place.client("Hats"), Transcript::new(&place));
        let (call, started, answers) = (None, Time::ZERO, Vec::new());
        Self { client, transcript, place, call, started, answers, dropped: Vec::new(), ended: None }
    }

    fn run(mut self) {
        self.place.check_subscriptions(&self.client);
        if self.place.id() == "multi-client-closed" {
            return self.check_closed();
        }
        let from = self.place.from();
        for (_, publish) in publishes(self.place.conversation) {
            self.pass(micros(publish.at_us));
            if publish.from == from {
                self.call(publish);
            } else if let Some(subscription) = self.place.hears(&self.client, publish) {
                self.client.deliver(subscription, self.transcript.incoming(publish));
            }
            self.look();
        }
        self.pass(ms(200));
        // The call ends long before.
        while let Some(next) = self.client.next_timeout(Duration::from_secs(10)) {
            self.client.advance_to(next);
            self.look();
        }
        self.transcript.finish();
        self.check_outcome();
        assert_eq!(self.client.engine.in_flight(), 0);
    }

    fn check_closed(mut self) {
        self.client.engine.close(self.client.now);
        self.client.drain();
        let call = MultiCall::new(route("Census", MULTI), "");
        let error = self.client.engine.multi_call(self.client.now, call).unwrap_err();
        self.place.check_refused(&error.code(), &error.to_string());
        assert!(self.client.frames().is_empty());
    }

    /// Lets time pass, up to the moment at which the caller gives up or closes its client, and on.
    fn pass(&mut self, until: Duration) {
        let at = self.started.since(Time::ZERO) + ms(150);
        if let Some(call) = self.call.filter(|_| at <= until && self.ended.is_none()) {
            match self.place.id() {
                "multi-canceled" => {
                    self.client.advance_to(at);
                    self.client.engine.cancel_multi(self.client.now, call);
                    self.ended = Some(ms(150));
                }
                "multi-client-closed-while-pending" => {
                    self.client.advance_to(at);
                    self.client.engine.close(self.client.now);
                    self.client.drain();
                    self.look();
                }
                _ => {}
            }
        }
        if until > self.client.now.time.since(Time::ZERO) {
            self.client.advance_to(until);
        }
    }

    /// Go leaves the caller's own deadline out of what it puts on the wire.
    fn deadline(&self) -> Option<Duration> {
        (self.place.id() == "multi-context-deadline-and-longer-timeout").then_some(ms(200))
    }

    fn call(&mut self, publish: &Publish) {
        let Frame::Request(request) = decode(publish) else { panic!("a request") };
        let wall = WallTime::from_unix_nanos(request.sent_at);
        let now = Now { wall, ..self.client.now };
        let Request { metadata, payload, expiry, .. } = request;
        let call = MultiCall {
            metadata,
            timeout: Some(WallTime::from_unix_nanos(expiry).since(wall)),
            deadline: self.deadline().map(|deadline| now.time + deadline),
            ..MultiCall::new(route_of(self.place.bus, &publish.channel, &publish.local), payload)
        };
        self.call = Some(self.client.engine.multi_call(now, call).unwrap());
        self.started = now.time;
        self.client.drain();
    }

    fn look(&mut self) {
        let deadline = self.deadline();
        self.transcript.check(self.client.published(), |ours, recorded| clamped(deadline, ours, recorded));
        for event in self.client.events() {
            match event {
                ClientEvent::Answer { server_id, result, .. } => {
                    let result = result.map(|payload| fields(self.place.conversation, &payload));
                    self.answers.push((server_id, result));
                }
                ClientEvent::AllAnswered { outcome, .. } => {
                    // Go ends the results without a word, also when the client is closed or nobody
                    // has answered.
                    let expected = match self.place.id() {
                        "multi-client-closed-while-pending" => Some(Reason::ClientClosed),
                        _ => self.answers.is_empty().then_some(Reason::TimedOut),
                    };
                    let reason = outcome.err().map(|failure| failure.reason);
                    assert_eq!(reason, expected, "{}", self.place.context());
                    let after = self.client.now.time.since(self.started);
                    assert!(self.ended.replace(after).is_none(), "{} ends once", self.place.context());
                }
                ClientEvent::Closed { error: None } => {}
                ClientEvent::Dropped(dropped) => self.dropped.push(dropped.reason),
                other => panic!("{}: {other:?}", self.place.context()),
            }
        }
    }

    fn check_outcome(&self) {
        let (outcome, context) = (&self.place.conversation.outcome, self.place.context());
        let answered: Vec<&Text> = self.answers.iter().map(|(server, _)| server).collect();
        let responses = publishes(self.place.conversation).filter_map(|(_, publish)| match decode(publish) {
            Frame::Response(response) => Some(response.server_id),
            _ => None,
        });
        let mut recorded: Vec<_> = responses.collect();
        // Go's callers get them in an order of their own.
        let mut seen = outcome["responses"].as_array().cloned().unwrap_or_default();
        let dropped: &[Reason] = match self.place.id() {
            // Go hands both over; a server counts once.
            "multi-duplicate-response" => {
                recorded.pop();
                seen.pop();
                &[Reason::SecondAnswer]
            }
            "multi-client-closed-while-pending" => {
                recorded.pop();
                &[Reason::Late]
            }
            _ => &[],
        };
        assert_eq!(self.dropped, dropped, "{context}");
        assert_eq!(answered, recorded.iter().collect::<Vec<_>>(), "{context}");
        let mut recorded = seen;
        for (_, answer) in &self.answers {
            let found = recorded.iter().position(|recorded| match answer {
                Ok(answer) => recorded["response"] == *answer,
                Err(_) => recorded.get("error").is_some(),
            });
            let recorded =
                recorded.remove(found.unwrap_or_else(|| panic!("{context}: Go did not see {answer:?}")));
            if let Err(error) = answer {
                assert_error(&error.code, &error.text, &recorded["error"], &context);
            }
        }
        assert!(recorded.is_empty(), "{context}: only Go saw {recorded:?}");
        let after = self.ended.expect("it ends").as_millis() as u64;
        let recorded = outcome["result_channel_closed_after_ms"].as_u64().expect("a time");
        assert!(after.abs_diff(recorded) <= 5, "{context}: {after} ms here, {recorded} ms in Go");
    }
}

/// The caller's own deadline is on the wire, where Go leaves it out.
fn clamped(deadline: Option<Duration>, ours: &mut Frame, recorded: &Frame) -> Option<Compared> {
    if let (Some(deadline), Frame::Request(ours), Frame::Request(recorded)) = (deadline, ours, recorded) {
        let expiry = WallTime::from_unix_nanos(recorded.sent_at) + deadline;
        assert_eq!(
            (ours.expiry, recorded.expiry - recorded.sent_at),
            (expiry.as_unix_nanos(), 1_000_000_000)
        );
        ours.expiry = recorded.expiry;
    }
    None
}
