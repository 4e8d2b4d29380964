//! The master that sentinels name.

mod common;

use std::time::Duration;

use psrpc_bus_redis::{Credentials, RedisBus, RedisOptions};
use psrpc_servers::{SentinelGroup, SentinelOptions, Server, free_port};
use psrpc_tokio::SubscriptionKind;
use psrpc_tokio::bus::{Bus, BusEvent, Delivery};

use self::common::{channel, connect, event, next, now, runtime, subscribe_live, within, works};

async fn refusal(url: &str) -> String {
    RedisBus::connect(url, runtime()).await.expect_err("connecting must fail").to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failovers_are_followed_without_a_new_bus() {
    let mut group = SentinelGroup::new(&SentinelOptions::default());
    let bus = RedisBus::connect(&group.url(), runtime()).await.unwrap();
    works(&bus).await;
    let (mut inbox, _subscription) = subscribe_live(&bus, &channel("Fit"), SubscriptionKind::Plain).await;
    let mut events = bus.monitor().unwrap().watch();

    // The old master lives on as a replica.
    tokio::task::block_in_place(|| group.failover());
    let elected = now();
    assert!(matches!(event(&mut events).await, BusEvent::ConnectionLost { .. }));
    assert!(matches!(event(&mut events).await, BusEvent::Reconnected { .. }));
    assert!(now() - elected < Duration::from_secs(5), "back after {:?}", now() - elected);
    assert!(matches!(next(&mut inbox).await, Delivery::Interrupted(_)));
    assert!(matches!(next(&mut inbox).await, Delivery::Live));
    works(&bus).await;

    tokio::task::block_in_place(|| group.wait_until_ready());
    let old = group.master();
    group.server(old).kill();
    assert!(matches!(event(&mut events).await, BusEvent::ConnectionLost { .. }));
    tokio::task::block_in_place(|| group.wait_for_new_master(old));
    let elected = now();
    within(bus.monitor().unwrap().connected()).await.unwrap();
    assert!(now() - elected < Duration::from_secs(5), "back after {:?}", now() - elected);
    works(&bus).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_sentinel_is_enough_and_each_has_credentials_of_its_own() {
    let (password, sentinel_password) = (Some("right".into()), Some("left".into()));
    let options = SentinelOptions { password, sentinel_password, tls: None };
    let mut group = SentinelGroup::new(&options);
    let credentials = |password| {
        RedisOptions::new()
            .sentinel_credentials(move || Ok::<_, std::io::Error>(Credentials::of_default_user(password)))
    };
    let url = group.url_with(":right@");
    let bus = RedisBus::connect_with(&url, runtime(), credentials("left")).await.unwrap();
    works(&bus).await;
    let error = RedisBus::connect_with(&url, runtime(), credentials("s3cret")).await.unwrap_err().to_string();
    assert!(error.contains("WRONGPASS") && !error.contains("s3cret"), "{error}");
    let error = RedisBus::connect_with(&group.url_with(":s3cret@"), runtime(), credentials("left")).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("WRONGPASS") && !error.contains("s3cret"), "{error}");
    let error = RedisBus::connect(&url, runtime()).await.unwrap_err().to_string();
    assert!(error.contains("NOAUTH"), "{error}");
    group.sentinel(0).kill();
    group.sentinel(1).kill();
    works(&RedisBus::connect_with(&url, runtime(), credentials("left")).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_sentinels_and_names_are_refused() {
    let group = SentinelGroup::new(&SentinelOptions::default());
    let url = group.url();
    let text = refusal(&url.replace("/hats", "/caps")).await;
    assert!(text.contains("the sentinel knows no master `caps`"), "{text}");
    let (_, hosts) = url.trim_end_matches("/hats").split_once("://").unwrap();
    let first = hosts.split(',').next().unwrap();
    let text = refusal(&format!("redis://{first}")).await;
    let expected =
        "the server is a sentinel: use `redis+sentinel://HOST:PORT/NAME` with the name of the master";
    assert_eq!(text, format!("redis at {first}: {expected}"));

    let server = Server::redis(&[]);
    let text = refusal(&format!("redis+sentinel://127.0.0.1:{}/hats", server.port())).await;
    let expected = "the server is no sentinel: use `redis://` for a single server";
    assert_eq!(text, format!("redis at 127.0.0.1:{}: {expected}", server.port()));
    let ports = [free_port(), free_port()];
    let text = refusal(&format!("redis+sentinel://127.0.0.1:{},127.0.0.1:{}/hats", ports[0], ports[1])).await;
    for port in ports {
        assert!(text.contains(&format!("redis at 127.0.0.1:{port}: ")), "{text}");
    }
    let options = RedisOptions::new()
        .sentinel_credentials(|| Ok::<_, std::io::Error>(Credentials::of_default_user("x")));
    let error = RedisBus::connect_with(&server.url(), runtime(), options).await.unwrap_err().to_string();
    assert!(error.contains("options for sentinels"), "{error}");
    works(&connect(&server).await).await;
}

#[cfg(feature = "tls")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_over_tls_have_options_of_their_own() {
    use psrpc_bus_redis::TlsOptions;
    use psrpc_servers::{Certificates, ServerTls};

    let certificates = Certificates::new();
    let tls = Some(ServerTls::new(&certificates));
    let group = SentinelGroup::new(&SentinelOptions { tls, ..SentinelOptions::default() });
    let trusting = |pem: &str| {
        let tls = TlsOptions::new().ca(pem);
        move || Ok::<_, std::io::Error>(tls.clone())
    };
    let (right, wrong) = (certificates.authority().pem(), certificates.unrelated_authority().pem());
    let options = RedisOptions::new().tls(trusting(right));
    works(&RedisBus::connect_with(&group.url(), runtime(), options.clone()).await.unwrap()).await;
    let options = options.sentinel_tls(trusting(wrong));
    let error = RedisBus::connect_with(&group.url(), runtime(), options).await.unwrap_err().to_string();
    assert!(error.contains("UnknownIssuer"), "{error}");
}
