//! A Redis Cluster of three masters, each with a replica if wanted.

use std::io;
use std::ops::Range;

use crate::redis_client::{RedisClient, Reply};
use crate::tls::ServerTls;
use crate::wait::wait_until;
use crate::{Kind, Server, free_port};

const MASTERS: usize = 3;
/// All slots of a cluster.
const SLOTS: u16 = 16384;

/// Replicas, passwords and TLS of a [`RedisCluster`]. By default there are none.
#[derive(Clone, Default)]
pub struct RedisClusterOptions {
    /// Whether each master has a replica.
    pub replicas: bool,
    /// The password of all nodes.
    pub password: Option<String>,
    /// TLS of all nodes.
    pub tls: Option<ServerTls>,
}

/// A cluster of three masters that share the slots evenly. With replicas, nodes 3 to 5 replicate
/// nodes 0 to 2. A node counts as lost after two seconds without a response. While slots have no
/// master, the cluster refuses commands on keys.
pub struct RedisCluster {
    nodes: Vec<Server>,
    options: RedisClusterOptions,
}

impl RedisCluster {
    /// Starts the nodes and joins them. The cluster is ready when this returns.
    ///
    /// # Panics
    ///
    /// Panics if a node cannot be started, or if they do not find each other.
    pub fn new(options: &RedisClusterOptions) -> Self {
        let mut cluster = Self { nodes: Vec::new(), options: options.clone() };
        let count = if options.replicas { 2 * MASTERS } else { MASTERS };
        let bus_ports: Vec<_> = (0..count).map(|_| cluster.add_node()).collect();
        for master in 0..MASTERS {
            let slots = share(master);
            let [first, last] = [slots.start, slots.end - 1].map(|slot| slot.to_string());
            cluster.command(master, &["cluster", "addslotsrange", &first, &last]);
        }
        for (node, bus_port) in bus_ports.into_iter().enumerate() {
            cluster.command(node, &["cluster", "set-config-epoch", &(node + 1).to_string()]);
            if node > 0 {
                let port = cluster.nodes[node].port().to_string();
                cluster.command(0, &["cluster", "meet", "127.0.0.1", &port, &bus_port.to_string()]);
            }
        }
        for node in 0..count {
            wait_until(&format!("node {node} knows all"), || cluster.knows_all(node));
        }
        for replica in MASTERS..count {
            let master = cluster.id(replica - MASTERS);
            cluster.command(replica, &["cluster", "replicate", &master]);
        }
        cluster.wait_until_ready();
        cluster
    }

    /// Starts a node, and returns its port for other nodes.
    fn add_node(&mut self) -> u16 {
        let bus_port = free_port();
        let text = bus_port.to_string();
        let mut arguments = vec!["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"];
        arguments.extend(["--cluster-port", &text, "--repl-diskless-sync-delay", "0"]);
        if let Some(password) = &self.options.password {
            arguments.extend(["--requirepass", password, "--masterauth", password]);
        }
        self.nodes.push(Server::new(Kind::Redis, self.options.tls.as_ref(), &arguments));
        bus_port
    }

    /// Returns the URL of the cluster with all nodes, without credentials:
    /// `redis+cluster://host:port,host:port,...`, or `rediss+cluster://` with TLS.
    pub fn url(&self) -> String {
        self.url_with("")
    }

    /// Returns the URL of the cluster with credentials: `user:password@`.
    pub fn url_with(&self, credentials: &str) -> String {
        let scheme = if self.options.tls.is_some() { "rediss" } else { "redis" };
        let hosts: Vec<_> = self.nodes.iter().map(|at| format!("127.0.0.1:{}", at.port())).collect();
        format!("{scheme}+cluster://{credentials}{}", hosts.join(","))
    }

    /// Returns the node of this number. You can stop, kill, freeze and start it. It keeps its
    /// identity and its slots.
    pub fn node(&mut self, number: usize) -> &mut Server {
        &mut self.nodes[number]
    }

    /// Connects to the node of this number.
    ///
    /// # Errors
    ///
    /// Returns an error if it cannot be reached.
    pub fn client(&self, number: usize) -> io::Result<RedisClient> {
        let options = &self.options;
        RedisClient::connect(self.nodes[number].port(), options.tls.as_ref(), options.password.as_deref())
    }

    /// Returns the number of the node that serves this slot as a master, in the view of the first
    /// node that runs.
    ///
    /// # Panics
    ///
    /// Panics if no node runs.
    pub fn owner(&self, slot: u16) -> Option<usize> {
        let node = self.nodes.iter().position(Server::runs).expect("a node runs");
        let ranges = self.command(node, &["cluster", "slots"]);
        let port = ranges.items().iter().find_map(|range| match range.items() {
            [Reply::Integer(first), Reply::Integer(last), master, ..] => {
                let port = master.items().get(1)?.to_string();
                (*first..=*last).contains(&i64::from(slot)).then_some(port)
            }
            _ => None,
        })?;
        self.nodes.iter().position(|node| node.port().to_string() == port)
    }

    /// Moves slots with their keys from one master to another.
    ///
    /// # Panics
    ///
    /// Panics if a node refuses.
    pub fn move_slots(&self, slots: Range<u16>, from: usize, to: usize) {
        self.start_moving(slots.clone(), from, to);
        self.finish_moving(slots, from, to);
    }

