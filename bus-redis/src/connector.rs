//! Finds the server and connects to it. Errors name the server and its reply, but no secret.

use std::sync::Arc;
use std::time::Duration;

use psrpc::bus::Lock;
use psrpc::{BusError, Runtime, Task};
use redis::aio::AsyncPushSender;
use redis::{AsyncConnectionConfig, ConnectionAddr, RedisError, Value};

use crate::cluster::Slots;
use crate::dial::{Login, Session};
use crate::error::ConnectError;
use crate::options::RedisOptions;
use crate::target::{Target, TargetKind};
use crate::{cause, check};

/// The delay before the first attempt to connect again.
const FIRST_DELAY: Duration = Duration::from_millis(10);

/// The servers that the bus connects to, and the settings of its connections.
pub(crate) struct Connector {
    pub(crate) target: Target,
    pub(crate) options: RedisOptions,
    pub(crate) runtime: Arc<dyn Runtime>,
    state: Lock<ConnectorState>,
}

struct ConnectorState {
    /// Whether the bus has ever connected.
    has_connected: bool,
    /// The server of the latest connection, as it is shown in errors.
    server: Arc<str>,
    /// The addresses to try. The address of the latest connection comes first.
    addresses: Vec<ConnectionAddr>,
    /// The slots of the cluster, as last reported by a node.
    slots: Arc<Slots>,
}

impl Connector {
    pub(crate) fn new(
        target: Target,
        options: RedisOptions,
        runtime: Arc<dyn Runtime>,
    ) -> Result<Self, ConnectError> {
        options.check(&target)?;
        let mut addresses = target.addresses.clone();
        if target.is_cluster() {
            // Spreads the buses over the nodes.
            let start = usize::from(runtime.seed()[0]) % addresses.len();
            addresses.rotate_left(start);
        }
        let server = target.names().into();
        let state =
            Lock::new(ConnectorState { has_connected: false, server, addresses, slots: Arc::default() });
        Ok(Self { target, options, runtime, state })
    }

    /// Connects, and forwards everything that the server pushes to `pushed`.
    pub(crate) async fn connect(&self, pushed: impl AsyncPushSender) -> Result<Session, ConnectError> {
        let config = self.config().set_push_sender(pushed);
        let addresses = self.state.lock().addresses.clone();
        let mut errors = Vec::new();
        for address in addresses {
            match self.attempt(&address, &config).await {
                Ok(session) => {
                    let mut state = self.state.lock();
                    state.has_connected = true;
                    state.server = session.server.as_str().into();
                    if let Some(at) = state.addresses.iter().position(|known| *known == address) {
                        state.addresses[..=at].rotate_right(1);
                    }
                    return Ok(session);
                }
                Err(error) => errors.push(error),
            }
        }
        Err(self.all_failed(errors))
    }

    /// Connects to the server at an address, or to the master that the sentinel at this address
    /// names.
    async fn attempt(
        &self,
        address: &ConnectionAddr,
        config: &AsyncConnectionConfig,
    ) -> Result<Session, ConnectError> {
        let mut session = match &self.target.kind {
            TargetKind::Server | TargetKind::Cluster => self.dial(address, Login::Server, config).await?,
            TargetKind::Sentinel { master } => {
                let master = self.ask_sentinel(address, master).await?;
                self.dial(&master, Login::Server, config).await?
            }
        };
        self.check(&mut session).await?;
        if self.target.is_cluster()
            && let Ok(Some(slots)) = Slots::ask(&mut session).await
        {
            self.learn(slots);
        }
        Ok(session)
    }

    /// Checks that the server has the kind and the role that the bus needs.
    async fn check(&self, session: &mut Session) -> Result<(), ConnectError> {
        let command = check::command(&self.target.kind);
        let error = |cause| ConnectError::Server { server: session.server.clone(), cause };
        // The check is part of connecting, so the timeout for connecting applies.
        let mut connection = session.connection.clone();
        connection.set_response_timeout(self.options.connection_timeout);
        match connection.send_packed_command(&command).await {
            Err(failure) => Err(error(cause::of(&failure, None))),
            Ok(reply) => {
                check::problem(&self.target.kind, &reply).map_or(Ok(()), |problem| Err(error(problem)))
            }
        }
    }

