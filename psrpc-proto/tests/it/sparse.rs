//! Frames that are mostly unknown fields do not stay in memory.

use bytes::Bytes;
use psrpc_proto::{Any, Compression, Frame, FrameLimits, Metadata, Request};

const REQUEST: &str = "type.googleapis.com/internal.Request";

/// Encodes a request with a megabyte in an unknown field.
fn sparse(compression: Option<Compression>) -> Bytes {
    let mut value = value_of(&request().encode(""));
    // Field 100, of bytes.
    value.extend([0xa2, 0x06, 0x80, 0x80, 0x40]);
    value.resize(value.len() + (1 << 20), 0);
    Frame::Other(Any { type_url: REQUEST.into(), value: value.into() }).encode_with("M.REQ", compression)
}

fn request() -> Frame {
    let mut metadata = Metadata::new();
    metadata.insert("note", "long enough to be kept as a slice of the frame".repeat(10));
    Frame::Request(Request {
        request_id: "REQ_1".into(),
        client_id: "CLI_1".into(),
        sent_at: 1,
        expiry: 2,
        multi: false,
        metadata,
        payload: Bytes::from_static(b"a payload"),
        skip_claim: true,
    })
}

/// Returns the value of an envelope whose value is longer than 127 bytes.
fn value_of(envelope: &Bytes) -> Vec<u8> {
    let start = 2 + REQUEST.len() + 3;
    envelope[start..].to_vec()
}

fn is_within(part: &[u8], whole: &Bytes) -> bool {
    whole.as_ptr_range().contains(&part.as_ptr())
}

#[test]
fn the_parts_of_a_sparse_frame_are_copied() {
    let bytes = sparse(None);
    let (frame, channel) = Frame::decode(&bytes, &FrameLimits::DEFAULT).unwrap();
    assert_eq!((&frame, channel.as_str()), (&request(), "M.REQ"));
    let Frame::Request(Request { payload, metadata, .. }) = frame else { unreachable!() };
    assert!(!is_within(&payload, &bytes));
    assert!(!is_within(metadata.get("note").unwrap().as_str().as_bytes(), &bytes));
}

#[test]
fn the_parts_of_other_large_frames_are_slices() {
    let Frame::Request(mut request) = request() else { unreachable!() };
    request.payload = vec![7; 1 << 20].into();
    let bytes = Frame::Request(request).encode("M.REQ");
    let (frame, _) = Frame::decode(&bytes, &FrameLimits::DEFAULT).unwrap();
    let Frame::Request(Request { payload, .. }) = frame else { unreachable!() };
    assert!(is_within(&payload, &bytes));
}

#[test]
fn a_sparse_frame_may_be_compressed() {
    let bytes = sparse(Some(Compression::DEFAULT));
    assert!(bytes.len() < 8192, "the frame is compressed: {} bytes", bytes.len());
    let (frame, channel) = Frame::decode(&bytes, &FrameLimits::DEFAULT).unwrap();
    assert_eq!((&frame, channel.as_str()), (&request(), "M.REQ"));
}
