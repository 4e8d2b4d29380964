//! A run of the driver: real clients and servers, under every fault of the bus and the nodes.

use std::sync::Arc;
use std::time::Duration;

use super::ledger_context::SimulatedRun;
use super::node::{Job, Node};
use super::nodes::{ClientNode, ServerNode};
use super::service_plan::{ClientPlan, ServerPlan, ServiceAct, ServicePlan, Stop};
use super::world::World;
use crate::clock::Clock;
use crate::fault::Fault;
use crate::judge::services::ledger::Ledger;
use crate::judge::violation::{Checked, Invariant};
use crate::report::Report;
use crate::rng::Rng;
use crate::trace::Show;

/// The time after the end of the faults by which calls are over, streams without a peer have hit
/// their idle timeout, and registrations that the bus ended are gone.
const SETTLE: Duration = Duration::from_secs(8);

/// The time after which the last frames of a replaced client or server have arrived.
const REPLACEMENT_TIME: Duration = Duration::from_secs(1);

/// The time after the last call by which every table must be empty. It is longer than the latest
/// frame and the idle timeout.
const UNTIL_EMPTY: Duration = Duration::from_secs(15);

/// The limit for all futures of a run together, in virtual time.
const LIMIT: Duration = Duration::from_secs(120);

/// Runs one seed of the driver. Each line of the trace goes to `show`, if there is one.
pub fn simulate_driver(seed: u64, show: Option<Show>) -> Report {
    Report::catch_panic(seed, || {
        let world = World::make(seed, show);
        let run = DriverRun::new(&world, seed);
        let ledger = run.ledger.clone();
        if let Err(stuck) = world.try_run(LIMIT, run.play()) {
            ledger.judge(Invariant::I1.violated(format!("a future did not resolve: {stuck}")));
        }
        if ledger.violation().is_none() {
            ledger.judge(check_empty(&world));
        }
        let (calls, fresh_calls) = ledger.calls();
        Report {
            seed,
            calls,
            fresh_calls,
            outcomes: ledger.outcomes(),
            faults: world.fault_counts(),
            trace_hash: world.trace_hash(),
            violation: ledger.violation(),
        }
    })
}

/// Checks that nothing is left after everything was closed and dropped (I9).
fn check_empty(world: &World) -> Checked {
    let settled = world.settle(LIMIT);
    match (world.tasks(), world.subscriptions()) {
        (0, 0) if settled => Ok(()),
        (tasks, subscriptions) => {
            Invariant::I9.violated(format!("{tasks} tasks and {subscriptions} subscriptions are left"))
        }
    }
}

/// The state of a run.
struct DriverRun<'a> {
    world: &'a World,
    ledger: Ledger,
    context: Arc<SimulatedRun>,
    plan: ServicePlan,
    clients: Vec<ClientNode>,
    servers: Vec<ServerNode>,
    /// The tasks of users, which must complete.
    acts: Vec<Job<()>>,
    rng: Rng,
}

impl<'a> DriverRun<'a> {
    fn new(world: &'a World, seed: u64) -> Self {
        // Separate from the generator of the world, so that the plan does not depend on its draws.
        let mut rng = Rng::new(!seed);
        let plan = ServicePlan::draw(&mut rng);
        let context = Arc::new(SimulatedRun::new(world.shared().clone()));
        let ledger = Ledger::new(context.clone());
        let tap = ledger.clone();
        world.tap(move |frame| tap.frame_published(frame));
        if plan.faulty {
            world.set_random_rates();
        }
        let place = |name: String, clock: Clock| {
            let of_clock = [(clock.is_skewed(), Fault::Skew), (clock.drift != 0, Fault::Drift)];
            of_clock.iter().filter(|(wrong, _)| *wrong).for_each(|(_, fault)| ledger.count(*fault));
            world.node_with(name, clock)
        };
        let client = |(number, client): (usize, &ClientPlan)| {
            ClientNode::new(place(format!("client-{number}"), client.clock), client.clone(), ledger.clone())
        };
        let server = |(number, server): (usize, &ServerPlan)| {
            let node = place(format!("server-{number}"), server.clock);
            ServerNode::new(node, server.clone(), number == 0, ledger.clone())
        };
        let clients = plan.clients.iter().enumerate().map(client).collect();
        let servers = plan.servers.iter().enumerate().map(server).collect();
        Self { world, ledger, context, plan, clients, servers, acts: Vec::new(), rng }
    }

