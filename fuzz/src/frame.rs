//! Frames: decoded frames are within the limits, and do not change when encoded and decoded again.

use std::io::Read;

use bytes::Bytes;
use flate2::read::{DeflateDecoder, MultiGzDecoder};
use psrpc_proto::{Any, Compression, Frame, FrameLimits, Metadata, Request, Response, Stream, StreamBody};

const LIMITS: FrameLimits = FrameLimits { frame_bytes: 1 << 20, ..FrameLimits::DEFAULT };

/// Low limits, which short inputs can exceed.
const TIGHT: FrameLimits =
    FrameLimits { frame_bytes: 512, id_bytes: 16, metadata_entries: 2, metadata_bytes: 32, error_details: 2 };

/// Limits that any frame within `LIMITS` satisfies after it is encoded and decompressed.
const ENOUGH: FrameLimits = FrameLimits { frame_bytes: 4 << 20, ..FrameLimits::DEFAULT };

/// Decodes an input as a frame, and as the deflated value of one.
pub fn run(input: &[u8]) {
    check(Bytes::copy_from_slice(input));
    gzip(input);
}

fn check(bytes: Bytes) {
    let tight = Frame::decode(&bytes, &TIGHT);
    let Ok((frame, channel)) = Frame::decode(&bytes, &LIMITS) else {
        assert!(tight.is_err(), "it decodes only within the tight limits");
        return;
    };
    assert!(!matches!(frame, Frame::Raw(_)));
    within(&frame, &LIMITS);
    if let Ok(tight) = tight {
        within(&tight.0, &TIGHT);
        assert_eq!(show(&tight.0), show(&frame));
    }
    let encoded = frame.encode(channel.as_str());
    assert!(encoded.len() >= frame.value_len());
    let (again, same_channel) = Frame::decode(&encoded, &ENOUGH).expect("encoded frames decode");
    assert_eq!(same_channel, channel);
    assert_eq!(again.encode(channel.as_str()), encoded);
    assert_eq!(show(&again), show(&spelled_out(frame.clone())));
    let compressed = frame.encode_with(channel.as_str(), Some(Compression { threshold: 0 }));
    assert!(compressed.len() <= encoded.len());
    let (again, _) = Frame::decode(&compressed, &ENOUGH).expect("compressed frames decode");
    assert_eq!(again.encode(channel.as_str()), encoded);
}

/// Formats a frame for comparison, since NaN affinities are not equal to themselves.
fn show(frame: &Frame) -> String {
    format!("{frame:?}")
}

/// Replaces an error's missing code and text by the defaults that are sent for them.
fn spelled_out(mut frame: Frame) -> Frame {
    let (code, text) = match &mut frame {
        Frame::Response(Response { result: Err(error), .. }) => (&mut error.code, &mut error.text),
        Frame::Stream(Stream { body: Some(StreamBody::Close { code, text }), .. }) => (code, text),
        _ => return frame,
    };
    if text.is_empty() {
        *text = code.as_str().into();
    }
    *code = code.as_str().into();
    frame
}

fn within(frame: &Frame, limits: &FrameLimits) {
    let metadata_within = |metadata: &Metadata| {
        assert!(metadata.len() <= limits.metadata_entries && metadata.bytes() <= limits.metadata_bytes);
    };
    let ids: &[_] = match frame {
        Frame::Request(Request { request_id, client_id, metadata, .. }) => {
            metadata_within(metadata);
            &[request_id, client_id]
        }
        Frame::Response(Response { request_id, server_id, result, .. }) => {
            if let Err(error) = result {
                assert!(error.details.len() <= limits.error_details);
            }
            &[request_id, server_id]
        }
        Frame::ClaimRequest(claim) => &[&claim.request_id, &claim.server_id],
        Frame::ClaimResponse(claim) => &[&claim.request_id, &claim.server_id],
        Frame::Stream(Stream { stream_id, request_id, body, .. }) => match body {
            Some(StreamBody::Open { node_id, metadata }) => {
                metadata_within(metadata);
                &[stream_id, request_id, node_id]
            }
            _ => &[stream_id, request_id],
        },
        Frame::Other(Any { .. }) | Frame::Raw(_) => &[],
    };
    assert!(ids.iter().all(|id| id.len() <= limits.id_bytes));
    let payload = match frame {
        Frame::Request(request) => request.payload.len(),
        Frame::Response(Response { result: Ok(payload), .. }) => payload.len(),
        Frame::Stream(Stream { body: Some(StreamBody::Message { payload }), .. }) => payload.len(),
        Frame::Other(any) => any.value.len(),
        _ => 0,
    };
    assert!(payload <= limits.frame_bytes);
}

/// Wraps the input as gzip in two ways, so that mutations pass the magic number and the checksum.
/// Decompression must agree with flate2.
fn gzip(input: &[u8]) {
    const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let mut inflated = Vec::new();
    let mut inflater = DeflateDecoder::new(input);
    let whole = inflater.by_ref().take(1 << 21).read_to_end(&mut inflated).is_ok();
    let mut members = vec![[&[0x1f, 0x8b], input].concat()];
    if whole {
        let deflated = &input[..inflater.total_in() as usize];
        let mut crc = flate2::Crc::new();
        crc.update(&inflated);
        let (sum, len) = (crc.sum().to_le_bytes(), (inflated.len() as u32).to_le_bytes());
        members.push([&HEADER, deflated, &sum, &len].concat());
    }
    for value in members {
        let any = Any { type_url: "x".into(), value: value.clone().into() };
        // Followed by the compression field of the envelope.
        let bytes = [&Frame::Other(any).encode("")[..], &[4 << 3, 1]].concat().into();
        let Ok((Frame::Other(read), _)) = Frame::decode(&bytes, &LIMITS) else { continue };
        let mut expected = Vec::new();
        MultiGzDecoder::new(&value[..]).read_to_end(&mut expected).expect("flate2 decompresses the value");
        assert!(read.value == expected, "the value differs from flate2's output");
        assert!(expected.len() <= LIMITS.frame_bytes);
    }
}
