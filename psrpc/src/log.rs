//! Logging through the `tracing` crate. The crate documentation lists all events.
//!
//! A subscriber is user code, so nothing is logged under a driver's lock. Notes are collected under
//! the lock, and written after it is released.

use std::iter::successors;

use psrpc_engine::proto::Text;
use psrpc_engine::{BusError, ClientEvent, Dropped, Route, ServerEvent};
use tracing::Level;
use tracing::level_filters::LevelFilter;

use crate::bus::BusEvent;
use crate::error::{Error, Fault};
use crate::guard;
use crate::guard::Panicked;
use crate::info::{CallInfo, Side};

/// A log event.
pub(crate) enum Note {
    Dropped(Dropped),
    Gap {
        lost: Option<u64>,
    },
    Bus(BusEvent),
    /// Subscriptions of a client or server are interrupted.
    Interrupted(BusError),
    /// The subscriptions are live again. Holds how many were interrupted.
    Resumed(u32),
    /// The bus gave up a subscription of a registration.
    RegistrationLost(Vec<Route>),
    /// The bus gave up a subscription of a client.
    SubscriptionLost(BusError),
}

impl Note {
    /// Returns a note for an event of the bus, or `None` if its level is disabled.
    pub(crate) fn of_bus(event: &BusEvent) -> Option<Self> {
        Self::Bus(event.clone()).if_enabled()
    }

    /// Returns a note for an event of a client, or `None` if it is not logged or its level is
    /// disabled.
    pub(crate) fn of_client(event: ClientEvent) -> Option<Self> {
        match event {
            ClientEvent::Dropped(dropped) => Self::Dropped(dropped).if_enabled(),
            ClientEvent::Gap { lost, .. } => Self::Gap { lost }.if_enabled(),
            ClientEvent::Interrupted { cause } => Self::Interrupted(cause).if_enabled(),
            ClientEvent::Resumed { count } => Self::Resumed(count).if_enabled(),
            _ => None,
        }
    }

    /// Returns a note for an event of a server, or `None` if it is not logged or its level is
    /// disabled.
    pub(crate) fn of_server(event: ServerEvent) -> Option<Self> {
        match event {
            ServerEvent::Dropped(dropped) => Self::Dropped(dropped).if_enabled(),
            ServerEvent::Gap { lost, .. } => Self::Gap { lost }.if_enabled(),
            ServerEvent::Interrupted { cause } => Self::Interrupted(cause).if_enabled(),
            ServerEvent::Resumed { count } => Self::Resumed(count).if_enabled(),
            _ => None,
        }
    }

    /// Returns the note if its level is enabled. Checks only the maximum level, since that runs no
    /// user code.
    fn if_enabled(self) -> Option<Self> {
        let level = match self {
            Self::Dropped(_) => Level::DEBUG,
            // The affected clients and servers log a warning when they are interrupted.
            Self::Bus(BusEvent::SubscriptionRefused { .. } | BusEvent::Misrouted { .. }) => Level::DEBUG,
            Self::Bus(BusEvent::Reconnected { .. }) | Self::Resumed(_) => Level::INFO,
            _ => Level::WARN,
        };
        (level <= LevelFilter::current()).then_some(self)
    }

    /// Writes the note, for the client or server with this id.
    pub(crate) fn write(self, side: Side, service: &Text, id: &Text) {
        let _ = guard::catch(|| match self {
            Self::Dropped(Dropped { reason, request_id, peer, late_by }) => match side {
                Side::Client => {
                    tracing::debug!(target: "psrpc::client", ?service, ?id, %reason, ?request_id, ?peer, "frame dropped");
                }
                Side::Server => {
                    tracing::debug!(target: "psrpc::server", ?service, ?id, %reason, ?request_id, ?peer, ?late_by, "frame dropped");
                }
            },
            Self::Gap { lost } => {
                tracing::warn!(target: "psrpc::bus", ?service, ?id, lost, "the bus may have lost frames");
            }
            Self::Bus(event) => write_bus_event(&event, service, id),
            Self::Interrupted(cause) => {
                tracing::warn!(target: "psrpc::bus", ?service, ?id, %cause, "subscriptions are interrupted");
            }
            Self::Resumed(count) => {
                tracing::info!(target: "psrpc::bus", ?service, ?id, count, "subscriptions are live again");
            }
            Self::RegistrationLost(routes) => {
                let methods: Vec<_> = routes.iter().map(Route::method).collect();
                let topic = routes.first().map_or(&[][..], Route::topic);
                tracing::warn!(target: "psrpc::bus", ?service, ?id, ?methods, ?topic, "registration lost");
            }
            Self::SubscriptionLost(error) => {
                let error = error.to_string();
                tracing::warn!(target: "psrpc::bus", ?service, ?id, ?error, "client subscriptions lost");
            }
        });
    }
}

