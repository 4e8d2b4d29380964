//! The service of a run of the driver, generated from `proto/hats.proto`.
#![allow(missing_docs, reason = "documented in proto/hats.proto")]

psrpc::include_proto!("simulation.v1");
