//! The queue of a connection: operations waiting to be sent, within a budget of bytes.
//!
//! The task that maintains the connection takes operations out. While the connection is down, the
//! queue refuses new operations immediately.

use std::collections::VecDeque;
use std::mem;
use std::task::{Context, Poll, Waker};

use psrpc::BusError;
use psrpc::bus::{Lock, LockGuard, WakeList};

/// The approximate size of a batch, small enough for the server to reply in time.
pub(crate) const BATCH_BYTES: usize = 256 * 1024;
const BATCH: usize = 4096;

/// An operation to perform at the server.
pub(crate) trait Operation: Send + 'static {
    /// Returns the number of bytes that the operation takes from its budget until it completes.
    fn size(&self) -> usize {
        0
    }

    /// Returns the budget that the operation counts against.
    fn budget(&self) -> Budget {
        Budget::Outbound
    }
}

/// The budget that an operation counts against. Both budgets have the same limit.
#[derive(Clone, Copy)]
pub(crate) enum Budget {
    /// Frames to publish.
    Outbound,
    /// Received frames. They have their own budget so that a flood of them cannot block publishing.
    Inbound,
}

/// A number of bytes per budget.
#[derive(Default)]
pub(crate) struct Sizes([usize; 2]);

/// The operations waiting for a connection.
pub(crate) struct ConnectionQueue<O> {
    state: Lock<QueueState<O>>,
    limit: usize,
}

struct QueueState<O> {
    operations: VecDeque<O>,
    /// The total size of the operations that are queued or in flight, by budget.
    bytes: [usize; 2],
    link: Link,
    closed: bool,
    task: Option<Waker>,
    waiting_for_room: Vec<Waker>,
}

enum Link {
    Up,
    /// The server has closed the connection, but the task has not noticed yet.
    Ended,
    Down(BusError),
}

/// The next action of a connection's task.
pub(crate) enum Next<O> {
    Send(VecDeque<O>),
    /// The server has closed the connection.
    Reconnect,
    /// The queue is closed and empty.
    End,
}

/// The reason why an operation was not queued.
pub(crate) enum Refusal {
    Full,
    Down(BusError),
}

impl Sizes {
    pub(crate) fn add(&mut self, operation: &impl Operation) {
        self.0[operation.budget() as usize] += operation.size();
    }
}

impl<O: Operation> ConnectionQueue<O> {
    /// Returns a queue with budgets of `limit` bytes and no connection.
    pub(crate) fn new(limit: usize) -> Self {
        let state = QueueState {
            operations: VecDeque::new(),
            bytes: [0; 2],
            link: Link::Down(BusError::new("not connected yet")),
            closed: false,
            task: None,
            waiting_for_room: Vec::new(),
        };
        Self { state: Lock::new(state), limit }
    }

    /// Queues the operation returned by `make` and counts it against its budget.
    ///
    /// Fails without calling `make` if the budget is used up or the connection is down.
    pub(crate) fn offer(
        &self,
        budget: Budget,
        make: impl FnOnce() -> O,
        wakes: &mut WakeList,
    ) -> Result<(), Refusal> {
        let mut state = self.state.lock();
        if let Link::Down(cause) = &state.link {
            return Err(Refusal::Down(cause.clone()));
        }
        if state.bytes[budget as usize] >= self.limit {
            return Err(Refusal::Full);
        }
        let operation = make();
        state.bytes[budget as usize] += operation.size();
        state.operations.push_back(operation);
        wakes.extend(state.task.take());
        Ok(())
    }

    /// Queues an operation that takes no bytes from a budget or is already counted. Returns the
    /// operation and the cause if the connection is down.
    pub(crate) fn push(&self, operation: O, wakes: &mut WakeList) -> Result<(), (O, BusError)> {
        let mut state = self.state.lock();
        if let Link::Down(cause) = &state.link {
            return Err((operation, cause.clone()));
        }
        state.operations.push_back(operation);
        wakes.extend(state.task.take());
        Ok(())
    }

