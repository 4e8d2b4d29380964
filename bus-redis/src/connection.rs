//! The task that maintains a connection and sends queued operations in pipelines.
//!
//! Only one pipeline is in flight. Operations queued in the meantime go into the next one, so
//! replies arrive in the order of the operations. While the connection is down, queued operations
//! fail immediately. The task probes an established connection at an interval.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use psrpc::bus::WakeList;
use psrpc::{BusError, Task};
use redis::{Cmd, Pipeline, PushInfo, PushKind, Value};
use tokio::sync::oneshot;

use crate::check;
use crate::connector::Connector;
use crate::dial::Session;
use crate::error::ConnectError;
use crate::outage::{Outages, Side};
use crate::probe::Probe;
use crate::queue::{BATCH_BYTES, ConnectionQueue, Next, Operation, Sizes};

/// The role of a connection. Its methods are called without holding a lock.
pub(crate) trait ConnectionRole: Send + 'static {
    type Operation: Operation;

    const SIDE: Side;

    fn queue(&self) -> &Arc<ConnectionQueue<Self::Operation>>;

    /// Takes the next operation from the queue. Adds the operations that are ready to send to
    /// `ready` and holds back the rest.
    fn prepare(&mut self, operation: Self::Operation, ready: &mut VecDeque<Self::Operation>) {
        ready.push_back(operation);
    }

    /// Returns `true` if operations are held back. They are sent before the connection closes.
    fn holds_back(&self) -> bool {
        false
    }

    /// Removes and returns the operations that are held back.
    fn take_held_back(&mut self) -> Vec<Self::Operation> {
        Vec::new()
    }

    /// Returns the command to send, or `None` if the operation only keeps its place in the order.
    fn command(&self, operation: &mut Self::Operation) -> Option<Cmd>;

    /// Completes an operation with the reply of the server, or with the reason why it failed.
    fn complete(&self, operation: Self::Operation, reply: Result<Value, Failure>);

    /// Returns the handler for messages pushed by the server.
    fn receiver(&self) -> impl Fn(PushInfo) + Send + Sync + 'static {
        |_| {}
    }

    /// Called when a connection is established.
    fn on_connected(&self) {}

    /// Called when the connection is lost.
    fn on_lost(&self, _: &BusError) {}

    /// Called when the task ends because the queue was closed.
    fn on_ended(&self) {}
}

/// Why an operation failed.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// The server refused it.
    Refused(BusError),
    /// The connection was lost.
    Lost(BusError),
}

/// The next action of the task.
enum Step<O> {
    Queue(Next<O>),
    /// Probes the connection because the interval is over.
    Probe,
    /// Probes the connection because an outage was reported.
    Check,
    /// The time is up for the message that the bus sent to itself.
    MessageDue,
}

/// The timers of an established connection.
struct Timers {
    probe: Task,
    message: Option<Task>,
}

/// The state of the task that maintains a connection.
pub(crate) struct Connection<P: ConnectionRole> {
    pub(crate) role: P,
    connector: Arc<Connector>,
    outages: Arc<Outages>,
    probe: Arc<Probe>,
    /// Stops the bus if this task ends early.
    stop: Box<dyn Fn(&BusError) + Send>,
    /// Operations that can be sent.
    ready: VecDeque<P::Operation>,
    /// Operations sent to the server that it has not replied to.
    in_flight: VecDeque<P::Operation>,
    /// The number of failed attempts since the last connection that worked.
    failures: u32,
    ended: bool,
}

impl<P: ConnectionRole> Connection<P> {
    pub(crate) fn new(
        role: P,
        connector: Arc<Connector>,
        outages: Arc<Outages>,
        probe: Arc<Probe>,
        stop: impl Fn(&BusError) + Send + 'static,
    ) -> Self {
        let (ready, in_flight) = (VecDeque::new(), VecDeque::new());
        Self {
            role,
            connector,
            outages,
            probe,
            stop: Box::new(stop),
            ready,
            in_flight,
            failures: 0,
            ended: false,
        }
    }

