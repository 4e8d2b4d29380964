//! The scripted users of the engines. Their acts follow from the events of the engine alone,
//! without randomness.

use psrpc_engine::proto::Any;
use psrpc_engine::{
    Call, CallHandle, Client, ClientEvent, Counters, Engine, MultiCall, OpenStream, Received, Server,
    ServerEvent, StreamEvent, StreamHandle, SubscriptionHandle, Time,
};

use super::scenario::{Kind, PUBLISHER, SERVERS, Scenario, clocks};
use super::step::{NodeAct, Step, StepFact};

/// The message of the client on a stream.
pub(super) const TO_SERVER: &str = "to the server";

/// The message of a server on a stream.
pub(super) const TO_CLIENT: &str = "to the client";

/// The payload of the update.
pub(super) const UPDATE: &str = "news";

const UPDATE_TYPE: &str = "hats.News";

/// The message for engine calls that cannot fail: no limit is reached.
const WITHIN_LIMITS: &str = "the engine is open, and no limit is reached";

/// The user of an engine.
pub(super) trait ScriptedUser<E: Engine> {
    /// Handles an event of the engine.
    fn on_event(&mut self, engine: &mut E, now: Time, event: E::Event, step: &mut Step);

    /// Performs an act of the user.
    fn act(&mut self, engine: &mut E, now: Time, act: NodeAct, step: &mut Step);

    /// Returns the number of entries in the engine's tables.
    fn table_entries(engine: &E) -> usize;

    /// Returns the counters of the engine.
    fn counters(engine: &E) -> &Counters;
}

/// The user of the client.
pub(super) struct ScriptedClient {
    scenario: Scenario,
    call: Option<CallHandle>,
    subscription: Option<SubscriptionHandle>,
    stream: Option<StreamHandle>,
    /// The number of events on the stream to wait for before closing it: a send ends, a message
    /// arrives.
    remaining_events: u8,
}

impl ScriptedClient {
    pub(super) fn new(scenario: Scenario) -> Self {
        let remaining_events =
            u8::from(scenario.kind.sends_to_server()) + u8::from(scenario.kind.sends_to_client());
        Self { scenario, call: None, subscription: None, stream: None, remaining_events }
    }

    fn call(&mut self, engine: &mut Client, now: Time) {
        let (now, route) = (clocks(now), self.scenario.route());
        match self.scenario.kind {
            Kind::Multi => {
                let call = MultiCall { expected: Some(SERVERS), ..MultiCall::new(route, "any hats?") };
                engine.multi_call(now, call).expect(WITHIN_LIMITS);
            }
            Kind::Stream | Kind::Upload | Kind::Download => {
                self.call = Some(engine.open_stream(now, OpenStream::new(route)).expect(WITHIN_LIMITS));
            }
            Kind::Update => {
                self.subscription = Some(engine.subscribe(&route, UPDATE_TYPE).expect(WITHIN_LIMITS));
            }
            Kind::Queue | Kind::SkipClaim | Kind::Affinity | Kind::SingleServer => {
                self.call = Some(engine.call(now, Call::new(route, "a hat, please")).expect(WITHIN_LIMITS));
            }
        }
    }

    fn stream_event_done(&mut self, engine: &mut Client, now: Time) {
        self.remaining_events = self.remaining_events.saturating_sub(1);
        if let (0, Some(stream)) = (self.remaining_events, self.stream) {
            engine.stream_commands().close(clocks(now), stream, None);
        }
    }
}

impl ScriptedUser<Client> for ScriptedClient {
    fn on_event(&mut self, engine: &mut Client, now: Time, event: ClientEvent, step: &mut Step) {
        match event {
            ClientEvent::Opened { outcome: Ok(stream), .. } => {
                self.stream = Some(stream);
                if self.scenario.kind.sends_to_server() {
                    engine.stream_commands().send(clocks(now), stream, TO_SERVER, None).expect(WITHIN_LIMITS);
                }
            }
            ClientEvent::Stream(StreamEvent::Message { delivery, .. }) => {
                let stream = delivery.stream();
                engine.stream_commands().accept(clocks(now), delivery);
                assert!(!engine.stream_commands().taken(stream), "nothing is held back");
                self.stream_event_done(engine, now);
            }
            ClientEvent::Stream(StreamEvent::Sent { .. }) => self.stream_event_done(engine, now),
            ClientEvent::Subscribed { .. } => step.acts.push(NodeAct::Unsubscribe),
            ClientEvent::Update { subscription, .. } => engine.taken_update(subscription),
            _ => {}
        }
    }

