//! Offers, by which a client or server hands a frame to a bus.

use std::fmt;
use std::sync::Arc;

use psrpc_engine::proto::{Channel, Frame};
use psrpc_engine::{BusError, LentFrame};

use super::mailbox::Mailbox;
use super::receipt::{Receipt, ReplyTo};

/// A frame offered to a bus. The bus takes it, or drops the offer and returns [`Full`].
pub struct Offer<'a> {
    content: Option<Content<'a>>,
    /// Whether the thread was already unwinding when the offer was made.
    was_panicking: bool,
}

enum Content<'a> {
    /// The frame at the head of an engine's queue.
    Lent { frame: LentFrame<'a>, mailbox: &'a Arc<Mailbox>, taken: &'a mut bool },
    /// Boxed, since it is rare and offers are moved around.
    Owned(Box<(Channel, Frame, ReplyTo)>),
}

impl<'a> Offer<'a> {
    /// Returns an offer of an owned frame, for a bus that wraps another.
    pub fn new(channel: Channel, frame: Frame, reply_to: ReplyTo) -> Self {
        Self::of(Content::Owned(Box::new((channel, frame, reply_to))))
    }

    #[inline]
    fn of(content: Content<'a>) -> Self {
        Self { content: Some(content), was_panicking: std::thread::panicking() }
    }

    #[inline]
    pub(crate) fn lent(frame: LentFrame<'a>, mailbox: &'a Arc<Mailbox>, taken: &'a mut bool) -> Self {
        Self::of(Content::Lent { frame, mailbox, taken })
    }

    /// Returns the channel to publish on.
    #[inline]
    pub fn channel(&self) -> &Channel {
        match self.content() {
            Content::Lent { frame, .. } => frame.channel(),
            Content::Owned(owned) => &owned.0,
        }
    }

    /// Returns the frame.
    pub fn frame(&self) -> &Frame {
        match self.content() {
            Content::Lent { frame, .. } => frame.frame(),
            Content::Owned(owned) => &owned.1,
        }
    }

    /// Takes the frame. For a bus that knows the result of the publish at once.
    #[inline]
    pub fn take(mut self) -> Frame {
        match self.content.take().expect(TAKEN) {
            Content::Lent { frame, taken, .. } => {
                *taken = true;
                frame.take_frame()
            }
            Content::Owned(owned) => owned.1,
        }
    }

    /// Takes the frame, with a receipt to report the result [later](Accepted::Later).
    pub fn take_for_later(self) -> (Channel, Frame, Receipt) {
        let (channel, frame, reply_to) = self.into_parts();
        (channel, frame, reply_to.receipt())
    }

    /// Takes the frame, with the target of the result. For a bus that wraps another.
    pub fn into_parts(mut self) -> (Channel, Frame, ReplyTo) {
        match self.content.take().expect(TAKEN) {
            Content::Lent { frame, mailbox, taken } => {
                *taken = true;
                let reply_to = ReplyTo::driver(Arc::clone(mailbox), frame.token());
                let (channel, frame) = frame.take();
                (channel, frame, reply_to)
            }
            Content::Owned(owned) => *owned,
        }
    }

    #[inline]
    fn content(&self) -> &Content<'a> {
        self.content.as_ref().expect(TAKEN)
    }
}

const TAKEN: &str = "the frame was already taken";

impl fmt::Debug for Offer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offer").field("channel", self.channel()).field("frame", self.frame()).finish()
    }
}

impl Drop for Offer<'_> {
    /// Discards the frame if the bus panicked on it, since the bus would panic on it again.
    fn drop(&mut self) {
        if std::thread::panicking()
            && !self.was_panicking
            && let Some(Content::Lent { frame, taken, .. }) = self.content.take()
        {
            *taken = true;
            frame.discard();
        }
    }
}

/// The result of offering a frame that the bus accepted.
#[derive(Clone, Debug)]
#[must_use]
pub enum Accepted {
    /// The frame was published. Holds the number of subscribers that received it, if the bus knows
    /// it.
    Done(Option<u64>),
    /// The frame was not published, and will not be.
    Failed(BusError),
    /// The frame has its place in the order. The receipt reports the result.
    Later,
}

/// The error of a bus that has no room for a frame now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;
