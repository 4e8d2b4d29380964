//! A Redis Cluster.

use psrpc_servers::{Certificates, RedisCluster, RedisClusterOptions, ServerTls};

/// A key and its slot (`CLUSTER KEYSLOT`), which is one of node 2's in the beginning.
const KEY: &str = "foo";
const SLOT: u16 = 12182;

fn set(cluster: &RedisCluster, node: usize) -> Result<(), String> {
    let mut client = cluster.client(node).unwrap();
    client.command(&["SET", KEY, "bowler"]).map(drop).map_err(|error| error.to_string())
}

fn get(cluster: &RedisCluster, node: usize) -> Result<String, String> {
    let reply = cluster.client(node).unwrap().command(&["GET", KEY]);
    reply.map(|reply| reply.to_string()).map_err(|error| error.to_string())
}

fn moved_to(cluster: &mut RedisCluster, node: usize) -> Result<(), String> {
    Err(format!("MOVED {SLOT} 127.0.0.1:{}", cluster.node(node).port()))
}

#[test]
fn a_moved_slot_takes_its_keys_along() {
    let mut cluster = RedisCluster::new(&RedisClusterOptions::default());
    assert_eq!(cluster.owner(SLOT), Some(2));
    assert_eq!(set(&cluster, 0), moved_to(&mut cluster, 2));
    set(&cluster, 2).unwrap();
    cluster.start_moving(SLOT..SLOT + 10, 2, 0);
    assert_eq!(get(&cluster, 2).unwrap(), "bowler");
    cluster.finish_moving(SLOT..SLOT + 10, 2, 0);
    assert_eq!(get(&cluster, 0).unwrap(), "bowler");
    assert_eq!(set(&cluster, 2), moved_to(&mut cluster, 0));
    cluster.wait_until_ready();
    assert_eq!(cluster.owner(SLOT + 9), Some(0));
    assert_eq!(cluster.owner(SLOT + 10), Some(2));
}

#[test]
fn a_slot_on_the_move_asks_for_the_new_node() {
    let mut cluster = RedisCluster::new(&RedisClusterOptions::default());
    cluster.start_moving(SLOT..SLOT + 1, 2, 1);
    let port = cluster.node(1).port();
    assert_eq!(get(&cluster, 2), Err(format!("ASK {SLOT} 127.0.0.1:{port}")));
}

#[test]
fn a_lost_node_comes_back_with_its_slots() {
    let mut cluster = RedisCluster::new(&RedisClusterOptions::default());
    cluster.node(2).kill();
    cluster.wait_until_lost(2);
    assert!(set(&cluster, 0).unwrap_err().starts_with("CLUSTERDOWN"));
    cluster.node(2).start();
    cluster.wait_until_ready();
    set(&cluster, 2).unwrap();
}

#[test]
fn a_replica_takes_the_slots_of_a_lost_master() {
    let certificates = Certificates::new();
    let mut cluster = RedisCluster::new(&RedisClusterOptions {
        replicas: true,
        password: Some("hats".to_owned()),
        tls: Some(ServerTls::new(&certificates)),
    });
    let url = cluster.url();
    assert_eq!(url.strip_prefix("rediss+cluster://127.0.0.1:").unwrap().split(',').count(), 6);
    cluster.node(2).kill();
    assert_eq!(cluster.wait_for_new_owner(SLOT, 2), 5);
    set(&cluster, 5).unwrap();
    cluster.node(2).start();
    cluster.wait_until_ready();
    assert_eq!(cluster.owner(SLOT), Some(5));
}
