//! The nodes of a run. Each runs a sequence of clients or servers that replace each other.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use psrpc::middleware::Retry;
use psrpc::{
    AnyMessage, ClientOptions, ErrorCode, Method, NextHandler, Reason, Request, Runtime, ServerOptions,
};
use psrpc_testing::StoppableRuntime;

use super::caller::{Caller, OWNER};
use super::handlers::Handlers;
use super::hats::{HATS_SERVICE, HatsClient, HatsServer, Reply};
use super::node::{Job, Node};
use super::service_plan::{ClientPlan, ServerPlan, Stop};
use crate::fault::Fault;
use crate::judge::services::ledger::Ledger;
use crate::judge::violation::{Checked, Invariant};
use crate::rng::{GRAIN, Rng};

/// The idle timeout of streams. Without it, a stream whose peer crashed would stay forever.
const IDLE: Duration = Duration::from_secs(5);

/// The delay before a refused operation is tried again.
const RETRY_DELAY: Duration = Duration::from_millis(50);

/// The node of a client.
pub(super) struct ClientNode {
    pub(super) node: Node,
    plan: ClientPlan,
    ledger: Ledger,
    current: Current<Caller>,
}

/// The node of a server.
pub(super) struct ServerNode {
    pub(super) node: Node,
    plan: ServerPlan,
    /// Whether it serves the single-server methods.
    owner: bool,
    ledger: Ledger,
    current: Current<RunningServer>,
}

/// The server that runs on a node.
#[derive(Clone)]
struct RunningServer {
    number: usize,
    server: Arc<HatsServer>,
    runtime: StoppableRuntime,
    publishes: bool,
}

/// The client or server that runs on a node, if any.
struct Current<T>(Arc<Mutex<Option<T>>>);

impl<T> Clone for Current<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Clone> Current<T> {
    fn lock(&self) -> MutexGuard<'_, Option<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self) -> Option<T> {
        self.lock().clone()
    }

    /// Takes the value. The caller drops it without the lock, since the drop may have side effects.
    fn take(&self) -> Option<T> {
        self.lock().take()
    }

    fn put(&self, value: T) {
        let before = self.lock().replace(value);
        drop(before);
    }
}

impl ClientNode {
    pub(super) fn new(node: Node, plan: ClientPlan, ledger: Ledger) -> Self {
        Self { node, plan, ledger, current: Current(Arc::default()) }
    }

    /// Starts a client after a delay.
    pub(super) fn start(&self, after: Duration) -> Job<()> {
        let (node, clock, ledger, current) =
            (self.node.clone(), self.plan.clock, self.ledger.clone(), self.current.clone());
        let options = self.plan.options();
        self.node.spawn(async move {
            sleep(&node, after).await;
            loop {
                let runtime = StoppableRuntime::new(node.runtime());
                match HatsClient::with_runtime(node.bus(), runtime.clone(), options.clone()).await {
                    Ok(client) => {
                        let number = ledger.new_client();
                        return current.put(Caller { client, runtime, number, node, clock, ledger });
                    }
                    Err(_) => sleep(&node, RETRY_DELAY).await,
                }
            }
        })
    }

    /// Lets the user of the client act, if there is a client.
    pub(super) fn act(&self, rng: Rng) -> Option<Job<()>> {
        Some(self.node.spawn(self.current.get()?.act(rng)))
    }

    pub(super) fn probe(&self, rng: Rng, servers: usize) -> Option<Job<()>> {
        Some(self.node.spawn(self.current.get()?.probe(rng, servers)))
    }

    pub(super) fn close(&self) {
        if let Some(Caller { client, number, .. }) = self.current.take() {
            self.ledger.client_closed(number);
            client.close();
        }
    }

    /// Stops the runtime of the client. Pending futures of users must resolve, as when the client
    /// is closed (I1).
    pub(super) fn end_runtime(&self) {
        if let Some(Caller { runtime, number, .. }) = self.current.take() {
            self.ledger.count(Fault::RuntimeEnd);
            self.ledger.client_closed(number);
            runtime.stop();
        }
    }

    pub(super) fn crash(&self) {
        self.node.crash();
        drop(self.current.take());
    }

