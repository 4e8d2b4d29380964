//! What was heard of a call that is in flight.

use alloc::borrow::ToOwned;
use alloc::vec::Vec;

use psrpc_proto::{ErrorResponse, Text};

use crate::error::Refusal;

/// What was heard of a call that is in flight: as much of its evidence as its state does not tell.
#[derive(Default)]
pub(crate) struct Heard {
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

impl Heard {
    /// More say nothing new, and would let strangers fill the memory.
    const MAX_REFUSALS: usize = 8;
    const MAX_REFUSAL_TEXT: usize = 256;

    /// Notes an error that did not end the call. Copied: a text holds the frame that it came in.
    pub(crate) fn refused(&mut self, server_id: &Text, error: &ErrorResponse) {
        if self.refusals.len() < Self::MAX_REFUSALS {
            let text = error.text.as_str();
            let most = text.len().min(Self::MAX_REFUSAL_TEXT);
            let end = (0..=most).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
            let (server_id, code) = (server_id.as_str().to_owned(), error.code.as_str().into());
            self.refusals.push(Refusal { server_id, code, text: text[..end].to_owned() });
        }
    }
}
