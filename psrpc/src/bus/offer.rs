//! Offers: a frame as it is offered to a bus, and what the bus says.

use std::fmt;
use std::sync::Arc;

use psrpc_engine::proto::{Channel, Frame};
use psrpc_engine::{BusError, LentFrame};

use super::mailbox::Mailbox;
use super::receipt::{Receipt, ReplyTo};

/// A frame that is offered to a bus, which takes it, or drops the offer and says that it is
/// [`Full`].
pub struct Offer<'a> {
    content: Option<Content<'a>>,
    /// Whether the thread was unwinding already when the offer was made.
    was_panicking: bool,
}

enum Content<'a> {
    /// The frame at the head of an engine's queue.
    Lent { frame: LentFrame<'a>, mailbox: &'a Arc<Mailbox>, taken: &'a mut bool },
    /// Boxed, since it is rare and offers are moved about.
    Owned(Box<(Channel, Frame, ReplyTo)>),
}

impl<'a> Offer<'a> {
    /// Returns an offer of a frame that its owner gives away, for a bus that wraps another.
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

    /// Takes the frame, for a bus that knows the result of the publish at once.
    #[inline]
    pub fn take(mut self) -> Frame {
        match self.content.take().expect(ONCE) {
            Content::Lent { frame, taken, .. } => {
                *taken = true;
                frame.take_frame()
            }
            Content::Owned(owned) => owned.1,
        }
    }

    /// Takes the frame, with the receipt that tells the result [later](Accepted::Later).
    pub fn take_for_later(self) -> (Channel, Frame, Receipt) {
        let (channel, frame, reply_to) = self.into_parts();
        (channel, frame, reply_to.receipt())
    }

    /// Takes the frame, and where the result goes: for a bus that wraps another.
    pub fn into_parts(mut self) -> (Channel, Frame, ReplyTo) {
        match self.content.take().expect(ONCE) {
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
        self.content.as_ref().expect(ONCE)
    }
}

const ONCE: &str = "a frame is taken once";

impl fmt::Debug for Offer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offer").field("channel", self.channel()).field("frame", self.frame()).finish()
    }
}

impl Drop for Offer<'_> {
    /// A frame that a bus panics over is lost: it would panic again.
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

/// A bus has accepted a frame, and says what it knows.
#[derive(Clone, Debug)]
#[must_use]
pub enum Accepted {
    /// The frame was published, and handed to so many subscribers where the bus knows.
    Done(Option<u64>),
    /// The frame was not published, and will not be.
    Failed(BusError),
    /// The frame has its place in the order; the receipt tells the result.
    Later,
}

/// A bus has no room for a frame now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;
