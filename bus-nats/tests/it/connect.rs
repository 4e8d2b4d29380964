//! Connecting, and connection errors.

use std::io::Write;
use std::net::TcpListener;
use std::time::Instant;

use psrpc::SubscriptionKind::Plain;
use psrpc::bus::Delivery;
use psrpc_bus_nats::{NatsBus, NatsOptions};

use crate::support::{SECOND, Subscriber, frame, number, plain, publish, runtime, until};
use psrpc_servers::{Certificates, Server, ServerTls, free_port};

/// Returns the text of the connection error. Checks that it comes in time and contains no secret.
async fn error(url: &str) -> String {
    let start = Instant::now();
    let options = NatsOptions::new().connection_timeout(SECOND);
    let error = NatsBus::connect_with(url, runtime(), options).await.unwrap_err();
    assert!(start.elapsed() < 3 * SECOND, "{error} took {:?}", start.elapsed());
    for text in [error.to_string(), format!("{error:?}")] {
        assert!(!text.contains("secret"), "{text}");
    }
    error.to_string()
}

/// Starts a server that sends the same greeting to every client.
fn fake_server(greeting: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let streams: Vec<_> = listener
            .incoming()
            .map_while(Result::ok)
            .inspect(|mut stream| drop(stream.write_all(greeting.as_bytes())))
            .collect();
        drop(streams);
    });
    port
}

#[tokio::test]
async fn an_unreachable_server_is_named_with_the_cause() {
    let port = free_port();
    let text = error(&format!("nats://me:secret@127.0.0.1:{port}")).await;
    assert!(text.starts_with(&format!("cannot connect to nats://127.0.0.1:{port}: ")), "{text}");
    assert!(text.contains("refused"), "{text}");
}

#[tokio::test]
async fn a_server_of_another_protocol_is_reported() {
    let port = fake_server("SSH-2.0-OpenSSH\r\n");
    let text = error(&format!("nats://me:secret@127.0.0.1:{port}")).await;
    assert!(text.starts_with(&format!("cannot connect to nats://127.0.0.1:{port}: ")), "{text}");
    assert!(text.contains("SSH-2.0-OpenSSH"), "{text}");
    let port = fake_server("");
    let text = error(&format!("nats://me:secret@127.0.0.1:{port}")).await;
    assert_eq!(
        text,
        format!("cannot connect to nats://127.0.0.1:{port}: no response from a NATS server within 1s")
    );
}

#[tokio::test]
async fn a_server_that_requires_tls_is_reported() {
    let server = Server::nats_tls(&ServerTls::new(&Certificates::new()), &[]);
    let url = format!("nats://127.0.0.1:{}", server.port());
    let text = error(&url.replace("//", "//me:secret@")).await;
    let expected = format!("cannot connect to {url}: the server requires TLS (use a `tls://` URL): ");
    assert!(text.starts_with(&expected), "{text}");
}

#[tokio::test]
async fn wrong_credentials_are_refused_and_right_ones_are_not() {
    let server = Server::nats(&["authorization { users = [{ user: \"mé\", password: \"s@cret:1\" }] }"]);
    let text = error(&server.url_with("m%C3%A9:wrong-secret@")).await;
    assert_eq!(text.replace(&server.url(), "URL"), "cannot connect to URL: authorization violation");
    error(&server.url()).await;
    NatsBus::connect(&server.url_with("m%C3%A9:s%40cret%3a1@"), runtime()).await.unwrap();
    let server = Server::nats(&["authorization { token: \"secret\" }"]);
    error(&server.url_with("wrong-secret@")).await;
    let bus = NatsBus::connect(&server.url_with("secret@"), runtime()).await.unwrap();
    assert_eq!(format!("{bus:?}"), format!("NatsBus {{ servers: {:?}, connected: true }}", server.url()));
}

#[tokio::test]
async fn missing_permissions_for_the_inbox_are_reported() {
    let server = Server::nats(&[
        "authorization { users = [{ user: a, password: b, permissions: { publish: \"SRV.>\" } }] }",
    ]);
    let text = error(&server.url_with("a:b@")).await;
    assert!(text.ends_with("allow the user to publish and subscribe to `_INBOX.>`"), "{text}");
}

