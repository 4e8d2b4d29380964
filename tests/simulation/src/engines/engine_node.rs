//! An engine node: an engine with its clocks, timer and user, driven according to the contract of
//! the engine.

use std::fmt::Debug;
use std::time::Duration;

use psrpc_engine::proto::Frame;
use psrpc_engine::{BusError, Engine, Now, Output, SubscriptionHandle, Time, Token, WallTime};

use super::engine_run_event::EngineRunEvent;
use super::engine_world::EngineWorld;
use crate::clock::Clock;
use crate::fault::Fault;
use crate::frame_text::{BriefFrameText, FrameText};
use crate::judge::fact::{Fact, TableSize};
use crate::judge::violation::{Checked, Invariant, Violation};
use crate::net::FrameInTransit;
use crate::node_id::NodeId;
use crate::scene::ScheduledEvent;
use crate::trace::LineKind;

/// An engine, with the state that its driver would keep.
pub(crate) struct EngineNode<E, U> {
    pub(crate) id: NodeId,
    pub(crate) engine: E,
    pub(crate) user: U,
    pub(crate) clock: Clock,
    /// The time until which the node is paused.
    pub(crate) paused: Option<Time>,
    pub(crate) crashed: bool,
    /// The next timeout of the engine, by its own clock, and the scheduled event for it.
    timer: Option<(Time, ScheduledEvent)>,
    /// The latest reading of the wall clock so far.
    latest_wall: WallTime,
    /// Whether the bus has no room for frames of the engine.
    is_full: bool,
    /// The reading of the monotonic clock when a full bus or a pause last blocked the node.
    last_blocked: Option<Time>,
    /// The outputs of the engine in this step.
    outputs: OutputCounts,
}

/// The number of outputs of an engine in one step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct OutputCounts {
    events: u32,
    others: u32,
}

/// A moment, by the clocks of a node.
#[derive(Clone, Copy)]
pub(crate) struct Moment {
    /// The readings of its clocks.
    pub(crate) now: Now,
    /// Whether the bus has no room for frames of the node.
    pub(crate) is_full: bool,
    /// The latest reading of the wall clock so far.
    pub(crate) latest_wall: WallTime,
    /// The reading of the monotonic clock when a full bus or a pause last blocked the node.
    last_blocked: Option<Time>,
    clock: Clock,
}

impl Moment {
    /// Returns the virtual time at which the monotonic clock shows `reading`.
    pub(crate) fn virtual_time(&self, reading: Time) -> Time {
        self.clock.virtual_time(reading)
    }

    /// Returns `true` if a full bus or a pause blocked the node within the last `duration`.
    pub(crate) fn was_full_within(&self, duration: Duration) -> bool {
        self.last_blocked.is_some_and(|last| self.now.time.since(last) <= duration)
    }

    /// Returns the virtual deadline of something that starts now and has this timeout.
    pub(crate) fn due(&self, timeout: Duration) -> Time {
        self.virtual_time(self.now.time + timeout)
    }
}

/// The user of an engine.
pub(crate) trait EngineUser<E: Engine> {
    /// An act that the user performs on its own initiative.
    type Act;

    /// Called at the start of each step. Reseeds the random choices for the moment.
    fn begin_step(&mut self, moment: Time) -> Checked;

    /// Performs an act of the user.
    fn act(&mut self, engine: &mut E, moment: Moment, world: &mut EngineWorld, act: Self::Act) -> Checked;

    /// Handles an event of the engine.
    fn on_event(
        &mut self,
        engine: &mut E,
        moment: Moment,
        world: &mut EngineWorld,
        event: E::Event,
    ) -> Checked;

    /// Returns `true` if the trace shows an event as a [`LineKind::Detail`].
    fn is_detail(event: &E::Event) -> bool;

    /// Called before the engine handles a frame. `frame` is the frame before it was encoded.
    fn on_frame(&mut self, moment: Moment, world: &mut EngineWorld, frame: &Frame) -> Checked;

