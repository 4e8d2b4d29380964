//! A client and a server with drivers, as users have them, on the in-process bus and one thread.

use std::collections::VecDeque;
use std::future::{Future, IntoFuture};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use psrpc::bus::{Bus, Offer, ReplyTo, Sink, Subscription, WakeList};
use psrpc::proto::{Channel, Frame, MethodProperties, Routing, Seed};
use psrpc::{
    Client, ClientOptions, ClientStream, Handlers, Method, Now, Request, Runtime, Server, ServerOptions,
    ServerStream, Service, SubscriptionKind, Task, Time,
};
use psrpc_bus_local::LocalBus;

use crate::{START, STEP, later, messages};

const CLAIMED: MethodProperties = MethodProperties { routing: Routing::Queue, require_claim: true };

static HATS: Service = Service {
    name: "Hats",
    methods: &[Method::call(0, "Fit", CLAIMED), Method::stream(1, "Parade", CLAIMED)],
};

const MESSAGE: &str = "a message of sixty-four bytes, which is about what many calls have";

/// A single-threaded executor. Its clock advances only on request.
#[derive(Clone)]
struct OneThread(Arc<Mutex<DriverState>>);

struct DriverState {
    now: Now,
    seeds: u8,
    /// `None` while the task runs, and after it has ended.
    tasks: Vec<Option<Task>>,
    /// The indices of ended tasks, for reuse.
    free: Vec<usize>,
    ready: VecDeque<Arc<TaskWaker>>,
}

struct TaskWaker {
    executor: OneThread,
    task: usize,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.executor.lock().ready.push_back(Arc::clone(&self));
    }
}

impl OneThread {
    fn new() -> Self {
        let (tasks, free, ready) = (Vec::new(), Vec::new(), VecDeque::new());
        Self(Arc::new(Mutex::new(DriverState { now: START, seeds: 0, tasks, free, ready })))
    }

    fn lock(&self) -> MutexGuard<'_, DriverState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs tasks until none is ready.
    fn run(&self) {
        loop {
            let (mut task, waker) = {
                let mut state = self.lock();
                let Some(waker) = state.ready.pop_front() else { return };
                let Some(task) = state.tasks[waker.task].take() else { continue };
                (task, waker)
            };
            let place = waker.task;
            let polled = task.as_mut().poll(&mut Context::from_waker(&Waker::from(waker)));
            if polled.is_pending() {
                self.lock().tasks[place] = Some(task);
            } else {
                // Dropped without holding the lock.
                drop(task);
                self.lock().free.push(place);
            }
        }
    }

    fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        loop {
            if let Poll::Ready(result) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                return result;
            }
            self.run();
        }
    }
}

impl Runtime for OneThread {
    fn now(&self) -> Now {
        self.lock().now
    }

    fn seed(&self) -> Seed {
        let mut state = self.lock();
        state.seeds += 1;
        [state.seeds; 32]
    }

    fn sleep_until(&self, _: Time) -> Task {
        // No measured operation waits this long.
        Box::pin(std::future::pending())
    }

    fn spawn(&self, task: Task) {
        let mut state = self.lock();
        let place = state.free.pop().unwrap_or_else(|| {
            state.tasks.push(None);
            state.tasks.len() - 1
        });
        state.tasks[place] = Some(task);
        state.ready.push_back(Arc::new(TaskWaker { executor: self.clone(), task: place }));
    }
}

/// A client and a server with drivers, after their first calls.
pub struct Driven {
    runtime: OneThread,
    client: Client,
    stream: ClientStream<String, String>,
    _server: Server,
}

impl Driven {
    /// Creates both on one bus, with an open stream.
    #[allow(clippy::new_without_default, reason = "a constructor with side effects")]
    pub fn new() -> Self {
        let (runtime, bus) = (OneThread::new(), LocalBus::new());
        let handlers = Handlers::new(&HATS, ())
            .unary(&HATS.methods[0], |_, request: Request<String>| async move { Ok(request.into_message()) })
            .stream(&HATS.methods[1], |_, stream: ServerStream<String, String>| async move {
                while stream.next().await.is_some() {}
                Ok(())
            });
        let server = Server::new(bus.clone(), runtime.clone(), handlers, ServerOptions::new().id("SRV_1"));
        let server = server.expect("a server");
        let methods = [&HATS.methods[0], &HATS.methods[1]];
        runtime.block_on(server.register(&methods, &[])).expect("a registration");
        let options = ClientOptions::new().id("CLI_1");
        let client = runtime.block_on(Client::new(bus, runtime.clone(), &HATS, options)).expect("a client");
        let opening = client.open_stream(&HATS.methods[1], &[]).into_future();
        let stream = runtime.block_on(opening).expect("a stream");
        let mut driven = Self { runtime, client, stream, _server: server };
        for _ in 0..1000 {
            driven.call();
            driven.message();
        }
        driven
    }

    fn pass_time(&self) {
        let mut state = self.runtime.lock();
        state.now = later(state.now, STEP);
    }

    /// Makes one call and waits for the response.
    pub fn call(&mut self) {
        self.pass_time();
        let call = self.client.call::<String, String>(&HATS.methods[0], &[], MESSAGE.to_owned());
        self.runtime.block_on(call.into_future()).expect("the call succeeds");
        self.runtime.run();
    }

    /// Sends one message on the stream and waits for its ack.
    pub fn message(&mut self) {
        self.pass_time();
        self.runtime.block_on(self.stream.send(MESSAGE.to_owned()).into_future()).expect("the send succeeds");
        self.runtime.run();
    }
}

/// A queue of the in-process bus.
pub struct BusQueue {
    bus: LocalBus,
    channel: Channel,
    _members: Vec<Subscription>,
}

impl BusQueue {
    /// Creates a queue whose members have all had a turn.
    pub fn new(members: usize) -> Self {
        let (bus, channel) = (LocalBus::new(), Channel::request::<&str>("Hats", "Fit", &[], true));
        let subscribe =
            |_| bus.subscribe(&channel, SubscriptionKind::Queue, Sink::new(|_, _| ()), &mut WakeList::new());
        let _members = (0..members).map(subscribe).collect();
        // The measured turn is at the end of a round, where a linear search would be slowest.
        let queue = Self { bus, channel, _members };
        (0..2 * members - 1).for_each(|_| queue.publish(messages::request()));
        queue
    }

    /// Publishes a frame to the member whose turn it is.
    pub fn publish(&self, frame: Frame) {
        let offer = Offer::new(self.channel.clone(), frame, ReplyTo::new(|_| ()));
        let _ = self.bus.publish(offer, &mut WakeList::new()).expect("it has room");
    }
}
