//! The frames of streams, and the causes of their closes.

use alloc::format;
use core::time::Duration;

use psrpc_proto::{Channel, ErrorCode, ErrorResponse, Frame, Stream, StreamBody, Text};

use super::context::Context;
use super::side::Side;
use crate::core::outputs::Publish;
use crate::core::time::Now;
use crate::reason::Reason;
use crate::wire::outgoing::{self, TooLarge};

/// Publishes the close of a stream, unless the queue is overfull. A cause that exceeds the frame
/// limit is replaced by `resource_exhausted`, because receivers would drop the frame and the stream
/// would not end there.
pub(crate) fn publish_close<S: Side>(
    cx: &mut Context<'_, S>,
    kind: Publish,
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
    cx.outputs.publish(kind, channel, frame);
}

/// Returns the cause of a close for which none is given.
pub(crate) fn plain_close() -> ErrorResponse {
    ErrorResponse::new(ErrorCode::Canceled, Text::from_static("stream closed"))
}

/// Returns the cause of a close by a server that shuts down.
pub(crate) fn eof() -> ErrorResponse {
    ErrorResponse::new(ErrorCode::Unavailable, Text::from_static("EOF"))
}

/// Returns the cause of a close by a consumer that had no room for a message.
pub(super) fn slow_consumer() -> ErrorResponse {
    let text = Text::from_static("stream message discarded by slow consumer");
    ErrorResponse::new(ErrorCode::Unavailable, text)
}

/// Returns a stream frame that expires `timeout` from now.
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
