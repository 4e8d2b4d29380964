//! The users of the engines: what they do follows from what they are told, with nothing left to chance.

use psrpc_engine::proto::Any;
use psrpc_engine::{
    Call, CallHandle, Client, ClientEvent, Counters, Engine, MultiCall, OpenStream, Received, Server,
    ServerEvent, StreamEvent, StreamHandle, SubscriptionHandle, Time,
};

use super::fact::{Act, Fact, Step};
use super::node::User;
use super::scene::{Kind, PUBLISHER, SERVERS, Scene, clocks};

/// What the client sends on a stream.
pub(super) const TO_SERVER: &str = "to the server";

/// What a server sends on a stream.
pub(super) const TO_CLIENT: &str = "to the client";

/// What is published.
pub(super) const UPDATE: &str = "news";

const UPDATE_TYPE: &str = "hats.News";

/// What must not fail: nothing that is done here is more than an engine allows.
const ALLOWED: &str = "it is sound, and the engine is open";

/// The user of the client.
pub(super) struct Caller {
    scene: Scene,
    call: Option<CallHandle>,
    listens: Option<SubscriptionHandle>,
    stream: Option<StreamHandle>,
    /// So many things are to happen on the stream before it is closed: a send ends, a message comes.
    awaits: u8,
}

impl Caller {
    pub(super) fn new(scene: Scene) -> Self {
        let awaits = u8::from(scene.kind.sends_to_server()) + u8::from(scene.kind.sends_to_client());
        Self { scene, call: None, listens: None, stream: None, awaits }
    }

    fn call(&mut self, engine: &mut Client, now: Time) {
        let (now, route) = (clocks(now), self.scene.route());
        match self.scene.kind {
            Kind::Multi => {
                let call = MultiCall { expected: Some(SERVERS), ..MultiCall::new(route, "any hats?") };
                engine.multi_call(now, call).expect(ALLOWED);
            }
            Kind::Stream | Kind::Upload | Kind::Download => {
                self.call = Some(engine.open_stream(now, OpenStream::new(route)).expect(ALLOWED));
            }
            Kind::Update => self.listens = Some(engine.subscribe(&route, UPDATE_TYPE).expect(ALLOWED)),
            Kind::Queue | Kind::Election | Kind::Affinity | Kind::SingleServer => {
                self.call = Some(engine.call(now, Call::new(route, "a hat, please")).expect(ALLOWED));
            }
        }
    }

    fn awaited(&mut self, engine: &mut Client, now: Time) {
        self.awaits = self.awaits.saturating_sub(1);
        if let (0, Some(stream)) = (self.awaits, self.stream) {
            engine.stream_commands().close(clocks(now), stream, None);
        }
    }
}

impl User<Client> for Caller {
    fn on_event(&mut self, engine: &mut Client, now: Time, event: ClientEvent, step: &mut Step) {
        match event {
            ClientEvent::Opened { outcome: Ok(stream), .. } => {
                self.stream = Some(stream);
                if self.scene.kind.sends_to_server() {
                    engine.stream_commands().send(clocks(now), stream, TO_SERVER, None).expect(ALLOWED);
                }
            }
            ClientEvent::Stream(StreamEvent::Message { delivery, .. }) => {
                let stream = delivery.stream();
                engine.stream_commands().accept(clocks(now), delivery);
                engine.stream_commands().taken(stream);
                self.awaited(engine, now);
            }
            ClientEvent::Stream(StreamEvent::Sent { .. }) => self.awaited(engine, now),
            ClientEvent::Subscribed { .. } => step.acts.push(Act::Unsubscribe),
            ClientEvent::Update { subscription, .. } => engine.taken_update(subscription),
            _ => {}
        }
    }

    fn act(&mut self, engine: &mut Client, now: Time, act: Act, step: &mut Step) {
        match act {
            Act::Call => {
                self.call(engine, now);
                step.acts.extend(self.scene.cancels.then_some(Act::Cancel));
            }
            Act::Cancel => engine.cancel(clocks(now), self.call.expect("it was made")),
            Act::Unsubscribe => engine.unsubscribe(self.listens.expect("it was made")),
            act => unreachable!("{act:?} is no act of a caller"),
        }
    }

    fn counters(engine: &Client) -> &Counters {
        engine.counters()
    }

    fn holds(engine: &Client) -> usize {
        engine.in_flight() + engine.streams() + engine.sending() + engine.listening() + engine.remembered()
    }
}

impl From<ClientEvent> for Fact {
    fn from(event: ClientEvent) -> Self {
        Fact::Client(event)
    }
}

/// The user of a server.
pub(super) struct Host {
    scene: Scene,
    server: usize,
}

impl Host {
    pub(super) fn new(scene: Scene, server: usize) -> Self {
        Self { scene, server }
    }

    /// Registers its methods.
    pub(super) fn start(&mut self, engine: &mut Server, step: &mut Step) {
        if self.scene.serves(self.server) {
            engine.register(vec![self.scene.route()]).expect(ALLOWED);
        }
        if self.scene.kind == Kind::Update && self.server == PUBLISHER {
            step.acts.push(Act::Publish);
        }
    }
}

impl User<Server> for Host {
    fn on_event(&mut self, engine: &mut Server, now: Time, event: ServerEvent, step: &mut Step) {
        match event {
            ServerEvent::Received(Received { request, .. }) if self.scene.kind == Kind::Election => {
                engine.elect(clocks(now), request);
            }
            ServerEvent::Received(Received { request, .. }) => {
                engine.bid(clocks(now), request, Scene::affinity(self.server));
            }
            ServerEvent::Run { request } => step.acts.push(Act::Answer(request)),
            ServerEvent::Stream(StreamEvent::Message { delivery, .. }) => {
                let stream = delivery.stream();
                engine.stream_commands().accept(clocks(now), delivery);
                engine.stream_commands().taken(stream);
                if self.scene.kind == Kind::Stream {
                    engine.stream_commands().send(clocks(now), stream, TO_CLIENT, None).expect(ALLOWED);
                }
            }
            ServerEvent::Accepted { stream, .. } if self.scene.kind == Kind::Download => {
                engine.stream_commands().send(clocks(now), stream, TO_CLIENT, None).expect(ALLOWED);
            }
            ServerEvent::Stream(StreamEvent::Ended { stream, .. }) => {
                engine.finish_stream(clocks(now), stream, Ok(()));
            }
            _ => {}
        }
    }

    fn act(&mut self, engine: &mut Server, now: Time, act: Act, _: &mut Step) {
        match act {
            Act::Answer(request) => {
                engine.respond(clocks(now), request, Scene::answer(self.server).map(Into::into));
            }
            Act::Publish => {
                let update = Any { type_url: UPDATE_TYPE.into(), value: UPDATE.into() };
                engine.publish(clocks(now), &self.scene.route(), update, None).expect(ALLOWED);
            }
            act => unreachable!("{act:?} is no act of a host"),
        }
    }

    fn counters(engine: &Server) -> &Counters {
        engine.counters()
    }

    fn holds(engine: &Server) -> usize {
        let streams = engine.streams() + engine.sending();
        engine.in_flight() + streams + engine.publishing() + engine.remembered()
    }
}

impl From<ServerEvent> for Fact {
    fn from(event: ServerEvent) -> Self {
        Fact::Server(event)
    }
}
