//! The world of a simulated service: virtual time, nodes that run the real psrpc, and a bus between
//! them that goes wrong as a seed or a test says.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use psrpc::Time;
use psrpc::proto::{Channel, Frame};

use super::executor::{Loss, Shared, Step};
use super::node::Node;
use crate::clock::Clock;
use crate::fault::{Fault, FaultCounts};
use crate::node_id::Peer;
use crate::trace::Show;

/// A simulated world, in which a test of your service runs: your handlers, the generated code, real
/// clients and servers, in virtual time, on one thread. The seed decides every choice that is left
/// open: which task runs next, how long a frame is under way, what goes wrong. So a test that fails
/// with a seed fails with it again.
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
/// # What goes wrong
///
/// | what | how |
/// |---|---|
/// | deliveries, publishes, subscriptions, by chance | [`set_rate`](Self::set_rate), [`set_random_rates`](Self::set_random_rates) |
/// | the next so many frames that a test points out | [`lose`](Self::lose) |
/// | nodes that do not hear each other | [`partition`](Self::partition), [`cut`](Self::cut) |
/// | nodes that are slow, pause, crash or are held up, clocks that are wrong | the functions of [`Node`] |
///
/// # Many seeds
///
/// [`check_seeds`](crate::check_seeds) runs a test with one seed after the other and says which one
/// failed.
pub struct World {
    shared: Arc<Shared>,
    seed: u64,
}

/// Why a future that was [run](World::try_run) does not come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stuck {
    /// It waits for something that never comes: nothing is left that could happen.
    Deadlock {
        /// The virtual time by then.
        at: Duration,
    },
    /// It goes on and on.
    TooLong {
        /// The virtual time by then.
        at: Duration,
    },
    /// Tasks wake each other without end while no time passes.
    Spinning {
        /// The virtual time at which they do.
        at: Duration,
    },
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stuck::Deadlock { at } => {
                write!(f, "at {at:?} nothing is left that could happen, and it still waits")
            }
            Stuck::TooLong { at } => write!(f, "at {at:?} it has not come to its end"),
            Stuck::Spinning { at } => write!(f, "at {at:?} tasks wake each other without end"),
        }
    }
}

impl std::error::Error for Stuck {}

/// How long a future may run that says nothing else, in virtual time.
const LIMIT: Duration = Duration::from_secs(24 * 3600);

/// How often tasks may run without any time passing.
const MOST_STEPS: u64 = 1_000_000;

impl World {
    /// A world without faults, in which a frame takes up to some milliseconds.
    pub fn new(seed: u64) -> Self {
        Self::make(seed, None)
    }

    /// The same, with all that happens going line by line to `show`.
    pub fn showing(seed: u64, mut show: impl FnMut(&str) + Send + 'static) -> Self {
        Self::make(seed, Some(Box::new(move |line| show(&line.to_string()))))
    }

    pub(crate) fn make(seed: u64, show: Option<Show>) -> Self {
        Self { shared: Shared::new(seed, show), seed }
    }

    /// What it was made with.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Adds a node: a machine with clocks, tasks and a connection to the bus of its own. The name
    /// is for people.
    pub fn node(&self, name: impl Into<String>) -> Node {
        self.node_with(name, Clock::RIGHT)
    }

    pub(crate) fn node_with(&self, name: impl Into<String>, clock: Clock) -> Node {
        Node::new(Arc::clone(&self.shared), name.into(), clock)
    }

    // --- time ------------------------------------------------------------------------------------

    /// How much time has passed since it was made.
    pub fn elapsed(&self) -> Duration {
        self.shared.lock().scene.now().since(Time::ZERO)
    }

