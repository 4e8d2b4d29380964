//! Tests of `FaultyBus`: each fault, and its effect on calls.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_core::Stream;
use psrpc::bus::{Accepted, Bus, Delivery, Full, Inbox, Offer, ReplyTo, Sink, Subscription, WakeList};
use psrpc::proto::{Any, Channel, Frame, Seed};
use psrpc::{
    BusError, Client, ClientOptions, Error, Handlers, Method, MethodProperties, Now, Reason, Request,
    Routing, Runtime, Server, ServerOptions, Service, SubscriptionKind, Task, Time,
};
use psrpc_bus_local::LocalBus;
use psrpc_conformance::runtime::{Host, Solo};
use psrpc_testing::{FaultyBus, Rule};

const CLAIMED: MethodProperties = MethodProperties { routing: Routing::Queue, require_claim: true };
const AFFINITY: MethodProperties = MethodProperties { routing: Routing::Affinity, require_claim: true };

static HATS: Service =
    Service { name: "Hats", methods: &[Method::call(0, "Fit", CLAIMED), Method::call(1, "Pick", AFFINITY)] };
static FIT: &Method = &HATS.methods[0];
static PICK: &Method = &HATS.methods[1];

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn run<F: Future<Output = ()>>(test: impl FnOnce(Solo, FaultyBus) -> F) {
    let solo = Solo::new();
    let bus = FaultyBus::new(LocalBus::new(), solo.clone(), 1);
    solo.clone().block_on(Box::pin(test(solo, bus)));
}

async fn sleep(solo: &Solo, duration: Duration) {
    solo.sleep_until(solo.now().time + duration).await;
}

/// Creates a server that responds with its id and bids `affinity`. Also returns the number of
/// handler runs.
async fn server(solo: &Solo, bus: &FaultyBus, id: &str, affinity: f32) -> (Server, Arc<AtomicU64>) {
    let runs = Arc::new(AtomicU64::new(0));
    let state = (id.to_owned(), affinity, Arc::clone(&runs));
    type State = (String, f32, Arc<AtomicU64>);
    async fn handle(state: Arc<State>, _: Request<String>) -> Result<String, Error> {
        state.2.fetch_add(1, Ordering::Relaxed);
        Ok(state.0.clone())
    }
    let handlers = Handlers::new(&HATS, state).unary(FIT, handle).unary_with_affinity(
        PICK,
        handle,
        |state: &State, _: &Request<String>| state.1,
    );
    let server = Server::new(bus.clone(), solo.clone(), handlers, ServerOptions::new().id(id)).unwrap();
    server.register(&[FIT, PICK], &[]).await.unwrap();
    (server, runs)
}

async fn client(solo: &Solo, bus: &FaultyBus) -> Client {
    Client::new(bus.clone(), solo.clone(), &HATS, ClientOptions::new()).await.unwrap()
}

async fn call(client: &Client, method: &'static Method) -> Result<String, Error> {
    client.call(method, &[], "a hat".to_owned()).await
}

fn is_response(_: &Channel, frame: &Frame) -> bool {
    matches!(frame, Frame::Response(_))
}

/// A channel that carries numbered frames, on a bus without clients and servers.
struct NumberedChannel<'a> {
    bus: &'a FaultyBus,
    channel: Channel,
    inbox: Inbox,
    _subscription: Subscription,
}

impl<'a> NumberedChannel<'a> {
    fn new(bus: &'a FaultyBus, name: &str) -> Self {
        let channel = Channel::response("Hats", name);
        let (sink, inbox) = Inbox::new(1000);
        let subscription = bus.subscribe(&channel, SubscriptionKind::Plain, sink, &mut WakeList::new());
        Self { bus, channel, inbox, _subscription: subscription }
    }

    fn publish(&self, numbers: impl IntoIterator<Item = u8>) {
        for number in numbers {
            let offer = Offer::new(self.channel.clone(), frame(number), ReplyTo::new(|_| ()));
            let _ = self.bus.publish(offer, &mut WakeList::new()).unwrap();
        }
    }

    fn arrived(&mut self) -> Vec<u8> {
        let mut cx = Context::from_waker(Waker::noop());
        let mut arrived = Vec::new();
        while let Poll::Ready(Some(delivery)) = Pin::new(&mut self.inbox).poll_next(&mut cx) {
            if let Delivery::Frame(Frame::Other(any)) = delivery {
                arrived.push(any.value[0]);
            }
        }
        arrived
    }
}

fn frame(number: u8) -> Frame {
    Frame::Other(Any { value: vec![number].into(), ..Any::default() })
}

