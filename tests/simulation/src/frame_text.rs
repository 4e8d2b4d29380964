//! Frames and handles as short texts, for the trace.

use std::fmt;

use psrpc_engine::proto::{Frame, Response, Stream, StreamBody};

/// Shows a frame in full.
pub(crate) struct FrameText<'a>(pub(crate) &'a Frame);

impl fmt::Display for FrameText<'_> {
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
                write!(f, "response to {request_id} by {server_id}: ")?;
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

/// Shows the kind of a frame and the call it belongs to.
pub(crate) struct BriefFrameText<'a>(pub(crate) &'a Frame);

impl fmt::Display for BriefFrameText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Frame::Request(request) => write!(f, "request {}", request.request_id),
            Frame::ClaimRequest(claim) if claim.handling => write!(f, "announcement of {}", claim.request_id),
            Frame::ClaimRequest(claim) => {
                write!(f, "bid {} for {} by {}", claim.affinity, claim.request_id, claim.server_id)
            }
            Frame::ClaimResponse(grant) => write!(f, "grant of {} to {}", grant.request_id, grant.server_id),
            Frame::Response(Response { request_id, result: Ok(_), .. }) => {
                write!(f, "response to {request_id}")
            }
            Frame::Response(Response { request_id, result: Err(error), .. }) => {
                write!(f, "error response {:?} to {request_id}", error.code.as_str())
            }
            Frame::Stream(Stream { stream_id, request_id, body, .. }) => match body {
                Some(StreamBody::Open { .. }) => write!(f, "open {stream_id} by {request_id}"),
                Some(StreamBody::Message { .. }) => write!(f, "message {request_id} on {stream_id}"),
                Some(StreamBody::Ack) => write!(f, "ack of {request_id} on {stream_id}"),
                Some(StreamBody::Close { code, .. }) => write!(f, "close {stream_id}: {code}"),
                None => write!(f, "nothing on {stream_id}"),
            },
            Frame::Other(other) => write!(f, "update {:?}", other.value),
            Frame::Raw(bytes) => write!(f, "{} bytes", bytes.len()),
        }
    }
}

/// Shortens the handles in a text to their kind, index and generation: `Request(3.1)` is the fourth
/// request slot in its second use.
pub(crate) fn without_types(text: &str) -> String {
    const HANDLE: &str = "Handle(RawHandle { index: ";
    let mut parts = text.split(HANDLE);
    let mut shown = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let numbers = part.split_once(" })").and_then(|(numbers, rest)| {
            let (index, generation) = numbers.split_once(", generation: ")?;
            Some((index, generation, rest))
        });
        match numbers {
            Some((index, generation, rest)) => shown.extend(["(", index, ".", generation, ")", rest]),
            None => shown.extend([HANDLE, part]),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_are_shown_by_their_numbers() {
        let text = "reports X { request: RequestHandle(RawHandle { index: 3, generation: 1 }), call: None }";
        assert_eq!(without_types(text), "reports X { request: Request(3.1), call: None }");
        assert_eq!(
            without_types("resolves CallHandle(RawHandle { index: "),
            "resolves CallHandle(RawHandle { index: "
        );
    }
}
