//! The floor in process: tokio channels between the task of each worker and that of a server.

use std::iter;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::Hops;
use crate::BenchError;
use crate::load::{Load, Unit, Workers};

/// A worker's number, and a message to it or from it.
type WorkerMessage = (usize, Bytes);

struct Channels {
    number: usize,
    there: Vec<UnboundedSender<WorkerMessage>>,
    back: UnboundedReceiver<Bytes>,
    message: Bytes,
    rounds: usize,
    /// Where nothing is to come back, what comes back all the same is a hop of the other task.
    at_once: u32,
}

pub(super) fn load(hops: &Hops, concurrency: usize) -> Box<dyn Load> {
    let (backs, owners): (Vec<_>, Vec<_>) = (0..concurrency).map(|_| unbounded_channel()).unzip();
    let backs: Arc<[_]> = backs.into();
    let there: Vec<_> = iter::repeat_with(|| server(Arc::clone(&backs))).take(hops.answers).collect();
    let unit = |(number, back)| Channels {
        number,
        there: there.clone(),
        back,
        message: Bytes::from(vec![b'x'; hops.sizes[0]]),
        rounds: hops.sizes.len().div_ceil(2),
        at_once: if hops.is_one_way() { 2 } else { 1 },
    };
    Workers::load(owners.into_iter().enumerate().map(unit).collect(), ())
}

/// A task that sends back what it gets.
fn server(backs: Arc<[UnboundedSender<Bytes>]>) -> UnboundedSender<WorkerMessage> {
    let (there, mut received) = unbounded_channel::<WorkerMessage>();
    tokio::spawn(async move {
        while let Some((number, message)) = received.recv().await {
            // The workers have gone in the end.
            let _ = backs[number].send(message);
        }
    });
    there
}

impl Unit for Channels {
    fn at_once(&self) -> u32 {
        self.at_once
    }

    async fn once(&mut self) -> Result<(), BenchError> {
        for _ in 0..self.rounds {
            for there in &self.there {
                there.send((self.number, self.message.clone()))?;
            }
            for _ in &self.there {
                self.back.recv().await.ok_or("the other task is gone")?;
            }
        }
        Ok(())
    }
}
