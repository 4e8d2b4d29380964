//! Rules: which frames suffer which fault.

use std::mem;
use std::ops::RangeInclusive;
use std::time::Duration;

use psrpc::BusError;
use psrpc::proto::{Channel, Frame, IdGenerator, Seed};

use crate::catch::catch;
use crate::injected::Injected;
use crate::link::Link;

/// A fault, and which frames suffer it: every one that is published, unless the rule says
/// otherwise.
///
/// ```
/// use psrpc::proto::Frame;
/// use psrpc_testing::Rule;
///
/// // Every third response, or so, is lost.
/// let loss = Rule::drop().when(|_, frame| matches!(frame, Frame::Response(_))).probability(0.3);
/// ```
#[must_use = "a rule does nothing until it is injected"]
pub struct Rule {
    fault: InjectedFault,
    at_delivery: bool,
    filters: Vec<Filter>,
    probability: f64,
    left: u64,
}

type Filter = Box<dyn Fn(&Channel, &Frame) -> bool + Send>;

enum InjectedFault {
    Drop,
    Delay(RangeInclusive<Duration>),
    Duplicate(u32),
    Reorder(Hold),
    Fail(BusError),
}

/// For how long a frame is held back: until so many frames have overtaken it, or the time is up.
#[derive(Clone, Copy)]
pub(super) struct Hold {
    pub(super) window: u32,
    pub(super) within: Duration,
}

impl Rule {
    /// Frames are lost without a word: whoever published them is told that they were published.
    pub fn drop() -> Self {
        Self::new(InjectedFault::Drop)
    }

    /// Frames are late by `delay`, and keep their order among each other.
    pub fn delay(delay: Duration) -> Self {
        Self::delay_within(delay..=delay)
    }

    /// Frames are late by a time within `range`, drawn for each anew, and so may overtake each
    /// other.
    pub fn delay_within(range: RangeInclusive<Duration>) -> Self {
        Self::new(InjectedFault::Delay(range))
    }

    /// Frames come once, and so many times again.
    pub fn duplicate(copies: u32) -> Self {
        Self::new(InjectedFault::Duplicate(copies))
    }

    /// A frame is held back until `window` later frames of its channel, at least one, have
    /// overtaken it, or until `within` has passed, after which it is not out of order but late.
    /// While one is held, the frames of its channel pass.
    pub fn reorder(window: u32, within: Duration) -> Self {
        Self::new(InjectedFault::Reorder(Hold { window, within }))
    }

    /// PublishFuture fails with `error`. [At delivery](Self::at_delivery), the subscription is lost with `error`.
    pub fn fail(error: BusError) -> Self {
        Self::new(InjectedFault::Fail(error))
    }

    fn new(fault: InjectedFault) -> Self {
        Self { fault, at_delivery: false, filters: Vec::new(), probability: 1.0, left: u64::MAX }
    }

    /// Frames suffer it on their way to each subscriber; without this, on their way to the bus, for
    /// all subscribers at once. To have one server suffer and others not, give it a
    /// [`FaultyBus`](crate::FaultyBus) of its own, around the same bus.
    pub fn at_delivery(mut self) -> Self {
        self.at_delivery = true;
        self
    }

    /// Only on channels whose [legacy name](Channel::legacy) contains `part`. For instance
    /// `|Fit|REQ` are the requests of the method `Fit` without a topic, and `|RES` the
    /// responses to every client.
    pub fn channel(self, part: impl Into<String>) -> Self {
        let part = part.into();
        self.when(move |channel, _| channel.legacy().contains(&part))
    }

    /// Only those for which `filter` is true. It must not use the bus. One that panics is false.
    pub fn when(mut self, filter: impl Fn(&Channel, &Frame) -> bool + Send + 'static) -> Self {
        self.filters.push(Box::new(filter));
        self
    }

    /// Only so many of them, drawn for each anew: 0 is none, 1 is all. Default 1.
    pub fn probability(mut self, probability: f64) -> Self {
        self.probability = probability;
        self
    }

    /// Only the first so many of those that suffer it otherwise. Default all.
    pub fn first(mut self, frames: u64) -> Self {
        self.left = frames;
        self
    }
}

