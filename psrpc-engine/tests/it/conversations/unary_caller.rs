//! Our client where Go's was, making unary calls.

use std::collections::BTreeMap;
use std::time::Duration;

use psrpc_engine::proto::{ErrorCode, Frame, Text};
use psrpc_engine::{
    Call, CallError, CallHandle, Client, ClientEvent, Failure, Now, Reply, Selection, Time, WallTime,
};
use psrpc_vectors::{Publish, hex};
use serde_json::Value;

use super::{Kind, Place, assert_same, decode, each_place, local, micros, name, publishes, route_of, text};
use crate::fixture::{AFFINITY, Driven, ms, route};

/// How a call ended, and when.
struct Ended {
    outcome: Result<Reply, Box<Failure>>,
    after: Duration,
}

#[test]
fn our_client_does_what_go_clients_did() {
    let replayed = each_place(Kind::Unary, "client", |place| Replay::new(place).run());
    assert_eq!(replayed, 34 + 34 + 33 + 33 + 2, "with NATS's own conversation twice");
}

struct Replay<'a> {
    place: Place<'a>,
    client: Driven<Client>,
    /// Our request ids, by the recorded ones.
    ids: BTreeMap<String, Text>,
    calls: Vec<(CallHandle, Time)>,
    ended: Vec<Ended>,
    expected: Vec<&'a Publish>,
}

impl<'a> Replay<'a> {
    fn new(place: Place<'a>) -> Self {
        let client = place.client("Hats");
        let (ids, calls, ended, expected) = (BTreeMap::new(), Vec::new(), Vec::new(), Vec::new());
        Self { place, client, ids, calls, ended, expected }
    }

    fn run(mut self) {
        self.place.check_subscriptions(&self.client);
        if self.id() == "unary-client-closed" {
            return self.check_closed();
        }
        let from = self.place.from();
        let mut sent: Vec<(String, String, Frame)> = Vec::new();
        for (_, publish) in publishes(self.place.conversation) {
            self.advance_to(micros(publish.at_us));
            if publish.from != from {
                self.receive(publish);
            } else if let Frame::Request(request) = decode(publish) {
                self.call(publish, request);
            } else if !self.grants_a_canceled_call() {
                self.expected.push(publish);
                // Go saw the bid a moment before the recording did, so our timers may be due a moment later.
                self.advance_to(micros(publish.at_us) + ms(3));
            }
            self.take_sent(&mut sent);
        }
        let last = self.calls.last().expect("a call").1.since(Time::ZERO);
        self.advance_to(last + Duration::from_secs(4));
        self.take_sent(&mut sent);
        let ours: Vec<_> = sent.iter().map(|(channel, _, frame)| (channel, frame.kind())).collect();
        let go: Vec<_> = self
            .expected
            .iter()
            .map(|publish| (&publish.channel, &publish.type_url["type.googleapis.com/internal.".len()..]))
            .collect();
        assert_eq!(ours, go, "{}", self.context());
        for ((_, local, frame), recorded) in sent.iter().zip(&self.expected) {
            assert_same(frame, local, recorded, &self.context());
        }
        self.check_outcomes();
    }

    fn context(&self) -> String {
        self.place.context()
    }

    fn id(&self) -> &str {
        self.place.id()
    }

    /// Go grants a server after the caller has canceled; we do not.
    fn grants_a_canceled_call(&self) -> bool {
        self.id() == "unary-canceled-during-selection-with-bid"
    }

    fn check_closed(mut self) {
        self.client.engine.close(self.client.now);
        self.client.drain();
        let error = self.client.engine.call(self.client.now, Call::new(route("Pick", AFFINITY), ""));
        let error = error.unwrap_err();
        assert_eq!(error, CallError::Closed);
        let recorded = &self.place.conversation.outcome["error"];
        assert_eq!(
            (error.code().as_str(), error.to_string().as_str()),
            (text(&recorded["code"]), text(&recorded["text"]))
        );
        assert!(self.client.frames().is_empty());
    }

