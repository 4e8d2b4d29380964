//! Compressed values: written if configured and smaller, always readable, and limited in size.

use std::io::{Read, Write};

use bytes::Bytes;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use flate2::{Compress, FlushCompress};
use proptest::prelude::*;
use prost::Message;
use psrpc_proto::{Any, Compression, Frame, FrameLimits, Request, Text};

/// The envelope, with prost.
#[derive(Clone, PartialEq, Message)]
struct Msg {
    #[prost(string, tag = 1)]
    type_url: String,
    #[prost(bytes = "vec", tag = 2)]
    value: Vec<u8>,
    #[prost(string, tag = 3)]
    channel: String,
    #[prost(int32, tag = 4)]
    compression: i32,
}

const ALWAYS: Option<Compression> = Some(Compression { threshold: 0 });
const DEFAULT: Option<Compression> = Some(Compression::DEFAULT);

fn request(payload: impl Into<Bytes>) -> Frame {
    Frame::Request(Request { request_id: "REQ_1".into(), payload: payload.into(), ..Request::default() })
}

fn decode(bytes: &Bytes) -> Result<(Frame, Text), String> {
    Frame::decode(bytes, &FrameLimits::DEFAULT).map_err(|error| error.to_string())
}

/// Returns an envelope that declares its value to be gzip.
fn envelope(value: Vec<u8>) -> Bytes {
    with_compression(1, value)
}

/// Returns an envelope that declares this compression of its value.
fn with_compression(compression: i32, value: Vec<u8>) -> Bytes {
    let type_url = "type.googleapis.com/internal.Request".to_owned();
    Msg { type_url, value, channel: "Fit.REQ".to_owned(), compression }.encode_to_vec().into()
}

/// Returns the uncompressed value of a frame.
fn value_of(frame: &Frame) -> Vec<u8> {
    Msg::decode(&frame.encode("")[..]).unwrap().value
}

fn gzip(value: &[u8]) -> Vec<u8> {
    let mut writer = GzEncoder::new(Vec::new(), flate2::Compression::best());
    writer.write_all(value).unwrap();
    writer.finish().unwrap()
}

/// Returns bytes that gzip does not shrink.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

#[test]
fn another_implementation_reads_our_compressed_frames() {
    let frame = request(vec![7; 100_000]);
    let bytes = frame.encode_with("Fit.REQ", DEFAULT);
    assert!(bytes.len() < 1_000, "{}", bytes.len());
    let plain = Msg::decode(&frame.encode("Fit.REQ")[..]).unwrap();
    let msg = Msg::decode(&bytes[..]).unwrap();
    assert_eq!((msg.type_url, msg.channel, msg.compression), (plain.type_url, plain.channel, 1));
    let mut value = Vec::new();
    GzDecoder::new(&msg.value[..]).read_to_end(&mut value).unwrap();
    assert_eq!(value, plain.value);
    assert_eq!(decode(&bytes), Ok((frame, "Fit.REQ".into())));
}

#[test]
fn frames_compressed_by_another_implementation_are_read() {
    let frame = request(vec![7; 100_000]);
    let value = gzip(&value_of(&frame));
    assert_eq!(decode(&envelope(value.clone())), Ok((frame.clone(), "Fit.REQ".into())));
    // Two gzip members.
    let value = value_of(&frame);
    let members = [gzip(&value[..500]), gzip(&value[500..])].concat();
    assert_eq!(decode(&envelope(members)), Ok((frame, "Fit.REQ".into())));
}

#[test]
fn the_envelope_alone_says_whether_a_value_is_compressed() {
    let plain = value_of(&request(vec![7; 5_000]));
    let refusal =
        |compression, value: &[u8]| decode(&with_compression(compression, value.to_vec())).unwrap_err();
    assert_eq!(refusal(0, &gzip(&plain)), "internal.Request: not a protobuf tag");
    assert_eq!(refusal(1, &plain), "internal.Msg field 2: damaged gzip");
    for unknown in [2, 7, i32::MAX, -1] {
        let expected = format!("internal.Msg field 4: unknown compression {unknown}");
        assert_eq!(refusal(unknown, &plain), expected);
        assert_eq!(refusal(unknown, &gzip(&plain)), expected);
    }
    // Only the low 32 bits of an enum count.
    let mut long = with_compression(0, gzip(&plain)).to_vec();
    long.extend_from_slice(&[4 << 3, 0x81, 0x80, 0x80, 0x80, 0x10]);
    assert!(decode(&long.into()).is_ok());
    let explicit = [&with_compression(0, plain)[..], &[4 << 3, 0]].concat();
    assert!(decode(&explicit.into()).is_ok(), "an explicit NONE");
}

