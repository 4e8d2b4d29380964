//! Updates that are published to subscribers, each until the bus has it or its time is over.

use alloc::boxed::Box;
use core::time::Duration;

use psrpc_proto::{Any, Frame};

use super::{Context, Io, Owner};
use crate::budget::{Budget, Step};
use crate::error::{BusError, Evidence, Failure, UpdateError};
use crate::event::ServerEvent;
use crate::handle::Handles;
use crate::outgoing;
use crate::output::Publish;
use crate::timers::{TimerId, TimerKind};
use crate::{Reason, Route, UpdateHandle};

/// The updates on their way to the bus, each with the timer that ends it.
pub(super) struct Updates(Handles<TimerId>);

impl Updates {
    pub(super) const fn new() -> Self {
        Self(Handles::new())
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn contains(&self, update: UpdateHandle) -> bool {
        self.0.get(update).is_some()
    }

    pub(super) fn publish(
        &mut self,
        cx: &mut Context<'_>,
        route: &Route,
        message: Any,
        timeout: Option<Duration>,
    ) -> Result<UpdateHandle, UpdateError> {
        let limit = cx.config.limits.updates;
        if self.len() >= limit {
            return Err(UpdateError::TooMany { limit });
        }
        let frame = Frame::Other(message);
        outgoing::check(&frame, route.requests(), &cx.config.limits.frame)?;
        let update = self.0.next().into();
        let timeout = timeout.filter(|_| !planted!(UpdateTimeoutIgnored));
        let deadline = cx.now.time + timeout.unwrap_or(cx.config.timeout);
        self.0.insert(cx.io.timers.arm(deadline, TimerKind::Deadline, Owner::Update(update)));
        cx.io.publish(Publish::Update(update), route.requests(), frame);
        Ok(update)
    }

    pub(super) fn on_published(
        &mut self,
        io: &mut Io,
        update: UpdateHandle,
        result: Result<Option<u64>, BusError>,
    ) {
        let Some(timer) = self.0.remove(update) else { return };
        io.timers.disarm(timer);
        let result = if planted!(UpdateFailureIgnored) { result.or(Ok(None)) } else { result };
        let outcome = result.map_err(|error| Failure::bus(Reason::PublishFailed, error, Evidence::default()));
        end(io, update, outcome);
    }

    pub(super) fn on_timeout(&mut self, io: &mut Io, update: UpdateHandle) {
        if self.0.remove(update).is_some() {
            end(io, update, Err(Failure::timed_out(Evidence::default())));
        }
    }

    /// Nobody waits for an update any more. Whether it leaves is open.
    pub(super) fn cancel(&mut self, io: &mut Io, update: UpdateHandle) {
        if let Some(timer) = self.0.remove(update) {
            io.timers.disarm(timer);
        }
    }

    /// Walks on from `place` to the next update.
    pub(super) fn walk(&self, place: &mut usize, budget: &mut Budget) -> Step<UpdateHandle> {
        self.0.walk(place, budget).map(UpdateHandle::from)
    }

    /// Fails an update of a server that ends.
    pub(super) fn fail(&mut self, io: &mut Io, update: UpdateHandle, failure: Box<Failure>) {
        if let Some(timer) = self.0.remove(update) {
            io.timers.disarm(timer);
            end(io, update, Err(failure));
        }
    }
}

fn end(io: &mut Io, update: UpdateHandle, outcome: Result<Option<u64>, Box<Failure>>) {
    if let Err(failure) = &outcome {
        io.count(failure.reason);
    }
    io.event(ServerEvent::Updated { update, outcome });
}