    async fn play(mut self) {
        self.clients.iter().for_each(|client| drop(client.start(Duration::ZERO)));
        self.servers.iter().for_each(|server| drop(server.start(Duration::ZERO, None)));
        for (at, act) in std::mem::take(&mut self.plan.acts) {
            self.world.sleep(at.saturating_sub(self.world.elapsed())).await;
            self.act(act);
        }
        self.stop_faults().await;
        self.probe().await;
        self.servers.iter().for_each(ServerNode::stop_publishing);
        for act in std::mem::take(&mut self.acts) {
            act.await;
        }
        self.world.sleep(UNTIL_EMPTY).await;
        self.ledger.check_streams();
        self.clients.iter().for_each(|client| self.ledger.judge(client.check_idle()));
        self.servers.iter().for_each(|server| self.ledger.judge(server.check_idle()));
        for client in &self.clients {
            client.leave(&mut self.rng).await;
        }
        for server in &self.servers {
            if let Some(stopped) = server.stop(Stop::Shutdown) {
                stopped.await;
            }
        }
    }

    // --- under faults ----------------------------------------------------------------------------

    fn act(&mut self, act: ServiceAct) {
        self.world.shared().lock().scene.log("plan", format_args!("{act:?}"));
        let rng = &mut self.rng;
        match act {
            ServiceAct::Use(client) => self.acts.extend(self.clients[client].act(rng.fork())),
            ServiceAct::CloseClient(client) => {
                self.ledger.count(Fault::Close);
                self.clients[client].close();
                drop(self.clients[client].start(Duration::ZERO));
            }
            ServiceAct::EndRuntimeOfClient(client) => {
                self.clients[client].end_runtime();
                drop(self.clients[client].start(Duration::ZERO));
            }
            ServiceAct::CrashClient(client) => {
                self.clients[client].crash();
                drop(self.clients[client].start(rng.grains(0..400)));
            }
            ServiceAct::StopServer(server, stop) => {
                let after = rng.grains(0..400);
                let id = self.servers[server].id().filter(|_| stop == Stop::Crash && rng.chance(500));
                id.iter().for_each(|_| self.ledger.count(Fault::Restart));
                self.acts.extend(self.servers[server].stop(stop));
                drop(self.servers[server].start(after, id));
            }
            ServiceAct::Pause(node, duration) => {
                self.context.node_paused(self.node(node).number(), self.ledger.now() + duration);
                self.node(node).pause(duration);
            }
            ServiceAct::Slow(node, step) => {
                self.context.node_slowed(self.node(node).number(), step);
                self.node(node).slow(step);
            }
            ServiceAct::Jump(node, ahead, duration) => match ahead {
                true => self.node(node).jump_ahead(duration),
                false => self.node(node).jump_back(duration),
            },
            ServiceAct::Clog(node, duration) => self.node(node).clog(duration),
            ServiceAct::Part { both_ways, at } => {
                let nodes: Vec<_> = self.nodes().collect();
                let (some, others) = nodes.split_at(1 + at % (nodes.len() - 1));
                match both_ways {
                    true => self.world.partition(some, others),
                    false => self.world.cut(others, some),
                }
            }
            ServiceAct::Mend => self.world.mend(),
        }
    }

    fn nodes(&self) -> impl Iterator<Item = &Node> {
        let servers = self.servers.iter().map(|server| &server.node);
        self.clients.iter().map(|client| &client.node).chain(servers)
    }

    fn node(&self, number: usize) -> &Node {
        let mut nodes: Vec<_> = self.nodes().collect();
        nodes.swap_remove(number % nodes.len())
    }

    // --- without faults --------------------------------------------------------------------------

    /// Stops the faults, undoes the jumps of the clocks, and replaces clients and servers that were
    /// closed or that the bus disconnected.
    async fn stop_faults(&self) {
        self.world.stop_faults();
        self.world.mend();
        for node in self.nodes() {
            self.context.node_slowed(node.number(), Duration::ZERO);
            node.slow(Duration::ZERO);
            node.undo_jumps();
        }
        self.world.sleep(SETTLE).await;
        for client in &self.clients {
            client.repair().await;
        }
        for server in &self.servers {
            server.repair().await;
        }
        self.world.sleep(REPLACEMENT_TIME).await;
        self.ledger.faults_stopped();
    }

    /// Makes every client make a fresh call of each kind. All must succeed (I16).
    async fn probe(&mut self) {
        let servers = self.servers.len();
        let probes: Vec<_> =
            self.clients.iter().filter_map(|client| client.probe(self.rng.fork(), servers)).collect();
        for probe in probes {
            probe.await;
        }
    }
}
