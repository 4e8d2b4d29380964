//! Each set-up starts, answers, and survives what can be done to it.

#![forbid(unsafe_code)]

mod command;
mod nats;
mod nats_cluster;
mod proxy;
mod redis_cluster;
mod sentinel;
mod tls;
