//! The rights that docs/operations.md gives to users of Redis are sufficient, and allow nothing
//! else.

mod common;
#[path = "common/recipe.rs"]
mod recipe;

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use futures_core::Stream;
use psrpc_bus_redis::{Credentials, RedisBus, RedisOptions};
use psrpc_servers::{
    RedisClient, RedisCluster, RedisClusterOptions, Reply, SentinelGroup, SentinelOptions, Server,
};

use self::common::{runtime, within, works};
use self::recipe::{
    assert_reaches, block, call_refused, other_client_refused, other_server_refused, publish_refused,
    serving_refused,
};

const SERVERS: &str = "A user for the servers of a service";
const CLIENTS: &str = "A user for clients alone";
const CALLERS: &str = "A user that may call and not serve";

const AS_SERVER: &str = "hats-server:change-me-1@";
const AS_CLIENT: &str = "hats-client:change-me-2@";
const AS_CALLER: &str = "hats-caller:change-me-3@";

/// Sends the commands under a heading to the server at a port. An indented line continues a
/// command.
fn apply(port: u16, heading: &str) {
    let mut client = RedisClient::connect(port, None, None).unwrap();
    for command in block(heading).replace("\n    ", " ").lines() {
        let words: Vec<_> = command.split_whitespace().collect();
        let reply = client.command(&words).unwrap_or_else(|error| panic!("{command}: {error}"));
        assert_eq!(reply, Reply::Text("OK".into()), "{command}");
    }
}

/// Returns the log entries of the commands and channels that the server has refused to a user.
fn refused(port: u16, user: &str) -> Vec<Reply> {
    let mut client = RedisClient::connect(port, None, None).unwrap();
    let Reply::Array(entries) = client.command(&["ACL", "LOG"]).unwrap() else { panic!("no list") };
    let is_of = |entry: &Reply| match entry {
        Reply::Array(fields) => fields.contains(&Reply::Text(user.into())),
        _ => false,
    };
    entries.into_iter().filter(is_of).collect()
}

async fn connect(url: &str) -> RedisBus {
    let options = RedisOptions::new().ping_interval(Duration::from_millis(100));
    RedisBus::connect_with(url, runtime(), options).await.unwrap()
}

/// Waits until `count` buses with this prefix have sent a probe.
async fn wait_for_probes(server: &Server, prefix: &str, count: usize) {
    let client = redis::Client::open(server.url()).unwrap();
    let (mut sink, mut messages) = client.get_async_pubsub().await.unwrap().split();
    sink.psubscribe(format!("{prefix}psrpc-probe:*")).await.unwrap();
    let mut channels = BTreeSet::new();
    within(async {
        while channels.len() < count {
            let message = poll_fn(|cx| Pin::new(&mut messages).poll_next(cx)).await.unwrap();
            channels.insert(message.get_channel_name().to_owned());
        }
    })
    .await;
}

