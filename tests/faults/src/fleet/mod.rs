//! A fleet: two clients and three servers, each with its own bus, and users that keep all kinds
//! of calls, streams and updates in flight.

mod client_user;
pub mod crew;
mod gossip;
mod server_user;
mod stream_user;

use std::sync::Arc;
use std::time::Duration;

use psrpc::bus::Bus;
use psrpc_simulation::judge::violation::Invariant;

use self::client_user::ClientUser;
use self::crew::Crew;
use self::server_user::ServerUser;
use crate::bus_log::BusLog;
use crate::observed_bus::ObservedBus;
use crate::progress::Goal;

/// The number of clients.
pub const CLIENTS: usize = 2;

/// The number of servers.
pub const SERVERS: usize = 3;

/// The pause of each user between two acts. The rate is moderate, since the machine is shared.
const STEP: Duration = Duration::from_millis(40);

/// The idle timeout of streams. Without it, a stream whose close was lost would stay forever.
const STREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// The time after the last act by which every table must be empty. By then all calls have reached
/// their deadlines, and abandoned streams their idle timeout.
const UNTIL_EMPTY: Duration = Duration::from_secs(6);

/// The interval between checks for empty tables.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The topic of the single-server method.
const OWNER: &str = "owner";

/// The metadata key of requests that servers announce and run without a grant.
const ANNOUNCE: &str = "announce";

/// The running clients and servers.
pub struct Fleet {
    crew: Crew,
    clients: Vec<ClientUser>,
    servers: Vec<ServerUser>,
    logs: Vec<(String, BusLog)>,
}

impl Fleet {
    /// Starts servers and clients on these buses, one each, and their users.
    ///
    /// # Errors
    ///
    /// Returns the error of the client or server that cannot be started.
    ///
    /// # Panics
    ///
    /// Panics if there are not [`CLIENTS`] + [`SERVERS`] buses.
    pub async fn start(buses: Vec<Arc<dyn Bus>>, crew: Crew) -> Result<Self, psrpc::Error> {
        assert_eq!(buses.len(), CLIENTS + SERVERS, "each client and server needs a bus");
        let (mut clients, mut servers, mut logs) = (Vec::new(), Vec::new(), Vec::new());
        for (node, bus) in buses.into_iter().enumerate() {
            let bus = ObservedBus::new(bus, crew.ledger.clone());
            let name = match node.checked_sub(SERVERS) {
                None => format!("server {node}"),
                Some(client) => format!("client {client}"),
            };
            logs.push((name.clone(), BusLog::record(&bus, &name, &crew)));
            match node.checked_sub(SERVERS) {
                None => servers.push(ServerUser::start(bus, node, node == 0, &crew).await?),
                Some(client) => clients.push(ClientUser::start(bus, node, client, &crew).await?),
            }
        }
        servers.iter().for_each(ServerUser::work);
        for client in &clients {
            client.work();
        }
        Ok(Self { crew, clients, servers, logs })
    }

    /// Returns the events of each bus.
    pub fn logs(&self) -> &[(String, BusLog)] {
        &self.logs
    }

    /// Returns everything that must work for the service to be back.
    pub fn goals(&self) -> Vec<Goal> {
        let gossip = (0..SERVERS).map(client_user::gossip_goal);
        self.clients.iter().flat_map(ClientUser::goals).chain(gossip).collect()
    }

    /// Starts tasks that make fresh calls of each kind until the goal of that kind is reached, in
    /// addition to the users' own acts.
    pub fn recover(&self) {
        self.clients.iter().for_each(ClientUser::recover);
    }

    /// Makes fresh calls of every kind on every client. All must succeed (I16).
    pub fn check_calm(&self) -> impl Future<Output = ()> + Send + use<> {
        let clients = self.clients.clone();
        async move {
            for client in &clients {
                client.check_calm().await;
            }
        }
    }

    /// Checks that nothing is left after all users have ended (I9), and closes all clients and
    /// servers.
    pub async fn end(self) {
        let last = self.crew.now() + UNTIL_EMPTY;
        while self.left().is_some() && self.crew.now() < last {
            self.crew.sleep(POLL_INTERVAL).await;
        }
        if let Some(left) = self.left() {
            self.crew.ledger.judge(Invariant::I9.violated(left));
        }
        for client in self.clients {
            client.shut_down().await;
        }
        for server in self.servers {
            server.shut_down().await;
        }
    }

    /// Describes a client or server with tables that are not empty, if there is one.
    fn left(&self) -> Option<String> {
        let clients = self.clients.iter().map(|client| ("client", client.number, client.tables()));
        let servers = self.servers.iter().map(|server| ("server", server.number, server.tables()));
        let (role, number, tables) = clients
            .chain(servers)
            .find(|(.., tables)| tables.iter().any(|tables| *tables != Tables::default()))?;
        Some(format!("{role} {number} has entries left in the tables of its two services: {tables:?}"))
    }
}

/// The sizes of the tables of a client or server.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tables {
    calls: usize,
    streams: usize,
    /// Requests and stream messages that are remembered until they expire.
    remembered: usize,
}
