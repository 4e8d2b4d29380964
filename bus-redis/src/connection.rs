//! A connection: the task that keeps it, and sends what is queued for it as pipelines.
//!
//! Operations that were queued while the server answered leave together, so that one round trip is
//! under way at a time, and answers come in the order of the operations. While there is no
//! connection, everything that is queued fails at once.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use psrpc::BusError;
use psrpc::bus::WakeList;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, PushInfo, PushKind, Value};
use tokio::sync::oneshot;

use crate::connector::Connector;
use crate::error::ConnectError;
use crate::outage::{Outages, Side};
use crate::queue::{BATCH_BYTES, ConnectionQueue, Next, Operation, Sizes};

/// What a connection is for. No lock is held when its functions are called.
pub(crate) trait Purpose: Send + 'static {
    type Operation: Operation;

    const SIDE: Side;

    fn queue(&self) -> &Arc<ConnectionQueue<Self::Operation>>;

    /// Takes an operation whose turn has come. Adds those to `ready` that can be sent now, and
    /// holds back the others.
    fn prepare(&mut self, operation: Self::Operation, ready: &mut VecDeque<Self::Operation>) {
        ready.push_back(operation);
    }

    /// Returns `true` if operations are held back, which are sent before the connection ends.
    fn holds_back(&self) -> bool {
        false
    }

    /// Gives up the operations that are held back.
    fn take_held_back(&mut self) -> Vec<Self::Operation> {
        Vec::new()
    }

    /// Returns what the server is told; `None` for an operation that only waits for its turn.
    fn command(&self, operation: &mut Self::Operation) -> Option<Cmd>;

    /// The server has answered an operation, or the connection was lost.
    fn done(&self, operation: Self::Operation, answer: Result<Value, Failure>);

    /// Returns what handles the messages that the server pushes.
    fn receiver(&self) -> impl Fn(PushInfo) + Send + Sync + 'static {
        |_| {}
    }

    /// There is a connection.
    fn on_connected(&self) {}

    /// The connection was lost.
    fn on_lost(&self, _: &BusError) {}

    /// The task has ended, since the queue was closed.
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

/// What the task does next.
enum Step<O> {
    Queue(Next<O>),
    /// Asks the server whether it is still there, because nothing was sent for long.
    Ping,
    /// The same, because of an outage.
    Check,
}

/// The state of the task that keeps a connection.
pub(crate) struct Connection<P: Purpose> {
    pub(crate) purpose: P,
    connector: Arc<Connector>,
    outages: Arc<Outages>,
    /// Stops the bus, if this task ends before its time.
    stop: Box<dyn Fn(&BusError) + Send>,
    /// Operations that can be sent.
    ready: VecDeque<P::Operation>,
    /// Operations that the server has not answered.
    under_way: VecDeque<P::Operation>,
    /// How many attempts have failed since a connection has served anything.
    failures: u32,
    ended: bool,
}

impl<P: Purpose> Connection<P> {
    pub(crate) fn new(
        purpose: P,
        connector: Arc<Connector>,
        outages: Arc<Outages>,
        stop: impl Fn(&BusError) + Send + 'static,
    ) -> Self {
        let (ready, under_way) = (VecDeque::new(), VecDeque::new());
        Self {
            purpose,
            connector,
            outages,
            stop: Box::new(stop),
            ready,
            under_way,
            failures: 0,
            ended: false,
        }
    }