fn server_with(headings: &[&str]) -> Server {
    let server = Server::redis(&[]);
    headings.iter().for_each(|heading| apply(server.port(), heading));
    server
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_users_of_a_service_can_do_everything_in_it_and_nothing_elsewhere() {
    let server = server_with(&[SERVERS, CLIENTS]);
    let as_server = connect(&server.url_with(AS_SERVER)).await;
    let as_client = connect(&server.url_with(AS_CLIENT)).await;
    assert_reaches([as_server.clone(), as_server.clone()], as_client.clone()).await;
    wait_for_probes(&server, "", 2).await;
    for user in ["hats-server", "hats-client"] {
        assert_eq!(refused(server.port(), user), []);
    }
    for bus in [&as_server, &as_client] {
        let error = publish_refused(bus).await;
        assert!(error.contains("cannot publish on Caps|Fit|REQ: ") && error.contains("NOPERM"), "{error}");
    }
    let error = other_server_refused(as_server).await;
    assert!(error.contains("cannot subscribe to Caps|") && error.contains("NOPERM"), "{error}");
    let error = other_client_refused(as_client).await;
    assert!(error.contains("cannot subscribe to Caps|CLI_") && error.contains("NOPERM"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_prefix_each_pattern_of_a_recipe_begins_with_it() {
    let server = Server::redis(&[]);
    let mut client = RedisClient::connect(server.port(), None, None).unwrap();
    let recipe = block(SERVERS).replace(" &", " &ours:").replace(" ~*", " ~ours:*");
    client.command(&recipe.split_whitespace().collect::<Vec<_>>()).unwrap();
    let options = RedisOptions::new().channel_prefix("ours:").ping_interval(Duration::from_millis(100));
    let connect = async |url: String| RedisBus::connect_with(&url, runtime(), options.clone()).await.unwrap();
    let as_server = connect(server.url_with(AS_SERVER)).await;
    let as_client = connect(server.url()).await;
    assert_reaches([as_server.clone(), as_server.clone()], as_client.clone()).await;
    wait_for_probes(&server, "ours:", 2).await;
    assert_eq!(refused(server.port(), "hats-server"), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_cannot_serve() {
    let server = server_with(&[SERVERS, CALLERS]);
    let as_server = connect(&server.url_with(AS_SERVER)).await;
    let as_caller = connect(&server.url_with(AS_CALLER)).await;
    assert_reaches([as_server.clone(), as_server.clone()], as_caller.clone()).await;
    wait_for_probes(&server, "", 2).await;
    assert_eq!(refused(server.port(), "hats-caller"), []);
    let error = serving_refused(as_caller.clone()).await;
    assert!(error.contains("cannot subscribe to Hats|Fit|") && error.contains("NOPERM"), "{error}");
    let error = publish_refused(&as_caller).await;
    assert!(error.contains("cannot publish on Caps|Fit|REQ: ") && error.contains("NOPERM"), "{error}");
    let error = other_client_refused(as_caller).await;
    assert!(error.contains("cannot subscribe to Caps|CLI_") && error.contains("NOPERM"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_of_another_service_is_refused_by_channel() {
    let server = server_with(&[SERVERS]);
    let mut client = RedisClient::connect(server.port(), None, None).unwrap();
    let other = block(SERVERS).replace("hats-server", "caps-server").replace("&Hats|", "&Caps|");
    client.command(&other.split_whitespace().collect::<Vec<_>>()).unwrap();
    let bus = connect(&server.url_with("caps-server:change-me-1@")).await;
    let error = call_refused(bus).await;
    assert!(error.contains("cannot subscribe to Hats|CLI_") && error.contains("NOPERM"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_needs_one_more_right() {
    let server = server_with(&[SERVERS]);
    let url = server.url_with(AS_SERVER) + "/3";
    let error = RedisBus::connect(&url, runtime()).await.unwrap_err().to_string();
    assert!(error.contains("'select'") && !error.contains("change-me"), "{error}");
    apply(server.port(), "Another database");
    let bus = connect(&url).await;
    let as_client = connect(&server.url()).await;
    assert_reaches([bus.clone(), bus], as_client).await;
    assert_eq!(refused(server.port(), "hats-server").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_of_the_sentinels_can_ask_for_the_master() {
    let mut group = SentinelGroup::new(&SentinelOptions::default());
    for number in 0..3 {
        apply(group.server(number).port(), SERVERS);
        apply(group.sentinel(number).port(), "Sentinel");
    }
    let user = |name: &'static str, password: &'static str| {
        RedisOptions::new()
            .sentinel_credentials(move || Ok::<_, std::io::Error>(Credentials::new(name, password)))
    };
    let url = group.url_with(AS_SERVER);
    let options = user("hats-sentinel", "change-me-4");
    let bus = RedisBus::connect_with(&url, runtime(), options).await.unwrap();
    let as_client = connect(&group.url()).await;
    assert_reaches([bus.clone(), bus], as_client).await;
    for number in 0..3 {
        assert_eq!(refused(group.sentinel(number).port(), "hats-sentinel"), []);
    }
    let wrong = user("hats-sentinel", "s3cret");
    let error = RedisBus::connect_with(&url, runtime(), wrong).await.unwrap_err().to_string();
    assert!(error.contains("WRONGPASS") && !error.contains("s3cret"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_of_a_cluster_can_find_the_nodes_and_follow_slots() {
    let mut cluster = RedisCluster::new(&RedisClusterOptions::default());
    for number in 0..3 {
        let port = cluster.node(number).port();
        apply(port, SERVERS);
        apply(port, "Cluster");
    }
    let bus = connect(&cluster.url_with(AS_SERVER)).await;
    let as_client = connect(&cluster.url()).await;
    assert_reaches([bus.clone(), bus.clone()], as_client).await;
    // New keys of these slots get `ASK`.
    tokio::task::block_in_place(|| cluster.start_moving(0..2000, 0, 1));
    for _ in 0..40 {
        works(&bus).await;
    }
    for number in 0..3 {
        assert_eq!(refused(cluster.node(number).port(), "hats-server"), []);
    }
}