#[test]
fn only_values_from_the_threshold_on_are_compressed() {
    let value_len = |payload: usize| request(vec![7; payload]).value_len();
    let payload = (0..1024).find(|payload| value_len(*payload) == 1024).unwrap();
    for (payload, compressed) in [(payload - 1, false), (payload, true)] {
        let frame = request(vec![7; payload]);
        assert_eq!(frame.encode_with("", DEFAULT) != frame.encode(""), compressed, "{payload}");
    }
}

#[test]
fn values_that_do_not_shrink_stay_uncompressed() {
    for len in [1, 10, 2_000, 100_000] {
        let frame = request(noise(len));
        assert_eq!(frame.encode_with("Fit.REQ", ALWAYS), frame.encode("Fit.REQ"), "{len}");
    }
    let raw = Frame::Raw(vec![7; 100_000].into());
    assert_eq!(raw.encode_with("", ALWAYS), raw.encode(""), "a raw frame stays as it is");
}

#[test]
fn a_users_message_is_compressed_too() {
    let type_url: Text = "type.googleapis.com/hats.v1.Hat".into();
    let frame = Frame::Other(Any { type_url, value: vec![7; 5_000].into() });
    let bytes = frame.encode_with("Fit.REQ", DEFAULT);
    assert!(bytes.len() < 500);
    assert_eq!(decode(&bytes), Ok((frame, "Fit.REQ".into())));
}

#[test]
fn a_gigabyte_in_a_megabyte_is_refused() {
    // A compressed megabyte that ends on a byte boundary can be repeated.
    let mut megabyte = Vec::with_capacity(2_000);
    let mut writer = Compress::new(flate2::Compression::best(), false);
    writer.compress_vec(&vec![0; 1 << 20], &mut megabyte, FlushCompress::Full).unwrap();
    let header = &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let end = &[1, 0, 0, 0xff, 0xff];
    let mut bomb = [header, &megabyte.repeat(1 << 10)[..], end].concat();
    bomb.extend_from_slice(&[0; 4]);
    bomb.extend_from_slice(&(1_u32 << 30).to_le_bytes());
    assert!(bomb.len() < 1 << 21, "{}", bomb.len());
    let refusal = "internal.Msg field 2: exceeds the limit of 16777216 bytes of a decompressed value";
    assert_eq!(decode(&envelope(bomb.clone())).unwrap_err(), refusal);
    // A false length in the trailer does not help.
    let mut understated = bomb;
    let at = understated.len() - 4;
    understated[at..].copy_from_slice(&100_u32.to_le_bytes());
    assert_eq!(decode(&envelope(understated)).unwrap_err(), refusal);
}

#[test]
fn a_value_that_is_cut_short_or_damaged_is_refused() {
    let gzip = gzip(&value_of(&request(vec![7; 5_000])));
    let refusal = "internal.Msg field 2: damaged gzip";
    assert_eq!(decode(&envelope([&gzip[..], b"?"].concat())).unwrap_err(), refusal, "trailing bytes");
    for len in [2, 3, 10, gzip.len() / 2, gzip.len() - 8, gzip.len() - 1] {
        assert_eq!(decode(&envelope(gzip[..len].to_vec())).unwrap_err(), refusal, "{len}");
    }
    for at in [gzip.len() - 8, gzip.len() - 4] {
        let mut damaged = gzip.clone();
        damaged[at] ^= 1;
        assert_eq!(decode(&envelope(damaged)).unwrap_err(), refusal, "{at}");
    }
}

#[test]
fn a_decompressed_value_is_held_to_every_other_limit() {
    let id = "x".repeat(FrameLimits::DEFAULT.id_bytes + 1);
    let frame = Frame::Request(Request { request_id: id.as_str().into(), ..Request::default() });
    let error = decode(&frame.encode_with("", ALWAYS)).unwrap_err();
    assert_eq!(error, "internal.Request field 1: exceeds the limit of 256 bytes of an id");
}

#[test]
fn a_decompressed_value_does_not_keep_its_frame_alive() {
    let bytes = request(vec![7; 100_000]).encode_with("", ALWAYS);
    let (frame, _) = decode(&bytes).unwrap();
    assert!(bytes.is_unique());
    drop(frame);
}

proptest! {
    #[test]
    fn every_frame_survives_compression(
        payload in proptest::collection::vec(0..3_u8, 0..3_000),
        threshold in 0..3_000_usize,
    ) {
        let frame = request(payload);
        let bytes = frame.encode_with("Fit.REQ", Some(Compression { threshold }));
        prop_assert!(bytes.len() <= frame.encode("Fit.REQ").len());
        prop_assert_eq!(decode(&bytes), Ok((frame, "Fit.REQ".into())));
    }

    #[test]
    fn random_bytes_after_the_first_two_of_gzip_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&envelope([&[0x1f, 0x8b], &bytes[..]].concat()));
        let _ = decode(&envelope([&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255], &bytes[..]].concat()));
    }
}