    fn advance_to(&mut self, after: Duration) {
        // A caller that gives up does so at its own time.
        let cancel_after = match self.id() {
            "unary-canceled-while-running" | "unary-canceled-during-selection-no-bids" => Some(ms(150)),
            "unary-canceled-during-selection-with-bid" => Some(ms(100)),
            _ => None,
        };
        if let (Some(cancel_after), Some(&(call, started))) = (cancel_after, self.calls.first()) {
            let at = started.since(Time::ZERO) + cancel_after;
            if at <= after {
                self.pass(at);
                self.client.engine.cancel(self.client.now, call);
                self.client.drain();
                self.look();
            }
        }
        self.pass(after);
    }

    fn pass(&mut self, after: Duration) {
        while let Some(timeout) = self.client.next_timeout(after) {
            self.client.advance_to(timeout);
            self.look();
        }
        if after > self.client.now.time.since(Time::ZERO) {
            self.client.advance_to(after);
        }
    }

    fn look(&mut self) {
        for event in self.client.events() {
            match event {
                ClientEvent::Select { call, claims } => {
                    let lowest = claims.iter().min_by(|a, b| a.affinity.total_cmp(&b.affinity));
                    let now = self.client.now;
                    self.client.engine.select(now, call, Ok(lowest.map(|claim| claim.server_id.clone())));
                    self.client.drain();
                }
                ClientEvent::Resolved { call, outcome } => {
                    let started = self.calls.iter().find(|(known, _)| *known == call).expect("a call").1;
                    self.ended.push(Ended { outcome, after: self.client.now.time.since(started) });
                }
                _ => {}
            }
        }
    }

    fn call(&mut self, publish: &'a Publish, request: psrpc_engine::proto::Request) {
        let route = route_of(self.place.bus, &publish.channel, &publish.local);
        let selection = match self.id() {
            "unary-affinity-maximum" => Selection { maximum_affinity: Some(0.8), ..Selection::default() },
            "unary-affinity-first-available" => {
                Selection { accept_first_available: Some(true), ..Selection::default() }
            }
            "unary-affinity-below-minimum" => Selection {
                minimum_affinity: Some(0.95),
                affinity_timeout: Some(ms(400)),
                ..Selection::default()
            },
            "unary-affinity-selection-func" => {
                Selection { affinity_timeout: Some(ms(100)), ask: true, ..Selection::default() }
            }
            _ => Selection::default(),
        };
        let wall = WallTime::from_unix_nanos(request.sent_at);
        let now = Now { wall, ..self.client.now };
        let remaining = WallTime::from_unix_nanos(request.expiry).since(wall);
        let clamped =
            self.place.version == "v0.6.0" && self.id() == "unary-context-deadline-and-longer-timeout";
        // There the caller's own deadline is 400 ms away, and Go v0.6.0 puts the longer timeout on the wire.
        let deadline = clamped.then(|| now.time + ms(400));
        let call = Call {
            metadata: request.metadata.clone(),
            timeout: Some(remaining),
            deadline,
            selection,
            ..Call::new(route, request.payload.clone())
        };
        let handle = self.client.engine.call(now, call).unwrap();
        self.calls.push((handle, now.time));
        self.client.drain();
        let (_, channel, frame) = self.client.published().pop().expect("a call publishes a request");
        let Frame::Request(mut ours) = frame else { panic!("a request") };
        self.ids.insert(request.request_id.to_string(), ours.request_id.clone());
        ours.request_id = request.request_id;
        // Go advertises skip_claim on queue calls from v0.7.5 on, which no recorded peer is.
        assert_eq!(ours.skip_claim, channel.server().ends_with(".Q") && channel.legacy() != owner(&channel));
        ours.skip_claim = false;
        assert_eq!(name(self.place.bus, &channel), publish.channel, "{}", self.context());
        if clamped {
            assert_eq!(ours.expiry, (wall + ms(400)).as_unix_nanos());
            ours.expiry = request.expiry;
        }
        assert_same(&Frame::Request(ours), local(self.place.bus, &channel), publish, &self.context());
    }

