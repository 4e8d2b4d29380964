//! An engine as it is driven: a bus that does whatever the input says, and time.

use std::fmt::Debug;
use std::time::Duration;

use bytes::Bytes;
use psrpc_engine::proto::{Channel, Frame, FrameLimits};
use psrpc_engine::{BusError, Engine, Now, Output, SubscriptionHandle, Time, Token, WallTime};

use crate::input::Input;
use crate::peer::Known;

/// So tight that short inputs go beyond them.
pub const FRAMES: FrameLimits =
    FrameLimits { frame_bytes: 640, id_bytes: 32, metadata_entries: 3, metadata_bytes: 64, error_details: 2 };

/// Some time in 2026.
const EPOCH: i64 = 1_790_000_000_000_000_000;

/// How many of the kinds of steps are those of any engine ([`Driven::step`]).
pub const STEPS: u8 = 16;

/// The first of these kinds in which time passes; any number of those before it may come at once.
pub const BURSTS: u8 = 14;

/// An engine, its bus and its clock.
pub struct Driven<E: Engine> {
    /// The engine.
    pub engine: E,
    /// What the clocks show.
    pub now: Now,
    /// What it told since somebody looked.
    pub events: Vec<E::Event>,
    known: Known,
    subscriptions: Vec<Subscription>,
    tokens: Vec<Token>,
    /// Whether the bus has no room.
    full: bool,
    /// Whether the engine knows that.
    blocked: bool,
}

struct Subscription {
    handle: SubscriptionHandle,
    channel: Channel,
    state: ChannelState,
}

#[derive(Clone, Copy, PartialEq)]
enum ChannelState {
    Asked,
    Live,
    /// It was live, and is to be so again.
    Interrupted,
    Leaving,
    Ended,
}

