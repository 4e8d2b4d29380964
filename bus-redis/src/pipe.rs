//! The pipe: a connection that comes back by itself, through which operations go as pipelines.
//!
//! Whatever was queued while the server answered goes out together, so that one round trip is under way at a time and
//! answers come in the order of what was queued. While there is no connection, whatever is queued fails at once.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use psrpc::{BusError, Runtime};
use redis::aio::{MultiplexedConnection, SendError};
use redis::{Cmd, Pipeline, PushInfo, PushKind, Value};

use crate::Shared;
use crate::command::Command;
use crate::connect::ConnectError;
use crate::subscriptions::{self, Change};

/// Something to be done at the server, in order.
pub(crate) trait Operation: Sized + Send + 'static {
    /// The pipe that it goes through.
    fn pipe(shared: &Shared) -> &Pipe<Self>;

    /// What the server is told; nothing for what only waits for its turn.
    fn command(&self) -> Option<Cmd>;

    /// How much of the room it takes until it is done, in bytes.
    fn size(&self) -> usize {
        0
    }

    /// Which room that is. What comes in has one of its own, so that a flood there does not keep anything from going out.
    fn room(&self) -> Room {
        Room::Out
    }

    /// It is done, as the server answered, or the connection was lost.
    fn done(self, shared: &Arc<Shared>, answer: Result<Value, BusError>);

    /// There is a connection.
    fn on_connected(_: &Arc<Shared>) {}

    /// The connection was lost.
    fn on_lost(_: &Arc<Shared>) {}

    /// The task has ended, since the bus was closed.
    fn on_ended(_: &Arc<Shared>) {}

    /// The server pushed a message.
    fn on_pushed(_: &Arc<Shared>, _: PushInfo) {}
}

/// Where operations wait.
#[derive(Clone, Copy)]
pub(crate) enum Room {
    Out,
    In,
}

/// How much goes out in one pipeline at most, so that the server can answer each in time.
const BATCH_BYTES: usize = 256 * 1024;
const BATCH: usize = 4096;

/// What is queued for one connection.
pub(crate) struct Pipe<O> {
    state: Mutex<State<O>>,
    limit: usize,
}

struct State<O> {
    queue: VecDeque<O>,
    /// The sizes of what is queued and of what is under way, by room.
    bytes: [usize; 2],
    link: Link,
    closed: bool,
    task: Option<Waker>,
    waiting_for_room: Vec<Waker>,
}

#[derive(Clone)]
enum Link {
    Up,
    /// The connection has ended, which the task does not know yet.
    Ended,
    Down(BusError),
}

/// What the task of a pipe does next.
enum Next<O> {
    Send(Vec<O>),
    Ping,
    Reconnect(BusError),
    End,
}

/// Why an operation was not queued.
pub(crate) enum Refusal {
    Full,
    Down(BusError),
}

impl<O: Operation> Pipe<O> {
    pub(crate) fn new(limit: usize) -> Self {
        let state = State {
            queue: VecDeque::new(),
            bytes: [0; 2],
            link: Link::Down(BusError::new("not connected yet")),
            closed: false,
            task: None,
            waiting_for_room: Vec::new(),
        };
        Self { state: Mutex::new(state), limit }
    }

    /// Queues an operation that may be refused.
    pub(crate) fn offer(&self, operation: O) -> Result<(), (O, Refusal)> {
        let mut state = self.lock();
        let (size, room) = (operation.size(), operation.room() as usize);
        match &state.link {
            Link::Down(error) => return Err((operation, Refusal::Down(error.clone()))),
            Link::Up | Link::Ended if size > 0 && state.bytes[room] >= self.limit => {
                return Err((operation, Refusal::Full));
            }
            Link::Up | Link::Ended => {}
        }
        state.bytes[room] += size;
        state.queue.push_back(operation);
        wake(state);
        Ok(())
    }

    /// Ready when there is room, or no connection, and so an answer to whatever is queued.
    pub(crate) fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.bytes[Room::Out as usize] < self.limit || matches!(state.link, Link::Down(_)) {
            return Poll::Ready(());
        }
        if !state.waiting_for_room.iter().any(|waiting| waiting.will_wake(cx.waker())) {
            state.waiting_for_room.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Ends the task, once what is queued is done.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        wake(state);
    }

    fn on_ended(&self) {
        let mut state = self.lock();
        if let Link::Up = state.link {
            state.link = Link::Ended;
            wake(state);
        }
    }

