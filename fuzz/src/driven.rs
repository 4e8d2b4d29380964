//! Drives an engine with a bus and clocks that follow the input.

use std::fmt::Debug;
use std::time::Duration;

use bytes::Bytes;
use psrpc_engine::proto::{Channel, Frame, FrameLimits};
use psrpc_engine::{BusError, Engine, Now, Output, SubscriptionHandle, Time, Token, WallTime};

use crate::input::Input;
use crate::peer::KnownIds;

/// Low limits, which short inputs can exceed.
pub const FRAMES: FrameLimits =
    FrameLimits { frame_bytes: 640, id_bytes: 32, metadata_entries: 3, metadata_bytes: 64, error_details: 2 };

/// A time in 2026.
const EPOCH: i64 = 1_790_000_000_000_000_000;

/// The number of kinds of steps that apply to any engine ([`Driven::step`]).
pub const STEPS: u8 = 16;

/// The first kind of step in which time passes. Any number of earlier ones may happen at one time.
pub const BURSTS: u8 = 14;

/// An engine with its bus and clocks.
pub struct Driven<E: Engine> {
    /// The engine under test.
    pub engine: E,
    /// The current time.
    pub now: Now,
    /// The events since they were last taken.
    pub events: Vec<E::Event>,
    known: KnownIds,
    subscriptions: Vec<Subscription>,
    tokens: Vec<Token>,
    /// True if the bus has no room.
    full: bool,
    /// True if the engine knows that the bus has no room.
    blocked: bool,
}

struct Subscription {
    handle: SubscriptionHandle,
    channel: Channel,
    state: ChannelState,
}

#[derive(Clone, Copy, PartialEq)]
enum ChannelState {
    Requested,
    Live,
    /// It was live and is being restored.
    Interrupted,
    Leaving,
    Ended,
}

