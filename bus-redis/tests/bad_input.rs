//! Failures at the server or the connection, and the errors that they cause.

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

use self::common::{
    channel, connect, execute, frame, next, now, publish, runtime, subscribe, subscribe_live, within,
};

/// Returns the text of the connection error. Checks that neither form of the error contains the
/// password.
async fn refusal(url: &str) -> String {
    let begun = now();
    let error = RedisBus::connect(url, runtime()).await.expect_err("connecting must fail");
    assert!(now() - begun < Duration::from_secs(3), "it took {:?}", now() - begun);
    let (text, debug) = (error.to_string(), format!("{error:?}"));
    assert!(!text.contains("s3cret") && !debug.contains("s3cret"), "{text} / {debug}");
    text
}

/// Starts a server that sends `reply`, if it is not empty, to each connection.
fn fake_server(reply: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut connections = Vec::new();
        for mut connection in listener.incoming().flatten() {
            let _ = connection.read(&mut [0; 512]);
            let _ = connection.write_all(reply);
            connections.push(connection);
        }
    });
    port
}

#[tokio::test]
async fn an_invalid_url_is_refused_with_the_reason() {
    for (url, expected) in [
        ("127.0.0.1:6379", "invalid Redis URL: the URL must begin with `redis://`"),
        ("nats://:s3cret@x", "invalid Redis URL: the scheme is `nats://`, expected `redis://`"),
    ] {
        assert_eq!(refusal(url).await, expected);
    }
    assert!(refusal("redis://:s3cret@[").await.starts_with("invalid Redis URL: "));
    assert!(refusal("redis://:s3cret@127.0.0.1:1/nonsense").await.starts_with("invalid Redis URL: "));
}

#[tokio::test]
async fn an_unreachable_server_is_named_with_the_cause() {
    let closed_port = free_port();
    let text = refusal(&format!("redis://:s3cret@127.0.0.1:{closed_port}")).await;
    assert!(
        text.starts_with(&format!("redis at 127.0.0.1:{closed_port}: ")) && text.contains("refused"),
        "{text}"
    );

    let silent = fake_server(b"");
    let text = refusal(&format!("redis://:s3cret@127.0.0.1:{silent}")).await;
    let expected = "the server did not reply in time: if it expects TLS, use `rediss://`";
    assert_eq!(text, format!("redis at 127.0.0.1:{silent}: {expected}"));

    let nats = fake_server(b"INFO {\"server_id\":\"x\"}\r\n");
    let text = refusal(&format!("redis://:s3cret@127.0.0.1:{nats}")).await;
    assert_eq!(text, format!("redis at 127.0.0.1:{nats}: the server does not speak the Redis protocol"));
}

#[tokio::test]
async fn a_wrong_password_is_reported_without_showing_it() {
    let server = Server::redis(&["--requirepass", "right"]);
    for credentials in [":s3cret@", "nobody:s3cret@", ""] {
        let text = refusal(&server.url_with(credentials)).await;
        assert!(text.starts_with(&format!("redis at 127.0.0.1:{}: ", server.port())), "{text}");
        assert!(text.contains("WRONGPASS") || text.contains("NOAUTH"), "{text}");
    }
    RedisBus::connect(&server.url_with(":right@"), runtime()).await.unwrap();
}

#[tokio::test]
async fn an_error_that_repeats_the_arguments_does_not_show_the_password() {
    let server = Server::redis(&["--requirepass", "s3cret", "--rename-command", "HELLO", "NOHELLO"]);
    let text = refusal(&server.url_with(":s3cret@")).await;
    assert!(
        text.ends_with("the server does not know a command that the bus needs: Redis 6 or later is required"),
        "{text}"
    );
}

