//! What goes wrong at a server, and what is said of it.

use std::future::poll_fn;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::pin::Pin;
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures_core::Stream;
use psrpc_bus_redis::{RedisBus, RedisOptions};
use psrpc_servers::{Server, free_port};
use psrpc_tokio::bus::{Bus, Delivery, Inbox, Receipt};
use psrpc_tokio::proto::{Any, Channel, Frame};
use psrpc_tokio::{BusError, SubscriptionKind, TokioRuntime};

fn runtime() -> TokioRuntime {
    TokioRuntime::current().unwrap()
}

/// Why there is no connection: in both forms, neither of which may hold a secret.
async fn refusal(url: &str) -> String {
    let begun = now();
    let error = RedisBus::connect(url, runtime()).await.expect_err("there is nothing to connect to");
    assert!(now() - begun < Duration::from_secs(3), "it took {:?}", now() - begun);
    let (text, debug) = (error.to_string(), format!("{error:?}"));
    assert!(!text.contains("s3cret") && !debug.contains("s3cret"), "{text} / {debug}");
    text
}

/// A server that says `answer` to whoever connects, if anything.
fn impostor(answer: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut connections = Vec::new();
        for mut connection in listener.incoming().flatten() {
            let _ = connection.read(&mut [0; 512]);
            let _ = connection.write_all(answer);
            connections.push(connection);
        }
    });
    port
}

#[tokio::test]
async fn a_url_that_is_none_is_refused_by_what_is_wrong_with_it() {
    for (url, said) in [
        ("127.0.0.1:6379", "not the URL of a Redis server: it does not begin with `redis://`"),
        ("nats://:s3cret@x", "not the URL of a Redis server: its scheme is `nats://`, not `redis://`"),
        (
            "rediss://:s3cret@x",
            "not the URL of a Redis server: `rediss://` needs TLS, which is not supported yet",
        ),
    ] {
        assert_eq!(refusal(url).await, said);
    }
    assert!(refusal("redis://:s3cret@[").await.starts_with("not the URL of a Redis server: "));
    assert!(
        refusal("redis://:s3cret@127.0.0.1:1/nonsense").await.starts_with("not the URL of a Redis server: ")
    );
}

#[tokio::test]
async fn a_server_that_cannot_be_had_is_named_with_the_cause() {
    let nobody = free_port();
    let said = refusal(&format!("redis://:s3cret@127.0.0.1:{nobody}")).await;
    assert!(
        said.starts_with(&format!("redis at 127.0.0.1:{nobody}: ")) && said.contains("refused"),
        "{said}"
    );

    let silent = impostor(b"");
    let said = refusal(&format!("redis://:s3cret@127.0.0.1:{silent}")).await;
    assert_eq!(said, format!("redis at 127.0.0.1:{silent}: it did not answer in time"));

    let stranger = impostor(b"INFO {\"server_id\":\"x\"}\r\n");
    let said = refusal(&format!("redis://:s3cret@127.0.0.1:{stranger}")).await;
    assert_eq!(said, format!("redis at 127.0.0.1:{stranger}: what it answers is not Redis"));
}

#[tokio::test]
async fn a_wrong_password_is_told_without_it() {
    let server = Server::redis(&["--requirepass", "right"]);
    for credentials in [":s3cret@", "nobody:s3cret@", ""] {
        let said = refusal(&server.url_with(credentials)).await;
        assert!(said.starts_with(&format!("redis at 127.0.0.1:{}: ", server.port())), "{said}");
        assert!(said.contains("WRONGPASS") || said.contains("NOAUTH"), "{said}");
    }
    RedisBus::connect(&server.url_with(":right@"), runtime()).await.unwrap();
}

#[tokio::test]
async fn a_server_that_repeats_what_it_was_told_does_not_get_the_password_out() {
    let server = Server::redis(&["--requirepass", "s3cret", "--rename-command", "HELLO", "NOHELLO"]);
    let said = refusal(&server.url_with(":s3cret@")).await;
    assert!(
        said.ends_with("it does not know a command that the bus needs, which takes Redis 6 or later"),
        "{said}"
    );
}

#[test]
fn a_bus_whose_runtime_is_gone_says_so() {
    let server = Server::redis(&[]);
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (sink, mut inbox) = Inbox::new(10);
    let (bus, subscription) = tokio.block_on(async {
        let bus = RedisBus::connect(&server.url(), runtime()).await.unwrap();
        let subscription = bus.subscribe(&channel("Fit"), SubscriptionKind::Plain, sink);
        assert!(matches!(next(&mut inbox).await, Some(Delivery::Live)));
        (bus, subscription)
    });
    drop(tokio);
    let (tell, told) = mpsc::channel();
    bus.publish(&channel("Fit"), frame("a hat"), Receipt::new(move |result| tell.send(result).unwrap()))
        .unwrap();
    assert!(told.recv().unwrap().unwrap_err().to_string().contains("the bus has stopped"));
    let mut cx = Context::from_waker(Waker::noop());
    while let Poll::Ready(delivery) = Pin::new(&mut inbox).poll_next(&mut cx) {
        match delivery {
            Some(Delivery::Gap(None)) => {}
            Some(Delivery::Ended(Some(_))) => return drop(subscription),
            other => panic!("{other:?}"),
        }
    }
    panic!("the subscriber hears nothing");
}

fn channel(method: &str) -> Channel {
    Channel::request::<&str>("Hats", method, &[], true)
}

fn frame(text: &'static str) -> Frame {
    Frame::Other(Any { type_url: "a/b".into(), value: text.into() })
}