impl<E: Engine> Driven<E>
where
    E::Event: Debug,
{
    /// Drives an engine from here on.
    pub fn new(engine: E) -> Self {
        let now = Now { time: Time::ZERO, wall: WallTime::from_unix_nanos(EPOCH) };
        Self {
            engine,
            now,
            events: Vec::new(),
            known: Known::default(),
            subscriptions: Vec::new(),
            tokens: Vec::new(),
            full: false,
            blocked: false,
        }
    }

    /// Does what the engine wants done, and gives how much that was.
    pub fn drain(&mut self) -> usize {
        let mut count = 0;
        loop {
            while let Some(output) = self.engine.poll_output() {
                count += 1;
                match output {
                    Output::Subscribe { subscription: handle, channel, .. } => {
                        assert!(self.subscriptions.iter().all(|known| known.handle != handle));
                        self.subscriptions.push(Subscription { handle, channel, state: ChannelState::Asked });
                    }
                    Output::Unsubscribe { subscription } => {
                        let left = self.subscriptions.iter_mut().find(|known| known.handle == subscription);
                        let left = left.expect("what was not subscribed is not unsubscribed");
                        assert!(left.state != ChannelState::Leaving, "it is left once");
                        // It may have ended by itself meanwhile.
                        if left.state != ChannelState::Ended {
                            left.state = ChannelState::Leaving;
                        }
                    }
                    Output::Event(event) => self.events.push(event),
                }
            }
            let Some(outgoing) = self.engine.poll_publish() else { return count };
            count += 1;
            assert!(!self.blocked, "a frame is put out though the bus has no room");
            let frame = outgoing.frame();
            let encoded = frame.encode(outgoing.channel().local());
            if let Err(error) = Frame::decode(&encoded, &FRAMES) {
                panic!("nobody would read what is put out: {error}: {frame:?}");
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

    /// A step that any engine can take, of [`STEPS`] kinds.
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
                // Who sends may be known from what it sends.
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
                let leaves = |subscription: &&mut Subscription| subscription.state == ChannelState::Leaving;
                self.ended(which, leaves);
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
                        0 => Err(BusError::new("the bus is gone")),
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

    /// Lets time pass, and the wall clock jump.
    pub fn tick(&mut self, time: Duration, jump: i64) {
        self.drain();
        self.now.time = self.now.time + time;
        let wall = (self.now.wall + time).as_unix_nanos() + jump;
        self.now.wall = WallTime::from_unix_nanos(wall);
        let due = self.engine.poll_timeout().is_some_and(|next| next.at <= self.now.time);
        let count = self.fire();
        assert!(due || count == 0, "a timeout that comes early does something");
        let next = self.engine.poll_timeout();
        assert!(next.is_none_or(|next| next.at > self.now.time), "{next:?} at {:?}", self.now.time);
    }

    /// Fires what is due, round after round, and gives how much the engine wanted done.
    fn fire(&mut self) -> usize {
        let mut count = self.drain();
        while self.engine.handle_timeout(self.now).is_more() {
            count += self.drain();
        }
        count + self.drain()
    }

    /// The bus does all that it was asked for, and the engine all that is due. No time passes.
    pub fn settle(&mut self) {
        self.full = false;
        if std::mem::take(&mut self.blocked) {
            self.engine.handle_room();
        }
        // What is done may bring about more.
        while self.fire() > 0 || !self.tokens.is_empty() || self.subscriptions.iter().any(is_waiting) {
            for token in std::mem::take(&mut self.tokens) {
                self.engine.handle_published(self.now, token, Ok(None));
            }
            self.subscribed_all();
            for subscription in
                self.subscriptions.iter_mut().filter(|known| known.state == ChannelState::Leaving)
            {
                subscription.state = ChannelState::Ended;
                self.engine.handle_unsubscribed(self.now, subscription.handle);
            }
        }
    }

    /// Every subscription that was asked for or interrupted is live.
    pub fn subscribed_all(&mut self) {
        for subscription in self.subscriptions.iter_mut().filter(|known| is_wanted(known)) {
            subscription.state = ChannelState::Live;
            self.engine.handle_subscribed(self.now, subscription.handle, Ok(()));
        }
    }

    /// The subscriptions that have not ended.
    fn open(&self) -> impl Iterator<Item = &Subscription> {
        self.subscriptions.iter().filter(|subscription| subscription.state != ChannelState::Ended)
    }

    /// A frame comes in where such a frame belongs, or anywhere.
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

    fn subscribed(&mut self, which: u8, well: bool) {
        let mut wanted: Vec<_> = self.subscriptions.iter_mut().filter(|known| is_wanted(known)).collect();
        let Some(at) = usize::from(which).checked_rem(wanted.len()) else { return };
        wanted[at].state = if well { ChannelState::Live } else { ChannelState::Ended };
        let result = if well { Ok(()) } else { Err(BusError::new("not allowed")) };
        self.engine.handle_subscribed(self.now, wanted[at].handle, result);
    }

    /// A subscription that is live is interrupted, or the bus has more to say of one that is.
    fn interrupted(&mut self, which: u8) {
        let mut live: Vec<_> = self.subscriptions.iter_mut().filter(|known| is_live(known)).collect();
        let Some(at) = usize::from(which).checked_rem(live.len()) else { return };
        live[at].state = ChannelState::Interrupted;
        self.engine.handle_interrupted(self.now, live[at].handle, BusError::new("the connection is lost"));
    }

    fn ended(&mut self, which: u8, which_of: impl Fn(&&mut Subscription) -> bool) {
        let mut ending: Vec<_> = self.subscriptions.iter_mut().filter(which_of).collect();
        let Some(at) = usize::from(which).checked_rem(ending.len()) else { return };
        ending[at].state = ChannelState::Ended;
        self.engine.handle_unsubscribed(self.now, ending[at].handle);
    }
}

/// Returns `true` for a subscription that is live, or was and is to be so again.
fn is_live(subscription: &Subscription) -> bool {
    matches!(subscription.state, ChannelState::Live | ChannelState::Interrupted)
}

/// Returns `true` for a subscription that is to become live, for the first time or again.
fn is_wanted(subscription: &Subscription) -> bool {
    matches!(subscription.state, ChannelState::Asked | ChannelState::Interrupted)
}

/// Whether the bus has not done what was asked for.
fn is_waiting(subscription: &Subscription) -> bool {
    is_wanted(subscription) || subscription.state == ChannelState::Leaving
}
