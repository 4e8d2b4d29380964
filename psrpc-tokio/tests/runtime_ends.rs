//! Tokio runtimes that shut down before their clients and servers, and runtimes without timers.

mod hats;
mod shop;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use hats::HATS;
use psrpc_bus_local::LocalBus;
use psrpc_tokio::bus::{Accepted, Bus, Full, Offer, Sink, Subscription};
use psrpc_tokio::middleware::Retry;
use psrpc_tokio::proto::Channel;
use psrpc_tokio::*;
use tokio::runtime::{Builder, Runtime as Tokio};
use tokio::time::timeout;

const TEXT: &str = "unavailable: the runtime this client was created on has shut down";

fn runtimes() -> [Tokio; 2] {
    [
        Builder::new_current_thread().enable_all().build().unwrap(),
        Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap(),
    ]
}

async fn without_delay<T>(future: impl IntoFuture<Output = T>) -> T {
    timeout(Duration::from_secs(20), future.into_future()).await.expect("the future must resolve at once")
}

/// Like a client in a `static` that two `#[tokio::test]`s share.
#[test]
fn after_the_runtime_was_dropped_calls_of_its_client_fail_at_once_on_another() {
    for first in runtimes() {
        let runtime = TokioRuntime::new(first.handle().clone());
        let options = ClientOptions::new().interceptor(Retry::new().retry_if(|_| true));
        let client = first.block_on(Client::new(LocalBus::new(), runtime, &HATS, options)).unwrap();
        // One call is pending and one sleeps between two attempts when the runtime is dropped.
        let pending = hats::fit(&client, "fez").timeout(Duration::from_secs(600)).into_future();
        let patient =
            Retry::new().backoff(Duration::from_secs(600), Duration::from_secs(600)).without_jitter();
        let asleep = hats::fit(&client, "fez").timeout(Duration::ZERO).interceptor(patient).into_future();
        let (mut pending, mut asleep) = (Box::pin(pending), Box::pin(asleep));
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..3 {
            assert!(pending.as_mut().poll(&mut cx).is_pending());
            assert!(asleep.as_mut().poll(&mut cx).is_pending());
        }
        drop(first);
        let second = Builder::new_current_thread().enable_all().build().unwrap();
        second.block_on(async {
            for call in [pending, asleep] {
                assert_eq!(without_delay(call).await.unwrap_err().to_string(), TEXT);
            }
            let error = without_delay(hats::fit(&client, "fez")).await.unwrap_err();
            assert_eq!((error.to_string().as_str(), error.reason()), (TEXT, Some(Reason::RuntimeEnded)));
            without_delay(client.shutdown()).await;
        });
    }
}

#[test]
fn clients_and_servers_cannot_be_created_on_a_dropped_runtime() {
    for first in runtimes() {
        let runtime = TokioRuntime::new(first.handle().clone());
        drop(first);
        let second = Builder::new_current_thread().enable_all().build().unwrap();
        second.block_on(async {
            let client = Client::new(LocalBus::new(), runtime.clone(), &HATS, ClientOptions::new());
            assert_eq!(without_delay(client).await.unwrap_err().to_string(), TEXT);
            let handlers = Handlers::new(&HATS, ()).unary(hats::FIT, |_, request| hats::echo(request));
            let server = Server::new(LocalBus::new(), runtime, handlers, ServerOptions::new()).unwrap();
            let error = without_delay(server.register(&[hats::FIT], &[])).await.unwrap_err();
            assert_eq!(error.to_string(), TEXT.replace("client", "server"));
            without_delay(server.shutdown()).await;
        });
    }
}

#[test]
fn a_runtime_without_timers_causes_a_panic_in_the_caller() {
    let tokio = Builder::new_current_thread().build().unwrap();
    let created = catch_unwind(AssertUnwindSafe(|| {
        tokio.block_on(Client::new(LocalBus::new(), runtime_of(&tokio), &HATS, ClientOptions::new()))
    }));
    let panic = created.expect_err("creating the client must panic");
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap();
    assert!(text.contains("enable_time"), "{text}");
}

fn runtime_of(tokio: &Tokio) -> TokioRuntime {
    TokioRuntime::new(tokio.handle().clone())
}

/// A bus that panics when the background task polls it for room.
struct PanickingBus(LocalBus);

impl Bus for PanickingBus {
    fn publish(&self, _: Offer<'_>, _: &mut psrpc_tokio::bus::WakeList) -> Result<Accepted, Full> {
        Err(Full)
    }

    fn poll_ready(&self, _: &mut Context<'_>) -> Poll<()> {
        panic!("no room for this")
    }

    fn subscribe(
        &self,
        channel: &Channel,
        kind: SubscriptionKind,
        sink: Sink,
        wakes: &mut psrpc_tokio::bus::WakeList,
    ) -> Subscription {
        self.0.subscribe(channel, kind, sink, wakes)
    }
}

#[tokio::test]
async fn a_client_whose_background_task_panics_fails_its_calls_at_once() {
    let bus = PanickingBus(LocalBus::new());
    let client = Client::new(bus, default_runtime().unwrap(), &HATS, ClientOptions::new()).await.unwrap();
    let error = without_delay(hats::fit(&client, "fez").timeout(Duration::from_secs(600))).await.unwrap_err();
    assert_eq!(error.to_string(), TEXT);
    assert!(!error.may_have_run());
}

/// Counts the wake-ups of a task.
#[derive(Default)]
struct WakeCounter(AtomicUsize);

impl Wake for WakeCounter {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_waiting_for_the_end_of_a_stream_is_not_woken_by_its_messages() {
    let bus = LocalBus::new();
    let server = shop::server(&bus, "S", ServerOptions::new(), shop::echo).await;
    let client = shop::client(&bus).await;
    let stream = shop::parade(&client).await;
    let wakes = Arc::new(WakeCounter::default());
    let waker = Waker::from(Arc::clone(&wakes));
    let mut closed = Box::pin(stream.closed());
    assert!(closed.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    for _ in 0..1000 {
        stream.send(shop::text("a")).await.unwrap();
        stream.next().await.unwrap();
    }
    assert_eq!(wakes.0.load(Ordering::Relaxed), 0);
    stream.close(None);
    assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
    assert!(closed.as_mut().poll(&mut Context::from_waker(&waker)).is_ready());
    drop(server);
}
