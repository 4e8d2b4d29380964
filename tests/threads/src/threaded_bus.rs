//! A bus with its own thread, like a bus with a connection.

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};

use psrpc::SubscriptionKind;
use psrpc::bus::{Accepted, Bus, Full, Offer, Receipt, ReplyTo, Sink, Subscription, WakeList};
use psrpc::proto::{Channel, Frame};
use psrpc_bus_local::LocalBus;
use shuttle::sync::{Mutex, MutexGuard};

/// A [`LocalBus`] behind a thread that executes all commands in order. Receipts, frames, and the
/// start and end of subscriptions come from that thread. Every second publish is reported as done
/// at once, without a receipt.
#[derive(Clone)]
pub struct ThreadedBus(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    commands: VecDeque<Command>,
    /// The number of further frames that there is room for.
    room: usize,
    waiting_for_room: Vec<Waker>,
    worker: Option<Waker>,
    accepted: u64,
    subscriptions: u64,
}

enum Command {
    Publish(Channel, Frame, Option<Receipt>),
    Subscribe(u64, Channel, SubscriptionKind, Sink),
    Unsubscribe(u64),
}

impl ThreadedBus {
    /// Creates a bus with room for `room` frames.
    pub fn new(room: usize) -> Self {
        let bus = Self(Arc::new(Mutex::new(State { room, ..State::default() })));
        drop(shuttle::future::spawn(bus.clone().work()));
        bus
    }

    async fn work(self) {
        let bus = LocalBus::new();
        let mut subscriptions = BTreeMap::new();
        loop {
            match poll_fn(|cx| self.poll_command(cx)).await {
                Command::Publish(channel, frame, receipt) => {
                    let offer = Offer::new(channel, frame, ReplyTo::new(|_| ()));
                    let accepted =
                        bus.publish(offer, &mut WakeList::new()).expect("a local bus always has room");
                    let Accepted::Done(receivers) = accepted else { panic!("{accepted:?}") };
                    if let Some(receipt) = receipt {
                        receipt.published(receivers);
                    }
                }
                Command::Subscribe(key, channel, kind, sink) => {
                    subscriptions.insert(key, bus.subscribe(&channel, kind, sink, &mut WakeList::new()));
                }
                Command::Unsubscribe(key) => drop(subscriptions.remove(&key)),
            }
        }
    }

    fn poll_command(&self, cx: &Context<'_>) -> Poll<Command> {
        let mut state = self.lock();
        let Some(command) = state.commands.pop_front() else {
            state.worker = Some(cx.waker().clone());
            return Poll::Pending;
        };
        if let Command::Publish(..) = command {
            state.room += 1;
            let wakers = std::mem::take(&mut state.waiting_for_room);
            drop(state);
            wakers.into_iter().for_each(Waker::wake);
        }
        Poll::Ready(command)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn push(&mut self, command: Command, wakes: &mut WakeList) {
        self.commands.push_back(command);
        wakes.extend(self.worker.take());
    }
}

impl Bus for ThreadedBus {
    fn publish(&self, offer: Offer<'_>, wakes: &mut WakeList) -> Result<Accepted, Full> {
        let mut state = self.lock();
        if state.room == 0 {
            return Err(Full);
        }
        state.room -= 1;
        state.accepted += 1;
        if state.accepted.is_multiple_of(2) {
            let channel = offer.channel().clone();
            state.push(Command::Publish(channel, offer.take(), None), wakes);
            return Ok(Accepted::Done(None));
        }
        let (channel, frame, receipt) = offer.take_for_later();
        state.push(Command::Publish(channel, frame, Some(receipt)), wakes);
        Ok(Accepted::Later)
    }

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.room > 0 {
            return Poll::Ready(());
        }
        state.waiting_for_room.push(cx.waker().clone());
        Poll::Pending
    }

    fn subscribe(
        &self,
        channel: &Channel,
        kind: SubscriptionKind,
        sink: Sink,
        wakes: &mut WakeList,
    ) -> Subscription {
        let mut state = self.lock();
        state.subscriptions += 1;
        let key = state.subscriptions;
        state.push(Command::Subscribe(key, channel.clone(), kind, sink), wakes);
        drop(state);
        let bus = self.clone();
        Subscription::new(move || {
            let mut wakes = WakeList::new();
            bus.lock().push(Command::Unsubscribe(key), &mut wakes);
        })
    }
}