    /// Resolves after that time.
    pub fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send + 'static {
        let at = self.shared.lock().scene.now() + duration;
        let mut sleep = Shared::sleep_until(&self.shared, at);
        poll_fn(move |cx| sleep.poll(cx))
    }

    /// Runs a future to its end, and all tasks of all nodes meanwhile. Tasks that are not done by
    /// then go on with the next run.
    ///
    /// # Panics
    ///
    /// When it does not come to its end, as [`try_run`](Self::try_run) tells; and with the panic of
    /// any task.
    pub fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.try_run(LIMIT, future).unwrap_or_else(|stuck| panic!("the simulation is stuck: {stuck}"))
    }

    /// Runs a future to its end, in so much virtual time at most.
    ///
    /// # Errors
    ///
    /// Why it does not come to its end.
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
                Step::Idle if self.shared.pass_time(end) => steps = 0,
                Step::Idle if self.shared.has_plans() => break Err(Stuck::TooLong { at: self.elapsed() }),
                Step::Idle => break Err(Stuck::Deadlock { at: self.elapsed() }),
            }
            steps += 1;
            if steps > MOST_STEPS {
                break Err(Stuck::Spinning { at: self.elapsed() });
            }
        };
        self.shared.remove_main(main);
        result
    }

    /// Runs what is left until nothing could happen any more, in so much virtual time at most;
    /// whether it came to that.
    pub fn settle(&self, limit: Duration) -> bool {
        let rest = self.try_run(limit, std::future::pending::<std::convert::Infallible>());
        matches!(rest, Err(Stuck::Deadlock { .. }))
    }

    // --- faults ----------------------------------------------------------------------------------

    /// How often in a thousand a fault of the bus happens where it can: to a delivery, a publish or
    /// a subscription.
    ///
    /// # Panics
    ///
    /// With a fault that is not of the bus; those are functions of this and of [`Node`].
    pub fn set_rate(&self, fault: Fault, permille: u64) {
        assert!(fault.is_of_bus(), "{} does not come by chance", fault.name());
        self.shared.lock().scene.faults.set(fault, permille);
    }

    /// Draws the rate of every fault of the bus from the seed; half of them stay out of it, so that
    /// rare combinations come up.
    pub fn set_random_rates(&self) {
        let state = &mut *self.shared.lock();
        state.scene.faults.redraw(&mut state.rng);
    }

    /// From here on nothing goes wrong by chance.
    pub fn stop_faults(&self) {
        self.shared.lock().scene.faults.stop();
    }

    /// Loses the next so many frames that `matches` points out: nobody gets them, and their
    /// publishers do not know.
    ///
    /// ```
    /// # use psrpc_simulation::World;
    /// # let world = World::new(7);
    /// use psrpc::proto::Frame;
    ///
    /// world.lose(2, |_, frame| matches!(frame, Frame::Response(_)));
    /// ```
    pub fn lose(&self, frames: usize, matches: impl FnMut(&Channel, &Frame) -> bool + Send + 'static) {
        self.shared.lock().losses.push(Loss { left: frames, matches: Box::new(matches) });
    }

    /// From here on what is published in one group of nodes does not get to the other, in both
    /// directions. What is under way arrives.
    pub fn partition(&self, some: &[&Node], others: &[&Node]) {
        let net = &mut self.shared.lock().net;
        net.cut(&peers(some), &peers(others), Fault::Partition);
        net.cut(&peers(others), &peers(some), Fault::Partition);
    }

    /// From here on what is published on these nodes does not get to those.
    pub fn cut(&self, from: &[&Node], to: &[&Node]) {
        self.shared.lock().net.cut(&peers(from), &peers(to), Fault::OneWayPartition);
    }

    /// Frames get through everywhere again. What did not is lost.
    pub fn mend(&self) {
        self.shared.lock().net.mend();
    }

    /// What the nodes share.
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Has somebody look at every frame that is published.
    pub(crate) fn tap(&self, tap: impl FnMut(&Frame) + Send + 'static) {
        self.shared.lock().tap = Some(Box::new(tap));
    }

    // --- what happened ---------------------------------------------------------------------------

    /// A hash of all that happened so far: the same for the same seed and test, in debug and
    /// release.
    pub fn trace_hash(&self) -> u64 {
        self.shared.lock().scene.hash().value()
    }

    /// How often each kind of fault happened.
    pub fn fault_counts(&self) -> FaultCounts {
        self.shared.lock().scene.faults.counts()
    }

    /// How many tasks there are: of clients and servers, of handlers, and what was
    /// [spawned](Node::spawn).
    pub fn tasks(&self) -> usize {
        self.shared.lock().tasks.len()
    }

    /// How many subscriptions the bus has.
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
        self.shared.end();
    }
}

fn peers(nodes: &[&Node]) -> Vec<Peer> {
    nodes.iter().map(|node| node.peer()).collect()
}