/// Creates a `ReplyTo`, and the receiver of its result.
fn reply_to() -> (ReplyTo, mpsc::Receiver<Result<Option<u64>, String>>) {
    let (sender, results) = mpsc::channel();
    let reply_to = ReplyTo::new(move |result| {
        // The receiver is gone if the test has failed.
        let _ = sender.send(result.map_err(|error| error.to_string()));
    });
    (reply_to, results)
}

#[test]
fn a_request_that_is_lost_fails_its_call_and_the_next_one_succeeds() {
    run(|solo, bus| async move {
        let (_server, runs) = server(&solo, &bus, "srv", 1.0).await;
        let client = client(&solo, &bus).await;
        bus.inject(Rule::drop().channel("Hats|Fit|REQ").first(1));
        assert_eq!(call(&client, FIT).await.unwrap_err().reason(), Some(Reason::NoResponse));
        assert_eq!((bus.injected().dropped, runs.load(Ordering::Relaxed)), (1, 0));
        assert_eq!(call(&client, FIT).await.unwrap(), "srv");
    });
}

#[test]
fn a_handler_runs_once_though_every_frame_comes_three_times() {
    run(|solo, bus| async move {
        let (_server, runs) = server(&solo, &bus, "srv", 1.0).await;
        let client = client(&solo, &bus).await;
        bus.inject(Rule::duplicate(2));
        for method in [FIT, PICK] {
            assert_eq!(call(&client, method).await.unwrap(), "srv");
        }
        sleep(&solo, SECOND + MILLISECOND).await;
        assert_eq!(runs.load(Ordering::Relaxed), 2);
        // A request, a bid, a grant and a response, for each of two calls.
        assert_eq!(bus.injected().duplicated, 2 * 8);
    });
}

#[test]
fn a_response_is_as_late_as_it_is_delayed() {
    run(|solo, bus| async move {
        let (_server, _) = server(&solo, &bus, "srv", 1.0).await;
        let client = client(&solo, &bus).await;
        bus.inject(Rule::delay(300 * MILLISECOND).when(is_response));
        let start = solo.now().time;
        call(&client, FIT).await.unwrap();
        assert_eq!(solo.now().time.since(start), 300 * MILLISECOND);
        bus.heal();
        let start = solo.now().time;
        call(&client, FIT).await.unwrap();
        assert_eq!(solo.now().time, start);
    });
}

#[test]
fn the_server_whose_bids_are_late_does_not_win() {
    run(|solo, bus| async move {
        let (_best, _) = server(&solo, &bus, "best", 0.9).await;
        let (_other, _) = server(&solo, &bus, "other", 0.5).await;
        let client = client(&solo, &bus).await;
        assert_eq!(call(&client, PICK).await.unwrap(), "best");
        let late =
            |_: &Channel, frame: &Frame| matches!(frame, Frame::ClaimRequest(bid) if bid.server_id == "best");
        bus.inject(Rule::delay(500 * MILLISECOND).when(late));
        assert_eq!(call(&client, PICK).await.unwrap(), "other");
        assert_eq!(bus.injected().delayed, 1);
    });
}

#[test]
fn responses_out_of_order_reach_the_calls_that_they_answer() {
    run(|solo, bus| async move {
        let (_server, _) = server(&solo, &bus, "srv", 1.0).await;
        let client = client(&solo, &bus).await;
        bus.inject(Rule::reorder(2, SECOND).when(is_response));
        let order = Arc::new(Mutex::new(Vec::new()));
        for number in 0..6 {
            let (call, order) = (client.call::<_, String>(FIT, &[], "a hat".to_owned()), Arc::clone(&order));
            solo.spawn(Box::pin(async move {
                call.await.unwrap();
                order.lock().unwrap().push(number);
            }));
        }
        sleep(&solo, SECOND + MILLISECOND).await;
        assert_eq!(*order.lock().unwrap(), [1, 2, 0, 4, 5, 3]);
        assert_eq!(bus.injected().reordered, 2);
    });
}

fn bus_error(error: &Error) -> &BusError {
    error.get_ref().unwrap().downcast_ref().unwrap()
}

#[test]
fn a_publish_that_fails_fails_the_call_at_once() {
    run(|solo, bus| async move {
        let client = client(&solo, &bus).await;
        bus.inject(Rule::fail(BusError::new("the cable is cut")));
        let start = solo.now();
        let error = call(&client, FIT).await.unwrap_err();
        assert_eq!(error.reason(), Some(Reason::PublishFailed));
        assert_eq!(bus_error(&error).to_string(), "the cable is cut");
        assert_eq!((solo.now(), bus.injected().failed), (start, 1));
    });
}

