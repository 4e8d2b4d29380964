//! The wire against its judges: recordings of Go peers, and prost-derived twins of every message.

mod compression;
mod recordings;
mod tables;
mod twins;
