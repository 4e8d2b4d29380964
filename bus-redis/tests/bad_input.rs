//! What goes wrong at a server, and what is said of it.

mod common;

use std::future::poll_fn;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_core::Stream;
use psrpc_bus_redis::{RedisBus, RedisOptions};
use psrpc_servers::{Server, free_port};
use psrpc_tokio::bus::{Accepted, Bus, BusEvent, Delivery, Offer, ReplyTo, Status, WakeList};
use psrpc_tokio::proto::{Any, Frame, Seed};
use psrpc_tokio::{Now, Runtime, SubscriptionKind, Task, Time, TokioRuntime};
use tokio::sync::watch;

use self::common::{channel, connect, frame, listen, next, now, publish, runtime, subscribe, tell, within};

/// Why there is no connection: in both forms, neither of which may hold a secret.
async fn refusal(url: &str) -> String {
    let begun = now();
    let error = RedisBus::connect(url, runtime()).await.expect_err("there is nothing to connect to");
    assert!(now() - begun < Duration::from_secs(3), "it took {:?}", now() - begun);
    let (text, debug) = (error.to_string(), format!("{error:?}"));
    assert!(!text.contains("s3cret") && !debug.contains("s3cret"), "{text} / {debug}");
    text
}

/// Starts a server that sends `answer`, if it is not empty, to each connection.
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
    let (bus, mut inbox, subscription) = tokio.block_on(async {
        let bus = connect(&server).await;
        let (inbox, subscription) = listen(&bus, &channel("Fit"), SubscriptionKind::Plain).await;
        (bus, inbox, subscription)
    });
    let mut events = bus.monitor().unwrap().watch();
    drop(tokio);
    let offer = Offer::new(channel("Fit"), frame("a hat"), ReplyTo::new(|_| panic!("it is known at once")));
    let Ok(Accepted::Failed(cause)) = bus.publish(offer, &mut WakeList::new()) else { panic!("it fails") };
    assert!(cause.to_string().contains("the bus has stopped"), "{cause}");
    assert!(matches!(bus.status(), Status::Stopped { cause } if cause.to_string().contains("has stopped")));
    let mut cx = Context::from_waker(Waker::noop());
    let delivery = Pin::new(&mut inbox).poll_next(&mut cx);
    assert!(matches!(delivery, Poll::Ready(Some(Delivery::Ended(Some(_))))), "{delivery:?}");
    let mut next = || Pin::new(&mut events).poll_next(&mut cx);
    assert!(matches!(next(), Poll::Ready(Some(BusEvent::Stopped { .. }))));
    assert!(next().is_pending(), "it is told once");
    drop(subscription);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_that_is_not_ours_is_refused_by_name() {
    let server = Server::redis(&[]);
    tell(&server, "ACL SETUSER hatter on >right ~* +@all resetchannels &Hats|Fit|*").await;
    let bus = RedisBus::connect(&server.url_with("hatter:right@"), runtime()).await.unwrap();
    let (mut allowed, _allowed) = subscribe(&bus, &channel("Fit"), SubscriptionKind::Plain);
    let (mut refused, _refused) = subscribe(&bus, &channel("Pick"), SubscriptionKind::Plain);
    assert!(matches!(next(&mut allowed).await, Delivery::Live));
    let Delivery::Ended(Some(error)) = next(&mut refused).await else { panic!("it is refused") };
    let error = error.to_string();
    assert!(error.contains("no permissions") && error.contains("subscribing to Hats|Pick|REQ"), "{error}");
    assert_eq!(publish(&bus, &channel("Fit"), frame("a hat")).await.unwrap(), Some(1));
    let error = publish(&bus, &channel("Pick"), frame("a hat")).await.unwrap_err().to_string();
    assert!(error.contains("no permissions") && error.contains("publishing on Hats|Pick|REQ"), "{error}");
    assert!(matches!(next(&mut allowed).await, Delivery::Frame(_)), "the others go on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishing_fails_at_once_while_there_is_no_server() {
    let mut server = Server::redis(&[]);
    let bus = RedisBus::connect(&server.url(), runtime()).await.unwrap();
    server.kill();
    // The first may find out itself.
    for _ in 0..100 {
        let error = publish(&bus, &channel("Fit"), frame("a hat")).await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("redis at 127.0.0.1:{}: ", server.port())), "{error}");
    }
    let mut watcher = bus.monitor().unwrap().watch();
    while !matches!(bus.status(), Status::Reconnecting { .. }) {
        common::event(&mut watcher).await;
    }
    let offer = Offer::new(channel("Fit"), frame("a hat"), ReplyTo::new(|_| panic!("it is known at once")));
    assert!(matches!(bus.publish(offer, &mut WakeList::new()), Ok(Accepted::Failed(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_server_fills_the_bus_and_no_more() {
    let server = Server::redis(&[]);
    let options = RedisOptions::new().queue_bytes(100_000).response_timeout(Duration::from_millis(500));
    let bus = RedisBus::connect_with(&server.url(), runtime(), options).await.unwrap();
    server.freeze();
    let (results, told) = std::sync::mpsc::channel();
    let mut accepted = 0;
    loop {
        let results = results.clone();
        let payload = Frame::Other(Any { type_url: "a/b".into(), value: vec![0; 1000].into() });
        let reply_to = ReplyTo::new(move |result| _ = results.send(result));
        match bus.publish(Offer::new(channel("Fit"), payload, reply_to), &mut WakeList::new()) {
            Ok(Accepted::Later) => accepted += 1,
            Ok(other) => panic!("{other:?}"),
            Err(psrpc_tokio::bus::Full) => break,
        }
        assert!(accepted < 200, "{accepted} frames of 1,000 bytes");
    }
    // The bus has room again when it gives the server up, and all who asked are woken.
    within(poll_fn(|cx| bus.poll_ready(cx))).await;
    let failed =
        tokio::task::spawn_blocking(move || told.iter().take(accepted).all(|result| result.is_err()));
    assert!(failed.await.unwrap(), "none of them was published");
    server.thaw();
    within(bus.monitor().unwrap().connected()).await.unwrap();
    publish(&bus, &channel("Fit"), frame("a hat")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_there_already_is_taken() {
    let server = Server::redis(&["--requirepass", "right"]);
    let client = redis::Client::open(server.url_with(":right@")).unwrap();
    let bus = RedisBus::from_client(&client, runtime(), RedisOptions::new()).await.unwrap();
    assert_eq!(publish(&bus, &channel("Fit"), frame("a hat")).await.unwrap(), Some(0));
}

/// Starts a server that sends `greeting` to each connection and hangs up. Counts the connections.
fn gatekeeper(greeting: &'static [u8]) -> (u16, watch::Receiver<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (counted, count) = watch::channel(0);
    std::thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            counted.send_modify(|count| *count += 1);
            let _ = connection.write_all(greeting);
        }
    });
    (port, count)
}

#[tokio::test]
async fn what_a_server_says_before_it_hangs_up_is_quoted() {
    for greeting in ["ERR max number of clients reached", "DENIED Redis is running in protected mode because"]
    {
        let (port, _) = gatekeeper(format!("-{greeting}\r\n").leak().as_bytes());
        for _ in 0..20 {
            let said = refusal(&format!("redis://:s3cret@127.0.0.1:{port}")).await;
            assert_eq!(said, format!("redis at 127.0.0.1:{port}: {greeting}"));
        }
    }
    let (port, _) = gatekeeper(b"");
    let said = refusal(&format!("redis://:s3cret@127.0.0.1:{port}")).await;
    assert!(said.starts_with(&format!("redis at 127.0.0.1:{port}: ")), "{said}");
}

#[tokio::test]
async fn a_real_server_that_is_full_is_quoted() {
    let server = Server::redis(&[]);
    let mut only = common::foreign(&server).await;
    redis::cmd("CONFIG").arg("SET").arg("maxclients").arg(1).exec_async(&mut only).await.unwrap();
    let said = refusal(&server.url()).await;
    assert_eq!(said, format!("redis at 127.0.0.1:{}: ERR max number of clients reached", server.port()));
}

#[tokio::test]
async fn an_ordinary_refusal_does_not_depend_on_the_password() {
    let server = Server::redis(&["--requirepass", "right"]);
    for password in ["redis", "a", "password", "invalid"] {
        let said =
            RedisBus::connect(&server.url_with(&format!(":{password}@")), runtime()).await.unwrap_err();
        assert_eq!(
            said.to_string(),
            format!(
                "redis at 127.0.0.1:{}: WRONGPASS invalid username-password pair or user is disabled.",
                server.port()
            )
        );
    }
}

#[tokio::test]
async fn a_server_that_echoes_does_not_get_the_password_out() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            let mut said = [0; 512];
            let count = connection.read(&mut said).unwrap_or(0);
            let said = String::from_utf8_lossy(&said[..count]).replace("\r\n", " ");
            for _ in 0..9 {
                let _ = connection.write_all(format!("-ECHO {said}\r\n").as_bytes());
            }
        }
    });
    let said = refusal(&format!("redis://:s3cret@127.0.0.1:{port}")).await;
    assert!(said.contains("withheld"), "{said}");
}

