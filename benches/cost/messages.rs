//! A sample of each message of the protocol: payloads of 64 bytes, no metadata, generated ids.

use bytes::Bytes;
use psrpc_engine::proto::{
    Any, ClaimRequest, ClaimResponse, ErrorCode, ErrorResponse, Frame, Metadata, Request, Response, Stream,
    StreamBody, Text,
};

const SENT_AT: i64 = 1_795_345_422_597_360_562;
const EXPIRY: i64 = SENT_AT + 3_000_000_000;

fn request_id() -> Text {
    "REQ_3uCAEw6NG1Sh".into()
}

fn client_id() -> Text {
    "CLI_L4brBeZaAcP1".into()
}

fn server_id() -> Text {
    "SRV_t2JoZkQm5Xe8".into()
}

fn payload() -> Bytes {
    vec![b'x'; 64].into()
}

/// Returns a request.
pub fn request() -> Frame {
    Frame::Request(Request {
        request_id: request_id(),
        client_id: client_id(),
        sent_at: SENT_AT,
        expiry: EXPIRY,
        payload: payload(),
        skip_claim: true,
        ..Request::default()
    })
}

/// Returns a bid.
pub fn claim_request() -> Frame {
    Frame::ClaimRequest(ClaimRequest {
        request_id: request_id(),
        server_id: server_id(),
        affinity: 0.5,
        handling: false,
    })
}

/// Returns a grant.
pub fn claim_response() -> Frame {
    Frame::ClaimResponse(ClaimResponse { request_id: request_id(), server_id: server_id() })
}

/// Returns a response.
pub fn response() -> Frame {
    response_with(Ok(payload()))
}

/// Returns an error response without details.
pub fn error_response() -> Frame {
    response_with(Err(ErrorResponse::new(ErrorCode::NotFound, "no hat is called fez or the like")))
}

fn response_with(result: Result<Bytes, ErrorResponse>) -> Frame {
    Frame::Response(Response { request_id: request_id(), server_id: server_id(), sent_at: SENT_AT, result })
}

/// Returns the opening of a stream.
pub fn stream_open() -> Frame {
    stream(StreamBody::Open { node_id: client_id(), metadata: Metadata::new() })
}

/// Returns a message of a stream.
pub fn stream_message() -> Frame {
    stream(StreamBody::Message { payload: payload() })
}

/// Returns the ack of a message.
pub fn stream_ack() -> Frame {
    stream(StreamBody::Ack)
}

/// Returns the end of a stream.
pub fn stream_close() -> Frame {
    stream(StreamBody::Close { code: ErrorCode::Canceled, text: "stream closed".into() })
}

fn stream(body: StreamBody) -> Frame {
    Frame::Stream(Stream {
        stream_id: "STR_pR7d0YfWn3Lb".into(),
        request_id: request_id(),
        sent_at: SENT_AT,
        expiry: EXPIRY,
        body: Some(body),
    })
}

/// Returns an update, which is encoded as the user's own message.
pub fn update() -> Frame {
    Frame::Other(Any { type_url: "type.googleapis.com/hats.v1.Hat".into(), value: payload() })
}
