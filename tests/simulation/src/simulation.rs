//! The simulation: one run, from its seed to the last check.

use std::panic::catch_unwind;

use psrpc_engine::{Client, Server, SubscriptionHandle};

use crate::caller::{Caller, CallerAct};
use crate::check::{self, Checked, Fact, Model};
use crate::fault::{Fault, Faults};
use crate::happening::{Happening, NodeId};
use crate::host::Host;
use crate::net::Net;
use crate::node::{Input, Node};
use crate::plan::{Plan, routes};
use crate::report::Report;
use crate::rng::Rng;
use crate::stage::Stage;
use crate::world::World;

/// One in so many seeds is run twice.
const TWICE: u64 = 64;

/// Runs one seed. Its trace goes line by line to `show`, if that is given.
pub fn simulate(seed: u64, show: Option<fn(&str)>) -> Report {
    let run = || {
        let mut simulation = Simulation::new(seed, show);
        let result = simulation.run();
        simulation.report(seed, result)
    };
    catch_unwind(run).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
        Report::of_panic(seed, text)
    })
}

/// Runs one seed; some of them twice, to see that they go the same way (I17).
pub fn check_seed(seed: u64) -> Report {
    let report = simulate(seed, None);
    if report.violation.is_some() || !seed.is_multiple_of(TWICE) {
        return report;
    }
    let violation = check::same_trace(&report, &simulate(seed, None)).err();
    Report { violation, ..report }
}

struct Simulation {
    world: World,
    plan: Plan,
    clients: Vec<Node<Client, Caller>>,
    /// Every incarnation of every server.
    servers: Vec<Node<Server, Host>>,
    /// Which server is in each slot.
    slots: Vec<Option<usize>>,
    rng: Rng,
}

impl Simulation {
    fn new(seed: u64, show: Option<fn(&str)>) -> Self {
        let mut rng = Rng::new(seed);
        let plan = Plan::draw(&mut rng);
        let faults = Faults::new(&mut rng);
        let stage = Stage::new(faults, rng.chance(500), show);
        let world = World { stage, net: Net::new(rng.fork()), model: Model::new() };
        let slots = vec![None; plan.slots.len()];
        let mut simulation = Self { world, plan, clients: Vec::new(), servers: Vec::new(), slots, rng };
        simulation.fill_agenda();
        simulation
    }

    fn fill_agenda(&mut self) {
        let Self { world: World { stage, .. }, plan, .. } = self;
        for (at, client) in &plan.calls {
            stage.at(*at, Happening::Caller(*client, CallerAct::Call));
        }
        if let Some((at, client)) = plan.close {
            stage.at(at, Happening::Caller(client, CallerAct::Close));
        }
        for (at, slot, how) in &plan.stops {
            stage.at(*at, Happening::Stop(*slot, *how));
        }
        stage.at(plan.calm, Happening::Calm);
        stage.at(plan.probe, Happening::Probe);
    }

    fn run(&mut self) -> Checked {
        for client in 0..self.plan.clients.len() {
            self.start_client(client)?;
        }
        for slot in 0..self.plan.slots.len() {
            self.start_server(slot)?;
        }
        while let Some(happening) = self.world.stage.next(self.plan.end) {
            self.world.note(Fact::TimeIs(self.world.stage.now()))?;
            self.happen(happening)?;
        }
        self.world.note(Fact::TimeIs(self.plan.end))?;
        self.clients.iter().try_for_each(|client| client.check_empty(&mut self.world))?;
        self.servers.iter().try_for_each(|server| server.check_empty(&mut self.world))
    }