#[test]
fn a_call_goes_on_when_the_bus_is_unblocked() {
    run(|solo, bus| async move {
        let (_server, _) = server(&solo, &bus, "srv", 1.0).await;
        let client = client(&solo, &bus).await;
        bus.block();
        let (start, unblocks) = (solo.now().time, bus.clone());
        let later = solo.sleep_until(start + 200 * MILLISECOND);
        solo.spawn(Box::pin(async move {
            later.await;
            unblocks.unblock();
        }));
        assert_eq!(call(&client, FIT).await.unwrap(), "srv");
        assert_eq!(solo.now().time.since(start), 200 * MILLISECOND);
        assert!(bus.injected().blocked > 0);
    });
}

#[test]
fn a_fault_at_delivery_hits_only_the_subscribers_that_use_this_bus() {
    run(|solo, _| async move {
        let local = LocalBus::new();
        let buses = [0, 1].map(|_| FaultyBus::new(local.clone(), solo.clone(), 1));
        let [mut first, mut second] = buses.each_ref().map(|bus| NumberedChannel::new(bus, "same"));
        buses[0].inject(Rule::drop().at_delivery().first(1));
        first.publish([1]);
        second.publish([2]);
        assert_eq!((first.arrived(), second.arrived()), (vec![2], vec![1, 2]));
        assert_eq!((buses[0].injected().dropped, buses[1].injected().dropped), (1, 0));
    });
}

#[test]
fn a_subscription_that_fails_at_delivery_is_lost_for_good() {
    run(|solo, bus| async move {
        let (_server, _) = server(&solo, &bus, "srv", 1.0).await;
        let client = client(&solo, &bus).await;
        bus.inject(Rule::fail(BusError::new("the server is gone")).at_delivery().when(is_response));
        let error = call(&client, FIT).await.unwrap_err();
        assert_eq!(error.reason(), Some(Reason::SubscriptionLost));
        assert_eq!(bus_error(&error).to_string(), "the server is gone");
    });
}

#[test]
fn delayed_frames_keep_their_order_and_others_overtake_them() {
    run(|solo, bus| async move {
        let mut line = NumberedChannel::new(&bus, "a");
        let late = bus.inject(Rule::delay(SECOND));
        line.publish([1, 2, 3]);
        bus.remove(late);
        line.publish([4, 5]);
        assert_eq!(line.arrived(), [4, 5]);
        sleep(&solo, SECOND - MILLISECOND).await;
        assert!(line.arrived().is_empty());
        sleep(&solo, MILLISECOND).await;
        assert_eq!(line.arrived(), [1, 2, 3]);
    });
}

#[test]
fn a_frame_that_comes_due_earlier_does_not_wait_for_those_before_it() {
    run(|solo, bus| async move {
        let mut line = NumberedChannel::new(&bus, "a");
        bus.inject(Rule::delay(SECOND).first(1));
        line.publish([1]);
        bus.inject(Rule::delay(MILLISECOND).first(1));
        sleep(&solo, MILLISECOND).await;
        line.publish([2]);
        sleep(&solo, 2 * MILLISECOND).await;
        assert_eq!(line.arrived(), [2]);
        sleep(&solo, SECOND + MILLISECOND).await;
        assert_eq!(line.arrived(), [1]);
    });
}

#[test]
fn a_frame_is_held_back_until_others_of_its_channel_overtook_it_or_its_time_is_up() {
    run(|solo, bus| async move {
        let (mut line, mut other) = (NumberedChannel::new(&bus, "held"), NumberedChannel::new(&bus, "free"));
        bus.inject(Rule::reorder(2, SECOND).channel("held"));
        bus.inject(Rule::duplicate(1).channel("free"));
        line.publish([1, 2]);
        other.publish([7, 8, 9]);
        assert_eq!((line.arrived(), other.arrived()), (vec![2], vec![7, 7, 8, 8, 9, 9]));
        line.publish([3, 4]);
        assert_eq!(line.arrived(), [3, 1]);
        sleep(&solo, SECOND + MILLISECOND).await;
        assert_eq!(line.arrived(), [4]);
        assert_eq!(bus.injected().reordered, 2);
    });
}

