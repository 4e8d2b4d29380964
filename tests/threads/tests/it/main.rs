//! Scenarios with several threads, each under many schedules.

#![cfg(psrpc_shuttle)]

mod calls;
mod ends;
mod inbox;
mod inline;
mod receipts;
mod streams;
mod timers;