async fn next(inbox: &mut Inbox) -> Option<Delivery> {
    poll_fn(|cx| Pin::new(&mut *inbox).poll_next(cx)).await
}

/// What becomes of a frame that is published.
async fn publish(bus: &RedisBus, channel: &Channel, frame: Frame) -> Result<Option<u64>, BusError> {
    let (tell, told) = mpsc::channel();
    bus.publish(channel, frame, Receipt::new(move |result| tell.send(result).unwrap())).unwrap();
    tokio::task::spawn_blocking(move || told.recv().unwrap()).await.unwrap()
}

/// `CLIENT ...`, `ACL ...` and so on, said to the server by somebody else.
async fn said_to(server: &Server, command: &str) -> redis::Value {
    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut words = command.split(' ');
    let mut command = redis::cmd(words.next().unwrap());
    words.for_each(|word| _ = command.arg(word));
    command.query_async(&mut connection).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_that_is_not_ours_is_refused_by_name() {
    let server = Server::redis(&[]);
    said_to(&server, "ACL SETUSER hatter on >right ~* +@all resetchannels &Hats|Fit|*").await;
    let bus = RedisBus::connect(&server.url_with("hatter:right@"), runtime()).await.unwrap();
    let (sink, mut allowed) = Inbox::new(10);
    let _allowed = bus.subscribe(&channel("Fit"), SubscriptionKind::Plain, sink);
    let (sink, mut refused) = Inbox::new(10);
    let _refused = bus.subscribe(&channel("Pick"), SubscriptionKind::Plain, sink);
    assert!(matches!(next(&mut allowed).await, Some(Delivery::Live)));
    let Some(Delivery::Ended(Some(error))) = next(&mut refused).await else { panic!("it is refused") };
    let error = error.to_string();
    assert!(error.contains("no permissions") && error.contains("subscribing to Hats|Pick|REQ"), "{error}");
    assert_eq!(publish(&bus, &channel("Fit"), frame("a hat")).await.unwrap(), Some(1));
    let error = publish(&bus, &channel("Pick"), frame("a hat")).await.unwrap_err().to_string();
    assert!(error.contains("no permissions") && error.contains("publishing on Hats|Pick|REQ"), "{error}");
    assert!(matches!(next(&mut allowed).await, Some(Delivery::Frame(_))), "the others go on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_connection_is_a_gap_and_comes_back_by_itself() {
    let server = Server::redis(&[]);
    let bus = RedisBus::connect(&server.url(), runtime()).await.unwrap();
    let (sink, mut inbox) = Inbox::new(10);
    let _subscription = bus.subscribe(&channel("Fit"), SubscriptionKind::Plain, sink);
    assert!(matches!(next(&mut inbox).await, Some(Delivery::Live)));
    said_to(&server, "CLIENT KILL TYPE pubsub").await;
    assert!(matches!(next(&mut inbox).await, Some(Delivery::Gap(None))), "it was lost");
    assert!(matches!(next(&mut inbox).await, Some(Delivery::Gap(None))), "it is back");
    publish(&bus, &channel("Fit"), frame("a hat")).await.unwrap();
    assert!(matches!(next(&mut inbox).await, Some(Delivery::Frame(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishing_fails_at_once_while_there_is_no_server() {
    let mut server = Server::redis(&[]);
    let bus = RedisBus::connect(&server.url(), runtime()).await.unwrap();
    server.kill();
    let begun = now();
    // The first may find out itself.
    for _ in 0..100 {
        let error = publish(&bus, &channel("Fit"), frame("a hat")).await.unwrap_err().to_string();
        assert!(
            error.contains("server closed")
                || error.contains(&format!("redis at 127.0.0.1:{}: ", server.port())),
            "{error}"
        );
    }
    assert!(now() - begun < Duration::from_secs(1), "it took {:?}", now() - begun);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_server_fills_the_bus_and_no_more() {
    let server = Server::redis(&[]);
    let options = RedisOptions::new().queue_bytes(100_000).response_timeout(Duration::from_millis(500));
    let bus = RedisBus::connect_with(&server.url(), runtime(), options).await.unwrap();
    server.freeze();
    let (tell, told) = mpsc::channel();
    let mut accepted = 0;
    loop {
        let tell = tell.clone();
        let payload = Frame::Other(Any { type_url: "a/b".into(), value: vec![0; 1000].into() });
        match bus.publish(&channel("Fit"), payload, Receipt::new(move |result| _ = tell.send(result))) {
            Ok(()) => accepted += 1,
            Err(full) => break drop(full),
        }
        assert!(accepted < 200, "{accepted} frames of 1,000 bytes");
    }
    // The bus has room again when it gives the server up, and all who asked are woken.
    poll_fn(|cx| bus.poll_room(cx)).await;
    let failed =
        tokio::task::spawn_blocking(move || told.iter().take(accepted).all(|result| result.is_err()));
    assert!(failed.await.unwrap(), "none of them was published");
    server.thaw();
    let begun = now();
    while publish(&bus, &channel("Fit"), frame("a hat")).await.is_err() {
        assert!(now() - begun < Duration::from_secs(2), "it is not back");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_there_already_is_taken() {
    let server = Server::redis(&["--requirepass", "right"]);
    let client = redis::Client::open(server.url_with(":right@")).unwrap();
    let bus = RedisBus::from_client(&client, runtime(), RedisOptions::new()).await.unwrap();
    assert_eq!(publish(&bus, &channel("Fit"), frame("a hat")).await.unwrap(), Some(0));
}

#[expect(clippy::disallowed_methods, reason = "real servers live in real time")]
fn now() -> Instant {
    Instant::now()
}
