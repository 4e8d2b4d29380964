//! The simulation: one run of engines, from its seed to the final checks.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use psrpc_engine::{Client, Server, SubscriptionHandle, Time};

use super::client_user::ClientUser;
use super::engine_node::{EngineNode, Input};
use super::engine_plan::{EngineAct, EnginePlan};
use super::engine_run_event::EngineRunEvent;
use super::engine_world::EngineWorld;
use super::methods::Methods;
use super::server_user::ServerUser;
use super::user_act::{ClientAct, Probe, ServerAct};
use super::variation::{Part, Variation};
use crate::fault::{Fault, FaultOccurrence, Faults};
use crate::judge::fact::Fact;
use crate::judge::model::Model;
use crate::judge::violation::{Checked, Violation};
use crate::net::{Net, NetEvent};
use crate::node_id::NodeId;
use crate::report::{Report, panic_violation};
use crate::rng::Rng;
use crate::scene::Scene;
use crate::trace::Show;

/// Runs the engines of one seed. Each line of the trace goes to `show`, if there is one.
pub fn simulate(seed: u64, show: Option<Show>) -> Report {
    simulate_variation(seed, &Variation::default(), show).report
}

/// The outcome of a variation, and its parts.
pub(crate) struct VariationOutcome {
    pub(crate) report: Report,
    /// The parts of the plan that were kept, with their times.
    pub(crate) parts: BTreeMap<Part, Time>,
    /// The random faults that were drawn and not suppressed.
    pub(crate) faults: BTreeSet<FaultOccurrence>,
    /// When the run ended.
    pub(crate) ended: Time,
}

/// Runs a seed without the parts that the variation leaves out.
pub(crate) fn simulate_variation(seed: u64, variation: &Variation, show: Option<Show>) -> VariationOutcome {
    let mut simulation = Simulation::new(seed, show);
    simulation.vary(variation);
    // A panic ends the run, and leaves its state to be examined.
    let result = catch_unwind(AssertUnwindSafe(|| simulation.run()))
        .unwrap_or_else(|panic| Err(panic_violation(&*panic)));
    let parts = Part::all(&simulation.plan).filter(|(part, _)| variation.keeps(*part)).collect();
    let (faults, ended) = (simulation.world.scene.faults.allowed_occurrences(), simulation.world.scene.now());
    VariationOutcome { report: simulation.report(seed, result), parts, faults, ended }
}

/// Makes `calls` claimed calls without faults, with all checks. All must succeed. Used to measure
/// speed.
pub fn simulate_steadily(calls: u64) -> Report {
    let mut simulation = Simulation::of(0, None, |_, methods| EnginePlan::steady(calls, methods));
    let result = simulation.run();
    simulation.report(0, result)
}

struct Simulation {
    world: EngineWorld,
    plan: EnginePlan,
    variation: Variation,
    /// All clients so far, crashed ones included.
    clients: Vec<EngineNode<Client, ClientUser>>,
    /// All servers so far, crashed ones included.
    servers: Vec<EngineNode<Server, ServerUser>>,
    /// The client in each slot.
    client_slots: Vec<Option<usize>>,
    /// The server in each slot.
    server_slots: Vec<Option<usize>>,
    rng: Rng,
}

impl Simulation {
    fn new(seed: u64, show: Option<Show>) -> Self {
        Self::of(seed, show, EnginePlan::draw)
    }

    fn of(seed: u64, show: Option<Show>, plan: impl FnOnce(&mut Rng, &Methods) -> EnginePlan) -> Self {
        let mut rng = Rng::new(seed);
        let methods = Rc::new(Methods::new());
        let plan = plan(&mut rng, &methods);
        let faults = Faults::new(&mut rng);
        let scene = Scene::new(faults, rng.chance(500), show);
        let (net, model, outcomes) = (Net::new(rng.fork()), Model::new(), BTreeMap::new());
        let world = EngineWorld { scene, net, model, methods, outcomes };
        let (client_slots, server_slots) = (vec![None; plan.clients.len()], vec![None; plan.servers.len()]);
        let (clients, servers) = (Vec::new(), Vec::new());
        let variation = Variation::default();
        Self { world, plan, variation, clients, servers, client_slots, server_slots, rng }
    }

    /// Applies a variation to the run.
    fn vary(&mut self, variation: &Variation) {
        self.variation = variation.clone();
        if let Some(faults) = &variation.faults {
            self.world.scene.faults.allow_only(faults.clone());
        }
    }

