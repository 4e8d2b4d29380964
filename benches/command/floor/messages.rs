//! The messages of a floor that uses a client library. Each contains the numbers of its hop and
//! worker.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::Hops;
use crate::BenchError;
use crate::load::Unit;

/// Writes a message with the size that the protocol's frame has at this hop.
pub(super) fn write(hops: &Hops, hop: usize, worker: u32) -> Bytes {
    let mut message = BytesMut::with_capacity(hops.sizes[hop]);
    message.put_u8(hop as u8);
    message.put_u32(worker);
    message.resize(hops.sizes[hop], 0);
    message.freeze()
}

/// Reads the hop and the worker of a message.
pub(super) fn read(message: &[u8]) -> Option<(usize, u32)> {
    let (hop, rest) = message.split_first()?;
    Some((usize::from(*hop), u32::from_be_bytes(*rest.first_chunk()?)))
}

/// Notifies workers of their messages.
#[derive(Clone)]
pub(super) struct Inboxes(Arc<[UnboundedSender<()>]>);

impl Inboxes {
    /// Creates the inboxes of `count` workers, and the ends that the workers read.
    pub(super) fn new(count: usize) -> (Self, Vec<UnboundedReceiver<()>>) {
        let (inboxes, receivers): (Vec<_>, _) = (0..count).map(|_| unbounded_channel()).unzip();
        (Self(inboxes.into()), receivers)
    }

    pub(super) fn put(&self, message: &[u8]) {
        if let Some(of) = read(message).and_then(|(_, worker)| self.0.get(worker as usize)) {
            // Workers are dropped at the end.
            let _ = of.send(());
        }
    }
}

/// A client library that publishes messages.
pub(super) trait Publish: Send + 'static {
    fn publish(&mut self, message: Bytes) -> impl Future<Output = Result<(), BenchError>> + Send;
}

/// A worker: sends messages and waits for the responses.
pub(super) struct Worker<P> {
    pub(super) publisher: P,
    pub(super) number: u32,
    pub(super) responses: UnboundedReceiver<()>,
    pub(super) hops: Hops,
}

impl<P: Publish> Unit for Worker<P> {
    async fn once(&mut self) -> Result<(), BenchError> {
        for hop in (0..self.hops.sizes.len()).step_by(2) {
            self.publisher.publish(write(&self.hops, hop, self.number)).await?;
            for _ in 0..self.hops.responses {
                self.responses.recv().await.ok_or("the connection was lost")?;
            }
        }
        Ok(())
    }
}
