//! Forged frames, which a faulty or hostile bus delivers besides the published ones.

use bytes::Bytes;
use psrpc_engine::proto::{
    Any, ClaimRequest, ClaimResponse, Frame, FrameLimits, Response, Stream, StreamBody, Text,
};

use crate::fault::Fault;
use crate::rng::Rng;

const FORGED_SERVER: &str = "SRV_stranger";
const FORGED_REQUEST: &str = "REQ_strange_";

/// Returns `true` if only forged frames use this server id.
pub(crate) fn is_forged_server(server_id: &Text) -> bool {
    server_id.as_str().starts_with(FORGED_SERVER)
}

/// Returns `true` if only forged openings use this request id.
pub(crate) fn is_forged_request(request_id: &Text) -> bool {
    request_id.as_str().starts_with(FORGED_REQUEST)
}

/// Returns the frame as bytes, with some of them changed or missing.
///
/// The result never decodes as a message of the protocol: that would be forgery rather than damage,
/// and a real bus detects damage by checksums.
pub(crate) fn damage(frame: &Frame, rng: &mut Rng) -> Frame {
    let mut bytes = frame.encode("").to_vec();
    loop {
        if rng.chance(300) {
            bytes.truncate(rng.index(bytes.len()));
        }
        if bytes.is_empty() {
            bytes.push(rng.bits() as u8);
        }
        let changed = rng.index(bytes.len());
        bytes[changed] ^= 1 << rng.below(8);
        let damaged = Bytes::copy_from_slice(&bytes);
        match Frame::decode(&damaged, &FrameLimits::DEFAULT) {
            Ok((Frame::Other(other), _)) if has_same_type(frame, &other) => {}
            Err(_) | Ok((Frame::Other(_), _)) => return Frame::Raw(damaged),
            Ok(_) => {}
        }
    }
}

/// Returns `true` if a frame is a user's message of the same type.
fn has_same_type(frame: &Frame, other: &Any) -> bool {
    matches!(frame, Frame::Other(known) if known.type_url.as_str().rsplit('/').next() == other.type_url.as_str().rsplit('/').next())
}

/// Returns random bytes.
pub(crate) fn noise(rng: &mut Rng) -> Frame {
    let len = rng.index(40);
    Frame::Raw((0..len).map(|_| rng.bits() as u8).collect())
}

/// Returns a frame of a type that is unexpected where `frame` arrives.
pub(crate) fn unexpected_type(frame: &Frame, rng: &mut Rng) -> Frame {
    let type_url = Text::from_static("type.googleapis.com/google.protobuf.Empty");
    let (request_id, server_id) =
        request_and_server(frame).unwrap_or_else(|| ("REQ_unknown".into(), FORGED_SERVER.into()));
    match (rng.below(3), frame) {
        (0, _) => Frame::Other(Any { type_url, value: Bytes::new() }),
        (1, _) => Frame::Stream(Stream { request_id, body: Some(StreamBody::Ack), ..Stream::default() }),
        (_, Frame::Request(_) | Frame::Response(_)) => {
            Frame::ClaimResponse(ClaimResponse { request_id, server_id })
        }
        _ => forge_response(request_id, server_id),
    }
}

/// Returns the same frame for an unknown call, or `None` if the frame starts a call or belongs to
/// none.
pub(crate) fn unknown_call(frame: &Frame) -> Option<Frame> {
    let mut frame = frame.clone();
    let request_id = match &mut frame {
        Frame::ClaimRequest(claim) => &mut claim.request_id,
        Frame::ClaimResponse(grant) => &mut grant.request_id,
        Frame::Response(response) => &mut response.request_id,
        Frame::Stream(Stream { body: Some(StreamBody::Open { .. }), .. }) => return None,
        Frame::Stream(stream) => &mut stream.stream_id,
        _ => return None,
    };
    *request_id = "REQ_unknown".into();
    Some(frame)
}