    /// Returns one error for all addresses.
    fn all_failed(&self, mut errors: Vec<ConnectError>) -> ConnectError {
        if errors.len() == 1 {
            return errors.remove(0);
        }
        let causes: Vec<_> = errors.iter().map(ToString::to_string).collect();
        let (server, cause) = (self.target.names(), causes.join("; "));
        // A refusal by one server is reported as an event, even if other servers failed for other
        // reasons.
        match errors.iter().any(|error| matches!(error, ConnectError::Refused { .. })) {
            true => ConnectError::Refused { server, cause },
            false => ConnectError::Server { server, cause },
        }
    }

    /// Remembers the slots of the cluster, and the nodes that serve them as addresses to try.
    pub(crate) fn learn(&self, slots: Slots) {
        let mut state = self.state.lock();
        let nodes: Vec<_> =
            slots.nodes().map(|(host, port)| ConnectionAddr::Tcp(host.into(), port)).collect();
        // The order is kept. The addresses in the URL are kept too, in case all other nodes are
        // replaced.
        let is_known = |node: &ConnectionAddr| nodes.contains(node) || self.target.addresses.contains(node);
        state.addresses.retain(is_known);
        for node in nodes {
            if !state.addresses.contains(&node) {
                state.addresses.push(node);
            }
        }
        state.slots = Arc::new(slots);
    }

    /// Returns the known slots of the cluster.
    pub(crate) fn slots(&self) -> Arc<Slots> {
        Arc::clone(&self.state.lock().slots)
    }

    /// Returns the addresses to try. The address of the latest connection comes first.
    pub(crate) fn addresses(&self) -> Vec<ConnectionAddr> {
        self.state.lock().addresses.clone()
    }

    /// Returns `true` if the bus has connected before.
    pub(crate) fn has_connected(&self) -> bool {
        self.state.lock().has_connected
    }

    /// Returns the name of the server of the latest connection.
    pub(crate) fn server(&self) -> Arc<str> {
        Arc::clone(&self.state.lock().server)
    }

    pub(crate) fn config(&self) -> AsyncConnectionConfig {
        AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.options.connection_timeout))
            .set_response_timeout(Some(self.options.response_timeout))
    }

    /// Returns the error for a failure on an established connection. The password was sent earlier,
    /// so there is no secret to hide.
    pub(crate) fn bus_error(&self, error: &RedisError) -> BusError {
        BusError::new(self.connect_error(cause::of(error, None)))
    }

    /// Returns the error for a reply that does not fit the command.
    pub(crate) fn unexpected_reply(&self, reply: &Value) -> BusError {
        // A server that is not Redis may reply with anything, of any length.
        BusError::new(self.connect_error(cause::excerpt(&format!("unexpected reply: {reply:?}"))))
    }

    /// Returns an error of the server of the latest connection.
    pub(crate) fn connect_error(&self, cause: impl Into<String>) -> ConnectError {
        ConnectError::Server { server: self.server().to_string(), cause: cause.into() }
    }

    /// Sleeps before the next attempt to connect. The delay grows with `failures`.
    pub(crate) fn sleep_after(&self, failures: u32) -> Task {
        let now = self.runtime.now().wall;
        self.sleep(psrpc_bus_net::delay(FIRST_DELAY, failures, self.options.reconnect_delay, now))
    }

    pub(crate) fn sleep(&self, duration: Duration) -> Task {
        self.runtime.sleep_until(self.runtime.now().time + duration)
    }
}

/// Checks that the Cargo feature for the runtime is enabled.
pub(crate) fn check_features(is_tokio: bool) -> Result<(), ConnectError> {
    match is_tokio {
        true if !cfg!(feature = "tokio") => Err(ConnectError::Runtime { feature: "tokio" }),
        false if !cfg!(feature = "smol") => Err(ConnectError::Runtime { feature: "smol" }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_whose_feature_is_off_is_refused_with_its_name() {
        for (is_tokio, feature, is_on) in
            [(true, "tokio", cfg!(feature = "tokio")), (false, "smol", cfg!(feature = "smol"))]
        {
            match check_features(is_tokio) {
                Ok(()) => assert!(is_on),
                Err(error) => assert!(!is_on && error.to_string().contains(&format!("feature `{feature}`"))),
            }
        }
    }
}
