//! Calls in flight, and streams that are being opened.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use psrpc_engine::{
    Call as EngineCall, CallError, CallHandle, Client as Engine, Failure, Now, OpenStream, Reply,
    StreamHandle,
};

use super::Client;
use super::role::{Outcome, Settled};
use crate::error::Error;
use crate::selection::Choose;
use crate::stream::Codec;

/// A call in flight. Dropping it cancels the call.
pub(crate) struct InFlight(PendingCall);

impl InFlight {
    /// Makes a call.
    pub(crate) fn start(
        client: Client,
        call: Box<EngineCall>,
        choose: Option<Choose>,
    ) -> Result<Self, CallError> {
        Ok(Self(PendingCall::start(client, choose, None, |engine, now| engine.call(now, *call))?))
    }

    pub(crate) fn poll(&mut self, cx: &Context<'_>) -> Poll<Result<Reply, Box<Failure>>> {
        self.0.poll(cx).map_ok(|settled| match settled {
            Settled::Reply(reply) => reply,
            Settled::Stream(..) => unreachable!("a unary call opens no stream"),
        })
    }
}

/// A stream that is being opened. Dropping it cancels the opening.
pub(crate) struct Opening(PendingCall);

impl Opening {
    /// Starts opening a stream.
    pub(crate) fn start(
        client: Client,
        open: OpenStream,
        choose: Option<Choose>,
        codec: Arc<Codec>,
    ) -> Result<Self, CallError> {
        Ok(Self(PendingCall::start(client, choose, Some(codec), |engine, now| {
            engine.open_stream(now, open)
        })?))
    }

    /// Waits for the stream, and returns it with the key of its slot.
    pub(crate) async fn opened(mut self) -> Result<(StreamHandle, usize), Error> {
        match poll_fn(|cx| self.0.poll(cx)).await {
            Ok(Settled::Stream(stream, key)) => Ok((stream, key)),
            Ok(Settled::Reply(_)) => unreachable!("an opening gets no reply"),
            Err(failure) => Err((*failure).into()),
        }
    }
}

/// A unary call, or the opening of a stream, that the engine has started. Dropping it cancels it.
struct PendingCall {
    client: Client,
    call: CallHandle,
    /// The key of the caller's entry; `None` once the outcome was taken.
    caller: Option<usize>,
}

impl PendingCall {
    fn start(
        client: Client,
        choose: Option<Choose>,
        codec: Option<Arc<Codec>>,
        start: impl FnOnce(&mut Engine, Now) -> Result<CallHandle, CallError>,
    ) -> Result<Self, CallError> {
        let (call, caller) = client.driver().execute(|state, now| {
            let call = start(&mut state.engine, now)?;
            Ok::<_, CallError>((call, Some(state.role.wait_for(call, choose, codec))))
        })?;
        Ok(Self { client, call, caller })
    }

    fn poll(&mut self, cx: &Context<'_>) -> Poll<Outcome> {
        let key = self.caller.expect("polled after completion");
        let (polled, _discarded) = self.client.driver().with_state(|state| state.role.poll_outcome(key, cx));
        if polled.is_ready() {
            self.caller = None;
        }
        polled
    }
}

impl Drop for PendingCall {
    fn drop(&mut self) {
        let (call, Some(caller)) = (self.call, self.caller) else { return };
        let driver = self.client.driver();
        let (outcome, discarded) = driver.execute(|state, now| {
            let (outcome, discarded) = state.role.remove_caller(call, caller);
            if outcome.is_none() {
                state.engine.cancel(now, call);
            }
            (outcome, discarded)
        });
        drop(discarded);
        // The stream was opened just before the future was dropped.
        if let Some(Ok(Settled::Stream(stream, key))) = outcome {
            driver.release_stream(stream, key);
        }
    }
}
