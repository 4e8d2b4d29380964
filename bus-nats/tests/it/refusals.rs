//! Servers that refuse, for a while or for good.

use psrpc::SubscriptionKind::{Plain, Queue};
use psrpc::bus::{Bus, BusEvent, Delivery, Status};
use psrpc_bus_nats::{NatsBus, NatsOptions};
use psrpc_servers::Server;
use tempfile::TempDir;

use crate::support::{
    Ear, SECOND, event, frame, number, plain, publish, queue, runtime, topic, until, watch,
};

/// The configuration of a user who may publish and subscribe to these subjects, beside what the bus
/// needs.
fn user(publish: &str, subscribe: &str) -> String {
    let permissions = format!("publish: [\"_INBOX.>\"{publish}], subscribe: [\"_INBOX.>\"{subscribe}]");
    format!("authorization {{ users = [{{ user: a, password: secret, permissions: {{ {permissions} }} }}] }}")
}

async fn connect(server: &Server) -> NatsBus {
    NatsBus::connect(&server.url_with("a:secret@"), runtime()).await.unwrap()
}

/// The text of a refusal. The word of it may come just after the subscription was called live;
/// `was_live` counts that.
async fn refusal(ear: &mut Ear, was_live: &mut usize) -> String {
    match ear.next().await {
        Delivery::Ended(Some(error)) => error.to_string(),
        Delivery::Live => {
            *was_live += 1;
            match ear.next().await {
                Delivery::Interrupted(error) => error.to_string(),
                other => panic!("{other:?}"),
            }
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_subscription_fails_and_says_why() {
    let server = Server::nats(&[&user(", \">\"", ", \"SRV.Hats.Q\"")]);
    let bus = connect(&server).await;
    let mut allowed = Ear::live(&bus, &queue("Make"), Queue).await;
    let mut was_live = 0;
    for _ in 0..50 {
        let mut refused = Ear::new(&bus, &plain("Make"), Plain, 10);
        assert_eq!(
            refusal(&mut refused, &mut was_live).await.replace(&server.url(), "URL"),
            "URL refused the subscription to \"SRV.Hats\": Permissions Violation for Subscription to \"SRV.Hats\""
        );
    }
    // Many at once, of which none is forgotten.
    let mut refused: Vec<_> = (0..1000).map(|n| Ear::new(&bus, &topic(&n.to_string()), Plain, 10)).collect();
    for ear in &mut refused {
        refusal_after_outages(ear, &mut was_live).await;
    }
    println!("{was_live} of 1050 were called live for a moment");
    until(10 * SECOND, "a frame that is allowed arrives", async || {
        drop(publish(&bus, &queue("Make"), frame(1)).await);
        allowed.waiting().iter().any(|delivery| matches!(delivery, Delivery::Frame(_)))
    })
    .await;
}

/// Half of the topics are refused, while frames that are refused too come from other threads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_subscriptions_none_is_deaf_in_silence() {
    const TOPICS: u32 = 500;
    let server = Server::nats(&[&user(", \"SRV.Hats.yes.>\"", ", \"SRV.Hats.yes.>\"")]);
    let bus = connect(&server).await;
    let flood = tokio::spawn({
        let bus = bus.clone();
        async move {
            for number in 0..20_000 {
                drop(crate::support::offer(&bus, &topic(&format!("no{number}")), frame(0)).await);
            }
        }
    });
    let channel = |prefix: &str, n: u32| {
        psrpc::proto::Channel::request("Hats", "Make", &[prefix, &n.to_string()], false)
    };
    for round in 0..4 {
        let mut ears: Vec<_> = (0..TOPICS)
            .map(|n| {
                let n = n + round * TOPICS;
                (Ear::new(&bus, &channel("yes", n), Plain, 10), Ear::new(&bus, &channel("no", n), Plain, 10))
            })
            .collect();
        let mut was_live = 0;
        for (n, (yes, no)) in (0..).zip(&mut ears) {
            refusal_after_outages(no, &mut was_live).await;
            let n = n + round * TOPICS;
            until(10 * SECOND, "a frame on an allowed topic arrives", async || {
                drop(publish(&bus, &channel("yes", n), frame(n)).await);
                yes.waiting().iter().any(|delivery| matches!(delivery, Delivery::Frame(f) if number(f) == n))
            })
            .await;
        }
        println!("{was_live} of {TOPICS} were called live for a moment");
    }
    flood.await.unwrap();
}

/// The same as [`refusal`], where the connection may be lost meanwhile.
async fn refusal_after_outages(ear: &mut Ear, was_live: &mut usize) {
    loop {
        match ear.next().await {
            Delivery::Ended(Some(_)) => return,
            Delivery::Interrupted(error) if error.to_string().contains("refused the subscription") => return,
            Delivery::Interrupted(_) => {}
            Delivery::Live => *was_live += 1,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_refused_frame_fails_and_others_do_not() {
    let server = Server::nats(&[&user(", \"SRV.Hats.Q\"", ", \">\"")]);
    let bus = connect(&server).await;
    let (queue, plain) = (queue("Make"), plain("Make"));
    for _ in 0..50 {
        let (allowed, refused) =
            tokio::join!(publish(&bus, &queue, frame(1)), publish(&bus, &plain, frame(2)));
        allowed.unwrap();
        assert_eq!(
            refused.unwrap_err().to_string().replace(&server.url(), "URL"),
            "URL refused what was published on \"SRV.Hats\": Permissions Violation for Publish to \"SRV.Hats\""
        );
    }
}

/// What changes the permissions.
#[derive(Clone, Copy)]
enum By {
    Restart,
    Reload,
}

impl By {
    fn configure(self, server: &mut Server, configuration: &str) {
        server.configure(&[configuration]);
        match self {
            By::Restart => {
                server.stop();
                server.start();
            }
            By::Reload => server.reload(),
        }
    }
}

async fn permissions_that_are_taken_away_and_given_back(by: By) {
    let all = user(", \">\"", ", \">\"");
    let none = user("", "");
    let mut server = Server::nats(&[&all]);
    let bus = connect(&server).await;
    let mut ears =
        [Ear::live(&bus, &plain("Make"), Plain).await, Ear::live(&bus, &queue("Make"), Queue).await];
    publish(&bus, &plain("Mend"), frame(0)).await.unwrap();
    for round in 0..2 {
        let mut events = watch(&bus);
        by.configure(&mut server, &none);
        let mut refused = Vec::new();
        while refused.len() < 2 {
            match event(&mut events).await {
                BusEvent::SubscriptionRefused { channel, cause } => {
                    let said = format!("Permissions Violation for Subscription to \"{channel}\"");
                    assert!(cause.to_string().contains(&said), "{cause}");
                    refused.push(channel);
                }
                BusEvent::ConnectionLost { .. } | BusEvent::Reconnected { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        refused.sort();
        assert_eq!(refused, ["SRV.Hats", "SRV.Hats.Q"], "each once");
        for ear in &mut ears {
            while !matches!(ear.next().await, Delivery::Interrupted(cause) if cause.to_string().contains("refused"))
            {
            }
        }
        until(10 * SECOND, "a frame is refused", async || {
            let error = publish(&bus, &plain("Mend"), frame(0)).await.err().map(|error| error.to_string());
            error.is_some_and(|error| error.contains("refused what was published on \"SRV.Hats\""))
        })
        .await;
        // One that was never live is refused for good.
        let error = refusal(&mut Ear::new(&bus, &topic("t"), Plain, 10), &mut 0).await;
        assert!(error.contains("refused the subscription to \"SRV.Hats.t\""), "{error}");
        by.configure(&mut server, &all);
        for ear in &mut ears {
            while !matches!(ear.next().await, Delivery::Live) {}
        }
        publish(&bus, &plain("Make"), frame(round)).await.unwrap();
        publish(&bus, &queue("Make"), frame(round)).await.unwrap();
        for ear in &mut ears {
            assert_eq!(ear.number().await, round);
        }
        assert!(matches!(bus.status(), Status::Connected));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn permissions_that_are_taken_away_and_given_back_by_a_restart_heal() {
    permissions_that_are_taken_away_and_given_back(By::Restart).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn permissions_that_are_taken_away_and_given_back_by_a_reload_heal() {
    permissions_that_are_taken_away_and_given_back(By::Reload).await;
}

/// The client library keeps 128 errors, and the server sends more at once.
#[tokio::test]
async fn none_of_many_live_subscriptions_that_are_refused_at_once_is_forgotten() {
    const TOPICS: u32 = 400;
    let mut server = Server::nats(&[&user(", \">\"", ", \">\"")]);
    let bus = connect(&server).await;
    let mut kept = Ear::live(&bus, &queue("Make"), Queue).await;
    let channel = |n: u32| topic(&n.to_string());
    let mut ears = Vec::new();
    for n in 0..TOPICS {
        ears.push(Ear::live(&bus, &channel(n), Plain).await);
    }
    server.configure(&[&user(", \">\"", ", \"SRV.Hats.Q\"")]);
    server.reload();
    let mut was_live = 0;
    for ear in &mut ears {
        refusal_after_outages(ear, &mut was_live).await;
    }
    server.configure(&[&user(", \">\"", ", \">\"")]);
    server.reload();
    for (n, ear) in (0..).zip(&mut ears) {
        while !matches!(ear.next().await, Delivery::Live) {}
        until(10 * SECOND, "a frame arrives", async || {
            drop(publish(&bus, &channel(n), frame(n)).await);
            ear.waiting().iter().any(|delivery| matches!(delivery, Delivery::Frame(f) if number(f) == n))
        })
        .await;
    }
    publish(&bus, &queue("Make"), frame(7)).await.unwrap();
    loop {
        match kept.next().await {
            Delivery::Frame(frame) => break assert_eq!(number(&frame), 7),
            Delivery::Interrupted(_) | Delivery::Live => {}
            other => panic!("{other:?}"),
        }
    }
}

/// The server does not say which of the subscriptions is one too many.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_too_many_is_refused_and_no_other() {
    // The inbox is one too.
    let server = Server::nats(&["max_subscriptions: 6"]);
    let bus = NatsBus::connect(&server.url(), runtime()).await.unwrap();
    let mut ears: Vec<_> = (0..20).map(|n| (n, Ear::new(&bus, &topic(&n.to_string()), Plain, 10))).collect();
    let mut live = Vec::new();
    for (n, mut ear) in ears.drain(..) {
        match ear.next().await {
            Delivery::Live => live.push((n, ear)),
            Delivery::Ended(Some(error)) => {
                let said =
                    format!("refused the subscription to \"SRV.Hats.{n}\": maximum subscriptions exceeded");
                assert!(error.to_string().ends_with(&said), "{error}");
            }
            other => panic!("{other:?}"),
        }
    }
    // One that was called live for a moment is interrupted, and one that was suspected is live
    // again.
    let (mut heard, mut silent) = (Vec::new(), live);
    until(20 * SECOND, "five hear frames", async || {
        for (n, _) in &silent {
            drop(publish(&bus, &topic(&n.to_string()), frame(*n)).await);
        }
        let hears = |(n, ear): &mut (u32, Ear)| {
            ear.waiting().iter().any(|delivery| matches!(delivery, Delivery::Frame(f) if number(f) == *n))
        };
        heard.extend(silent.extract_if(.., hears).map(|(_, ear)| ear));
        heard.len() == 5
    })
    .await;
    // One that leaves makes room for another.
    drop((heard.pop(), silent));
    let mut next = Ear::live(&bus, &plain("Make"), Plain).await;
    publish(&bus, &plain("Make"), frame(1)).await.unwrap();
    assert_eq!(next.number().await, 1);
}

/// The client library panics over it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_turns_to_tls_and_back_is_used_again() {
    let home = TempDir::new().unwrap();
    let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (cert, key) = (home.path().join("cert.pem"), home.path().join("key.pem"));
    std::fs::write(&cert, certificate.cert.pem()).unwrap();
    std::fs::write(&key, certificate.signing_key.serialize_pem()).unwrap();
    let mut server = Server::nats(&[]);
    let bus = NatsBus::connect(&server.url(), runtime()).await.unwrap();
    let mut ear = Ear::live(&bus, &plain("Make"), Plain).await;
    server.stop();
    server.configure(&[&format!("tls {{ cert_file: {cert:?}, key_file: {key:?} }}")]);
    server.start();
    until(10 * SECOND, "publishing fails and says why", async || {
        let error = publish(&bus, &plain("Make"), frame(0)).await.err().map(|error| error.to_string());
        error.is_some_and(|error| error.contains("if the server requires TLS, this bus does not have it yet"))
    })
    .await;
    let options = NatsOptions::new().connection_timeout(SECOND);
    let error = NatsBus::connect_with(&server.url(), runtime(), options).await.unwrap_err().to_string();
    assert!(error.contains("requires TLS"), "{error}");
    server.stop();
    server.configure(&[]);
    server.start();
    while !matches!(ear.next().await, Delivery::Live) {}
    publish(&bus, &plain("Make"), frame(1)).await.unwrap();
    assert_eq!(ear.number().await, 1);
}
