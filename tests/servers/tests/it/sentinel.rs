//! A master that is watched by sentinels.

use psrpc_servers::{Certificates, RedisClient, SentinelGroup, SentinelOptions, ServerTls};

fn writes(group: &SentinelGroup, server: usize) -> Result<(), String> {
    let mut client = group.client(server).unwrap();
    client.command(&["SET", "hat", "bowler"]).map(drop).map_err(|error| error.to_string())
}

/// Of the old master and the others, when all are back.
fn one_master_takes_writes(group: &SentinelGroup) {
    group.wait_until_ready();
    let refused = (0..3).filter_map(|server| writes(group, server).err().map(|error| (server, error)));
    let refused: Vec<_> = refused.collect();
    assert_eq!(refused.len(), 2, "{refused:?}");
    let master = group.master();
    assert!(refused.iter().all(|(server, error)| *server != master && error.starts_with("READONLY")));
}

#[test]
fn the_sentinels_replace_a_killed_master_and_take_it_back_as_a_replica() {
    let mut group = SentinelGroup::new(&SentinelOptions::default());
    assert_eq!(group.master(), 0);
    writes(&group, 0).unwrap();
    assert!(writes(&group, 1).unwrap_err().starts_with("READONLY"));
    group.server(0).kill();
    let new = group.wait_for_new_master(0);
    assert_ne!(new, 0);
    writes(&group, new).unwrap();
    group.server(0).start();
    one_master_takes_writes(&group);
}

#[test]
fn the_sentinels_replace_a_frozen_master() {
    let mut group = SentinelGroup::new(&SentinelOptions::default());
    group.server(0).freeze();
    let new = group.wait_for_new_master(0);
    writes(&group, new).unwrap();
    group.server(0).thaw();
    one_master_takes_writes(&group);
}

#[test]
fn a_failover_can_be_asked_for_with_a_sentinel_down() {
    let mut group = SentinelGroup::new(&SentinelOptions::default());
    group.sentinel(2).stop();
    let new = group.failover();
    assert_ne!(new, 0);
    writes(&group, new).unwrap();
    group.sentinel(2).start();
    one_master_takes_writes(&group);
}

#[test]
fn servers_and_sentinels_have_passwords_and_tls_of_their_own() {
    let certificates = Certificates::new();
    let tls = ServerTls::new(&certificates).require_client_certificate();
    let group = SentinelGroup::new(&SentinelOptions {
        password: Some("servers".to_owned()),
        sentinel_password: Some("sentinels".to_owned()),
        tls: Some(tls.clone()),
    });
    let url = group.url();
    let ports = url.strip_prefix("rediss+sentinel://").unwrap().strip_suffix("/hats").unwrap();
    assert_eq!(ports.split(',').count(), 3);
    let port = ports.split(',').next().unwrap().strip_prefix("127.0.0.1:").unwrap().parse().unwrap();
    let refused = |password| {
        RedisClient::connect(port, Some(&tls), password)
            .and_then(|mut sentinel| sentinel.command(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", group.name()]))
    };
    assert!(refused(None).unwrap_err().to_string().starts_with("NOAUTH"));
    assert!(refused(Some("servers")).unwrap_err().to_string().starts_with("WRONGPASS"));
    assert!(refused(Some("sentinels")).is_ok());
    let new = group.failover();
    writes(&group, new).unwrap();
}