    /// Hands in a frame of a server, with its request id mapped to ours.
    fn receive(&mut self, publish: &Publish) {
        let ours = |recorded: &Text| self.ids.get(recorded.as_str()).cloned().unwrap_or_default();
        let mut frame = decode(publish);
        match &mut frame {
            Frame::ClaimRequest(claim) => claim.request_id = ours(&claim.request_id),
            Frame::Response(response) => response.request_id = ours(&response.request_id),
            other => panic!("a client hears no {}", other.kind()),
        }
        let found = self
            .client
            .subscriptions
            .iter()
            .find(|(_, known, _)| name(self.place.bus, known) == publish.channel);
        let subscription = found.expect("the client subscribes to what servers publish to").0;
        self.client.deliver(subscription, frame);
        self.look();
    }

    fn take_sent(&mut self, sent: &mut Vec<(String, String, Frame)>) {
        for (_, channel, mut frame) in self.client.published() {
            if let Frame::ClaimResponse(grant) = &mut frame {
                let recorded = self.ids.iter().find(|(_, ours)| **ours == grant.request_id);
                grant.request_id = recorded.expect("a grant of a known request").0.as_str().into();
            }
            sent.push((name(self.place.bus, &channel), local(self.place.bus, &channel).to_owned(), frame));
        }
    }

    fn check_outcomes(&self) {
        let outcome = &self.place.conversation.outcome;
        let recorded: Vec<_> = match self.id() {
            "unary-queue-two-calls" => vec![&outcome["first"], &outcome["second"]],
            "queue-member-without-the-method" => outcome["calls"].as_array().expect("calls").iter().collect(),
            _ => vec![outcome],
        };
        assert_eq!(self.ended.len(), recorded.len(), "{}: every call resolves once", self.context());
        for (ended, recorded) in self.ended.iter().zip(recorded) {
            self.check_outcome(ended, recorded);
        }
    }

    fn check_outcome(&self, ended: &Ended, recorded: &Value) {
        let context = self.context();
        let (mut code, mut error) = (text(&recorded["error"]["code"]), text(&recorded["error"]["text"]));
        let mut took = recorded["took_ms"].as_u64();
        match self.id() {
            "unary-queue-error-empty-text" => (code, error) = ("not_found", ""),
            "unary-canceled-during-selection-no-bids" => (code, error) = ("canceled", "request canceled"),
            // The error of the one server that saw the request ends the selection at once.
            "malformed-request-from-client" => took = Some(5),
            // The engine does not look into payloads: this one fails a layer above.
            "malformed-result" => (code, error) = ("", ""),
            _ => {}
        }
        match &ended.outcome {
            Ok(reply) => {
                assert_eq!(code, "", "{context} answered {reply:?}");
                let response = publishes(self.place.conversation)
                    .map(|(_, publish)| publish)
                    .find(|publish| publish.type_url.ends_with("internal.Response"))
                    .expect("a response");
                let payload = response.fields["raw_response"].as_str().unwrap_or_default();
                if self.calls.len() == 1 {
                    assert_eq!(reply.payload, hex(payload), "{context}");
                }
            }
            Err(failure) => {
                assert_eq!((failure.code.as_str(), failure.text.as_str()), (code, error), "{context}");
                if code == "failed_precondition" {
                    let details: Vec<_> = failure.details.iter().map(|any| any.type_url.as_str()).collect();
                    let recorded = recorded["error"]["details"].as_array().expect("details").iter();
                    assert_eq!(details, recorded.map(|any| text(&any["type_url"])).collect::<Vec<_>>());
                }
            }
        }
        if let Some(took) = took {
            let after = ended.after.as_millis() as u64;
            assert!(after.abs_diff(took) <= 5, "{context}: {after} ms here, {took} ms in Go");
        }
        assert_ne!(
            ended.outcome.as_ref().err().map(|failure| &failure.code),
            Some(&ErrorCode::Unknown).filter(|_| code != "unknown")
        );
    }
}

/// The legacy name if this is the channel of the single_server method, which nobody claims.
fn owner(channel: &psrpc_engine::proto::Channel) -> &str {
    if channel.legacy().starts_with("Hats|OwnerFit|") { channel.legacy() } else { "" }
}
