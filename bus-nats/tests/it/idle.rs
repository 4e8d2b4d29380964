//! The cost of an idle bus.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use psrpc::SubscriptionKind::Plain;
use psrpc::proto::Seed;
use psrpc::{Now, Runtime, Task, Time};
use psrpc_bus_nats::NatsBus;
use psrpc_servers::Server;

use crate::support::{SECOND, Subscriber, frame, plain, publish, runtime};

/// Counts the polls of tasks and the calls of `sleep_until`.
struct Counting<R> {
    runtime: R,
    count: Arc<AtomicU64>,
}

impl<R: Runtime> Runtime for Counting<R> {
    fn now(&self) -> Now {
        self.runtime.now()
    }

    fn seed(&self) -> Seed {
        self.runtime.seed()
    }

    fn sleep_until(&self, deadline: Time) -> Task {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.runtime.sleep_until(deadline)
    }

    fn spawn(&self, mut task: Task) {
        let count = Arc::clone(&self.count);
        self.runtime.spawn(Box::pin(std::future::poll_fn(move |cx| {
            count.fetch_add(1, Ordering::Relaxed);
            task.as_mut().poll(cx)
        })));
    }

    fn is_tokio(&self) -> bool {
        self.runtime.is_tokio()
    }
}

#[tokio::test]
async fn an_idle_bus_runs_no_task() {
    let server = Server::nats(&[]);
    let count = Arc::new(AtomicU64::new(0));
    let counting = Counting { runtime: runtime(), count: Arc::clone(&count) };
    let bus = NatsBus::connect(&server.url(), counting).await.unwrap();
    let mut subscriber = Subscriber::live(&bus, &plain("Make"), Plain).await;
    publish(&bus, &plain("Make"), frame(1)).await.unwrap();
    assert_eq!(subscriber.number().await, 1);
    // The last publish still causes some work. No event marks its end, so wait until nothing has
    // run for a while.
    let mut before = u64::MAX;
    while before != count.load(Ordering::Relaxed) {
        before = count.load(Ordering::Relaxed);
        tokio::time::sleep(SECOND / 10).await;
    }
    // The measurement: nothing runs for two seconds.
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(count.load(Ordering::Relaxed), before);
}
