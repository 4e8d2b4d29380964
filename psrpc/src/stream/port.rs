//! The port of a stream: what a stream asks of the driver that it belongs to, whether a client's or a server's.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use psrpc_engine::proto::ErrorResponse;
use psrpc_engine::{Delivery, Engine, Failure, SendError, StreamHandle, Time};

use super::codec::{Codec, NotTaken};
use super::table::{Awaited, Discarded, Left, StreamTable, StreamTask};
use crate::driver::{Driver, LARGE, Role};
use crate::error::Error;
use crate::guard;
use crate::interceptor::SendOptions;
use crate::message::AnyMessage;
use crate::runtime::Runtime;
use crate::waiting::Place;

/// A role whose driver has streams.
pub(crate) trait StreamRole: Role {
    fn streams(&mut self) -> &mut StreamTable;
}

/// What a stream asks of what it belongs to.
pub(crate) trait Port: Send + Sync {
    fn runtime(&self) -> &Arc<dyn Runtime>;
    /// Sends a message; gives what the rest of the send is asked for by.
    fn send(&self, payload: Bytes, options: SendOptions) -> Result<usize, SendError>;
    fn poll_sent(&self, sender: usize, cx: &Context<'_>) -> Poll<Result<(), Box<Failure>>>;
    fn cancel_send(&self, sender: usize);
    fn poll_message(&self, place: &mut Place, cx: &Context<'_>) -> Poll<Option<AnyMessage>>;
    fn poll_ended(&self, place: &mut Place, cx: &Context<'_>) -> Poll<Box<Failure>>;
    /// A task does not wait for the stream any more.
    fn leave_place(&self, awaited: Awaited, place: &mut Place);
    fn cause(&self) -> Option<Box<Failure>>;
    fn close(&self, cause: Option<ErrorResponse>);
    fn hijack(&self);
}

/// A stream of a driver: the engine's handle, and the key of its slot. Dropping it tells that user code does not have it any more.
pub(crate) struct DriverPort<R: StreamRole> {
    pub(crate) driver: Arc<Driver<R>>,
    pub(crate) stream: StreamHandle,
    pub(crate) key: usize,
}

impl<R: StreamRole> Drop for DriverPort<R> {
    fn drop(&mut self) {
        if planted!(DroppedStreamStays) {
            return;
        }
        self.driver.release_stream(self.stream, self.key);
    }
}

impl<R: StreamRole> Port for DriverPort<R> {
    fn runtime(&self) -> &Arc<dyn Runtime> {
        &self.driver.runtime
    }

    fn send(&self, payload: Bytes, options: SendOptions) -> Result<usize, SendError> {
        self.driver.drive(|state, now| {
            let SendOptions { timeout, deadline, .. } = options;
            let until_deadline = |deadline: Time| {
                let timeout = timeout.unwrap_or_else(|| state.engine.stream_commands().default_timeout());
                timeout.min(deadline.since(now.time))
            };
            let timeout = deadline.map(until_deadline).or(timeout);
            let send = state.engine.stream_commands().send(now, self.stream, payload, timeout)?;
            Ok(state.role.streams().sending(send))
        })
    }

    fn poll_sent(&self, sender: usize, cx: &Context<'_>) -> Poll<Result<(), Box<Failure>>> {
        self.driver.look(|view| view.role.streams().poll_sent(sender, cx)).0
    }

    fn cancel_send(&self, sender: usize) {
        self.driver.drive(|state, _| {
            let (send, waker) = state.role.streams().forget_send(sender);
            if let Some(send) = send {
                state.engine.stream_commands().cancel_send(send);
            }
            waker
        });
    }

    fn poll_message(&self, place: &mut Place, cx: &Context<'_>) -> Poll<Option<AnyMessage>> {
        self.driver
            .tell(|engine, role| {
                let polled = role.streams().poll_message(self.key, place, cx);
                if let Poll::Ready(Some(_)) = polled.0 {
                    engine.stream_commands().taken(self.stream);
                }
                polled
            })
            .0
    }

    fn poll_ended(&self, place: &mut Place, cx: &Context<'_>) -> Poll<Box<Failure>> {
        self.driver.look(|view| view.role.streams().poll_ended(self.key, place, cx)).0
    }

    fn leave_place(&self, awaited: Awaited, place: &mut Place) {
        drop(self.driver.look(|view| view.role.streams().leave(self.key, awaited, place)));
    }

    fn cause(&self) -> Option<Box<Failure>> {
        self.driver.look(|view| view.role.streams().cause(self.key))
    }

    fn close(&self, cause: Option<ErrorResponse>) {
        self.driver.drive(|state, now| state.engine.stream_commands().close(now, self.stream, cause));
    }

    fn hijack(&self) {
        self.driver.look(|view| view.role.streams().hijack(self.key));
    }
}

impl<R: StreamRole> Driver<R> {
    /// User code does not have a stream any more.
    pub(crate) fn release_stream(self: &Arc<Self>, stream: StreamHandle, key: usize) {
        self.leave(stream, Ok(()), |streams| streams.release(key));
    }

    /// The handler of a stream is done.
    pub(crate) fn handler_done(
        self: &Arc<Self>,
        stream: StreamHandle,
        key: usize,
        result: Result<(), Error>,
    ) {
        let failed = result.is_err();
        self.leave(stream, result, |streams| streams.handler_done(key, failed));
    }

    /// One of those who have a stream leaves it; the last one ends it.
    fn leave(
        self: &Arc<Self>,
        stream: StreamHandle,
        result: Result<(), Error>,
        leave: impl FnOnce(&mut StreamTable) -> (Left, Discarded),
    ) {
        let result = result.map_err(Error::into_response);
        let discarded = self.drive(|state, now| {
            let (left, discarded) = leave(state.role.streams());
            if let Left::Gone = left {
                state.engine.finish_stream(now, stream, result);
            }
            discarded
        });
        drop(discarded);
    }

    /// Does a task of the streams, without the lock.
    pub(crate) fn perform_stream_task(self: &Arc<Self>, task: StreamTask) {
        match task {
            StreamTask::Wake(waker) => waker.wake(),
            StreamTask::Ended(codec, cause) => codec.ended(cause),
            StreamTask::Unwanted(delivery) if planted!(UnwantedIsAcked) => {
                self.drive(|state, now| state.engine.stream_commands().accept(now, delivery));
            }
            StreamTask::Unwanted(delivery) => {
                self.drive(|state, now| state.engine.stream_commands().reject(now, delivery, None));
            }
            StreamTask::Message(delivery, payload, key, codec) if payload.len() >= LARGE => {
                let driver = Some(Arc::clone(self));
                let mut undecoded = Undecoded { driver, stream: delivery.stream(), key };
                self.runtime.spawn(Box::pin(async move {
                    if let Some(driver) = undecoded.driver.take() {
                        driver.receive(delivery, payload, key, &codec);
                    }
                }));
            }
            StreamTask::Message(delivery, payload, key, codec) => {
                self.receive(delivery, payload, key, &codec);
            }
        }
    }

    /// Decodes a message, and hands it to the consumer of its stream.
    fn receive(self: &Arc<Self>, delivery: Delivery, payload: Bytes, key: usize, codec: &Codec) {
        let received = codec.receive(payload).map_err(|not_taken| match not_taken {
            NotTaken::Malformed(error) => Some(error.into_response()),
            NotTaken::Refused => None,
        });
        let stream = delivery.stream();
        let (woken, left) = self.drive(|state, now| {
            let (streams, engine) = (state.role.streams(), &mut state.engine);
            match received.map(|message| streams.push(stream, key, message)) {
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
                    (streams.not_taken(stream, key), None)
                }
            }
        });
        // Without the lock, and where a panic of it does no harm.
        let _ = guard::catch(|| drop(left));
        woken.into_iter().for_each(Waker::wake);
    }
}

/// A message that is to be decoded in a task of its own. If the runtime drops that, nobody waits for the message.
struct Undecoded<R: StreamRole> {
    /// `None` once it is being decoded.
    driver: Option<Arc<Driver<R>>>,
    stream: StreamHandle,
    key: usize,
}

impl<R: StreamRole> Drop for Undecoded<R> {
    fn drop(&mut self) {
        if let Some(driver) = &self.driver {
            let woken = driver.look(|view| view.role.streams().not_taken(self.stream, self.key));
            woken.into_iter().for_each(Waker::wake);
        }
    }
}
