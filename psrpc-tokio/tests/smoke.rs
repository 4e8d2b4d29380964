//! Calls on tokio over the in-process bus, without generated code.

use prost::Message;
use psrpc_bus_local::LocalBus;
use psrpc_tokio::*;

#[derive(Clone, PartialEq, Message)]
struct Hat {
    #[prost(uint32, tag = "1")]
    size: u32,
}

static HATS: Service = Service {
    name: "Hats",
    methods: &[Method::call(0, "Fit", MethodProperties { routing: Routing::Queue, require_claim: true })],
};

async fn a_call() {
    let bus = LocalBus::new();
    let runtime = default_runtime().unwrap();
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_on_many_threads() {
    a_call().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_on_one_thread_in_paused_time() {
    a_call().await;
}

#[test]
fn a_deadline_means_the_same_on_every_runtime_of_the_process() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let (first, second) = (runtime(), runtime());
    let now = |of: &tokio::runtime::Runtime| TokioRuntime::new(of.handle().clone()).now().time;
    let times: Vec<Time> = [&first, &second, &first, &second].map(now).to_vec();
    assert!(times.is_sorted() && times[0] < times[3], "{times:?}");
}
