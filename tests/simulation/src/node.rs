//! A node: an engine with its clocks, its timer and its user, driven as the engine's contract says.

use psrpc_engine::proto::Frame;
use psrpc_engine::{BusError, Engine, Now, Output, SubscriptionHandle, Time, Token};

use crate::check::{Checked, Fact};
use crate::clock::Clock;
use crate::fault::Fault;
use crate::happening::{Happening, NodeId};
use crate::net::Delivery;
use crate::show::Shown;
use crate::stage::Entry;
use crate::world::World;

/// An engine and all that one of its drivers would keep.
pub(crate) struct Node<E, U> {
    id: NodeId,
    pub(crate) engine: E,
    pub(crate) user: U,
    clock: Clock,
    alarm: Option<Entry>,
}

/// The layer above an engine.
pub(crate) trait User<E: Engine> {
    /// The engine has something to tell.
    fn on_event(&mut self, engine: &mut E, now: Now, world: &mut World, event: E::Event) -> Checked;

    /// A frame is about to come in, and this is what was published.
    fn on_frame(&mut self, world: &mut World, frame: &Frame) -> Checked;

    /// A frame has come in, and nobody has looked at the outputs yet.
    fn interject(&mut self, _: &mut E, _: Now, _: &mut World, _: &Frame) -> Checked {
        Ok(())
    }

    /// How many calls or requests the engine has in flight, and how many requests it remembers.
    fn held(engine: &E) -> (usize, usize);

    /// Whether nothing is in flight any more and never will be.
    fn is_closed(&self) -> bool;
}

/// What comes to an engine from its bus and its clock.
pub(crate) enum Input {
    Subscribed(SubscriptionHandle),
    Unsubscribed(SubscriptionHandle),
    Published(Token, Result<Option<u64>, BusError>),
    Frame(SubscriptionHandle, Delivery),
    Room,
    Tick,
}

impl<E: Engine, U: User<E>> Node<E, U>
where
    E::Event: std::fmt::Debug,
{
    pub(crate) fn new(world: &mut World, id: NodeId, engine: E, user: U, clock: Clock) -> Self {
        if clock.is_skewed() {
            world.stage.faults.count(Fault::Skew);
        }
        Self { id, engine, user, clock, alarm: None }
    }

    pub(crate) fn input(&mut self, world: &mut World, input: Input) -> Checked {
        match input {
            Input::Subscribed(subscription) => self.step(world, |node, now, world| {
                world.stage.log(node.id, format_args!("{subscription:?} is live"));
                node.engine.handle_subscribed(now, subscription, Ok(()));
                Ok(())
            }),
            Input::Unsubscribed(subscription) => self.step(world, |node, now, world| {
                world.stage.log(node.id, format_args!("{subscription:?} has ended"));
                node.engine.handle_unsubscribed(now, subscription);
                Ok(())
            }),
            Input::Published(token, result) => self.step(world, |node, now, world| {
                world.stage.log(node.id, format_args!("{token:?} is published: {result:?}"));
                node.engine.handle_published(now, token, result);
                Ok(())
            }),
            Input::Frame(subscription, delivery) => self.step(world, |node, now, world| {
                world.stage.log(node.id, format_args!("gets {}", Shown(&delivery.frame)));
                node.user.on_frame(world, &delivery.frame)?;
                node.engine.handle_frame(now, subscription, delivery.arrival());
                node.user.interject(&mut node.engine, now, world, &delivery.frame)
            }),
            Input::Room => self.step(world, |node, _, world| {
                world.stage.log(node.id, "may publish again");
                node.engine.handle_room();
                Ok(())
            }),
            Input::Tick => self.tick(world),
        }
    }

    fn tick(&mut self, world: &mut World) -> Checked {
        self.alarm = None;
        self.step(world, |node, now, world| {
            world.stage.log(node.id, format_args!("wakes up for {:?}", node.engine.poll_timeout()));
            node.engine.handle_timeout(now);
            Ok(())
        })?;
        let ticked = Fact::Ticked { at: self.clock.at(world.stage.now()).time, next: self.next_timeout() };
        world.note(ticked).map_err(|violation| violation.at(self.id))
    }

    /// Lets one thing happen, takes all outputs, and has the outcome judged.
    pub(crate) fn step(
        &mut self,
        world: &mut World,
        act: impl FnOnce(&mut Self, Now, &mut World) -> Checked,
    ) -> Checked {
        let now = self.clock.at(world.stage.now());
        act(self, now, world)?;
        while let Some(output) = self.engine.poll_output() {
            self.carry_out(now, world, output)?;
        }
        self.set_alarm(world);
        world.note(Fact::StepEnded)?;
        if self.user.is_closed() { self.check_empty(world) } else { Ok(()) }
    }

    /// Checks that nothing is left in its engine.
    pub(crate) fn check_empty(&self, world: &mut World) -> Checked {
        let (in_flight, remembered) = U::held(&self.engine);
        let left = Fact::Left { in_flight, remembered, timer: self.next_timeout() };
        world.note(left).map_err(|violation| violation.at(self.id))
    }

    fn next_timeout(&self) -> Option<Time> {
        self.engine.poll_timeout().map(|timeout| timeout.at)
    }

    fn carry_out(&mut self, now: Now, world: &mut World, output: Output<E::Event>) -> Checked {
        let World { stage, net, .. } = world;
        match output {
            Output::Subscribe { subscription, channel, kind } => {
                stage.log(self.id, format_args!("subscribes to {channel} ({kind:?}) as {subscription:?}"));
                net.subscribe(stage, self.id, subscription, &channel, kind);
            }
            Output::Unsubscribe { subscription } => {
                stage.log(self.id, format_args!("unsubscribes {subscription:?}"));
                net.unsubscribe(stage, self.id, subscription);
            }
            Output::Publish { token, channel, frame } => {
                if !net.has_room(stage, self.id) {
                    self.engine.handle_full(token, channel, frame);
                    return Ok(());
                }
                stage.log(self.id, format_args!("publishes {} on {channel}", Shown(&frame)));
                world.model.note(Fact::Published(&frame))?;
                net.publish(stage, self.id, token, &channel, &frame);
            }
            Output::Event(event) => {
                stage.log(self.id, format_args!("says {event:?}"));
                self.user.on_event(&mut self.engine, now, world, event)?;
            }
        }
        Ok(())
    }

    /// Has the node woken when its engine wants to be.
    fn set_alarm(&mut self, world: &mut World) {
        let stage = &mut world.stage;
        let wanted = self.next_timeout().map(|at| self.clock.virtual_time(at));
        if self.alarm.map(Entry::at) != wanted {
            if let Some(alarm) = self.alarm.take() {
                stage.strike(alarm);
            }
            self.alarm = wanted.map(|at| stage.at(at, Happening::Tick(self.id)));
        }
    }
}
