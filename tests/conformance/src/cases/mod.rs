//! The cases, by what they are about.

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

/// Every case, in the order in which they are run.
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
        subscriptions::CASES,
        limits::CASES,
        runtime_ends::CASES,
        load::CASES,
    ];
    all.into_iter().flatten().collect()
}

/// A list of cases: id, what each stands for, what must hold, and the function that shows it.
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
