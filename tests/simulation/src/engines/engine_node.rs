//! An engine node: an engine with its clocks, its timer and its user, driven as the engine's
//! contract says.

use std::fmt::Debug;
use std::time::Duration;

use psrpc_engine::proto::Frame;
use psrpc_engine::{BusError, Engine, Now, Output, SubscriptionHandle, Time, Token, WallTime};

use super::engine_happening::EngineHappening;
use super::engine_world::EngineWorld;
use crate::clock::Clock;
use crate::fault::Fault;
use crate::frame_text::{BriefFrameText, FrameText};
use crate::judge::fact::{Fact, Held};
use crate::judge::violation::{Checked, Invariant, Violation};
use crate::net::FrameInTransit;
use crate::node_id::NodeId;
use crate::scene::Entry;
use crate::trace::Kind;

/// An engine and all that one of its drivers would keep.
pub(crate) struct EngineNode<E, U> {
    pub(crate) id: NodeId,
    pub(crate) engine: E,
    pub(crate) user: U,
    pub(crate) clock: Clock,
    /// Until when nothing happens here.
    pub(crate) paused: Option<Time>,
    pub(crate) crashed: bool,
    /// When the engine is to be woken, by its own clock, and the entry for that.
    alarm: Option<(Time, Entry)>,
    /// The latest that the wall clock ever showed.
    latest: WallTime,
    /// Whether the bus has no room for what the engine publishes.
    is_full: bool,
    /// What the monotonic clock showed when the node last was held up: by a full bus, or by a
    /// pause.
    stuck: Option<Time>,
    /// What the engine has put out in this step.
    said: Said,
}

/// What an engine has put out in one step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Said {
    events: u32,
    others: u32,
}

/// A moment, as a node sees it.
#[derive(Clone, Copy)]
pub(crate) struct Moment {
    /// What its clocks show.
    pub(crate) now: Now,
    /// Whether the bus has no room for what it publishes.
    pub(crate) is_full: bool,
    /// The latest that its wall clock ever showed.
    pub(crate) latest: WallTime,
    clock: Clock,
}

impl Moment {
    /// The virtual time at which its monotonic clock shows `own`.
    pub(crate) fn virtual_time(&self, own: Time) -> Time {
        self.clock.virtual_time(own)
    }

    /// The virtual time by which something must be over that may take so long.
    pub(crate) fn due(&self, timeout: Duration) -> Time {
        self.virtual_time(self.now.time + timeout)
    }
}

/// The layer above an engine.
pub(crate) trait EngineUser<E: Engine> {
    /// What it does by itself.
    type Act;

    /// Has its choices from here on depend on the moment.
    fn turn_to(&mut self, moment: Time);

    /// It does something by itself.
    fn act(&mut self, engine: &mut E, moment: Moment, world: &mut EngineWorld, act: Self::Act) -> Checked;

    /// The engine has something to tell.
    fn on_event(
        &mut self,
        engine: &mut E,
        moment: Moment,
        world: &mut EngineWorld,
        event: E::Event,
    ) -> Checked;

    /// Whether an event is about subscriptions alone.
    fn is_aside(event: &E::Event) -> bool;

    /// A frame is about to come in, and this is what was published.
    fn on_frame(&mut self, moment: Moment, world: &mut EngineWorld, frame: &Frame) -> Checked;

    /// A frame has come in, and nobody has looked at the outputs yet.
    fn interject(&mut self, _: &mut E, _: Moment, _: &mut EngineWorld, _: &Frame) -> Checked {
        Ok(())
    }

    /// Whether the engine owes an event for a frame, whatever becomes of it (I12).
    fn must_hear_of(&self, world: &EngineWorld, frame: &Frame) -> bool;

    /// The node will do nothing until its monotonic clock shows this.
    fn on_pause(&mut self, until: Time);

    /// What the engine holds.
    fn held(&self, engine: &E) -> [Held; 5];

    /// Whether it is open, and nobody is about to close it.
    fn is_open(&self) -> bool;

    /// Whether nothing is in flight any more and never will be.
    fn is_closed(&self) -> bool;
}

/// What comes to an engine from its bus and its clock.
pub(crate) enum Input {
    Subscribed(SubscriptionHandle),
    Ended(SubscriptionHandle, Option<BusError>),
    Gap(SubscriptionHandle),
    /// What became of a frame, which is there if the bus did not take it.
    Published(Token, Result<Option<u64>, BusError>, Option<Box<Frame>>),
    Frame(SubscriptionHandle, Box<FrameInTransit>),
    Room,
    Tick,
}