    /// Keeps the connection until its queue is closed. `first` is told once there is a connection,
    /// or with the first failure unless the bus waits for its server.
    pub(crate) async fn run(mut self, first: oneshot::Sender<Result<(), ConnectError>>) {
        let mut first = Some(first);
        while !self.purpose.queue().is_closed() {
            match self.connect().await {
                Ok(connection) => {
                    self.purpose.queue().connected();
                    if let Some(first) = first.take() {
                        // If nobody waits for it any more, the bus is closed.
                        let _ = first.send(Ok(()));
                    }
                    self.purpose.on_connected();
                    match self.serve(connection).await {
                        Ok(()) => break,
                        Err(cause) => {
                            self.lost(&cause);
                            self.purpose.on_lost(&cause);
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
                    None => self.lost(&BusError::new(error)),
                },
            }
            self.wait().await;
        }
        self.ended = true;
        self.fail_all(&BusError::new("the bus is closed"));
        self.purpose.on_ended();
    }

    async fn connect(&mut self) -> Result<MultiplexedConnection, ConnectError> {
        let (queue, receive) = (Arc::clone(self.purpose.queue()), self.purpose.receiver());
        let pushed = move |info: PushInfo| {
            match info.kind {
                PushKind::Disconnection => queue.ended(&mut WakeList::new()),
                _ => receive(info),
            }
            Ok::<_, redis::aio::SendError>(())
        };
        self.connector.connect(pushed).await
    }

    /// Waits before the next attempt, or until the queue is closed.
    async fn wait(&mut self) {
        let mut sleep = self.connector.sleep_after(self.failures);
        self.failures = self.failures.saturating_add(1);
        let queue = self.purpose.queue();
        poll_fn(|cx| match queue.poll_closed(cx) {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => sleep.as_mut().poll(cx),
        })
        .await;
    }

    /// Sends what is queued, until the connection is lost, which is an error, or the queue closed
    /// and empty.
    async fn serve(&mut self, mut connection: MultiplexedConnection) -> Result<(), BusError> {
        loop {
            if !self.ready.is_empty() {
                self.send(&mut connection).await?;
                continue;
            }
            match self.next_step().await {
                Step::Queue(Next::Send(operations)) => {
                    for operation in operations {
                        self.purpose.prepare(operation, &mut self.ready);
                    }
                }
                Step::Queue(Next::Reconnect) => {
                    return Err(BusError::new(self.connector.error("the server closed the connection")));
                }
                Step::Queue(Next::End) => return Ok(()),
                Step::Ping => {
                    self.connector.ping(&mut connection).await?;
                    self.failures = 0;
                }
                Step::Check => {
                    self.connector.ping(&mut connection).await?;
                    self.outages.answered(P::SIDE, self.connector.runtime.now());
                }
            }
        }
    }

    async fn next_step(&mut self) -> Step<P::Operation> {
        let (queue, stay, outages) = (self.purpose.queue(), self.purpose.holds_back(), &self.outages);
        let mut idle = self.connector.sleep(self.connector.options.ping_interval);
        poll_fn(|cx| {
            if outages.poll_unanswered(P::SIDE, cx).is_ready() {
                return Poll::Ready(Step::Check);
            }
            match queue.poll_next(stay, cx) {
                Poll::Ready(next) => Poll::Ready(Step::Queue(next)),
                Poll::Pending => idle.as_mut().poll(cx).map(|()| Step::Ping),
            }
        })
        .await
    }

    /// Sends what can be sent, about as much as fits into one pipeline, and awaits the answers.
    async fn send(&mut self, connection: &mut MultiplexedConnection) -> Result<(), BusError> {
        let mut bytes = 0;
        while bytes < BATCH_BYTES
            && let Some(operation) = self.ready.pop_front()
        {
            bytes += operation.size();
            self.under_way.push_back(operation);
        }
        let commands = self.under_way.iter_mut().map(|operation| self.purpose.command(operation));
        let commands: Vec<_> = commands.collect();
        let expected: Vec<_> = commands.iter().map(Option::is_some).collect();
        let mut pipeline = Pipeline::with_capacity(commands.len());
        for command in commands.into_iter().flatten() {
            pipeline.add_command(command);
        }
        let answers = match pipeline.len() {
            0 => Vec::new(),
            count => {
                let answers = connection.send_packed_commands(&pipeline, 0, count).await;
                answers.map_err(|error| self.connector.failed(&error))?
            }
        };
        if !pipeline.is_empty() {
            self.failures = 0;
        }
        let mut answers = answers.into_iter();
        let mut sizes = Sizes::default();
        for (operation, expected) in self.under_way.drain(..).zip(expected) {
            sizes.add(&operation);
            let answer = expected.then(|| answers.next()).flatten().unwrap_or(Value::Nil).extract_error();
            let refused = |error| Failure::Refused(self.connector.failed(&error));
            self.purpose.done(operation, answer.map_err(refused));
        }
        self.purpose.queue().give_back(sizes, &mut WakeList::new());
        Ok(())
    }

    /// The connection was lost, or could not be made again.
    fn lost(&mut self, cause: &BusError) {
        self.outages.lost(P::SIDE, self.connector.runtime.now(), cause);
        self.fail_all(cause);
    }

    /// Fails everything that is queued, and everything that will be until there is a connection.
    fn fail_all(&mut self, cause: &BusError) {
        let queued = self.purpose.queue().lost(cause, &mut WakeList::new());
        let held_back = self.purpose.take_held_back();
        let mut sizes = Sizes::default();
        for operation in self.under_way.drain(..).chain(self.ready.drain(..)).chain(held_back).chain(queued) {
            sizes.add(&operation);
            self.purpose.done(operation, Err(Failure::Lost(cause.clone())));
        }
        self.purpose.queue().give_back(sizes, &mut WakeList::new());
    }
}

impl<P: Purpose> Drop for Connection<P> {
    /// Stops the whole bus if its runtime has dropped the task, or the task panicked.
    fn drop(&mut self) {
        if !self.ended {
            let cause = BusError::new(
                "the bus has stopped: its background task ended (its runtime shut down, or it panicked)",
            );
            (self.stop)(&cause);
            self.fail_all(&cause);
        }
    }
}
