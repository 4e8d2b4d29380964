//! A server of a fleet, which publishes updates all the time.

use std::sync::Arc;
use std::time::Duration;

use psrpc::bus::Bus;
use psrpc::{Error, Handlers as NoHandlers, Server, ServerOptions};
use psrpc_simulation::handlers::Handlers;
use psrpc_simulation::hats::{HatsServer, Reply};
use psrpc_simulation::judge::violation::Invariant;

use super::crew::Crew;
use super::gossip::GOSSIP;
use super::{ANNOUNCE, OWNER, STEP, STREAM_IDLE_TIMEOUT, Tables};
use crate::updates::UpdateKind;

/// The timeout of an update.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(1);

/// A server of the `Hats` service, a server of [`GOSSIP`], and their user.
#[derive(Clone)]
pub(super) struct ServerUser {
    pub(super) number: usize,
    node: usize,
    server: Arc<HatsServer>,
    gossip: Arc<Server>,
    crew: Crew,
}

impl ServerUser {
    /// Starts a server on a bus of its own. The first one also serves the single-server method.
    pub(super) async fn start(
        bus: impl Bus + Clone,
        node: usize,
        is_owner: bool,
        crew: &Crew,
    ) -> Result<Self, Error> {
        let runtime = Arc::clone(&crew.runtime);
        let (number, id) = crew.ledger.new_server(node, None);
        let handlers = Handlers {
            server: number,
            affinity: if is_owner { 1.0 } else { 0.5 },
            runtime: Arc::clone(&runtime),
            ledger: crew.ledger.clone(),
        };
        let options = ServerOptions::new()
            .id(id)
            .stream_idle_timeout(STREAM_IDLE_TIMEOUT)
            .skip_claim(|_, metadata| metadata.get(ANNOUNCE).is_some());
        let server = HatsServer::with_runtime(bus.clone(), Arc::clone(&runtime), handlers, options).await?;
        if is_owner {
            server.register_own_fit_topic(OWNER).await?;
        }
        let gossip = Server::new(bus, runtime, NoHandlers::new(&GOSSIP, ()), ServerOptions::new())?;
        Ok(Self { number, node, server: Arc::new(server), gossip: Arc::new(gossip), crew: crew.clone() })
    }

    /// Publishes updates until the fleet stops.
    pub(super) fn work(&self) {
        for kind in [UpdateKind::News, UpdateKind::Gossip] {
            let own = self.clone();
            self.crew.tasks.spawn(format!("{kind:?} of server {}", self.number), async move {
                while !own.crew.is_stopped() {
                    own.publish(kind).await;
                    own.crew.sleep(STEP).await;
                }
            });
        }
    }

    async fn publish(&self, kind: UpdateKind) {
        let Crew { updates, ledger, .. } = &self.crew;
        let start = self.crew.now();
        let number = updates.publish(kind, self.number, start);
        let update = Reply { number, server: self.number as u64 };
        let publish = match kind {
            UpdateKind::News => self.server.publish_news(&update),
            UpdateKind::Gossip => self.gossip.publish(&GOSSIP.methods[0], &[], &update),
        };
        if publish.timeout(PUBLISH_TIMEOUT).await.is_ok() {
            updates.published(kind, self.number, number);
        }
        let (now, due) = (self.crew.now(), start + PUBLISH_TIMEOUT);
        if now > ledger.latest_allowed(self.node, due) {
            let late = now.since(due);
            ledger.judge(Invariant::I1.violated(format!("an update was published {late:?} too late")));
        }
    }

    /// Returns the sizes of the tables of its servers.
    pub(super) fn tables(&self) -> [Tables; 2] {
        [self.server.server(), &self.gossip].map(|server| Tables {
            calls: server.in_flight(),
            streams: server.streams(),
            remembered: server.remembered(),
        })
    }

    /// Shuts the server down (I14).
    pub(super) async fn shut_down(self) {
        let start = self.crew.now();
        self.gossip.shutdown().await;
        self.server.shutdown().await;
        let (ledger, ended) = (&self.crew.ledger, self.crew.now());
        ledger.check_shutdown(self.number, self.node, start, ended);
    }
}
