//! The checks that every received frame must pass.

use psrpc_proto::{DecodeErrorKind, Frame, FrameLimits, Request, Response, Stream, StreamBody, Text};

use crate::core::outputs::{CommonEvent, Outputs};
use crate::reason::{Dropped, Reason};

/// Decodes a raw frame in place, or checks a frame that is already decoded against the limits that
/// decoding would have checked. Returns `true` if the frame is accepted.
pub(crate) fn accept<E: CommonEvent, O: Copy>(
    outputs: &mut Outputs<E, O>,
    frame: &mut Frame,
    limits: &FrameLimits,
) -> bool {
    outputs.counters.frames += 1;
    if let Frame::Raw(bytes) = frame {
        match Frame::decode(bytes, limits) {
            Ok((decoded, _)) => *frame = decoded,
            Err(error) => {
                let over_limit = matches!(error.kind, DecodeErrorKind::OverLimit { .. });
                drop_frame(outputs, frame, if over_limit { Reason::FrameLimit } else { Reason::Malformed });
                return false;
            }
        }
        return true;
    }
    let (request_id, peer) = frame_ids(frame);
    let mut within = request_id.len().max(peer.len()) <= limits.id_bytes;
    match frame {
        Frame::Request(Request { metadata, payload, .. }) => {
            within &= metadata.len() <= limits.metadata_entries
                && metadata.bytes() <= limits.metadata_bytes
                && payload.len() <= limits.frame_bytes;
        }
        Frame::Response(Response { result: Ok(payload), .. })
        | Frame::Stream(Stream { body: Some(StreamBody::Message { payload }), .. }) => {
            within &= payload.len() <= limits.frame_bytes;
        }
        Frame::Stream(Stream { body: Some(StreamBody::Open { node_id, metadata }), .. }) => {
            within &= node_id.len() <= limits.id_bytes
                && metadata.len() <= limits.metadata_entries
                && metadata.bytes() <= limits.metadata_bytes;
        }
        Frame::Other(message) => within &= message.value.len() <= limits.frame_bytes,
        Frame::Response(Response { result: Err(error), .. }) => {
            within &= error.details.len() <= limits.error_details;
        }
        _ => {}
    }
    if !within {
        // The ids are left out because they may be too long.
        outputs.dropped(Dropped::of(Reason::FrameLimit, Text::EMPTY, Text::EMPTY));
    }
    within
}

/// Drops a frame that does not belong on its channel.
pub(crate) fn unexpected<E: CommonEvent, O: Copy>(outputs: &mut Outputs<E, O>, frame: &Frame) {
    drop_frame(outputs, frame, Reason::UnexpectedType);
}

/// Drops a frame, and reports the call and the peer or stream that it names.
pub(crate) fn drop_frame<E: CommonEvent, O: Copy>(
    outputs: &mut Outputs<E, O>,
    frame: &Frame,
    reason: Reason,
) {
    let (request_id, peer) = frame_ids(frame);
    outputs.dropped(Dropped::of(reason, request_id.clone(), peer.clone()));
}

/// Returns the ids of the call and of the peer or stream that a frame names.
fn frame_ids(frame: &Frame) -> (&Text, &Text) {
    const UNKNOWN: &Text = &Text::EMPTY;
    match frame {
        Frame::Request(request) => (&request.request_id, &request.client_id),
        Frame::Response(response) => (&response.request_id, &response.server_id),
        Frame::ClaimRequest(claim) => (&claim.request_id, &claim.server_id),
        Frame::ClaimResponse(claim) => (&claim.request_id, &claim.server_id),
        Frame::Stream(Stream { request_id, stream_id, .. }) => (request_id, stream_id),
        Frame::Other(_) | Frame::Raw(_) => (UNKNOWN, UNKNOWN),
    }
}
