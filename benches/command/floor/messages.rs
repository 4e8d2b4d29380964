//! The messages of a floor by a client library: each holds the number of its hop and of its worker.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::Hops;
use crate::BenchError;
use crate::load::Unit;

/// A message, as large as the protocol's own of that hop.
pub(super) fn write(hops: &Hops, hop: usize, worker: u32) -> Bytes {
    let mut message = BytesMut::with_capacity(hops.sizes[hop]);
    message.put_u8(hop as u8);
    message.put_u32(worker);
    message.resize(hops.sizes[hop], 0);
    message.freeze()
}

/// The hop and the worker of a message.
pub(super) fn read(message: &[u8]) -> Option<(usize, u32)> {
    let (hop, rest) = message.split_first()?;
    Some((usize::from(*hop), u32::from_be_bytes(*rest.first_chunk()?)))
}

/// Tells each worker of the messages that came for it.
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
            // The workers have gone in the end.
            let _ = of.send(());
        }
    }
}

/// A client library that publishes.
pub(super) trait Publish: Send + 'static {
    fn publish(&mut self, message: Bytes) -> impl Future<Output = Result<(), BenchError>> + Send;
}

/// A worker: sends a message, and waits for the answers.
pub(super) struct Worker<P> {
    pub(super) publisher: P,
    pub(super) number: u32,
    pub(super) answers: UnboundedReceiver<()>,
    pub(super) hops: Hops,
}

impl<P: Publish> Unit for Worker<P> {
    async fn once(&mut self) -> Result<(), BenchError> {
        for hop in (0..self.hops.sizes.len()).step_by(2) {
            self.publisher.publish(write(&self.hops, hop, self.number)).await?;
            for _ in 0..self.hops.answers {
                self.answers.recv().await.ok_or("the connection is gone")?;
            }
        }
        Ok(())
    }
}
