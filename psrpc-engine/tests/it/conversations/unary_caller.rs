//! Our client in the place of a Go client that makes unary calls.

use std::collections::BTreeMap;
use std::time::Duration;

use psrpc_engine::proto::{ErrorCode, Frame, Text};
use psrpc_engine::{
    BusError, Call, CallError, CallHandle, Client, ClientEvent, Engine, Failure, Now, Reply, Selection, Time,
    WallTime,
};
use psrpc_vectors::{Publish, hex};
use serde_json::Value;

use super::{
    Kind, RecordedPeer, assert_same, decode, for_each_peer, micros, name, publishes, route_of, selection,
    text,
};
use crate::fixture::{AFFINITY, Driven, QUEUE, SINGLE, ms, route};

/// The outcome of a call, and the time until then.
struct Ended {
    outcome: Result<Reply, Box<Failure>>,
    after: Duration,
}

#[test]
fn our_client_does_what_go_clients_did() {
    let replayed = for_each_peer(Kind::Unary, "client", |peer| Replay::new(peer).run());
    assert_eq!(replayed, 33 + 34 + 34 + 35 + 39 + 39 + 110 + 111);
}

struct Replay<'a> {
    peer: RecordedPeer<'a>,
    client: Driven<Client>,
    /// Our request ids by the recorded ids.
    ids: BTreeMap<String, Text>,
    calls: Vec<(CallHandle, Time)>,
    ended: Vec<Ended>,
    expected: Vec<&'a Publish>,
}

impl<'a> Replay<'a> {
    fn new(peer: RecordedPeer<'a>) -> Self {
        let client = peer.client("Hats");
        let (ids, calls, ended, expected) = (BTreeMap::new(), Vec::new(), Vec::new(), Vec::new());
        Self { peer, client, ids, calls, ended, expected }
    }

    fn run(mut self) {
        self.peer.check_subscriptions(&self.client);
        match self.id() {
            "unary-client-closed" => return self.check_closed(),
            "unary-publish-fails" => return self.check_failed_publish(),
            "selection-options-on-queue-minimum"
            | "selection-options-on-queue-maximum"
            | "selection-options-on-single-server-minimum" => return self.check_refused_selection(),
            _ => {}
        }
        let from = self.peer.from();
        let mut sent: Vec<(String, String, Frame)> = Vec::new();
        for (_, publish) in publishes(self.peer.conversation) {
            self.advance_to(micros(publish.at_us));
            if publish.from != from {
                self.receive(publish);
            } else if let Frame::Request(request) = decode(publish) {
                self.call(publish, request);
            } else if !self.go_grants_after_the_end() {
                self.expected.push(publish);
                // Go got the bid a moment before the recorder, so our timers may be due a moment
                // later.
                self.advance_to(micros(publish.at_us) + ms(3));
            }
            self.take_sent(&mut sent);
        }
        let last = self.calls.last().expect("a call").1.since(Time::ZERO);
        self.advance_to(last + Duration::from_secs(4));
        self.take_sent(&mut sent);
        if self.ignores_early_response() {
            let grant = sent.pop().expect("a grant");
            assert!(matches!(&grant.2, Frame::ClaimResponse(grant) if grant.server_id == "SRV_recorder000A"));
        }
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
        self.peer.context()
    }

    fn id(&self) -> &str {
        self.peer.id()
    }

    /// Returns `true` if Go publishes a grant after a cancellation or at the deadline; we do not.
    fn go_grants_after_the_end(&self) -> bool {
        matches!(self.id(), "unary-canceled-during-selection-with-bid" | "selection-options-on-queue-none")
    }

    /// Returns `true` if Go ends an affinity call with the response of a server that was not
    /// selected. Ours ignores it and grants the bid.
    fn ignores_early_response(&self) -> bool {
        self.id() == "unary-affinity-response-during-selection"
    }

    /// Checks that a failed publish fails the call at once with its cause. In Go the caller waits
    /// for bids, or gets `internal` on NATS.
    fn check_failed_publish(mut self) {
        self.client.call(Call::new(route("Fit", QUEUE), ""));
        let token = self.client.published()[0].0;
        self.client.engine.handle_published(self.client.now, token, Err(BusError::new("connection closed")));
        self.client.drain();
        let failure = self.client.failure();
        assert_eq!((failure.code, failure.source.is_some()), (ErrorCode::Unavailable, true));
    }

    fn check_refused_selection(self) {
        let (method, properties) =
            if self.id().contains("single-server") { ("OwnerFit", SINGLE) } else { ("Fit", QUEUE) };
        let selection = selection(|selection| match self.id() {
            "selection-options-on-queue-maximum" => selection.maximum_affinity = Some(0.9),
            _ => selection.minimum_affinity = Some(0.5),
        });
        let Self { mut client, peer, .. } = self;
        let refused =
            client.engine.call(client.now, Call { selection, ..Call::new(route(method, properties), "") });
        let error = refused.unwrap_err();
        let recorded = &peer.conversation.outcome["error"];
        assert_eq!(error.code().as_str(), text(&recorded["code"]));
        // Our text names the option.
        assert!(error.to_string().starts_with(&format!("{method}: ")), "{error}");
        client.drain();
        assert!(client.frames().is_empty() && publishes(peer.conversation).count() == 0);
    }