    /// Replaces the client if the bus has disconnected it.
    pub(super) async fn repair(&self) {
        let subscribed = match self.current.get() {
            Some(caller) => {
                self.node.spawn(async move { caller.client.subscribe_news().await.is_ok() }).await
            }
            None => None,
        };
        if subscribed != Some(true) {
            self.start(Duration::ZERO).await;
        }
    }

    /// Checks that the client has no calls and no streams (I9).
    pub(super) fn check_idle(&self) -> Checked {
        let Some(Caller { client, number, .. }) = self.current.get() else { return Ok(()) };
        match (client.client().in_flight(), client.client().streams()) {
            (0, 0) => Ok(()),
            (calls, streams) => Invariant::I9
                .violated(format!("client {number} has {calls} calls and {streams} streams left")),
        }
    }

    /// Closes, shuts down or drops the client.
    pub(super) async fn leave(&self, rng: &mut Rng) {
        let Some(Caller { client, .. }) = self.current.take() else { return };
        match rng.below(3) {
            0 => client.close(),
            1 => client.shutdown().await,
            _ => {}
        }
    }
}

impl ServerNode {
    pub(super) fn new(node: Node, plan: ServerPlan, owner: bool, ledger: Ledger) -> Self {
        Self { node, plan, owner, ledger, current: Current(Arc::default()) }
    }

    /// Starts a server after a delay, with the given id or a new one, and publishes updates from
    /// it.
    pub(super) fn start(&self, after: Duration, mut id: Option<String>) -> Job<()> {
        let (node, owner, ledger, current) =
            (self.node.clone(), self.owner, self.ledger.clone(), self.current.clone());
        let (options, affinity) = (self.plan.options(), self.plan.affinity);
        self.node.spawn(async move {
            sleep(&node, after).await;
            let (number, server, runtime) = loop {
                let runtime = StoppableRuntime::new(node.runtime());
                let (number, id) = ledger.new_server(node.number(), id.take());
                let handlers = Handlers {
                    server: number,
                    affinity,
                    runtime: Arc::new(node.runtime()),
                    ledger: ledger.clone(),
                };
                let options = options.clone().id(id);
                match HatsServer::with_runtime(node.bus(), runtime.clone(), handlers, options).await {
                    Ok(server) => break (number, Arc::new(server), runtime),
                    Err(_) => sleep(&node, RETRY_DELAY).await,
                }
            };
            current.put(RunningServer { number, server: Arc::clone(&server), runtime, publishes: true });
            // Stops retrying if the server was closed meanwhile.
            while owner && server.register_own_fit_topic(OWNER).await.is_err_and(|error| !has_ended(&error)) {
                sleep(&node, RETRY_DELAY).await;
            }
            drop(server);
            let publishing = publish(node.clone(), current, number, ledger);
            node.runtime().spawn(Box::pin(publishing));
        })
    }

    /// Stops the server, if there is one. Returns a job that waits for its shutdown, unless the
    /// server is killed, dropped or crashed.
    pub(super) fn stop(&self, stop: Stop) -> Option<Job<()>> {
        if stop == Stop::Crash {
            self.ledger.node_crashes(self.node.number());
            self.node.crash();
            drop(self.current.take());
            return None;
        }
        let RunningServer { number, server, runtime, .. } = self.current.take()?;
        let (ledger, place, node) = (self.ledger.clone(), self.node.clone(), self.node.number());
        match stop {
            Stop::Shutdown => Some(self.node.spawn(async move {
                ledger.count(Fault::Drain);
                let start = ledger.now();
                server.shutdown().await;
                let ended = ledger.now();
                // Handlers that stop at the same moment are gone by then.
                sleep(&place, GRAIN).await;
                ledger.check_shutdown(number, node, start, ended);
            })),
            Stop::Kill => {
                ledger.count(Fault::Kill);
                ledger.server_died(number);
                server.kill();
                None
            }
            Stop::RuntimeEnd => {
                ledger.count(Fault::RuntimeEnd);
                ledger.server_died(number);
                runtime.stop();
                // The shutdown must resolve at once.
                Some(self.node.spawn(async move {
                    let start = ledger.now();
                    server.shutdown().await;
                    ledger.check_immediate_shutdown(number, node, start);
                }))
            }
            Stop::Drop | Stop::Crash => None,
        }
    }