    fn run(&mut self) -> Checked {
        self.world.scene.schedule_at(self.plan.calm, EngineRunEvent::Calm);
        self.world.scene.schedule_at(self.plan.reset_clocks, EngineRunEvent::ResetClocks);
        let kept: Vec<_> = Part::all(&self.plan).filter(|(part, _)| self.variation.keeps(*part)).collect();
        for (part, at) in kept {
            let event = match part {
                Part::Act(index) => EngineRunEvent::Act(index),
                Part::Shutdown => EngineRunEvent::Shutdown,
                Part::CallDuringShutdown(_) => EngineRunEvent::CallDuringShutdown,
                Part::Probe => EngineRunEvent::Probe,
                Part::Client(slot) => EngineRunEvent::StartClient(slot, None),
                Part::Server(slot) => EngineRunEvent::StartServer(slot, None),
            };
            if part.is_node() {
                self.handle(event)?;
            } else {
                self.world.scene.schedule_at(at, event);
            }
        }
        while let Some(event) = self.world.scene.next_event(self.plan.end) {
            self.world.note(Fact::TimeAdvanced(self.world.scene.now()))?;
            self.rng.reseed_at(self.world.scene.now());
            match self.paused_until(&event) {
                Some(until) => {
                    self.world.scene.schedule_at(until, event);
                }
                None => self.handle(event)?,
            }
        }
        self.world.note(Fact::TimeAdvanced(self.plan.end))?;
        let Self { world, clients, servers, .. } = self;
        clients.iter().filter(|client| !client.crashed).try_for_each(|client| client.check_empty(world))?;
        for server in servers.iter().filter(|server| !server.crashed) {
            server.user.check_stopped()?;
            server.check_empty(world)?;
        }
        world.model.finish()
    }

    fn handle(&mut self, event: EngineRunEvent) -> Checked {
        match event {
            EngineRunEvent::Net(event) => self.net_event(event),
            EngineRunEvent::Published(node, token, result, frame) => {
                self.input(node, Input::Published(token, result, frame))
            }
            EngineRunEvent::Room(node) => self.input(node, Input::Room),
            EngineRunEvent::Tick(node) => self.input(node, Input::Tick),
            EngineRunEvent::Client(client, act) => self.client_act(client, act),
            EngineRunEvent::Server(server, act) => self.server_act(server, act),
            EngineRunEvent::Act(index) => self.act(self.plan.acts[index].1),
            EngineRunEvent::StartClient(slot, restarted) => self.start_client(slot, restarted),
            EngineRunEvent::StartServer(slot, restarted) => self.start_server(slot, restarted),
            EngineRunEvent::Mend => {
                self.world.scene.log("bus", "connects all nodes again");
                self.world.net.mend();
                Ok(())
            }
            EngineRunEvent::Calm => self.stop_faults(),
            EngineRunEvent::ResetClocks => {
                self.world.scene.log("run", "clock jumps are undone");
                self.clients.iter_mut().for_each(|client| client.clock.undo_jumps());
                self.servers.iter_mut().for_each(|server| server.clock.undo_jumps());
                Ok(())
            }
            EngineRunEvent::Probe => self.probe(),
            EngineRunEvent::Shutdown => self.shut_down_one_server(),
            EngineRunEvent::CallDuringShutdown => self.call_during_shutdown(),
        }
    }

    // --- nodes -----------------------------------------------------------------------------------

    fn net_event(&mut self, event: NetEvent) -> Checked {
        let (id, input): (_, Box<dyn FnOnce(SubscriptionHandle) -> Input>) = match event {
            NetEvent::Activated(id) => {
                self.world.net.activate(id);
                return Ok(());
            }
            NetEvent::Deactivated(id) => {
                self.world.net.deactivate(&mut self.world.scene, id);
                return Ok(());
            }
            NetEvent::Ended(id, error) => {
                if error.is_some() && self.world.net.subscriber(id).is_some() {
                    self.world.scene.faults.count(Fault::LostSubscribe);
                }
                let to = self.world.net.end(id);
                return self.input_for(to, |subscription| Input::Ended(subscription, error));
            }
            NetEvent::Confirmed(id) => (id, Box::new(Input::Subscribed)),
            NetEvent::Delivered(id, delivery) => (id, Box::new(|to| Input::Frame(to, delivery))),
            NetEvent::Gap(id) => (id, Box::new(Input::Gap)),
        };
        self.input_for(self.world.net.subscriber(id), input)
    }

