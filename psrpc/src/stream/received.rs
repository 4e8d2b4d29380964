//! The messages of one stream that its consumer has not taken, in the order in which the engine
//! delivered them. Messages are decoded on several threads, and may be ready in another order.

use std::collections::VecDeque;

use crate::message::AnyMessage;

/// The messages of one stream that its consumer has not taken.
#[derive(Default)]
pub(super) struct ReceivedMessages {
    messages: VecDeque<ReceivedMessage>,
    /// The number of messages that have left the queue.
    left: u64,
}

enum ReceivedMessage {
    Decoding,
    Decoded(AnyMessage),
    Rejected,
}

/// The place of a message in the order of its stream.
#[derive(Clone, Copy)]
pub(crate) struct Place(u64);

impl ReceivedMessages {
    /// Reserves a place for a message that is being decoded.
    pub(super) fn reserve(&mut self) -> Place {
        self.messages.push_back(ReceivedMessage::Decoding);
        Place(self.left + self.messages.len() as u64 - 1)
    }

    /// Puts a decoded message into its place. Returns `true` if it is the next to be taken.
    pub(super) fn fill(&mut self, place: Place, message: AnyMessage) -> bool {
        self.set(place, ReceivedMessage::Decoded(message));
        place.0 == self.left
    }

    /// Gives up the place of a message that was rejected.
    pub(super) fn reject(&mut self, place: Place) {
        self.set(place, ReceivedMessage::Rejected);
    }

    fn set(&mut self, Place(place): Place, message: ReceivedMessage) {
        let index = place.checked_sub(self.left).and_then(|index| usize::try_from(index).ok());
        if let Some(reserved) = index.and_then(|index| self.messages.get_mut(index)) {
            *reserved = message;
        }
    }

    /// Takes the next message, if it is decoded.
    pub(super) fn pop(&mut self) -> Option<AnyMessage> {
        while !matches!(self.messages.front()?, ReceivedMessage::Decoding) {
            self.left += 1;
            if let Some(ReceivedMessage::Decoded(message)) = self.messages.pop_front() {
                return Some(message);
            }
        }
        None
    }

    /// Returns `true` if no message is left, not even one that is being decoded.
    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> AnyMessage {
        AnyMessage::new(text.to_owned())
    }

    fn pop(messages: &mut ReceivedMessages) -> Option<String> {
        messages.pop().map(|message| message.into_message().expect("it is a text"))
    }

    #[test]
    fn messages_are_taken_in_the_order_of_their_places() {
        let mut messages = ReceivedMessages::default();
        let [first, second, third] = [(); 3].map(|()| messages.reserve());
        assert!(!messages.fill(third, message("third")));
        assert_eq!(pop(&mut messages), None);
        assert!(messages.fill(first, message("first")));
        assert_eq!(pop(&mut messages).as_deref(), Some("first"));
        assert_eq!(pop(&mut messages), None, "the second is being decoded");
        assert!(messages.fill(second, message("second")));
        assert_eq!(pop(&mut messages).as_deref(), Some("second"));
        assert_eq!(pop(&mut messages).as_deref(), Some("third"));
        assert!(messages.is_empty());
    }

    #[test]
    fn a_rejected_message_holds_up_no_other() {
        let mut messages = ReceivedMessages::default();
        let [first, second] = [(); 2].map(|()| messages.reserve());
        messages.fill(second, message("second"));
        messages.reject(first);
        assert_eq!(pop(&mut messages).as_deref(), Some("second"));
        let last = messages.reserve();
        messages.reject(last);
        assert_eq!(pop(&mut messages), None);
        assert!(messages.is_empty());
    }
}