#[test]
fn a_bus_whose_runtime_has_shut_down_is_stopped() {
    let server = Server::redis(&[]);
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (bus, mut inbox, subscription) = tokio.block_on(async {
        let bus = connect(&server).await;
        let (inbox, subscription) = subscribe_live(&bus, &channel("Fit"), SubscriptionKind::Plain).await;
        (bus, inbox, subscription)
    });
    let mut events = bus.monitor().unwrap().watch();
    drop(tokio);
    let offer =
        Offer::new(channel("Fit"), frame("a hat"), ReplyTo::new(|_| panic!("the result is known at once")));
    let Ok(Accepted::Failed(cause)) = bus.publish(offer, &mut WakeList::new()) else {
        panic!("publishing must fail")
    };
    assert!(cause.to_string().contains("the bus has stopped"), "{cause}");
    assert!(matches!(bus.status(), Status::Stopped { cause } if cause.to_string().contains("has stopped")));
    let mut cx = Context::from_waker(Waker::noop());
    let delivery = Pin::new(&mut inbox).poll_next(&mut cx);
    assert!(matches!(delivery, Poll::Ready(Some(Delivery::Ended(Some(_))))), "{delivery:?}");
    let mut next = || Pin::new(&mut events).poll_next(&mut cx);
    assert!(matches!(next(), Poll::Ready(Some(BusEvent::Stopped { .. }))));
    assert!(next().is_pending(), "the stop is reported once");
    drop(subscription);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forbidden_channel_is_refused_by_name() {
    let server = Server::redis(&[]);
    execute(&server, "ACL SETUSER hatter on >right ~* +@all resetchannels &Hats|Fit|*").await;
    let bus = RedisBus::connect(&server.url_with("hatter:right@"), runtime()).await.unwrap();
    let (mut allowed, _allowed) = subscribe(&bus, &channel("Fit"), SubscriptionKind::Plain);
    let (mut refused, _refused) = subscribe(&bus, &channel("Pick"), SubscriptionKind::Plain);
    assert!(matches!(next(&mut allowed).await, Delivery::Live));
    let Delivery::Ended(Some(error)) = next(&mut refused).await else { panic!("expected a refusal") };
    let error = error.to_string();
    assert!(
        error.contains("no permissions") && error.starts_with("cannot subscribe to Hats|Pick|REQ: "),
        "{error}"
    );
    assert_eq!(publish(&bus, &channel("Fit"), frame("a hat")).await.unwrap(), Some(1));
    let error = publish(&bus, &channel("Pick"), frame("a hat")).await.unwrap_err().to_string();
    assert!(
        error.contains("no permissions") && error.starts_with("cannot publish on Hats|Pick|REQ: "),
        "{error}"
    );
    assert!(matches!(next(&mut allowed).await, Delivery::Frame(_)), "other subscriptions still work");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishing_fails_at_once_while_there_is_no_server() {
    let mut server = Server::redis(&[]);
    let bus = RedisBus::connect(&server.url(), runtime()).await.unwrap();
    server.kill();
    // The first attempts may be the ones that notice the loss.
    for _ in 0..100 {
        let error = publish(&bus, &channel("Fit"), frame("a hat")).await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("redis at 127.0.0.1:{}: ", server.port())), "{error}");
    }
    let mut watcher = bus.monitor().unwrap().watch();
    while !matches!(bus.status(), Status::Reconnecting { .. }) {
        common::event(&mut watcher).await;
    }
    let offer =
        Offer::new(channel("Fit"), frame("a hat"), ReplyTo::new(|_| panic!("the result is known at once")));
    assert!(matches!(bus.publish(offer, &mut WakeList::new()), Ok(Accepted::Failed(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_queue_stays_within_its_limit_while_the_server_is_frozen() {
    let server = Server::redis(&[]);
    let options = RedisOptions::new().queue_bytes(100_000).response_timeout(Duration::from_millis(500));
    let bus = RedisBus::connect_with(&server.url(), runtime(), options).await.unwrap();
    server.freeze();
    let (sender, results) = std::sync::mpsc::channel();
    let mut accepted = 0;
    loop {
        let sender = sender.clone();
        let payload = Frame::Other(Any { type_url: "a/b".into(), value: vec![0; 1000].into() });
        let reply_to = ReplyTo::new(move |result| _ = sender.send(result));
        match bus.publish(Offer::new(channel("Fit"), payload, reply_to), &mut WakeList::new()) {
            Ok(Accepted::Later) => accepted += 1,
            Ok(other) => panic!("{other:?}"),
            Err(psrpc_tokio::bus::Full) => break,
        }
        assert!(accepted < 200, "{accepted} frames of 1,000 bytes");
    }
    // When the bus gives up the connection it has room again, and wakes the waiting tasks.
    within(poll_fn(|cx| bus.poll_ready(cx))).await;
    let failed =
        tokio::task::spawn_blocking(move || results.iter().take(accepted).all(|result| result.is_err()));
    assert!(failed.await.unwrap(), "none of them was published");
    server.thaw();
    within(bus.monitor().unwrap().connected()).await.unwrap();
    publish(&bus, &channel("Fit"), frame("a hat")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bus_can_use_an_existing_client() {
    let server = Server::redis(&["--requirepass", "right"]);
    let client = redis::Client::open(server.url_with(":right@")).unwrap();
    let bus = RedisBus::from_client(&client, runtime(), RedisOptions::new()).await.unwrap();
    assert_eq!(publish(&bus, &channel("Fit"), frame("a hat")).await.unwrap(), Some(0));
}

/// Starts a server that sends `greeting` to each connection and closes it. Counts the connections.
fn rejecting_server(greeting: &'static [u8]) -> (u16, watch::Receiver<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, count) = watch::channel(0);
    std::thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            sender.send_modify(|count| *count += 1);
            let _ = connection.write_all(greeting);
        }
    });
    (port, count)
}

#[tokio::test]
async fn the_greeting_of_a_server_that_hangs_up_is_quoted() {
    for greeting in ["ERR max number of clients reached", "DENIED Redis is running in protected mode because"]
    {
        let (port, _) = rejecting_server(format!("-{greeting}\r\n").leak().as_bytes());
        for _ in 0..20 {
            let text = refusal(&format!("redis://:s3cret@127.0.0.1:{port}")).await;
            assert_eq!(text, format!("redis at 127.0.0.1:{port}: {greeting}"));
        }
    }
    let (port, _) = rejecting_server(b"");
    let text = refusal(&format!("redis://:s3cret@127.0.0.1:{port}")).await;
    assert!(text.starts_with(&format!("redis at 127.0.0.1:{port}: ")), "{text}");
}

#[tokio::test]
async fn the_error_of_a_full_server_is_quoted() {
    let server = Server::redis(&[]);
    let mut only = common::foreign(&server).await;
    redis::cmd("CONFIG").arg("SET").arg("maxclients").arg(1).exec_async(&mut only).await.unwrap();
    let text = refusal(&server.url()).await;
    assert_eq!(text, format!("redis at 127.0.0.1:{}: ERR max number of clients reached", server.port()));
}

#[tokio::test]
async fn a_well_known_error_is_shown_whatever_the_password_is() {
    let server = Server::redis(&["--requirepass", "right"]);
    for password in ["redis", "a", "password", "invalid"] {
        let error =
            RedisBus::connect(&server.url_with(&format!(":{password}@")), runtime()).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "redis at 127.0.0.1:{}: WRONGPASS invalid username-password pair or user is disabled.",
                server.port()
            )
        );
    }
}

#[tokio::test]
async fn a_server_that_echoes_its_input_cannot_reveal_the_password() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            let mut input = [0; 512];
            let count = connection.read(&mut input).unwrap_or(0);
            let input = String::from_utf8_lossy(&input[..count]).replace("\r\n", " ");
            for _ in 0..9 {
                let _ = connection.write_all(format!("-ECHO {input}\r\n").as_bytes());
            }
        }
    });
    let text = refusal(&format!("redis://:s3cret@127.0.0.1:{port}")).await;
    assert!(text.contains("so it is not shown"), "{text}");
}

