//! The floor in process: tokio channels between the tasks of workers and servers.

use std::iter;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::Hops;
use crate::BenchError;
use crate::load::{Load, Unit, Workers};

/// The number of a worker, and a message from or to it.
type WorkerMessage = (usize, Bytes);

struct Channels {
    number: usize,
    to_servers: Vec<UnboundedSender<WorkerMessage>>,
    from_servers: UnboundedReceiver<Bytes>,
    message: Bytes,
    rounds: usize,
    /// 2 for one-way work: the channel still carries the message back, which counts as a second
    /// operation.
    at_once: u32,
}

pub(super) fn load(hops: &Hops, concurrency: usize) -> Box<dyn Load> {
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..concurrency).map(|_| unbounded_channel()).unzip();
    let senders: Arc<[_]> = senders.into();
    let to_servers: Vec<_> =
        iter::repeat_with(|| server(Arc::clone(&senders))).take(hops.responses).collect();
    let unit = |(number, receiver)| Channels {
        number,
        to_servers: to_servers.clone(),
        from_servers: receiver,
        message: Bytes::from(vec![b'x'; hops.sizes[0]]),
        rounds: hops.sizes.len().div_ceil(2),
        at_once: if hops.is_one_way() { 2 } else { 1 },
    };
    Workers::load(receivers.into_iter().enumerate().map(unit).collect(), ())
}

/// Spawns a task that echoes messages.
fn server(senders: Arc<[UnboundedSender<Bytes>]>) -> UnboundedSender<WorkerMessage> {
    let (sender, mut received) = unbounded_channel::<WorkerMessage>();
    tokio::spawn(async move {
        while let Some((number, message)) = received.recv().await {
            // Workers are dropped at the end.
            let _ = senders[number].send(message);
        }
    });
    sender
}

impl Unit for Channels {
    fn at_once(&self) -> u32 {
        self.at_once
    }

    async fn once(&mut self) -> Result<(), BenchError> {
        for _ in 0..self.rounds {
            for server in &self.to_servers {
                server.send((self.number, self.message.clone()))?;
            }
            for _ in &self.to_servers {
                self.from_servers.recv().await.ok_or("the server task ended")?;
            }
        }
        Ok(())
    }
}
