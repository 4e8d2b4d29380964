//! Temporary refusals by a Redis or NATS server: clients and servers report them, and recover by
//! themselves (I16, I20). On tokio and on smol.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use psrpc::bus::{Bus, BusEvent};
use psrpc::middleware::Observation;
use psrpc::{ClientOptions, Error, Fault, Reason, Runtime, ServerOptions};
use psrpc_bus_nats::NatsBus;
use psrpc_bus_redis::RedisBus;
use psrpc_conformance::proto::{Ask, Reply, Shop, ShopClient, ShopServer};
use psrpc_servers::Server;
use psrpc_smol::SmolRuntime;
use psrpc_tokio::TokioRuntime;

/// The time limit of each step, generous enough for a busy machine.
const LONG: Duration = Duration::from_secs(20);

struct Echo;

impl Shop for Echo {
    async fn fit(&self, request: psrpc::Request<Ask>) -> Result<Reply, Error> {
        Ok(Reply { text: request.text.clone(), ..Reply::default() })
    }

    async fn pick(&self, request: psrpc::Request<Ask>) -> Result<Reply, Error> {
        self.fit(request).await
    }

    fn pick_affinity(&self, _: &psrpc::Request<Ask>) -> f32 {
        1.0
    }

    async fn owner_fit(&self, request: psrpc::Request<Ask>) -> Result<Reply, Error> {
        self.fit(request).await
    }

    async fn rack_fit(&self, request: psrpc::Request<Ask>) -> Result<Reply, Error> {
        self.fit(request).await
    }

    async fn rack_pick(&self, request: psrpc::Request<Ask>) -> Result<Reply, Error> {
        self.fit(request).await
    }

    fn rack_pick_affinity(&self, _: &psrpc::Request<Ask>) -> f32 {
        1.0
    }

    async fn make_hat_v1(&self, request: psrpc::Request<Ask>) -> Result<Reply, Error> {
        self.fit(request).await
    }
}

/// A client and a server on one bus, with the observations of the client.
struct Pair {
    client: ShopClient,
    server: ShopServer,
    observations: Arc<Mutex<Vec<Observation>>>,
    runtime: Arc<dyn Runtime>,
}

impl Pair {
    async fn on_redis(server: &Server, runtime: Arc<dyn Runtime>) -> Self {
        let bus = RedisBus::connect(&server.url_with("hatter:right@"), Arc::clone(&runtime)).await.unwrap();
        Self::new(bus, runtime).await
    }

    async fn on_nats(server: &Server, runtime: Arc<dyn Runtime>) -> Self {
        let bus = NatsBus::connect(&server.url_with("hatter:right@"), Arc::clone(&runtime)).await.unwrap();
        Self::new(bus, runtime).await
    }

    async fn new(bus: impl Bus + Clone, runtime: Arc<dyn Runtime>) -> Self {
        let observations = Arc::<Mutex<Vec<_>>>::default();
        let sink = Arc::clone(&observations);
        let options = ClientOptions::new().observer(move |observation| {
            sink.lock().unwrap().push(observation.clone());
        });
        let client = ShopClient::with_runtime(bus.clone(), Arc::clone(&runtime), options).await.unwrap();
        let server = ShopServer::with_runtime(bus, Arc::clone(&runtime), Echo, ServerOptions::new());
        Self { client, server: server.await.unwrap(), observations, runtime }
    }

    async fn call(&self) -> Result<Reply, Error> {
        let ask = Ask { text: "a hat".into(), ..Ask::default() };
        self.client.fit(ask).timeout(Duration::from_secs(2)).await
    }

    /// Waits until a condition holds. Polls, since a change of `health` cannot be awaited and some
    /// conditions make a call.
    async fn until(&self, condition: &str, mut is_met: impl AsyncFnMut() -> bool) {
        let start = self.runtime.now().time;
        while !is_met().await {
            let now = self.runtime.now().time;
            assert!(now.since(start) < LONG, "timed out waiting until {condition}");
            self.runtime.sleep_until(now + Duration::from_millis(10)).await;
        }
    }

    /// Returns the number of matching observations so far.
    fn count(&self, matches: impl Fn(&Observation) -> bool) -> usize {
        self.observations.lock().unwrap().iter().filter(|observation| matches(observation)).count()
    }
}

