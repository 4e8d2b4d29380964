//! Updates to publish. Each is kept until its publish succeeds, fails or is canceled.

use alloc::boxed::Box;
use core::time::Duration;

use psrpc_proto::{Any, Frame};

use super::context::Context;
use super::side::{Outputs, Owner};
use crate::core::budget::{Budget, Step};
use crate::core::bus_error::BusError;
use crate::core::handle::{Handles, UpdateHandle};
use crate::core::outputs::Publish;
use crate::core::timers::{TimerId, TimerKind};
use crate::error::{Evidence, Failure, UpdateError};
use crate::event::ServerEvent;
use crate::reason::Reason;
use crate::wire::outgoing;
use crate::wire::route::Route;

/// The updates that wait for the bus, each with its deadline timer.
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
        let deadline = cx.now.time + timeout.unwrap_or(cx.config.timeout);
        self.0.insert(cx.outputs.timers.arm(deadline, TimerKind::Deadline, Owner::Update(update)));
        cx.outputs.publish(Publish::Update(update), route.requests(), frame);
        Ok(update)
    }

    pub(super) fn on_published(
        &mut self,
        outputs: &mut Outputs,
        update: UpdateHandle,
        result: Result<Option<u64>, BusError>,
    ) {
        let Some(timer) = self.0.remove(update) else { return };
        outputs.timers.disarm(timer);
        let outcome = result.map_err(|error| Failure::bus(Reason::PublishFailed, error, Evidence::default()));
        end(outputs, update, outcome);
    }

    pub(super) fn on_timeout(&mut self, outputs: &mut Outputs, update: UpdateHandle) {
        if self.0.remove(update).is_some() {
            end(outputs, update, Err(Failure::timed_out(Evidence::default())));
        }
    }

    /// Forgets an update without an event. It may still be published.
    pub(super) fn cancel(&mut self, outputs: &mut Outputs, update: UpdateHandle) {
        if let Some(timer) = self.0.remove(update) {
            outputs.timers.disarm(timer);
        }
    }

    /// Returns the next update from `cursor` on, and advances `cursor`.
    pub(super) fn walk(&self, cursor: &mut usize, budget: &mut Budget) -> Step<UpdateHandle> {
        self.0.walk(cursor, budget).map(UpdateHandle::from)
    }

    /// Fails an update of a server that closes.
    pub(super) fn fail(&mut self, outputs: &mut Outputs, update: UpdateHandle, failure: Box<Failure>) {
        if let Some(timer) = self.0.remove(update) {
            outputs.timers.disarm(timer);
            end(outputs, update, Err(failure));
        }
    }
}

fn end(outputs: &mut Outputs, update: UpdateHandle, outcome: Result<Option<u64>, Box<Failure>>) {
    if let Err(failure) = &outcome {
        outputs.count(failure.reason);
    }
    outputs.event(ServerEvent::Updated { update, outcome });
}
