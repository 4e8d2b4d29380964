//! A fleet of engines in virtual time, connected by a bus that delivers every frame at once.
//! Measures the cost per engine as the fleet grows.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use psrpc_cost::{START, later};
use psrpc_engine::proto::{Channel, Frame, MethodProperties};
use psrpc_engine::{
    Call, Client, ClientConfig, ClientEvent, ClientLimits, Engine, Now, Output, Route, Selection, Server,
    ServerConfig, ServerEvent, ServerLimits, SubscriptionHandle, SubscriptionKind, Token,
};

use crate::measure::now;

const PAYLOAD: &[u8; 64] = &[b'x'; 64];

/// The cost of a fleet so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cost {
    /// The number of frames published.
    pub(crate) published: u64,
    /// The number of deliveries, one for each subscriber of a frame.
    pub(crate) delivered: u64,
    /// The time spent in all clients.
    pub(crate) clients: Duration,
    /// The time spent in all servers.
    pub(crate) servers: Duration,
}

/// Clients and servers of one service, on one bus.
pub(crate) struct Fleet {
    clients: Vec<Client>,
    servers: Vec<Server>,
    routes: Vec<Route>,
    channels: BTreeMap<String, Subscribers>,
    now: Now,
    /// The nodes whose outputs are to be processed.
    busy: VecDeque<Node>,
    answered: u64,
    /// True if servers ignore requests.
    ignores_requests: bool,
    cost: Cost,
}

#[derive(Clone, Copy)]
enum Node {
    Client(usize),
    Server(usize),
}

/// The subscribers of a channel.
#[derive(Default)]
struct Subscribers {
    plain: Vec<(Node, SubscriptionHandle)>,
    queue: Vec<(Node, SubscriptionHandle)>,
    turn: usize,
}

impl Fleet {
    /// Creates clients and servers of a method with this number of topics; 0 for a method without
    /// topics.
    pub(crate) fn new(properties: MethodProperties, clients: usize, servers: usize, topics: usize) -> Self {
        let route =
            |topic: &[String]| Route::new("Hats", "Fit", properties, topic).expect("the names are valid");
        let routes = match topics {
            0 => vec![route(&[])],
            topics => (0..topics).map(|topic| route(&[topic.to_string()])).collect(),
        };
        let limits = ClientLimits { calls: 1 << 20, bids_per_call: 1 << 10, ..ClientLimits::DEFAULT };
        let config = ClientConfig { limits, ..ClientConfig::new("Hats") };
        let seed = |kind: u8, number: usize| {
            let mut seed = [kind; 32];
            seed[..8].copy_from_slice(&number.to_le_bytes());
            seed
        };
        let client = |number| Client::new(config.clone(), seed(1, number)).expect("the config is valid");
        let limits = ServerLimits { requests: 1 << 20, ..ServerLimits::DEFAULT };
        let config = ServerConfig { limits, ..ServerConfig::new("Hats") };
        let server = |number| Server::new(config.clone(), seed(2, number)).expect("the config is valid");
        let mut fleet = Self {
            clients: (0..clients).map(client).collect(),
            servers: (0..servers).map(server).collect(),
            routes,
            channels: BTreeMap::new(),
            now: START,
            busy: (0..clients).map(Node::Client).collect(),
            answered: 0,
            ignores_requests: false,
            cost: Cost::default(),
        };
        fleet.pump();
        fleet
    }

    /// Registers every topic at every server.
    pub(crate) fn register(&mut self) {
        for (number, server) in self.servers.iter_mut().enumerate() {
            for route in &self.routes {
                server.register(vec![route.clone()]).expect("the topic is new");
            }
            self.busy.push_back(Node::Server(number));
        }
        self.pump();
    }

    /// Makes calls one after the other, cycling through the clients and topics. Returns their cost.
    pub(crate) fn calls(&mut self, calls: usize, selection: &Selection) -> Cost {
        let before = (self.cost, self.answered);
        for number in 0..calls {
            self.start(number, selection);
            self.pump();
            // The selection may wait for further bids.
            while self.answered < before.1 + number as u64 + 1 {
                let client = number % self.clients.len();
                let next = self.clients[client].poll_timeout().expect("the client waits for bids").at;
                self.pass(next.since(self.now.time));
                let started = now();
                while self.clients[client].handle_timeout(self.now).is_more() {}
                self.cost.clients += started.elapsed();
                self.busy.push_back(Node::Client(client));
                self.pump();
            }
        }
        self.cost.since(&before.0)
    }

    /// Makes calls to which no server responds.
    pub(crate) fn hold(&mut self, calls: usize) {
        self.ignores_requests = true;
        for number in 0..calls {
            self.start(number, &Selection::default());
            self.pump();
        }
        self.ignores_requests = false;
    }

