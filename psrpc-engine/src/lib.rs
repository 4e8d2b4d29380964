//! The PSRPC protocol as deterministic state machines: a [`Client`] and a [`Server`] that do no I/O, read no clock and
//! draw no randomness of their own.
#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

extern crate alloc;

mod cache;
mod client;
mod config;
mod dedup;
mod engine;
mod error;
mod event;
mod flight;
mod handle;
mod incoming;
mod limits;
mod map;
mod output;
mod reason;
mod route;
mod selection;
mod server;
mod subscriptions;
mod time;
mod timers;

pub use psrpc_proto as proto;

pub use client::{Call, Client};
pub use config::{ClientConfig, ServerConfig};
pub use engine::Engine;
pub use error::{BusError, CallError, ConfigError, Evidence, Failure, RegisterError};
pub use event::{ClientEvent, Received, Reply, ServerEvent};
pub use handle::{CallHandle, RegistrationHandle, RequestHandle, SubscriptionHandle};
pub use limits::{ClientLimits, ServerLimits};
pub use output::{Output, SubscriptionKind, Token};
pub use reason::{Counters, Dropped, Reason};
pub use route::Route;
pub use selection::{Claim, Selection};
pub use server::Server;
pub use time::{Now, Time, WallTime};
pub use timers::{Timeout, TimerKind};