impl<E: Engine> Driven<E>
where
    E::Event: Debug,
{
    /// Creates a driver for an engine.
    pub fn new(engine: E) -> Self {
        let now = Now { time: Time::ZERO, wall: WallTime::from_unix_nanos(EPOCH) };
        Self {
            engine,
            now,
            events: Vec::new(),
            known: KnownIds::default(),
            subscriptions: Vec::new(),
            tokens: Vec::new(),
            full: false,
            blocked: false,
        }
    }

    /// Processes all outputs of the engine, and returns their number.
    pub fn drain(&mut self) -> usize {
        let mut count = 0;
        loop {
            while let Some(output) = self.engine.poll_output() {
                count += 1;
                match output {
                    Output::Subscribe { subscription: handle, channel, .. } => {
                        assert!(self.subscriptions.iter().all(|known| known.handle != handle));
                        self.subscriptions.push(Subscription {
                            handle,
                            channel,
                            state: ChannelState::Requested,
                        });
                    }
                    Output::Unsubscribe { subscription } => {
                        let removed =
                            self.subscriptions.iter_mut().find(|known| known.handle == subscription);
                        let removed = removed.expect("only existing subscriptions are unsubscribed");
                        assert!(removed.state != ChannelState::Leaving, "unsubscribed twice");
                        // The bus may have ended it meanwhile.
                        if removed.state != ChannelState::Ended {
                            removed.state = ChannelState::Leaving;
                        }
                    }
                    Output::Event(event) => self.events.push(event),
                }
            }
            let Some(outgoing) = self.engine.poll_publish() else { return count };
            count += 1;
            assert!(!self.blocked, "the engine published a frame although the bus has no room");
            let frame = outgoing.frame();
            let encoded = frame.encode(outgoing.channel().local());
            if let Err(error) = Frame::decode(&encoded, &FRAMES) {
                panic!("the published frame does not decode: {error}: {frame:?}");
            }
            if self.full {
                self.blocked = true;
                self.engine.handle_full();
                continue;
            }
            self.known.note(frame);
            self.tokens.push(outgoing.token());
            drop(outgoing.take());
        }
    }

    /// Runs one of [`STEPS`] kinds of steps that apply to any engine.
    pub fn step(&mut self, kind: u8, input: &mut Input<'_>) {
        match kind {
            0 => {
                let (which, len) = (input.byte(), input.number());
                let frame = Frame::Raw(Bytes::copy_from_slice(input.bytes(usize::from(len))));
                self.deliver(which, frame);
            }
            1..=6 => {
                let frame = self.known.frame(input, self.now);
                let which = input.byte();
                // The id of the sender may be derived from the frame.
                self.known.note(&frame);
                let raw = which >= 128;
                self.deliver(which, if raw { Frame::Raw(frame.encode("")) } else { frame });
            }
            7 => {
                let which = input.byte();
                self.subscribed(which, !input.one_in(8));
            }
            8 => {
                let which = input.byte();
                let is_leaving =
                    |subscription: &&mut Subscription| subscription.state == ChannelState::Leaving;
                self.ended(which, is_leaving);
            }
            9 => {
                let which = input.byte();
                if input.one_in(4) {
                    self.ended(which, |subscription| is_live(subscription));
                } else {
                    self.interrupted(which);
                }
            }
            10 => {
                let lost = input.flag().then(|| input.long() as u64);
                let open: Vec<_> = self.open().map(|subscription| subscription.handle).collect();
                if let Some(subscription) = input.pick(&open) {
                    self.engine.handle_gap(self.now, subscription, lost);
                }
            }
            11 | 12 => {
                let count = self.tokens.len();
                if let Some(at) = usize::from(input.byte()).checked_rem(count) {
                    let token = self.tokens.remove(at);
                    let result = match input.byte() % 4 {
                        0 => Err(BusError::new("the bus has stopped")),
                        1 => Ok(Some(0)),
                        2 => Ok(Some(input.long() as u64)),
                        _ => Ok(None),
                    };
                    self.engine.handle_published(self.now, token, result);
                }
            }
            13 => {
                self.full = !self.full;
                if !self.full && self.blocked {
                    self.blocked = false;
                    self.engine.handle_room();
                }
            }
            14 => self.tick(Duration::from_micros(u64::from(input.number()) * 100), 0),
            _ => {
                let jump = (i64::from(input.number()) - 0x8000) * 1_000_000;
                self.tick(Duration::from_millis(u64::from(input.byte())), jump);
            }
        }
    }

    /// Advances the time and lets the wall clock jump.
    pub fn tick(&mut self, time: Duration, jump: i64) {
        self.drain();
        self.now.time = self.now.time + time;
        let wall = (self.now.wall + time).as_unix_nanos() + jump;
        self.now.wall = WallTime::from_unix_nanos(wall);
        let due = self.engine.poll_timeout().is_some_and(|next| next.at <= self.now.time);
        let count = self.handle_timeouts();
        assert!(due || count == 0, "a timeout before the deadline had an effect");
        let next = self.engine.poll_timeout();
        assert!(next.is_none_or(|next| next.at > self.now.time), "{next:?} at {:?}", self.now.time);
    }

    /// Handles timeouts until none is due, and returns the number of outputs.
    fn handle_timeouts(&mut self) -> usize {
        let mut count = self.drain();
        while self.engine.handle_timeout(self.now).is_more() {
            count += self.drain();
        }
        count + self.drain()
    }

    /// Completes everything that the bus was asked to do, and handles all timeouts that are due. No
    /// time passes.
    pub fn settle(&mut self) {
        self.full = false;
        if std::mem::take(&mut self.blocked) {
            self.engine.handle_room();
        }
        // Each completion may cause further outputs.
        while self.handle_timeouts() > 0
            || !self.tokens.is_empty()
            || self.subscriptions.iter().any(is_waiting)
        {
            for token in std::mem::take(&mut self.tokens) {
                self.engine.handle_published(self.now, token, Ok(None));
            }
            self.complete_subscriptions();
            for subscription in
                self.subscriptions.iter_mut().filter(|known| known.state == ChannelState::Leaving)
            {
                subscription.state = ChannelState::Ended;
                self.engine.handle_unsubscribed(self.now, subscription.handle);
            }
        }
    }

    /// Makes every requested or interrupted subscription live.
    pub fn complete_subscriptions(&mut self) {
        for subscription in self.subscriptions.iter_mut().filter(|known| is_requested(known)) {
            subscription.state = ChannelState::Live;
            self.engine.handle_subscribed(self.now, subscription.handle, Ok(()));
        }
    }

    /// Returns the subscriptions that have not ended.
    fn open(&self) -> impl Iterator<Item = &Subscription> {
        self.subscriptions.iter().filter(|subscription| subscription.state != ChannelState::Ended)
    }

    /// Delivers a frame to a subscription for its kind, or sometimes to any other.
    fn deliver(&mut self, which: u8, frame: Frame) {
        let kind = match &frame {
            Frame::Request(_) | Frame::Other(_) => "|REQ",
            Frame::Response(_) => "|RES",
            Frame::ClaimRequest(_) => "|CLAIM",
            Frame::ClaimResponse(_) => "|RCLAIM",
            Frame::Stream(_) => "|STR",
            Frame::Raw(_) => "",
        };
        let anywhere = which % 16 == 15;
        let fits = |known: &&Subscription| anywhere || known.channel.legacy().ends_with(kind);
        let fitting: Vec<_> = self.open().filter(fits).map(|subscription| subscription.handle).collect();
        let Some(at) = usize::from(which).checked_rem(fitting.len()) else { return };
        if which % 32 == 31 {
            self.engine.handle_misrouted(self.now, fitting[at], frame);
        } else {
            self.engine.handle_frame(self.now, fitting[at], frame);
        }
    }

    fn subscribed(&mut self, which: u8, success: bool) {
        let mut requested: Vec<_> =
            self.subscriptions.iter_mut().filter(|known| is_requested(known)).collect();
        let Some(at) = usize::from(which).checked_rem(requested.len()) else { return };
        requested[at].state = if success { ChannelState::Live } else { ChannelState::Ended };
        let result = if success { Ok(()) } else { Err(BusError::new("not allowed")) };
        self.engine.handle_subscribed(self.now, requested[at].handle, result);
    }

    /// Interrupts a live subscription, or one that is interrupted already.
    fn interrupted(&mut self, which: u8) {
        let mut live: Vec<_> = self.subscriptions.iter_mut().filter(|known| is_live(known)).collect();
        let Some(at) = usize::from(which).checked_rem(live.len()) else { return };
        live[at].state = ChannelState::Interrupted;
        self.engine.handle_interrupted(self.now, live[at].handle, BusError::new("the connection is lost"));
    }

    fn ended(&mut self, which: u8, filter: impl Fn(&&mut Subscription) -> bool) {
        let mut ending: Vec<_> = self.subscriptions.iter_mut().filter(filter).collect();
        let Some(at) = usize::from(which).checked_rem(ending.len()) else { return };
        ending[at].state = ChannelState::Ended;
        self.engine.handle_unsubscribed(self.now, ending[at].handle);
    }
}

/// Returns `true` if a subscription is live or interrupted.
fn is_live(subscription: &Subscription) -> bool {
    matches!(subscription.state, ChannelState::Live | ChannelState::Interrupted)
}

/// Returns `true` if a subscription is requested or interrupted.
fn is_requested(subscription: &Subscription) -> bool {
    matches!(subscription.state, ChannelState::Requested | ChannelState::Interrupted)
}

/// Returns `true` if the bus has not completed the last request for a subscription.
fn is_waiting(subscription: &Subscription) -> bool {
    is_requested(subscription) || subscription.state == ChannelState::Leaving
}
