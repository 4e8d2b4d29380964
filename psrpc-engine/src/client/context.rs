//! The parts of a client that its calls and streams use.

use alloc::boxed::Box;
use core::time::Duration;

use psrpc_proto::{IdGenerator, Text};

use crate::config::ClientConfig;
use crate::core::bus_error::BusError;
use crate::core::handle::{CallHandle, MultiHandle, StreamHandle};
use crate::core::outputs;
use crate::core::time::{Now, Time};
use crate::error::Failure;
use crate::event::ClientEvent;
use crate::reason::{Dropped, Reason};
use crate::stream::Streams;
use crate::stream::context::{self as stream_context, Rules};
use crate::stream::sends::StreamTimer;
use crate::stream::side::{Parts, Side};

/// The client's outputs, timers and counters.
pub(super) type Outputs = outputs::Outputs<ClientEvent, Owner>;

/// The owner of a client's timer.
#[derive(Clone, Copy)]
pub(crate) enum Owner {
    Call(CallHandle),
    Multi(MultiHandle),
    Stream(StreamTimer),
    /// A close stops waiting for the bus.
    Close,
    /// A close continues.
    Ending,
}

impl From<StreamTimer> for Owner {
    fn from(timer: StreamTimer) -> Self {
        Owner::Stream(timer)
    }
}

/// The client's side of streams.
#[derive(Clone, Copy, Debug)]
pub enum ClientSide {}

impl Side for ClientSide {}

impl Parts for ClientSide {
    type Event = ClientEvent;
    type Owner = Owner;
    /// The call that opens the stream, until the stream is open.
    type Data = Option<CallHandle>;
    const LINGERS: bool = false;
}

/// The streams of a client.
pub(super) type ClientStreams = Streams<ClientSide>;

/// The parts of the client that a call uses.
pub(super) struct Context<'a> {
    pub(super) now: Now,
    pub(super) outputs: &'a mut Outputs,
    pub(super) ids: &'a mut IdGenerator,
    pub(super) config: &'a ClientConfig,
    pub(super) streams: &'a mut ClientStreams,
}

impl Context<'_> {
    /// Returns the deadline of a call: the end of `timeout` (by default the client's), or
    /// `deadline` if that is earlier.
    pub(super) fn deadline(&self, timeout: Option<Duration>, deadline: Option<Time>) -> Time {
        let at_most = self.now.time + timeout.unwrap_or(self.config.timeout);
        deadline.map_or(at_most, |deadline| deadline.min(at_most))
    }

    /// Returns a deadline as the wire carries it: in Unix nanoseconds.
    pub(super) fn expiry(&self, deadline: Time) -> i64 {
        (self.now.wall + deadline.since(self.now.time)).as_unix_nanos()
    }

    /// Returns the streams and their context.
    pub(super) fn streams(&mut self) -> (&mut ClientStreams, stream_context::Context<'_, ClientSide>) {
        let Self { now, outputs, ids, config, streams } = self;
        (streams, stream_context::Context { now: *now, outputs, ids, rules: stream_rules(config) })
    }

    /// Reports a failed publish of a frame that no command waits for.
    pub(super) fn check_published(&mut self, result: Result<Option<u64>, BusError>) {
        if result.is_err() {
            self.outputs.dropped(Dropped::of(Reason::PublishFailed, Text::EMPTY, Text::EMPTY));
        }
    }

    /// Ends a call that opens a stream. If the call failed, the stream is aborted, so that a server
    /// that accepts the stream late learns of the failure.
    pub(super) fn opened(
        &mut self,
        call: CallHandle,
        stream: StreamHandle,
        outcome: Result<(), Box<Failure>>,
    ) {
        let (streams, mut cx) = self.streams();
        let outcome = match outcome {
            Ok(()) => {
                streams.opened(&mut cx, stream);
                if let Some(opening) = streams.data_mut(stream) {
                    *opening = None;
                }
                Ok(stream)
            }
            Err(failure) => {
                streams.abort(&mut cx, stream, &failure);
                Err(failure)
            }
        };
        self.outputs.event(ClientEvent::Opened { call, outcome });
    }
}

/// Returns the rules for the client's streams.
pub(super) fn stream_rules(config: &ClientConfig) -> Rules<'_> {
    Rules {
        config: &config.streams,
        frame: &config.limits.frame,
        timeout: config.timeout,
        skew_allowance: config.skew_allowance,
        horizon: config.horizon,
    }
}
