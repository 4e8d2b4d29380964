//! A cluster of NATS servers.

use psrpc_servers::{Certificates, NatsCluster, ServerTls};

use crate::nats::NatsClient;

/// Publishes at one node until a subscriber at another has received a message: the interest of the
/// subscriber spreads after its node has confirmed it.
fn passes(cluster: &mut NatsCluster, from: usize, to: usize) {
    let mut receiver = NatsClient::connect(cluster.node(to).port());
    receiver.send("SUB hats 1");
    receiver.flush();
    let mut sender = NatsClient::connect(cluster.node(from).port());
    let (done, finished) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while finished.recv_timeout(std::time::Duration::from_millis(20)).is_err() {
                sender.send("PUB hats 6\r\nbowler");
                sender.flush();
            }
        });
        let lines = [receiver.line_but_info(), receiver.line_but_info()];
        done.send(()).unwrap();
        assert_eq!(lines, ["MSG hats 1 6", "bowler"]);
    });
}

#[test]
fn messages_pass_between_all_nodes() {
    let mut cluster = NatsCluster::new(None, &[]);
    assert_eq!(cluster.url().split(',').filter(|url| url.starts_with("nats://127.0.0.1:")).count(), 3);
    for (from, to) in [(0, 1), (1, 2), (2, 0)] {
        passes(&mut cluster, from, to);
    }
}

#[test]
fn a_cut_route_comes_back() {
    let mut cluster = NatsCluster::new(None, &[]);
    cluster.cut_route(0, 2);
    let mut receiver = NatsClient::connect(cluster.node(2).port());
    receiver.send("SUB hats 1");
    receiver.flush();
    let mut sender = NatsClient::connect(cluster.node(0).port());
    sender.send("PUB hats 6\r\nfedora");
    sender.flush();
    passes(&mut cluster, 0, 1);
    passes(&mut cluster, 1, 2);
    assert!(!cluster.knows(0, 2) && !cluster.knows(2, 0));
    cluster.restore_route(0, 2);
    passes(&mut cluster, 0, 2);
    passes(&mut cluster, 2, 0);
    receiver.send("PING");
    let received: Vec<_> =
        std::iter::from_fn(|| Some(receiver.line_but_info()).filter(|line| line != "PONG")).collect();
    assert!(received.contains(&"bowler".to_owned()), "{received:?}");
    assert!(!received.contains(&"fedora".to_owned()), "a message passed a cut route");
}

#[test]
fn a_killed_node_comes_back() {
    let mut cluster = NatsCluster::new(None, &[]);
    for node in 0..3 {
        cluster.node(node).kill();
        passes(&mut cluster, (node + 1) % 3, (node + 2) % 3);
        cluster.node(node).start();
        cluster.wait_until_ready();
        passes(&mut cluster, node, (node + 1) % 3);
    }
}

#[test]
fn a_lame_duck_tells_its_clients_and_leaves() {
    let mut cluster = NatsCluster::new(None, &[]);
    let mut client = NatsClient::connect(cluster.node(1).port());
    client.flush();
    cluster.node(1).lame_duck();
    let told = loop {
        let info = client.line().unwrap();
        if info.contains("\"ldm\":true") {
            break info;
        }
    };
    let others = [0, 2].map(|node| format!("127.0.0.1:{}", cluster.node(node).port()));
    assert!(others.iter().all(|url| told.contains(url)), "{told}");
    while client.line().is_ok() {}
    cluster.node(1).wait_for_end();
    passes(&mut cluster, 0, 2);
    cluster.node(1).start();
    cluster.wait_until_ready();
}

#[test]
fn a_cluster_takes_tls_and_passwords() {
    let certificates = Certificates::new();
    let lines = ["authorization { user: hatter, password: hats }"];
    let cluster = NatsCluster::new(Some(&ServerTls::new(&certificates)), &lines);
    let urls = cluster.url_with("hatter:hats@");
    assert!(urls.split(',').all(|url| url.starts_with("tls://hatter:hats@127.0.0.1:")), "{urls}");
}
