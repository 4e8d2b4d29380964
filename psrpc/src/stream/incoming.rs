//! Incoming messages of streams, from the engine to their consumers, and the end of streams.

use std::sync::Arc;
use std::task::Waker;

use psrpc_engine::{Engine, StreamHandle};

use super::codec::{Codec, RejectedMessage};
use super::table::{DiscardedStream, IncomingMessage, IncomingPlace, StreamTable, StreamTask, StreamUse};
use crate::driver::{Driver, LARGE, Role};
use crate::error::Error;
use crate::guard;

/// A role whose driver has streams.
pub(crate) trait StreamRole: Role {
    fn streams(&mut self) -> &mut StreamTable;
}

impl<R: StreamRole> Driver<R> {
    /// Releases the user's end of a stream.
    pub(crate) fn release_stream(self: &Arc<Self>, stream: StreamHandle, key: usize) {
        self.release_with(stream, Ok(()), |streams| streams.release(key));
    }

    /// Records that the handler of a stream has returned.
    pub(crate) fn handler_done(
        self: &Arc<Self>,
        stream: StreamHandle,
        key: usize,
        result: Result<(), Error>,
    ) {
        let failed = result.is_err();
        self.release_with(stream, result, |streams| streams.handler_done(key, failed));
    }

    /// Releases a stream with `release`, and ends the stream unless it stays open.
    fn release_with(
        self: &Arc<Self>,
        stream: StreamHandle,
        result: Result<(), Error>,
        release: impl FnOnce(&mut StreamTable) -> (StreamUse, DiscardedStream),
    ) {
        let result = result.map_err(Error::into_response);
        let discarded = self.execute(|state, now| {
            let (stream_use, discarded) = release(state.role.streams());
            if let StreamUse::Unused = stream_use {
                state.engine.finish_stream(now, stream, result);
            }
            discarded
        });
        drop(discarded);
    }

    /// Performs a task of the streams, without the lock.
    pub(crate) fn perform_stream_task(self: &Arc<Self>, task: StreamTask) {
        match task {
            StreamTask::Wake(waker) => waker.wake(),
            StreamTask::Ended(codec, cause) => codec.ended(cause),
            StreamTask::Reject(delivery) => {
                self.execute(|state, now| state.engine.stream_commands().reject(now, delivery, None));
            }
            StreamTask::Message(message, codec) if message.payload.len() >= LARGE => {
                let mut undecoded = Undecoded { driver: Some(Arc::clone(self)), at: message.at };
                self.runtime.spawn(Box::pin(async move {
                    if let Some(driver) = undecoded.driver.take() {
                        driver.receive(message, &codec);
                    }
                }));
            }
            StreamTask::Message(message, codec) => self.receive(message, &codec),
        }
    }

    /// Decodes a message, and passes it to the consumer of its stream.
    fn receive(self: &Arc<Self>, message: IncomingMessage, codec: &Codec) {
        let IncomingMessage { delivery, payload, at } = message;
        let received = codec.receive(payload).map_err(|rejected| match rejected {
            RejectedMessage::Malformed(error) => Some(error.into_response()),
            RejectedMessage::Refused => None,
        });
        let (woken, unread) = self.execute(|state, now| {
            let (streams, engine) = (state.role.streams(), &mut state.engine);
            match received.map(|message| streams.push(at, message)) {
                Ok(Ok(woken)) => {
                    engine.stream_commands().accept(now, delivery);
                    (woken, None)
                }
                Ok(Err(message)) => {
                    engine.stream_commands().reject(now, delivery, None);
                    (Vec::new(), Some(message))
                }
                Err(cause) => {
                    engine.stream_commands().reject(now, delivery, cause);
                    (streams.message_rejected(at), None)
                }
            }
        });
        // Dropped after the lock is released, and with panics caught.
        let _ = guard::catch(|| drop(unread));
        woken.into_iter().for_each(Waker::wake);
    }
}

/// A message to be decoded in a task of its own. If the runtime drops the task, the message counts
/// as rejected.
struct Undecoded<R: StreamRole> {
    /// `None` once decoding has started.
    driver: Option<Arc<Driver<R>>>,
    at: IncomingPlace,
}

impl<R: StreamRole> Drop for Undecoded<R> {
    fn drop(&mut self) {
        if let Some(driver) = &self.driver {
            let woken = driver.with_state(|state| state.role.streams().message_rejected(self.at));
            woken.into_iter().for_each(Waker::wake);
        }
    }
}
