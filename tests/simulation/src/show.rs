//! Frames in a few words, for the trace.

use std::fmt;

use psrpc_engine::proto::{Frame, Response};

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
            Frame::Stream(stream) => write!(f, "frame of stream {:?}", stream.stream_id),
            Frame::Other(other) => write!(f, "message {}", other.type_url),
            Frame::Raw(bytes) => write!(f, "raw {bytes:?}"),
        }
    }
}
