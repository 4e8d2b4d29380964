//! The steps of the property tests that apply to clients and servers alike.

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::Index;
use psrpc_engine::proto::Frame;
use psrpc_engine::{BusError, Due, Engine, Now, Output, SubscriptionHandle, Time, Token, WallTime};

use crate::fixture::{EPOCH, is_idle, ms};

/// An engine under test, with a trace of its outputs.
pub struct Run<E: Engine> {
    pub engine: E,
    pub now: Now,
    pub trace: String,
    pub subscriptions: Vec<SubscriptionHandle>,
    pub unsubscribed: Vec<SubscriptionHandle>,
    pub tokens: Vec<Token>,
    pub frames: Vec<Frame>,
    pub events: Vec<E::Event>,
    /// Whether the bus is full.
    pub full: bool,
}

impl<E: Engine> Run<E>
where
    E::Event: std::fmt::Debug,
{
    pub fn new(engine: E) -> Self {
        let now = Now { time: Time::ZERO, wall: WallTime::from_unix_nanos(EPOCH) };
        Self {
            engine,
            now,
            trace: String::new(),
            subscriptions: Vec::new(),
            unsubscribed: Vec::new(),
            tokens: Vec::new(),
            frames: Vec::new(),
            events: Vec::new(),
            full: false,
        }
    }

    pub fn drain(&mut self) {
        loop {
            while let Some(output) = self.engine.poll_output() {
                self.trace.push_str(&format!("{output:?}\n"));
                match output {
                    Output::Subscribe { subscription, .. } => self.subscriptions.push(subscription),
                    Output::Unsubscribe { subscription } => self.unsubscribed.push(subscription),
                    Output::Event(event) => self.events.push(event),
                }
            }
            let Some(outgoing) = self.engine.poll_publish() else { return };
            self.trace.push_str(&format!("{outgoing:?}\n"));
            if self.full {
                self.engine.handle_full();
            } else {
                self.tokens.push(outgoing.token());
                self.frames.push(outgoing.take().1);
            }
        }
    }

    /// Advances time in one step, as a late driver would.
    pub fn tick(&mut self, after: Duration, wall: i64) {
        let time = self.now.time + after;
        let wall = self.now.wall.as_unix_nanos() + after.as_nanos() as i64 + wall;
        self.now = Now { time, wall: WallTime::from_unix_nanos(wall) };
        while self.engine.handle_timeout(self.now).is_more() {
            self.drain();
        }
        self.drain();
        let next = self.engine.poll_timeout();
        assert!(next.is_none_or(|next| next.at > time), "due after it was handled: {next:?} at {time:?}");
        assert_eq!(self.engine.handle_timeout(self.now), Due::Nothing);
        assert!(is_idle(&mut self.engine), "a spurious tick does nothing");
        assert_eq!(self.engine.poll_timeout(), next);
    }

    pub fn make_room(&mut self) {
        self.full = false;
        self.engine.handle_room();
        self.drain();
    }

    pub fn confirm(&mut self) {
        for subscription in std::mem::take(&mut self.unsubscribed) {
            self.engine.handle_unsubscribed(self.now, subscription);
        }
        self.drain();
    }

    pub fn pick<T: Copy>(items: &[T], index: &Index) -> Option<T> {
        (!items.is_empty()).then(|| *index.get(items))
    }

    pub fn apply(&mut self, step: &CommonStep) {
        match step {
            CommonStep::Tick(millis) => self.tick(ms(*millis), 0),
            CommonStep::Jump(seconds) => self.tick(ms(1), seconds * 1_000_000_000),
            CommonStep::Drain => self.drain(),
            CommonStep::Live(index) => {
                if let Some(subscription) = Self::pick(&self.subscriptions, index) {
                    self.engine.handle_subscribed(self.now, subscription, Ok(()));
                }
            }
            CommonStep::Refused(index) => {
                if let Some(subscription) = Self::pick(&self.subscriptions, index) {
                    self.engine.handle_subscribed(self.now, subscription, Err(BusError::new("no")));
                }
            }
            CommonStep::Ended(index) => {
                if let Some(subscription) = Self::pick(&self.subscriptions, index) {
                    self.engine.handle_unsubscribed(self.now, subscription);
                }
            }
            CommonStep::Confirm => self.confirm(),
            CommonStep::Gap(index, lost) => {
                if let Some(subscription) = Self::pick(&self.subscriptions, index) {
                    self.engine.handle_gap(self.now, subscription, *lost);
                }
            }
            CommonStep::Interrupted(index) => {
                if let Some(subscription) = Self::pick(&self.subscriptions, index) {
                    self.engine.handle_interrupted(self.now, subscription, BusError::new("down"));
                }
            }
            CommonStep::Published(index, ok) => {
                if let Some(token) = Self::pick(&self.tokens, index) {
                    let result = if *ok { Ok(Some(1)) } else { Err(BusError::new("no")) };
                    self.engine.handle_published(self.now, token, result);
                }
            }
            CommonStep::Full => self.full = true,
            CommonStep::Room => self.make_room(),
            CommonStep::Noise(index, bytes) => {
                if let Some(subscription) = Self::pick(&self.subscriptions, index) {
                    let frame = Frame::Raw(Bytes::from(bytes.clone()));
                    self.engine.handle_frame(self.now, subscription, frame);
                }
            }
        }
    }
}

/// A step that applies to clients and servers alike.
#[derive(Clone, Debug)]
pub enum CommonStep {
    Tick(u64),
    Jump(i64),
    Drain,
    Live(Index),
    Refused(Index),
    Ended(Index),
    Confirm,
    Gap(Index, Option<u64>),
    Interrupted(Index),
    Published(Index, bool),
    Noise(Index, Vec<u8>),
    Full,
    Room,
}

pub fn common_steps() -> impl Strategy<Value = CommonStep> {
    prop_oneof![
        20 => (0..700u64).prop_map(CommonStep::Tick),
        2 => (-20..20i64).prop_map(CommonStep::Jump),
        10 => Just(CommonStep::Drain),
        4 => any::<Index>().prop_map(CommonStep::Live),
        1 => any::<Index>().prop_map(CommonStep::Refused),
        1 => any::<Index>().prop_map(CommonStep::Ended),
        4 => Just(CommonStep::Confirm),
        1 => any::<(Index, Option<u64>)>().prop_map(|(index, lost)| CommonStep::Gap(index, lost.map(|l| l % 9))),
        1 => any::<Index>().prop_map(CommonStep::Interrupted),
        4 => any::<(Index, bool)>().prop_map(|(index, ok)| CommonStep::Published(index, ok)),
        2 => (any::<Index>(), proptest::collection::vec(any::<u8>(), 0..40))
            .prop_map(|(index, bytes)| CommonStep::Noise(index, bytes)),
        1 => Just(CommonStep::Full),
        2 => Just(CommonStep::Room),
    ]
}