    /// Passes an input about a subscription to its node, unless the subscription has ended.
    fn input_for(
        &mut self,
        to: Option<(NodeId, SubscriptionHandle)>,
        input: impl FnOnce(SubscriptionHandle) -> Input,
    ) -> Checked {
        let Some((node, subscription)) = to else { return Ok(()) };
        self.input(node, input(subscription))
    }

    fn input(&mut self, node: NodeId, input: Input) -> Checked {
        let world = &mut self.world;
        match node {
            NodeId::Client(client) if !self.clients[client].crashed => {
                self.clients[client].input(world, input)
            }
            NodeId::Server(server) if !self.servers[server].crashed => {
                self.servers[server].input(world, input)
            }
            _ => Ok(()),
        }
    }

    fn client_act(&mut self, client: usize, act: ClientAct) -> Checked {
        let node = &mut self.clients[client];
        if node.crashed { Ok(()) } else { node.act(&mut self.world, act) }
    }

    fn server_act(&mut self, server: usize, act: ServerAct) -> Checked {
        let node = &mut self.servers[server];
        if node.crashed { Ok(()) } else { node.act(&mut self.world, act) }
    }

    /// Returns the time until which the node of an event is paused.
    fn paused_until(&self, event: &EngineRunEvent) -> Option<Time> {
        let node = match event {
            EngineRunEvent::Net(NetEvent::Activated(_) | NetEvent::Deactivated(_)) => return None,
            EngineRunEvent::Net(event) => self.world.net.subscriber(event.id()).map(|(node, _)| node)?,
            EngineRunEvent::Published(node, ..) | EngineRunEvent::Room(node) | EngineRunEvent::Tick(node) => {
                *node
            }
            EngineRunEvent::Client(client, _) => NodeId::Client(*client),
            EngineRunEvent::Server(server, _) => NodeId::Server(*server),
            _ => return None,
        };
        let until = match node {
            NodeId::Client(client) => self.clients[client].paused,
            NodeId::Server(server) => self.servers[server].paused,
        };
        until.filter(|until| *until > self.world.scene.now())
    }

    fn start_client(&mut self, slot: usize, restarted: Option<usize>) -> Checked {
        let (client, plan) = (self.clients.len(), &self.plan.clients[slot]);
        // Independent of whether other nodes are left out of the run.
        let mut rng = self.rng.derive(NodeId::Client(slot).peer().0 as u64);
        let mut config = plan.config.clone();
        if let Some(restarted) = restarted {
            config.id = self.clients[restarted].engine.id().clone();
        }
        let user = ClientUser::new(client, slot, config.clone(), rng.fork());
        let engine = Client::new(config, rng.seed()).expect("the plan's options are valid");
        let id = NodeId::Client(client);
        self.world.scene.log(id, format_args!("starts as {}", engine.id()));
        let mut node = EngineNode::new(&mut self.world, id, engine, user, plan.clock);
        let started = node.step(&mut self.world, |_, _, _| Ok(()));
        self.client_slots[slot] = Some(client);
        self.clients.push(node);
        started
    }

    fn start_server(&mut self, slot: usize, restarted: Option<usize>) -> Checked {
        let (server, plan) = (self.servers.len(), &self.plan.servers[slot]);
        // Independent of whether other nodes are left out of the run.
        let mut rng = self.rng.derive(NodeId::Server(slot).peer().0 as u64);
        let mut config = plan.config.clone();
        if let Some(restarted) = restarted {
            config.id = self.servers[restarted].engine.id().clone();
        }
        let engine = Server::new(config, rng.seed()).expect("the plan's options are valid");
        let user = ServerUser::new(server, engine.id().clone(), &plan.config, rng.fork());
        let id = NodeId::Server(server);
        self.world.scene.log(id, format_args!("starts as {}", engine.id()));
        let mut node = EngineNode::new(&mut self.world, id, engine, user, plan.clock);
        let started = plan
            .registrations
            .iter()
            .try_for_each(|routes| node.act(&mut self.world, ServerAct::Register(routes.clone())));
        self.server_slots[slot] = Some(server);
        self.servers.push(node);
        started
    }

    // --- acts ------------------------------------------------------------------------------------

