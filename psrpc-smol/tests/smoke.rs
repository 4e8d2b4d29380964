//! Calls on smol and async-std over the in-process bus, without generated code.

use std::time::Duration;

use prost::Message;
use psrpc_bus_local::LocalBus;
use psrpc_smol::*;

#[derive(Clone, PartialEq, Message)]
struct Hat {
    #[prost(uint32, tag = "1")]
    size: u32,
}

static HATS: Service = Service {
    name: "Hats",
    methods: &[Method::call(0, "Fit", MethodProperties { routing: Routing::Queue, require_claim: true })],
};

async fn a_call_on(runtime: impl Runtime + Clone) {
    let bus = LocalBus::new();
    let handlers = Handlers::new(&HATS, ())
        .unary(&HATS.methods[0], |_, hat: Request<Hat>| async move { Ok(Hat { size: hat.size + 1 }) });
    let server = Server::new(bus.clone(), runtime.clone(), handlers, ServerOptions::new()).unwrap();
    server.register(&[&HATS.methods[0]], &[]).await.unwrap();
    let client = Client::new(bus, runtime, &HATS, ClientOptions::new()).await.unwrap();
    for size in 0..1000 {
        let hat: Hat = client.call(&HATS.methods[0], &[], Hat { size }).await.unwrap();
        assert_eq!(hat.size, size + 1);
    }
    server.shutdown().await;
    let error = client.call::<_, Hat>(&HATS.methods[0], &[], Hat { size: 1 }).await.unwrap_err();
    assert_eq!(error.explanation().unwrap(), "nobody was subscribed");
}

/// Checks that sleeps end in time, including a sleep created long before it is awaited. A sleep
/// without end must not block anything.
async fn sleeps_on(runtime: impl Runtime) {
    const STEP: Duration = Duration::from_millis(50);
    runtime.spawn(runtime.sleep_until(Time::ZERO + Duration::MAX));
    let start = runtime.now().time;
    let second = runtime.sleep_until(start + 2 * STEP);
    runtime.sleep_until(start + STEP).await;
    second.await;
    runtime.sleep_until(start).await;
    let took = runtime.now().time.since(start);
    assert!((2 * STEP..3 * STEP + Duration::from_secs(1)).contains(&took), "{took:?}");
}

#[test]
fn a_call_on_smol() {
    smol::block_on(a_call_on(default_runtime().unwrap()));
}

#[test]
fn sleeps_on_smol() {
    smol::block_on(sleeps_on(SmolRuntime));
}

#[cfg(feature = "async-std")]
mod on_async_std {
    use async_std::task::block_on;

    use super::*;

    #[test]
    fn a_call() {
        block_on(a_call_on(AsyncStdRuntime));
    }

    #[test]
    fn sleeps() {
        block_on(sleeps_on(AsyncStdRuntime));
    }

    #[test]
    fn a_deadline_means_the_same_on_every_runtime_of_the_process() {
        let times: Vec<Time> =
            (0..3).flat_map(|_| [SmolRuntime.now().time, AsyncStdRuntime.now().time]).collect();
        assert!(times.is_sorted() && times[0] < times[5], "{times:?}");
    }
}
