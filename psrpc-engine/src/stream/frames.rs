//! The frames of streams, and the causes that their closes carry.

use alloc::format;
use core::time::Duration;

use psrpc_proto::{Channel, ErrorCode, ErrorResponse, Frame, Stream, StreamBody, Text};

use super::context::Context;
use super::side::Side;
use crate::core::outputs::Publish;
use crate::core::time::Now;
use crate::reason::Reason;
use crate::wire::outgoing::{self, TooLarge};

/// Tells the other side of a stream that it has ended, unless far too many wait to be told. A cause
/// that is larger than a frame may be becomes another, `resource_exhausted`, since nobody would
/// read it and the stream would not end there.
pub(crate) fn publish_close<S: Side>(
    cx: &mut Context<'_, S>,
    what: Publish,
    stream_id: Text,
    channel: &Channel,
    cause: ErrorResponse,
) {
    if cx.outputs.is_overfull() {
        return cx.outputs.count(Reason::Withdrawn);
    }
    let request_id = cx.ids.request();
    let close = |code, text| {
        let (stream_id, request_id) = (stream_id.clone(), request_id.clone());
        frame(cx.now, stream_id, request_id, cx.rules.timeout, StreamBody::Close { code, text })
    };
    let mut frame = close(cause.code, cause.text);
    if let Err(TooLarge { size, unit, limit }) = outgoing::check(&frame, channel, cx.rules.frame) {
        cx.outputs.count(Reason::FrameLimit);
        let text = format!("the cause is too large: {size} {unit} are over the limit of {limit}");
        frame = close(ErrorCode::ResourceExhausted, text.into());
    }
    cx.outputs.publish(what, channel, frame);
}

/// The cause of a stream that was closed without one.
pub(crate) fn plain_close() -> ErrorResponse {
    ErrorResponse::new(ErrorCode::Canceled, Text::from_static("stream closed"))
}

/// The cause of a stream whose server leaves.
pub(crate) fn eof() -> ErrorResponse {
    ErrorResponse::new(ErrorCode::Unavailable, Text::from_static("EOF"))
}

/// The cause of a stream whose consumer had no room for a message.
pub(super) fn slow_consumer() -> ErrorResponse {
    let text = Text::from_static("stream message discarded by slow consumer");
    ErrorResponse::new(ErrorCode::Unavailable, text)
}

/// A frame of a stream that is of use for `timeout` from now.
pub(crate) fn frame(
    now: Now,
    stream_id: Text,
    request_id: Text,
    timeout: Duration,
    body: StreamBody,
) -> Frame {
    let (sent_at, expiry) = (now.wall.as_unix_nanos(), (now.wall + timeout).as_unix_nanos());
    Frame::Stream(Stream { stream_id, request_id, sent_at, expiry, body: Some(body) })
}
