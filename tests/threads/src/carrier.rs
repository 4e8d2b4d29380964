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
pub struct Carrier(Arc<Mutex<Waiting>>);

#[derive(Default)]
struct Waiting {
    orders: VecDeque<Order>,
    /// The number of further frames that there is room for.
    room: usize,
    waiting_for_room: Vec<Waker>,
    carrier: Option<Waker>,
    accepted: u64,
    subscriptions: u64,
}

enum Order {
    Publish(Channel, Frame, Option<Receipt>),
    Subscribe(u64, Channel, SubscriptionKind, Sink),
    Unsubscribe(u64),
}

impl Carrier {
    /// Creates a bus with room for `room` frames.
    pub fn new(room: usize) -> Self {
        let carrier = Self(Arc::new(Mutex::new(Waiting { room, ..Waiting::default() })));
        drop(shuttle::future::spawn(carrier.clone().carry()));
        carrier
    }

    async fn carry(self) {
        let bus = LocalBus::new();
        let mut subscriptions = BTreeMap::new();
        loop {
            match poll_fn(|cx| self.poll_order(cx)).await {
                Order::Publish(channel, frame, receipt) => {
                    let offer = Offer::new(channel, frame, ReplyTo::new(|_| ()));
                    let accepted = bus.publish(offer, &mut WakeList::new()).expect("it always has room");
                    let Accepted::Done(receivers) = accepted else { panic!("{accepted:?}") };
                    if let Some(receipt) = receipt {
                        receipt.published(receivers);
                    }
                }
                Order::Subscribe(key, channel, kind, sink) => {
                    subscriptions.insert(key, bus.subscribe(&channel, kind, sink, &mut WakeList::new()));
                }
                Order::Unsubscribe(key) => drop(subscriptions.remove(&key)),
            }
        }
    }

    fn poll_order(&self, cx: &Context<'_>) -> Poll<Order> {
        let mut waiting = self.lock();
        let Some(order) = waiting.orders.pop_front() else {
            waiting.carrier = Some(cx.waker().clone());
            return Poll::Pending;
        };
        if let Order::Publish(..) = order {
            waiting.room += 1;
            let wakers = std::mem::take(&mut waiting.waiting_for_room);
            drop(waiting);
            wakers.into_iter().for_each(Waker::wake);
        }
        Poll::Ready(order)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn order(&mut self, order: Order, wakes: &mut WakeList) {
        self.orders.push_back(order);
        wakes.extend(self.carrier.take());
    }
}

impl Bus for Carrier {
    fn publish(&self, offer: Offer<'_>, wakes: &mut WakeList) -> Result<Accepted, Full> {
        let mut waiting = self.lock();
        if waiting.room == 0 {
            return Err(Full);
        }
        waiting.room -= 1;
        waiting.accepted += 1;
        if waiting.accepted.is_multiple_of(2) {
            let channel = offer.channel().clone();
            waiting.order(Order::Publish(channel, offer.take(), None), wakes);
            return Ok(Accepted::Done(None));
        }
        let (channel, frame, receipt) = offer.take_for_later();
        waiting.order(Order::Publish(channel, frame, Some(receipt)), wakes);
        Ok(Accepted::Later)
    }

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut waiting = self.lock();
        if waiting.room > 0 {
            return Poll::Ready(());
        }
        waiting.waiting_for_room.push(cx.waker().clone());
        Poll::Pending
    }

    fn subscribe(
        &self,
        channel: &Channel,
        kind: SubscriptionKind,
        sink: Sink,
        wakes: &mut WakeList,
    ) -> Subscription {
        let mut waiting = self.lock();
        waiting.subscriptions += 1;
        let key = waiting.subscriptions;
        waiting.order(Order::Subscribe(key, channel.clone(), kind, sink), wakes);
        drop(waiting);
        let bus = self.clone();
        Subscription::new(move || {
            let mut wakes = WakeList::new();
            bus.lock().order(Order::Unsubscribe(key), &mut wakes);
        })
    }
}
