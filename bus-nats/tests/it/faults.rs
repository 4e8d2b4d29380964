//! Servers that fail, refuse and freeze.

use std::process::Command;
use std::time::Instant;

use psrpc::SubscriptionKind::{Plain, Queue};
use psrpc::bus::Delivery;
use psrpc_bus_nats::{NatsBus, NatsOptions};

use crate::support::{Ear, SECOND, frame, number, plain, publish, queue, runtime, until};
use psrpc_servers::Server;

/// Waits for a gap. What was on its way to the server when it went may come before.
async fn gap(ear: &mut Ear) {
    loop {
        match ear.next().await {
            Delivery::Gap(None) => return,
            Delivery::Frame(frame) if number(&frame) == 0 => {}
            other => panic!("{other:?}"),
        }
    }
}

async fn survives(server: &mut Server, bus: NatsBus) {
    let mut ears =
        [Ear::live(&bus, &plain("Make"), Plain).await, Ear::live(&bus, &queue("Make"), Queue).await];
    for round in 0..3 {
        server.kill();
        let down = until(SECOND, "publishing fails", async || {
            publish(&bus, &plain("Make"), frame(0)).await.is_err()
        })
        .await;
        assert!(down < SECOND / 2, "{down:?}");
        let start = Instant::now();
        let error = publish(&bus, &plain("Make"), frame(0)).await.unwrap_err().to_string();
        assert!(
            start.elapsed() < SECOND / 10 && error.contains("not connected to nats://127.0.0.1:"),
            "{error}"
        );
        // Subscribed while there is no connection.
        let mut late = Ear::new(&bus, &plain("Mend"), Plain, 10);
        let mut gone = Ear::new(&bus, &plain("Lend"), Plain, 10);
        tokio::time::sleep(SECOND * round).await;
        assert!(late.waiting().is_empty());
        gone.subscription = None;
        assert!(matches!(gone.next().await, Delivery::Ended(None)));
        for ear in &mut ears {
            ear.waiting();
        }
        server.start();
        let start = Instant::now();
        for ear in &mut ears {
            gap(ear).await;
        }
        assert!(matches!(late.next().await, Delivery::Live));
        publish(&bus, &plain("Make"), frame(1)).await.unwrap();
        publish(&bus, &queue("Make"), frame(2)).await.unwrap();
        publish(&bus, &plain("Mend"), frame(3)).await.unwrap();
        assert_eq!((ears[0].number().await, ears[1].number().await, late.number().await), (1, 2, 3));
        assert!(start.elapsed() < 2 * SECOND, "{:?}", start.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_and_comes_back_is_used_again() {
    let mut server = Server::nats(&[]);
    let bus = NatsBus::connect(&server.url(), runtime()).await.unwrap();
    survives(&mut server, bus).await;
}

#[tokio::test]
async fn so_it_is_by_way_of_a_client_from_elsewhere() {
    let mut server = Server::nats(&[]);
    let options = async_nats::ConnectOptions::new().reconnect_delay_callback(|_| SECOND / 10);
    let bus = NatsBus::from_client(options.connect(server.url()).await.unwrap(), runtime()).await.unwrap();
    survives(&mut server, bus).await;
}

#[tokio::test]
async fn a_frozen_server_goes_on_where_it_was() {
    let server = Server::nats(&[]);
    let bus = NatsBus::connect(&server.url(), runtime()).await.unwrap();
    let mut ear = Ear::live(&bus, &plain("Make"), Plain).await;
    publish(&bus, &plain("Make"), frame(0)).await.unwrap();
    assert_eq!(ear.number().await, 0);
    server.freeze();
    publish(&bus, &plain("Make"), frame(1)).await.unwrap();
    let mut late = Ear::new(&bus, &plain("Mend"), Plain, 10);
    let mut other = Ear::new(&bus, &queue("Mend"), Queue, 10);
    tokio::time::sleep(SECOND).await;
    for ear in [&mut ear, &mut other] {
        let waiting = ear.waiting();
        assert!(waiting.is_empty(), "{waiting:?}");
    }
    server.thaw();
    assert_eq!(ear.number().await, 1);
    assert!(matches!(late.next().await, Delivery::Live));
    assert!(matches!(other.next().await, Delivery::Live));
}

#[tokio::test]
async fn a_server_that_stays_frozen_is_given_up() {
    let server = Server::nats(&[]);
    let options = NatsOptions::new().ping_interval(SECOND / 5).connection_timeout(SECOND);
    let bus = NatsBus::connect_with(&server.url(), runtime(), options).await.unwrap();
    let mut ear = Ear::live(&bus, &plain("Make"), Plain).await;
    server.freeze();
    until(3 * SECOND, "publishing fails", async || publish(&bus, &plain("Make"), frame(0)).await.is_err())
        .await;
    server.thaw();
    gap(&mut ear).await;
    publish(&bus, &plain("Make"), frame(1)).await.unwrap();
    assert_eq!(ear.number().await, 1);
}

#[tokio::test]
async fn a_server_in_lame_duck_mode_is_left() {
    let pid = tempfile::NamedTempFile::new().unwrap();
    let pid_file = format!("pid_file: {:?}", pid.path());
    let mut server = Server::nats(&["lame_duck_duration: 30s", "lame_duck_grace_period: 100ms", &pid_file]);
    let bus = NatsBus::connect(&server.url(), runtime()).await.unwrap();
    let mut ear = Ear::live(&bus, &plain("Make"), Plain).await;
    let pid = std::fs::read_to_string(pid.path()).unwrap();
    assert!(Command::new("kill").args(["-USR2", pid.trim()]).status().unwrap().success());
    until(5 * SECOND, "publishing fails", async || publish(&bus, &plain("Mend"), frame(0)).await.is_err())
        .await;
    server.start();
    gap(&mut ear).await;
    publish(&bus, &plain("Make"), frame(1)).await.unwrap();
    assert_eq!(ear.number().await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_subscription_fails_and_says_why() {
    let permissions = "publish: \">\", subscribe: [\"_INBOX.>\", \"SRV.Hats.Q\"]";
    let server = Server::nats(&[&format!(
        "authorization {{ users = [{{ user: a, password: secret, permissions: {{ {permissions} }} }}] }}"
    )]);
    let bus = NatsBus::connect(&server.url_with("a:secret@"), runtime()).await.unwrap();
    let mut allowed = Ear::live(&bus, &queue("Make"), Queue).await;
    for round in 0..50 {
        let mut refused = Ear::new(&bus, &plain("Make"), Plain, 10);
        let delivery = refused.next().await;
        let Delivery::Ended(Some(error)) = delivery else { panic!("{delivery:?} in round {round}") };
        assert_eq!(
            error.to_string().replace(&server.url(), "URL"),
            "URL refused the subscription to \"SRV.Hats\": Permissions Violation for Subscription to \"SRV.Hats\""
        );
    }
    // Many at once, of which none is forgotten.
    let mut refused: Vec<_> =
        (0..1000).map(|n| Ear::new(&bus, &crate::support::topic(&n.to_string()), Plain, 10)).collect();
    for ear in &mut refused {
        let delivery = ear.next().await;
        assert!(matches!(delivery, Delivery::Ended(Some(_))), "{delivery:?}");
    }
    publish(&bus, &queue("Make"), frame(1)).await.unwrap();
    assert_eq!(allowed.number().await, 1);
}

#[tokio::test]
async fn a_refused_frame_fails_and_others_do_not() {
    let permissions = "publish: [\"_INBOX.>\", \"SRV.Hats.Q\"], subscribe: \">\"";
    let server = Server::nats(&[&format!(
        "authorization {{ users = [{{ user: a, password: secret, permissions: {{ {permissions} }} }}] }}"
    )]);
    let bus = NatsBus::connect(&server.url_with("a:secret@"), runtime()).await.unwrap();
    let (queue, plain) = (queue("Make"), plain("Make"));
    for _ in 0..50 {
        let (allowed, refused) =
            tokio::join!(publish(&bus, &queue, frame(1)), publish(&bus, &plain, frame(2)));
        allowed.unwrap();
        assert_eq!(
            refused.unwrap_err().to_string().replace(&server.url(), "URL"),
            "URL refused what was published on \"SRV.Hats\": the user is not allowed to"
        );
    }
}

#[tokio::test]
async fn a_subscriber_that_does_not_read_delays_nobody() {
    let server = Server::nats(&[]);
    let bus = NatsBus::connect(&server.url(), runtime()).await.unwrap();
    let mut slow = Ear::new(&bus, &plain("Make"), Plain, 10);
    let mut quick = Ear::live(&bus, &plain("Make"), Plain).await;
    for number in 0..5000 {
        publish(&bus, &plain("Make"), frame(number)).await.unwrap();
        assert_eq!(quick.number().await, number);
    }
    publish(&bus, &plain("Mend"), frame(0)).await.unwrap();
    // Whoever comes first is handed a frame last.
    let mut waiting = Vec::new();
    until(SECOND, "all have come", async || {
        waiting.extend(slow.waiting());
        let lost = |delivery: &Delivery| match delivery {
            Delivery::Gap(lost) => lost.unwrap_or_default(),
            Delivery::Frame(_) => 1,
            _ => 0,
        };
        waiting.iter().map(lost).sum::<u64>() == 5000
    })
    .await;
    assert!(waiting.len() <= 1 + 10 + 2, "{waiting:?}");
}

#[test]
fn what_the_client_has_no_room_for_is_a_gap_where_it_was_lost() {
    let server = Server::nats(&[]);
    // On one thread the connection reads all that has come before anybody looks at it.
    let options = NatsOptions::new().subscription_capacity(10);
    let bus = crate::support::block_on(NatsBus::connect_with(&server.url(), runtime(), options)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let other = NatsBus::connect(&server.url(), crate::support::runtime()).await.unwrap();
        let _before = Ear::live(&bus, &plain("Before"), Queue).await;
        let mut ear = Ear::live(&bus, &queue("Make"), Queue).await;
        let mut spared = Ear::live(&bus, &plain("Make"), Plain).await;
        let mut deliveries = Vec::new();
        until(10 * SECOND, "there is a gap", async || {
            for number in 0..1000 {
                drop(crate::support::offer(&other, &queue("Make"), frame(number)).await);
            }
            publish(&other, &plain("Make"), frame(0)).await.unwrap();
            spared.number().await;
            deliveries.extend(ear.waiting());
            deliveries.iter().any(|delivery| matches!(delivery, Delivery::Gap(None)))
        })
        .await;
        assert!(spared.waiting().is_empty());
    });
}
