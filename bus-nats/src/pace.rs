//! Decides whether the publisher sends a frame immediately or first collects a batch.
//!
//! The client library writes as soon as it has a message. With few calls in flight this is best: no
//! other frame would join the batch, and the batching task may have to wake a thread. With many
//! calls in flight, each write would carry only two or three frames, and writes dominate the cost.

use std::time::Duration;

use psrpc::Time;

/// Two frames within this time belong to different calls, because a round trip takes longer.
const CLOSE: Duration = Duration::from_micros(20);
/// Batching begins once the frames close to their predecessors outnumber the other frames by this
/// many.
const BATCH_AFTER: u32 = 8;
/// Batching ends after this many consecutive batches of one frame.
const IMMEDIATE_AFTER: u32 = 16;

pub(crate) enum Pace {
    Immediate { last: Option<Time>, close: u32 },
    Batching { single: u32 },
}

impl Pace {
    /// Returns `true` if a frame should wait for the frames of other ready tasks.
    pub(crate) fn should_batch(&mut self, now: Time) -> bool {
        let Pace::Immediate { last, close } = self else { return true };
        let is_close = last.is_some_and(|last| now.since(last) < CLOSE);
        *last = Some(now);
        *close = if is_close { *close + 1 } else { close.saturating_sub(1) };
        let is_busy = *close >= BATCH_AFTER;
        if is_busy {
            *self = Pace::Batching { single: 0 };
        }
        is_busy
    }

    /// Records the number of frames in a batch.
    pub(crate) fn record_batch(&mut self, frames: usize) {
        let Pace::Batching { single } = self else { return };
        *single = if frames > 1 { 0 } else { *single + 1 };
        if *single >= IMMEDIATE_AFTER {
            *self = Pace::default();
        }
    }
}

impl Default for Pace {
    fn default() -> Self {
        Pace::Immediate { last: None, close: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(pace: &mut Pace, now: &mut Time, micros: u64) -> bool {
        *now = *now + Duration::from_micros(micros);
        pace.should_batch(*now)
    }

    #[test]
    fn frames_are_gathered_once_many_follow_each_other_closely() {
        let (mut pace, mut now) = (Pace::default(), Time::ZERO);
        assert!(!after(&mut pace, &mut now, 0));
        let should_batch: Vec<_> = (0..BATCH_AFTER).map(|_| after(&mut pace, &mut now, 5)).collect();
        assert_eq!(should_batch.iter().filter(|should_batch| **should_batch).count(), 1);
        assert_eq!(should_batch.last(), Some(&true));
        assert!(after(&mut pace, &mut now, 1_000_000), "batching continues until batches are small");
    }

    #[test]
    fn a_conversation_of_one_call_at_a_time_is_never_gathered() {
        let (mut pace, mut now) = (Pace::default(), Time::ZERO);
        for _ in 0..1000 {
            assert!(!after(&mut pace, &mut now, 5));
            assert!(!after(&mut pace, &mut now, 50));
        }
    }

    #[test]
    fn batches_with_a_single_frame_end_the_batching() {
        let (mut pace, mut now) = (Pace::Batching { single: 0 }, Time::ZERO);
        (1..IMMEDIATE_AFTER).for_each(|_| pace.record_batch(1));
        pace.record_batch(2);
        (1..IMMEDIATE_AFTER).for_each(|_| pace.record_batch(1));
        assert!(after(&mut pace, &mut now, 1));
        pace.record_batch(1);
        assert!(!after(&mut pace, &mut now, 1));
    }
}