fn write_bus_event(event: &BusEvent, service: &Text, id: &Text) {
    match event {
        BusEvent::ConnectionLost { cause, .. } => {
            tracing::warn!(target: "psrpc::bus", ?service, ?id, %cause, "bus connection lost");
        }
        BusEvent::Reconnected { after } => {
            tracing::info!(target: "psrpc::bus", ?service, ?id, ?after, "bus connected again");
        }
        BusEvent::Stopped { cause } => {
            tracing::warn!(target: "psrpc::bus", ?service, ?id, %cause, "bus stopped");
        }
        BusEvent::SubscriptionRefused { channel, cause } => {
            tracing::debug!(target: "psrpc::bus", ?service, ?id, channel, %cause, "bus refused a subscription");
        }
        BusEvent::LockRefused { channel, cause, count } => {
            tracing::warn!(target: "psrpc::bus", ?service, ?id, %cause, count, "bus refused to lock queue requests");
            tracing::debug!(target: "psrpc::bus", ?service, ?id, channel, "most recent refused lock");
        }
        BusEvent::Dropped { channel, count } => {
            tracing::warn!(target: "psrpc::bus", ?service, ?id, count, "bus dropped incoming frames");
            tracing::debug!(target: "psrpc::bus", ?service, ?id, channel, "most recent dropped frame");
        }
        BusEvent::Misrouted { channel, count } => {
            tracing::debug!(target: "psrpc::bus", ?service, ?id, channel, count, "bus delivered queue frames that no subscriber here handles");
        }
    }
}

/// The call for which user code ran, as named in log events.
#[derive(Clone)]
pub(crate) struct Label {
    info: CallInfo,
    request_id: Option<Text>,
}

impl Label {
    pub(crate) fn of_request(route: &Route, request_id: &Text) -> Self {
        Self { info: route.clone().into(), request_id: Some(request_id.clone()) }
    }

    pub(crate) fn of_stream(info: &CallInfo) -> Self {
        Self { info: info.clone(), request_id: None }
    }
}

/// Logs a panic of user code with its message. The caller does not get the message, which may be
/// confidential.
pub(crate) fn panicked(side: Side, subject: &str, label: Option<&Label>, Panicked { message }: &Panicked) {
    let (service, method) = label.map(|label| (label.info.service(), label.info.method())).unzip();
    let request_id = label.and_then(|label| label.request_id.as_ref()).map(tracing::field::debug);
    let panic = message.as_deref();
    let _ = guard::catch(|| match side {
        Side::Client => {
            tracing::error!(target: "psrpc::client", service, method, request_id, panic, "{subject} panicked");
        }
        Side::Server => {
            tracing::error!(target: "psrpc::server", service, method, request_id, panic, "{subject} panicked");
        }
    });
}

/// Logs an error of a handler that was converted from another error, since its caller gets only the
/// code and the text. The level is error if the server or the bus is at fault.
pub(crate) fn failed(label: &Label, error: &Error) {
    let Some(cause) = error.get_ref() else { return };
    let _ = guard::catch(|| {
        let (service, method) = (label.info.service(), label.info.method());
        let request_id = label.request_id.as_ref().map(tracing::field::debug);
        let causes: Vec<_> =
            successors(cause.source(), |cause| cause.source()).map(ToString::to_string).collect();
        let causes = (!causes.is_empty()).then(|| causes.join(": "));
        let causes = causes.as_deref();
        match error.fault() {
            Fault::Server | Fault::Bus => {
                tracing::error!(target: "psrpc::server", service, method, request_id, %error, causes, "a handler failed");
            }
            _ => {
                tracing::debug!(target: "psrpc::server", service, method, request_id, %error, causes, "a handler failed");
            }
        }
    });
}

/// Logs that the background task of a client or server panicked.
pub(crate) fn background_task_panicked() {
    let _ = guard::catch(
        || tracing::error!(target: "psrpc", "background task panicked; its client or server has stopped"),
    );
}