    /// Called after the engine has handled a frame, before its outputs are taken.
    fn act_before_outputs(&mut self, _: &mut E, _: Moment, _: &mut EngineWorld, _: &Frame) -> Checked {
        Ok(())
    }

    /// Returns the number of messages that the engine holds back.
    fn held(engine: &E) -> usize;

    /// Returns `true` if the engine must report an event for a frame, even if it drops the frame,
    /// unless it holds the frame back (I12).
    fn expects_event(&self, world: &EngineWorld, frame: &Frame) -> bool;

    /// Called when the node pauses until its monotonic clock shows `until`.
    fn on_pause(&mut self, until: Time);

    /// Returns the sizes of the engine's tables.
    fn table_sizes(&self, engine: &E) -> [TableSize; 6];

    /// Returns `true` if the engine is open, and not about to close.
    fn is_open(&self) -> bool;

    /// Returns `true` if the engine has closed.
    fn is_closed(&self) -> bool;
}

/// An input of an engine from its bus or clock.
pub(crate) enum Input {
    Subscribed(SubscriptionHandle),
    Ended(SubscriptionHandle, Option<BusError>),
    Gap(SubscriptionHandle),
    /// The outcome of a publish, with the frame if the publish failed.
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
        let (paused, crashed, timer, outputs) = (None, false, None, OutputCounts::default());
        let (is_full, last_blocked, latest_wall) = (false, None, WallTime::default());
        Self { id, engine, user, clock, paused, crashed, timer, latest_wall, is_full, last_blocked, outputs }
    }

    pub(crate) fn input(&mut self, world: &mut EngineWorld, input: Input) -> Checked {
        match input {
            Input::Frame(subscription, delivery) => self.frame(world, subscription, &delivery),
            Input::Tick => self.tick(world),
            Input::Published(token, result, frame) => self.step(world, |node, moment, world| {
                let kind = || if result.is_ok() { LineKind::Detail } else { LineKind::Note };
                world.scene.log_as(kind, node.id, format_args!("publish of {token:?} ended: {result:?}"));
                if let Some(frame) = &frame {
                    world.note(Fact::PublishFailed { node: node.id, frame })?;
                }
                node.engine.handle_published(moment.now, token, result);
                Ok(())
            }),
            Input::Gap(subscription) => self.gap(world, subscription),
            other => self.step(world, |node, moment, world| {
                node.handle_input(moment.now, world, other);
                Ok(())
            }),
        }
    }

    fn gap(&mut self, world: &mut EngineWorld, subscription: SubscriptionHandle) -> Checked {
        self.step(world, |node, moment, world| {
            world.scene.log(node.id, format_args!("gets a gap on {subscription:?}"));
            node.engine.handle_gap(moment.now, subscription, None);
            Ok(())
        })?;
        if self.outputs.events == 0 && self.user.is_open() {
            return Invariant::I12.violated(format!("{}: no event for a gap", self.id));
        }
        Ok(())
    }

    /// Pauses the node until a time.
    pub(crate) fn pause(&mut self, until: Time) {
        self.paused = self.paused.max(Some(until));
        let until = self.clock.at(until).time;
        self.last_blocked = self.last_blocked.max(Some(until));
        self.user.on_pause(until);
    }

    /// Performs an act of the user.
    pub(crate) fn act(&mut self, world: &mut EngineWorld, act: U::Act) -> Checked {
        self.step(world, |node, moment, world| node.user.act(&mut node.engine, moment, world, act))
    }

    fn handle_input(&mut self, now: Now, world: &mut EngineWorld, input: Input) {
        let Self { id, engine, is_full, last_blocked, .. } = self;
        let scene = &mut world.scene;
        match input {
            Input::Subscribed(subscription) => {
                scene.log_detail(*id, format_args!("{subscription:?} is live"));
                engine.handle_subscribed(now, subscription, Ok(()));
            }
            Input::Ended(subscription, Some(error)) => {
                scene.log(*id, format_args!("{subscription:?} is lost: {error}"));
                engine.handle_subscribed(now, subscription, Err(error));
            }
            Input::Ended(subscription, None) => {
                scene.log_detail(*id, format_args!("{subscription:?} has ended"));
                engine.handle_unsubscribed(now, subscription);
            }
            Input::Room => {
                scene.log(*id, "has room on the bus again");
                *is_full = false;
                *last_blocked = (*last_blocked).max(Some(now.time));
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
        let expected = !self.user.is_closed() && self.user.expects_event(world, frame);
        let held = U::held(&self.engine);
        self.step(world, |node, moment, world| {
            let kind =
                || LineKind::Arrival(delivery.number, delivery.fault, BriefFrameText(frame).to_string());
            world.scene.log_as(kind, node.id, format_args!("gets {}", FrameText(frame)));
            node.user.on_frame(moment, world, frame)?;
            node.engine.handle_frame(moment.now, subscription, delivery.arrival());
            node.user.act_before_outputs(&mut node.engine, moment, world, frame)
        })?;
        match (frame, self.outputs) {
            (Frame::Raw(_), OutputCounts { others: 1.., .. } | OutputCounts { events: 2.., .. }) => {
                Invariant::I11.violated(format!(
                    "{}: unexpected outputs {:?} for {}",
                    self.id,
                    self.outputs,
                    FrameText(frame)
                ))
            }
            (_, OutputCounts { events: 0, .. }) if expected && U::held(&self.engine) <= held => {
                Invariant::I12.violated(format!("{}: no event for {}", self.id, FrameText(frame)))
            }
            _ => Ok(()),
        }
    }

    fn tick(&mut self, world: &mut EngineWorld) -> Checked {
        self.timer = None;
        self.step(world, |node, moment, world| {
            let timer = node.engine.poll_timeout().map(|timeout| timeout.kind);
            world.scene.log(node.id, format_args!("runs timer {timer:?}"));
            // `step` takes the outputs after the last round.
            while node.engine.handle_timeout(moment.now).is_more() {}
            Ok(())
        })?;
        let ticked =
            Fact::TimeoutHandled { at: self.clock.at(world.scene.now()).time, next: self.next_timeout() };
        world.note(ticked).map_err(|violation| violation.at(self.id))
    }

    /// Performs one step: handles an input, takes all outputs, and checks the invariants.
    pub(crate) fn step(
        &mut self,
        world: &mut EngineWorld,
        act: impl FnOnce(&mut Self, Moment, &mut EngineWorld) -> Checked,
    ) -> Checked {
        let (clock, is_full, last_blocked) = (self.clock, self.is_full, self.last_blocked);
        let now = clock.at(world.scene.now());
        self.latest_wall = self.latest_wall.max(now.wall);
        let moment = Moment { now, is_full, latest_wall: self.latest_wall, last_blocked, clock };
        self.outputs = OutputCounts::default();
        self.user.begin_step(world.scene.now())?;
        act(self, moment, world)?;
        loop {
            while let Some(output) = self.engine.poll_output() {
                self.handle_output(moment, world, output)?;
            }
            if !self.publish(moment, world)? {
                break;
            }
        }
        self.update_timer(world);
        world.note(Fact::StepEnded)?;
        world
            .note(Fact::TableSizes(&self.user.table_sizes(&self.engine)))
            .map_err(|violation| violation.at(self.id))?;
        if self.user.is_closed() { self.check_empty(world) } else { Ok(()) }
    }

    /// Checks that the tables of the engine are empty.
    pub(crate) fn check_empty(&self, world: &mut EngineWorld) -> Checked {
        let mut sizes = self.user.table_sizes(&self.engine);
        for size in &mut sizes {
            // A subscription may stay until the client closes.
            if size.table == UPDATE_SUBSCRIPTIONS && !self.user.is_closed() {
                size.count = 0;
            }
        }
        let leftovers = Fact::Leftovers { tables: &sizes, timer: self.next_timeout() };
        world.note(leftovers).map_err(|violation| violation.at(self.id))
    }

    fn next_timeout(&self) -> Option<Time> {
        self.engine.poll_timeout().map(|timeout| timeout.at)
    }

    fn handle_output(
        &mut self,
        moment: Moment,
        world: &mut EngineWorld,
        output: Output<E::Event>,
    ) -> Checked {
        let EngineWorld { scene, net, .. } = world;
        if let Output::Event(event) = output {
            self.outputs.events += 1;
            let kind = || if U::is_detail(&event) { LineKind::Detail } else { LineKind::Note };
            scene.log_as(kind, self.id, format_args!("reports {event:?}"));
            return self.user.on_event(&mut self.engine, moment, world, event);
        }
        self.outputs.others += 1;
        match output {
            Output::Subscribe { subscription, channel, kind } => {
                scene.log_detail(
                    self.id,
                    format_args!("subscribes to {channel} ({kind:?}) as {subscription:?}"),
                );
                scene.hash().word(1);
                net.subscribe(scene, self.id.peer(), (self.id, subscription), &channel, kind);
            }
            Output::Unsubscribe { subscription } => {
                scene.log_detail(self.id, format_args!("unsubscribes {subscription:?}"));
                scene.hash().word(2);
                if let Some(id) = net.find((self.id, subscription)) {
                    net.unsubscribe(scene, id);
                }
            }
            Output::Event(_) => {}
        }
        Ok(())
    }

    /// Publishes the next frame. Returns `false` if the engine has none.
    fn publish(&mut self, moment: Moment, world: &mut EngineWorld) -> Result<bool, Violation> {
        let EngineWorld { scene, net, .. } = world;
        let Some(outgoing) = self.engine.poll_publish() else { return Ok(false) };
        self.outputs.others += 1;
        if let Some(delay) = net.draw_full_bus(scene) {
            scene.log(self.id, "finds the bus full");
            self.is_full = true;
            self.last_blocked = self.last_blocked.max(Some(moment.now.time));
            scene.schedule_after(delay, EngineRunEvent::Room(self.id));
            self.engine.handle_full();
            return Ok(true);
        }
        let token = outgoing.token();
        let (channel, frame) = outgoing.take();
        let kind = || LineKind::Publish(net.next_frame_number(), BriefFrameText(&frame).to_string());
        scene.log_as(kind, self.id, format_args!("publishes {} on {channel}", FrameText(&frame)));
        scene.hash().frame(&frame);
        let (node, now, last_blocked) = (self.id, moment.now.time, self.last_blocked);
        world.model.note(Fact::Published { node, frame: &frame, now, last_blocked })?;
        let published = net.publish(scene, self.id.peer(), channel.legacy(), &frame);
        let frame = published.result.is_err().then(|| Box::new(frame));
        scene.schedule_after(
            published.delay,
            EngineRunEvent::Published(self.id, token, published.result, frame),
        );
        Ok(true)
    }

    /// Schedules the timer of the node for the next timeout of its engine.
    fn update_timer(&mut self, world: &mut EngineWorld) {
        let (scene, next) = (&mut world.scene, self.next_timeout());
        if self.timer.map(|(at, _)| at) != next {
            if let Some((_, timer)) = self.timer.take() {
                scene.cancel(timer);
            }
            let enter =
                |at| (at, scene.schedule_timer(self.clock.virtual_time(at), EngineRunEvent::Tick(self.id)));
            self.timer = next.map(enter);
        }
    }
}

/// The name of the table of subscriptions to updates.
pub(crate) const UPDATE_SUBSCRIPTIONS: &str = "subscriptions to updates";