/// Sends an administrative command to a Redis server.
fn send_command(server: &Server, command: &str) {
    let mut connection = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    connection.write_all(format!("{command}\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    BufReader::new(connection).read_line(&mut answer).unwrap();
    assert_eq!(answer.trim_end(), "+OK", "{command}");
}

async fn revoke_and_restore_on_redis(runtime: Arc<dyn Runtime>) {
    let server = Server::redis(&[]);
    send_command(&server, "ACL SETUSER hatter on >right ~* &* +@all");
    let pair = Pair::on_redis(&server, runtime).await;
    revoke_and_restore(
        &pair,
        "NOPERM",
        || send_command(&server, "ACL SETUSER hatter resetchannels"),
        || send_command(&server, "ACL SETUSER hatter allchannels"),
    )
    .await;
}

async fn revoke_and_restore_on_nats(runtime: Arc<dyn Runtime>) {
    let user = |subscribe: &str| {
        let permissions = format!("publish: \">\", subscribe: [{subscribe}]");
        format!(
            "authorization {{ users = [{{ user: hatter, password: right, permissions: {{ {permissions} }} }}] }}"
        )
    };
    let (none, all) = (user("\"_INBOX.>\""), user("\">\""));
    let server = Server::nats(&[&all]);
    let pair = Pair::on_nats(&server, runtime).await;
    let server = std::cell::RefCell::new(server);
    let reload = |configuration: &str| {
        let mut server = server.borrow_mut();
        server.configure(&[configuration]);
        server.reload();
    };
    revoke_and_restore(&pair, "Permissions Violation for Subscription", || reload(&none), || reload(&all))
        .await;
}

async fn revoke_and_restore(pair: &Pair, reason: &str, revoke: impl Fn(), restore: impl Fn()) {
    let (client, shop) = (pair.client.client().clone(), pair.server.server().clone());
    pair.call().await.unwrap();
    assert!(client.health().is_ok() && shop.health().is_ok());
    for round in 1..=2 {
        revoke();
        let refused = |health: Result<(), Error>| {
            health.is_err_and(|error| error.to_string().contains(reason) && error.fault() == Fault::Bus)
        };
        pair.until("both report the reason", async || refused(client.health()) && refused(shop.health()))
            .await;
        let start = pair.runtime.now().time;
        let error = pair.call().await.unwrap_err();
        assert!(
            pair.runtime.now().time.since(start) < Duration::from_secs(1),
            "the call did not fail at once"
        );
        assert_eq!((error.code().as_str(), error.reason()), ("unavailable", Some(Reason::Interrupted)));
        assert!(error.to_string().contains(reason) && !error.may_have_run(), "{error}");
        restore();
        pair.until("both work again", async || client.health().is_ok() && shop.health().is_ok()).await;
        pair.call().await.unwrap();
        assert_eq!(pair.count(|observation| matches!(observation, Observation::Interrupted { .. })), round);
        pair.until("the observer is notified", async || {
            pair.count(|observation| matches!(observation, Observation::Resumed { .. })) == round
        })
        .await;
    }
}

async fn refused_locks(runtime: Arc<dyn Runtime>) {
    let primary = Server::redis(&[]);
    let replica_of = format!("REPLICAOF 127.0.0.1 {}", primary.port());
    for (refuse, reason, allow) in [
        (&*replica_of, "READONLY", "REPLICAOF NO ONE"),
        ("ACL SETUSER hatter -set", "NOPERM", "ACL SETUSER hatter +set"),
        ("CONFIG SET maxmemory 1", "OOM", "CONFIG SET maxmemory 0"),
        ("CONFIG SET min-replicas-to-write 1", "NOREPLICAS", "CONFIG SET min-replicas-to-write 0"),
    ] {
        let server = Server::redis(&[]);
        send_command(&server, "ACL SETUSER hatter on >right ~* &* +@all");
        let pair = Pair::on_redis(&server, Arc::clone(&runtime)).await;
        pair.call().await.unwrap();
        send_command(&server, refuse);
        let error = pair.call().await.unwrap_err();
        assert_eq!(error.reason(), Some(Reason::NoResponse), "{reason}: {error}");
        let explanation = error.explanation().unwrap();
        assert!(explanation.contains("the bus refused to lock requests"), "{explanation}");
        assert!(explanation.contains(reason) && !explanation.contains("right"), "{explanation}");
        let is_refusal = |observation: &Observation| {
            let Observation::Bus(BusEvent::LockRefused { cause, .. }) = observation else { return false };
            cause.to_string().contains(reason)
        };
        pair.until("the observer is notified", async || pair.count(is_refusal) > 0).await;
        send_command(&server, allow);
        pair.until("calls work again", async || pair.call().await.is_ok()).await;
    }
}

/// Runs a test on tokio and on smol.
fn on_each_runtime(case: impl AsyncFn(Arc<dyn Runtime>)) {
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    tokio.block_on(case(Arc::new(TokioRuntime::new(tokio.handle().clone()))));
    smol::block_on(case(Arc::new(SmolRuntime)));
}

#[test]
fn rights_that_are_taken_away_and_given_back_heal() {
    on_each_runtime(revoke_and_restore_on_redis);
}

#[test]
fn permissions_that_are_taken_away_and_given_back_heal() {
    on_each_runtime(revoke_and_restore_on_nats);
}

#[test]
fn a_lock_that_is_refused_is_told_to_who_calls_and_observes() {
    on_each_runtime(refused_locks);
}
