//! The server's side of streams.

use psrpc_proto::{ErrorResponse, Frame, Stream, StreamBody};

use super::context::Context;
use super::request::{Incoming, Opening, Requests};
use super::side::ServedBy;
use crate::core::handle::{RegistrationHandle, StreamHandle};
use crate::error::Failure;
use crate::event::ServerEvent;
use crate::reason::Reason;
use crate::stream::frames::{eof, plain_close};
use crate::wire::incoming;
use crate::wire::route::Route;

/// Handles a stream frame from a client. Every server of the method gets it, even if another server
/// has the stream.
pub(super) fn on_frame(
    requests: &mut Requests,
    cx: &mut Context<'_>,
    registration: RegistrationHandle,
    route: Route,
    mut frame: Stream,
) {
    let stream = cx.streams.find(&frame.stream_id);
    match (frame.body.take(), stream) {
        (Some(StreamBody::Open { node_id, metadata }), _) => {
            let Stream { stream_id, request_id, sent_at, expiry, .. } = frame;
            let opens = Some(Opening { stream_id, sent_at, expiry });
            requests.receive(
                cx,
                Incoming {
                    registration,
                    route,
                    request_id,
                    client_id: node_id,
                    sent_at,
                    expiry,
                    metadata,
                    payload: Default::default(),
                    skip_claim: false,
                    opens,
                },
            );
        }
        (Some(StreamBody::Close { .. }), None) => requests.on_opening_closed(cx, &frame.stream_id),
        (Some(StreamBody::Close { code, text }), Some(stream)) => {
            cx.streams.on_close(cx.outputs, stream, ErrorResponse::new(code, text));
        }
        (Some(StreamBody::Message { payload }), Some(stream)) => {
            let (streams, mut cx) = cx.streams();
            streams.on_message(&mut cx, stream, frame, payload);
        }
        (Some(StreamBody::Ack), Some(_)) => {
            let (streams, mut cx) = cx.streams();
            streams.on_ack(&mut cx, frame);
        }
        (Some(StreamBody::Message { .. } | StreamBody::Ack), None) => cx.outputs.count(Reason::Elsewhere),
        (None, _) => incoming::unexpected(cx.outputs, &Frame::Stream(frame)),
    }
}

/// Ends an open stream with EOF, because its server shuts down or stops serving the method.
pub(super) fn end(cx: &mut Context<'_>, stream: StreamHandle) {
    let (streams, mut cx) = cx.streams();
    streams.close(&mut cx, stream, Reason::Eof, eof());
}

/// Ends an open stream with EOF, because the server's runtime has shut down.
pub(super) fn end_with_runtime(cx: &mut Context<'_>, stream: StreamHandle) {
    let (streams, mut cx) = cx.streams();
    streams.close_with(&mut cx, stream, eof(), Failure::runtime_of_server());
}

/// Handles the end of a stream's handler: closes the stream if it is open, and forgets it.
pub(super) fn finish(cx: &mut Context<'_>, stream: StreamHandle, result: Result<(), ErrorResponse>) {
    let (streams, mut stream_cx) = cx.streams();
    streams.close(&mut stream_cx, stream, Reason::Closed, result.err().unwrap_or_else(plain_close));
    forget(cx, stream);
}

/// Stops the handler of a stream, and forgets the stream.
pub(super) fn stop_handler(cx: &mut Context<'_>, stream: StreamHandle) {
    cx.outputs.event(ServerEvent::StopHandler { stream });
    forget(cx, stream);
}

fn forget(cx: &mut Context<'_>, stream: StreamHandle) {
    let Some(ServedBy { registration, index }) = cx.streams.forget(cx.outputs, stream) else { return };
    // The last stream of the registration moves to the free index.
    let moved = cx.registry.remove_stream(registration, index);
    if let Some(served_by) = moved.and_then(|moved| cx.streams.data_mut(moved)) {
        served_by.index = index;
    }
    cx.registry.request_ended(cx.outputs, registration);
}
