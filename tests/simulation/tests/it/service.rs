//! The world of a service: time, nodes and faults behave as documented, and clients and servers
//! leave nothing behind.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use psrpc::bus::{Bus, Inbox, WakeList};
use psrpc::proto::{Channel, Frame};
use psrpc::{
    Client, ClientOptions, Error, Handlers, Method, MethodProperties, Reason, Request, Routing, Runtime,
    Server, ServerOptions, Service, SubscriptionKind,
};
use psrpc_bus_local::LocalBus;
use psrpc_simulation::{Fault, Node, Stuck, World, check_seeds};

const SECOND: Duration = Duration::from_secs(1);

static HATS: Service = Service {
    name: "Hats",
    methods: &[
        Method::call(0, "Fit", MethodProperties { routing: Routing::Queue, require_claim: true }),
        Method::call(1, "Own", MethodProperties { routing: Routing::Queue, require_claim: false }),
    ],
};

async fn server(node: &Node) -> Server {
    let fit = |_: Arc<()>, hat: Request<String>| async move { Ok::<_, Error>(format!("{} fits", *hat)) };
    let handlers = Handlers::new(&HATS, ()).unary(&HATS.methods[0], fit);
    let server = Server::new(node.bus(), node.runtime(), handlers, ServerOptions::new())
        .expect("the options are valid");
    server.register(&[&HATS.methods[0]], &[]).await.expect("the bus accepts the subscriptions");
    server
}

async fn client(node: &Node) -> Client {
    Client::new(node.bus(), node.runtime(), &HATS, ClientOptions::new())
        .await
        .expect("the bus accepts the subscriptions")
}

async fn fit(client: &Client) -> Result<String, Error> {
    client.call(&HATS.methods[0], &[], "fez".to_owned()).timeout(SECOND).await
}

#[test]
fn a_call_is_answered_and_nothing_is_left_when_all_is_dropped() {
    let world = World::new(7);
    let (ash, desk) = (world.node("ash"), world.node("desk"));
    let answer = world.run(async {
        let (_server, client) = (server(&ash).await, client(&desk).await);
        fit(&client).await
    });
    assert_eq!(answer.unwrap(), "fez fits");
    assert!(world.settle(60 * SECOND));
    assert_eq!((world.tasks(), world.subscriptions()), (0, 0));
}

#[test]
fn the_seed_decides_all_that_happens() {
    let hash = |seed| {
        let world = World::new(seed);
        world.set_random_rates();
        let (ash, desk) = (world.node("ash"), world.node("desk"));
        let _ = world.try_run(60 * SECOND, async {
            let _server = server(&ash).await;
            let client = client(&desk).await;
            for _ in 0..10 {
                let _ = fit(&client).await;
            }
        });
        world.trace_hash()
    };
    assert_eq!(hash(7), hash(7));
    assert_ne!(hash(7), hash(8));
}

#[test]
fn world_lose_drops_exactly_the_given_number_of_frames() {
    let world = World::new(7);
    let (ash, desk) = (world.node("ash"), world.node("desk"));
    world.run(async {
        let (_server, client) = (server(&ash).await, client(&desk).await);
        world.lose(2, |_, frame| matches!(frame, Frame::Response(_)));
        assert_eq!(fit(&client).await.unwrap_err().reason(), Some(Reason::TimedOut));
        assert_eq!(fit(&client).await.unwrap_err().reason(), Some(Reason::TimedOut));
        assert_eq!(fit(&client).await.unwrap(), "fez fits");
    });
    assert_eq!(world.fault_counts().of(Fault::Drop), 2);
}

#[test]
fn parted_nodes_receive_nothing_from_each_other_until_healed() {
    let world = World::new(7);
    let (ash, desk) = (world.node("ash"), world.node("desk"));
    world.run(async {
        let (_server, client) = (server(&ash).await, client(&desk).await);
        world.partition(&[&ash], &[&desk]);
        assert_eq!(fit(&client).await.unwrap_err().reason(), Some(Reason::NoResponse));
        world.mend();
        assert_eq!(fit(&client).await.unwrap(), "fez fits");
    });
}

#[test]
fn a_slow_node_is_late_and_a_paused_node_does_nothing() {
    let world = World::new(7);
    let (ash, desk) = (world.node("ash"), world.node("desk"));
    world.run(async {
        let (_server, client) = (server(&ash).await, client(&desk).await);
        let took = async || {
            let began = world.elapsed();
            fit(&client).await.unwrap();
            world.elapsed() - began
        };
        assert!(took().await < SECOND / 10);
        ash.slow(SECOND / 10);
        assert!(took().await >= SECOND / 5, "a step to bid, and one to answer");
        ash.slow(Duration::ZERO);
        ash.pause(SECOND / 2);
        assert!(took().await >= SECOND / 2);
        assert!(took().await < SECOND / 10);
    });
}

