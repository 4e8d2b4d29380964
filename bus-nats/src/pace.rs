//! Decides when the publisher sends frames at once and when it gathers them first.
//!
//! The client library writes what it has as soon as it is handed one message. With few calls in
//! flight that is best: no further frame comes anyway, and the task that gathers may have to wake a
//! thread. With many calls in flight each write carries two or three frames, and the writes cost
//! more than everything else.

use std::time::Duration;

use psrpc::Time;

/// Two frames sent within this time are not a request and the answer to its response: a round trip
/// takes longer.
const CLOSE: Duration = Duration::from_micros(20);
/// The publisher gathers once it has sent this many more frames close to each other than apart.
const CROWD: u32 = 8;
/// The publisher stops gathering after this many turns in a row with a single frame.
const LONELY: u32 = 16;

pub(crate) enum Pace {
    AtOnce { last: Option<Time>, close: u32 },
    Gathering { lonely: u32 },
}

impl Pace {
    /// Returns `true` if a frame that could be sent now should wait until the tasks that are ready
    /// to run have added theirs.
    pub(crate) fn gathers(&mut self, now: Time) -> bool {
        let Pace::AtOnce { last, close } = self else { return true };
        let is_close = last.is_some_and(|last| now.since(last) < CLOSE);
        *last = Some(now);
        *close = if is_close { *close + 1 } else { close.saturating_sub(1) };
        let is_crowd = *close >= CROWD;
        if is_crowd {
            *self = Pace::Gathering { lonely: 0 };
        }
        is_crowd
    }

    /// Takes note of how many frames one turn has gathered.
    pub(crate) fn gathered(&mut self, frames: usize) {
        let Pace::Gathering { lonely } = self else { return };
        *lonely = if frames > 1 { 0 } else { *lonely + 1 };
        if *lonely >= LONELY {
            *self = Pace::default();
        }
    }
}

impl Default for Pace {
    fn default() -> Self {
        Pace::AtOnce { last: None, close: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(pace: &mut Pace, now: &mut Time, micros: u64) -> bool {
        *now = *now + Duration::from_micros(micros);
        pace.gathers(*now)
    }

    #[test]
    fn frames_are_gathered_once_many_follow_each_other_closely() {
        let (mut pace, mut now) = (Pace::default(), Time::ZERO);
        assert!(!after(&mut pace, &mut now, 0));
        let gathers: Vec<_> = (0..CROWD).map(|_| after(&mut pace, &mut now, 5)).collect();
        assert_eq!(gathers.iter().filter(|gathers| **gathers).count(), 1);
        assert_eq!(gathers.last(), Some(&true));
        assert!(after(&mut pace, &mut now, 1_000_000), "until turns were lonely");
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
    fn turns_with_a_single_frame_end_the_gathering() {
        let (mut pace, mut now) = (Pace::Gathering { lonely: 0 }, Time::ZERO);
        (1..LONELY).for_each(|_| pace.gathered(1));
        pace.gathered(2);
        (1..LONELY).for_each(|_| pace.gathered(1));
        assert!(after(&mut pace, &mut now, 1));
        pace.gathered(1);
        assert!(!after(&mut pace, &mut now, 1));
    }
}