    fn check_closed(mut self) {
        self.client.engine.close(self.client.now);
        self.client.drain();
        let error = self.client.engine.call(self.client.now, Call::new(route("Pick", AFFINITY), ""));
        let error = error.unwrap_err();
        assert_eq!(error, CallError::Closed);
        self.peer.check_refused(&error.code(), &error.to_string());
        assert!(self.client.frames().is_empty());
    }

    fn advance_to(&mut self, after: Duration) {
        // The recorded time of a cancellation or of closing the client.
        let ends_after = match self.id() {
            "unary-canceled-while-running"
            | "unary-canceled-during-selection-no-bids"
            | "skip-claim-elected-canceled-while-running" => Some(ms(150)),
            "unary-canceled-during-selection-with-bid" => Some(ms(100)),
            id if id.starts_with("unary-client-closed-") => Some(ms(150)),
            _ => None,
        };
        if let (Some(ends_after), Some(&(call, started))) = (ends_after, self.calls.first()) {
            let at = started.since(Time::ZERO) + ends_after;
            if at <= after && self.ended.is_empty() {
                self.run_until(at);
                match self.id().starts_with("unary-client-closed-") {
                    true => self.client.engine.close(self.client.now),
                    false => self.client.engine.cancel(self.client.now, call),
                }
                self.client.drain();
                self.handle_events();
            }
        }
        self.run_until(after);
    }

    fn run_until(&mut self, after: Duration) {
        while let Some(timeout) = self.client.next_timeout(after) {
            self.client.advance_to(timeout);
            self.handle_events();
        }
        if after > self.client.now.time.since(Time::ZERO) {
            self.client.advance_to(after);
        }
    }

