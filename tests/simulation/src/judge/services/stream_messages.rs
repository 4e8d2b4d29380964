//! The messages of one stream in both directions, and the checks of their order (I7).

use psrpc::Time;

use crate::judge::violation::{Checked, Invariant};

/// The direction of a message of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server.
    ToServer,
    /// From the server to the client.
    ToClient,
}

/// A stream, in both directions.
#[derive(Default)]
pub(super) struct StreamMessages {
    pub(super) to_server: Messages,
    pub(super) to_client: Messages,
    /// Whether its handler runs.
    pub(super) handled: bool,
}

/// The messages of a stream in one direction. Each send waits for the one before.
#[derive(Default)]
pub(super) struct Messages {
    /// Whether each send succeeded.
    pub(super) sent: Vec<bool>,
    pub(super) received: Vec<u64>,
    /// Whether the receiver took all messages until the end.
    pub(super) received_all: bool,
    /// When the receiver dropped the stream.
    pub(super) receiver_dropped: Option<Time>,
}

impl StreamMessages {
    pub(super) fn messages(&mut self, direction: Direction) -> &mut Messages {
        match direction {
            Direction::ToServer => &mut self.to_server,
            Direction::ToClient => &mut self.to_client,
        }
    }
}

impl Messages {
    pub(super) fn check_next(&self, number: u64) -> Checked {
        let Some(resolved) = self.sent.get(number as usize) else {
            return Invariant::I7.violated(format!("message {number} was never sent"));
        };
        if self.received.contains(&number) {
            return Invariant::I7.violated(format!("message {number} arrived twice"));
        }
        match self.received.last() {
            Some(last) if *last > number && *resolved => {
                Invariant::I7.violated(format!("message {number} arrived after {last}"))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn check_end(&self) -> Checked {
        let taken = |number: &u64| !self.sent[*number as usize] || self.received.contains(number);
        match (0..self.sent.len() as u64).find(|number| !taken(number)) {
            Some(lost) if self.received_all => Invariant::I7
                .violated(format!("the send of message {lost} succeeded, but it was not received")),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn are_accepted(sent: &[bool], numbers: &[u64]) -> Vec<bool> {
        let mut messages = Messages { sent: sent.to_vec(), ..Messages::default() };
        let receive = |number: &u64| {
            let is_accepted = messages.check_next(*number).is_ok();
            messages.received.push(*number);
            is_accepted
        };
        numbers.iter().map(receive).collect()
    }

    #[test]
    fn messages_arrive_once_in_order_and_only_if_they_were_sent() {
        assert_eq!(are_accepted(&[true, true], &[0, 1]), [true, true]);
        assert_eq!(are_accepted(&[true, true], &[1, 0]), [true, false]);
        assert_eq!(
            are_accepted(&[false, true], &[1, 0]),
            [true, true],
            "its send had failed before the next send began"
        );
        assert_eq!(are_accepted(&[true, true], &[0, 0]), [true, false]);
        assert_eq!(are_accepted(&[true], &[1]), [false]);
    }

    #[test]
    fn a_receiver_that_takes_everything_receives_every_message_that_was_sent() {
        let mut messages = Messages { sent: vec![false, true], received: vec![0], ..Messages::default() };
        assert_eq!(messages.check_end(), Ok(()));
        messages.received_all = true;
        assert!(messages.check_end().is_err());
        messages.received.push(1);
        assert_eq!(messages.check_end(), Ok(()));
    }
}