    /// Maintains the connection until the queue is closed.
    ///
    /// Reports the first connection to `first`, or the first failure unless the bus waits for the
    /// server.
    pub(crate) async fn run(mut self, first: oneshot::Sender<Result<(), ConnectError>>) {
        let mut first = Some(first);
        while !self.role.queue().is_closed() {
            match self.connect().await {
                Ok(session) => {
                    self.role.queue().connected();
                    if let Some(first) = first.take() {
                        // If the receiver was dropped, the bus is closed.
                        let _ = first.send(Ok(()));
                    }
                    self.role.on_connected();
                    match self.serve(session).await {
                        Ok(()) => break,
                        Err(cause) => {
                            self.lost(&cause);
                            self.role.on_lost(&cause);
                        }
                    }
                }
                Err(error) => match first.take() {
                    Some(waiting) if self.connector.options.wait_for_server && !waiting.is_closed() => {
                        first = Some(waiting);
                    }
                    Some(waiting) => {
                        let _ = waiting.send(Err(error));
                        break;
                    }
                    None => {
                        let is_refusal = matches!(error, ConnectError::Refused { .. });
                        let cause = BusError::new(error);
                        self.lost(&cause);
                        if is_refusal {
                            self.outages.refused(&cause);
                        }
                    }
                },
            }
            self.wait().await;
        }
        self.ended = true;
        self.fail_all(&BusError::new("the bus is closed"));
        self.role.on_ended();
    }

    async fn connect(&mut self) -> Result<Session, ConnectError> {
        let (queue, receive) = (Arc::clone(self.role.queue()), self.role.receiver());
        let pushed = move |info: PushInfo| {
            match info.kind {
                PushKind::Disconnection => queue.ended(&mut WakeList::new()),
                _ => receive(info),
            }
            Ok::<_, redis::aio::SendError>(())
        };
        self.connector.connect(pushed).await
    }

    /// Waits until the next attempt is due or the queue is closed.
    async fn wait(&mut self) {
        let mut sleep = self.connector.sleep_after(self.failures);
        self.failures = self.failures.saturating_add(1);
        let queue = self.role.queue();
        poll_fn(|cx| match queue.poll_closed(cx) {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => sleep.as_mut().poll(cx),
        })
        .await;
    }

    /// Sends queued operations until the queue is closed and empty. Fails if the connection is
    /// lost.
    async fn serve(&mut self, mut session: Session) -> Result<(), BusError> {
        let mut timers = Timers { probe: self.connector.sleep(Duration::ZERO), message: None };
        loop {
            if !self.ready.is_empty() {
                self.send(&mut session).await?;
                continue;
            }
            match self.next_step(&mut timers).await {
                Step::Queue(Next::Send(operations)) => {
                    for operation in operations {
                        self.role.prepare(operation, &mut self.ready);
                    }
                }
                Step::Queue(Next::Reconnect) => {
                    return Err(BusError::new(
                        self.connector.connect_error("the server closed the connection"),
                    ));
                }
                Step::Queue(Next::End) => return Ok(()),
                Step::Probe => {
                    self.probe(&mut session, &mut timers).await?;
                    self.failures = 0;
                }
                Step::Check => {
                    self.probe(&mut session, &mut timers).await?;
                    self.outages.confirmed(P::SIDE, self.connector.runtime.now());
                }
                Step::MessageDue => {
                    timers.message = None;
                    let cause = BusError::new(
                        self.connector
                            .connect_error("messages published on one connection do not arrive on the other"),
                    );
                    if self.probe.give_up(self.connector.runtime.now().time, &cause) {
                        return Err(cause);
                    }
                }
            }
        }
    }

