//! Units of work, one for each kind of method.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use psrpc::{Client, ClientStream, Method, Selection, Server, Subscription};
use psrpc_cost::Pair;
use tokio::time::timeout;

use crate::BenchError;
use crate::load::Unit;

/// The timeout of an update, the same as that of a call.
const UPDATE_TIMEOUT: Duration = Duration::from_secs(3);

pub(super) struct Unary {
    pub(super) client: Client,
    pub(super) method: &'static Method,
    pub(super) selection: Selection,
    pub(super) message: Bytes,
}

impl Unit for Unary {
    async fn once(&mut self) -> Result<(), BenchError> {
        let call = self.client.call(self.method, &[], self.message.clone());
        let response: Bytes = call.selection(self.selection.clone()).await?;
        if response.len() == self.message.len() {
            Ok(())
        } else {
            Err("the response has the wrong size".into())
        }
    }
}

pub(super) struct Multi {
    pub(super) client: Client,
    pub(super) method: &'static Method,
    pub(super) message: Bytes,
    pub(super) responses: usize,
}

impl Unit for Multi {
    async fn once(&mut self) -> Result<(), BenchError> {
        let call = self.client.multi_call::<Bytes, Bytes>(self.method, &[], self.message.clone());
        let mut responses = call.responses(self.responses).await?;
        for _ in 0..self.responses {
            responses.next().await.ok_or("a response is missing")??;
        }
        Ok(())
    }
}

pub(super) struct Stream {
    pub(super) client: Client,
    pub(super) method: &'static Method,
    pub(super) stream: ClientStream<Bytes, Bytes>,
    pub(super) message: Bytes,
}

impl Unit for Stream {
    async fn once(&mut self) -> Result<(), BenchError> {
        // The stream may have ended in an outage of the bus.
        if self.stream.cause().is_some() {
            self.stream = self.client.open_stream(self.method, &[]).await?;
        }
        Ok(self.stream.send(self.message.clone()).await?)
    }
}

pub(super) struct Update {
    pub(super) server: Server,
    pub(super) method: &'static Method,
    pub(super) topic: String,
    pub(super) updates: Subscription<Bytes>,
    pub(super) size: usize,
    pub(super) published: u64,
}

impl Unit for Update {
    async fn once(&mut self) -> Result<(), BenchError> {
        self.published += 1;
        let number = self.published.to_be_bytes();
        let mut message = BytesMut::with_capacity(self.size.max(number.len()));
        message.extend_from_slice(&number);
        message.resize(self.size.max(number.len()), b'x');
        self.server.publish(self.method, &[&self.topic], &message.freeze()).await?;
        // Skips updates that arrive after their timeout.
        let received = async {
            while !self.updates.next().await.ok_or("the subscription ended")??.starts_with(&number) {}
            Ok(())
        };
        timeout(UPDATE_TIMEOUT, received).await?
    }
}

pub(super) struct Engine(pub(super) Pair);

impl Unit for Engine {
    async fn once(&mut self) -> Result<(), BenchError> {
        self.0.call();
        Ok(())
    }
}
