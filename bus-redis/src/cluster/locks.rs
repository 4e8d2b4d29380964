//! The task that acquires locks in a cluster, each at the master of its slot.
//!
//! Locks have a queue of their own, so that a master that does not answer delays no published
//! frame. One batch is in flight at a time, and its results are reported in the order of the queue.
//! `MOVED` and `ASK` are followed, and a slot without a master is tried again, a few times.

use std::collections::{BTreeMap, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use psrpc::bus::WakeList;
use psrpc::{BusError, Time};
use redis::aio::{MultiplexedConnection, SendError};
use redis::{
    ConnectionAddr, ErrorKind, Pipeline, PushInfo, PushKind, RedisError, RedisResult, ServerErrorKind, Value,
};

use super::slots::{self, Node, Slots};
use crate::command::{Command, Commands, LockFrame};
use crate::connection::{self, Failure};
use crate::connector::Connector;
use crate::dial::{Login, Session};
use crate::error::ConnectError;
use crate::queue::{Next, Sizes};
use crate::{cause, lock};

/// The maximum number of times that a lock is sent.
const ATTEMPTS: usize = 5;

/// The delay before locks are sent again because a slot has no master at the moment.
const DELAY: Duration = Duration::from_millis(100);

/// The maximum time between the arrival of a frame and the sending of its lock. Since locks live
/// for 5 s, a lock acquired later could take a frame a second time.
const LATEST: Duration = Duration::from_secs(2);

/// The timeout for connecting to a master, and for its reply. A batch waits for its slowest master,
/// and a lock may wait for the batch before its own, so the timeout is half of [`LATEST`].
const TIMEOUT: Duration = Duration::from_secs(1);

const TOO_LATE: &str = "the lock could not be sent in time";

pub(crate) struct ClusterLocks {
    commands: Arc<Commands>,
    nodes: BTreeMap<Node, NodeState>,
    /// Stops the bus if this task ends early.
    stop: Box<dyn Fn(&BusError) + Send>,
    ended: bool,
}

enum NodeState {
    Up {
        session: Session,
        /// Whether the server has closed the connection.
        has_ended: Arc<AtomicBool>,
    },
    /// The last attempt to connect failed, or the connection was lost. The bus does not connect
    /// again before `until`.
    Down { until: Time, cause: BusError },
}

/// A lock that has no result yet.
struct Attempt {
    /// Its place in the batch.
    place: usize,
    key: String,
    received: Time,
    /// The node to which the lock was redirected, if any.
    redirect: Option<Redirect>,
}

struct Redirect {
    node: Node,
    /// The node takes the lock only after `ASKING`.
    asking: bool,
}

impl Drop for ClusterLocks {
    /// Stops the bus if its runtime dropped the task or the task panicked.
    fn drop(&mut self) {
        if !self.ended {
            (self.stop)(&connection::task_ended());
        }
    }
}

/// The outcome of one attempt to acquire a lock.
enum Outcome {
    Done(Result<Value, Failure>),
    Moved(Redirect),
    Later,
}

impl ClusterLocks {
    pub(crate) fn new(commands: Arc<Commands>, stop: impl Fn(&BusError) + Send + 'static) -> Self {
        Self { commands, nodes: BTreeMap::new(), stop: Box::new(stop), ended: false }
    }

    /// Acquires the locks in the queue until it is closed and empty.
    pub(crate) async fn run(mut self) {
        let queue = Arc::clone(&self.commands.locks);
        // Nothing but closing ends this queue: it has no connection of its own.
        while let Next::Send(batch) = poll_fn(|cx| queue.poll_next(false, cx)).await {
            self.complete(batch).await;
        }
        self.ended = true;
        self.commands.queue.close(&mut WakeList::new());
    }

    async fn complete(&mut self, batch: VecDeque<Command>) {
        let attempts = batch.iter().enumerate().filter_map(|(place, command)| match command {
            Command::Lock(LockFrame { key, received, .. }) => {
                Some(Attempt { place, key: key.clone(), received: *received, redirect: None })
            }
            _ => None,
        });
        let attempts: Vec<_> = attempts.collect();
        let results = self.acquire(attempts, batch.len()).await;
        let mut sizes = Sizes::default();
        for (command, result) in batch.into_iter().zip(results) {
            sizes.add(&command);
            self.commands.complete(command, result);
        }
        self.commands.locks.release(sizes, &mut WakeList::new());
    }

    /// Returns a result for each place in a batch: `Nil` for commands that are not locks.
    async fn acquire(&mut self, mut attempts: Vec<Attempt>, places: usize) -> Vec<Result<Value, Failure>> {
        let mut results: Vec<_> = (0..places).map(|_| Ok(Value::Nil)).collect();
        let mut count = 0;
        while !attempts.is_empty() {
            count += 1;
            attempts = self.attempt(attempts, count >= ATTEMPTS, &mut results).await;
        }
        results
    }

    /// Sends each lock once. Returns those that must be sent again.
    async fn attempt(
        &mut self,
        attempts: Vec<Attempt>,
        is_last: bool,
        results: &mut [Result<Value, Failure>],
    ) -> Vec<Attempt> {
        let mut again = Vec::new();
        let (mut is_outdated, mut must_wait) = (false, false);
        let mut connected = Vec::new();
        let by_node = self.by_node(attempts);
        let failed = self.connect(by_node.keys()).await;
        for (node, attempts) in by_node {
            match self.connection(&node) {
                Ok(connection) => connected.push((node, connection, attempts)),
                // Another node may serve the slots by now.
                Err(_) if !is_last && failed.contains(&node) => {
                    is_outdated = true;
                    again.extend(attempts);
                }
                Err(cause) => {
                    let failed = || Err(Failure::Refused(cause.clone()));
                    attempts.into_iter().for_each(|attempt| results[attempt.place] = failed());
                }
            }
        }
        let now = self.connector().runtime.now().time;
        let mut sending = Vec::new();
        for (node, connection, attempts) in connected {
            let attempts = refuse_late(&node, attempts, now, results);
            if !attempts.is_empty() {
                sending.push(send(node, connection, attempts));
            }
        }
        for Sent { node, attempts, replies } in all(sending).await {
            let replies = match replies {
                Ok(replies) => replies,
                Err(error) => {
                    is_outdated = true;
                    let cause = self.down(&node, cause::of(&error, None));
                    // The node may have set the keys, so they are not sent again.
                    for attempt in attempts {
                        results[attempt.place] = Err(Failure::Refused(cause.clone()));
                    }
                    continue;
                }
            };
            for (mut attempt, reply) in attempts.into_iter().zip(replies) {
                match outcome(&node, reply, is_last) {
                    Outcome::Done(result) => results[attempt.place] = result,
                    Outcome::Moved(redirect) => {
                        is_outdated |= !redirect.asking;
                        attempt.redirect = Some(redirect);
                        again.push(attempt);
                    }
                    Outcome::Later => {
                        (is_outdated, must_wait) = (true, true);
                        again.push(attempt);
                    }
                }
            }
        }
        if must_wait {
            self.connector().sleep(DELAY).await;
        }
        if is_outdated {
            self.refresh().await;
        }
        again
    }

    fn connector(&self) -> &Arc<Connector> {
        &self.commands.connector
    }

    /// Sorts locks by the nodes that they are sent to.
    fn by_node(&self, attempts: Vec<Attempt>) -> BTreeMap<Node, Vec<Attempt>> {
        let (slots, addresses) = (self.connector().slots(), self.connector().addresses());
        let mut by_node = BTreeMap::<_, Vec<_>>::new();
        for attempt in attempts {
            let master = || slots.master(slots::of_key(&attempt.key)).cloned();
            // Any node knows where a key belongs.
            let any = || addresses.first().and_then(node_of).unwrap_or_default();
            let redirected = attempt.redirect.as_ref().map(|redirect| redirect.node.clone());
            let node = redirected.or_else(master).unwrap_or_else(any);
            by_node.entry(node).or_default().push(attempt);
        }
        by_node
    }

    /// Connects to those nodes that are not connected, all at the same time. Returns the nodes that
    /// failed.
    async fn connect(&mut self, nodes: impl Iterator<Item = &Node>) -> Vec<Node> {
        let now = self.connector().runtime.now().time;
        let must_dial = |node: &&Node| match self.nodes.get(node) {
            Some(NodeState::Up { has_ended, .. }) => has_ended.load(Ordering::Relaxed),
            Some(NodeState::Down { until, .. }) => *until <= now,
            None => true,
        };
        let dial = |node: &Node| dial(Arc::clone(self.connector()), node.clone());
        let dialing: Vec<_> = nodes.filter(must_dial).map(dial).collect();
        let mut failed = Vec::new();
        for (node, dialed) in all(dialing).await {
            match dialed {
                Ok(up) => _ = self.nodes.insert(node, up),
                Err(error) => {
                    self.set_down(&node, BusError::new(error));
                    failed.push(node);
                }
            }
        }
        failed
    }

    /// Returns the connection to a node that was passed to [`connect`](Self::connect), or the
    /// reason why there is none.
    fn connection(&self, node: &Node) -> Result<MultiplexedConnection, BusError> {
        match &self.nodes[node] {
            NodeState::Up { session, .. } => Ok(session.connection.clone()),
            NodeState::Down { cause, .. } => Err(cause.clone()),
        }
    }

    /// Gives up the connection to a node. Returns the error, which names the node.
    fn down(&mut self, node: &Node, cause: String) -> BusError {
        let cause = error(node, cause);
        self.set_down(node, cause.clone());
        cause
    }

    fn set_down(&mut self, node: &Node, cause: BusError) {
        let connector = self.connector();
        let until = connector.runtime.now().time + connector.options.reconnect_delay;
        self.nodes.insert(node.clone(), NodeState::Down { until, cause });
    }

    /// Asks a node which slots the nodes serve, and closes connections to nodes that serve none.
    async fn refresh(&mut self) {
        let connector = Arc::clone(self.connector());
        for address in connector.addresses() {
            let Some(node) = node_of(&address) else { continue };
            self.connect([&node].into_iter()).await;
            let Some(NodeState::Up { session, .. }) = self.nodes.get_mut(&node) else { continue };
            match Slots::ask(session).await {
                Ok(Some(slots)) => {
                    self.nodes
                        .retain(|(host, port), _| slots.nodes().any(|node| node == (host.as_str(), *port)));
                    return connector.learn(slots);
                }
                Ok(None) => {}
                Err(failure) => _ = self.down(&node, cause::of(&failure, None)),
            }
        }
    }
}

/// Connects to a node.
async fn dial(connector: Arc<Connector>, node: Node) -> (Node, Result<NodeState, ConnectError>) {
    let has_ended = Arc::<AtomicBool>::default();
    let config = connector.config();
    let config =
        config.set_response_timeout(Some(TIMEOUT.min(connector.options.response_timeout))).set_push_sender({
            let has_ended = Arc::clone(&has_ended);
            move |info: PushInfo| {
                has_ended.fetch_or(info.kind == PushKind::Disconnection, Ordering::Relaxed);
                Ok::<_, SendError>(())
            }
        });
    let address = ConnectionAddr::Tcp(node.0.clone(), node.1);
    let dialed = connector.within(TIMEOUT, connector.dial(&address, Login::Server, &config)).await;
    let dialed = dialed.unwrap_or_else(|| {
        Err(ConnectError::Server { server: name(&node), cause: "the server did not reply in time".into() })
    });
    (node, dialed.map(|session| NodeState::Up { session, has_ended }))
}

/// Refuses the locks that are too late to be sent, and returns the others.
fn refuse_late(
    node: &Node,
    attempts: Vec<Attempt>,
    now: Time,
    results: &mut [Result<Value, Failure>],
) -> Vec<Attempt> {
    let is_in_time = |attempt: &Attempt| now <= attempt.received + LATEST;
    let (attempts, late): (Vec<_>, Vec<_>) = attempts.into_iter().partition(is_in_time);
    for attempt in late {
        results[attempt.place] = Err(Failure::Refused(error(node, TOO_LATE)));
    }
    attempts
}

/// Locks that were sent to a node.
struct Sent {
    node: Node,
    attempts: Vec<Attempt>,
    /// A reply for each.
    replies: RedisResult<Vec<Value>>,
}

/// Sends locks to a node.
async fn send(node: Node, mut connection: MultiplexedConnection, attempts: Vec<Attempt>) -> Sent {
    let is_asking = |attempt: &Attempt| attempt.redirect.as_ref().is_some_and(|redirect| redirect.asking);
    let mut pipeline = Pipeline::with_capacity(attempts.len());
    for attempt in &attempts {
        if is_asking(attempt) {
            pipeline.add_command(redis::cmd("ASKING"));
        }
        pipeline.add_command(lock::acquire(&attempt.key));
    }
    let replies = connection.send_packed_commands(&pipeline, 0, pipeline.len()).await;
    let replies = replies.map(|replies| {
        let mut replies = replies.into_iter();
        let mut reply = |attempt| {
            if is_asking(attempt) {
                replies.next();
            }
            replies.next().unwrap_or_default()
        };
        attempts.iter().map(&mut reply).collect()
    });
    Sent { node, attempts, replies }
}

/// Judges the reply of a node to a lock.
fn outcome(node: &Node, reply: Value, is_last: bool) -> Outcome {
    let error = match reply.extract_error() {
        Ok(reply) => return Outcome::Done(Ok(reply)),
        Err(error) => error,
    };
    let refused = |failure: &RedisError| {
        Outcome::Done(Err(Failure::Refused(self::error(node, cause::of(failure, None)))))
    };
    match error.kind() {
        _ if is_last => refused(&error),
        ErrorKind::Server(kind @ (ServerErrorKind::Moved | ServerErrorKind::Ask)) => {
            let asking = kind == ServerErrorKind::Ask;
            let redirect = error.redirect_node().and_then(|(address, _)| redirected(address, node));
            redirect.map_or_else(|| refused(&error), |node| Outcome::Moved(Redirect { node, asking }))
        }
        ErrorKind::Server(ServerErrorKind::TryAgain | ServerErrorKind::ClusterDown) => Outcome::Later,
        _ => refused(&error),
    }
}

/// Parses the address in a redirection. An empty host means the host of the node that replied.
fn redirected(address: &str, asked: &Node) -> Option<Node> {
    let (host, port) = address.rsplit_once(':')?;
    let host = if host.is_empty() { &asked.0 } else { host };
    Some((host.to_owned(), port.parse().ok()?))
}

fn node_of(address: &ConnectionAddr) -> Option<Node> {
    match address {
        ConnectionAddr::Tcp(host, port) => Some((host.clone(), *port)),
        _ => None,
    }
}

fn error(node: &Node, cause: impl Into<String>) -> BusError {
    BusError::new(ConnectError::Server { server: name(node), cause: cause.into() })
}

fn name((host, port): &Node) -> String {
    format!("{host}:{port}")
}

/// Runs futures at the same time and returns their results.
async fn all<T>(futures: Vec<impl Future<Output = T>>) -> Vec<T> {
    let mut running: Vec<_> = futures.into_iter().map(|future| Some(Box::pin(future))).collect();
    let mut results = Vec::with_capacity(running.len());
    poll_fn(|cx| {
        for slot in &mut running {
            if let Some(future) = slot
                && let Poll::Ready(result) = Pin::as_mut(future).poll(cx)
            {
                results.push(result);
                *slot = None;
            }
        }
        if running.iter().all(Option::is_none) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    results
}