    /// Begins to move slots. Until [`finish_moving`](Self::finish_moving) the old master answers
    /// `ASK` for keys that it does not have.
    ///
    /// # Panics
    ///
    /// Panics if a node refuses.
    pub fn start_moving(&self, slots: Range<u16>, from: usize, to: usize) {
        let [from_id, to_id] = [from, to].map(|node| self.id(node));
        let (mut source, mut target) = (self.connect(from), self.connect(to));
        for slot in slots {
            let slot = slot.to_string();
            run(&mut target, &["cluster", "setslot", &slot, "importing", &from_id]);
            run(&mut source, &["cluster", "setslot", &slot, "migrating", &to_id]);
        }
    }

    /// Moves the keys of the slots that are being moved, and tells both nodes of the new owner. The
    /// other nodes learn it from them.
    ///
    /// # Panics
    ///
    /// Panics if a node refuses.
    pub fn finish_moving(&self, slots: Range<u16>, from: usize, to: usize) {
        let to_id = self.id(to);
        let (mut source, mut target) = (self.connect(from), self.connect(to));
        for slot in slots {
            let slot = slot.to_string();
            self.move_keys(&mut source, &slot, to);
            run(&mut target, &["cluster", "setslot", &slot, "node", &to_id]);
            run(&mut source, &["cluster", "setslot", &slot, "node", &to_id]);
        }
    }

    fn move_keys(&self, source: &mut RedisClient, slot: &str, to: usize) {
        let port = self.nodes[to].port().to_string();
        loop {
            let keys = run(source, &["cluster", "getkeysinslot", slot, "100"]);
            let keys: Vec<_> = keys.items().iter().map(ToString::to_string).collect();
            if keys.is_empty() {
                return;
            }
            let mut words = vec!["migrate", "127.0.0.1", &port, "", "0", "5000"];
            if let Some(password) = &self.options.password {
                words.extend(["auth", password]);
            }
            words.push("keys");
            words.extend(keys.iter().map(String::as_str));
            run(source, &words);
        }
    }

    /// Waits until every node reports that all slots are served and that it reaches all other
    /// nodes. All nodes must run.
    ///
    /// # Panics
    ///
    /// Panics if that takes too long.
    pub fn wait_until_ready(&self) {
        for node in 0..self.nodes.len() {
            wait_until(&format!("node {node} is ready"), || self.is_ready(node));
        }
    }

    /// Waits until every other node counts this node as lost.
    ///
    /// # Panics
    ///
    /// Panics if that takes too long.
    pub fn wait_until_lost(&self, number: usize) {
        let address = format!("127.0.0.1:{}@", self.nodes[number].port());
        let lost = |node: usize| {
            let nodes = self.client(node).and_then(|mut client| client.command(&["cluster", "nodes"]));
            nodes.is_ok_and(|nodes| {
                let nodes = nodes.to_string();
                let mut lines = nodes.lines();
                lines.any(|line| line.contains(&address) && flags(line).any(|flag| flag == "fail"))
            })
        };
        for node in (0..self.nodes.len()).filter(|node| *node != number && self.nodes[*node].runs()) {
            wait_until(&format!("node {node} counts node {number} as lost"), || lost(node));
        }
    }

    /// Waits until a node other than this one serves this slot, for example its replica after this
    /// node was lost. Returns the number of the new owner.
    ///
    /// # Panics
    ///
    /// Panics if that takes too long.
    pub fn wait_for_new_owner(&self, slot: u16, old: usize) -> usize {
        let mut new = old;
        wait_until(&format!("slot {slot} has a new owner"), || {
            new = self.owner(slot).unwrap_or(old);
            new != old && self.is_up(new)
        });
        new
    }

    fn knows_all(&self, node: usize) -> bool {
        let nodes = self.command(node, &["cluster", "nodes"]).to_string();
        let well = |line: &str| {
            line.contains(" connected")
                && flags(line).all(|flag| !flag.contains("fail") && flag != "handshake")
        };
        nodes.lines().count() == self.nodes.len() && nodes.lines().all(well)
    }

    fn is_ready(&self, node: usize) -> bool {
        let replicas = self.nodes.len() - MASTERS;
        let nodes = self.command(node, &["cluster", "nodes"]).to_string();
        let replicated = nodes.lines().filter(|line| flags(line).any(|flag| flag == "slave")).count();
        self.knows_all(node) && replicated == replicas && self.is_up(node)
    }

    /// Returns `true` if the node reports that all slots are served.
    fn is_up(&self, node: usize) -> bool {
        let info = self.command(node, &["cluster", "info"]).to_string();
        let has = |line: &str| info.lines().any(|found| found == line);
        has("cluster_state:ok") && has(&format!("cluster_slots_ok:{SLOTS}"))
    }

    fn id(&self, node: usize) -> String {
        self.command(node, &["cluster", "myid"]).to_string()
    }

    fn command(&self, node: usize, words: &[&str]) -> Reply {
        run(&mut self.connect(node), words)
    }

    fn connect(&self, node: usize) -> RedisClient {
        self.client(node).unwrap_or_else(|error| panic!("node {node} cannot be reached: {error}"))
    }
}

/// The slots that a master has in the beginning.
fn share(master: usize) -> Range<u16> {
    let bound = |n: usize| (usize::from(SLOTS) * n / MASTERS) as u16;
    bound(master)..bound(master + 1)
}

/// The flags of a line of `CLUSTER NODES`.
fn flags(line: &str) -> impl Iterator<Item = &str> {
    line.split(' ').nth(2).unwrap_or_default().split(',')
}

fn run(client: &mut RedisClient, words: &[&str]) -> Reply {
    client.command(words).unwrap_or_else(|error| panic!("{}: {error}", words.join(" ")))
}
