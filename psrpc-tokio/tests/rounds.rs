//! The background task does a limited amount of work before it yields to other tasks.

mod hats;

use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use hats::HATS;
use psrpc_bus_local::LocalBus;
use psrpc_tokio::bus::{Inbox, Subscription};
use psrpc_tokio::engine::ROUND;
use psrpc_tokio::*;

/// A runtime that records how many calls of the client end in each poll of its background task.
#[derive(Clone)]
struct CountingRuntime {
    tokio: hats::PausedRuntime,
    client: Arc<OnceLock<Client>>,
    ended: Arc<Mutex<Vec<usize>>>,
}

impl Runtime for CountingRuntime {
    fn now(&self) -> Now {
        self.tokio.now()
    }

    fn seed(&self) -> proto::Seed {
        self.tokio.seed()
    }

    fn sleep_until(&self, deadline: Time) -> Task {
        self.tokio.sleep_until(deadline)
    }

    fn spawn(&self, mut task: Task) {
        let Self { client, ended, .. } = self.clone();
        let in_flight = move || client.get().map_or(0, Client::in_flight);
        self.tokio.spawn(Box::pin(std::future::poll_fn(move |cx: &mut Context<'_>| {
            let before = in_flight();
            let polled: Poll<()> = task.as_mut().poll(cx);
            ended.lock().unwrap().push(before - in_flight().min(before));
            polled
        })));
    }
}

const CALLS: usize = 20_000;

/// A client with [`CALLS`] calls in flight, and no server that responds.
struct BusyClient {
    counting: CountingRuntime,
    client: Client,
    calls: Vec<tokio::task::JoinHandle<Result<String, Error>>>,
    _unresponsive: (Subscription, Inbox),
}

async fn client_with_calls() -> BusyClient {
    let counting = CountingRuntime { tokio: hats::runtime(), client: Arc::default(), ended: Arc::default() };
    let bus = LocalBus::new();
    let _unresponsive = hats::unresponsive(&bus, hats::FIT).await;
    let client = Client::new(bus, counting.clone(), &HATS, ClientOptions::new()).await.unwrap();
    let _ = counting.client.set(client.clone());
    let calls = (0..CALLS).map(|_| tokio::spawn(hats::fit(&client, "fez").into_future())).collect();
    while client.in_flight() < CALLS {
        tokio::task::yield_now().await;
    }
    BusyClient { counting, client, calls, _unresponsive }
}

async fn check(
    counting: &CountingRuntime,
    calls: Vec<tokio::task::JoinHandle<Result<String, Error>>>,
    at_first: usize,
) {
    for call in calls {
        call.await.unwrap().unwrap_err();
    }
    let ended = counting.ended.lock().unwrap();
    assert_eq!(ended.iter().sum::<usize>(), CALLS - at_first);
    assert!(ended.iter().all(|ended| *ended <= 8 * ROUND), "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn calls_that_time_out_together_end_in_several_turns() {
    let BusyClient { counting, client: _client, calls, _unresponsive } = client_with_calls().await;
    tokio::time::advance(Duration::from_secs(3)).await;
    check(&counting, calls, 0).await;
}

#[tokio::test(start_paused = true)]
async fn calls_of_a_client_that_is_closed_end_in_several_turns() {
    let BusyClient { counting, client, calls, _unresponsive } = client_with_calls().await;
    client.close();
    let at_first = CALLS - client.in_flight();
    assert!(at_first <= ROUND, "the background task ends the rest");
    check(&counting, calls, at_first).await;
}
