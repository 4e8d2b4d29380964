//! Tests of the engine: replayed recordings of Go peers, property tests of the driving contract,
//! and single cases.

mod calls;
mod contract;
mod conversations;
mod deadlines;
mod described;
mod fixture;
mod multi;
mod registrations;
mod requests;
mod rounds;
mod selection;
mod steps;
mod stream_contract;
mod streams;
mod updates;
