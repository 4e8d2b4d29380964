//! Three `nats-server`s that are routed to each other.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpStream};

use crate::proxy::Proxy;
use crate::tls::ServerTls;
use crate::wait::{TIMEOUT, wait_until};
use crate::{Kind, Server, free_port};

const NODES: usize = 3;

/// A cluster of three nodes, with a route between each pair. Each route goes through a [`Proxy`].
///
/// A node in lame duck mode closes the connection of its first client after two seconds, and then
/// one each second.
pub struct NatsCluster {
    nodes: Vec<Server>,
    /// Between node 0 and 1, 0 and 2, 1 and 2.
    routes: Vec<Proxy>,
}

impl NatsCluster {
    /// Starts the nodes, with these further lines of configuration for each. Each node knows both
    /// others when this returns.
    ///
    /// # Panics
    ///
    /// Panics if one cannot be started, or if they do not find each other.
    pub fn new(tls: Option<&ServerTls>, configuration: &[&str]) -> Self {
        let ports: [u16; NODES] = std::array::from_fn(|_| free_port());
        let routes: Vec<_> = [ports[0], ports[0], ports[1]].map(Proxy::new).into();
        let mut cluster = Self { nodes: Vec::new(), routes };
        for (node, port) in ports.into_iter().enumerate() {
            let routes: Vec<_> = (0..node)
                .map(|other| format!("nats://127.0.0.1:{}", cluster.route(other, node).port()))
                .collect();
            // Nodes announce each other's addresses. This address is unreachable, so no node
            // connects to another one around the proxies.
            let lines = [
                format!("server_name: hats-{node}"),
                format!(
                    "cluster {{ name: hats, host: 127.0.0.1, port: {port}, advertise: \"127.0.0.1:1\", \
                     routes: [{}] }}",
                    routes.join(", "),
                ),
                "lame_duck_grace_period: \"2s\"".to_owned(),
                "lame_duck_duration: \"30s\"".to_owned(),
            ];
            let lines: Vec<_> =
                lines.iter().map(String::as_str).chain(configuration.iter().copied()).collect();
            cluster.nodes.push(Server::new(Kind::Nats, tls, &lines));
        }
        cluster.wait_until_ready();
        cluster
    }

    /// Returns the URLs of all nodes, separated by commas: `nats://host:port,nats://host:port,...`,
    /// with `tls://` if the cluster has TLS.
    pub fn url(&self) -> String {
        self.url_with("")
    }

    /// Returns the URLs of all nodes, each with credentials: `user:password@`.
    pub fn url_with(&self, credentials: &str) -> String {
        let urls: Vec<_> = self.nodes.iter().map(|node| node.url_with(credentials)).collect();
        urls.join(",")
    }

    /// Returns the node of this number, from 0 to 2. You can stop, kill, freeze and start it, or
    /// have it leave as a [lame duck](Server::lame_duck).
    pub fn node(&mut self, number: usize) -> &mut Server {
        &mut self.nodes[number]
    }

    /// Returns the proxy that is the route between two nodes.
    ///
    /// # Panics
    ///
    /// Panics if they are not two of the nodes 0 to 2.
    pub fn route(&self, one: usize, other: usize) -> &Proxy {
        match (one.min(other), one.max(other)) {
            (0, 1) => &self.routes[0],
            (0, 2) => &self.routes[1],
            (1, 2) => &self.routes[2],
            _ => panic!("there is no route between node {one} and node {other}"),
        }
    }

    /// Cuts the route between two nodes. Neither knows the other when this returns, and messages no
    /// longer pass between them: a node does not forward messages from one route to another.
    ///
    /// # Panics
    ///
    /// Panics if the nodes do not notice.
    pub fn cut_route(&self, one: usize, other: usize) {
        self.route(one, other).refuse();
        for (node, lost) in [(one, other), (other, one)] {
            wait_until(&format!("node {node} has lost node {lost}"), || !self.knows(node, lost));
        }
    }

    /// Restores the route between two nodes. They know each other when this returns.
    ///
    /// # Panics
    ///
    /// Panics if they do not find each other.
    pub fn restore_route(&self, one: usize, other: usize) {
        self.route(one, other).forward();
        for (node, found) in [(one, other), (other, one)] {
            wait_until(&format!("node {node} has found node {found}"), || self.knows(node, found));
        }
    }

    /// Waits until each node knows both others. All nodes must run, and no route may be cut.
    ///
    /// # Panics
    ///
    /// Panics if that takes too long.
    pub fn wait_until_ready(&self) {
        for node in 0..NODES {
            for other in (0..NODES).filter(|other| *other != node) {
                wait_until(&format!("node {node} knows node {other}"), || self.knows(node, other));
            }
        }
    }

    /// Returns `true` if a node has a route to another, and therefore announces it to clients.
    pub fn knows(&self, node: usize, other: usize) -> bool {
        let Ok(stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.nodes[node].port())) else {
            return false;
        };
        let _ = stream.set_read_timeout(Some(TIMEOUT));
        let mut info = String::new();
        let read = BufReader::new(stream).read_line(&mut info);
        let urls = info.split_once("\"connect_urls\":[").and_then(|(_, rest)| rest.split_once(']'));
        let url = format!("\"127.0.0.1:{}\"", self.nodes[other].port());
        read.is_ok() && urls.is_some_and(|(urls, _)| urls.contains(&url))
    }
}