    /// Renews the registrations that the bus has ended. Replaces the server if that fails.
    pub(super) async fn repair(&self) {
        let (open, owner) = (self.current.get(), self.owner);
        let repaired = match open {
            Some(RunningServer { server, .. }) => {
                let repairing =
                    async move { register_all(&server).await && (!owner || register_own(&server).await) };
                self.node.spawn(repairing).await
            }
            None => None,
        };
        if repaired != Some(true) {
            drop(self.current.take());
            self.start(Duration::ZERO, None).await;
        }
    }

    /// Returns the id of the server, if there is one.
    pub(super) fn id(&self) -> Option<String> {
        Some(self.current.get()?.server.server().id().to_owned())
    }

    /// Stops publishing updates.
    pub(super) fn stop_publishing(&self) {
        if let Some(open) = &mut *self.current.lock() {
            open.publishes = false;
        }
    }

    /// Checks that the server has no calls and no streams (I9).
    pub(super) fn check_idle(&self) -> Checked {
        let Some(RunningServer { server, number, .. }) = self.current.get() else { return Ok(()) };
        match (server.server().in_flight(), server.server().streams()) {
            (0, 0) => Ok(()),
            (calls, streams) => Invariant::I9
                .violated(format!("server {number} has {calls} calls and {streams} streams left")),
        }
    }
}

/// Publishes updates at intervals, as long as this server runs.
async fn publish(node: Node, current: Current<RunningServer>, server: usize, ledger: Ledger) {
    loop {
        sleep(&node, 2 * RETRY_DELAY).await;
        let Some(open) = current.get().filter(|open| open.number == server && open.publishes) else { return };
        let calm = ledger.is_calm();
        let update = Reply { number: 0, server: server as u64 };
        let published = open.server.publish_news(&update).await;
        if let (true, Err(error)) = (calm, published) {
            ledger.judge(Invariant::I16.violated(format!("a fresh update was not published: {error}")));
        }
    }
}

/// Returns `true` if the server has ended, so that it registers nothing any more.
fn has_ended(error: &psrpc::Error) -> bool {
    *error.code() == ErrorCode::Canceled || error.reason() == Some(Reason::RuntimeEnded)
}

/// Registers all methods without topics. Returns `true` on success.
async fn register_all(server: &HatsServer) -> bool {
    let is_served =
        |method: &&Method| ["Fit", "Pick", "Census", "Parade", "PickParade"].contains(&method.name);
    let methods: Vec<_> = HATS_SERVICE.methods.iter().filter(is_served).collect();
    is_registered(server.server().register(&methods, &[]).await)
}

/// Registers the single-server method. Returns `true` on success.
async fn register_own(server: &HatsServer) -> bool {
    is_registered(server.register_own_fit_topic(OWNER).await)
}

fn is_registered(registered: Result<(), psrpc::Error>) -> bool {
    registered.map_or_else(|error| *error.code() == ErrorCode::AlreadyExists, |()| true)
}

async fn sleep(node: &Node, duration: Duration) {
    let runtime = node.runtime();
    runtime.sleep_until(runtime.now().time + duration).await;
}

impl ClientPlan {
    fn options(&self) -> ClientOptions {
        let options = ClientOptions::new()
            .skew_allowance(self.allowance)
            .stream_idle_timeout(IDLE)
            .unread_per_stream(self.room)
            .slow_consumer(self.slow_consumer);
        match self.intercepted {
            true => options.request_hook(|_, _| {}).interceptor(Retry::new().attempts(1)),
            false => options,
        }
    }
}

impl ServerPlan {
    fn options(&self) -> ServerOptions {
        let options = ServerOptions::new()
            .skew_allowance(self.allowance)
            .stream_idle_timeout(IDLE)
            .unread_per_stream(self.room)
            .slow_consumer(self.slow_consumer);
        match self.intercepted {
            true => options.interceptor(|request: Request<AnyMessage>, next: NextHandler| next.run(request)),
            false => options,
        }
    }
}
