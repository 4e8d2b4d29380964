//! The port of a stream: what a stream asks of the driver that it belongs to, whether a client's or a server's.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use psrpc_engine::proto::ErrorResponse;
use psrpc_engine::{
    Client, Delivery, Engine, Failure, Now, SendError, SendHandle, Server, StreamHandle, Time,
};

use super::codec::{Codec, NotTaken};
use super::table::{Awaited, Discarded, Left, StreamTable, StreamTask};
use crate::driver::{Driver, LARGE, Role};
use crate::error::Error;
use crate::guard;
use crate::interceptor::SendOptions;
use crate::message::AnyMessage;
use crate::runtime::Runtime;
use crate::waiting::Place;

/// What a client's engine and a server's do alike with streams.
pub(crate) trait StreamEngine: Engine {
    /// How long a send may take that does not say so itself.
    fn default_timeout(&self) -> Duration;
    fn send(
        &mut self,
        now: Now,
        stream: StreamHandle,
        payload: Bytes,
        timeout: Option<Duration>,
    ) -> Result<SendHandle, SendError>;
    fn cancel_send(&mut self, send: SendHandle);
    fn accept(&mut self, now: Now, delivery: Delivery);
    fn reject_message(&mut self, now: Now, delivery: Delivery, cause: Option<ErrorResponse>);
    fn taken(&mut self, stream: StreamHandle);
    fn close_stream(&mut self, now: Now, stream: StreamHandle, cause: Option<ErrorResponse>);
    /// Ends a stream that is nobody's any more.
    fn finish(&mut self, now: Now, stream: StreamHandle, result: Result<(), ErrorResponse>);
}

macro_rules! stream_engine {
    ($engine:ident, |$self:ident, $now:ident, $stream:ident, $result:ident| $finish:expr) => {
        impl StreamEngine for $engine {
            fn default_timeout(&self) -> Duration {
                $engine::default_timeout(self)
            }

            fn send(
                &mut self,
                now: Now,
                stream: StreamHandle,
                payload: Bytes,
                timeout: Option<Duration>,
            ) -> Result<SendHandle, SendError> {
                $engine::send(self, now, stream, payload, timeout)
            }

            fn cancel_send(&mut self, send: SendHandle) {
                $engine::cancel_send(self, send);
            }

            fn accept(&mut self, now: Now, delivery: Delivery) {
                $engine::accept(self, now, delivery);
            }

            fn reject_message(&mut self, now: Now, delivery: Delivery, cause: Option<ErrorResponse>) {
                $engine::reject_message(self, now, delivery, cause);
            }

            fn taken(&mut self, stream: StreamHandle) {
                $engine::taken(self, stream);
            }

            fn close_stream(&mut self, now: Now, stream: StreamHandle, cause: Option<ErrorResponse>) {
                $engine::close_stream(self, now, stream, cause);
            }

            fn finish(&mut $self, $now: Now, $stream: StreamHandle, $result: Result<(), ErrorResponse>) {
                $finish;
            }
        }
    };
}

stream_engine!(Client, |self, now, stream, result| self.close_stream(now, stream, result.err()));
stream_engine!(Server, |self, now, stream, result| self.finish_stream(now, stream, result));

/// A role whose driver has streams.
pub(crate) trait StreamRole: Role<Engine: StreamEngine> {
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
                let timeout = timeout.unwrap_or_else(|| state.engine.default_timeout());
                timeout.min(deadline.since(now.time))
            };
            let timeout = deadline.map(until_deadline).or(timeout);
            let send = state.engine.send(now, self.stream, payload, timeout)?;
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
                state.engine.cancel_send(send);
            }
            waker
        });
    }

    fn poll_message(&self, place: &mut Place, cx: &Context<'_>) -> Poll<Option<AnyMessage>> {
        self.driver
            .tell(|engine, role| {
                let polled = role.streams().poll_message(self.key, place, cx);
                if let Poll::Ready(Some(_)) = polled.0 {
                    engine.taken(self.stream);
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
        self.driver.drive(|state, now| state.engine.close_stream(now, self.stream, cause));
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
                state.engine.finish(now, stream, result);
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
                self.drive(|state, now| state.engine.accept(now, delivery));
            }
            StreamTask::Unwanted(delivery) => {
                self.drive(|state, now| state.engine.reject_message(now, delivery, None));
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
                    engine.accept(now, delivery);
                    (woken, None)
                }
                Ok(Err(message)) => {
                    engine.reject_message(now, delivery, None);
                    (Vec::new(), Some(message))
                }
                Err(cause) => {
                    engine.reject_message(now, delivery, cause);
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
