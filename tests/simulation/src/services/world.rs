//! The world of a simulated service: virtual time, nodes that run the real psrpc, and a bus between
//! them with the faults that a seed or a test chooses.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use psrpc::Time;
use psrpc::proto::{Channel, Frame};

use super::executor::{PlannedLoss, Shared, Step};
use super::node::Node;
use crate::clock::Clock;
use crate::fault::{Fault, FaultCounts};
use crate::node_id::Peer;
use crate::trace::Show;

/// A simulated world for a test of your service. It runs your handlers, the generated code, and
/// real clients and servers in virtual time on one thread.
///
/// The seed decides every open choice: which task runs next, how long a frame takes, which faults
/// happen. A test that fails with a seed fails with it again.
///
/// ```
/// use std::time::Duration;
///
/// use psrpc::Runtime;
/// use psrpc_simulation::{Fault, World};
///
/// let world = World::new(7);
/// world.set_rate(Fault::Delay, 200); // of a thousand deliveries
/// let node = world.node("ash");
/// let answer = world.run(async {
///     let runtime = node.runtime();
///     // Here a test starts servers and clients with `with_runtime(node.bus(), node.runtime(), ...)`.
///     let thinking = node.spawn(async move {
///         runtime.sleep_until(runtime.now().time + Duration::from_secs(7_500)).await;
///         42
///     });
///     thinking.await
/// });
/// assert_eq!(answer, Some(42));
/// assert_eq!(world.elapsed(), Duration::from_secs(7_500));
/// ```
///
/// # Faults
///
/// | what | how |
/// |---|---|
/// | random faults of deliveries, publishes and subscriptions | [`set_rate`](Self::set_rate), [`set_random_rates`](Self::set_random_rates) |
/// | the loss of the next frames that a test selects | [`lose`](Self::lose) |
/// | nodes that cannot reach each other | [`partition`](Self::partition), [`cut`](Self::cut) |
/// | slow, paused and crashed nodes, delayed frames, clock jumps | the methods of [`Node`] |
///
/// # Many seeds
///
/// [`check_seeds`](crate::check_seeds) runs a test with one seed after the other and prints the one
/// that fails.
pub struct World {
    shared: Arc<Shared>,
    seed: u64,
}

/// Why a future that was [run](World::try_run) did not complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stuck {
    /// The future waits, and no event is scheduled that could wake it.
    Deadlock {
        /// The virtual time at that point.
        at: Duration,
    },
    /// The future did not complete within the time limit.
    TooLong {
        /// The virtual time at that point.
        at: Duration,
    },
    /// Tasks wake each other endlessly without any time passing.
    Spinning {
        /// The virtual time at that point.
        at: Duration,
    },
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stuck::Deadlock { at } => {
                write!(f, "deadlock at {at:?}: the future waits, and no event is scheduled")
            }
            Stuck::TooLong { at } => write!(f, "time limit reached at {at:?}"),
            Stuck::Spinning { at } => {
                write!(f, "endless wake-ups at {at:?}: tasks wake each other without time passing")
            }
        }
    }
}

impl std::error::Error for Stuck {}

/// The default time limit of a future, in virtual time.
const LIMIT: Duration = Duration::from_secs(24 * 3600);

/// The limit for steps of tasks without any time passing.
const MAX_STEPS: u64 = 1_000_000;

impl World {
    /// Creates a world without faults, in which a frame takes up to a few milliseconds.
    pub fn new(seed: u64) -> Self {
        Self::make(seed, None)
    }

    /// Creates a world without faults that passes each line of its trace to `show`.
    pub fn showing(seed: u64, mut show: impl FnMut(&str) + Send + 'static) -> Self {
        Self::make(seed, Some(Box::new(move |line| show(&line.to_string()))))
    }

    pub(crate) fn make(seed: u64, show: Option<Show>) -> Self {
        Self { shared: Shared::new(seed, show), seed }
    }

    /// Returns the seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Adds a node: a machine with its own clocks, tasks and connection to the bus. The name
    /// appears in the trace.
    pub fn node(&self, name: impl Into<String>) -> Node {
        self.node_with(name, Clock::ACCURATE)
    }

    pub(crate) fn node_with(&self, name: impl Into<String>, clock: Clock) -> Node {
        Node::new(Arc::clone(&self.shared), name.into(), clock)
    }

    // --- time ------------------------------------------------------------------------------------

    /// Returns the virtual time since the creation of the world.
    pub fn elapsed(&self) -> Duration {
        self.shared.lock().scene.now().since(Time::ZERO)
    }

