//! Timers: deadlines that become earlier while the driver goes to sleep.

use std::time::Duration;

use psrpc::bus::{Bus, Inbox, WakeList};
use psrpc::proto::Channel;
use psrpc::{Reason, SubscriptionKind, Time};
use psrpc_bus_local::LocalBus;
use psrpc_threads::{Shop, ThreadedBus, Threads, client, explore};
use shuttle::future::{block_on, spawn};

const SHORT: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_millis(500);

#[test]
fn a_shorter_call_times_out_in_time_while_the_driver_goes_to_sleep_for_a_longer_one() {
    explore(1500, || {
        let threads = Threads::default();
        let bus = LocalBus::new();
        // A subscriber that never responds.
        let requests = Channel::request::<&str>("Shop", Shop::NEXT.name, &[], Shop::NEXT.properties.queue());
        let (sink, _inbox) = Inbox::new(8);
        let _ignored = bus.subscribe(&requests, SubscriptionKind::Queue, sink, &mut WakeList::new());
        let client = client(bus, &threads);
        let call = |deadline| {
            let call = client.call::<_, u32>(Shop::NEXT, &[], 1_u32).deadline(Time::ZERO + deadline);
            spawn(async move { call.await.unwrap_err() })
        };
        let (long, short) = (call(LONG), call(SHORT));
        block_on(threads.clock().wait_for_sleeper(Time::ZERO + SHORT));
        threads.clock().advance(SHORT);
        assert_eq!(block_on(short).unwrap().reason(), Some(Reason::NoResponse));
        block_on(threads.clock().wait_for_sleeper(Time::ZERO + LONG));
        threads.clock().advance(LONG);
        block_on(long).unwrap();
        drop(client);
        threads.join();
    });
}

#[test]
fn a_call_that_waits_for_room_on_the_bus_times_out_in_time() {
    explore(1500, || {
        let threads = Threads::default();
        let client = client(ThreadedBus::new(0), &threads);
        let calls = [1, 2].map(|number| {
            let call = client.call::<_, u32>(Shop::NEXT, &[], number).deadline(Time::ZERO + number * SHORT);
            spawn(async move { call.await.unwrap_err() })
        });
        for call in calls {
            let next = threads.clock().now() + SHORT;
            block_on(threads.clock().wait_for_sleeper(next));
            threads.clock().advance(SHORT);
            let error = block_on(call).unwrap();
            assert_eq!(error.reason(), Some(Reason::NoResponse), "{error}");
        }
        drop(client);
        threads.join();
    });
}
