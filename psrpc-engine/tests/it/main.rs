//! The engine against its judges: recordings of Go peers, the driving contract, and behaviour case by case.

mod calls;
mod contract;
mod contract_of_streams;
mod conversations;
mod deadlines;
mod fixture;
mod multi;
mod registrations;
mod requests;
mod rounds;
mod selection;
mod steps;
mod streams;
mod updates;
