//! The user's end of a stream, backed by a driver.

use std::any::Any;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use psrpc_engine::proto::ErrorResponse;
use psrpc_engine::{Engine, Failure, SendError, StreamHandle, Time};

use super::codec::Codec;
use super::end::{StreamEnd, closed};
use super::incoming::StreamRole;
use super::send::SendFuture;
use super::table::Awaited;
use crate::driver::Driver;
use crate::error::Error;
use crate::interceptor::{InterceptedStream, SendChain, SendOptions};
use crate::message::AnyMessage;
use crate::runtime::{BoxFuture, Runtime};
use crate::waiting::WaiterKey;

/// The user's end of a stream of a client or server. Dropping it releases the stream.
pub(crate) struct DriverEnd<R: StreamRole> {
    driver: Arc<Driver<R>>,
    stream: StreamHandle,
    /// The key of the stream in the driver's table.
    key: usize,
    codec: Arc<Codec>,
    /// Keeps the client alive as long as the stream.
    _client: Option<Box<dyn Any + Send + Sync>>,
}

impl<R: StreamRole> DriverEnd<R> {
    pub(crate) fn at_client(
        driver: Arc<Driver<R>>,
        stream: StreamHandle,
        key: usize,
        codec: Arc<Codec>,
        client: impl Any + Send + Sync,
    ) -> Arc<dyn StreamEnd> {
        Arc::new(Self { driver, stream, key, codec, _client: Some(Box::new(client)) })
    }

    pub(crate) fn at_server(
        driver: Arc<Driver<R>>,
        stream: StreamHandle,
        key: usize,
        codec: Arc<Codec>,
    ) -> Arc<dyn StreamEnd> {
        Arc::new(Self { driver, stream, key, codec, _client: None })
    }
}

impl<R: StreamRole> Drop for DriverEnd<R> {
    fn drop(&mut self) {
        self.driver.release_stream(self.stream, self.key);
    }
}

impl<R: StreamRole> SendChain for DriverEnd<R> {
    fn intercepted(&self, position: usize) -> Option<&dyn InterceptedStream> {
        self.codec.intercepted().get(position).map(|intercepted| &**intercepted)
    }

    fn send(self: Arc<Self>, message: AnyMessage, options: SendOptions) -> BoxFuture<Result<(), Error>> {
        Box::pin(async move {
            self.codec.check(&message)?;
            let payload = message.encode_to_vec();
            drop(message);
            SendFuture::unintercepted(self, payload, options).await
        })
    }

    fn cause(&self) -> Option<Error> {
        let failure = self.driver.with_state(|state| state.role.streams().cause(self.key))?;
        Some((*failure).into())
    }

    fn closed(self: Arc<Self>) -> BoxFuture<Error> {
        Box::pin(async move { closed(&*self).await })
    }

    fn runtime(&self) -> &Arc<dyn Runtime> {
        &self.driver.runtime
    }
}

impl<R: StreamRole> StreamEnd for DriverEnd<R> {
    fn codec(&self) -> &Arc<Codec> {
        &self.codec
    }

    fn start_send(&self, payload: Bytes, options: SendOptions) -> Result<usize, SendError> {
        self.driver.execute(|state, now| {
            let SendOptions { timeout, deadline, .. } = options;
            let until_deadline = |deadline: Time| {
                let timeout = timeout.unwrap_or_else(|| state.engine.stream_commands().default_timeout());
                timeout.min(deadline.since(now.time))
            };
            let timeout = deadline.map(until_deadline).or(timeout);
            let send = state.engine.stream_commands().send(now, self.stream, payload, timeout)?;
            Ok(state.role.streams().start_send(send))
        })
    }

    fn poll_sent(&self, sender: usize, cx: &Context<'_>) -> Poll<Result<(), Box<Failure>>> {
        self.driver.with_state(|state| state.role.streams().poll_sent(sender, cx)).0
    }

    fn cancel_send(&self, sender: usize) {
        self.driver.execute(|state, now| {
            let (send, waker) = state.role.streams().remove_send(sender);
            if let Some(send) = send {
                state.engine.stream_commands().cancel_send(now, send);
            }
            waker
        });
    }

    fn poll_message(&self, waiter: &mut WaiterKey, cx: &Context<'_>) -> Poll<Option<AnyMessage>> {
        let ((polled, _waker), is_holding) = self.driver.with_engine(|engine, role| {
            let polled = role.streams().poll_message(self.key, waiter, cx);
            let is_taken = matches!(polled.0, Poll::Ready(Some(_)));
            (polled, is_taken && engine.stream_commands().taken(self.stream))
        });
        if is_holding {
            self.driver.execute(|state, now| state.engine.stream_commands().release(now, self.stream));
        }
        polled
    }

    fn poll_ended(&self, waiter: &mut WaiterKey, cx: &Context<'_>) -> Poll<Box<Failure>> {
        self.driver.with_state(|state| state.role.streams().poll_ended(self.key, waiter, cx)).0
    }

    fn remove_waiter(&self, awaited: Awaited, waiter: &mut WaiterKey) {
        drop(self.driver.with_state(|state| state.role.streams().remove_waiter(self.key, awaited, waiter)));
    }

    fn close(&self, cause: Option<ErrorResponse>) {
        self.driver.execute(|state, now| state.engine.stream_commands().close(now, self.stream, cause));
    }

    fn hijack(&self) {
        self.driver.with_state(|state| state.role.streams().hijack(self.key));
    }
}
