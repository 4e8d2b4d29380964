//! Servers that refuse publishes and subscriptions, temporarily or permanently.

use psrpc::SubscriptionKind::{Plain, Queue};
use psrpc::bus::{Bus, BusEvent, Delivery, Status};
use psrpc_bus_nats::NatsBus;
use psrpc_servers::{Certificates, Server, ServerTls};

use crate::support::{
    SECOND, Subscriber, event, frame, number, plain, publish, queue, runtime, topic, until, watch,
};

/// Returns the configuration of a user who may publish and subscribe to these subjects and to
/// inboxes.
fn user(publish: &str, subscribe: &str) -> String {
    let permissions = format!("publish: [\"_INBOX.>\"{publish}], subscribe: [\"_INBOX.>\"{subscribe}]");
    format!("authorization {{ users = [{{ user: a, password: secret, permissions: {{ {permissions} }} }}] }}")
}

async fn connect(server: &Server) -> NatsBus {
    NatsBus::connect(&server.url_with("a:secret@"), runtime()).await.unwrap()
}

/// Returns the text of a refusal. The refusal may be reported just after the subscription was
/// called live; `was_live` counts these cases.
async fn refusal(subscriber: &mut Subscriber, was_live: &mut usize) -> String {
    match subscriber.next().await {
        Delivery::Ended(Some(error)) => error.to_string(),
        Delivery::Live => {
            *was_live += 1;
            match subscriber.next().await {
                Delivery::Interrupted(error) => error.to_string(),
                other => panic!("{other:?}"),
            }
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_subscription_fails_with_the_reason() {
    let server = Server::nats(&[&user(", \">\"", ", \"SRV.Hats.Q\"")]);
    let bus = connect(&server).await;
    let mut allowed = Subscriber::live(&bus, &queue("Make"), Queue).await;
    let mut was_live = 0;
    for _ in 0..50 {
        let mut refused = Subscriber::new(&bus, &plain("Make"), Plain, 10);
        assert_eq!(
            refusal(&mut refused, &mut was_live).await.replace(&server.url(), "URL"),
            "URL refused the subscription to \"SRV.Hats\": Permissions Violation for Subscription to \"SRV.Hats\""
        );
    }
    // Many at once: all of the refusals are reported.
    let mut refused: Vec<_> =
        (0..1000).map(|n| Subscriber::new(&bus, &topic(&n.to_string()), Plain, 10)).collect();
    for subscriber in &mut refused {
        refusal_after_outages(subscriber, &mut was_live).await;
    }
    println!("{was_live} of 1050 subscriptions were live for a moment");
    until(10 * SECOND, "a frame that is allowed arrives", async || {
        drop(publish(&bus, &queue("Make"), frame(1)).await);
        allowed.waiting().iter().any(|delivery| matches!(delivery, Delivery::Frame(_)))
    })
    .await;
}

/// Half of the topics are refused, while other threads publish frames that are refused too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_refused_subscription_of_many_is_reported() {
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
        let mut subscribers: Vec<_> = (0..TOPICS)
            .map(|n| {
                let n = n + round * TOPICS;
                (
                    Subscriber::new(&bus, &channel("yes", n), Plain, 10),
                    Subscriber::new(&bus, &channel("no", n), Plain, 10),
                )
            })
            .collect();
        let mut was_live = 0;
        for (n, (yes, no)) in (0..).zip(&mut subscribers) {
            refusal_after_outages(no, &mut was_live).await;
            let n = n + round * TOPICS;
            until(10 * SECOND, "a frame on an allowed topic arrives", async || {
                drop(publish(&bus, &channel("yes", n), frame(n)).await);
                yes.waiting().iter().any(|delivery| matches!(delivery, Delivery::Frame(f) if number(f) == n))
            })
            .await;
        }
        println!("{was_live} of {TOPICS} subscriptions were live for a moment");
    }
    flood.await.unwrap();
}

/// Like [`refusal`], but tolerates lost connections.
async fn refusal_after_outages(subscriber: &mut Subscriber, was_live: &mut usize) {
    loop {
        match subscriber.next().await {
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
            "URL refused the publish on \"SRV.Hats\": Permissions Violation for Publish to \"SRV.Hats\""
        );
    }
}

/// How a new configuration is applied.
#[derive(Clone, Copy)]
enum ApplyBy {
    Restart,
    Reload,
}

impl ApplyBy {
    fn configure(self, server: &mut Server, configuration: &str) {
        server.configure(&[configuration]);
        match self {
            ApplyBy::Restart => {
                server.stop();
                server.start();
            }
            ApplyBy::Reload => server.reload(),
        }
    }
}

async fn permissions_that_are_taken_away_and_given_back(by: ApplyBy) {
    let all = user(", \">\"", ", \">\"");
    let none = user("", "");
    let mut server = Server::nats(&[&all]);
    let bus = connect(&server).await;
    let mut subscribers = [
        Subscriber::live(&bus, &plain("Make"), Plain).await,
        Subscriber::live(&bus, &queue("Make"), Queue).await,
    ];
    publish(&bus, &plain("Mend"), frame(0)).await.unwrap();
    for round in 0..2 {
        let mut events = watch(&bus);
        by.configure(&mut server, &none);
        let mut refused = Vec::new();
        while refused.len() < 2 {
            match event(&mut events).await {
                BusEvent::SubscriptionRefused { channel, cause } => {
                    let expected = format!("Permissions Violation for Subscription to \"{channel}\"");
                    assert!(cause.to_string().contains(&expected), "{cause}");
                    refused.push(channel);
                }
                BusEvent::ConnectionLost { .. } | BusEvent::Reconnected { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        refused.sort();
        assert_eq!(refused, ["SRV.Hats", "SRV.Hats.Q"], "each is reported once");
        for subscriber in &mut subscribers {
            while !matches!(subscriber.next().await, Delivery::Interrupted(cause) if cause.to_string().contains("refused"))
            {
            }
        }
        until(10 * SECOND, "a frame is refused", async || {
            let error = publish(&bus, &plain("Mend"), frame(0)).await.err().map(|error| error.to_string());
            error.is_some_and(|error| error.contains("refused the publish on \"SRV.Hats\""))
        })
        .await;
        // A subscription that was never live fails.
        let error = refusal(&mut Subscriber::new(&bus, &topic("t"), Plain, 10), &mut 0).await;
        assert!(error.contains("refused the subscription to \"SRV.Hats.t\""), "{error}");
        by.configure(&mut server, &all);
        for subscriber in &mut subscribers {
            while !matches!(subscriber.next().await, Delivery::Live) {}
        }
        publish(&bus, &plain("Make"), frame(round)).await.unwrap();
        publish(&bus, &queue("Make"), frame(round)).await.unwrap();
        for subscriber in &mut subscribers {
            assert_eq!(subscriber.number().await, round);
        }
        assert!(matches!(bus.status(), Status::Connected));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn permissions_that_are_taken_away_and_given_back_by_a_restart_heal() {
    permissions_that_are_taken_away_and_given_back(ApplyBy::Restart).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn permissions_that_are_taken_away_and_given_back_by_a_reload_heal() {
    permissions_that_are_taken_away_and_given_back(ApplyBy::Reload).await;
}

/// The server sends more errors at once than the 128 that the client library buffers.
#[tokio::test]
async fn every_live_subscription_of_many_that_are_refused_at_once_is_restored() {
    const TOPICS: u32 = 400;
    let mut server = Server::nats(&[&user(", \">\"", ", \">\"")]);
    let bus = connect(&server).await;
    let mut allowed = Subscriber::live(&bus, &queue("Make"), Queue).await;
    let channel = |n: u32| topic(&n.to_string());
    let mut subscribers = Vec::new();
    for n in 0..TOPICS {
        subscribers.push(Subscriber::live(&bus, &channel(n), Plain).await);
    }
    server.configure(&[&user(", \">\"", ", \"SRV.Hats.Q\"")]);
    server.reload();
    let mut was_live = 0;
    for subscriber in &mut subscribers {
        refusal_after_outages(subscriber, &mut was_live).await;
    }
    server.configure(&[&user(", \">\"", ", \">\"")]);
    server.reload();
    for (n, subscriber) in (0..).zip(&mut subscribers) {
        while !matches!(subscriber.next().await, Delivery::Live) {}
        until(10 * SECOND, "a frame arrives", async || {
            drop(publish(&bus, &channel(n), frame(n)).await);
            subscriber
                .waiting()
                .iter()
                .any(|delivery| matches!(delivery, Delivery::Frame(f) if number(f) == n))
        })
        .await;
    }
    publish(&bus, &queue("Make"), frame(7)).await.unwrap();
    loop {
        match allowed.next().await {
            Delivery::Frame(frame) => break assert_eq!(number(&frame), 7),
            Delivery::Interrupted(_) | Delivery::Live => {}
            other => panic!("{other:?}"),
        }
    }
}

/// The server does not say which subscription exceeds the limit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_subscriptions_beyond_the_limit_are_refused() {
    // The inbox counts, too.
    let server = Server::nats(&["max_subscriptions: 6"]);
    let bus = NatsBus::connect(&server.url(), runtime()).await.unwrap();
    let mut subscribers: Vec<_> =
        (0..20).map(|n| (n, Subscriber::new(&bus, &topic(&n.to_string()), Plain, 10))).collect();
    let mut live = Vec::new();
    for (n, mut subscriber) in subscribers.drain(..) {
        match subscriber.next().await {
            Delivery::Live => live.push((n, subscriber)),
            Delivery::Ended(Some(error)) => {
                let expected =
                    format!("refused the subscription to \"SRV.Hats.{n}\": maximum subscriptions exceeded");
                assert!(error.to_string().ends_with(&expected), "{error}");
            }
            other => panic!("{other:?}"),
        }
    }
    // A refused subscription may have been live for a moment. The bus also interrupts subscriptions
    // that may be the refused one; these become live again.
    let (mut receiving, mut silent) = (Vec::new(), live);
    until(20 * SECOND, "five subscriptions receive frames", async || {
        for (n, _) in &silent {
            drop(publish(&bus, &topic(&n.to_string()), frame(*n)).await);
        }
        let has_received = |(n, subscriber): &mut (u32, Subscriber)| {
            subscriber
                .waiting()
                .iter()
                .any(|delivery| matches!(delivery, Delivery::Frame(f) if number(f) == *n))
        };
        receiving.extend(silent.extract_if(.., has_received).map(|(_, subscriber)| subscriber));
        receiving.len() == 5
    })
    .await;
    // Dropping one makes room for another.
    drop((receiving.pop(), silent));
    let mut next = Subscriber::live(&bus, &plain("Make"), Plain).await;
    publish(&bus, &plain("Make"), frame(1)).await.unwrap();
    assert_eq!(next.number().await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_requires_tls_for_a_while_is_used_again() {
    let mut server = Server::nats(&[]);
    let bus = NatsBus::connect(&server.url(), runtime()).await.unwrap();
    let mut subscriber = Subscriber::live(&bus, &plain("Make"), Plain).await;
    server.stop();
    server.configure_tls(Some(&ServerTls::new(&Certificates::new())));
    server.start();
    until(10 * SECOND, "publishing fails with the reason", async || {
        let error = publish(&bus, &plain("Make"), frame(0)).await.err().map(|error| error.to_string());
        error.is_some_and(|error| error.contains("the server requires TLS (use a `tls://` URL): "))
    })
    .await;
    server.stop();
    server.configure_tls(None);
    server.start();
    while !matches!(subscriber.next().await, Delivery::Live) {}
    publish(&bus, &plain("Make"), frame(1)).await.unwrap();
    assert_eq!(subscriber.number().await, 1);
}
