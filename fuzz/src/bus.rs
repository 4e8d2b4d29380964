//! A bus that says anything: what becomes of frames, gaps of any size, ends, room. Clients end what
//! they have all the same.

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

/// What is between the client and the input.
#[derive(Clone, Default)]
struct Hand(Arc<Mutex<BusState>>);

#[derive(Default)]
struct BusState {
    now: Time,
    tasks: VecDeque<Task>,
    sinks: Vec<Sink>,
    receipts: Vec<Receipt>,
    full: bool,
}

impl Hand {
    fn lock(&self) -> MutexGuard<'_, BusState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs every task a few times, as one that wakes itself asks.
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

impl Runtime for Hand {
    fn now(&self) -> Now {
        let time = self.lock().now;
        Now { time, wall: WallTime::from_unix_nanos(1 << 60) + time.since(Time::ZERO) }
    }

    fn seed(&self) -> Seed {
        [7; 32]
    }

    fn sleep_until(&self, deadline: Time) -> Task {
        let hand = self.clone();
        Box::pin(std::future::poll_fn(move |_| match hand.lock().now >= deadline {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }))
    }

    fn spawn(&self, task: Task) {
        self.lock().tasks.push_back(task);
    }
}

impl Bus for Hand {
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

/// What a user waits for.
type Pending = Pin<Box<dyn Future<Output = ()>>>;

fn pend(future: impl Future<Output = ()> + 'static) -> Pending {
    Box::pin(future)
}

fn poll(pending: &mut Vec<Pending>) {
    pending.retain_mut(|future| future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
}

/// Two bytes and what they ask for say each what the bus does next. In the end it gives up every
/// subscription, time passes, and nothing may be pending (I1).
pub fn run(input: &[u8]) {
    let mut input = Input(input);
    let hand = Hand::default();
    let mut ready = Box::pin(Client::new(hand.clone(), hand.clone(), &HATS, ClientOptions::new()));
    let client = loop {
        hand.run();
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
        hand.step(&mut input);
        hand.run();
    }
    let sinks = std::mem::take(&mut hand.lock().sinks);
    drop(sinks);
    for _ in 0..4 {
        hand.lock().full = false;
        hand.run();
        poll(&mut pending);
        let now = hand.now().time;
        hand.lock().now = now + Duration::from_secs(5);
    }
    assert!(pending.is_empty(), "{} of a user's futures do not resolve", pending.len());
    let _ = format!("{:?}", client.counters());
}