    fn act(&mut self, act: EngineAct) -> Checked {
        match act {
            EngineAct::Use(slot) => match self.client_slots[slot] {
                Some(client) => self.schedule_now(EngineRunEvent::Client(client, ClientAct::Use)),
                None => Ok(()),
            },
            EngineAct::Call(slot) => match self.client_slots[slot] {
                Some(client) => {
                    let route = self.world.methods.calls[0].clone();
                    self.client_act(client, ClientAct::Probe(vec![Probe { route, servers: 1 }]))
                }
                None => Ok(()),
            },
            EngineAct::Publish(slot) => {
                let route = self.rng.index(self.world.methods.updates.len());
                match self.server_slots[slot] {
                    Some(server) => {
                        self.schedule_now(EngineRunEvent::Server(server, ServerAct::Publish(route, None)))
                    }
                    None => Ok(()),
                }
            }
            EngineAct::StopClient(slot, fault) => self.stop_client(slot, fault),
            EngineAct::StopServer(slot, fault) => self.stop_server(slot, fault),
            EngineAct::Cut(fault, duration) => {
                let (from, to): (Vec<_>, Vec<_>) =
                    self.nodes().into_iter().partition(|_| self.rng.chance(500));
                self.world.scene.log("bus", format_args!("{} of {from:?} and {to:?}", fault.name()));
                let peers = |nodes: Vec<NodeId>| nodes.into_iter().map(NodeId::peer).collect::<Vec<_>>();
                let (from, to) = (peers(from), peers(to));
                self.world.net.cut(&from, &to, fault);
                if fault == Fault::Partition {
                    self.world.net.cut(&to, &from, fault);
                }
                self.world.scene.schedule_after(duration, EngineRunEvent::Mend);
                Ok(())
            }
            EngineAct::Clog(duration) => {
                let node = self.any_node();
                if let Some(node) = node {
                    self.world.scene.log("bus", format_args!("holds up frames to {node} for {duration:?}"));
                    self.world.net.clog(node.peer(), self.world.scene.now() + duration);
                }
                Ok(())
            }
            EngineAct::Pause(duration) => {
                self.pause(duration);
                Ok(())
            }
            EngineAct::Jump(nanos) => {
                if let Some(node) = self.any_node() {
                    self.world.scene.faults.count(Fault::ClockJump);
                    self.world.scene.log(node, format_args!("moves its wall clock by {nanos} ns"));
                    match node {
                        NodeId::Client(client) => self.clients[client].clock.jump(nanos),
                        NodeId::Server(server) => self.servers[server].clock.jump(nanos),
                    }
                }
                Ok(())
            }
        }
    }

    /// Schedules an event for now. Unlike a direct call, this respects a pause of the node.
    fn schedule_now(&mut self, event: EngineRunEvent) -> Checked {
        self.world.scene.schedule_after(Default::default(), event);
        Ok(())
    }

    /// Returns the nodes in all slots.
    fn nodes(&self) -> Vec<NodeId> {
        let clients = self.client_slots.iter().flatten().copied().map(NodeId::Client);
        clients.chain(self.server_slots.iter().flatten().copied().map(NodeId::Server)).collect()
    }

    fn any_node(&mut self) -> Option<NodeId> {
        let nodes = self.nodes();
        (!nodes.is_empty()).then(|| self.rng.pick(&nodes))
    }

    fn stop_client(&mut self, slot: usize, fault: Fault) -> Checked {
        let Some(client) = self.client_slots[slot].take() else { return Ok(()) };
        self.world.scene.faults.count(fault);
        if fault != Fault::Crash {
            // It is replaced after it has closed.
            return self.schedule_now(EngineRunEvent::Client(client, ClientAct::Close));
        }
        self.clients[client].crashed = true;
        let restarted = self.crash(NodeId::Client(client), client)?;
        let delay = self.rng.grains(0..800);
        self.world.scene.schedule_after(delay, EngineRunEvent::StartClient(slot, restarted));
        Ok(())
    }

    fn stop_server(&mut self, slot: usize, fault: Fault) -> Checked {
        let Some(server) = self.server_slots[slot].take() else { return Ok(()) };
        self.world.scene.faults.count(fault);
        let restarted = if fault == Fault::Crash {
            self.servers[server].crashed = true;
            self.crash(NodeId::Server(server), server)?
        } else {
            self.schedule_now(EngineRunEvent::Server(server, ServerAct::Leave(fault)))?;
            None
        };
        let delay = self.rng.grains(0..800);
        self.world.scene.schedule_after(delay, EngineRunEvent::StartServer(slot, restarted));
        Ok(())
    }

