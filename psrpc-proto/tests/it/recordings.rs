//! Every recorded frame decodes to its recorded fields, and encodes to the same bytes. A compressed
//! frame is compared after decoding, since gzip implementations differ in their output.

use bytes::Bytes;
use psrpc_proto::{Any, Compression, ErrorResponse, Frame, FrameLimits, Metadata, StreamBody};
use psrpc_vectors::{Event, Publish, RECORDINGS};
use serde_json::{Map, Value, json};

/// Conversations with error responses that we accept but never send: without a text, which Go reads
/// as success, or without a code, which Go reads as `unknown`.
const NOT_SENT: [&str; 4] = [
    "unary-queue-error-empty-text",
    "unary-queue-error-code-ok",
    "unary-response-code-without-text",
    "unary-response-text-without-code",
];

/// Frames of the recorder that Go drops, with our error.
const REFUSED: [(&str, &str); 9] = [
    ("compression-unknown-value", "internal.Msg field 4: unknown compression 7"),
    ("compression-response-unknown-value", "internal.Msg field 4: unknown compression 7"),
    ("compression-unknown-value-gzipped", "internal.Msg field 4: unknown compression 7"),
    ("compression-field-but-plain", "internal.Msg field 2: damaged gzip"),
    ("compression-damaged", "internal.Msg field 2: damaged gzip"),
    ("compression-bad-checksum", "internal.Msg field 2: damaged gzip"),
    ("compression-trailing-garbage", "internal.Msg field 2: damaged gzip"),
    ("request-undecodable-frame", "internal.Msg: ends inside a field"),
    ("request-undecodable-frame", "internal.Request: ends inside a field"),
];

/// Conversations where the recorder writes field 9, or compression NONE explicitly.
const WITH_EXTRA_FIELDS: [&str; 4] = [
    "legacy-request-field-9",
    "request-fields-9-and-10-from-recorder",
    "request-field-9-server-without-option",
    "compression-none-explicit",
];

/// Returns the decoding error of a frame that must be refused.
fn refusal(conversation: &str, publish: &Publish) -> Option<String> {
    let refused = publish.from == "recorder" && REFUSED.iter().any(|(known, _)| *known == conversation);
    let decoded = Frame::decode(&publish.bytes().into(), &FrameLimits::DEFAULT);
    decoded.err().filter(|_| refused).map(|error| error.to_string())
}

/// Calls `check` for each frame that decodes, and returns their number.
fn each_frame(mut check: impl FnMut(&str, &Publish)) -> usize {
    let mut frames = 0;
    for recording in RECORDINGS {
        for conversation in recording.conversations() {
            for event in &conversation.frames {
                if let Event::Publish(publish) = event
                    && refusal(&conversation.id, publish).is_none()
                {
                    check(&conversation.id, publish);
                    frames += 1;
                }
            }
        }
    }
    frames
}

fn decode(publish: &Publish) -> (Frame, String) {
    let bytes = Bytes::from(publish.bytes());
    let (frame, channel) =
        Frame::decode(&bytes, &FrameLimits::DEFAULT).unwrap_or_else(|error| panic!("{error}: {publish:?}"));
    (frame, channel.as_str().to_owned())
}

#[test]
fn every_frame_decodes_to_what_was_recorded() {
    let frames = each_frame(|conversation, publish| {
        let (frame, channel) = decode(publish);
        assert_eq!(channel, publish.local, "{conversation}");
        if let Frame::Other(Any { type_url, .. }) = &frame {
            assert_eq!(type_url.as_str(), publish.type_url);
            return;
        }
        assert_eq!(format!("type.googleapis.com/internal.{}", frame.kind()), publish.type_url);
        assert_eq!(fields(&frame), known_fields(publish), "{conversation}");
    });
    assert_eq!(frames, 1078 + 2 * 130 + 613 + 640 - 2 * REFUSED.len());
}

#[test]
fn frames_that_go_drops_are_refused_with_their_cause() {
    for recording in RECORDINGS.iter().filter(|recording| recording.version == "v0.8.2") {
        let mut refused = Vec::new();
        for conversation in recording.conversations() {
            for event in &conversation.frames {
                if let Event::Publish(publish) = event
                    && let Some(cause) = refusal(&conversation.id, publish)
                {
                    refused.push((conversation.id.clone(), cause));
                }
            }
        }
        let mut expected = REFUSED.map(|(conversation, cause)| (conversation.to_owned(), cause.to_owned()));
        refused.sort();
        expected.sort();
        assert_eq!(refused, expected, "{:?}", recording.bus);
    }
}

/// Returns the recorded fields without unknown ones, such as field 9 of a request.
fn known_fields(publish: &Publish) -> Value {
    let mut fields = publish.fields.clone();
    if let Some(fields) = fields.as_object_mut() {
        fields.remove("unknown_fields");
        // A missing code reads as `unknown`; the recording has the fields as written.
        if fields.contains_key("error") && !fields.contains_key("code") {
            fields.insert("code".into(), "unknown".into());
        }
    }
    fields
}