#[test]
fn a_node_that_crashed_is_silent_and_can_be_started_again() {
    let world = World::new(7);
    let (ash, desk) = (world.node("ash"), world.node("desk"));
    world.run(async {
        let (first, client) = (server(&ash).await, client(&desk).await);
        let working = ash.spawn(std::future::pending::<()>());
        ash.crash();
        assert_eq!(working.await, None);
        assert!(fit(&client).await.is_err());
        let _second = server(&ash).await;
        drop(first);
        assert_eq!(fit(&client).await.unwrap(), "fez fits");
    });
}

#[test]
fn a_clock_that_is_set_ahead_makes_requests_expire() {
    let world = World::new(7);
    let (ash, desk) = (world.node("ash"), world.node("desk"));
    world.run(async {
        let (_server, client) = (server(&ash).await, client(&desk).await);
        ash.jump_ahead(2 * SECOND);
        assert!(fit(&client).await.is_err());
        ash.jump_back(2 * SECOND);
        assert_eq!(fit(&client).await.unwrap(), "fez fits");
    });
    assert_eq!(world.fault_counts().of(Fault::ClockJump), 2);
}

#[test]
fn a_stuck_future_is_reported() {
    let world = World::new(7);
    let deadlock = world.try_run(SECOND, std::future::pending::<()>());
    assert_eq!(deadlock, Err(Stuck::Deadlock { at: Duration::ZERO }));
    let too_long = world.try_run(SECOND, world.sleep(2 * SECOND));
    assert!(matches!(too_long, Err(Stuck::TooLong { .. })), "{too_long:?}");
    let spinning = world.try_run(SECOND, async {
        std::future::poll_fn(|cx| {
            cx.waker().wake_by_ref();
            std::task::Poll::<()>::Pending
        })
        .await;
    });
    assert!(matches!(spinning, Err(Stuck::Spinning { .. })), "{spinning:?}");
}

#[test]
fn a_seed_that_fails_is_the_last_that_runs() {
    let seeds = Arc::new(Mutex::new(Vec::new()));
    let ran = Arc::clone(&seeds);
    let failed = std::panic::catch_unwind(move || {
        check_seeds(0..20, async |world| {
            ran.lock().unwrap().push(world.seed());
            if world.seed() == 3 {
                // `resume_unwind` does not call the panic hook, so nothing is printed.
                std::panic::resume_unwind(Box::new("as asked"));
            }
        });
    });
    assert!(failed.is_err());
    assert_eq!(*seeds.lock().unwrap(), [0, 1, 2, 3]);
}

#[test]
fn an_invalid_seed_is_refused() {
    let mut again = std::process::Command::new(std::env::current_exe().unwrap());
    again.args(["--exact", "service::a_seed_that_fails_is_the_last_that_runs"]).env("PSRPC_SEED", "seven");
    let output = again.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("cannot read PSRPC_SEED: \"seven\" is not a number from 0 to 2^64 - 1"), "{said}");
}

#[test]
fn a_call_times_out_though_the_sleep_of_one_before_is_over() {
    let world = World::new(7);
    let (node, bus) = (world.node("ash"), LocalBus::new());
    world.run(async {
        // A subscriber that never responds. No later event of this bus wakes the client.
        let (sink, _inbox) = Inbox::new(8);
        let requests = Channel::request::<&str>(HATS.name, "Own", &[], true);
        let _ignored = bus.subscribe(&requests, SubscriptionKind::Queue, sink, &mut WakeList::new());
        let client = Client::new(bus, node.runtime(), &HATS, ClientOptions::new()).await.unwrap();
        let unanswered = || client.call::<_, String>(&HATS.methods[1], &[], "fez".to_owned()).timeout(SECOND);
        let patience = node.runtime().sleep_until(node.runtime().now().time + SECOND / 10);
        let dropped = node.spawn(drop_after(unanswered().into_future(), patience));
        dropped.await;
        // The client sleeps until the deadline of a call that is over.
        world.sleep(2 * SECOND).await;
        assert_eq!(unanswered().await.unwrap_err().reason(), Some(Reason::TimedOut));
        assert!(world.elapsed() < 4 * SECOND);
    });
}

/// Waits for `patience`, and then drops `call`.
async fn drop_after(call: impl Future<Output = Result<String, Error>> + Send, patience: psrpc::Task) {
    let (mut call, mut patience) = (Box::pin(call), patience);
    std::future::poll_fn(|cx| {
        assert!(call.as_mut().poll(cx).is_pending());
        patience.as_mut().poll(cx)
    })
    .await;
}

#[test]
fn a_server_that_serves_nothing_leaves_no_task_behind() {
    let world = World::new(7);
    let node = world.node("ash");
    for end in [drop, |server: Server| server.kill()] {
        let handlers = Handlers::new(&HATS, ());
        let server = Server::new(node.bus(), node.runtime(), handlers, ServerOptions::new()).unwrap();
        assert!(world.settle(SECOND));
        assert_eq!(world.tasks(), 1);
        end(server);
        assert!(world.settle(SECOND));
        assert_eq!(world.tasks(), 0);
    }
}