#[tokio::test]
async fn a_server_that_accepts_and_drops_is_left_in_peace() {
    // It answers as much as makes a connection, and drops that at the first command.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    std::thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            counted.fetch_add(1, Ordering::Relaxed);
            let _ = connection.read(&mut [0; 512]);
            let _ = connection.write_all(b"%0\r\n+OK\r\n+OK\r\n");
        }
    });
    let bus = RedisBus::connect(&format!("redis://127.0.0.1:{port}"), runtime()).await.unwrap();
    // A measurement: how often it connects in four seconds.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let count = count.load(Ordering::Relaxed);
    assert!((4..60).contains(&count), "{count} connections in 4 s, by two that came back");
    let Status::Reconnecting { cause, .. } = bus.status() else { panic!("it serves nothing") };
    assert!(cause.to_string().starts_with(&format!("redis at 127.0.0.1:{port}: ")), "{cause}");
}

#[tokio::test]
async fn a_bus_waits_for_its_server_if_it_is_told_to() {
    let mut server = Server::redis(&["--requirepass", "right"]);
    server.stop();
    let options = RedisOptions::new().wait_for_server(true);
    let url = server.url_with(":right@");
    let connecting = RedisBus::connect_with(&url, runtime(), options.clone());
    let mut connecting = Box::pin(connecting);
    // For all this time, in which it tries several times: it does not give up.
    tokio::time::timeout(Duration::from_millis(300), &mut connecting).await.expect_err("there is no server");
    server.start();
    let bus = within(connecting).await.unwrap();
    assert!(matches!(bus.status(), Status::Connected));
    publish(&bus, &channel("Fit"), frame("a hat")).await.unwrap();

    // Who gives up leaves no task behind that goes on trying.
    let (port, mut attempts) = gatekeeper(b"");
    let (alive, mut ended) = tokio::sync::mpsc::channel(1);
    let url = format!("redis://127.0.0.1:{port}");
    let connecting = RedisBus::connect_with(&url, CountingRuntime(runtime(), alive), options);
    tokio::select! {
        _ = connecting => panic!("it serves nothing"),
        tried = within(attempts.wait_for(|attempts| *attempts >= 2)) => assert!(tried.is_ok()),
    }
    assert_eq!(within(ended.recv()).await, None, "every task has ended");
}

/// A runtime whose tasks, and itself, keep a sender each.
struct CountingRuntime(TokioRuntime, tokio::sync::mpsc::Sender<()>);

impl Runtime for CountingRuntime {
    fn now(&self) -> Now {
        self.0.now()
    }

    fn seed(&self) -> Seed {
        self.0.seed()
    }

    fn sleep_until(&self, deadline: Time) -> Task {
        self.0.sleep_until(deadline)
    }

    fn spawn(&self, task: Task) {
        let alive = self.1.clone();
        self.0.spawn(Box::pin(async move {
            task.await;
            drop(alive);
        }));
    }

    fn is_tokio(&self) -> bool {
        true
    }
}