    /// Crashes a node. Returns its index if its replacement gets the same id.
    fn crash(&mut self, node: NodeId, index: usize) -> Result<Option<usize>, Violation> {
        self.world.scene.log(node, "crashes");
        self.world.net.end_all(node.peer());
        let lost = self.world.model.open_calls(node);
        self.world.count("client crashed", lost);
        self.world.note(Fact::Crashed(node))?;
        let restarted = self.rng.maybe(500, |_| index);
        if restarted.is_some() {
            self.world.scene.faults.count(Fault::Restart);
        }
        Ok(restarted)
    }

    fn pause(&mut self, duration: Duration) {
        let Some(node) = self.any_node() else { return };
        let scene = &mut self.world.scene;
        scene.faults.count(Fault::Pause);
        scene.log(node, format_args!("pauses for {duration:?}"));
        let until = scene.now() + duration;
        match node {
            NodeId::Client(client) => self.clients[client].pause(until),
            NodeId::Server(server) => self.servers[server].pause(until),
        }
        self.world.model.note(Fact::Paused { node, until }).expect("a pause violates no invariant");
    }

    // --- without faults --------------------------------------------------------------------------

    /// Stops the faults. Closes all streams, since nothing else may ever end some of them.
    fn stop_faults(&mut self) -> Checked {
        let scene = &mut self.world.scene;
        scene.log("run", "faults stop");
        scene.faults.stop();
        self.world.net.mend();
        for client in 0..self.clients.len() {
            self.schedule_now(EngineRunEvent::Client(client, ClientAct::CloseStreams))?;
        }
        for server in 0..self.servers.len() {
            self.schedule_now(EngineRunEvent::Server(server, ServerAct::CloseStreams))?;
        }
        Ok(())
    }

    /// Makes every client call every served method, and a server publish updates.
    fn probe(&mut self) -> Checked {
        self.world.note(Fact::Calm)?;
        let methods = Rc::clone(&self.world.methods);
        let is_alive = |server: &&EngineNode<Server, ServerUser>| !server.crashed;
        let mut probes = Vec::new();
        for route in methods.served(true) {
            let servers =
                self.servers.iter().filter(is_alive).filter(|server| server.user.serves(&route)).count();
            if servers > 0 {
                probes.push(Probe { route, servers });
            }
        }
        for client in self.client_slots.clone().into_iter().flatten() {
            self.client_act(client, ClientAct::Probe(probes.clone()))?;
        }
        let Some(server) = self.server_slots[0] else { return Ok(()) };
        for route in 0..methods.updates.len() {
            let is_subscribed = |(_, client): &(usize, &EngineNode<Client, ClientUser>)| {
                !client.crashed && client.user.is_subscribed(route)
            };
            let subscribers = self
                .clients
                .iter()
                .enumerate()
                .filter(is_subscribed)
                .map(|(client, _)| NodeId::Client(client));
            let subscribers = subscribers.collect();
            self.server_act(server, ServerAct::Publish(route, Some(subscribers)))?;
        }
        Ok(())
    }

    /// Drains one server, but not the only one that serves single-server methods.
    fn shut_down_one_server(&mut self) -> Checked {
        // Only a server whose drain timeout lets the bus confirm the end of the subscriptions.
        let waits = |slot: &usize| self.plan.servers[*slot].config.drain_timeout >= Duration::from_secs(1);
        let slot = (1..self.server_slots.len()).find(waits);
        match slot.and_then(|slot| self.server_slots[slot]) {
            Some(server) => self.server_act(server, ServerAct::Leave(Fault::Drain)),
            None => Ok(()),
        }
    }

    /// Makes a client call a method that other servers continue to serve.
    fn call_during_shutdown(&mut self) -> Checked {
        let methods = Rc::clone(&self.world.methods);
        let route = self.rng.pick(&methods.calls[..2]);
        let still_serves = |server: &usize| self.servers[*server].user.serves(&route);
        let (Some(client), Some(_)) = (self.client_slots[0], self.server_slots[0].filter(still_serves))
        else {
            return Ok(());
        };
        self.client_act(client, ClientAct::Probe(vec![Probe { route, servers: 1 }]))
    }

    fn report(self, seed: u64, result: Checked) -> Report {
        let EngineWorld { mut scene, model, outcomes, .. } = self.world;
        Report {
            seed,
            calls: model.calls() as u64,
            fresh_calls: model.fresh_calls() as u64,
            faults: scene.faults.counts(),
            trace_hash: scene.hash().value(),
            outcomes,
            violation: result.err(),
        }
    }
}