#[test]
fn the_same_seed_gives_the_same_faults_and_another_seed_others() {
    let faults = |seed| {
        let solo = Solo::new();
        let bus = FaultyBus::new(LocalBus::new(), solo.clone(), seed);
        let arrived = Arc::new(Mutex::new(Vec::new()));
        let found = Arc::clone(&arrived);
        solo.clone().block_on(Box::pin(async move {
            let mut line = NumberedChannel::new(&bus, "a");
            bus.inject(Rule::drop().probability(0.2));
            bus.inject(Rule::duplicate(1).probability(0.3));
            bus.inject(Rule::delay_within(MILLISECOND..=SECOND));
            line.publish(0..100);
            sleep(&solo, SECOND + MILLISECOND).await;
            let injected = bus.injected();
            assert!((5..40).contains(&injected.dropped), "{injected:?}");
            assert!((10..50).contains(&injected.duplicated), "{injected:?}");
            *found.lock().unwrap() = line.arrived();
            let expected = 100 - injected.dropped + injected.duplicated;
            assert_eq!(found.lock().unwrap().len() as u64, expected);
        }));
        Arc::into_inner(arrived).unwrap().into_inner().unwrap()
    };
    assert_eq!(faults(1), faults(1));
    assert_ne!(faults(1), faults(2));
    assert!(!faults(1).is_sorted());
}

#[test]
fn each_rule_draws_by_itself() {
    run(|_, bus| async move {
        let mut lines = ["one", "two"].map(|name| {
            bus.inject(Rule::drop().probability(0.5).channel(name));
            NumberedChannel::new(&bus, name)
        });
        lines.iter().for_each(|line| line.publish(0..64));
        let [one, two] = lines.each_mut().map(NumberedChannel::arrived);
        assert_ne!(one, two);
    });
}

#[test]
fn a_receipt_says_published_of_a_frame_that_is_lost_and_says_nothing_of_one_that_is_late() {
    run(|solo, bus| async move {
        let line = NumberedChannel::new(&bus, "a");
        bus.inject(Rule::drop().first(1));
        let (lost, results) = reply_to();
        let _ = bus.publish(Offer::new(line.channel.clone(), frame(1), lost), &mut WakeList::new()).unwrap();
        assert_eq!(results.try_recv(), Ok(Ok(None)));
        bus.inject(Rule::delay(SECOND));
        let (late, results) = reply_to();
        let _ = bus.publish(Offer::new(line.channel.clone(), frame(2), late), &mut WakeList::new()).unwrap();
        assert!(results.try_recv().is_err());
        sleep(&solo, SECOND + MILLISECOND).await;
        assert_eq!(results.try_recv(), Ok(Ok(Some(1))));
    });
}

#[test]
fn interceptors_see_and_change_what_passes() {
    run(|_, bus| async move {
        let refuse_b = |channel: &Channel, _, sink: Sink, wakes: &mut WakeList| {
            if !channel.legacy().contains("b") {
                return Some(sink);
            }
            sink.fail(BusError::new("not allowed"), wakes);
            None
        };
        bus.intercept_subscribe(refuse_b);
        let (mut line, mut refused) = (NumberedChannel::new(&bus, "a"), NumberedChannel::new(&bus, "b"));
        let number = |frame: &Frame| match frame {
            Frame::Other(any) => any.value[0],
            other => panic!("{other:?}"),
        };
        bus.intercept_publish(move |_, published, receipt| match number(&published) {
            1 => {
                receipt.failed(BusError::new("no ones"));
                None
            }
            seen => Some((frame(seen + 10), receipt)),
        });
        bus.intercept_delivery(move |_, delivered| (number(&delivered) != 12).then_some(delivered));
        line.publish([1, 2, 3]);
        refused.publish([3]);
        assert_eq!(line.arrived(), [13]);
        assert!(refused.arrived().is_empty());
        bus.heal();
        line.publish([1, 2]);
        assert_eq!(line.arrived(), [1, 2]);
    });
}

#[test]
fn an_interceptor_that_panics_fails_the_publish_and_nothing_else() {
    run(|solo, bus| async move {
        let (_server, _) = server(&solo, &bus, "srv", 1.0).await;
        let client = client(&solo, &bus).await;
        bus.intercept_publish(|_, _, _| panic!("requested by the test"));
        assert_eq!(call(&client, FIT).await.unwrap_err().reason(), Some(Reason::PublishFailed));
        bus.heal();
        bus.inject(Rule::drop().when(|_, _| panic!("requested by the test")));
        assert_eq!(call(&client, FIT).await.unwrap(), "srv");
    });
}

/// A local bus with a limited capacity.
#[derive(Clone, Default)]
struct BoundedBus {
    local: LocalBus,
    room: Arc<Mutex<(usize, Vec<Waker>)>>,
}

impl BoundedBus {
    fn make_room(&self, room: usize) {
        let waiting = {
            let mut state = self.room.lock().unwrap();
            state.0 = room;
            std::mem::take(&mut state.1)
        };
        waiting.into_iter().for_each(Waker::wake);
    }
}

