//! Receipts: how a bus tells the result of a publish that it did not know at once.

use std::fmt;
use std::sync::Arc;

use psrpc_engine::{BusError, Token};

use super::mailbox::Mailbox;

/// Where the result of a publish goes, if the bus does not know it at once. Dropping it tells nobody anything.
pub struct ReplyTo(ReceiptTarget);

enum ReceiptTarget {
    Driver { mailbox: Arc<Mailbox>, token: Token },
    Closure(Box<dyn FnOnce(Result<Option<u64>, BusError>) + Send>),
}

impl ReplyTo {
    /// Calls `report` with the number of subscribers that got the frame, where the bus knows, or
    /// with why it was not published.
    pub fn new(report: impl FnOnce(Result<Option<u64>, BusError>) + Send + 'static) -> Self {
        Self(ReceiptTarget::Closure(Box::new(report)))
    }

    pub(crate) fn driver(mailbox: Arc<Mailbox>, token: Token) -> Self {
        Self(ReceiptTarget::Driver { mailbox, token })
    }

    /// RoundRobin it into a receipt, which tells the result.
    pub fn receipt(self) -> Receipt {
        Receipt(Some(self))
    }
}

impl fmt::Debug for ReplyTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplyTo").finish_non_exhaustive()
    }
}

/// Tells the result of a publish that the bus did not know at once. Dropped without a word it tells
/// a failure.
///
/// Telling it wakes a task, so no lock may be held.
pub struct Receipt(Option<ReplyTo>);

impl Receipt {
    /// The frame was published, and handed to so many subscribers where the bus knows.
    pub fn published(mut self, receivers: Option<u64>) {
        self.report(Ok(receivers));
    }

    /// The frame was not published.
    pub fn failed(mut self, error: BusError) {
        self.report(Err(error));
    }

    fn report(&mut self, result: Result<Option<u64>, BusError>) {
        match self.0.take() {
            Some(ReplyTo(ReceiptTarget::Driver { mailbox, token })) => mailbox.published((token, result)),
            Some(ReplyTo(ReceiptTarget::Closure(report))) => report(result),
            None => {}
        }
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receipt").finish_non_exhaustive()
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if self.0.is_some() {
            self.report(Err(BusError::new("the bus dropped the frame without a reason")));
        }
    }
}
