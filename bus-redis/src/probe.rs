//! Messages that the bus sends to itself, to check that its two connections reach each other.
//!
//! The command connection publishes a message at each interval, on a channel that only this bus
//! subscribes to. If the message does not arrive on the subscription connection, the two lead to
//! servers that do not exchange messages, and both are replaced. A server that refuses the channel
//! is not probed until the next connection.

use std::time::Duration;

use psrpc::bus::Lock;
use psrpc::{BusError, Time};
use redis::{Cmd, Value};

use crate::connector::Connector;
use crate::outage::Side;

/// The prefix of the names of these channels.
const CHANNEL: &str = "psrpc-probe:";

/// The channel on which a bus sends messages to itself, and the state of these messages.
pub(crate) struct Probe {
    channel: String,
    /// How long a message may take.
    timeout: Duration,
    state: Lock<ProbeState>,
}

#[derive(Default)]
struct ProbeState {
    listening: Listening,
    publishing_refused: bool,
    last_number: u64,
    pending: Option<Pending>,
    /// Why the subscription connection must be replaced, too.
    lost: Option<BusError>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Listening {
    #[default]
    No,
    Yes,
    Refused,
}

/// A message that has not arrived yet.
#[derive(Clone, Copy)]
struct Pending {
    number: u64,
    deadline: Time,
}

impl Probe {
    pub(crate) fn new(connector: &Connector) -> Self {
        let seed = connector.runtime.seed();
        let id: String = seed[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        let channel = connector.options.prefixed(&format!("{CHANNEL}{id}")).into_owned();
        Self::on(channel, connector.options.response_timeout)
    }

    fn on(channel: String, timeout: Duration) -> Self {
        Self { channel, timeout, state: Lock::default() }
    }

    /// Returns the command that this side sends next, if there is one.
    pub(crate) fn command(&self, side: Side, now: Time) -> Option<Cmd> {
        let mut state = self.state.lock();
        match side {
            Side::Subscriptions => (state.listening == Listening::No).then(|| {
                let mut command = redis::cmd("SUBSCRIBE");
                command.arg(&self.channel);
                command
            }),
            Side::Commands => {
                let is_due =
                    state.listening == Listening::Yes && state.pending.is_none() && !state.publishing_refused;
                is_due.then(|| {
                    state.last_number += 1;
                    let number = state.last_number;
                    state.pending = Some(Pending { number, deadline: now + self.timeout });
                    let mut command = redis::cmd("PUBLISH");
                    command.arg(&self.channel).arg(number);
                    command
                })
            }
        }
    }

    /// Handles the reply to the command of this side.
    pub(crate) fn replied(&self, side: Side, reply: &Value) {
        let mut state = self.state.lock();
        let is_refused = matches!(reply, Value::ServerError(_));
        match side {
            Side::Subscriptions => {
                state.listening = if is_refused { Listening::Refused } else { Listening::Yes };
            }
            Side::Commands if is_refused => {
                state.publishing_refused = true;
                state.pending = None;
            }
            Side::Commands => {}
        }
    }

    /// Handles a message. Returns `true` if it is one of the bus's own.
    pub(crate) fn received(&self, channel: &[u8], message: &[u8]) -> bool {
        if channel != self.channel.as_bytes() {
            return false;
        }
        let mut state = self.state.lock();
        let number = str::from_utf8(message).ok().and_then(|number| number.parse::<u64>().ok());
        if state.pending.is_some_and(|pending| number == Some(pending.number)) {
            state.pending = None;
        }
        true
    }

    /// Returns when the pending message must have arrived.
    pub(crate) fn deadline(&self) -> Option<Time> {
        self.state.lock().pending.map(|pending| pending.deadline)
    }

    /// Gives up both connections if the pending message is overdue. Returns `true` if it is.
    pub(crate) fn give_up(&self, now: Time, cause: &BusError) -> bool {
        let mut state = self.state.lock();
        let is_overdue = state.pending.is_some_and(|pending| pending.deadline <= now);
        if is_overdue {
            state.lost = Some(cause.clone());
        }
        is_overdue
    }

    /// Returns the reason why the other side has given up this one.
    pub(crate) fn given_up(&self, side: Side) -> Option<BusError> {
        match side {
            Side::Subscriptions => self.state.lock().lost.clone(),
            Side::Commands => None,
        }
    }

    /// Resets the state of a lost connection.
    pub(crate) fn lost(&self, side: Side) {
        let mut state = self.state.lock();
        // A message may have been lost with the connection.
        state.pending = None;
        match side {
            Side::Subscriptions => {
                state.listening = Listening::No;
                state.lost = None;
            }
            Side::Commands => state.publishing_refused = false,
        }
    }
}

#[cfg(test)]
mod tests {
    use redis::{PushKind, ServerError};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(seconds: u64) -> Time {
        Time::from_nanos(0) + SECOND * u32::try_from(seconds).unwrap()
    }

    fn listening() -> Probe {
        let probe = Probe::on("own".into(), SECOND * 3);
        assert!(probe.command(Side::Commands, at(0)).is_none(), "nobody listens");
        assert!(probe.command(Side::Subscriptions, at(0)).is_some());
        probe.replied(Side::Subscriptions, &Value::Push { kind: PushKind::Subscribe, data: Vec::new() });
        assert!(probe.command(Side::Subscriptions, at(0)).is_none(), "once");
        probe
    }

    #[test]
    fn a_message_that_does_not_come_back_in_time_gives_up_both_sides() {
        let (probe, cause) = (listening(), BusError::new("deaf"));
        assert!(probe.command(Side::Commands, at(1)).is_some());
        assert!(probe.command(Side::Commands, at(2)).is_none(), "one at a time");
        assert!(!probe.received(b"other", b"1") && probe.received(b"own", b"7"), "another number");
        assert!(!probe.give_up(at(3), &cause) && probe.given_up(Side::Subscriptions).is_none());
        assert!(probe.give_up(at(4), &cause));
        assert!(probe.given_up(Side::Subscriptions).is_some() && probe.given_up(Side::Commands).is_none());
        probe.lost(Side::Commands);
        probe.lost(Side::Subscriptions);
        assert!(probe.given_up(Side::Subscriptions).is_none() && probe.deadline().is_none());
        assert!(probe.command(Side::Subscriptions, at(5)).is_some(), "on the next connection");
    }

    #[test]
    fn a_message_that_comes_back_makes_room_for_the_next() {
        let probe = listening();
        assert!(probe.command(Side::Commands, at(1)).is_some() && probe.deadline() == Some(at(4)));
        assert!(probe.received(b"own", b"1"));
        assert!(!probe.give_up(at(9), &BusError::new("deaf")));
        assert!(probe.command(Side::Commands, at(9)).is_some());
    }

    #[test]
    fn a_side_that_is_refused_is_not_probed_until_it_connects_again() {
        let refused = redis::make_extension_error("NOPERM".into(), None);
        let refused = Value::ServerError(ServerError::try_from(refused).unwrap());
        let probe = listening();
        assert!(probe.command(Side::Commands, at(1)).is_some());
        probe.replied(Side::Commands, &refused);
        assert!(probe.deadline().is_none() && probe.command(Side::Commands, at(2)).is_none());
        probe.lost(Side::Commands);
        assert!(probe.command(Side::Commands, at(3)).is_some());
        probe.lost(Side::Subscriptions);
        probe.replied(Side::Subscriptions, &refused);
        assert!(probe.command(Side::Subscriptions, at(4)).is_none());
        assert!(probe.command(Side::Commands, at(4)).is_none());
    }
}
