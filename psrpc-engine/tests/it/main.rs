//! The engine against its judges: recordings of Go peers, the driving contract, and behaviour case
//! by case.

mod calls;
mod contract;
mod contract_of_streams;
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
mod streams;
mod updates;