    fn is_closed(&self) -> bool {
        self.lock().closed
    }

    fn poll_next(&self, cx: &Context<'_>) -> Poll<Next<O>> {
        let mut state = self.lock();
        if let Link::Ended = state.link {
            return Poll::Ready(Next::Reconnect(BusError::new("the server closed the connection")));
        }
        if !state.queue.is_empty() {
            let mut bytes = 0;
            let fits = |operation: &&O| {
                bytes += operation.size();
                bytes <= BATCH_BYTES
            };
            let count = state.queue.iter().take(BATCH).take_while(fits).count().max(1);
            return Poll::Ready(Next::Send(state.queue.drain(..count).collect()));
        }
        if state.closed {
            return Poll::Ready(Next::End);
        }
        state.task = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Notes that operations are done.
    fn give_back(&self, [out, inbound]: [usize; 2]) {
        let mut state = self.lock();
        // Less than that is left if the bus was stopped meanwhile.
        for (held, done) in state.bytes.iter_mut().zip([out, inbound]) {
            *held = held.saturating_sub(done);
        }
        if state.bytes[Room::Out as usize] < self.limit {
            let waiting = std::mem::take(&mut state.waiting_for_room);
            drop(state);
            waiting.into_iter().for_each(Waker::wake);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<O>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(fuzzing)]
impl<O: Operation> Pipe<O> {
    /// As if there was a connection.
    pub(crate) fn up(&self) {
        self.lock().link = Link::Up;
    }

    /// What would be sent next, and takes no room any more.
    pub(crate) fn take(&self) -> Vec<O> {
        let Poll::Ready(Next::Send(operations)) = self.poll_next(&Context::from_waker(Waker::noop())) else {
            return Vec::new();
        };
        let mut bytes = [0; 2];
        operations.iter().for_each(|operation| bytes[operation.room() as usize] += operation.size());
        self.give_back(bytes);
        operations
    }
}

fn wake<O>(mut state: MutexGuard<'_, State<O>>) {
    let task = state.task.take();
    drop(state);
    if let Some(task) = task {
        task.wake();
    }
}

/// Queues an operation; if that is refused, it is done with the refusal as its answer.
pub(crate) fn queue<O: Operation>(shared: &Arc<Shared>, operation: O) {
    if let Err(refused) = O::pipe(shared).offer(operation) {
        refuse(shared, refused);
    }
}

/// Does an operation that was not queued.
pub(crate) fn refuse<O: Operation>(shared: &Arc<Shared>, (operation, refusal): (O, Refusal)) {
    let error = match refusal {
        Refusal::Full => BusError::new("too much is under way to the server"),
        Refusal::Down(error) => error,
    };
    operation.done(shared, Err(error));
}

/// Keeps a pipe connected until the bus is closed. `first` is told how the first attempt went; if that fails, it was the
/// last.
pub(crate) async fn run<O: Operation>(
    shared: Arc<Shared>,
    first: tokio::sync::oneshot::Sender<Result<(), ConnectError>>,
) {
    let mut first = Some(first);
    let mut failures = 0;
    let mut stopping = StopUnlessEnded(&shared, false);
    while !O::pipe(&shared).is_closed() {
        match connect::<O>(&shared).await {
            Ok(connection) => {
                failures = 0;
                O::pipe(&shared).lock().link = Link::Up;
                // Whoever asked may have gone meanwhile, and has then closed the bus.
                let _ = first.take().map(|first| first.send(Ok(())));
                O::on_connected(&shared);
                match serve::<O>(&shared, connection).await {
                    Ok(()) => break,
                    Err(error) => lose::<O>(&shared, error),
                }
            }
            Err(error) => match first.take() {
                Some(first) => {
                    drop(first.send(Err(error)));
                    break;
                }
                None => lose::<O>(&shared, BusError::new(error)),
            },
        }
        let delay =
            delay(failures, shared.options.reconnect_delay, shared.runtime.now().wall.as_unix_nanos());
        shared.runtime.sleep_until(shared.runtime.now().time + delay).await;
        failures += 1;
    }
    stopping.1 = true;
    lose::<O>(&shared, BusError::new("the bus is closed"));
    O::on_ended(&shared);
}

/// Stops the whole bus when one of its tasks is gone before its time: its runtime has dropped it, or it panicked. Whoever
/// publishes or is subscribed then learns that nothing more will come of it.
struct StopUnlessEnded<'a>(&'a Arc<Shared>, bool);

impl Drop for StopUnlessEnded<'_> {
    fn drop(&mut self) {
        if !self.1 {
            let error = BusError::new(
                "the bus has stopped: its background task ended (its runtime has shut down, or it panicked)",
            );
            lose::<Command>(self.0, error.clone());
            lose::<Change>(self.0, error.clone());
            self.0.commands.close();
            self.0.changes.close();
            subscriptions::stop(self.0, &error);
        }
    }
}

async fn connect<O: Operation>(shared: &Arc<Shared>) -> Result<MultiplexedConnection, ConnectError> {
    let to = Arc::downgrade(shared);
    let pushed = move |info: PushInfo| {
        let shared = to.upgrade().ok_or(SendError)?;
        match info.kind {
            PushKind::Disconnection => O::pipe(&shared).on_ended(),
            _ => O::on_pushed(&shared, info),
        }
        Ok::<_, SendError>(())
    };
    shared.connector.connect(pushed).await
}

/// Sends what is queued, until the connection is lost or the bus closed.
async fn serve<O: Operation>(
    shared: &Arc<Shared>,
    mut connection: MultiplexedConnection,
) -> Result<(), BusError> {
    loop {
        let idle_at = shared.runtime.now().time + shared.options.ping_interval;
        let mut idle = shared.runtime.sleep_until(idle_at);
        let next = poll_fn(|cx| match O::pipe(shared).poll_next(cx) {
            Poll::Ready(next) => Poll::Ready(next),
            Poll::Pending => idle.as_mut().poll(cx).map(|()| Next::Ping),
        });
        let operations = match pin!(next).await {
            Next::Send(operations) => operations,
            Next::Ping => Vec::new(),
            Next::Reconnect(error) => return Err(error),
            Next::End => return Ok(()),
        };
        let commands: Vec<_> = operations.iter().map(O::command).collect();
        let mut pipeline = Pipeline::with_capacity(commands.len());
        if operations.is_empty() {
            pipeline.cmd("PING");
        }
        let expected: Vec<_> = commands.iter().map(Option::is_some).collect();
        for command in commands.into_iter().flatten() {
            pipeline.add_command(command);
        }
        let answers = match pipeline.len() {
            0 => Ok(Vec::new()),
            count => connection.send_packed_commands(&pipeline, 0, count).await,
        };
        let mut bytes = [0; 2];
        operations.iter().for_each(|operation| bytes[operation.room() as usize] += operation.size());
        match answers {
            Ok(answers) => {
                let mut answers = answers.into_iter();
                for (operation, expected) in operations.into_iter().zip(expected) {
                    let answer = expected.then(|| answers.next()).flatten();
                    operation.done(shared, Ok(answer.unwrap_or(Value::Nil)));
                }
                O::pipe(shared).give_back(bytes);
            }
            Err(error) => {
                let error = BusError::new(shared.connector.failed(&error));
                for operation in operations {
                    operation.done(shared, Err(error.clone()));
                }
                O::pipe(shared).give_back(bytes);
                return Err(error);
            }
        }
    }
}

/// Fails what is queued, and whatever will be until there is a connection.
fn lose<O: Operation>(shared: &Arc<Shared>, error: BusError) {
    let (queue, waiting, was_up) = {
        let mut state = O::pipe(shared).lock();
        let was_up = !matches!(state.link, Link::Down(_));
        state.link = Link::Down(error.clone());
        state.bytes = [0; 2];
        (std::mem::take(&mut state.queue), std::mem::take(&mut state.waiting_for_room), was_up)
    };
    for operation in queue {
        operation.done(shared, Err(error.clone()));
    }
    waiting.into_iter().for_each(Waker::wake);
    if was_up {
        O::on_lost(shared);
    }
}

/// How long to wait before the next attempt: twice as long each time, give or take a half, so that those who lost one
/// server do not come back to it all at once.
fn delay(failures: u32, at_most: Duration, noise: i64) -> Duration {
    let delay = Duration::from_millis(10).saturating_mul(1 << failures.min(16)).min(at_most);
    delay / 2 + delay.mul_f64((noise.rem_euclid(1009)) as f64 / 1009.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_longest_and_differ() {
        let second = Duration::from_secs(1);
        for noise in [0, 500, 1008, -1] {
            assert!(delay(0, second, noise) <= Duration::from_millis(15));
            let long = delay(40, second, noise);
            assert!(long >= second / 2 && long <= second * 3 / 2, "{long:?}");
        }
        assert_ne!(delay(9, second, 1), delay(9, second, 2));
    }
}
