//! Messages of the floor by a client library: each says which hop it is, and of which worker.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::Hops;
use crate::Fault;
use crate::load::Unit;

/// A message, as large as the protocol's own of that hop.
pub(super) fn write(hops: &Hops, hop: usize, worker: u32) -> Bytes {
    let mut letter = BytesMut::with_capacity(hops.sizes[hop]);
    letter.put_u8(hop as u8);
    letter.put_u32(worker);
    letter.resize(hops.sizes[hop], 0);
    letter.freeze()
}

/// The hop and the worker of a message.
pub(super) fn read(letter: &[u8]) -> Option<(usize, u32)> {
    let (hop, rest) = letter.split_first()?;
    Some((usize::from(*hop), u32::from_be_bytes(*rest.first_chunk()?)))
}

/// Hands what comes in to the workers.
#[derive(Clone)]
pub(super) struct Boxes(Arc<[UnboundedSender<()>]>);

impl Boxes {
    /// Boxes of so many workers, and what they take out of them.
    pub(super) fn new(count: usize) -> (Self, Vec<UnboundedReceiver<()>>) {
        let (boxes, owners): (Vec<_>, _) = (0..count).map(|_| unbounded_channel()).unzip();
        (Self(boxes.into()), owners)
    }

    pub(super) fn put(&self, letter: &[u8]) {
        if let Some(of) = read(letter).and_then(|(_, worker)| self.0.get(worker as usize)) {
            // Nobody is there in the end.
            let _ = of.send(());
        }
    }
}

/// Publishes by a client library.
pub(super) trait Post: Send + 'static {
    fn publish(&mut self, letter: Bytes) -> impl Future<Output = Result<(), Fault>> + Send;
}

/// A worker.
pub(super) struct Correspondent<P> {
    pub(super) post: P,
    pub(super) number: u32,
    pub(super) answers: UnboundedReceiver<()>,
    pub(super) hops: Hops,
}

impl<P: Post> Unit for Correspondent<P> {
    async fn once(&mut self) -> Result<(), Fault> {
        for hop in (0..self.hops.sizes.len()).step_by(2) {
            self.post.publish(write(&self.hops, hop, self.number)).await?;
            for _ in 0..self.hops.answers {
                self.answers.recv().await.ok_or("the connection is gone")?;
            }
        }
        Ok(())
    }
}
