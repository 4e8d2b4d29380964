//! Outages of real bus servers, in real time: the server is killed, restarted or frozen during
//! calls.

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

/// The timeout of a call, and the tolerance for busy machines.
const TIMEOUT: Duration = Duration::from_millis(500);
const SLACK: Duration = Duration::from_secs(1);
/// The time within which a bus must reconnect after its server restarts.
const RECOVERY: Duration = Duration::from_secs(2);

/// Counts the runs of each request.
#[derive(Clone, Default)]
struct Counter(Arc<Mutex<BTreeMap<String, u32>>>);

impl Counter {
    fn run(&self, request: &Ask) -> Reply {
        *self.0.lock().unwrap().entry(request.text.clone()).or_default() += 1;
        Reply { text: request.text.clone(), ..Reply::default() }
    }
}

impl Shop for Counter {
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

async fn shop(server: &Server, counter: &Counter) -> ShopServer {
    let runtime = TokioRuntime::current().unwrap();
    ShopServer::with_runtime(connect(server).await, runtime, counter.clone(), ServerOptions::new())
        .await
        .unwrap()
}

async fn client(server: &Server) -> ShopClient {
    let runtime = TokioRuntime::current().unwrap();
    ShopClient::with_runtime(connect(server).await, runtime, ClientOptions::new()).await.unwrap()
}

/// The number of successful calls of each caller.
type Answered = watch::Sender<Vec<u32>>;

/// Makes calls of every kind, one after the other, until `stop` is set.
async fn call_repeatedly(client: ShopClient, caller: usize, answered: Answered, stop: Arc<AtomicBool>) {
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let text = format!("{caller}: {number}");
        let ask = Ask { text: text.clone(), ..Ask::default() };
        let start = now();
        let call = match number % 3 {
            0 => client.fit(ask),
            1 => client.pick(ask),
            _ => client.owner_fit("me", ask),
        };
        if let Ok(reply) = call.timeout(TIMEOUT).await {
            assert_eq!(reply.text, text);
            answered.send_modify(|counts| counts[caller] += 1);
        }
        assert!(now() - start < TIMEOUT + SLACK, "a call took {:?}", now() - start);
        // The rate of calls.
        sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until every caller has completed three more calls: one of each kind, if none fails.
async fn all_answered(answered: &Answered, within: Duration) {
    let mut counts = answered.subscribe();
    let before = counts.borrow().clone();
    let all = counts.wait_for(|counts| counts.iter().zip(&before).all(|(now, before)| *now >= before + 3));
    let in_time = timeout(within, all).await.is_ok();
    assert!(
        in_time,
        "timed out after {within:?}: before {before:?}, now {:?} calls were answered",
        answered.borrow()
    );
}

/// Makes calls during an outage. Each call must end by its deadline, no request may run twice, and
/// the same clients and servers must work again soon after.
async fn check_outage(mut server: Server, outage: impl AsyncFnOnce(&mut Server)) {
    let counter = Counter::default();
    let servers = [shop(&server, &counter).await, shop(&server, &counter).await];
    servers[0].register_owner_fit_topic("me").await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let answered = Answered::new(vec![0; 8]);
    let mut callers = JoinSet::new();
    for caller in 0..8 {
        let client = client(&server).await;
        callers.spawn(call_repeatedly(client, caller, answered.clone(), Arc::clone(&stop)));
    }
    all_answered(&answered, Duration::from_secs(5)).await;
    outage(&mut server).await;
    all_answered(&answered, RECOVERY).await;
    stop.store(true, Ordering::Relaxed);
    callers.join_all().await;
    let ran = counter.0.lock().unwrap().clone();
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
    // The duration of the outage.
    sleep(Duration::from_millis(700)).await;
    server.start();
}

async fn freeze(server: &mut Server, duration: Duration) {
    server.freeze();
    sleep(duration).await;
    server.thaw();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_killed_and_started_again() {
    check_outage(Server::redis(&[]), kill_and_start).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_stopped_and_started_again() {
    check_outage(Server::redis(&[]), stop_and_start).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_frozen_for_a_moment() {
    check_outage(Server::redis(&[]), async |server| freeze(server, Duration::from_secs(1)).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_frozen_until_the_connections_are_given_up() {
    check_outage(Server::redis(&[]), async |server| freeze(server, Duration::from_secs(6)).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_is_killed_and_started_again() {
    check_outage(Server::nats(&[]), kill_and_start).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_is_stopped_and_started_again() {
    check_outage(Server::nats(&[]), stop_and_start).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_is_frozen_for_a_moment() {
    check_outage(Server::nats(&[]), async |server| freeze(server, Duration::from_secs(1)).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_is_frozen_for_long() {
    check_outage(Server::nats(&[]), async |server| freeze(server, Duration::from_secs(6)).await).await;
}

/// Subscribes through an outage. The subscription must yield a gap where updates may be missing,
/// continue afterwards, and yield no update twice.
async fn check_subscription(mut server: Server) {
    let shop = shop(&server, &Counter::default()).await;
    let client = client(&server).await;
    let mut bulletins = client.subscribe_bulletin("east").await.unwrap();
    let publishing = tokio::spawn(async move {
        for number in 0.. {
            let update = Reply { text: format!("{number:06}"), ..Reply::default() };
            // Publishing fails during the outage.
            let _ = shop.publish_bulletin("east", &update).timeout(TIMEOUT).await;
            // The rate of updates.
            sleep(Duration::from_millis(5)).await;
        }
    });
    let mut next = async || {
        let update = timeout(RECOVERY + SLACK, bulletins.next()).await;
        update.expect("no update in time").expect("the subscription ended").map(|update| update.text)
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
    // A bus may report a gap when the connection is lost and another one when it is back.
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
    check_subscription(Server::redis(&[])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_shows_a_gap_where_nats_was_killed_and_goes_on() {
    check_subscription(Server::nats(&[])).await;
}

/// Registers many topics at once and calls each of them, before and after the server is killed.
async fn many_topics(mut server: Server) {
    const TOPICS: usize = 10_000;
    let counter = Counter::default();
    let shop = Arc::new(shop(&server, &counter).await);
    let client = client(&server).await;
    let start = now();
    let mut registrations = JoinSet::new();
    for topic in 0..TOPICS {
        let shop = Arc::clone(&shop);
        registrations.spawn(async move { shop.register_owner_fit_topic(format!("t{topic}")).await.unwrap() });
    }
    registrations.join_all().await;
    assert!(now() - start < Duration::from_secs(20), "registering took {:?}", now() - start);
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
    let ran = counter.0.lock().unwrap().clone();
    assert!(
        ran.len() == TOPICS && ran.values().all(|times| *times == 1),
        "not every request ran exactly once"
    );
    server.kill();
    server.start();
    let back = now();
    // Ten thousand concurrent calls take a while themselves.
    while call_all().await > 0 {
        assert!(now() - back < RECOVERY + SLACK * 10, "not all topics work again after {:?}", now() - back);
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

#[expect(clippy::disallowed_methods, reason = "real servers need real time")]
fn now() -> Instant {
    Instant::now()
}