    /// Completes when there is room for outbound frames, or when the connection is down, because
    /// publishing then fails immediately.
    pub(crate) fn poll_ready(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        if state.bytes[Budget::Outbound as usize] < self.limit || matches!(state.link, Link::Down(_)) {
            return Poll::Ready(());
        }
        if !state.waiting_for_room.iter().any(|waiting| waiting.will_wake(cx.waker())) {
            state.waiting_for_room.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Ends the task once everything in the queue is done.
    pub(crate) fn close(&self, wakes: &mut WakeList) {
        let mut state = self.state.lock();
        state.closed = true;
        wakes.extend(state.task.take());
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// Records that a connection is established.
    pub(crate) fn connected(&self) {
        self.state.lock().link = Link::Up;
    }

    /// Records that the server has closed the connection.
    pub(crate) fn ended(&self, wakes: &mut WakeList) {
        let mut state = self.state.lock();
        if let Link::Up = state.link {
            state.link = Link::Ended;
            wakes.extend(state.task.take());
        }
    }

    /// Records that the connection is down. Returns the queued operations, which count against
    /// their budgets until they are [released](Self::release).
    pub(crate) fn lost(&self, cause: &BusError, wakes: &mut WakeList) -> VecDeque<O> {
        let mut state = self.state.lock();
        if !state.is_stopped() {
            state.link = Link::Down(cause.clone());
        }
        wakes.extend(state.waiting_for_room.drain(..));
        mem::take(&mut state.operations)
    }

    /// Records that the connection is down for good. Ends the task as [`close`](Self::close) does.
    pub(crate) fn stop(&self, cause: &BusError, wakes: &mut WakeList) {
        let mut state = self.state.lock();
        if !state.is_stopped() {
            state.link = Link::Down(cause.clone());
        }
        state.closed = true;
        wakes.extend(state.task.take());
        wakes.extend(state.waiting_for_room.drain(..));
    }

    /// Returns the bytes of completed operations to their budgets.
    pub(crate) fn release(&self, Sizes(released): Sizes, wakes: &mut WakeList) {
        let mut state = self.state.lock();
        for (bytes, released) in state.bytes.iter_mut().zip(released) {
            debug_assert!(*bytes >= released, "released more bytes than were taken");
            *bytes = bytes.saturating_sub(released);
        }
        if state.bytes[Budget::Outbound as usize] < self.limit {
            wakes.extend(state.waiting_for_room.drain(..));
        }
    }

    /// Returns the next action of the task. With `keep_running`, the task does not end yet.
    pub(crate) fn poll_next(&self, keep_running: bool, cx: &Context<'_>) -> Poll<Next<O>> {
        let mut state = self.state.lock();
        if let Link::Ended = state.link {
            return Poll::Ready(Next::Reconnect);
        }
        if !state.operations.is_empty() {
            let mut bytes = 0;
            let fits = |operation: &&O| {
                bytes += operation.size();
                bytes <= BATCH_BYTES
            };
            let count = state.operations.iter().take(BATCH).take_while(fits).count().max(1);
            return Poll::Ready(Next::Send(state.operations.drain(..count).collect()));
        }
        if state.closed && !keep_running {
            return Poll::Ready(Next::End);
        }
        register(state, cx)
    }

    /// Completes when the queue is closed.
    pub(crate) fn poll_closed(&self, cx: &Context<'_>) -> Poll<()> {
        let state = self.state.lock();
        if state.closed {
            return Poll::Ready(());
        }
        register(state, cx)
    }
}

/// Registers the task. Drops the previous waker after unlocking.
fn register<O, T>(mut state: LockGuard<'_, QueueState<O>>, cx: &Context<'_>) -> Poll<T> {
    let replaced = state.task.replace(cx.waker().clone());
    drop(state);
    drop(replaced);
    Poll::Pending
}

impl<O> QueueState<O> {
    /// Returns `true` if the connection is down for good. Only the first cause is reported.
    fn is_stopped(&self) -> bool {
        self.closed && matches!(self.link, Link::Down(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bytes(usize);

    impl Operation for Bytes {
        fn size(&self) -> usize {
            self.0
        }
    }

    fn queue() -> ConnectionQueue<Bytes> {
        let queue = ConnectionQueue::new(100);
        queue.connected();
        queue
    }

    fn offer(queue: &ConnectionQueue<Bytes>, size: usize) -> Result<(), Refusal> {
        queue.offer(Budget::Outbound, || Bytes(size), &mut WakeList::new())
    }

    #[test]
    fn a_budget_counts_what_is_queued_and_what_is_under_way() {
        let queue = queue();
        let cx = Context::from_waker(Waker::noop());
        assert!(offer(&queue, 99).is_ok() && offer(&queue, 500).is_ok());
        assert!(matches!(offer(&queue, 1), Err(Refusal::Full)));
        let Poll::Ready(Next::Send(taken)) = queue.poll_next(false, &cx) else {
            panic!("operations are queued")
        };
        assert!(matches!(offer(&queue, 1), Err(Refusal::Full)) && queue.poll_ready(&cx).is_pending());
        assert!(
            queue.offer(Budget::Inbound, || Bytes(1), &mut WakeList::new()).is_ok(),
            "inbound operations have a separate budget"
        );
        let mut sizes = Sizes::default();
        taken.iter().for_each(|operation| sizes.add(operation));
        queue.release(sizes, &mut WakeList::new());
        assert!(queue.poll_ready(&cx).is_ready() && offer(&queue, 1).is_ok());
    }

    #[test]
    fn without_a_connection_everything_is_refused_with_the_cause() {
        let queue = queue();
        assert!(offer(&queue, 100).is_ok());
        assert_eq!(queue.lost(&BusError::new("reset"), &mut WakeList::new()).len(), 1);
        assert!(matches!(offer(&queue, 1), Err(Refusal::Down(cause)) if cause.to_string() == "reset"));
        assert!(queue.poll_ready(&Context::from_waker(Waker::noop())).is_ready(), "it fails at once");
        assert!(queue.push(Bytes(0), &mut WakeList::new()).is_err());
    }

    #[test]
    fn a_closed_queue_ends_when_it_is_empty_and_its_task_may_end() {
        let queue = queue();
        let cx = Context::from_waker(Waker::noop());
        assert!(offer(&queue, 1).is_ok());
        queue.close(&mut WakeList::new());
        assert!(queue.poll_closed(&cx).is_ready());
        assert!(matches!(queue.poll_next(false, &cx), Poll::Ready(Next::Send(_))));
        assert!(queue.poll_next(true, &cx).is_pending());
        assert!(matches!(queue.poll_next(false, &cx), Poll::Ready(Next::End)));
    }
}
