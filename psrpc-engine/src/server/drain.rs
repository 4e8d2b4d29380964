//! The end of a server: the phases to it, and what is ended on the way, a bounded amount at a time.

use alloc::collections::VecDeque;

use super::context::Context;
use super::request::Requests;
use super::side::Owner;
use super::stream;
use super::updates::Updates;
use crate::core::budget::{Budget, Step};
use crate::core::handle::RegistrationHandle;
use crate::core::outputs::Publish;
use crate::core::timers::{TimerId, TimerKind};
use crate::error::Failure;
use crate::event::ServerEvent;
use crate::reason::Reason;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    /// It takes no new registrations, and is closed when nothing is in flight, those that it has
    /// are gone and clients are told of the ends of their streams. Once the timer has fired it
    /// takes no requests either, and does not wait for the bus to confirm that there are none
    /// or to have room for the ends; once that for lingering has, it does not wait for the handlers
    /// of streams.
    Draining {
        timer: Option<TimerId>,
        linger: Option<TimerId>,
    },
    /// It hears nothing any more, and ends what it has without waiting for anybody.
    Closing(Cause),
    Closed(Cause),
}

/// Why a server closes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// It was drained or killed.
    Asked,
    RuntimeEnded,
}

/// Things to be ended, and how far that is: a place in their table, or how many are left.
pub(super) enum Ending {
    Registrations {
        place: usize,
    },
    Streams {
        place: usize,
    },
    StreamsOf {
        registration: RegistrationHandle,
        left: usize,
    },
    /// The handlers of streams, which are not waited for any more.
    Handlers {
        place: usize,
    },
    Requests {
        place: usize,
    },
    Subscriptions {
        place: usize,
    },
    Updates {
        place: usize,
    },
    /// The server itself.
    Server,
}

/// What is still to be ended, in order.
pub(super) struct Endings {
    queue: VecDeque<Ending>,
    /// Armed while there is more to end at once.
    more: Option<TimerId>,
}

impl Endings {
    pub(super) const fn new() -> Self {
        Self { queue: VecDeque::new(), more: None }
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn push(&mut self, ending: Ending) {
        self.queue.push_back(ending);
    }

    pub(super) fn extend(&mut self, endings: impl IntoIterator<Item = Ending>) {
        self.queue.extend(endings);
    }

    pub(super) fn clear(&mut self) {
        self.queue.clear();
    }

    /// The timer that goes on with them has fired.
    pub(super) fn timer_fired(&mut self) {
        self.more = None;
    }

    /// Ends what is to be ended, as far as the budget reaches.
    pub(super) fn go_on(
        &mut self,
        cx: &mut Context<'_>,
        requests: &mut Requests,
        updates: &mut Updates,
        phase: &mut Phase,
        budget: &mut Budget,
    ) {
        let cause = if let Phase::Closing(cause) = phase { Some(*cause) } else { None };
        let abandoned = cause == Some(Cause::RuntimeEnded);
        while let Some(ending) = self.queue.front_mut() {
            let step = match ending {
                Ending::Registrations { place } => {
                    cx.registry.walk(place, budget).map(|known| cx.registry.deregister(cx.outputs, known))
                }
                Ending::Streams { place } => cx.streams.walk(place, budget).map(|known| match abandoned {
                    true => stream::end_with_runtime(cx, known),
                    false => stream::end(cx, known),
                }),
                Ending::StreamsOf { registration, left } => {
                    cx.registry.walk_streams(*registration, left, budget).map(|known| {
                        budget.spend(cx.streams.sends_of(known));
                        stream::end(cx, known);
                    })
                }
                Ending::Handlers { place } => {
                    cx.streams.walk(place, budget).map(|known| stream::stop_handler(cx, known))
                }
                Ending::Requests { place } => requests.walk(place, budget).map(|known| {
                    let reason = if abandoned { Reason::RuntimeEnded } else { Reason::Killed };
                    requests.drop_request(cx.outputs, known, reason);
                }),
                Ending::Subscriptions { place } => cx.registry.unsubscribe_next(cx.outputs, place, budget),
                Ending::Updates { place } => updates.walk(place, budget).map(|known| {
                    let failure = if abandoned { Failure::runtime_of_server } else { Failure::server_closed };
                    updates.fail(cx.outputs, known, failure());
                }),
                Ending::Server => {
                    cx.registry.forget();
                    requests.forget(cx.outputs);
                    cx.streams.forget_received(cx.outputs);
                    // Nothing else tells the clients that their streams have ended.
                    cx.outputs.withdraw(|publish| publish == Publish::Close);
                    cx.outputs.event(ServerEvent::Closed);
                    *phase = Phase::Closed(cause.unwrap_or(Cause::Asked));
                    Step::Done
                }
            };
            match step {
                Step::Next(()) => {}
                Step::Done => drop(self.queue.pop_front()),
                Step::Spent => {
                    // More is due at once.
                    self.more.get_or_insert_with(|| {
                        cx.outputs.timers.arm(cx.now.time, TimerKind::Close, Owner::Ending)
                    });
                    return;
                }
            }
        }
        if let Some(more) = self.more.take() {
            cx.outputs.timers.disarm(more);
        }
    }
}