    fn act(&mut self, engine: &mut Client, now: Time, act: NodeAct, step: &mut Step) {
        match act {
            NodeAct::Call => {
                self.call(engine, now);
                step.acts.extend(self.scenario.cancels.then_some(NodeAct::Cancel));
            }
            NodeAct::Cancel => engine.cancel(clocks(now), self.call.expect("the call was made")),
            NodeAct::Unsubscribe => engine.unsubscribe(self.subscription.expect("the subscription was made")),
            act => unreachable!("{act:?} is not an act of the client's user"),
        }
    }

    fn counters(engine: &Client) -> &Counters {
        engine.counters()
    }

    fn table_entries(engine: &Client) -> usize {
        engine.in_flight() + engine.streams() + engine.sending() + engine.listening() + engine.remembered()
    }
}

impl From<ClientEvent> for StepFact {
    fn from(event: ClientEvent) -> Self {
        StepFact::Client(event)
    }
}

/// The user of a server.
pub(super) struct ScriptedServer {
    scenario: Scenario,
    server: usize,
}

impl ScriptedServer {
    pub(super) fn new(scenario: Scenario, server: usize) -> Self {
        Self { scenario, server }
    }

    /// Registers its methods, or schedules its update.
    pub(super) fn start(&mut self, engine: &mut Server, step: &mut Step) {
        if self.scenario.serves(self.server) {
            engine.register(vec![self.scenario.route()]).expect(WITHIN_LIMITS);
        }
        if self.scenario.kind == Kind::Update && self.server == PUBLISHER {
            step.acts.push(NodeAct::Publish);
        }
    }
}

impl ScriptedUser<Server> for ScriptedServer {
    fn on_event(&mut self, engine: &mut Server, now: Time, event: ServerEvent, step: &mut Step) {
        match event {
            ServerEvent::Received(Received { request, .. }) if self.scenario.kind == Kind::SkipClaim => {
                engine.skip_claim(clocks(now), request);
            }
            ServerEvent::Received(Received { request, .. }) => {
                engine.bid(clocks(now), request, Scenario::affinity(self.server));
            }
            ServerEvent::Run { request } => step.acts.push(NodeAct::Answer(request)),
            ServerEvent::Stream(StreamEvent::Message { delivery, .. }) => {
                let stream = delivery.stream();
                engine.stream_commands().accept(clocks(now), delivery);
                assert!(!engine.stream_commands().taken(stream), "nothing is held back");
                if self.scenario.kind == Kind::Stream {
                    engine.stream_commands().send(clocks(now), stream, TO_CLIENT, None).expect(WITHIN_LIMITS);
                }
            }
            ServerEvent::Accepted { stream, .. } if self.scenario.kind == Kind::Download => {
                engine.stream_commands().send(clocks(now), stream, TO_CLIENT, None).expect(WITHIN_LIMITS);
            }
            ServerEvent::Stream(StreamEvent::Ended { stream, .. }) => {
                engine.finish_stream(clocks(now), stream, Ok(()));
            }
            _ => {}
        }
    }

    fn act(&mut self, engine: &mut Server, now: Time, act: NodeAct, _: &mut Step) {
        match act {
            NodeAct::Answer(request) => {
                engine.respond(clocks(now), request, Scenario::answer(self.server).map(Into::into));
            }
            NodeAct::Publish => {
                let update = Any { type_url: UPDATE_TYPE.into(), value: UPDATE.into() };
                engine.publish(clocks(now), &self.scenario.route(), update, None).expect(WITHIN_LIMITS);
            }
            act => unreachable!("{act:?} is not an act of a server's user"),
        }
    }

    fn counters(engine: &Server) -> &Counters {
        engine.counters()
    }

    fn table_entries(engine: &Server) -> usize {
        let streams = engine.streams() + engine.sending();
        engine.in_flight() + streams + engine.publishing() + engine.remembered()
    }
}

impl From<ServerEvent> for StepFact {
    fn from(event: ServerEvent) -> Self {
        StepFact::Server(event)
    }
}