#[tokio::test]
async fn an_inbox_prefix_is_used() {
    let permissions = "publish: [\"SRV.>\", \"_MINE.>\"], subscribe: [\"SRV.>\", \"_MINE.>\"]";
    let server = Server::nats(&[&format!(
        "authorization {{ users = [{{ user: a, password: b, permissions: {{ {permissions} }} }}] }}"
    )]);
    let options = NatsOptions::new().inbox_prefix("_MINE").name("a hatter");
    let bus = NatsBus::connect_with(&server.url_with("a:b@"), runtime(), options).await.unwrap();
    let mut subscriber = Subscriber::live(&bus, &plain("Make"), Plain).await;
    publish(&bus, &plain("Make"), frame(1)).await.unwrap();
    assert_eq!(subscriber.number().await, 1);
}

#[tokio::test]
async fn one_server_of_several_is_enough() {
    let server = Server::nats(&[]);
    NatsBus::connect(&format!("nats://127.0.0.1:{},{}", free_port(), server.url()), runtime()).await.unwrap();
    let (closed, silent) = (free_port(), fake_server(""));
    let text = error(&format!("nats://me:secret@127.0.0.1:{closed},nats://127.0.0.1:{silent}")).await;
    let both = format!(
        "cannot connect to nats://127.0.0.1:{closed}, nats://127.0.0.1:{silent}: nats://127.0.0.1:{closed}: "
    );
    assert!(text.starts_with(&both), "{text}");
    assert!(
        text.ends_with(&format!("; nats://127.0.0.1:{silent}: no response from a NATS server within 1s")),
        "{text}"
    );
}

#[tokio::test]
async fn the_servers_of_a_cluster_are_one_bus_and_survive_the_loss_of_one() {
    let ports = [free_port(), free_port()];
    let server = |own: u16, other: u16| {
        let routes = format!("listen: \"127.0.0.1:{own}\", routes: [\"nats://127.0.0.1:{other}\"]");
        Server::nats(&[&format!("cluster {{ name: hats, {routes} }}")])
    };
    let (mut first, second) = (server(ports[0], ports[1]), server(ports[1], ports[0]));
    let far = NatsBus::connect(&second.url(), runtime()).await.unwrap();
    let mut subscriber = Subscriber::live(&far, &plain("Make"), Plain).await;
    // The first server announces the second one.
    let near = NatsBus::connect(&first.url(), runtime()).await.unwrap();
    let mut arrives = async |sent: u32| {
        until(10 * SECOND, "a frame arrives", async || {
            // Subscriptions take time to reach the other server, and the bus may be reconnecting.
            let _ = publish(&near, &plain("Make"), frame(sent)).await;
            let is_it =
                |delivery: &Delivery| matches!(delivery, Delivery::Frame(frame) if number(frame) == sent);
            subscriber.waiting().iter().any(is_it)
        })
        .await;
    };
    arrives(1).await;
    first.kill();
    arrives(2).await;
}

#[tokio::test]
async fn options_of_the_client_library_are_used() {
    let server = Server::nats(&["authorization { users = [{ user: a, password: secret }] }"]);
    let client = async_nats::ConnectOptions::with_user_and_password("a".to_owned(), "secret".to_owned());
    let bus = NatsBus::from_client(&server.url(), client, runtime(), NatsOptions::new()).await.unwrap();
    let mut subscriber = Subscriber::live(&bus, &plain("Make"), Plain).await;
    publish(&bus, &plain("Make"), frame(1)).await.unwrap();
    assert_eq!(subscriber.number().await, 1);
}

#[tokio::test]
async fn a_bus_can_wait_for_its_server() {
    let mut server = Server::nats(&[]);
    server.stop();
    assert!(NatsBus::connect(&server.url(), runtime()).await.is_err(), "by default connecting fails");
    let url = server.url();
    let options = NatsOptions::new().wait_for_server(true);
    let mut connecting = Box::pin(NatsBus::connect_with(&url, runtime(), options));
    // Long enough for several failed attempts.
    let waited = tokio::time::timeout(SECOND, &mut connecting).await;
    assert!(waited.is_err(), "the server is not running");
    server.start();
    let bus = tokio::time::timeout(10 * SECOND, connecting).await.unwrap().unwrap();
    let mut subscriber = Subscriber::live(&bus, &plain("Make"), Plain).await;
    publish(&bus, &plain("Make"), frame(1)).await.unwrap();
    assert_eq!(subscriber.number().await, 1);
}
