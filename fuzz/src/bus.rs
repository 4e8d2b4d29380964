//! A bus that behaves arbitrarily: receipts, gaps of any size, ends and room. Every call, multi
//! call and subscription of a client must end all the same.

use std::collections::VecDeque;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use psrpc::bus::{Accepted, Bus, Full, Offer, Receipt, Sink, Subscription, WakeList};
use psrpc::proto::{Any, Channel, Frame, Seed};
use psrpc::{
    BusError, Client, ClientOptions, Error, Method, MethodProperties, Now, Routing, Runtime, Service,
    SubscriptionKind, Task, Time, WallTime,
};

use crate::input::Input;

const CALL: MethodProperties = MethodProperties { routing: Routing::Queue, require_claim: true };
const MULTI: MethodProperties = MethodProperties { routing: Routing::Multi, require_claim: false };

static HATS: Service = Service {
    name: "Hats",
    methods: &[
        Method::call(0, "Fit", CALL),
        Method::call(1, "Census", MULTI),
        Method::subscription(2, "News", MULTI).messages("", "hats.News"),
    ],
};

/// A bus and runtime controlled by the input.
#[derive(Clone, Default)]
struct ControlledBus(Arc<Mutex<BusState>>);

#[derive(Default)]
struct BusState {
    now: Time,
    tasks: VecDeque<Task>,
    sinks: Vec<Sink>,
    receipts: Vec<Receipt>,
    full: bool,
}

impl ControlledBus {
    fn lock(&self) -> MutexGuard<'_, BusState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Polls every task a few times, since tasks may wake themselves.
    fn run(&self) {
        for _ in 0..8 {
            let tasks = std::mem::take(&mut self.lock().tasks);
            for mut task in tasks {
                if task.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
                    self.lock().tasks.push_back(task);
                }
            }
        }
    }

    fn step(&self, input: &mut Input<'_>) {
        let (kind, at) = (input.byte() % 10, usize::from(input.byte()));
        let mut wakes = WakeList::new();
        let mut state = self.lock();
        match kind {
            0..=2 => {
                let Some(place) = at.checked_rem(state.receipts.len()) else { return };
                let receipt = state.receipts.swap_remove(place);
                drop(state);
                match input.byte() % 4 {
                    0 => receipt.failed(BusError::new("no")),
                    1 => receipt.failed(BusError::invalid("never")),
                    2 => receipt.published(None),
                    _ => receipt.published(Some(input.long() as u64)),
                }
            }
            3 | 4 => {
                let lost = input.flag().then(|| input.long() as u64);
                let Some(place) = at.checked_rem(state.sinks.len()) else { return };
                state.sinks[place].gap(lost, &mut wakes);
            }
            5 => {
                let Some(place) = at.checked_rem(state.sinks.len()) else { return };
                let sink = state.sinks.swap_remove(place);
                drop(state);
                if input.flag() {
                    sink.fail(BusError::new("gone"), &mut wakes);
                }
            }
            6 => {
                let Some(place) = at.checked_rem(state.sinks.len()) else { return };
                let update = Any { type_url: "/hats.News".into(), ..Any::default() };
                match input.byte() % 4 {
                    0 => state.sinks[place].live(&mut wakes),
                    1 => state.sinks[place].deliver(Frame::Other(update), &mut wakes),
                    2 => state.sinks[place].interrupted(BusError::new("not now"), &mut wakes),
                    _ => state.sinks[place].misrouted(Frame::Other(update), &mut wakes),
                }
            }
            7 => state.full = !state.full,
            _ => state.now = state.now + Duration::from_millis(at as u64 * 8),
        }
    }
}

impl Runtime for ControlledBus {
    fn now(&self) -> Now {
        let time = self.lock().now;
        Now { time, wall: WallTime::from_unix_nanos(1 << 60) + time.since(Time::ZERO) }
    }

    fn seed(&self) -> Seed {
        [7; 32]
    }

    fn sleep_until(&self, deadline: Time) -> Task {
        let controlled = self.clone();
        Box::pin(std::future::poll_fn(move |_| match controlled.lock().now >= deadline {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }))
    }

    fn spawn(&self, task: Task) {
        self.lock().tasks.push_back(task);
    }
}

impl Bus for ControlledBus {
    fn publish(&self, offer: Offer<'_>, _: &mut WakeList) -> Result<Accepted, Full> {
        let mut state = self.lock();
        if state.full {
            return Err(Full);
        }
        let (_, _, receipt) = offer.take_for_later();
        state.receipts.push(receipt);
        Ok(Accepted::Later)
    }

    fn poll_ready(&self, _: &mut Context<'_>) -> Poll<()> {
        if self.lock().full { Poll::Pending } else { Poll::Ready(()) }
    }

    fn subscribe(&self, _: &Channel, _: SubscriptionKind, sink: Sink, wakes: &mut WakeList) -> Subscription {
        sink.live(wakes);
        self.lock().sinks.push(sink);
        Subscription::new(|| ())
    }
}

/// A future of the user.
type Pending = Pin<Box<dyn Future<Output = ()>>>;

fn pend(future: impl Future<Output = ()> + 'static) -> Pending {
    Box::pin(future)
}

fn poll(pending: &mut Vec<Pending>) {
    pending.retain_mut(|future| future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
}

/// Runs the steps in the input: one byte for the kind, one for the target, then arguments. At the
/// end all subscriptions fail and time passes; no future may be pending then (I1).
pub fn run(input: &[u8]) {
    let mut input = Input(input);
    let controlled = ControlledBus::default();
    let mut ready =
        Box::pin(Client::new(controlled.clone(), controlled.clone(), &HATS, ClientOptions::new()));
    let client = loop {
        controlled.run();
        match ready.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(client) => break client.expect("its subscriptions are live"),
            Poll::Pending => {}
        }
    };
    let [fit, census, news] = [0, 1, 2].map(|method| &HATS.methods[method]);
    let call = client.call::<_, String>(fit, &[], String::new()).into_future();
    let multi = client.multi_call::<_, String>(census, &[], String::new()).into_future();
    let listening = client.subscribe::<String>(news, &[]).into_future();
    let mut pending = vec![
        pend(async move { drop(call.await) }),
        pend(async move {
            let Ok(mut answers) = multi.await else { return };
            while answers.next().await.is_some() {}
        }),
        pend(async move {
            let Ok(mut updates) = listening.await else { return };
            while let Some(update) = updates.next().await {
                drop::<Result<String, Error>>(update);
            }
        }),
    ];
    while !input.is_over() {
        poll(&mut pending);
        controlled.step(&mut input);
        controlled.run();
    }
    let sinks = std::mem::take(&mut controlled.lock().sinks);
    drop(sinks);
    for _ in 0..4 {
        controlled.lock().full = false;
        controlled.run();
        poll(&mut pending);
        let now = controlled.now().time;
        controlled.lock().now = now + Duration::from_secs(5);
    }
    assert!(pending.is_empty(), "{} futures of the user did not resolve", pending.len());
    let _ = format!("{:?}", client.counters());
}