impl Bus for BoundedBus {
    fn publish(&self, offer: Offer<'_>, wakes: &mut WakeList) -> Result<Accepted, Full> {
        let mut room = self.room.lock().unwrap();
        if room.0 == 0 {
            return Err(Full);
        }
        room.0 -= 1;
        drop(room);
        self.local.publish(offer, wakes)
    }

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut room = self.room.lock().unwrap();
        if room.0 > 0 {
            return Poll::Ready(());
        }
        room.1.push(cx.waker().clone());
        Poll::Pending
    }

    fn subscribe(
        &self,
        channel: &Channel,
        kind: SubscriptionKind,
        sink: Sink,
        wakes: &mut WakeList,
    ) -> Subscription {
        self.local.subscribe(channel, kind, sink, wakes)
    }
}

#[test]
fn what_is_due_when_the_wrapped_bus_is_full_waits_for_room_and_so_does_what_comes_after() {
    run(|solo, _| async move {
        let bounded = BoundedBus::default();
        let bus = FaultyBus::new(bounded.clone(), solo.clone(), 1);
        let mut line = NumberedChannel::new(&bus, "a");
        let mut cx = Context::from_waker(Waker::noop());
        assert!(bus.poll_ready(&mut cx).is_pending(), "ready although the wrapped bus is not");
        let full = bus
            .publish(Offer::new(line.channel.clone(), frame(1), ReplyTo::new(|_| ())), &mut WakeList::new());
        assert!(full.is_err(), "the frame was accepted");
        bus.inject(Rule::duplicate(1).first(2));
        line.publish([1]);
        bounded.make_room(1);
        sleep(&solo, MILLISECOND).await;
        assert_eq!(line.arrived(), [1]);
        assert!(
            bus.publish(
                Offer::new(line.channel.clone(), frame(2), ReplyTo::new(|_| ())),
                &mut WakeList::new()
            )
            .is_err(),
            "the frame was accepted before the pending copy"
        );
        assert!(bus.poll_ready(&mut cx).is_pending());
        bounded.make_room(9);
        poll_fn(|cx| bus.poll_ready(cx)).await;
        line.publish([2]);
        assert_eq!(line.arrived(), [1, 2, 2]);
        assert_eq!(bus.injected().blocked, 1);
    });
}

/// A runtime that tracks its unfinished tasks by a reference count.
struct TrackedRuntime(Solo, Arc<()>);

impl Runtime for TrackedRuntime {
    fn now(&self) -> Now {
        self.0.now()
    }

    fn seed(&self) -> Seed {
        self.0.seed()
    }

    fn sleep_until(&self, deadline: Time) -> Task {
        self.0.sleep_until(deadline)
    }

    fn spawn(&self, task: Task) {
        let held = Arc::clone(&self.1);
        self.0.spawn(Box::pin(async move {
            task.await;
            drop(held);
        }));
    }
}

#[test]
fn a_bus_that_is_dropped_lets_go_of_its_frames_and_its_task_ends() {
    run(|solo, _| async move {
        let tasks = Arc::new(());
        let bus = FaultyBus::new(LocalBus::new(), TrackedRuntime(solo.clone(), Arc::clone(&tasks)), 1);
        bus.inject(Rule::delay(3600 * SECOND));
        let (late, results) = reply_to();
        let _ = bus
            .publish(Offer::new(Channel::response("Hats", "a"), frame(1), late), &mut WakeList::new())
            .unwrap();
        sleep(&solo, MILLISECOND).await;
        // Held by the test, the runtime and the task.
        assert_eq!(Arc::strong_count(&tasks), 3);
        drop(bus);
        let message = "the bus dropped the frame without a reason".to_owned();
        assert_eq!(results.try_recv(), Ok(Err(message)));
        sleep(&solo, MILLISECOND).await;
        assert_eq!(Arc::strong_count(&tasks), 1);
    });
}

#[test]
fn the_task_ends_when_nothing_waits_and_another_starts_when_something_does() {
    run(|solo, _| async move {
        let tasks = Arc::new(());
        let bus = FaultyBus::new(LocalBus::new(), TrackedRuntime(solo.clone(), Arc::clone(&tasks)), 1);
        bus.inject(Rule::delay(SECOND));
        let mut line = NumberedChannel::new(&bus, "a");
        for number in 0..3 {
            line.publish([number]);
            assert_eq!(Arc::strong_count(&tasks), 3);
            sleep(&solo, SECOND + MILLISECOND).await;
            assert_eq!(line.arrived(), [number]);
            assert_eq!(Arc::strong_count(&tasks), 2);
        }
    });
}
