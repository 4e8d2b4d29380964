//! Our client in the place of a Go client that makes multi calls.

use std::time::Duration;

use psrpc_engine::proto::{ErrorResponse, Frame, Request, Text};
use psrpc_engine::{Client, ClientEvent, MultiCall, MultiHandle, Now, Reason, Time, WallTime};
use psrpc_vectors::Publish;
use serde_json::Value;

use super::transcript::{Compared, Transcript};
use super::{Kind, RecordedPeer, assert_error, decode, fields, for_each_peer, micros, publishes, route_of};
use crate::fixture::{Driven, MULTI, ms, route};

#[test]
fn our_client_gets_the_responses_that_go_clients_got() {
    let replayed = for_each_peer(Kind::Multi, "client", |peer| Replay::new(peer).run());
    assert_eq!(replayed, 4 * 14 + 2 + 2 * 23);
}

struct Replay<'a> {
    client: Driven<Client>,
    transcript: Transcript<'a>,
    peer: RecordedPeer<'a>,
    call: Option<MultiHandle>,
    started: Time,
    responses: Vec<(Text, Result<Value, ErrorResponse>)>,
    dropped: Vec<Reason>,
    /// The time from the start of the call to its end.
    ended: Option<Duration>,
}

impl<'a> Replay<'a> {
    fn new(peer: RecordedPeer<'a>) -> Self {
        let (client, transcript) = (peer.client("Hats"), Transcript::new(&peer));
        let (call, started, responses) = (None, Time::ZERO, Vec::new());
        Self { client, transcript, peer, call, started, responses, dropped: Vec::new(), ended: None }
    }

    fn run(mut self) {
        self.peer.check_subscriptions(&self.client);
        if self.peer.id() == "multi-client-closed" {
            return self.check_closed();
        }
        let from = self.peer.from();
        for (_, publish) in publishes(self.peer.conversation) {
            self.run_until(micros(publish.at_us));
            if publish.from == from {
                self.call(publish);
            } else if let Some(subscription) = self.peer.subscription_for(&self.client, publish) {
                self.client.deliver(subscription, self.transcript.incoming(publish));
            }
            self.handle_events();
        }
        self.run_until(ms(200));
        // Ten seconds are well past the end of the call.
        while let Some(next) = self.client.next_timeout(Duration::from_secs(10)) {
            self.client.advance_to(next);
            self.handle_events();
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
        self.peer.check_refused(&error.code(), &error.to_string());
        assert!(self.client.frames().is_empty());
    }

    /// Advances time, and cancels the call or closes the client when the recorded caller did.
    fn run_until(&mut self, until: Duration) {
        let at = self.started.since(Time::ZERO) + ms(150);
        if let Some(call) = self.call.filter(|_| at <= until && self.ended.is_none()) {
            match self.peer.id() {
                "multi-canceled" => {
                    self.client.advance_to(at);
                    self.client.engine.cancel_multi(self.client.now, call);
                    self.ended = Some(ms(150));
                }
                "multi-client-closed-while-pending" => {
                    self.client.advance_to(at);
                    self.client.engine.close(self.client.now);
                    self.client.drain();
                    self.handle_events();
                }
                _ => {}
            }
        }
        if until > self.client.now.time.since(Time::ZERO) {
            self.client.advance_to(until);
        }
    }

    /// Returns the caller's own deadline, which Go does not put on the wire.
    fn deadline(&self) -> Option<Duration> {
        (self.peer.id() == "multi-context-deadline-and-longer-timeout").then_some(ms(200))
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
            ..MultiCall::new(route_of(self.peer.bus, &publish.channel, &publish.local), payload)
        };
        self.call = Some(self.client.engine.multi_call(now, call).unwrap());
        self.started = now.time;
        self.client.drain();
    }

    fn handle_events(&mut self) {
        let deadline = self.deadline();
        self.transcript
            .check(self.client.published(), |ours, recorded| revert_clamp(deadline, ours, recorded));
        for event in self.client.events() {
            match event {
                ClientEvent::Response { server_id, result, .. } => {
                    let result = result.map(|payload| fields(self.peer.conversation, &payload));
                    self.responses.push((server_id, result));
                }
                ClientEvent::MultiEnded { outcome, .. } => {
                    // Go ends the results without an error, even if the client is closed or no
                    // server responds.
                    let expected = match self.peer.id() {
                        "multi-client-closed-while-pending" => Some(Reason::ClientClosed),
                        _ => self.responses.is_empty().then_some(Reason::TimedOut),
                    };
                    let reason = outcome.err().map(|failure| failure.reason);
                    assert_eq!(reason, expected, "{}", self.peer.context());
                    let after = self.client.now.time.since(self.started);
                    assert!(self.ended.replace(after).is_none(), "{} ends once", self.peer.context());
                }
                ClientEvent::Closed { error: None } => {}
                ClientEvent::Dropped(dropped) => self.dropped.push(dropped.reason),
                other => panic!("{}: {other:?}", self.peer.context()),
            }
        }
    }

    fn check_outcome(&self) {
        let (outcome, context) = (&self.peer.conversation.outcome, self.peer.context());
        let responders: Vec<&Text> = self.responses.iter().map(|(server, _)| server).collect();
        let responses = publishes(self.peer.conversation).filter_map(|(_, publish)| match decode(publish) {
            Frame::Response(response) => Some(response.server_id),
            _ => None,
        });
        let mut recorded: Vec<_> = responses.collect();
        // Go delivers them in arbitrary order.
        let mut seen = outcome["responses"].as_array().cloned().unwrap_or_default();
        let dropped: &[Reason] = match self.peer.id() {
            // Go delivers both; we take one response per server.
            "multi-duplicate-response" => {
                recorded.pop();
                seen.pop();
                &[Reason::SecondResponse]
            }
            "multi-client-closed-while-pending" => {
                recorded.pop();
                &[Reason::Late]
            }
            _ => &[],
        };
        assert_eq!(self.dropped, dropped, "{context}");
        assert_eq!(responders, recorded.iter().collect::<Vec<_>>(), "{context}");
        let mut recorded = seen;
        for (_, response) in &self.responses {
            let found = recorded.iter().position(|recorded| match response {
                Ok(response) => recorded["response"] == *response,
                Err(_) => recorded.get("error").is_some(),
            });
            let recorded =
                recorded.remove(found.unwrap_or_else(|| panic!("{context}: Go did not see {response:?}")));
            if let Err(error) = response {
                assert_error(&error.code, &error.text, &recorded["error"], &context);
            }
        }
        assert!(recorded.is_empty(), "{context}: only Go saw {recorded:?}");
        let after = self.ended.expect("it ends").as_millis() as u64;
        let recorded = outcome["result_channel_closed_after_ms"].as_u64().expect("a time");
        assert!(after.abs_diff(recorded) <= 5, "{context}: {after} ms here, {recorded} ms in Go");
    }
}

/// Asserts that the caller's own deadline is on the wire, which Go omits, and reverts it.
fn revert_clamp(deadline: Option<Duration>, ours: &mut Frame, recorded: &Frame) -> Option<Compared> {
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