#[test]
fn every_frame_that_we_would_send_encodes_to_the_same_bytes() {
    let mut metadata = 0;
    each_frame(|conversation, publish| {
        let (frame, channel) = decode(publish);
        let encoded = frame.encode(&channel);
        if NOT_SENT.contains(&conversation) && matches!(&frame, Frame::Response(_)) {
            assert_ne!(encoded, publish.bytes(), "{conversation}");
            let Frame::Response(response) = frame else { unreachable!() };
            let error = response.result.expect_err("an error keeps its code");
            let error = (error.code.as_str(), error.text.as_str());
            assert!(matches!(error, ("not_found", "") | ("unknown", _)), "{conversation}: {error:?}");
        } else if publish.compression == 1 {
            let compressed = frame.encode_with(&channel, Some(Compression::DEFAULT));
            assert!(compressed.len() < encoded.len(), "{conversation}");
            let again = Frame::decode(&compressed, &FrameLimits::DEFAULT).expect("what we encode decodes");
            assert_eq!(again, (frame, channel.as_str().into()));
        } else if WITH_EXTRA_FIELDS.contains(&conversation) && publish.from == "recorder" {
            // The recorded frame has fields that we do not write.
            let again = Frame::decode(&encoded, &FrameLimits::DEFAULT).expect("what we encode decodes");
            assert_eq!(again, (frame, channel.as_str().into()));
            assert!(encoded.len() < publish.bytes().len(), "{conversation}");
        } else if publish.fields.pointer("/metadata").or(publish.fields.pointer("/open/metadata")).is_some() {
            // The order of map entries is arbitrary, so compare the decoded fields.
            metadata += 1;
            let (again, _) = Frame::decode(&encoded, &FrameLimits::DEFAULT).expect("what we encode decodes");
            assert_eq!((fields(&again), encoded.len()), (publish.fields.clone(), publish.bytes().len()));
        } else {
            assert_eq!(encoded, publish.bytes(), "{conversation} {frame:?}");
        }
    });
    assert_eq!(metadata, 4 + 4 + 4, "a unary call and an opened stream with metadata in each old recording");
}

/// Returns a frame's fields in the form of the recording: empty fields omitted, bytes as hex, int64
/// as decimal strings.
fn fields(frame: &Frame) -> Value {
    let mut fields = Map::new();
    match frame {
        Frame::Request(request) => {
            text(&mut fields, "request_id", request.request_id.as_str());
            text(&mut fields, "client_id", request.client_id.as_str());
            number(&mut fields, "sent_at", request.sent_at);
            number(&mut fields, "expiry", request.expiry);
            flag(&mut fields, "multi", request.multi);
            map(&mut fields, &request.metadata);
            text(&mut fields, "raw_request", &hex(&request.payload));
            flag(&mut fields, "skip_claim", request.skip_claim);
        }
        Frame::Response(response) => {
            text(&mut fields, "request_id", response.request_id.as_str());
            text(&mut fields, "server_id", response.server_id.as_str());
            number(&mut fields, "sent_at", response.sent_at);
            match &response.result {
                Ok(payload) => text(&mut fields, "raw_response", &hex(payload)),
                Err(ErrorResponse { code, text: error, details }) => {
                    text(&mut fields, "error", error.as_str());
                    text(&mut fields, "code", code.as_str());
                    if !details.is_empty() {
                        let details = details
                            .iter()
                            .map(|any| json!({"type_url": any.type_url.as_str(), "value": hex(&any.value)}))
                            .collect();
                        fields.insert("error_details".into(), details);
                    }
                }
            }
        }
        Frame::ClaimRequest(claim) => {
            text(&mut fields, "request_id", claim.request_id.as_str());
            text(&mut fields, "server_id", claim.server_id.as_str());
            if claim.affinity != 0.0 {
                // The recording has the shortest decimal of the float, without a fraction if it is
                // whole.
                let affinity: f64 = claim.affinity.to_string().parse().expect("a number");
                let affinity = if affinity.fract() == 0.0 { json!(affinity as i64) } else { json!(affinity) };
                fields.insert("affinity".into(), affinity);
            }
            flag(&mut fields, "handling", claim.handling);
        }
        Frame::ClaimResponse(claim) => {
            text(&mut fields, "request_id", claim.request_id.as_str());
            text(&mut fields, "server_id", claim.server_id.as_str());
        }
        Frame::Stream(stream) => {
            text(&mut fields, "stream_id", stream.stream_id.as_str());
            text(&mut fields, "request_id", stream.request_id.as_str());
            number(&mut fields, "sent_at", stream.sent_at);
            number(&mut fields, "expiry", stream.expiry);
            let mut body = Map::new();
            let name = match stream.body.as_ref().expect("a recorded stream frame has a body") {
                StreamBody::Open { node_id, metadata } => {
                    text(&mut body, "node_id", node_id.as_str());
                    map(&mut body, metadata);
                    "open"
                }
                StreamBody::Message { payload } => {
                    text(&mut body, "raw_message", &hex(payload));
                    "message"
                }
                StreamBody::Ack => "ack",
                StreamBody::Close { code, text: error } => {
                    text(&mut body, "error", error.as_str());
                    text(&mut body, "code", code.as_str());
                    "close"
                }
            };
            fields.insert(name.into(), body.into());
        }
        Frame::Other(_) | Frame::Raw(_) => unreachable!("not a message of the protocol"),
    }
    fields.into()
}

fn text(fields: &mut Map<String, Value>, name: &str, text: &str) {
    if !text.is_empty() {
        fields.insert(name.into(), text.into());
    }
}

fn number(fields: &mut Map<String, Value>, name: &str, number: i64) {
    if number != 0 {
        fields.insert(name.into(), number.to_string().into());
    }
}

fn flag(fields: &mut Map<String, Value>, name: &str, flag: bool) {
    if flag {
        fields.insert(name.into(), true.into());
    }
}

fn map(fields: &mut Map<String, Value>, metadata: &Metadata) {
    if !metadata.is_empty() {
        let entries = metadata.iter().map(|(name, value)| (name.to_string(), value.as_str().into()));
        fields.insert("metadata".into(), Value::Object(entries.collect()));
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
