//! The checks that all kinds of calls share: each call ends once and in time, and each response
//! comes from a server that ran the call.

use bytes::Bytes;
use psrpc_engine::Time;
use psrpc_engine::proto::ErrorResponse;

use crate::exhaustive::scenario::{EXPIRY, Scenario, TIMEOUT, name};
use crate::judge::violation::{Checked, Invariant};

/// The call, in violation texts.
pub(super) const CALL: &str = "the call";

/// The deadline of something, and whether it has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    /// It has not started.
    #[default]
    NotStarted,
    By(Time),
    Over,
}

impl Due {
    pub(super) fn begin(&mut self, now: Time) {
        if *self == Due::NotStarted {
            *self = Due::By(now + TIMEOUT);
        }
    }

    /// Notes the end, and checks that it is the only one and in time.
    pub(super) fn end(&mut self, what: &str, now: Time) -> Checked {
        match std::mem::replace(self, Due::Over) {
            Due::By(deadline) if now <= deadline => Ok(()),
            Due::By(deadline) => {
                Invariant::I1.violated(format!("{what} ends {:?} past its deadline", now.since(deadline)))
            }
            Due::NotStarted => Invariant::I1.violated(format!("{what} ends before it starts")),
            Due::Over => Invariant::I1.violated(format!("{what} ends twice")),
        }
    }

    pub(super) fn time_advanced(&self, what: &str, now: Time) -> Checked {
        match self {
            Due::By(deadline) if *deadline < now => {
                Invariant::I1.violated(format!("{what} is open past its deadline"))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn must_be_over(&self, what: &str) -> Checked {
        if let Due::By(_) = self { Invariant::I1.violated(format!("{what} never ends")) } else { Ok(()) }
    }
}

/// Checks that a server may start a handler at this time.
pub(super) fn check_expiry(server: usize, now: Time) -> Checked {
    if now >= EXPIRY {
        return Invariant::I3
            .violated(format!("{} starts its handler at {now:?}, past the expiry", name(server + 1)));
    }
    Ok(())
}

/// Checks that a response is the one that its server gave, and that the server ran the call.
pub(super) fn check_answer(
    server: Option<usize>,
    ran: &[bool],
    received: Result<&Bytes, &ErrorResponse>,
) -> Checked {
    let Some(server) = server.filter(|server| ran[*server]) else {
        return Invariant::I5
            .violated(format!("received {received:?} from {server:?}, which did not run the call"));
    };
    match (Scenario::answer(server), received) {
        (Ok(sent), Ok(received)) if sent.as_bytes() == received => Ok(()),
        (Err(sent), Err(received)) if sent == *received => Ok(()),
        (sent @ Ok(_), Err(_)) | (sent @ Err(_), Ok(_)) => {
            Invariant::I6.violated(format!("sent {sent:?}, received {received:?}"))
        }
        (sent, received) => Invariant::I5.violated(format!("sent {sent:?}, received {received:?}")),
    }
}
