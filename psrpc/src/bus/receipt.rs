//! Receipts, by which a bus reports the result of a publish later.

use std::fmt;
use std::sync::Arc;

use psrpc_engine::{BusError, Token};

use super::mailbox::Mailbox;

/// The target of a publish result that the bus reports later. Dropping it reports nothing.
pub struct ReplyTo(ReceiptTarget);

enum ReceiptTarget {
    Driver { mailbox: Arc<Mailbox>, token: Token },
    Closure(Box<dyn FnOnce(Result<Option<u64>, BusError>) + Send>),
}

impl ReplyTo {
    /// Returns a target that calls `report` with the number of subscribers that received the frame,
    /// if the bus knows it, or with the reason why the frame was not published.
    pub fn new(report: impl FnOnce(Result<Option<u64>, BusError>) + Send + 'static) -> Self {
        Self(ReceiptTarget::Closure(Box::new(report)))
    }

    pub(crate) fn driver(mailbox: Arc<Mailbox>, token: Token) -> Self {
        Self(ReceiptTarget::Driver { mailbox, token })
    }

    /// Turns the target into a receipt.
    pub fn receipt(self) -> Receipt {
        Receipt(Some(self))
    }
}

impl fmt::Debug for ReplyTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplyTo").finish_non_exhaustive()
    }
}

/// A handle to report the result of a publish later. Dropping it without a result reports a
/// failure.
///
/// Reporting wakes a task, so no lock may be held at that time.
pub struct Receipt(Option<ReplyTo>);

impl Receipt {
    /// Reports that the frame was published, and the number of subscribers that received it, if the
    /// bus knows it.
    pub fn published(mut self, receivers: Option<u64>) {
        self.report(Ok(receivers));
    }

    /// Reports that the frame was not published, or that it was not confirmed.
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
