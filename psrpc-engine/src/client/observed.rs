//! Observations about a call in flight.

use alloc::borrow::ToOwned;
use alloc::vec::Vec;

use psrpc_proto::{ErrorResponse, Text};

use crate::error::Refusal;

/// Observations about a call in flight, for the [`Evidence`](crate::Evidence) of its failure.
#[derive(Default)]
pub(crate) struct Observed {
    /// Whether the request was handed to the bus.
    pub(crate) sent: bool,
    pub(crate) receivers: Option<u64>,
    pub(crate) bids: u32,
    pub(crate) below_minimum: u32,
    pub(crate) late_bids: u32,
    pub(crate) errors: u32,
    pub(crate) asked: bool,
    pub(crate) refusals: Vec<Refusal>,
}

impl Observed {
    /// The limit on recorded refusals. More would tell the caller nothing new, and let peers fill
    /// the memory.
    const MAX_REFUSALS: usize = 8;
    const MAX_REFUSAL_TEXT: usize = 256;

    /// Returns `true` if the bus delivered the request to no subscriber, and no server replied
    /// either.
    pub(crate) fn is_unheard(&self) -> bool {
        self.receivers == Some(0) && self.bids == 0 && self.late_bids == 0 && self.errors == 0
    }

    /// Records an error response that did not end the call. Copies the text, because a shared one
    /// would keep its frame alive.
    pub(crate) fn record_refusal(&mut self, server_id: &Text, error: &ErrorResponse) {
        if self.refusals.len() < Self::MAX_REFUSALS {
            let text = error.text.as_str();
            let most = text.len().min(Self::MAX_REFUSAL_TEXT);
            let end = (0..=most).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
            let (server_id, code) = (server_id.as_str().to_owned(), error.code.as_str().into());
            self.refusals.push(Refusal { server_id, code, text: text[..end].to_owned() });
        }
    }
}