/// Returns another bid of the same server for the same call, or `None` if the frame is not a bid.
/// An announcement is not a bid: a server that announces does not bid as well.
pub(crate) fn second_bid(frame: &Frame, rng: &mut Rng) -> Option<Frame> {
    match frame {
        Frame::ClaimRequest(bid) if !bid.handling => {
            let affinity = rng.pick(&[0.0, 0.5, 1.0]);
            Some(Frame::ClaimRequest(ClaimRequest { affinity, ..bid.clone() }))
        }
        _ => None,
    }
}

/// Returns a bid of a forged server with a non-finite affinity, or `None` if the frame is neither a
/// bid nor an announcement.
pub(crate) fn non_finite_bid(frame: &Frame, rng: &mut Rng) -> Option<Frame> {
    let Frame::ClaimRequest(bid) = frame else { return None };
    let affinity = rng.pick(&[f32::INFINITY, f32::NEG_INFINITY, f32::NAN]);
    let server_id = FORGED_SERVER.into();
    Some(Frame::ClaimRequest(ClaimRequest { server_id, affinity, handling: false, ..bid.clone() }))
}

/// Returns the response of a forged server to the call, or `None` if the frame is neither a bid nor
/// an announcement.
pub(crate) fn forged_response(frame: &Frame) -> Option<Frame> {
    let Frame::ClaimRequest(bid) = frame else { return None };
    Some(forge_response(bid.request_id.clone(), FORGED_SERVER.into()))
}

/// Returns a flood of forged frames that resemble this one, or `None` if the fault does not apply
/// to this kind of frame.
pub(crate) fn flood(fault: Fault, frame: &Frame, rng: &mut Rng) -> Option<Vec<Frame>> {
    let forged_server = |number: u64| Text::from(format!("{FORGED_SERVER}_{number}"));
    let forged = |number| match (fault, frame) {
        // Affinity 0 is no better than the worst bid that counts, so other servers can still win.
        (Fault::FloodOfBids, Frame::ClaimRequest(bid)) => Some(Frame::ClaimRequest(ClaimRequest {
            server_id: forged_server(number),
            affinity: 0.0,
            handling: false,
            ..bid.clone()
        })),
        (Fault::FloodOfResponses, Frame::Response(response)) => {
            Some(forge_response(response.request_id.clone(), forged_server(number)))
        }
        (Fault::FloodOfOpens, Frame::Stream(open @ Stream { body: Some(StreamBody::Open { .. }), .. })) => {
            let id = |kind: &str| Text::from(format!("{kind}{number}_of_{}", open.stream_id));
            let body = StreamBody::Open { node_id: forged_server(number), metadata: Default::default() };
            let (stream_id, request_id) = (id("STR_strange_"), id(FORGED_REQUEST));
            Some(Frame::Stream(Stream { stream_id, request_id, body: Some(body), ..open.clone() }))
        }
        _ => None,
    };
    (0..rng.within(5..20)).map(forged).collect()
}

fn forge_response(request_id: Text, server_id: Text) -> Frame {
    let payload = Bytes::from_static(b"forged");
    Frame::Response(Response { request_id, server_id, sent_at: 1, result: Ok(payload) })
}

/// Returns the request id and the server id of a frame.
fn request_and_server(frame: &Frame) -> Option<(Text, Text)> {
    match frame {
        Frame::Request(request) => Some((request.request_id.clone(), FORGED_SERVER.into())),
        Frame::ClaimRequest(claim) => Some((claim.request_id.clone(), claim.server_id.clone())),
        Frame::ClaimResponse(grant) => Some((grant.request_id.clone(), grant.server_id.clone())),
        Frame::Response(response) => Some((response.request_id.clone(), response.server_id.clone())),
        Frame::Stream(_) | Frame::Other(_) | Frame::Raw(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_frame_never_passes_for_another() {
        let frame = forge_response("REQ_1".into(), "SRV_1".into());
        let mut rng = Rng::new(1);
        for _ in 0..10_000 {
            let Frame::Raw(bytes) = damage(&frame, &mut rng) else { panic!("a damaged frame must be raw") };
            let decoded = Frame::decode(&bytes, &FrameLimits::DEFAULT);
            assert!(matches!(decoded, Err(_) | Ok((Frame::Other(_), _))), "{decoded:?}");
        }
    }
}
