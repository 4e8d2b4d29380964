//! The cases, grouped by topic.

mod back_pressure;
mod bus;
mod calls;
mod claims;
mod clients;
mod deadlines;
mod handlers;
mod limits;
mod load;
mod malformed;
mod multi;
mod runtime_ends;
mod selection;
mod servers;
mod stream_ends;
mod streams;
mod subscriptions;
mod topics;

use crate::Case;

/// Returns all cases, in the order in which they run.
pub fn cases() -> Vec<&'static Case> {
    let all = [
        bus::CASES,
        calls::CASES,
        selection::CASES,
        claims::CASES,
        deadlines::CASES,
        malformed::CASES,
        handlers::CASES,
        clients::CASES,
        servers::CASES,
        topics::CASES,
        multi::CASES,
        streams::CASES,
        stream_ends::CASES,
        back_pressure::CASES,
        subscriptions::CASES,
        limits::CASES,
        runtime_ends::CASES,
        load::CASES,
    ];
    all.into_iter().flatten().collect()
}

/// Builds a list of cases from id, invariant or section, description and function.
macro_rules! case_list {
    ($($id:literal, $stands_for:literal, $about:literal, $run:path;)*) => {
        &[$(crate::Case {
            id: $id,
            stands_for: $stands_for,
            about: $about,
            run: |env| Box::pin($run(env)),
        }),*]
    };
}
use case_list;
