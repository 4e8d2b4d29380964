//! Tests of the wire format against recordings of Go peers and against prost.

mod compression;
mod prost_oracle;
mod recordings;
mod sparse;
mod tables;