impl std::fmt::Debug for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let fault = match &self.fault {
            InjectedFault::Drop => "drop",
            InjectedFault::Delay(_) => "delay",
            InjectedFault::Duplicate(_) => "duplicate",
            InjectedFault::Reorder(_) => "reorder",
            InjectedFault::Fail(_) => "fail",
        };
        f.debug_struct("Rule").field("fault", &fault).finish_non_exhaustive()
    }
}

/// Names a rule that is in effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleId(u64);

/// A frame on its way, with what the rules make of it.
pub(super) struct Decision {
    pub(super) frame: Frame,
    pub(super) delay: Duration,
    pub(super) hold: Option<Hold>,
}

/// The rules in effect, in the order in which they were added.
pub(super) struct Rules {
    seed: u64,
    added: u64,
    active: Vec<Active>,
}

/// A rule with a generator of its own, so that rules do not change what others draw.
struct Active {
    id: RuleId,
    rule: Rule,
    draws: IdGenerator,
}

impl Rules {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, added: 0, active: Vec::new() }
    }

    pub(super) fn add(&mut self, rule: Rule) -> RuleId {
        let id = RuleId(self.added);
        self.added += 1;
        let mut seed = Seed::default();
        seed[..8].copy_from_slice(&self.seed.to_le_bytes());
        seed[8..16].copy_from_slice(&id.0.to_le_bytes());
        self.active.push(Active { id, rule, draws: IdGenerator::new(seed) });
        id
    }

    /// Takes a rule out of effect; the caller drops it without any lock.
    pub(super) fn remove(&mut self, id: RuleId) -> Option<Rule> {
        let index = self.active.iter().position(|active| active.id == id)?;
        Some(self.active.remove(index).rule)
    }

    /// Takes all rules out of effect; the caller drops them without any lock.
    pub(super) fn take(&mut self) -> Vec<Rule> {
        mem::take(&mut self.active).into_iter().map(|active| active.rule).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.active.is_empty()
    }

    /// What the rules make of a frame: every copy goes through each rule. An error when it is not
    /// to go on at all and the bus says so.
    pub(super) fn decide(
        &mut self,
        link: &Link,
        frame: Frame,
        injected: &mut Injected,
    ) -> Result<Vec<Decision>, BusError> {
        let mut copies = vec![Decision { frame, delay: Duration::ZERO, hold: None }];
        let at_delivery = matches!(link, Link::Subscriber(_));
        for active in self.active.iter_mut().filter(|active| active.rule.at_delivery == at_delivery) {
            for copy in mem::take(&mut copies) {
                if active.applies(link.channel(), &copy.frame) {
                    active.inflict(copy, &mut copies, injected)?;
                } else {
                    copies.push(copy);
                }
            }
        }
        Ok(copies)
    }
}

impl Active {
    fn applies(&mut self, channel: &Channel, frame: &Frame) -> bool {
        let filters = &self.rule.filters;
        let passes = || filters.iter().all(|filter| filter(channel, frame));
        let applies =
            self.rule.left > 0 && catch(passes).unwrap_or(false) && self.draw() < self.rule.probability;
        self.rule.left -= u64::from(applies);
        applies
    }

    fn inflict(
        &mut self,
        mut copy: Decision,
        copies: &mut Vec<Decision>,
        injected: &mut Injected,
    ) -> Result<(), BusError> {
        match &self.rule.fault {
            InjectedFault::Drop => {
                injected.dropped += 1;
                return Ok(());
            }
            InjectedFault::Fail(error) => {
                injected.failed += 1;
                return Err(error.clone());
            }
            InjectedFault::Delay(range) => {
                injected.delayed += 1;
                let (least, most) = (*range.start(), *range.end());
                let drawn = least + most.saturating_sub(least).mul_f64(self.draw());
                copy.delay = copy.delay.saturating_add(drawn);
            }
            InjectedFault::Duplicate(times) => {
                injected.duplicated += u64::from(*times);
                let again = || Decision { frame: copy.frame.clone(), ..copy };
                copies.extend((0..*times).map(|_| again()));
            }
            InjectedFault::Reorder(hold) => copy.hold = Some(*hold),
        }
        copies.push(copy);
        Ok(())
    }

    /// A number from 0 up to and without 1.
    fn draw(&mut self) -> f64 {
        (self.draws.bits() >> 11) as f64 / (1u64 << 53) as f64
    }
}
