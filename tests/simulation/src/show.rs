//! Frames in a few words, for the trace.

use std::fmt;

use psrpc_engine::proto::{Frame, Response, Stream, StreamBody};

/// Shows a frame.
pub(crate) struct Shown<'a>(pub(crate) &'a Frame);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Frame::Request(request) => {
                write!(f, "request {} of {}", request.request_id, request.client_id)?;
                write!(f, " ({:?}) until {}", request.payload, request.expiry)
            }
            Frame::ClaimRequest(claim) if claim.handling => {
                write!(f, "announcement of {} by {}", claim.request_id, claim.server_id)
            }
            Frame::ClaimRequest(claim) => {
                write!(f, "bid of {} for {} by {}", claim.affinity, claim.request_id, claim.server_id)
            }
            Frame::ClaimResponse(grant) => write!(f, "grant of {} to {}", grant.request_id, grant.server_id),
            Frame::Response(Response { request_id, server_id, result, .. }) => {
                write!(f, "answer to {request_id} by {server_id}: ")?;
                match result {
                    Ok(payload) => write!(f, "{payload:?}"),
                    Err(error) => write!(f, "error {} {:?}", error.code, error.text),
                }
            }
            Frame::Stream(Stream { stream_id, request_id, body, .. }) => {
                write!(f, "stream {stream_id}: ")?;
                match body {
                    Some(StreamBody::Open { node_id, .. }) => write!(f, "opening {request_id} by {node_id}"),
                    Some(StreamBody::Message { payload }) => write!(f, "message {request_id} {payload:?}"),
                    Some(StreamBody::Ack) => write!(f, "ack of {request_id}"),
                    Some(StreamBody::Close { code, text }) => write!(f, "close {code} {text:?}"),
                    None => write!(f, "nothing"),
                }
            }
            Frame::Other(other) => write!(f, "update {} {:?}", other.type_url, other.value),
            Frame::Raw(bytes) => write!(f, "raw {bytes:?}"),
        }
    }
}
