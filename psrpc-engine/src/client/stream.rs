//! The client's side of streams.

use alloc::boxed::Box;
use core::time::Duration;

use psrpc_proto::{ErrorResponse, Frame, Metadata, Stream, StreamBody};

use super::call::{Calls, Start};
use super::context::Context;
use super::selection::Selection;
use crate::core::handle::{CallHandle, StreamHandle};
use crate::core::time::Time;
use crate::error::{CallError, Failure};
use crate::reason::{Dropped, Reason};
use crate::stream::frames;
use crate::wire::route::Route;
use crate::wire::{incoming, outgoing};

/// A stream to open (PROTOCOL section 8).
#[derive(Clone, Debug)]
pub struct OpenStream {
    /// The method and topic.
    pub route: Route,
    /// The metadata to send with the request.
    pub metadata: Metadata,
    /// The timeout of the opening; `None` for the client's default.
    pub timeout: Option<Duration>,
    /// The caller's deadline. The opening ends at its timeout or at this time, whichever is
    /// earlier.
    pub deadline: Option<Time>,
    /// How the opening picks its server.
    pub selection: Selection,
    /// Whether to wait for a subscriber, as in [`Call`](super::call::Call).
    pub waits_for_subscriber: bool,
}

impl OpenStream {
    /// Creates an opening without metadata and with default options.
    pub fn new(route: Route) -> Self {
        let (metadata, selection) = (Metadata::new(), Selection::default());
        Self { route, metadata, timeout: None, deadline: None, selection, waits_for_subscriber: false }
    }
}

/// Starts the call that opens a stream.
pub(super) fn open(
    calls: &mut Calls,
    cx: &mut Context<'_>,
    open: OpenStream,
) -> Result<CallHandle, CallError> {
    let OpenStream { route, metadata, timeout, deadline, selection, waits_for_subscriber } = open;
    if !cx.config.opens_streams {
        return Err(CallError::NoStreams { method: route.method().clone() });
    }
    let rules = calls.check(&route, &selection, cx.config)?;
    if cx.streams.is_full() {
        return Err(CallError::TooManyStreams { limit: cx.config.limits.streams.streams });
    }
    let deadline = cx.deadline(timeout, deadline);
    let (request_id, vacancy) = calls.draw_id(cx);
    let (stream_id, stream_vacancy) = loop {
        let stream_id = cx.ids.stream();
        if let Some(stream_vacancy) = cx.streams.vacancy(&stream_id) {
            break (stream_id, stream_vacancy);
        }
    };
    let body = StreamBody::Open { node_id: cx.config.id.clone(), metadata };
    let timeout = deadline.since(cx.now.time);
    let frame = frames::frame(cx.now, stream_id.clone(), request_id.clone(), timeout, body);
    outgoing::check(&frame, route.requests(), &cx.config.limits.frame)?;
    let stream = cx.streams.add(stream_vacancy, stream_id, route.requests().clone(), Some(calls.next()));
    let opens = Some(stream);
    let start = Start { request_id, vacancy, frame, deadline, route, rules, opens, waits_for_subscriber };
    Ok(calls.start(cx, start))
}

/// Handles a stream frame from a server.
pub(super) fn on_frame(calls: &mut Calls, cx: &mut Context<'_>, mut frame: Stream) {
    let Some(stream) = cx.streams.find(&frame.stream_id) else {
        // Most of these are acks and closes that arrive after the stream has ended.
        return cx.outputs.dropped(Dropped::of(Reason::NoStream, frame.request_id, frame.stream_id));
    };
    let opening = cx.streams.data_mut(stream).and_then(|opening| *opening);
    if opening.is_some_and(|call| calls.is_overdue(cx.now.time, call)) {
        return cx.outputs.dropped(Dropped::of(Reason::Late, frame.request_id, frame.stream_id));
    }
    match (frame.body.take(), opening) {
        (Some(StreamBody::Ack), Some(call)) => {
            if !calls.has_id(call, &frame.request_id) {
                cx.outputs.dropped(Dropped::of(Reason::Late, frame.request_id, frame.stream_id));
            } else if calls.is_waiting(call) {
                calls.on_opened(cx, call);
            } else {
                cx.outputs.dropped(Dropped::of(Reason::NotSelected, frame.request_id, frame.stream_id));
            }
        }
        (Some(StreamBody::Ack), None) => {
            let (streams, mut cx) = cx.streams();
            streams.on_ack(&mut cx, frame);
        }
        (Some(StreamBody::Message { payload }), opening) => {
            match opening {
                Some(call) if !calls.is_waiting(call) => {
                    return cx.outputs.dropped(Dropped::of(
                        Reason::NotSelected,
                        frame.request_id,
                        frame.stream_id,
                    ));
                }
                // The ack is late or lost, but a server that sends a message has accepted the
                // stream.
                Some(call) => calls.on_opened(cx, call),
                None => {}
            }
            let (streams, mut cx) = cx.streams();
            streams.on_message(&mut cx, stream, frame, payload);
        }
        (Some(StreamBody::Close { code, text }), Some(call)) => {
            calls.on_refused(cx, call, ErrorResponse::new(code, text));
        }
        (Some(StreamBody::Close { code, text }), None) => {
            cx.streams.on_close(cx.outputs, stream, ErrorResponse::new(code, text));
        }
        (body @ (Some(StreamBody::Open { .. }) | None), _) => {
            incoming::unexpected(cx.outputs, &Frame::Stream(Stream { body, ..frame }));
        }
    }
}

/// Ends an open stream of a client that closes.
pub(super) fn end(cx: &mut Context<'_>, stream: StreamHandle, failure: Box<Failure>) {
    let (streams, mut cx) = cx.streams();
    streams.close_with(&mut cx, stream, frames::plain_close(), failure);
}
