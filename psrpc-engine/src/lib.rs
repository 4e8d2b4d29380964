//! The PSRPC protocol as deterministic state machines: a [`Client`] and a [`Server`] that do no
//! I/O, read no clock and draw no randomness of their own.
//!
//! The driver hands in commands, frames, the results of earlier outputs, and the time. The engine
//! returns outputs for the driver to carry out: subscribe, unsubscribe, publish, and events for the
//! layer above. [`Engine`] states the contract. Both clocks are arguments ([`Now`]), and so is the
//! seed of everything random: the same seed and inputs give the same outputs, byte for byte.
//!
//! User code never runs inside an engine. The engine asks for an affinity, a selection or a
//! handler's response with an event, and the driver returns the result with a command. A simulator
//! therefore controls every step.
//!
//! # Driving
//!
//! This loop drives a client and a server through one call in virtual time. Two lists of
//! subscriptions stand in for the bus.
//!
//! ```
//! use core::time::Duration;
//!
//! use psrpc_engine::proto::{Frame, MethodProperties, Routing};
//! use psrpc_engine::*;
//!
//! let properties = MethodProperties { routing: Routing::Queue, require_claim: true };
//! let route = Route::new::<&str>("Hats", "Fit", properties, &[])?;
//! let mut client = Client::new(ClientConfig::new("Hats"), [1; 32])?;
//! let mut server = Server::new(ServerConfig::new("Hats"), [2; 32])?;
//! server.register(vec![route.clone()])?;
//!
//! // The bus: the channels that each side has subscribed to.
//! let (mut at_client, mut at_server) = (vec![], vec![]);
//! let mut now = Now::default();
//! let mut response = None;
//! while response.is_none() {
//!     let mut frames = vec![];
//!     while let Some(output) = client.poll_output() {
//!         match output {
//!             Output::Subscribe { subscription, channel, .. } => {
//!                 at_client.push((channel, subscription));
//!                 client.handle_subscribed(now, subscription, Ok(()));
//!             }
//!             Output::Unsubscribe { subscription } => client.handle_unsubscribed(now, subscription),
//!             Output::Event(ClientEvent::Ready) => {
//!                 client.call(now, Call::new(route.clone(), "a hat, please"))?;
//!             }
//!             Output::Event(ClientEvent::Resolved { outcome, .. }) => response = Some(outcome?.payload),
//!             Output::Event(_) => {}
//!         }
//!     }
//!     while let Some(outgoing) = client.poll_publish() {
//!         let token = outgoing.token();
//!         frames.push(outgoing.take());
//!         client.handle_published(now, token, Ok(None));
//!     }
//!     while let Some(output) = server.poll_output() {
//!         match output {
//!             Output::Subscribe { subscription, channel, .. } => {
//!                 at_server.push((channel, subscription));
//!                 server.handle_subscribed(now, subscription, Ok(()));
//!             }
//!             Output::Unsubscribe { subscription } => server.handle_unsubscribed(now, subscription),
//!             Output::Event(ServerEvent::Received(received)) => server.bid(now, received.request, 1.0),
//!             Output::Event(ServerEvent::Run { request }) => {
//!                 server.respond(now, request, Ok("here it is".into()));
//!             }
//!             Output::Event(_) => {}
//!         }
//!     }
//!     while let Some(outgoing) = server.poll_publish() {
//!         let token = outgoing.token();
//!         frames.push(outgoing.take());
//!         server.handle_published(now, token, Ok(None));
//!     }
//!     for (channel, frame) in frames {
//!         for (_, subscription) in at_client.iter().filter(|(name, _)| *name == channel) {
//!             client.handle_frame(now, *subscription, frame.clone());
//!         }
//!         for (_, subscription) in at_server.iter().filter(|(name, _)| *name == channel) {
//!             server.handle_frame(now, *subscription, frame.clone());
//!         }
//!     }
//!     // A real driver sleeps until `poll_timeout()`.
//!     now.time = now.time + Duration::from_micros(10);
//!     // Each call fires a bounded number of timers; a real driver takes the outputs in between.
//!     while client.handle_timeout(now).is_more() {}
//!     while server.handle_timeout(now).is_more() {}
//! }
//! assert_eq!(response.unwrap(), "here it is");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Overview
//!
//! * [`Client`], [`Server`]: the two engines, with their [`ClientConfig`], [`ServerConfig`],
//!   [`ClientLimits`] and [`ServerLimits`].
//! * [`Route`]: a method on a topic; [`Call`], [`MultiCall`] and [`OpenStream`]: a call to make;
//!   [`Selection`]: how the call picks its server.
//! * [`Output`], [`LentFrame`], [`ClientEvent`], [`ServerEvent`]: the outputs.
//! * [`Reason`]: why a frame was dropped, a request abandoned or a call failed; [`Counters`]: how
//!   often each of these happened.

#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs, missing_debug_implementations)]

extern crate alloc;

mod client;
mod config;
mod core;
mod engine;
mod error;
mod event;
mod limits;
mod reason;
mod server;
mod stream;
mod wire;

pub use psrpc_proto as proto;

pub use crate::client::selection::Selection;
pub use crate::client::{Call, Client, ClientSide, MultiCall, OpenStream};
pub use crate::config::{ClientConfig, ConfigError, ServerConfig, SlowConsumer, StreamConfig};
pub use crate::core::budget::{Due, ROUND};
pub use crate::core::bus_error::BusError;
pub use crate::core::handle::{
    CallHandle, MultiHandle, RegistrationHandle, RequestHandle, SendHandle, StreamHandle, SubscriptionHandle,
    UpdateHandle,
};
pub use crate::core::outputs::{LentFrame, Output, SubscriptionKind, Token};
pub use crate::core::time::{Now, Time, WallTime};
pub use crate::core::timers::{Timeout, TimerKind};
pub use crate::engine::Engine;
pub use crate::error::{CallError, Evidence, Failure, Refusal, RegisterError, SendError, UpdateError};
pub use crate::event::{ClientEvent, Received, Reply, ServerEvent};
pub use crate::limits::{ClientLimits, ServerLimits, StreamLimits};
pub use crate::reason::{Counters, Dropped, Reason};
pub use crate::server::{Server, ServerSide};
pub use crate::stream::commands::StreamCommands;
pub use crate::stream::event::StreamEvent;
pub use crate::stream::pending_message::PendingMessage;
pub use crate::stream::side::Side;
pub use crate::wire::bid::Bid;
pub use crate::wire::route::Route;
