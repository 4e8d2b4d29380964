//! TLS, credentials, Unix sockets and databases.

#![cfg(feature = "tls")]

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use psrpc_bus_redis::{ConnectError, Credentials, RedisBus, RedisOptions, TlsOptions};
use psrpc_servers::{Certificates, Identity, RedisClient, Server, ServerTls};
use psrpc_tokio::bus::{Bus, BusEvent};

use self::common::{channel, event, execute, frame, now, runtime, works};

fn with(tls: TlsOptions) -> RedisOptions {
    RedisOptions::new().tls(move || Ok::<_, std::io::Error>(tls.clone()))
}

fn trusting(certificates: &Certificates) -> TlsOptions {
    TlsOptions::new().ca(certificates.authority().pem())
}

fn identified(options: TlsOptions, identity: &Identity) -> TlsOptions {
    options.client_certificate(identity.certificate().pem(), identity.key().pem())
}

async fn refusal(url: &str, options: RedisOptions) -> String {
    let begun = now();
    let error = RedisBus::connect_with(url, runtime(), options).await.expect_err("connecting must fail");
    assert!(now() - begun < Duration::from_secs(5), "it took {:?}", now() - begun);
    let (text, debug) = (error.to_string(), format!("{error:?}"));
    assert!(!text.contains("s3cret") && !debug.contains("s3cret"), "{text} / {debug}");
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bus_over_tls_publishes_locks_and_comes_back() {
    let certificates = Certificates::new();
    let mut server = Server::redis_tls(&ServerTls::new(&certificates), &[]);
    let options = with(trusting(&certificates));
    let bus = RedisBus::connect_with(&server.url(), runtime(), options).await.unwrap();
    works(&bus).await;
    let mut events = bus.monitor().unwrap().watch();
    server.kill();
    assert!(matches!(event(&mut events).await, BusEvent::ConnectionLost { .. }));
    server.start();
    assert!(matches!(event(&mut events).await, BusEvent::Reconnected { .. }));
    works(&bus).await;
    let url = server.url().replace("rediss", "valkeys").replace("127.0.0.1", "localhost");
    works(&RedisBus::connect_with(&url, runtime(), with(trusting(&certificates))).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_wrong_certificate_of_a_server_is_told_apart() {
    let certificates = Certificates::new();
    let tls = ServerTls::new(&certificates);
    for (shown, expected) in [
        (certificates.expired_server(), "expired"),
        (certificates.wrong_name_server(), "not valid for name"),
        (certificates.unrelated_server(), "UnknownIssuer"),
    ] {
        let server = Server::redis_tls(&tls.clone().show(shown), &[]);
        let text = refusal(&server.url_with(":s3cret@"), with(trusting(&certificates))).await;
        assert!(text.starts_with(&format!("redis at 127.0.0.1:{}: TLS: ", server.port())), "{text}");
        assert!(text.contains(expected), "{text}");
    }
    let server = Server::redis_tls(&tls.show(certificates.wrong_name_server()), &[]);
    let named = with(trusting(&certificates).server_name("elsewhere.example"));
    works(&RedisBus::connect_with(&server.url(), runtime(), named).await.unwrap()).await;
    let wrong = with(trusting(&certificates).server_name("not a name"));
    let text = refusal(&server.url(), wrong).await;
    assert!(text.ends_with("TLS: `not a name` is neither a host name nor an IP address"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_requires_a_certificate_gets_one() {
    let certificates = Certificates::new();
    let server = Server::redis_tls(&ServerTls::new(&certificates).require_client_certificate(), &[]);
    let own = identified(trusting(&certificates), certificates.client());
    works(&RedisBus::connect_with(&server.url(), runtime(), with(own)).await.unwrap()).await;
    let unrelated = identified(trusting(&certificates), certificates.unrelated_client());
    for wrong in [trusting(&certificates), unrelated] {
        let text = refusal(&server.url(), with(wrong)).await;
        assert!(text.contains("alert") || text.contains("closed") || text.contains("reset"), "{text}");
    }
    let mismatched =
        trusting(&certificates).client_certificate(certificates.client().certificate().pem(), "s3cret");
    let text = refusal(&server.url(), with(mismatched)).await;
    assert!(text.ends_with("TLS: the client key is not a private key in PEM format"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_and_tls_that_are_mixed_up_are_refused() {
    let certificates = Certificates::new();
    let (plain, tls) = (Server::redis(&[]), Server::redis_tls(&ServerTls::new(&certificates), &[]));
    let text = refusal(&plain.url().replace("redis", "rediss"), with(trusting(&certificates))).await;
    assert!(text.ends_with("did not reply in time: if it does not expect TLS, use `redis://`"), "{text}");
    let text = refusal(&tls.url().replace("rediss", "redis"), RedisOptions::new()).await;
    assert!(text.ends_with(": if it expects TLS, use `rediss://`"), "{text}");
    let text = refusal(&plain.url(), with(trusting(&certificates))).await;
    assert!(text.contains("TLS options"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_asked_for_at_each_connection() {
    let certificates = Certificates::new();
    let server = Server::redis_tls(&ServerTls::new(&certificates), &[]);
    let current = Arc::new(Mutex::new(trusting(&certificates)));
    let options = RedisOptions::new().tls({
        let current = Arc::clone(&current);
        move || Ok::<_, std::io::Error>(current.lock().unwrap().clone())
    });
    let bus = RedisBus::connect_with(&server.url(), runtime(), options).await.unwrap();
    let mut events = bus.monitor().unwrap().watch();
    *current.lock().unwrap() = TlsOptions::new().ca(certificates.unrelated_authority().pem());
    let mut client = RedisClient::connect(server.port(), Some(&ServerTls::new(&certificates)), None).unwrap();
    client.command(&["CLIENT", "KILL", "TYPE", "normal"]).unwrap();
    assert!(matches!(event(&mut events).await, BusEvent::ConnectionLost { .. }));
    let BusEvent::ConnectionLost { cause, .. } = event(&mut events).await else { panic!("it is refused") };
    assert!(cause.to_string().contains("UnknownIssuer"), "{cause}");
    *current.lock().unwrap() = trusting(&certificates);
    assert!(matches!(event(&mut events).await, BusEvent::Reconnected { .. }));
    works(&bus).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_are_asked_for_at_each_connection() {
    let server = Server::redis(&[]);
    execute(&server, "ACL SETUSER hatter on >first ~* &* +@all").await;
    let password = Arc::new(Mutex::new("first"));
    let options = RedisOptions::new().credentials({
        let password = Arc::clone(&password);
        move || Ok::<_, std::io::Error>(Credentials::new("hatter", *password.lock().unwrap()))
    });
    let bus = RedisBus::connect_with(&server.url_with("nobody:s3cret@"), runtime(), options.clone()).await;
    let bus = bus.unwrap();
    works(&bus).await;
    let mut events = bus.monitor().unwrap().watch();
    execute(&server, "ACL SETUSER hatter resetpass >second").await;
    execute(&server, "CLIENT KILL USER hatter").await;
    assert!(matches!(event(&mut events).await, BusEvent::ConnectionLost { .. }));
    let BusEvent::ConnectionLost { cause, .. } = event(&mut events).await else { panic!("it is refused") };
    assert!(cause.to_string().contains("WRONGPASS"), "{cause}");
    let failed = RedisBus::connect_with(&server.url(), runtime(), options).await.unwrap_err();
    assert!(matches!(failed, ConnectError::Refused { .. }) && failed.to_string().contains("WRONGPASS"));
    *password.lock().unwrap() = "second";
    assert!(matches!(event(&mut events).await, BusEvent::Reconnected { .. }));
    works(&bus).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_fails_is_quoted() {
    let server = Server::redis(&[]);
    let options = RedisOptions::new().credentials(|| Err::<Credentials, _>("the vault is sealed"));
    let text = refusal(&server.url(), options).await;
    let expected = "no credentials: the vault is sealed";
    assert_eq!(text, format!("redis at 127.0.0.1:{}: {expected}", server.port()));
    let default = RedisOptions::new().credentials(|| Ok::<_, &str>(Credentials::of_default_user("right")));
    let server = Server::redis(&["--requirepass", "right"]);
    works(&RedisBus::connect_with(&server.url(), runtime(), default).await.unwrap()).await;
}

/// Kills the connections of a bus while a function of its options fails, and lets it come back.
async fn check_failing_provider(
    server: &Server,
    tls: Option<&ServerTls>,
    bus: &RedisBus,
    fail: impl Fn(bool),
) {
    let mut events = bus.monitor().unwrap().watch();
    for _ in 0..2 {
        fail(true);
        let mut client = RedisClient::connect(server.port(), tls, None).unwrap();
        for kind in ["normal", "pubsub"] {
            client.command(&["CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"]).unwrap();
        }
        let BusEvent::ConnectionLost { cause, .. } = event(&mut events).await else { panic!("it is lost") };
        assert!(!cause.to_string().contains("vault"), "{cause}");
        let BusEvent::ConnectionLost { cause, .. } = event(&mut events).await else {
            panic!("it is reported")
        };
        assert!(cause.to_string().ends_with(": the vault is sealed"), "{cause}");
        fail(false);
        assert!(matches!(event(&mut events).await, BusEvent::Reconnected { .. }), "it is reported once");
        works(bus).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_fails_during_an_outage_is_reported_once() {
    let fails = Arc::new(Mutex::new(false));
    let fail = |now| *fails.lock().unwrap() = now;
    let check = |fails: &Mutex<bool>| match *fails.lock().unwrap() {
        true => Err("the vault is sealed"),
        false => Ok(()),
    };
    let own = Arc::clone(&fails);
    let options =
        RedisOptions::new().credentials(move || check(&own).map(|()| Credentials::new("hatter", "right")));
    let server = Server::redis(&[]);
    execute(&server, "ACL SETUSER hatter on >right ~* &* +@all").await;
    let bus = RedisBus::connect_with(&server.url(), runtime(), options).await.unwrap();
    check_failing_provider(&server, None, &bus, fail).await;

    let certificates = Certificates::new();
    let (trusting, tls, own) = (trusting(&certificates), ServerTls::new(&certificates), Arc::clone(&fails));
    let options = RedisOptions::new().tls(move || check(&own).map(|()| trusting.clone()));
    let server = Server::redis_tls(&tls, &[]);
    let bus = RedisBus::connect_with(&server.url(), runtime(), options).await.unwrap();
    check_failing_provider(&server, Some(&tls), &bus, fail).await;
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unix_socket_and_a_database_are_used() {
    let directory = Certificates::new();
    let socket = directory.authority().path().with_file_name("redis.socket");
    let socket = socket.to_str().unwrap();
    let server = Server::redis(&["--unixsocket", socket]);
    for url in [format!("redis+unix://{socket}?db=1"), format!("unix://{socket}?db=1")] {
        execute(&server, "FLUSHALL").await;
        works(&RedisBus::connect(&url, runtime()).await.unwrap()).await;
        let info = format!("{:?}", execute(&server, "INFO keyspace").await);
        assert!(info.contains("db1:keys=1") && !info.contains("db0"), "{info}");
    }
    let url = server.url().replace("redis", "valkey") + "/3";
    works(&RedisBus::connect(&url, runtime()).await.unwrap()).await;
    let info = format!("{:?}", execute(&server, "INFO keyspace").await);
    assert!(info.contains("db3:keys=1"), "{info}");
}

#[cfg(feature = "smol")]
#[test]
fn a_bus_on_smol_speaks_tls() {
    use psrpc_smol::SmolRuntime;

    let certificates = Certificates::new();
    let server = Server::redis_tls(&ServerTls::new(&certificates), &[]);
    smol::block_on(async {
        let options = with(trusting(&certificates));
        let bus = RedisBus::connect_with(&server.url(), SmolRuntime, options).await.unwrap();
        assert_eq!(psrpc_smol::bus::publish(&bus, channel("Fit"), frame("a hat")).await.unwrap(), Some(0));
        let url = server.url();
        let connecting = RedisBus::connect_with(&url, SmolRuntime, with(TlsOptions::new().ca("x")));
        let error = connecting.await.unwrap_err().to_string();
        assert!(error.ends_with("TLS: the CA is not a certificate in PEM format"), "{error}");
    });
}