    /// Waits for an operation or a timer. Timers come first, so that a busy connection is probed
    /// too.
    async fn next_step(&mut self, timers: &mut Timers) -> Step<P::Operation> {
        let (queue, keep_running, outages) = (self.role.queue(), self.role.holds_back(), &self.outages);
        poll_fn(|cx| {
            if outages.poll_check_due(P::SIDE, cx).is_ready() {
                return Poll::Ready(Step::Check);
            }
            if timers.probe.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Step::Probe);
            }
            if let Some(message) = &mut timers.message
                && message.as_mut().poll(cx).is_ready()
            {
                return Poll::Ready(Step::MessageDue);
            }
            queue.poll_next(keep_running, cx).map(Step::Queue)
        })
        .await
    }

    /// Checks the server, and that messages pass from one connection to the other.
    async fn probe(&mut self, session: &mut Session, timers: &mut Timers) -> Result<(), BusError> {
        if let Some(cause) = self.probe.given_up(P::SIDE) {
            return Err(cause);
        }
        let (kind, now) = (&self.connector.target.kind, self.connector.runtime.now().time);
        let mut pipeline = Pipeline::with_capacity(2);
        pipeline.add_command(check::command(kind));
        if let Some(command) = self.probe.command(P::SIDE, now) {
            pipeline.add_command(command);
        }
        let replies = session.connection.send_packed_commands(&pipeline, 0, pipeline.len()).await;
        let mut replies = replies.map_err(|error| self.connector.bus_error(&error))?.into_iter();
        if let Some(problem) = replies.next().and_then(|reply| check::problem(kind, &reply)) {
            return Err(BusError::new(self.connector.connect_error(problem)));
        }
        if let Some(reply) = replies.next() {
            self.probe.replied(P::SIDE, &reply);
        }
        timers.probe = self.connector.sleep(self.connector.options.ping_interval);
        let deadline = self.probe.deadline().filter(|_| P::SIDE == Side::Commands);
        timers.message = deadline.map(|deadline| self.connector.runtime.sleep_until(deadline));
        Ok(())
    }

    /// Sends about one batch of operations that are ready and awaits the replies.
    async fn send(&mut self, session: &mut Session) -> Result<(), BusError> {
        let mut bytes = 0;
        while bytes < BATCH_BYTES
            && let Some(operation) = self.ready.pop_front()
        {
            bytes += operation.size();
            self.in_flight.push_back(operation);
        }
        let commands = self.in_flight.iter_mut().map(|operation| self.role.command(operation));
        let commands: Vec<_> = commands.collect();
        let expected: Vec<_> = commands.iter().map(Option::is_some).collect();
        let mut pipeline = Pipeline::with_capacity(commands.len());
        for command in commands.into_iter().flatten() {
            pipeline.add_command(command);
        }
        let replies = match pipeline.len() {
            0 => Vec::new(),
            count => {
                let replies = session.connection.send_packed_commands(&pipeline, 0, count).await;
                replies.map_err(|error| self.connector.bus_error(&error))?
            }
        };
        if !pipeline.is_empty() {
            self.failures = 0;
        }
        let mut replies = replies.into_iter();
        let mut sizes = Sizes::default();
        for (operation, expected) in self.in_flight.drain(..).zip(expected) {
            sizes.add(&operation);
            let reply = expected.then(|| replies.next()).flatten().unwrap_or(Value::Nil).extract_error();
            let refused = |error| Failure::Refused(self.connector.bus_error(&error));
            self.role.complete(operation, reply.map_err(refused));
        }
        self.role.queue().release(sizes, &mut WakeList::new());
        Ok(())
    }

    /// Handles a lost connection or a failed attempt to reconnect.
    fn lost(&mut self, cause: &BusError) {
        self.probe.lost(P::SIDE);
        self.outages.lost(P::SIDE, self.connector.runtime.now(), cause);
        self.fail_all(cause);
    }

    /// Fails all queued operations, and all later ones until a connection is established.
    fn fail_all(&mut self, cause: &BusError) {
        let queued = self.role.queue().lost(cause, &mut WakeList::new());
        let held_back = self.role.take_held_back();
        let mut sizes = Sizes::default();
        for operation in self.in_flight.drain(..).chain(self.ready.drain(..)).chain(held_back).chain(queued) {
            sizes.add(&operation);
            self.role.complete(operation, Err(Failure::Lost(cause.clone())));
        }
        self.role.queue().release(sizes, &mut WakeList::new());
    }
}

/// Returns the error of a bus that stopped because one of its tasks ended early.
pub(crate) fn task_ended() -> BusError {
    BusError::new("the bus has stopped: its background task ended (its runtime shut down, or it panicked)")
}

impl<P: ConnectionRole> Drop for Connection<P> {
    /// Stops the bus if its runtime dropped the task or the task panicked.
    fn drop(&mut self) {
        if !self.ended {
            let cause = task_ended();
            (self.stop)(&cause);
            self.fail_all(&cause);
        }
    }
}
