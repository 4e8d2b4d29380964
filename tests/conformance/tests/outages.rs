//! What becomes of calls when the bus's server is killed, started again, or frozen: on real
//! servers, in real time.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use psrpc::bus::Bus;
use psrpc::{ClientOptions, Error, ErrorCode, Reason, Request, ServerOptions};
use psrpc_conformance::bus;
use psrpc_conformance::proto::{Ask, Reply, Shop, ShopClient, ShopServer};
use psrpc_servers::Server;
use psrpc_tokio::TokioRuntime;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// How long a call may take, and how much later it may be over on a busy machine.
const TIMEOUT: Duration = Duration::from_millis(500);
const SLACK: Duration = Duration::from_secs(1);
/// How long after its server a bus may be back.
const BACK: Duration = Duration::from_secs(2);

/// Counts how often each request ran.
#[derive(Clone, Default)]
struct Counting(Arc<Mutex<BTreeMap<String, u32>>>);

impl Counting {
    fn run(&self, request: &Ask) -> Reply {
        *self.0.lock().unwrap().entry(request.text.clone()).or_default() += 1;
        Reply { text: request.text.clone(), ..Reply::default() }
    }
}

impl Shop for Counting {
    async fn fit(&self, request: Request<Ask>) -> Result<Reply, Error> {
        Ok(self.run(&request))
    }
    async fn pick(&self, request: Request<Ask>) -> Result<Reply, Error> {
        Ok(self.run(&request))
    }
    fn pick_affinity(&self, _: &Request<Ask>) -> f32 {
        1.0
    }
    async fn owner_fit(&self, request: Request<Ask>) -> Result<Reply, Error> {
        Ok(self.run(&request))
    }
    async fn rack_fit(&self, request: Request<Ask>) -> Result<Reply, Error> {
        Ok(self.run(&request))
    }
    async fn rack_pick(&self, request: Request<Ask>) -> Result<Reply, Error> {
        Ok(self.run(&request))
    }
    fn rack_pick_affinity(&self, _: &Request<Ask>) -> f32 {
        1.0
    }
    async fn make_hat_v1(&self, request: Request<Ask>) -> Result<Reply, Error> {
        Ok(self.run(&request))
    }
}

async fn connect(server: &Server) -> Arc<dyn Bus> {
    let runtime = Arc::new(TokioRuntime::current().unwrap());
    bus(&server.url(), runtime)()().await.unwrap()
}

async fn shop(server: &Server, counting: &Counting) -> ShopServer {
    let runtime = TokioRuntime::current().unwrap();
    ShopServer::with_runtime(connect(server).await, runtime, counting.clone(), ServerOptions::new())
        .await
        .unwrap()
}

async fn client(server: &Server) -> ShopClient {
    let runtime = TokioRuntime::current().unwrap();
    ShopClient::with_runtime(connect(server).await, runtime, ClientOptions::new()).await.unwrap()
}

/// How many calls each caller had answered.
type Answered = watch::Sender<Vec<u32>>;

/// Calls of every kind, one after the other, until it is told to stop.
async fn call_on(client: ShopClient, caller: usize, answered: Answered, stop: Arc<AtomicBool>) {
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let text = format!("{caller}: {number}");
        let ask = Ask { text: text.clone(), ..Ask::default() };
        let begun = now();
        let call = match number % 3 {
            0 => client.fit(ask),
            1 => client.pick(ask),
            _ => client.owner_fit("me", ask),
        };
        if let Ok(reply) = call.timeout(TIMEOUT).await {
            assert_eq!(reply.text, text);
            answered.send_modify(|counts| counts[caller] += 1);
        }
        assert!(now() - begun < TIMEOUT + SLACK, "a call took {:?}", now() - begun);
        // The pace of the load.
        sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until every caller has had an answer to a call of each kind from now on.
async fn all_answered(answered: &Answered, within: Duration) {
    let mut counts = answered.subscribe();
    let before = counts.borrow().clone();
    let all = counts.wait_for(|counts| counts.iter().zip(&before).all(|(now, before)| *now >= before + 3));
    let in_time = timeout(within, all).await.is_ok();
    assert!(in_time, "of {before:?} calls, {:?} were answered after {within:?}", answered.borrow());
}

/// Calls go on while `outage` befalls the server: they end by their deadlines, none runs twice, and
/// soon after the calls of the same clients to the same servers are answered again.
async fn survive(mut server: Server, outage: impl AsyncFnOnce(&mut Server)) {
    let counting = Counting::default();
    let servers = [shop(&server, &counting).await, shop(&server, &counting).await];
    servers[0].register_owner_fit_topic("me").await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let answered = Answered::new(vec![0; 8]);
    let mut callers = JoinSet::new();
    for caller in 0..8 {
        let client = client(&server).await;
        callers.spawn(call_on(client, caller, answered.clone(), Arc::clone(&stop)));
    }
    all_answered(&answered, Duration::from_secs(5)).await;
    outage(&mut server).await;
    all_answered(&answered, BACK).await;
    stop.store(true, Ordering::Relaxed);
    callers.join_all().await;
    let ran = counting.0.lock().unwrap().clone();
    let twice: Vec<_> = ran.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "{twice:?} ran twice");
    for server in servers {
        server.shutdown().await;
    }
}

