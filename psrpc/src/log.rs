//! What is logged, through the `tracing` crate. The crate's documentation has the table.
//!
//! A subscriber is user code, so nothing is logged under a driver's lock: notes are taken there, and written once it is free.

use psrpc_engine::proto::Text;
use psrpc_engine::{BusError, ClientEvent, Dropped, Route, ServerEvent};
use tracing::Level;
use tracing::level_filters::LevelFilter;

use crate::guard;
use crate::middleware::Side;

/// Something to be logged.
pub(crate) enum Note {
    Dropped(Dropped),
    Gap {
        lost: Option<u64>,
    },
    /// The bus gave up a subscription of methods that were registered together.
    RegistrationLost(Vec<Route>),
    /// The bus gave up a subscription of a client.
    SubscriptionLost(BusError),
}

impl Note {
    /// A note of an event that every client has, if it is to be logged.
    pub(crate) fn of_client(event: ClientEvent) -> Option<Self> {
        match event {
            ClientEvent::Dropped(dropped) => Self::Dropped(dropped).if_wanted(),
            ClientEvent::Gap { lost, .. } => Self::Gap { lost }.if_wanted(),
            _ => None,
        }
    }

    /// A note of an event that every server has, if it is to be logged.
    pub(crate) fn of_server(event: ServerEvent) -> Option<Self> {
        match event {
            ServerEvent::Dropped(dropped) => Self::Dropped(dropped).if_wanted(),
            ServerEvent::Gap { lost, .. } => Self::Gap { lost }.if_wanted(),
            _ => None,
        }
    }

    /// Asks for the level alone, which is no user code.
    fn if_wanted(self) -> Option<Self> {
        let level = match self {
            Self::Dropped(_) => Level::DEBUG,
            _ => Level::WARN,
        };
        (level <= LevelFilter::current()).then_some(self)
    }

    /// Writes it, for the client or server with this id.
    pub(crate) fn write(self, side: Side, service: &Text, id: &Text) {
        guard::catch(|| match self {
            Self::Dropped(Dropped { reason, request_id, peer, late_by }) => match side {
                Side::Client => {
                    tracing::debug!(target: "psrpc::client", ?service, ?id, ?request_id, ?peer, "dropped a frame: {reason}");
                }
                Side::Server => {
                    tracing::debug!(target: "psrpc::server", ?service, ?id, ?request_id, ?peer, ?late_by, "dropped a frame: {reason}");
                }
            },
            Self::Gap { lost } => {
                tracing::warn!(target: "psrpc::bus", ?service, ?id, lost, "the bus may have lost frames");
            }
            Self::RegistrationLost(routes) => {
                let methods: Vec<_> = routes.iter().map(Route::method).collect();
                let topic = routes.first().map_or(&[][..], Route::topic);
                tracing::warn!(target: "psrpc::bus", ?service, ?id, ?methods, ?topic, "the bus gave up a registration");
            }
            Self::SubscriptionLost(error) => {
                let error = error.to_string();
                tracing::warn!(target: "psrpc::bus", ?service, ?id, ?error, "the bus gave up a client's subscriptions");
            }
        });
    }
}

/// Logs that user code panicked. What it threw is not logged: it may hold what is not for others to see.
pub(crate) fn panicked(side: Side, what: &str, method: Option<&str>) {
    guard::catch(|| match side {
        Side::Client => tracing::error!(target: "psrpc::client", method, "{what} panicked"),
        Side::Server => tracing::error!(target: "psrpc::server", method, "{what} panicked"),
    });
}
