//! Our codec against prost as the oracle: it must decode our frames, we must decode its frames, and
//! both must accept and reject the same bytes.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message;
use psrpc_proto::{Any, ErrorCode, ErrorResponse, Frame, FrameLimits, Metadata, StreamBody, Text};

mod oracle {
    use std::collections::BTreeMap;

    use prost::{Message, Oneof};

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Msg {
        #[prost(string, tag = 1)]
        pub(super) type_url: String,
        #[prost(bytes = "vec", tag = 2)]
        pub(super) value: Vec<u8>,
        #[prost(string, tag = 3)]
        pub(super) channel: String,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Any {
        #[prost(string, tag = 1)]
        pub(super) type_url: String,
        #[prost(bytes = "vec", tag = 2)]
        pub(super) value: Vec<u8>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Request {
        #[prost(string, tag = 1)]
        pub(super) request_id: String,
        #[prost(string, tag = 2)]
        pub(super) client_id: String,
        #[prost(int64, tag = 3)]
        pub(super) sent_at: i64,
        #[prost(int64, tag = 4)]
        pub(super) expiry: i64,
        #[prost(bool, tag = 5)]
        pub(super) multi: bool,
        #[prost(message, optional, tag = 6)]
        pub(super) request: Option<Any>,
        #[prost(btree_map = "string, string", tag = 7)]
        pub(super) metadata: BTreeMap<String, String>,
        #[prost(bytes = "vec", optional, tag = 8)]
        pub(super) raw_request: Option<Vec<u8>>,
        #[prost(bool, tag = 10)]
        pub(super) skip_claim: bool,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Response {
        #[prost(string, tag = 1)]
        pub(super) request_id: String,
        #[prost(string, tag = 2)]
        pub(super) server_id: String,
        #[prost(int64, tag = 3)]
        pub(super) sent_at: i64,
        #[prost(message, optional, tag = 4)]
        pub(super) response: Option<Any>,
        #[prost(string, tag = 5)]
        pub(super) error: String,
        #[prost(string, tag = 6)]
        pub(super) code: String,
        #[prost(bytes = "vec", optional, tag = 7)]
        pub(super) raw_response: Option<Vec<u8>>,
        #[prost(message, repeated, tag = 8)]
        pub(super) error_details: Vec<Any>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct ClaimRequest {
        #[prost(string, tag = 1)]
        pub(super) request_id: String,
        #[prost(string, tag = 2)]
        pub(super) server_id: String,
        #[prost(float, tag = 3)]
        pub(super) affinity: f32,
        #[prost(bool, tag = 4)]
        pub(super) handling: bool,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct ClaimResponse {
        #[prost(string, tag = 1)]
        pub(super) request_id: String,
        #[prost(string, tag = 2)]
        pub(super) server_id: String,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Stream {
        #[prost(string, tag = 1)]
        pub(super) stream_id: String,
        #[prost(string, tag = 2)]
        pub(super) request_id: String,
        #[prost(int64, tag = 3)]
        pub(super) sent_at: i64,
        #[prost(int64, tag = 4)]
        pub(super) expiry: i64,
        #[prost(oneof = "Body", tags = "6, 7, 8, 9")]
        pub(super) body: Option<Body>,
    }

    #[derive(Clone, PartialEq, Oneof)]
    pub(super) enum Body {
        #[prost(message, tag = 6)]
        Open(StreamOpen),
        #[prost(message, tag = 7)]
        Message(StreamMessage),
        #[prost(message, tag = 8)]
        Ack(StreamAck),
        #[prost(message, tag = 9)]
        Close(StreamClose),
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct StreamOpen {
        #[prost(string, tag = 1)]
        pub(super) node_id: String,
        #[prost(btree_map = "string, string", tag = 7)]
        pub(super) metadata: BTreeMap<String, String>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct StreamMessage {
        #[prost(message, optional, tag = 1)]
        pub(super) message: Option<Any>,
        #[prost(bytes = "vec", optional, tag = 2)]
        pub(super) raw_message: Option<Vec<u8>>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct StreamAck {}

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct StreamClose {
        #[prost(string, tag = 1)]
        pub(super) error: String,
        #[prost(string, tag = 2)]
        pub(super) code: String,
    }
}

const NAMES: [&str; 5] = ["Request", "Response", "ClaimRequest", "ClaimResponse", "Stream"];

/// Decodes the value of a message with prost. Returns `None` if it is invalid.
fn decode_with_prost(name: &str, value: &[u8]) -> Option<Frame> {
    Some(match name {
        "Request" => {
            let theirs = oracle::Request::decode(value).ok()?;
            Frame::Request(psrpc_proto::Request {
                request_id: theirs.request_id.into(),
                client_id: theirs.client_id.into(),
                sent_at: theirs.sent_at,
                expiry: theirs.expiry,
                multi: theirs.multi,
                metadata: metadata(theirs.metadata),
                payload: payload(theirs.raw_request, theirs.request),
                skip_claim: theirs.skip_claim,
            })
        }
        "Response" => {
            let theirs = oracle::Response::decode(value).ok()?;
            let result = if theirs.code.is_empty() && theirs.error.is_empty() {
                Ok(payload(theirs.raw_response, theirs.response))
            } else {
                let details = theirs.error_details.into_iter().map(detail).collect();
                Err(ErrorResponse {
                    code: Text::from(theirs.code).into(),
                    text: theirs.error.into(),
                    details,
                })
            };
            Frame::Response(psrpc_proto::Response {
                request_id: theirs.request_id.into(),
                server_id: theirs.server_id.into(),
                sent_at: theirs.sent_at,
                result,
            })
        }
        "ClaimRequest" => {
            let theirs = oracle::ClaimRequest::decode(value).ok()?;
            Frame::ClaimRequest(psrpc_proto::ClaimRequest {
                request_id: theirs.request_id.into(),
                server_id: theirs.server_id.into(),
                affinity: theirs.affinity,
                handling: theirs.handling,
            })
        }
        "ClaimResponse" => {
            let theirs = oracle::ClaimResponse::decode(value).ok()?;
            Frame::ClaimResponse(psrpc_proto::ClaimResponse {
                request_id: theirs.request_id.into(),
                server_id: theirs.server_id.into(),
            })
        }
        "Stream" => {
            let theirs = oracle::Stream::decode(value).ok()?;
            let body = theirs.body.map(|body| match body {
                oracle::Body::Open(open) => {
                    StreamBody::Open { node_id: open.node_id.into(), metadata: metadata(open.metadata) }
                }
                oracle::Body::Message(message) => {
                    StreamBody::Message { payload: payload(message.raw_message, message.message) }
                }
                oracle::Body::Ack(_) => StreamBody::Ack,
                oracle::Body::Close(close) => {
                    StreamBody::Close { code: Text::from(close.code).into(), text: close.error.into() }
                }
            });
            Frame::Stream(psrpc_proto::Stream {
                stream_id: theirs.stream_id.into(),
                request_id: theirs.request_id.into(),
                sent_at: theirs.sent_at,
                expiry: theirs.expiry,
                body,
            })
        }
        _ => unreachable!(),
    })
}

fn metadata(entries: BTreeMap<String, String>) -> Metadata {
    entries.into_iter().collect()
}

fn payload(raw: Option<Vec<u8>>, any: Option<oracle::Any>) -> Bytes {
    raw.or(any.map(|any| any.value)).unwrap_or_default().into()
}

fn detail(theirs: oracle::Any) -> Any {
    Any { type_url: theirs.type_url.into(), value: theirs.value.into() }
}

/// Normalizes a frame for comparison: sorts its metadata, and replaces NaN, which never equals
/// itself.
fn comparable(frame: Frame) -> Frame {
    let sorted = |metadata: &Metadata| -> Metadata {
        let entries: BTreeMap<_, _> = metadata.iter().map(|(n, v)| (n.clone(), v.clone())).collect();
        entries.into_iter().collect()
    };
    match frame {
        Frame::Request(mut request) => {
            request.metadata = sorted(&request.metadata);
            Frame::Request(request)
        }
        Frame::Stream(mut stream) => {
            if let Some(StreamBody::Open { metadata, .. }) = &mut stream.body {
                *metadata = sorted(metadata);
            }
            Frame::Stream(stream)
        }
        Frame::ClaimRequest(mut claim) if claim.affinity.is_nan() => {
            claim.affinity = 4711.0;
            Frame::ClaimRequest(claim)
        }
        frame => frame,
    }
}

fn message(name: &str, value: Vec<u8>) -> Bytes {
    let type_url = format!("type.googleapis.com/internal.{name}");
    oracle::Msg { type_url, value, channel: "M.REQ".into() }.encode_to_vec().into()
}

fn decode(bytes: &Bytes) -> Option<Frame> {
    Frame::decode(bytes, &FrameLimits::DEFAULT).ok().map(|(frame, _)| frame)
}

fn texts() -> impl Strategy<Value = Text> {
    // Lengths on both sides of the limit for inline text.
    "[a-zA-Z_é🙂]{0,40}".prop_map(Text::from)
}

fn payloads() -> impl Strategy<Value = Bytes> {
    // A payload that looks like gzip is plain data: only the value of the envelope can be
    // compressed.
    proptest::collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from)
}

fn metadatas() -> impl Strategy<Value = Metadata> {
    proptest::collection::vec((texts(), texts()), 0..5).prop_map(|entries| entries.into_iter().collect())
}

fn codes() -> impl Strategy<Value = ErrorCode> {
    "[a-z_]{1,30}|canceled|internal".prop_map(|code| ErrorCode::from(code.as_str()))
}

fn errors() -> impl Strategy<Value = ErrorResponse> {
    let details = (texts(), payloads()).prop_map(|(type_url, value)| Any { type_url, value });
    (codes(), "[a-z]{1,40}", proptest::collection::vec(details, 0..3))
        .prop_map(|(code, text, details)| ErrorResponse { code, text: text.into(), details })
}

fn frames() -> impl Strategy<Value = Frame> {
    let ids = || (texts(), texts());
    let times = || (any::<i64>(), any::<i64>());
    let requests = (ids(), times(), any::<(bool, bool)>(), metadatas(), payloads()).prop_map(
        |((request_id, client_id), (sent_at, expiry), (multi, skip_claim), metadata, payload)| {
            Frame::Request(psrpc_proto::Request {
                request_id,
                client_id,
                sent_at,
                expiry,
                multi,
                metadata,
                payload,
                skip_claim,
            })
        },
    );
    let responses = (ids(), any::<i64>(), prop_oneof![payloads().prop_map(Ok), errors().prop_map(Err)])
        .prop_map(|((request_id, server_id), sent_at, result)| {
            Frame::Response(psrpc_proto::Response { request_id, server_id, sent_at, result })
        });
    let bids =
        (ids(), any::<f32>(), any::<bool>()).prop_map(|((request_id, server_id), affinity, handling)| {
            Frame::ClaimRequest(psrpc_proto::ClaimRequest { request_id, server_id, affinity, handling })
        });
    let grants = ids().prop_map(|(request_id, server_id)| {
        Frame::ClaimResponse(psrpc_proto::ClaimResponse { request_id, server_id })
    });
    let bodies = prop_oneof![
        (texts(), metadatas()).prop_map(|(node_id, metadata)| StreamBody::Open { node_id, metadata }),
        payloads().prop_map(|payload| StreamBody::Message { payload }),
        Just(StreamBody::Ack),
        (codes(), "[a-z]{1,40}").prop_map(|(code, text)| StreamBody::Close { code, text: text.into() }),
    ];
    let streams = (ids(), times(), proptest::option::of(bodies)).prop_map(
        |((stream_id, request_id), (sent_at, expiry), body)| {
            Frame::Stream(psrpc_proto::Stream { stream_id, request_id, sent_at, expiry, body })
        },
    );
    prop_oneof![requests, responses, bids, grants, streams]
}

/// Generates bytes close to a message: fields with numbers and wire types of the protocol, and some
/// others.
fn near_messages() -> impl Strategy<Value = Vec<u8>> {
    let any_message = (texts(), payloads()).prop_map(|(type_url, value)| {
        oracle::Any { type_url: type_url.to_string(), value: value.to_vec() }.encode_to_vec()
    });
    let contents = prop_oneof![
        3 => texts().prop_map(|text| text.as_bytes().to_vec()),
        2 => any_message,
        1 => proptest::collection::vec(any::<u8>(), 0..20),
    ];
    let delimited = (1u8..12, contents).prop_map(|(field, contents)| {
        let mut bytes = vec![field << 3 | 2, contents.len() as u8];
        bytes.truncate(if contents.len() < 128 { 2 } else { 0 });
        if !bytes.is_empty() {
            bytes.extend(contents);
        }
        bytes
    });
    let varint = (1u8..12, any::<u64>()).prop_map(|(field, value)| {
        let mut bytes = vec![field << 3];
        prost::encoding::encode_varint(value, &mut bytes);
        bytes
    });
    let fixed = (1u8..12, any::<u32>()).prop_map(|(field, value)| {
        let mut bytes = vec![field << 3 | 5];
        bytes.extend(value.to_le_bytes());
        bytes
    });
    let group = (10u8..12, any::<bool>()).prop_map(|(field, ends)| {
        let mut bytes = vec![field << 3 | 3, 8, 1];
        bytes.extend(ends.then_some(field << 3 | 4));
        bytes
    });
    let noise = proptest::collection::vec(any::<u8>(), 0..4);
    let field = prop_oneof![8 => delimited, 4 => varint, 2 => fixed, 1 => group, 1 => noise];
    proptest::collection::vec(field, 0..6).prop_map(|fields| fields.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn both_codecs_read_our_frames(frame in frames(), channel in texts()) {
        let bytes = frame.encode(channel.as_str());
        let (ours, local) = Frame::decode(&bytes, &FrameLimits::DEFAULT).expect("our own frame decodes");
        prop_assert_eq!(&local, &channel);
        prop_assert_eq!(comparable(ours), comparable(frame.clone()));

        let msg = oracle::Msg::decode(&bytes[..]).expect("prost reads our envelope");
        prop_assert_eq!(&msg.channel, channel.as_str());
        prop_assert_eq!(&msg.type_url, &format!("type.googleapis.com/internal.{}", frame.kind()));
        let theirs = decode_with_prost(frame.kind(), &msg.value).expect("prost reads our message");
        prop_assert_eq!(comparable(theirs), comparable(frame));
    }

    #[test]
    fn both_codecs_agree_on_every_message(name in 0..NAMES.len(), value in near_messages()) {
        let name = NAMES[name];
        prop_assert_eq!(
            decode(&message(name, value.clone())).map(comparable),
            decode_with_prost(name, &value).map(comparable),
            "{}",
            name
        );
    }

    #[test]
    fn both_codecs_agree_on_a_message_cut_short_or_damaged(
        frame in frames(),
        cut in any::<proptest::sample::Index>(),
        damage in any::<(proptest::sample::Index, u8)>(),
    ) {
        let mut value = oracle::Msg::decode(&frame.encode("")[..]).expect("an envelope").value;
        value.truncate(cut.index(value.len() + 1));
        if !value.is_empty() {
            let at = damage.0.index(value.len());
            value[at] = damage.1;
        }
        prop_assert_eq!(
            decode(&message(frame.kind(), value.clone())).map(comparable),
            decode_with_prost(frame.kind(), &value).map(comparable)
        );
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        let bytes = Bytes::from(bytes);
        let ours = Frame::decode(&bytes, &FrameLimits::DEFAULT);
        if oracle::Msg::decode(&bytes[..]).is_err() {
            prop_assert!(ours.is_err());
        }
    }
}

#[test]
fn the_any_form_is_read_only_if_the_raw_form_is_absent() {
    let any = || Some(oracle::Any { type_url: "t/x".into(), value: b"old".to_vec() });
    for (raw, expected) in [(None, &b"old"[..]), (Some(vec![]), b""), (Some(b"new".to_vec()), b"new")] {
        let value = oracle::Request { request: any(), raw_request: raw, ..Default::default() };
        let Some(Frame::Request(request)) = decode(&message("Request", value.encode_to_vec())) else {
            panic!("a request")
        };
        assert_eq!(request.payload, expected);
    }
}

#[test]
fn an_unknown_message_type_decodes_to_other() {
    for type_url in ["type.googleapis.com/vectors.v1.Update", "type.googleapis.com/internal.Unknown", "", "x"]
    {
        let msg =
            oracle::Msg { type_url: type_url.into(), value: b"\xff\xff".to_vec(), channel: String::new() };
        let any = Any { type_url: type_url.into(), value: Bytes::from_static(b"\xff\xff") };
        assert_eq!(decode(&msg.encode_to_vec().into()), Some(Frame::Other(any)));
    }
}

#[test]
fn a_frame_over_a_limit_is_refused_with_that_limit() {
    let limits = FrameLimits {
        frame_bytes: 200,
        id_bytes: 8,
        metadata_entries: 2,
        metadata_bytes: 20,
        error_details: 1,
    };
    let refusal = |frame: &Frame| Frame::decode(&frame.encode(""), &limits).unwrap_err().to_string();
    let request = psrpc_proto::Request::default;
    let id = psrpc_proto::Request { client_id: "CLI_12345".into(), ..request() };
    assert_eq!(
        refusal(&Frame::Request(id)),
        "internal.Request field 2: exceeds the limit of 8 bytes of an id"
    );
    let many = [("a", ""), ("b", ""), ("c", "")].into_iter().collect();
    assert_eq!(
        refusal(&Frame::Request(psrpc_proto::Request { metadata: many, ..request() })),
        "internal.Request field 7: exceeds the limit of 2 entries of metadata"
    );
    let long = [("a", "12345678901234567890")].into_iter().collect();
    assert_eq!(
        refusal(&Frame::Request(psrpc_proto::Request { metadata: long, ..request() })),
        "internal.Request field 7: exceeds the limit of 20 bytes of metadata"
    );
    // Entries with the same name replace each other, but each counts.
    let repeated = Frame::decode(&message("Request", vec![0x3a, 0, 0x3a, 0, 0x3a, 0]), &limits).unwrap_err();
    assert_eq!(repeated.to_string(), "internal.Request field 7: exceeds the limit of 2 entries of metadata");
    let error =
        ErrorResponse { details: vec![Any::default(); 2], ..ErrorResponse::new(ErrorCode::Internal, "x") };
    let response = psrpc_proto::Response {
        request_id: Text::EMPTY,
        server_id: Text::EMPTY,
        sent_at: 0,
        result: Err(error),
    };
    assert_eq!(
        refusal(&Frame::Response(response)),
        "internal.Response field 8: exceeds the limit of 1 error details"
    );
    let big = psrpc_proto::Request { payload: vec![0; 200].into(), ..request() };
    assert_eq!(refusal(&Frame::Request(big)), "internal.Msg: exceeds the limit of 200 bytes of a frame");
}

#[test]
fn field_9_of_a_request_is_ignored_in_every_wire_type() {
    let value = oracle::Request { skip_claim: true, ..oracle::Request::default() }.encode_to_vec();
    let nines: [&[u8]; 4] =
        [&[9 << 3, 1], &[9 << 3 | 1, 1, 2, 3, 4, 5, 6, 7, 8], &[9 << 3 | 2, 1, 7], &[9 << 3 | 5, 1, 2, 3, 4]];
    for nine in nines {
        for (value, skip_claim) in [([nine, &value].concat(), true), (nine.to_vec(), false)] {
            let Some(Frame::Request(request)) = decode(&message("Request", value)) else {
                panic!("{nine:?}")
            };
            assert_eq!(request.skip_claim, skip_claim, "{nine:?}");
        }
    }
}

#[test]
fn an_id_does_not_keep_its_frame_alive() {
    let request_id: Text = "REQ_which_is_longer_than_ids_usually_are".into();
    let request = psrpc_proto::Request { request_id: request_id.clone(), ..Default::default() };
    let bytes = Frame::Request(request).encode("");
    let (frame, _) = Frame::decode(&bytes, &FrameLimits::DEFAULT).unwrap();
    let Frame::Request(psrpc_proto::Request { request_id: read, payload, metadata, .. }) = frame else {
        panic!()
    };
    drop((payload, metadata));
    assert_eq!(read, request_id);
    assert!(bytes.is_unique(), "nothing else holds the frame");
}

fn error_response(code: ErrorCode) -> Frame {
    Frame::Response(psrpc_proto::Response {
        request_id: Text::EMPTY,
        server_id: Text::EMPTY,
        sent_at: 0,
        result: Err(ErrorResponse::new(code, "")),
    })
}

#[test]
fn an_error_is_never_sent_without_a_text() {
    let msg = oracle::Msg::decode(&error_response(ErrorCode::NotFound).encode("")[..]).unwrap();
    assert_eq!(oracle::Response::decode(&msg.value[..]).unwrap().error, "not_found");
}

#[test]
fn an_error_without_code_and_text_does_not_read_as_success() {
    let read = decode(&error_response(ErrorCode::Other(Text::EMPTY)).encode(""));
    let Some(Frame::Response(response)) = read else { panic!("{read:?}") };
    assert_eq!(response.result, Err(ErrorResponse::new(ErrorCode::Unknown, "unknown")));
}

#[test]
fn a_raw_frame_is_published_as_it_is() {
    let bytes = Bytes::from_static(b"\xffanything");
    assert_eq!(Frame::Raw(bytes.clone()).encode("M.REQ"), bytes);
}