    fn happen(&mut self, happening: Happening) -> Checked {
        match happening {
            Happening::Joined(place) => {
                self.world.net.joined(place);
                Ok(())
            }
            Happening::Confirmed(place) => {
                let to = self.world.net.subscriber(place);
                self.hand_in(to, Input::Subscribed)
            }
            Happening::Ended(place) => {
                let to = self.world.net.end(place);
                self.hand_in(to, Input::Unsubscribed)
            }
            Happening::Delivered(place, delivery) => {
                let to = self.world.net.subscriber(place);
                self.hand_in(to, |subscription| Input::Frame(subscription, delivery))
            }
            Happening::Published(node, token, result) => self.input(node, Input::Published(token, result)),
            Happening::Room(node) => self.input(node, Input::Room),
            Happening::Tick(node) => self.input(node, Input::Tick),
            Happening::Caller(client, act) => self.clients[client]
                .step(&mut self.world, |node, now, world| node.user.act(&mut node.engine, now, world, act)),
            Happening::Host(server, act) => self.servers[server]
                .step(&mut self.world, |node, now, world| node.user.act(&mut node.engine, now, world, act)),
            Happening::Start(slot) => self.start_server(slot),
            Happening::Stop(slot, how) => self.stop_server(slot, how),
            Happening::Calm => {
                self.world.stage.log("run", "faults stop");
                self.world.stage.faults.stop();
                Ok(())
            }
            Happening::Probe => self.probe(),
        }
    }

    /// Hands in something about a subscription, unless it has ended.
    fn hand_in(
        &mut self,
        to: Option<(NodeId, SubscriptionHandle)>,
        input: impl FnOnce(SubscriptionHandle) -> Input,
    ) -> Checked {
        let Some((node, subscription)) = to else { return Ok(()) };
        self.input(node, input(subscription))
    }

    fn input(&mut self, node: NodeId, input: Input) -> Checked {
        match node {
            NodeId::Client(client) => self.clients[client].input(&mut self.world, input),
            NodeId::Server(server) => self.servers[server].input(&mut self.world, input),
        }
    }

    fn start_client(&mut self, client: usize) -> Checked {
        let plan = &self.plan.clients[client];
        let engine = Client::new(plan.config.clone(), self.rng.seed()).expect("the plan is sound");
        let caller = Caller::new(client, routes().to_vec(), plan.config.timeout, self.rng.fork());
        let mut node = Node::new(&mut self.world, NodeId::Client(client), engine, caller, plan.clock);
        self.world.stage.log(NodeId::Client(client), format_args!("starts as {}", node.engine.id()));
        let started = node.step(&mut self.world, |_, _, _| Ok(()));
        self.clients.push(node);
        started
    }

    fn start_server(&mut self, slot: usize) -> Checked {
        let plan = &self.plan.slots[slot];
        let engine = Server::new(plan.config.clone(), self.rng.seed()).expect("the plan is sound");
        let (server, allowance) = (self.servers.len(), plan.config.skew_allowance);
        let (id, registrations) = (engine.id().clone(), plan.registrations.clone());
        let host = Host::new(server, id, registrations, allowance, self.rng.fork());
        let mut node = Node::new(&mut self.world, NodeId::Server(server), engine, host, plan.clock);
        self.world.stage.log(NodeId::Server(server), format_args!("starts as {}", node.engine.id()));
        let started = node.step(&mut self.world, |node, _, _| {
            node.user.start(&mut node.engine);
            Ok(())
        });
        self.slots[slot] = Some(server);
        self.servers.push(node);
        started
    }

    /// Shuts down the server in a slot, and has another take its place soon.
    fn stop_server(&mut self, slot: usize, how: Fault) -> Checked {
        let Self { world, servers, slots, rng, .. } = self;
        let Some(server) = slots[slot].take() else { return Ok(()) };
        world.stage.faults.count(how);
        world.stage.after(rng.grains(0..800), Happening::Start(slot));
        servers[server].step(world, |node, now, world| {
            world.stage.log(NodeId::Server(server), how.name());
            node.user.leave();
            match how {
                Fault::Kill => node.engine.kill(now),
                _ => node.engine.drain(now),
            }
            Ok(())
        })
    }

    /// Has every client call every method that a server serves.
    fn probe(&mut self) -> Checked {
        let Self { world, clients, servers, .. } = self;
        for route in routes() {
            if !servers.iter().any(|server| server.user.serves(&route)) {
                continue;
            }
            for client in &mut *clients {
                client
                    .step(world, |node, now, world| node.user.probe(&mut node.engine, now, world, &route))?;
            }
        }
        Ok(())
    }

    fn report(self, seed: u64, result: Checked) -> Report {
        let World { stage, model, .. } = self.world;
        Report {
            seed,
            calls: model.calls() as u64,
            fresh_calls: model.fresh_calls() as u64,
            faults: stage.faults.counts(),
            trace_hash: stage.trace_hash(),
            outcomes: stage.outcomes,
            violation: result.err(),
        }
    }
}
