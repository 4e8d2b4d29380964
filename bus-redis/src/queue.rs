//! The queue of a connection: operations that wait to be sent, within a budget of bytes.
//!
//! It does not know what the operations are. One task, which keeps the connection, takes them out;
//! while there is no connection, whatever is offered is refused at once.

use std::collections::VecDeque;
use std::mem;
use std::task::{Context, Poll, Waker};

use psrpc::BusError;
use psrpc::bus::{Lock, LockGuard, WakeList};

/// How much is sent at once, about, so that the server can answer all of it in time.
pub(crate) const BATCH_BYTES: usize = 256 * 1024;
const BATCH: usize = 4096;

/// Something to do at the server.
pub(crate) trait Operation: Send + 'static {
    /// Returns how many bytes of its budget it takes until it is done.
    fn size(&self) -> usize {
        0
    }

    /// Returns the budget that it takes them from.
    fn budget(&self) -> Budget {
        Budget::Outbound
    }
}

/// Which of its two budgets an operation counts in. Each has the same limit.
#[derive(Clone, Copy)]
pub(crate) enum Budget {
    /// Frames that leave.
    Outbound,
    /// Frames that have come in: a flood of them keeps nothing from leaving.
    Inbound,
}

/// Bytes of each budget.
#[derive(Default)]
pub(crate) struct Sizes([usize; 2]);

/// The operations that wait for one connection.
pub(crate) struct ConnectionQueue<O> {
    state: Lock<QueueState<O>>,
    limit: usize,
}

struct QueueState<O> {
    operations: VecDeque<O>,
    /// The sizes of the operations that are queued or under way, by budget.
    bytes: [usize; 2],
    link: Link,
    closed: bool,
    task: Option<Waker>,
    waiting_for_room: Vec<Waker>,
}

enum Link {
    Up,
    /// The server has closed the connection, which the task does not know yet.
    Ended,
    Down(BusError),
}

/// What the task of a connection does next.
pub(crate) enum Next<O> {
    Send(VecDeque<O>),
    /// The server has closed the connection.
    Reconnect,
    /// The queue is closed and empty.
    End,
}

/// Why an operation was not queued.
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
    /// Returns a queue with so many bytes in each budget, and without a connection.
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

    /// Queues the operation that `make` returns, unless its budget is used up or there is no
    /// connection; then `make` is not called. The operation counts in its budget from here on.
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

    /// Queues an operation that takes nothing from a budget, or that counts already. Returns it,
    /// with the reason, if there is no connection.
    pub(crate) fn push(&self, operation: O, wakes: &mut WakeList) -> Result<(), (O, BusError)> {
        let mut state = self.state.lock();
        if let Link::Down(cause) = &state.link {
            return Err((operation, cause.clone()));
        }
        state.operations.push_back(operation);
        wakes.extend(state.task.take());
        Ok(())
    }

    /// Ready when there is room for frames that leave, or no connection, which fails them at once.
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

    /// Ends the task once everything that is queued is done.
    pub(crate) fn close(&self, wakes: &mut WakeList) {
        let mut state = self.state.lock();
        state.closed = true;
        wakes.extend(state.task.take());
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// There is a connection.
    pub(crate) fn connected(&self) {
        self.state.lock().link = Link::Up;
    }

    /// The server has closed the connection.
    pub(crate) fn ended(&self, wakes: &mut WakeList) {
        let mut state = self.state.lock();
        if let Link::Up = state.link {
            state.link = Link::Ended;
            wakes.extend(state.task.take());
        }
    }

    /// There is no connection. Returns the operations that waited for one. They count in their
    /// budgets until they are [given back](Self::give_back).
    pub(crate) fn lost(&self, cause: &BusError, wakes: &mut WakeList) -> VecDeque<O> {
        let mut state = self.state.lock();
        if !state.is_stopped() {
            state.link = Link::Down(cause.clone());
        }
        wakes.extend(state.waiting_for_room.drain(..));
        mem::take(&mut state.operations)
    }

    /// There is no connection, and will be none. Ends the task as [`close`](Self::close) does.
    pub(crate) fn stop(&self, cause: &BusError, wakes: &mut WakeList) {
        let mut state = self.state.lock();
        if !state.is_stopped() {
            state.link = Link::Down(cause.clone());
        }
        state.closed = true;
        wakes.extend(state.task.take());
        wakes.extend(state.waiting_for_room.drain(..));
    }

    /// Operations of these sizes are done.
    pub(crate) fn give_back(&self, Sizes(done): Sizes, wakes: &mut WakeList) {
        let mut state = self.state.lock();
        for (bytes, done) in state.bytes.iter_mut().zip(done) {
            debug_assert!(*bytes >= done, "more is given back than was taken");
            *bytes = bytes.saturating_sub(done);
        }
        if state.bytes[Budget::Outbound as usize] < self.limit {
            wakes.extend(state.waiting_for_room.drain(..));
        }
    }

    /// Returns what the task of the connection does next. With `stay`, it does not end yet.
    pub(crate) fn poll_next(&self, stay: bool, cx: &Context<'_>) -> Poll<Next<O>> {
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
        if state.closed && !stay {
            return Poll::Ready(Next::End);
        }
        wait(state, cx)
    }

    /// Ready when the queue is closed.
    pub(crate) fn poll_closed(&self, cx: &Context<'_>) -> Poll<()> {
        let state = self.state.lock();
        if state.closed {
            return Poll::Ready(());
        }
        wait(state, cx)
    }
}

/// Registers the task. The waker that waited before is dropped without the lock.
fn wait<O, T>(mut state: LockGuard<'_, QueueState<O>>, cx: &Context<'_>) -> Poll<T> {
    let replaced = state.task.replace(cx.waker().clone());
    drop(state);
    drop(replaced);
    Poll::Pending
}

impl<O> QueueState<O> {
    /// Returns `true` if there will be no connection any more: the first cause of that is the one
    /// to tell.
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
        let Poll::Ready(Next::Send(taken)) = queue.poll_next(false, &cx) else { panic!("they wait") };
        assert!(matches!(offer(&queue, 1), Err(Refusal::Full)) && queue.poll_ready(&cx).is_pending());
        assert!(
            queue.offer(Budget::Inbound, || Bytes(1), &mut WakeList::new()).is_ok(),
            "its budget is its own"
        );
        let mut sizes = Sizes::default();
        taken.iter().for_each(|operation| sizes.add(operation));
        queue.give_back(sizes, &mut WakeList::new());
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
    fn a_closed_queue_ends_when_it_is_empty_and_its_task_need_not_stay() {
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
