//! Every recorded frame decodes to what was recorded, and encodes back to the same bytes.

use bytes::Bytes;
use psrpc_proto::{Any, ErrorResponse, Frame, FrameLimits, Metadata, StreamBody};
use psrpc_vectors::{Event, Publish, RECORDINGS};
use serde_json::{Map, Value, json};

/// Frames that we read but would not send: Go leaves the text of an error empty, which it then reads as success.
const NOT_SENT: [&str; 1] = ["unary-queue-error-empty-text"];

fn each_frame(mut check: impl FnMut(&str, &Publish)) -> usize {
    let mut frames = 0;
    for recording in RECORDINGS {
        for conversation in recording.conversations() {
            for event in &conversation.frames {
                if let Event::Publish(publish) = event {
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
        assert_eq!(fields(&frame), publish.fields, "{conversation}");
    });
    assert_eq!(frames, 1078);
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
            assert_eq!((error.code.as_str(), error.text.as_str()), ("not_found", ""));
        } else if publish.fields.pointer("/metadata").or(publish.fields.pointer("/open/metadata")).is_some() {
            // The order of a map's entries is arbitrary, so compare what they decode to.
            metadata += 1;
            let (again, _) = Frame::decode(&encoded, &FrameLimits::DEFAULT).expect("what we encode decodes");
            assert_eq!((fields(&again), encoded.len()), (publish.fields.clone(), publish.bytes().len()));
        } else {
            assert_eq!(encoded, publish.bytes(), "{conversation} {frame:?}");
        }
    });
    assert_eq!(metadata, 4 + 4, "a unary call and an opened stream with metadata in each recording");
}

/// A frame's fields in the form of the recording: empty ones left out, bytes as hex, int64 as decimal strings.
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
                // The recording has the shortest decimal of the float, an integer where it is one.
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
