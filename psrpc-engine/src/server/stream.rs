//! Streams, seen from the server that clients open them at.

use psrpc_proto::{ErrorResponse, Frame, Stream, StreamBody};

use super::Context;
use super::request::{Incoming, Opening, Requests};
use crate::event::ServerEvent;
use crate::stream::{Side, Streams, eof, plain_close};
use crate::{Reason, RegistrationHandle, Route, StreamHandle, incoming};

/// The streams of a server, those whose handlers are not done yet included.
pub(super) type ServerStreams = Streams<Kept>;

/// What a server keeps with a stream.
pub(super) struct Kept {
    /// The registration whose handler it has.
    pub(super) registration: RegistrationHandle,
}

impl Side for Kept {
    const LINGERS: bool = true;
}

/// A frame of a client. Every server of the method gets it, whichever has the stream.
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
        (Some(StreamBody::Close { .. }), None) => requests.on_given_up(cx, &frame.stream_id),
        (Some(StreamBody::Close { code, text }), Some(stream)) => {
            cx.streams.on_close(cx.io, stream, ErrorResponse::new(code, text));
        }
        (Some(StreamBody::Message { payload }), Some(stream)) => {
            let (streams, mut cx) = cx.streams();
            streams.on_message(&mut cx, stream, frame, payload);
        }
        (Some(StreamBody::Ack), Some(_)) => {
            let (streams, mut cx) = cx.streams();
            streams.on_ack(&mut cx, frame);
        }
        (Some(StreamBody::Message { .. } | StreamBody::Ack), None) => cx.io.count(Reason::Elsewhere),
        (None, _) => incoming::unexpected(cx.io, &Frame::Stream(frame)),
    }
}

/// Ends the open streams of a registration, or all of them, in the order of their places: clients see EOF.
pub(super) fn end_all(cx: &mut Context<'_>, of: Option<RegistrationHandle>) {
    let (streams, mut cx) = cx.streams();
    for stream in streams.handles() {
        if of.is_none_or(|of| streams.keeps(stream).is_some_and(|kept| kept.registration == of)) {
            streams.close(&mut cx, stream, Reason::Eof, eof());
        }
    }
}

/// The handler of a stream is done: the stream ends if it has not, and is gone.
pub(super) fn finish(cx: &mut Context<'_>, stream: StreamHandle, result: Result<(), ErrorResponse>) {
    let (streams, mut stream_cx) = cx.streams();
    streams.close(&mut stream_cx, stream, Reason::Closed, result.err().unwrap_or_else(plain_close));
    if let Some(kept) = streams.forget(stream_cx.io, stream) {
        cx.registry.release(cx.io, kept.registration);
    }
}

/// Handlers that are still there are not waited for any more.
pub(super) fn stop_handlers(cx: &mut Context<'_>) {
    for stream in cx.streams.handles() {
        cx.io.event(ServerEvent::StopHandler { stream });
        if let Some(kept) = cx.streams.forget(cx.io, stream) {
            cx.registry.release(cx.io, kept.registration);
        }
    }
}
