//! Rules: faults, and the frames that they apply to.

use std::mem;
use std::ops::RangeInclusive;
use std::time::Duration;

use psrpc::BusError;
use psrpc::proto::{Channel, Frame, IdGenerator, Seed};

use crate::catch::catch;
use crate::injected::Injected;
use crate::link::Link;

/// A fault and the frames that it applies to. By default it applies to every published frame.
///
/// ```
/// use psrpc::proto::Frame;
/// use psrpc_testing::Rule;
///
/// // About every third response is lost.
/// let loss = Rule::drop().when(|_, frame| matches!(frame, Frame::Response(_))).probability(0.3);
/// ```
#[must_use = "a rule does nothing until it is injected"]
pub struct Rule {
    fault: InjectedFault,
    at_delivery: bool,
    filters: Vec<Filter>,
    probability: f64,
    remaining: u64,
}

type Filter = Box<dyn Fn(&Channel, &Frame) -> bool + Send>;

enum InjectedFault {
    Drop,
    Delay(RangeInclusive<Duration>),
    Duplicate(u32),
    Reorder(Hold),
    Fail(BusError),
}

/// How long a frame is held back: until `window` frames have overtaken it, or for the time
/// `within`.
#[derive(Clone, Copy)]
pub(super) struct Hold {
    pub(super) window: u32,
    pub(super) within: Duration,
}

impl Rule {
    /// Drops frames. Their publishes still succeed.
    pub fn drop() -> Self {
        Self::new(InjectedFault::Drop)
    }

    /// Delays frames by `delay`. Delayed frames keep their order.
    pub fn delay(delay: Duration) -> Self {
        Self::delay_within(delay..=delay)
    }

    /// Delays each frame by a random time within `range`. Frames may overtake each other.
    pub fn delay_within(range: RangeInclusive<Duration>) -> Self {
        Self::new(InjectedFault::Delay(range))
    }

    /// Delivers each frame once and `copies` more times.
    pub fn duplicate(copies: u32) -> Self {
        Self::new(InjectedFault::Duplicate(copies))
    }

    /// Holds a frame back until `window` later frames of its channel (at least one) have overtaken
    /// it, or `within` has passed. In the second case the frame is late but in order. While a frame
    /// is held back, later frames of its channel pass.
    pub fn reorder(window: u32, within: Duration) -> Self {
        Self::new(InjectedFault::Reorder(Hold { window, within }))
    }

    /// Fails publishing with `error`, or [at delivery](Self::at_delivery) the subscription.
    pub fn fail(error: BusError) -> Self {
        Self::new(InjectedFault::Fail(error))
    }

    fn new(fault: InjectedFault) -> Self {
        Self { fault, at_delivery: false, filters: Vec::new(), probability: 1.0, remaining: u64::MAX }
    }

    /// Applies the rule to the delivery to each subscriber, instead of the publish. To affect only
    /// one server, give it its own [`FaultyBus`](crate::FaultyBus) around the shared bus.
    pub fn at_delivery(mut self) -> Self {
        self.at_delivery = true;
        self
    }

    /// Applies the rule only to channels whose [legacy name](Channel::legacy) contains `part`. For
    /// example, `|Fit|REQ` matches requests of the method `Fit` without a topic, and `|RES` matches
    /// responses to all clients.
    pub fn channel(self, part: impl Into<String>) -> Self {
        let part = part.into();
        self.when(move |channel, _| channel.legacy().contains(&part))
    }

    /// Applies the rule only to frames for which `filter` returns `true`. The filter must not use
    /// the bus. A panic counts as `false`.
    pub fn when(mut self, filter: impl Fn(&Channel, &Frame) -> bool + Send + 'static) -> Self {
        self.filters.push(Box::new(filter));
        self
    }

    /// Applies the rule to each frame with this probability, from 0 to 1. Default: 1.
    pub fn probability(mut self, probability: f64) -> Self {
        self.probability = probability;
        self
    }

    /// Applies the rule only to the first `frames` matching frames. Default: all.
    pub fn first(mut self, frames: u64) -> Self {
        self.remaining = frames;
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

/// Identifies an injected rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleId(u64);

/// A copy of a frame, with the delays decided by the rules.
pub(super) struct Decision {
    pub(super) frame: Frame,
    pub(super) delay: Duration,
    pub(super) hold: Option<Hold>,
}

/// The injected rules in order.
pub(super) struct Rules {
    seed: u64,
    added: u64,
    active: Vec<Active>,
}

/// A rule with its own random generator, so that rules do not affect the random numbers of others.
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

    /// Removes a rule. The caller drops it without holding a lock.
    pub(super) fn remove(&mut self, id: RuleId) -> Option<Rule> {
        let index = self.active.iter().position(|active| active.id == id)?;
        Some(self.active.remove(index).rule)
    }

    /// Removes all rules. The caller drops them without holding a lock.
    pub(super) fn take(&mut self) -> Vec<Rule> {
        mem::take(&mut self.active).into_iter().map(|active| active.rule).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.active.is_empty()
    }

    /// Applies the rules to a frame and its copies. Returns an error if the publish or subscription
    /// must fail.
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
                if active.matches(link.channel(), &copy.frame) {
                    active.apply(copy, &mut copies, injected)?;
                } else {
                    copies.push(copy);
                }
            }
        }
        Ok(copies)
    }
}

impl Active {
    fn matches(&mut self, channel: &Channel, frame: &Frame) -> bool {
        let filters = &self.rule.filters;
        let passes = || filters.iter().all(|filter| filter(channel, frame));
        let applies =
            self.rule.remaining > 0 && catch(passes).unwrap_or(false) && self.draw() < self.rule.probability;
        self.rule.remaining -= u64::from(applies);
        applies
    }

    fn apply(
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
                let random = least + most.saturating_sub(least).mul_f64(self.draw());
                copy.delay = copy.delay.saturating_add(random);
            }
            InjectedFault::Duplicate(times) => {
                injected.duplicated += u64::from(*times);
                let duplicate = || Decision { frame: copy.frame.clone(), ..copy };
                copies.extend((0..*times).map(|_| duplicate()));
            }
            InjectedFault::Reorder(hold) => copy.hold = Some(*hold),
        }
        copies.push(copy);
        Ok(())
    }

    /// Returns a random number from 0 (inclusive) to 1 (exclusive).
    fn draw(&mut self) -> f64 {
        (self.draws.bits() >> 11) as f64 / (1u64 << 53) as f64
    }
}
