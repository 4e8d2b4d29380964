//! Many streams, servers and subscribers over real servers. Many topics are tested in `outages.rs`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use psrpc::{ClientOptions, ClientStream, Error, ServerOptions, ServerStream};
use psrpc_conformance::proto::{Ask, Reply, Shop, ShopClient, ShopServer};
use psrpc_conformance::runtime::{Host, Tokio};
use psrpc_conformance::{Subject, bus, cases, run};
use psrpc_servers::Server;
use psrpc_tokio::TokioRuntime;
use tokio::task::JoinSet;

const STREAMS: usize = 1000;
/// The number of messages of each stream, each way.
const MESSAGES: usize = 100;
const AT_ONCE: usize = 100;
const LONG: Duration = Duration::from_secs(30);

/// Replies to every message of a stream, and records the messages.
#[derive(Clone, Default)]
struct Drummer(Arc<DrummerState>);

#[derive(Default)]
struct DrummerState {
    streams: Mutex<Vec<Vec<String>>>,
    ended: AtomicUsize,
}

impl Shop for Drummer {
    async fn parade(&self, stream: ServerStream<Reply, Ask>) -> Result<(), Error> {
        let mut received = Vec::new();
        while let Some(Ask { text, .. }) = stream.next().await {
            received.push(text.clone());
            stream.send(Reply { text, ..Reply::default() }).timeout(LONG).await?;
        }
        self.0.streams.lock().unwrap().push(received);
        self.0.ended.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// Returns the messages of a stream, in order.
fn beats(stream: usize) -> impl Iterator<Item = String> {
    (0..MESSAGES).map(move |beat| format!("{stream:04}: {beat}"))
}

async fn drum(stream: &ClientStream<Ask, Reply>, number: usize) {
    for text in beats(number) {
        stream.send(Ask { text: text.clone(), ..Ask::default() }).timeout(LONG).await.unwrap();
        assert_eq!(stream.next().await.unwrap().text, text);
    }
}

/// Opens a thousand streams at once, exchanges a hundred messages on each, and ends them. No
/// message may be lost, duplicated or out of order, and no state may be left.
async fn thousand_streams(server: Server) {
    let runtime = TokioRuntime::current().unwrap();
    let connect = bus(&server.url(), Arc::new(runtime.clone()))();
    let drummer = Drummer::default();
    let options = ServerOptions::new();
    let shop = ShopServer::with_runtime(connect().await.unwrap(), runtime.clone(), drummer.clone(), options)
        .await
        .unwrap();
    let client =
        ShopClient::with_runtime(connect().await.unwrap(), runtime, ClientOptions::new()).await.unwrap();
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        streams.push(client.parade().timeout(LONG).await.unwrap());
    }
    assert_eq!((client.client().streams(), shop.server().streams()), (STREAMS, STREAMS));

    let streams = Arc::new(streams);
    let mut drummers = JoinSet::new();
    for first in 0..AT_ONCE {
        let streams = Arc::clone(&streams);
        drummers.spawn(async move {
            for number in (first..STREAMS).step_by(AT_ONCE) {
                drum(&streams[number], number).await;
            }
        });
    }
    drummers.join_all().await;
    drop(streams);

    // Polls, since a change of `streams` cannot be awaited.
    tokio::time::timeout(LONG, async {
        while drummer.0.ended.load(Ordering::Relaxed) < STREAMS || shop.server().streams() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("handlers did not end after their clients dropped the streams");
    assert_eq!((client.client().streams(), client.client().in_flight()), (0, 0));
    assert_eq!(shop.server().in_flight(), 0);
    let mut received = drummer.0.streams.lock().unwrap().clone();
    received.sort();
    assert!(received.into_iter().eq((0..STREAMS).map(|number| beats(number).collect::<Vec<_>>())));
    assert_eq!((client.client().counters().lost, shop.server().counters().lost), (0, 0));
    shop.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_carries_a_thousand_streams_at_once() {
    thousand_streams(Server::redis(&[])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_carries_a_thousand_streams_at_once() {
    thousand_streams(Server::nats(&[])).await;
}

/// Runs the cases with the most servers and subscribers.
fn run_large_cases(server: &Server) {
    let host = Tokio::multi_thread(2);
    let subject = Subject {
        bus: bus(&server.url(), host.runtime()),
        host: Arc::new(host),
        calls: 400,
        settling_time: Duration::ZERO,
    };
    for id in ["multi/fifty-servers", "subscription/mixed"] {
        let case = cases().into_iter().find(|case| case.id == id).expect("a case");
        run(case, &subject).unwrap();
    }
}

#[test]
fn redis_carries_fifty_servers_and_twenty_subscribers() {
    run_large_cases(&Server::redis(&[]));
}

#[test]
fn nats_carries_fifty_servers_and_twenty_subscribers() {
    run_large_cases(&Server::nats(&[]));
}
