//! Our client where Go's was, making unary calls.

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
    Kind, Place, assert_same, decode, each_place, micros, name, publishes, route_of, selection, text,
};
use crate::fixture::{AFFINITY, Driven, QUEUE, SINGLE, ms, route};

/// How a call ended, and when.
struct Ended {
    outcome: Result<Reply, Box<Failure>>,
    after: Duration,
}

#[test]
fn our_client_does_what_go_clients_did() {
    let replayed = each_place(Kind::Unary, "client", |place| Replay::new(place).run());
    assert_eq!(replayed, 33 + 34 + 34 + 35 + 39 + 39 + 110 + 111);
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
        match self.id() {
            "unary-client-closed" => return self.check_closed(),
            "unary-publish-fails" => return self.check_unpublished(),
            "selection-options-on-queue-minimum"
            | "selection-options-on-queue-maximum"
            | "selection-options-on-single-server-minimum" => return self.check_refused_selection(),
            _ => {}
        }
        let from = self.place.from();
        let mut sent: Vec<(String, String, Frame)> = Vec::new();
        for (_, publish) in publishes(self.place.conversation) {
            self.advance_to(micros(publish.at_us));
            if publish.from != from {
                self.receive(publish);
            } else if let Frame::Request(request) = decode(publish) {
                self.call(publish, request);
            } else if !self.grants_what_is_over() {
                self.expected.push(publish);
                // Go saw the bid a moment before the recording did, so our timers may be due a
                // moment later.
                self.advance_to(micros(publish.at_us) + ms(3));
            }
            self.take_sent(&mut sent);
        }
        let last = self.calls.last().expect("a call").1.since(Time::ZERO);
        self.advance_to(last + Duration::from_secs(4));
        self.take_sent(&mut sent);
        if self.selects_though_somebody_answered() {
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
        self.place.context()
    }

    fn id(&self) -> &str {
        self.place.id()
    }

    /// Go grants a server after the caller has canceled, and at the deadline; we do not.
    fn grants_what_is_over(&self) -> bool {
        matches!(self.id(), "unary-canceled-during-selection-with-bid" | "selection-options-on-queue-none")
    }

    /// On an affinity call Go takes a response of a server that was not selected; ours selects the
    /// one that bid.
    fn selects_though_somebody_answered(&self) -> bool {
        self.id() == "unary-affinity-response-during-selection"
    }

    /// Publishing fails: our caller is told at once, and why. Go's waits for bids, or is told
    /// `internal` on NATS.
    fn check_unpublished(mut self) {
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
        let Self { mut client, place, .. } = self;
        let refused =
            client.engine.call(client.now, Call { selection, ..Call::new(route(method, properties), "") });
        let error = refused.unwrap_err();
        let recorded = &place.conversation.outcome["error"];
        assert_eq!(error.code().as_str(), text(&recorded["code"]));
        // Ours names the options.
        assert!(error.to_string().starts_with(&format!("{method}: ")), "{error}");
        client.drain();
        assert!(client.frames().is_empty() && publishes(place.conversation).count() == 0);
    }

    fn check_closed(mut self) {
        self.client.engine.close(self.client.now);
        self.client.drain();
        let error = self.client.engine.call(self.client.now, Call::new(route("Pick", AFFINITY), ""));
        let error = error.unwrap_err();
        assert_eq!(error, CallError::Closed);
        self.place.check_refused(&error.code(), &error.to_string());
        assert!(self.client.frames().is_empty());
    }

    fn advance_to(&mut self, after: Duration) {
        // A caller that gives up, or closes its client, does so at its own time.
        let gives_up_after = match self.id() {
            "unary-canceled-while-running"
            | "unary-canceled-during-selection-no-bids"
            | "skip-claim-elected-canceled-while-running" => Some(ms(150)),
            "unary-canceled-during-selection-with-bid" => Some(ms(100)),
            id if id.starts_with("unary-client-closed-") => Some(ms(150)),
            _ => None,
        };
        if let (Some(gives_up_after), Some(&(call, started))) = (gives_up_after, self.calls.first()) {
            let at = started.since(Time::ZERO) + gives_up_after;
            if at <= after && self.ended.is_empty() {
                self.pass(at);
                match self.id().starts_with("unary-client-closed-") {
                    true => self.client.engine.close(self.client.now),
                    false => self.client.engine.cancel(self.client.now, call),
                }
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
        let route = route_of(self.place.bus, &publish.channel, &publish.local);
        let selection = self.selection();
        let wall = WallTime::from_unix_nanos(request.sent_at);
        let now = Now { wall, ..self.client.now };
        let remaining = WallTime::from_unix_nanos(request.expiry).since(wall);
        let clamped =
            self.place.version == "v0.6.0" && self.id() == "unary-context-deadline-and-longer-timeout";
        // There the caller's own deadline is 400 ms away, and Go v0.6.0 puts the longer timeout on
        // the wire.
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
            // Go publishes the request all the same.
            self.client.engine.cancel(now, handle);
            self.client.drain();
            assert!(self.client.published().is_empty(), "{}", self.context());
            return self.look();
        }
        self.client.drain();
        let (_, channel, frame) = self.client.published().pop().expect("a call publishes a request");
        let Frame::Request(mut ours) = frame else { panic!("a request") };
        self.ids.insert(request.request_id.to_string(), ours.request_id.clone());
        ours.request_id = request.request_id;
        // Go has advertised it since v0.7.5.
        assert_eq!(ours.skip_claim, channel.server().ends_with(".Q"), "{}", self.context());
        ours.skip_claim &= self.place.version >= "v0.7.5";
        assert_eq!(name(self.place.bus, &channel), publish.channel, "{}", self.context());
        if clamped {
            assert_eq!(ours.expiry, (wall + ms(400)).as_unix_nanos());
            ours.expiry = request.expiry;
        }
        assert_same(&Frame::Request(ours), self.place.local(&channel), publish, &self.context());
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

    /// Hands in a frame that our client hears, with its request id mapped to ours.
    fn receive(&mut self, publish: &Publish) {
        let Some(subscription) = self.place.hears(&self.client, publish) else { return };
        let ours = |recorded: &Text| self.ids.get(recorded.as_str()).cloned().unwrap_or_default();
        let mut frame = decode(publish);
        match &mut frame {
            Frame::ClaimRequest(claim) => claim.request_id = ours(&claim.request_id),
            Frame::Response(response) => response.request_id = ours(&response.request_id),
            Frame::Raw(_) => {}
            other => panic!("a client hears no {}", other.kind()),
        }
        self.client.deliver(subscription, frame);
        self.look();
    }

    fn take_sent(&mut self, sent: &mut Vec<(String, String, Frame)>) {
        for (_, channel, mut frame) in self.client.published() {
            if let Frame::ClaimResponse(grant) = &mut frame {
                let recorded = self.ids.iter().find(|(_, ours)| **ours == grant.request_id);
                grant.request_id = recorded.expect("a grant of a known request").0.as_str().into();
            }
            sent.push((name(self.place.bus, &channel), self.place.local(&channel).to_owned(), frame));
        }
    }

    fn check_outcomes(&self) {
        let outcome = &self.place.conversation.outcome;
        let recorded: Vec<_> = match self.id() {
            "unary-queue-two-calls" | "skip-claim-elected-two-calls" | "compression-response-over-cap" => {
                vec![&outcome["first"], &outcome["second"]]
            }
            // The handler's own call, by another client.
            "handler-deadline-nested-call" | "handler-deadline-nested-call-longer-timeout"
                if self.place.peer.label == "c2" =>
            {
                vec![&outcome["nested"]]
            }
            // What is tried again is up to the layer above: each attempt finds nobody.
            id if id.starts_with("retry-unary-") => {
                for ended in &self.ended {
                    let failure = ended.outcome.as_ref().expect_err("nobody is there");
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
            // The error of the one server that saw the request ends the selection at once, as it
            // does since v0.7.5.
            "malformed-request-from-client" => took = Some(5),
            // As it does since v0.7.7.
            id if id.starts_with("unary-client-closed-") => {
                (code, error, took) = ("canceled", "client is closed", Some(150));
            }
            // Go takes the response of another server than the one that was selected. Ours waits
            // for that one.
            "unary-response-of-another-server" | "skip-claim-two-announcements" => {
                let reply = ended.outcome.as_ref().unwrap_or_else(|error| panic!("{context}: {error}"));
                return assert_eq!(reply.server_id, "SRV_recorder000A", "{context}");
            }
            _ if self.selects_though_somebody_answered() => {
                (code, error, took) = ("deadline_exceeded", "request timed out", Some(3000));
            }
            // The engine does not look into payloads: this one fails a layer above.
            "malformed-result" => (code, error) = ("", ""),
            _ => {}
        }
        match &ended.outcome {
            Ok(reply) => {
                assert_eq!(code, "", "{context} answered {reply:?}");
                let response = publishes(self.place.conversation)
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
            // Go counts from before it published the request.
            let before = if index == 0 { self.calls[0].1.since(Time::ZERO).as_millis() as u64 } else { 0 };
            // And compresses afterwards.
            let within = if self.id().starts_with("compression-") { 20 } else { 5 + before };
            assert!(after.abs_diff(took) <= within, "{context}: {after} ms here, {took} ms in Go");
        }
        assert_ne!(
            ended.outcome.as_ref().err().map(|failure| &failure.code),
            Some(&ErrorCode::Unknown).filter(|_| code != "unknown")
        );
    }
}