#[tokio::test]
async fn a_server_that_accepts_and_drops_connections_is_not_flooded() {
    // Completes the handshake and the check, then drops the connection at the next command.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&connections);
    std::thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            counter.fetch_add(1, Ordering::Relaxed);
            for reply in ["%0\r\n+OK\r\n+OK\r\n", "%0\r\n"] {
                let _ = connection.read(&mut [0; 512]);
                let _ = connection.write_all(reply.as_bytes());
            }
        }
    });
    let bus = RedisBus::connect(&format!("redis://127.0.0.1:{port}"), runtime()).await.unwrap();
    // Measures how often the bus reconnects within four seconds.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let count = connections.load(Ordering::Relaxed);
    assert!((4..60).contains(&count), "{count} connections in 4 s, for the two of the bus");
    let Status::Reconnecting { cause, .. } = bus.status() else { panic!("expected an outage") };
    assert!(cause.to_string().starts_with(&format!("redis at 127.0.0.1:{port}: ")), "{cause}");
}

#[tokio::test]
async fn a_bus_can_wait_for_its_server() {
    let mut server = Server::redis(&["--requirepass", "right"]);
    server.stop();
    let options = RedisOptions::new().wait_for_server(true);
    let url = server.url_with(":right@");
    let connecting = RedisBus::connect_with(&url, runtime(), options.clone());
    let mut connecting = Box::pin(connecting);
    // Long enough for several failed attempts.
    tokio::time::timeout(Duration::from_millis(300), &mut connecting).await.expect_err("there is no server");
    server.start();
    let bus = within(connecting).await.unwrap();
    assert!(matches!(bus.status(), Status::Connected));
    publish(&bus, &channel("Fit"), frame("a hat")).await.unwrap();

    // Dropping the future leaves no task behind.
    let (port, mut attempts) = rejecting_server(b"");
    let (alive, mut all_ended) = tokio::sync::mpsc::channel(1);
    let url = format!("redis://127.0.0.1:{port}");
    let connecting = RedisBus::connect_with(&url, CountingRuntime(runtime(), alive), options);
    tokio::select! {
        _ = connecting => panic!("the server accepts no client"),
        tried = within(attempts.wait_for(|attempts| *attempts >= 2)) => assert!(tried.is_ok()),
    }
    assert_eq!(within(all_ended.recv()).await, None, "every task has ended");
}

/// A runtime that holds a sender, and one more for each task until the task ends.
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