    fn start(&mut self, number: usize, selection: &Selection) {
        self.pass(Duration::from_micros(1));
        let route = self.routes[number % self.routes.len()].clone();
        let call = Call { selection: *selection, ..Call::new(route, &PAYLOAD[..]) };
        let client = number % self.clients.len();
        let started = now();
        self.clients[client].call(self.now, call).expect("the call starts");
        self.cost.clients += started.elapsed();
        self.busy.push_back(Node::Client(client));
    }

    fn pass(&mut self, time: Duration) {
        self.now = later(self.now, time);
    }

    /// Processes outputs until no node is busy.
    fn pump(&mut self) {
        while let Some(node) = self.busy.pop_front() {
            match node {
                Node::Client(number) => self.pump_client(number),
                Node::Server(number) => self.pump_server(number),
            }
        }
    }

    fn pump_client(&mut self, number: usize) {
        loop {
            let started = now();
            let output = self.clients[number].poll_output();
            self.cost.clients += started.elapsed();
            match output {
                None => {
                    let started = now();
                    let taken = take_next(&mut self.clients[number]);
                    self.cost.clients += started.elapsed();
                    let Some((token, channel, frame)) = taken else { return };
                    self.publish(&channel, frame);
                    let started = now();
                    self.clients[number].handle_published(self.now, token, Ok(None));
                    self.cost.clients += started.elapsed();
                }
                Some(Output::Subscribe { subscription, channel, kind }) => {
                    self.subscribe(Node::Client(number), subscription, &channel, kind);
                    self.clients[number].handle_subscribed(self.now, subscription, Ok(()));
                }
                Some(Output::Event(ClientEvent::Resolved { outcome, .. })) => {
                    outcome.expect("the call succeeds");
                    self.answered += 1;
                }
                Some(_) => {}
            }
        }
    }

    fn pump_server(&mut self, number: usize) {
        loop {
            let started = now();
            let server = &mut self.servers[number];
            let output = server.poll_output();
            match output {
                None => {
                    let taken = take_next(server);
                    if let Some((token, ..)) = &taken {
                        server.handle_published(self.now, *token, Ok(None));
                    }
                    self.cost.servers += started.elapsed();
                    let Some((_, channel, frame)) = taken else { return };
                    self.publish(&channel, frame);
                    continue;
                }
                Some(Output::Event(ServerEvent::Received(received))) if !self.ignores_requests => {
                    server.bid(self.now, received.request, 1.0);
                }
                Some(Output::Event(ServerEvent::Run { request })) => {
                    server.respond(self.now, request, Ok("yes".into()));
                }
                Some(Output::Subscribe { subscription, channel, kind }) => {
                    server.handle_subscribed(self.now, subscription, Ok(()));
                    self.cost.servers += started.elapsed();
                    self.subscribe(Node::Server(number), subscription, &channel, kind);
                    continue;
                }
                Some(_) => {}
            }
            self.cost.servers += started.elapsed();
        }
    }

    fn subscribe(
        &mut self,
        node: Node,
        subscription: SubscriptionHandle,
        channel: &Channel,
        kind: SubscriptionKind,
    ) {
        let subscribers = self.channels.entry(channel.legacy().to_owned()).or_default();
        match kind {
            SubscriptionKind::Plain => subscribers.plain.push((node, subscription)),
            SubscriptionKind::Queue => subscribers.queue.push((node, subscription)),
        }
    }

    fn publish(&mut self, channel: &Channel, frame: Frame) {
        self.cost.published += 1;
        let Self { clients, servers, channels, now: at, busy, cost, .. } = self;
        let Some(subscribers) = channels.get_mut(channel.legacy()) else { return };
        let next = subscribers.turn % subscribers.queue.len().max(1);
        subscribers.turn += 1;
        for (node, subscription) in subscribers.plain.iter().chain(subscribers.queue.get(next)).copied() {
            cost.delivered += 1;
            let frame = frame.clone();
            let started = now();
            match node {
                Node::Client(number) => {
                    clients[number].handle_frame(*at, subscription, frame);
                    cost.clients += started.elapsed();
                }
                Node::Server(number) => {
                    servers[number].handle_frame(*at, subscription, frame);
                    cost.servers += started.elapsed();
                }
            }
            busy.push_back(node);
        }
    }
}

/// Takes the next frame to publish, with its token and channel.
fn take_next<E: Engine>(engine: &mut E) -> Option<(Token, Channel, Frame)> {
    let outgoing = engine.poll_publish()?;
    let token = outgoing.token();
    let (channel, frame) = outgoing.take();
    Some((token, channel, frame))
}

impl Cost {
    fn since(&self, earlier: &Self) -> Self {
        Self {
            published: self.published - earlier.published,
            delivered: self.delivered - earlier.delivered,
            clients: self.clients - earlier.clients,
            servers: self.servers - earlier.servers,
        }
    }
}