    /// Sleeps for `duration`, in virtual time.
    pub fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send + 'static {
        let at = self.shared.lock().scene.now() + duration;
        let mut sleep = Shared::sleep_until(&self.shared, at);
        poll_fn(move |cx| sleep.poll(cx))
    }

    /// Runs a future to completion, and all tasks of all nodes meanwhile. Tasks that have not
    /// completed by then continue in the next run.
    ///
    /// # Panics
    ///
    /// Panics if the future does not complete, for the reasons of [`try_run`](Self::try_run), and
    /// passes on the panic of any task.
    pub fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.try_run(LIMIT, future).unwrap_or_else(|stuck| panic!("the future did not complete: {stuck}"))
    }

    /// Runs a future to completion, within `limit` of virtual time.
    ///
    /// # Errors
    ///
    /// Returns [`Stuck`] if the future does not complete.
    pub fn try_run<T>(&self, limit: Duration, future: impl Future<Output = T>) -> Result<T, Stuck> {
        let end = self.shared.lock().scene.now() + limit;
        let (main, waker) = self.shared.add_main();
        let mut future = pin!(future);
        let mut steps = 0;
        let result = loop {
            match self.shared.step() {
                Step::Main => {
                    if let Poll::Ready(result) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                        break Ok(result);
                    }
                }
                Step::Task => {}
                Step::Idle if self.shared.advance_time(end) => steps = 0,
                Step::Idle if self.shared.has_events() => break Err(Stuck::TooLong { at: self.elapsed() }),
                Step::Idle => break Err(Stuck::Deadlock { at: self.elapsed() }),
            }
            steps += 1;
            if steps > MAX_STEPS {
                break Err(Stuck::Spinning { at: self.elapsed() });
            }
        };
        self.shared.remove_main(main);
        result
    }

    /// Runs all tasks until no event is scheduled, within `limit` of virtual time. Returns `true`
    /// if that point is reached.
    pub fn settle(&self, limit: Duration) -> bool {
        let rest = self.try_run(limit, std::future::pending::<std::convert::Infallible>());
        matches!(rest, Err(Stuck::Deadlock { .. }))
    }

    // --- faults ----------------------------------------------------------------------------------

    /// Sets the rate of a random fault of the bus, in permille: at how many of a thousand
    /// deliveries, publishes or subscriptions it happens.
    ///
    /// # Panics
    ///
    /// Panics if the fault is not a random fault of the bus. Methods of this type and of [`Node`]
    /// cause other faults.
    pub fn set_rate(&self, fault: Fault, permille: u64) {
        assert!(
            fault.is_bus_fault(),
            "cannot set the rate of {}: not a random fault of the bus",
            fault.name()
        );
        self.shared.lock().scene.faults.set(fault, permille);
    }

    /// Draws the rate of every fault of the bus from the seed. About half of the rates are zero, so
    /// that rare combinations of the others come up.
    pub fn set_random_rates(&self) {
        let state = &mut *self.shared.lock();
        state.scene.faults.redraw(&mut state.rng);
    }

    /// Stops all random faults.
    pub fn stop_faults(&self) {
        self.shared.lock().scene.faults.stop();
    }

    /// Loses the next `frames` frames for which `matches` returns `true`. Nobody receives them, and
    /// their publishers see no error.
    ///
    /// ```
    /// # use psrpc_simulation::World;
    /// # let world = World::new(7);
    /// use psrpc::proto::Frame;
    ///
    /// world.lose(2, |_, frame| matches!(frame, Frame::Response(_)));
    /// ```
    pub fn lose(&self, frames: usize, matches: impl FnMut(&Channel, &Frame) -> bool + Send + 'static) {
        self.shared.lock().losses.push(PlannedLoss { left: frames, matches: Box::new(matches) });
    }

    /// Cuts the connection between two groups of nodes in both directions, until
    /// [`mend`](Self::mend). Frames in transit still arrive.
    pub fn partition(&self, some: &[&Node], others: &[&Node]) {
        let net = &mut self.shared.lock().net;
        net.cut(&peers(some), &peers(others), Fault::Partition);
        net.cut(&peers(others), &peers(some), Fault::Partition);
    }

    /// Cuts the connection from one group of nodes to another, until [`mend`](Self::mend). Frames
    /// in transit still arrive.
    pub fn cut(&self, from: &[&Node], to: &[&Node]) {
        self.shared.lock().net.cut(&peers(from), &peers(to), Fault::OneWayPartition);
    }

    /// Connects all nodes again. Frames that were published meanwhile stay lost.
    pub fn mend(&self) {
        self.shared.lock().net.mend();
    }

    /// Returns the state that the nodes share.
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Sets a callback for every published frame.
    pub(crate) fn tap(&self, tap: impl FnMut(&Frame) + Send + 'static) {
        self.shared.lock().tap = Some(Box::new(tap));
    }

    // --- what happened ---------------------------------------------------------------------------

    /// Returns a hash of the trace so far. It depends only on the seed and the test, and is the
    /// same in debug and release builds.
    pub fn trace_hash(&self) -> u64 {
        self.shared.lock().scene.hash().value()
    }

    /// Returns how often each kind of fault happened.
    pub fn fault_counts(&self) -> FaultCounts {
        self.shared.lock().scene.faults.counts()
    }

    /// Returns the number of tasks: those of clients, servers and handlers, and
    /// [spawned](Node::spawn) ones.
    pub fn tasks(&self) -> usize {
        self.shared.lock().tasks.len()
    }

    /// Returns the number of subscriptions on the bus.
    pub fn subscriptions(&self) -> usize {
        self.shared.lock().sinks.len()
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("seed", &self.seed).field("elapsed", &self.elapsed()).finish()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.shared.clear();
    }
}

fn peers(nodes: &[&Node]) -> Vec<Peer> {
    nodes.iter().map(|node| node.peer()).collect()
}