    fn handle_events(&mut self) {
        for event in self.client.events() {
            match event {
                ClientEvent::Select { call, bids } => {
                    let lowest = bids.iter().min_by(|a, b| a.affinity.total_cmp(&b.affinity));
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
        let route = route_of(self.peer.bus, &publish.channel, &publish.local);
        let selection = self.selection();
        let wall = WallTime::from_unix_nanos(request.sent_at);
        let now = Now { wall, ..self.client.now };
        let remaining = WallTime::from_unix_nanos(request.expiry).since(wall);
        let clamped =
            self.peer.version == "v0.6.0" && self.id() == "unary-context-deadline-and-longer-timeout";
        // The caller's own deadline is 400 ms away, but Go v0.6.0 puts the longer timeout on the
        // wire.
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
        if self.id() == "unary-context-already-canceled" {
            // Go still publishes the request.
            self.client.engine.cancel(now, handle);
            self.client.drain();
            assert!(self.client.published().is_empty(), "{}", self.context());
            return self.handle_events();
        }
        self.client.drain();
        let (_, channel, frame) = self.client.published().pop().expect("a call publishes a request");
        let Frame::Request(mut ours) = frame else { panic!("a request") };
        self.ids.insert(request.request_id.to_string(), ours.request_id.clone());
        ours.request_id = request.request_id;
        // Go sets it since v0.7.5.
        assert_eq!(ours.skip_claim, channel.server().ends_with(".Q"), "{}", self.context());
        ours.skip_claim &= self.peer.version >= "v0.7.5";
        assert_eq!(name(self.peer.bus, &channel), publish.channel, "{}", self.context());
        if clamped {
            assert_eq!(ours.expiry, (wall + ms(400)).as_unix_nanos());
            ours.expiry = request.expiry;
        }
        assert_same(&Frame::Request(ours), self.peer.local(&channel), publish, &self.context());
    }

    fn selection(&self) -> Selection {
        selection(|selection| match self.id() {
            "unary-affinity-maximum" => selection.maximum_affinity = Some(0.8),
            "unary-affinity-first-available"
            | "selection-options-on-queue-accept-first"
            | "handler-deadline-nested-call"
            | "handler-deadline-nested-call-longer-timeout" => {
                selection.accept_first_available = Some(true);
            }
            "unary-affinity-below-minimum" => {
                selection.minimum_affinity = Some(0.95);
                selection.affinity_timeout = Some(ms(400));
            }
            "unary-affinity-selection-func" => {
                selection.affinity_timeout = Some(ms(100));
                selection.ask = true;
            }
            "selection-options-on-queue-affinity-timeout" => selection.affinity_timeout = Some(ms(300)),
            "selection-options-on-queue-short-circuit" => selection.short_circuit_timeout = Some(ms(100)),
            "selection-options-on-queue-accept-first-and-timeout" => {
                selection.accept_first_available = Some(true);
                selection.affinity_timeout = Some(ms(300));
            }
            "selection-options-on-queue-none" => {}
            _ => *selection = Selection::default(),
        })
    }

    /// Delivers a frame that our client is subscribed to, with its request id mapped to ours.
    fn receive(&mut self, publish: &Publish) {
        let Some(subscription) = self.peer.subscription_for(&self.client, publish) else { return };
        let ours = |recorded: &Text| self.ids.get(recorded.as_str()).cloned().unwrap_or_default();
        let mut frame = decode(publish);
        match &mut frame {
            Frame::ClaimRequest(claim) => claim.request_id = ours(&claim.request_id),
            Frame::Response(response) => response.request_id = ours(&response.request_id),
            Frame::Raw(_) => {}
            other => panic!("a client is subscribed to no {}", other.kind()),
        }
        self.client.deliver(subscription, frame);
        self.handle_events();
    }

    fn take_sent(&mut self, sent: &mut Vec<(String, String, Frame)>) {
        for (_, channel, mut frame) in self.client.published() {
            if let Frame::ClaimResponse(grant) = &mut frame {
                let recorded = self.ids.iter().find(|(_, ours)| **ours == grant.request_id);
                grant.request_id = recorded.expect("a grant of a known request").0.as_str().into();
            }
            sent.push((name(self.peer.bus, &channel), self.peer.local(&channel).to_owned(), frame));
        }
    }

    fn check_outcomes(&self) {
        let outcome = &self.peer.conversation.outcome;
        let recorded: Vec<_> = match self.id() {
            "unary-queue-two-calls" | "skip-claim-elected-two-calls" | "compression-response-over-cap" => {
                vec![&outcome["first"], &outcome["second"]]
            }
            // The nested call of the handler, by another client.
            "handler-deadline-nested-call" | "handler-deadline-nested-call-longer-timeout"
                if self.peer.participant.label == "c2" =>
            {
                vec![&outcome["nested"]]
            }
            // Retries happen above the engine; no server responds to any attempt.
            id if id.starts_with("retry-unary-") => {
                for ended in &self.ended {
                    let failure = ended.outcome.as_ref().expect_err("no server responds");
                    assert_eq!(failure.to_string(), "unavailable: no response from servers");
                }
                return assert_eq!(self.ended.len(), self.calls.len());
            }
            "queue-member-without-the-method" => outcome["calls"].as_array().expect("calls").iter().collect(),
            _ => vec![outcome],
        };
        assert_eq!(self.ended.len(), recorded.len(), "{}: every call resolves once", self.context());
        for (index, (ended, recorded)) in self.ended.iter().zip(recorded).enumerate() {
            self.check_outcome(index, ended, recorded);
        }
    }

    fn check_outcome(&self, index: usize, ended: &Ended, recorded: &Value) {
        let context = self.context();
        let (mut code, mut error) = (text(&recorded["error"]["code"]), text(&recorded["error"]["text"]));
        let mut took = recorded["took_ms"].as_u64();
        match self.id() {
            "unary-queue-error-empty-text" | "unary-response-code-without-text" => {
                (code, error) = ("not_found", "");
            }
            "unary-canceled-during-selection-no-bids" | "unary-context-already-canceled" => {
                (code, error) = ("canceled", "request canceled");
            }
            // An error from the only server that got the request ends the selection at once (in Go
            // since v0.7.5).
            "malformed-request-from-client" => took = Some(5),
            // In Go since v0.7.7.
            id if id.starts_with("unary-client-closed-") => {
                (code, error, took) = ("canceled", "client is closed", Some(150));
            }
            // Go accepts a response from a server that was not selected. Ours waits for the
            // selected one.
            "unary-response-of-another-server" | "skip-claim-two-announcements" => {
                let reply = ended.outcome.as_ref().unwrap_or_else(|error| panic!("{context}: {error}"));
                return assert_eq!(reply.server_id, "SRV_recorder000A", "{context}");
            }
            _ if self.ignores_early_response() => {
                (code, error, took) = ("deadline_exceeded", "request timed out", Some(3000));
            }
            // The engine does not decode payloads; this one fails in the typed client.
            "malformed-result" => (code, error) = ("", ""),
            _ => {}
        }
        match &ended.outcome {
            Ok(reply) => {
                assert_eq!(code, "", "{context}: unexpected reply {reply:?}");
                let response = publishes(self.peer.conversation)
                    .map(|(_, publish)| publish)
                    .find(|publish| {
                        publish.type_url.ends_with("internal.Response")
                            && publish.fields["server_id"] == reply.server_id.as_str()
                    })
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
            // Go measures from before it publishes the request.
            let before = if index == 0 { self.calls[0].1.since(Time::ZERO).as_millis() as u64 } else { 0 };
            // Go's time includes compression.
            let within = if self.id().starts_with("compression-") { 20 } else { 5 + before };
            assert!(after.abs_diff(took) <= within, "{context}: {after} ms here, {took} ms in Go");
        }
        assert_ne!(
            ended.outcome.as_ref().err().map(|failure| &failure.code),
            Some(&ErrorCode::Unknown).filter(|_| code != "unknown")
        );
    }
}
