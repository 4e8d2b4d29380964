//! Generates frames that a peer may send, about calls that the engine has in flight.

use bytes::Bytes;
use psrpc_engine::Now;
use psrpc_engine::proto::{
    Any, ClaimRequest, ClaimResponse, ErrorCode, ErrorResponse, Frame, Metadata, Request, Response, Stream,
    StreamBody, Text,
};

use crate::input::Input;

/// Ids of peers and of unknown calls, including an empty one and one that is too long.
const IDS: [&str; 5] = ["ID_a", "ID_b", "SRV_own", "", "an id of more than thirty-two bytes"];

/// The last ids that the engine used in its frames.
#[derive(Default)]
pub struct KnownIds {
    requests: Vec<Text>,
    streams: Vec<Text>,
}

impl KnownIds {
    const MOST: usize = 16;

    /// Records the ids in a frame.
    pub fn note(&mut self, frame: &Frame) {
        match frame {
            Frame::Request(Request { request_id, .. }) => Self::add(&mut self.requests, request_id),
            Frame::Stream(Stream { request_id, stream_id, .. }) => {
                Self::add(&mut self.requests, request_id);
                Self::add(&mut self.streams, stream_id);
            }
            _ => {}
        }
    }

    fn add(ids: &mut Vec<Text>, id: &Text) {
        if !ids.contains(id) {
            if ids.len() >= Self::MOST {
                ids.remove(0);
            }
            ids.push(id.clone());
        }
    }

    /// Generates a frame that uses recorded ids.
    pub fn frame(&self, input: &mut Input<'_>, now: Now) -> Frame {
        let kind = input.byte() % 8;
        let request_id = of(input, &self.requests);
        match kind {
            0 => Frame::ClaimRequest(ClaimRequest {
                request_id,
                server_id: id(input),
                affinity: affinity(input),
                handling: input.flag(),
            }),
            1 => {
                let (server_id, sent_at) = (id(input), now.wall.as_unix_nanos());
                let result = if input.flag() { Ok(payload(input)) } else { Err(error(input)) };
                Frame::Response(Response { request_id, server_id, sent_at, result })
            }
            2 => Frame::ClaimResponse(ClaimResponse { request_id, server_id: id(input) }),
            3 | 4 => {
                let (sent_at, expiry) = times(input, now);
                Frame::Request(Request {
                    request_id,
                    client_id: id(input),
                    sent_at,
                    expiry,
                    multi: input.flag(),
                    metadata: metadata(input),
                    payload: payload(input),
                    skip_claim: input.flag(),
                })
            }
            5 | 6 => {
                let stream_id = of(input, &self.streams);
                let (sent_at, expiry) = times(input, now);
                let body = match input.byte() % 7 {
                    0 => None,
                    1 | 2 => Some(StreamBody::Open { node_id: id(input), metadata: metadata(input) }),
                    3 | 4 => Some(StreamBody::Message { payload: payload(input) }),
                    5 => Some(StreamBody::Ack),
                    _ => {
                        let ErrorResponse { code, text, .. } = error(input);
                        Some(StreamBody::Close { code, text })
                    }
                };
                Frame::Stream(Stream { stream_id, request_id, sent_at, expiry, body })
            }
            _ => {
                let types = ["type.googleapis.com/hats.Hat", "hats.Hat", ""];
                let type_url = input.pick(&types).unwrap_or_default().into();
                Frame::Other(Any { type_url, value: payload(input) })
            }
        }
    }
}

/// Picks one of `ids`, or an unknown id.
fn of(input: &mut Input<'_>, ids: &[Text]) -> Text {
    if input.one_in(8) {
        return id(input);
    }
    // The last ids are the most likely to be in flight.
    let at = usize::from(input.byte()).checked_rem(ids.len());
    at.map_or_else(|| id(input), |at| ids[ids.len() - 1 - at].clone())
}

/// Generates the id of a peer.
pub fn id(input: &mut Input<'_>) -> Text {
    input.pick(&IDS).unwrap_or_default().into()
}

/// Generates an affinity, possibly NaN or infinite.
pub fn affinity(input: &mut Input<'_>) -> f32 {
    let affinities =
        [1.0, 0.5, 0.0, -0.0, -1.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MIN_POSITIVE, 2.0];
    input.pick(&affinities).unwrap_or_default()
}

/// Generates a message, possibly larger than a frame may be.
pub fn payload(input: &mut Input<'_>) -> Bytes {
    Bytes::from(vec![b'x'; usize::from(input.byte()) * 4])
}

/// Generates an error, possibly with too many details.
pub fn error(input: &mut Input<'_>) -> ErrorResponse {
    let code = match input.byte() % 4 {
        0 => ErrorCode::Internal,
        1 => ErrorCode::Unavailable,
        2 => ErrorCode::Other(Text::EMPTY),
        _ => ErrorCode::Other("odd".into()),
    };
    let text = "é".repeat(usize::from(input.byte()) * 2);
    let details =
        (0..input.byte() % 4).map(|_| Any { type_url: "t".into(), value: payload(input) }).collect();
    ErrorResponse { details, ..ErrorResponse::new(code, text) }
}

/// Generates metadata, possibly beyond the limits.
pub fn metadata(input: &mut Input<'_>) -> Metadata {
    let entries = input.byte() % 5;
    (0..entries).map(|entry| (format!("{entry}"), "m".repeat(usize::from(input.byte()) / 8))).collect()
}

/// Generates a send time and an expiry, close to the current time or arbitrary.
fn times(input: &mut Input<'_>, now: Now) -> (i64, i64) {
    const MS: i64 = 1_000_000;
    match input.byte() % 8 {
        0 => (input.long(), input.long()),
        1 => (0, now.wall.as_unix_nanos() + i64::from(input.number()) * MS),
        2 => {
            let sent_at = now.wall.as_unix_nanos() + (i64::from(input.number()) - 0x8000) * MS;
            (sent_at, sent_at + i64::from(input.number()) * MS)
        }
        _ => (now.wall.as_unix_nanos(), now.wall.as_unix_nanos() + i64::from(input.number()) * MS / 8),
    }
}