impl<E: Engine, U: EngineUser<E>> EngineNode<E, U>
where
    E::Event: Debug,
{
    pub(crate) fn new(world: &mut EngineWorld, id: NodeId, engine: E, user: U, clock: Clock) -> Self {
        if clock.is_skewed() {
            world.scene.faults.count(Fault::Skew);
        }
        if clock.drift != 0 {
            world.scene.faults.count(Fault::Drift);
        }
        let (paused, crashed, alarm, said) = (None, false, None, Said::default());
        let (is_full, stuck, latest) = (false, None, WallTime::default());
        Self { id, engine, user, clock, paused, crashed, alarm, latest, is_full, stuck, said }
    }

    pub(crate) fn input(&mut self, world: &mut EngineWorld, input: Input) -> Checked {
        match input {
            Input::Frame(subscription, delivery) => self.frame(world, subscription, &delivery),
            Input::Tick => self.tick(world),
            Input::Published(token, result, frame) => self.step(world, |node, moment, world| {
                let kind = || if result.is_ok() { Kind::Aside } else { Kind::Note };
                world.scene.log_as(kind, node.id, format_args!("{token:?} is published: {result:?}"));
                if let Some(frame) = &frame {
                    world.note(Fact::NotTaken { by: node.id, frame })?;
                }
                node.engine.handle_published(moment.now, token, result);
                Ok(())
            }),
            Input::Gap(subscription) => self.gap(world, subscription),
            other => self.step(world, |node, moment, world| {
                node.tell(moment.now, world, other);
                Ok(())
            }),
        }
    }

    fn gap(&mut self, world: &mut EngineWorld, subscription: SubscriptionHandle) -> Checked {
        self.step(world, |node, moment, world| {
            world.scene.log(node.id, format_args!("may have missed something on {subscription:?}"));
            node.engine.handle_gap(moment.now, subscription, None);
            Ok(())
        })?;
        if self.said.events == 0 && self.user.is_open() {
            return Invariant::I12.violated(format!("{}: not a word on a gap", self.id));
        }
        Ok(())
    }

    /// Nothing happens here until then.
    pub(crate) fn pause(&mut self, until: Time) {
        self.paused = self.paused.max(Some(until));
        let until = self.clock.at(until).time;
        self.stuck = self.stuck.max(Some(until));
        self.user.on_pause(until);
    }

    /// Has its user do something.
    pub(crate) fn act(&mut self, world: &mut EngineWorld, act: U::Act) -> Checked {
        self.step(world, |node, moment, world| node.user.act(&mut node.engine, moment, world, act))
    }

    fn tell(&mut self, now: Now, world: &mut EngineWorld, input: Input) {
        let Self { id, engine, is_full, stuck, .. } = self;
        let scene = &mut world.scene;
        match input {
            Input::Subscribed(subscription) => {
                scene.aside(*id, format_args!("{subscription:?} is live"));
                engine.handle_subscribed(now, subscription, Ok(()));
            }
            Input::Ended(subscription, Some(error)) => {
                scene.log(*id, format_args!("{subscription:?} is lost: {error}"));
                engine.handle_subscribed(now, subscription, Err(error));
            }
            Input::Ended(subscription, None) => {
                scene.aside(*id, format_args!("{subscription:?} has ended"));
                engine.handle_unsubscribed(now, subscription);
            }
            Input::Room => {
                scene.log(*id, "may publish again");
                *is_full = false;
                *stuck = (*stuck).max(Some(now.time));
                engine.handle_room();
            }
            Input::Frame(..) | Input::Published(..) | Input::Gap(_) | Input::Tick => {}
        }
    }

    fn frame(
        &mut self,
        world: &mut EngineWorld,
        subscription: SubscriptionHandle,
        delivery: &FrameInTransit,
    ) -> Checked {
        let frame = &delivery.frame;
        let owed = !self.user.is_closed() && self.user.must_hear_of(world, frame);
        self.step(world, |node, moment, world| {
            let kind = || Kind::Arrival(delivery.number, delivery.fault, BriefFrameText(frame).to_string());
            world.scene.log_as(kind, node.id, format_args!("gets {}", FrameText(frame)));
            node.user.on_frame(moment, world, frame)?;
            node.engine.handle_frame(moment.now, subscription, delivery.arrival());
            node.user.interject(&mut node.engine, moment, world, frame)
        })?;
        match (frame, self.said) {
            (Frame::Raw(_), Said { others: 1.., .. } | Said { events: 2.., .. }) => {
                Invariant::I11.violated(format!("{}: {:?} on {}", self.id, self.said, FrameText(frame)))
            }
            (_, Said { events: 0, .. }) if owed => {
                Invariant::I12.violated(format!("{}: not a word on {}", self.id, FrameText(frame)))
            }
            _ => Ok(()),
        }
    }

    fn tick(&mut self, world: &mut EngineWorld) -> Checked {
        self.alarm = None;
        self.step(world, |node, moment, world| {
            let timer = node.engine.poll_timeout().map(|timeout| timeout.kind);
            world.scene.log(node.id, format_args!("wakes up: {timer:?}"));
            // All outputs are taken after the last round.
            while node.engine.handle_timeout(moment.now).is_more() {}
            Ok(())
        })?;
        let ticked = Fact::Ticked { at: self.clock.at(world.scene.now()).time, next: self.next_timeout() };
        world.note(ticked).map_err(|violation| violation.at(self.id))
    }

    /// Lets one thing happen, takes all outputs, and has the outcome judged.
    pub(crate) fn step(
        &mut self,
        world: &mut EngineWorld,
        act: impl FnOnce(&mut Self, Moment, &mut EngineWorld) -> Checked,
    ) -> Checked {
        let (clock, is_full) = (self.clock, self.is_full);
        let now = clock.at(world.scene.now());
        self.latest = self.latest.max(now.wall);
        let moment = Moment { now, is_full, latest: self.latest, clock };
        self.said = Said::default();
        self.user.turn_to(world.scene.now());
        act(self, moment, world)?;
        loop {
            while let Some(output) = self.engine.poll_output() {
                self.carry_out(moment, world, output)?;
            }
            if !self.publish(moment, world)? {
                break;
            }
        }
        self.set_alarm(world);
        world.note(Fact::StepEnded)?;
        world.note(Fact::Holds(&self.user.held(&self.engine))).map_err(|violation| violation.at(self.id))?;
        if self.user.is_closed() { self.check_empty(world) } else { Ok(()) }
    }

    /// Checks that nothing is left in its engine.
    pub(crate) fn check_empty(&self, world: &mut EngineWorld) -> Checked {
        let mut held = self.user.held(&self.engine);
        for held in &mut held {
            // Who listens may do so for ever.
            if held.what == LISTENING && !self.user.is_closed() {
                held.count = 0;
            }
        }
        let left = Fact::Left { held: &held, timer: self.next_timeout() };
        world.note(left).map_err(|violation| violation.at(self.id))
    }

    fn next_timeout(&self) -> Option<Time> {
        self.engine.poll_timeout().map(|timeout| timeout.at)
    }

    fn carry_out(&mut self, moment: Moment, world: &mut EngineWorld, output: Output<E::Event>) -> Checked {
        let EngineWorld { scene, net, .. } = world;
        if let Output::Event(event) = output {
            self.said.events += 1;
            let kind = || if U::is_aside(&event) { Kind::Aside } else { Kind::Note };
            scene.log_as(kind, self.id, format_args!("says {event:?}"));
            return self.user.on_event(&mut self.engine, moment, world, event);
        }
        self.said.others += 1;
        match output {
            Output::Subscribe { subscription, channel, kind } => {
                scene.aside(self.id, format_args!("subscribes to {channel} ({kind:?}) as {subscription:?}"));
                scene.hash().word(1);
                net.subscribe(scene, self.id.peer(), (self.id, subscription), &channel, kind);
            }
            Output::Unsubscribe { subscription } => {
                scene.aside(self.id, format_args!("unsubscribes {subscription:?}"));
                scene.hash().word(2);
                if let Some(place) = net.place_of((self.id, subscription)) {
                    net.unsubscribe(scene, place);
                }
            }
            Output::Event(_) => {}
        }
        Ok(())
    }

    /// Hands the next frame to the bus, if the bus has room. Returns `false` if the engine lends
    /// none.
    fn publish(&mut self, moment: Moment, world: &mut EngineWorld) -> Result<bool, Violation> {
        let EngineWorld { scene, net, .. } = world;
        let Some(outgoing) = self.engine.poll_publish() else { return Ok(false) };
        self.said.others += 1;
        if let Some(delay) = net.full_for(scene) {
            scene.log(self.id, "finds the bus full");
            self.is_full = true;
            self.stuck = self.stuck.max(Some(moment.now.time));
            scene.after(delay, EngineHappening::Room(self.id));
            self.engine.handle_full();
            return Ok(true);
        }
        let token = outgoing.token();
        let (channel, frame) = outgoing.take();
        let kind = || Kind::Publish(net.published(), BriefFrameText(&frame).to_string());
        scene.log_as(kind, self.id, format_args!("publishes {} on {channel}", FrameText(&frame)));
        scene.hash().frame(&frame);
        let (by, now, stuck) = (self.id, moment.now.time, self.stuck);
        world.model.note(Fact::Published { by, frame: &frame, now, stuck })?;
        let published = net.publish(scene, self.id.peer(), channel.legacy(), &frame);
        let frame = published.result.is_err().then(|| Box::new(frame));
        scene.after(published.after, EngineHappening::Published(self.id, token, published.result, frame));
        Ok(true)
    }

    /// Has the node woken when its engine wants to be.
    fn set_alarm(&mut self, world: &mut EngineWorld) {
        let (scene, wanted) = (&mut world.scene, self.next_timeout());
        if self.alarm.map(|(at, _)| at) != wanted {
            if let Some((_, alarm)) = self.alarm.take() {
                scene.strike(alarm);
            }
            let enter = |at| (at, scene.timer(self.clock.virtual_time(at), EngineHappening::Tick(self.id)));
            self.alarm = wanted.map(enter);
        }
    }
}

/// What subscriptions to updates are called among what an engine holds.
pub(crate) const LISTENING: &str = "subscriptions to updates";
