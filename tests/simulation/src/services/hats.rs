//! The service that a run of the driver calls, as generated from `proto/hats.proto`.
#![allow(missing_docs, reason = "documented in proto/hats.proto")]

psrpc::include_proto!("simulation.v1");
