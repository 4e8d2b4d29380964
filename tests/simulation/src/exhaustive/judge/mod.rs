//! The judge: what must hold of the one call of a scene, whatever the schedule.

mod claim;
mod multi;
mod stream;
mod unary;
mod update;

use bytes::Bytes;
use psrpc_engine::Time;
use psrpc_engine::proto::ErrorResponse;

use self::multi::Multi;
use self::stream::Stream;
use self::unary::Unary;
use self::update::Update;
use super::fact::Fact;
use super::scene::{CLIENT, EXPIRY, Kind, PUBLISHER, Scene, TIMEOUT, name};
use crate::check::{Checked, Invariant};

/// What is due, in words.
const CALL: &str = "the call";

/// All that it has to know of what has happened.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Judge {
    due: Due,
    kind: Judged,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Judged {
    Unary(Unary),
    Multi(Multi),
    Stream(Stream),
    Update(Update),
}

/// When something must be over by, and whether it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    /// It has not begun.
    #[default]
    Not,
    By(Time),
    Over,
}

impl Due {
    fn begin(&mut self, now: Time) {
        if *self == Due::Not {
            *self = Due::By(now + TIMEOUT);
        }
    }

    /// Checks that it ends once, and in time.
    fn end(&mut self, what: &str, now: Time) -> Checked {
        match std::mem::replace(self, Due::Over) {
            Due::By(deadline) if now <= deadline => Ok(()),
            Due::By(deadline) => {
                Invariant::I1.violated(format!("{what} ends {:?} past its deadline", now.since(deadline)))
            }
            Due::Not => Invariant::I1.violated(format!("{what} ends that has not begun")),
            Due::Over => Invariant::I1.violated(format!("{what} ends twice")),
        }
    }

    fn time_is(&self, what: &str, now: Time) -> Checked {
        match self {
            Due::By(deadline) if *deadline < now => {
                Invariant::I1.violated(format!("{what} goes on past its deadline"))
            }
            _ => Ok(()),
        }
    }

    fn must_be_over(&self, what: &str) -> Checked {
        if let Due::By(_) = self { Invariant::I1.violated(format!("{what} never ends")) } else { Ok(()) }
    }
}

impl Judge {
    pub(super) fn new(scene: &Scene) -> Self {
        let kind = match scene.kind {
            Kind::Queue | Kind::Election | Kind::Affinity | Kind::SingleServer => {
                Judged::Unary(Unary::new(scene))
            }
            Kind::Multi => Judged::Multi(Multi::default()),
            Kind::Stream | Kind::Upload | Kind::Download => Judged::Stream(Stream::new(scene.kind)),
            Kind::Update => Judged::Update(Update::default()),
        };
        Self { due: Due::Not, kind }
    }

    /// Takes note of what a node does.
    pub(super) fn note(&mut self, node: usize, now: Time, fact: &Fact) -> Checked {
        let due = &mut self.due;
        match (&mut self.kind, node.checked_sub(CLIENT + 1)) {
            (Judged::Unary(unary), None) => unary.client(due, now, fact),
            (Judged::Unary(unary), Some(server)) => unary.server(server, now, fact),
            (Judged::Multi(multi), None) => multi.client(due, now, fact),
            (Judged::Multi(multi), Some(server)) => multi.server(server, now, fact),
            (Judged::Stream(stream), None) => stream.client(due, now, fact),
            (Judged::Stream(stream), Some(server)) => stream.server(server, now, fact),
            (Judged::Update(update), None) => update.client(fact),
            (Judged::Update(update), Some(_)) => update.server(due, now, fact),
        }
    }

    /// A node has handled what came, and all its outputs were taken.
    pub(super) fn step_ended(&self) -> Checked {
        if let Judged::Update(update) = &self.kind { update.step_ended() } else { Ok(()) }
    }

    /// Time has come this far.
    pub(super) fn time_is(&self, now: Time) -> Checked {
        self.due.time_is(CALL, now)?;
        if let Judged::Stream(stream) = &self.kind { stream.time_is(now) } else { Ok(()) }
    }

    /// A server has crashed.
    pub(super) fn crashed(&mut self, node: usize) {
        match &mut self.kind {
            Judged::Stream(stream) => stream.crashed(node - 1),
            // It was to hear what became of its update.
            Judged::Update(_) if node == PUBLISHER + 1 => self.due = Due::Over,
            _ => {}
        }
    }

    /// Nothing more can happen. All was `calm` if there was no fault, and time did not pass while something was on its way.
    pub(super) fn end(&self, calm: bool) -> Checked {
        self.due.must_be_over(CALL)?;
        match &self.kind {
            Judged::Unary(unary) => unary.end(calm),
            Judged::Multi(multi) => multi.end(calm),
            Judged::Stream(stream) => stream.end(calm),
            Judged::Update(update) => update.end(calm),
        }
    }
}

/// Checks that a server may start a handler at this time.
fn check_expiry(server: usize, now: Time) -> Checked {
    if now >= EXPIRY {
        return Invariant::I3
            .violated(format!("{} starts its handler at {now:?}, past the expiry", name(server + 1)));
    }
    Ok(())
}

/// Checks that an answer is what the server said that it is of, if it ran.
fn check_answer(server: Option<usize>, ran: &[bool], came: Result<&Bytes, &ErrorResponse>) -> Checked {
    let Some(server) = server.filter(|server| ran[*server]) else {
        return Invariant::I5.violated(format!("{came:?} is the answer of {server:?}, which did not run"));
    };
    match (Scene::answer(server), came) {
        (Ok(given), Ok(came)) if given.as_bytes() == came => Ok(()),
        (Err(given), Err(came)) if given == *came => Ok(()),
        (given @ Ok(_), Err(_)) | (given @ Err(_), Ok(_)) => {
            Invariant::I6.violated(format!("{given:?} was answered, {came:?} came out"))
        }
        (given, came) => Invariant::I5.violated(format!("{given:?} was answered, {came:?} came out")),
    }
}