async fn stop_and_start(server: &mut Server) {
    server.stop();
    server.start();
}

async fn kill_and_start(server: &mut Server) {
    server.kill();
    // How long the outage lasts.
    sleep(Duration::from_millis(700)).await;
    server.start();
}

async fn freeze(server: &mut Server, for_how_long: Duration) {
    server.freeze();
    sleep(for_how_long).await;
    server.thaw();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_killed_and_started_again() {
    survive(Server::redis(&[]), kill_and_start).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_stopped_and_started_again() {
    survive(Server::redis(&[]), stop_and_start).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_frozen_for_a_moment() {
    survive(Server::redis(&[]), async |server| freeze(server, Duration::from_secs(1)).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_frozen_until_the_connections_are_given_up() {
    survive(Server::redis(&[]), async |server| freeze(server, Duration::from_secs(6)).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_is_killed_and_started_again() {
    survive(Server::nats(&[]), kill_and_start).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_is_stopped_and_started_again() {
    survive(Server::nats(&[]), stop_and_start).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_is_frozen_for_a_moment() {
    survive(Server::nats(&[]), async |server| freeze(server, Duration::from_secs(1)).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_is_frozen_for_long() {
    survive(Server::nats(&[]), async |server| freeze(server, Duration::from_secs(6)).await).await;
}

/// A subscription through an outage: where updates may be missing it says so, and then it goes on.
/// No update comes twice.
async fn subscribed(mut server: Server) {
    let shop = shop(&server, &Counting::default()).await;
    let client = client(&server).await;
    let mut bulletins = client.subscribe_bulletin("east").await.unwrap();
    let publishing = tokio::spawn(async move {
        for number in 0.. {
            let update = Reply { text: format!("{number:06}"), ..Reply::default() };
            // It fails while the server is away.
            let _ = shop.publish_bulletin("east", &update).timeout(TIMEOUT).await;
            // The pace of the load.
            sleep(Duration::from_millis(5)).await;
        }
    });
    let mut next = async || {
        let update = timeout(BACK + SLACK, bulletins.next()).await;
        update.expect("updates go on").expect("the subscription goes on").map(|update| update.text)
    };
    let mut last = String::new();
    let mut newer = |text: String| {
        assert!(last < text, "{text} came after {last}");
        last = text;
    };
    for _ in 0..20 {
        newer(next().await.unwrap());
    }
    kill_and_start(&mut server).await;
    // A bus may tell of one gap when it loses its connection and again when it is back.
    let (mut gaps, mut since) = (0, 0);
    while gaps == 0 || since < 20 {
        match next().await {
            Ok(text) => {
                newer(text);
                since += 1;
            }
            Err(gap) => {
                assert_eq!((gap.code(), gap.reason()), (&ErrorCode::DataLoss, Some(Reason::Gap)));
                (gaps, since) = (gaps + 1, 0);
            }
        }
    }
    publishing.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_shows_a_gap_where_redis_was_killed_and_goes_on() {
    subscribed(Server::redis(&[])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_shows_a_gap_where_nats_was_killed_and_goes_on() {
    subscribed(Server::nats(&[])).await;
}

/// Registers many topics at once, and calls each of them, which runs once, before and after the
/// server was killed.
async fn many_topics(mut server: Server) {
    const TOPICS: usize = 10_000;
    let counting = Counting::default();
    let shop = Arc::new(shop(&server, &counting).await);
    let client = client(&server).await;
    let begun = now();
    let mut registrations = JoinSet::new();
    for topic in 0..TOPICS {
        let shop = Arc::clone(&shop);
        registrations.spawn(async move { shop.register_owner_fit_topic(format!("t{topic}")).await.unwrap() });
    }
    registrations.join_all().await;
    assert!(now() - begun < Duration::from_secs(20), "registering took {:?}", now() - begun);
    let call_all = async || {
        let mut calls = JoinSet::new();
        for topic in 0..TOPICS {
            let client = client.clone();
            calls.spawn(async move {
                let ask = Ask { text: format!("t{topic}"), ..Ask::default() };
                client.owner_fit(format!("t{topic}"), ask).timeout(SLACK * 5).await
            });
        }
        calls.join_all().await.into_iter().filter(Result::is_err).count()
    };
    assert_eq!(call_all().await, 0, "calls that failed");
    let ran = counting.0.lock().unwrap().clone();
    assert!(ran.len() == TOPICS && ran.values().all(|times| *times == 1), "not each ran once");
    server.kill();
    server.start();
    let back = now();
    // The calls themselves take a while, ten thousand at once.
    while call_all().await > 0 {
        assert!(now() - back < BACK + SLACK * 10, "not all are back after {:?}", now() - back);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_carries_ten_thousand_topics_also_after_it_was_killed() {
    many_topics(Server::redis(&[])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_carries_ten_thousand_topics_also_after_it_was_killed() {
    many_topics(Server::nats(&[])).await;
}

#[expect(clippy::disallowed_methods, reason = "real servers live in real time")]
fn now() -> Instant {
    Instant::now()
}
