//! The response: a server's message or error.

use alloc::vec::Vec;

use bytes::Bytes;

use crate::any::{AnyDraft, PayloadDraft};
use crate::text::Utf8;
use crate::wire::{Decode, Encode, Reader, Sink, WireFault, WireType};
use crate::{Any, ErrorCode, Text};

/// A server's response to a request (`internal.Response`, PROTOCOL sections 1 and 5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The answered call.
    pub request_id: Text,
    /// The answering server.
    pub server_id: Text,
    /// When the response was sent, by the server's wall clock, in Unix nanoseconds.
    pub sent_at: i64,
    /// The encoded message, or the error. A response with an error code *or* an error text is an
    /// error.
    pub result: Result<Bytes, ErrorResponse>,
}

/// The error in a [`Response`] (PROTOCOL sections 5 and 10).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorResponse {
    /// The code; an empty one is read as `unknown`.
    pub code: ErrorCode,
    /// The text. An empty text is sent as the code, because Go reads an error without text as
    /// success.
    pub text: Text,
    /// Messages with further details.
    pub details: Vec<Any>,
}

impl ErrorResponse {
    /// Creates an error without details.
    pub fn new(code: ErrorCode, text: impl Into<Text>) -> Self {
        Self { code, text: text.into(), details: Vec::new() }
    }
}

impl Encode for Response {
    fn encode(&self, out: &mut impl Sink) {
        out.text(1, &self.request_id);
        out.text(2, &self.server_id);
        out.int64(3, self.sent_at);
        match &self.result {
            Ok(payload) => out.bytes(7, payload),
            Err(ErrorResponse { code, text, details }) => {
                let code = code.as_bytes();
                out.delimited(5, if text.is_empty() { code } else { text.as_bytes() });
                out.delimited(6, code);
                for detail in details {
                    out.message(8, detail);
                }
            }
        }
    }
}

#[derive(Default)]
pub(crate) struct ResponseDraft<'a> {
    request_id: Utf8<'a>,
    server_id: Utf8<'a>,
    sent_at: i64,
    error: Utf8<'a>,
    code: Utf8<'a>,
    details: Vec<Any>,
    payload: PayloadDraft<'a>,
}

impl<'a> Decode<'a> for ResponseDraft<'a> {
    const NAME: &'static str = "internal.Response";
    type Message = Response;

    fn field(&mut self, field: u32, wire: WireType, reader: &mut Reader<'a>) -> Result<(), WireFault> {
        match field {
            1 => self.request_id = reader.id(wire)?,
            2 => self.server_id = reader.id(wire)?,
            3 => self.sent_at = reader.int64(wire)?,
            4 => self.payload.any(wire, reader)?,
            5 => self.error = reader.text(wire)?,
            6 => self.code = reader.text(wire)?,
            7 => self.payload.raw(wire, reader)?,
            8 => {
                if self.details.len() >= reader.limits().error_details {
                    return Err(WireFault::TooManyDetails);
                }
                let mut detail = AnyDraft::default();
                reader.embedded(wire, &mut detail)?;
                self.details.push(detail.finish(reader.frame()));
            }
            _ => reader.skip(field, wire)?,
        }
        Ok(())
    }

    #[inline]
    fn finish(&mut self, frame: &Bytes) -> Response {
        let result = if self.error.is_empty() && self.code.is_empty() {
            Ok(self.payload.finish(frame))
        } else {
            let code = ErrorCode::from(Text::slice(frame, self.code));
            Err(ErrorResponse {
                code,
                text: Text::slice(frame, self.error),
                details: core::mem::take(&mut self.details),
            })
        };
        Response {
            request_id: Text::copy(self.request_id),
            server_id: Text::copy(self.server_id),
            sent_at: self.sent_at,
            result,
        }
    }
}
