//! Round trips: how a bus knows that the server has done what it was asked for.
//!
//! The client library has no call for that: its `flush` ends once the bytes are written. So a bus sends messages to an inbox
//! of its own. The server hands them back in order with all the rest, whoever else may be listening.

use std::collections::BTreeMap;
use std::future::{pending, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_nats::{Client, SubscribeError, Subscriber};
use futures_core::Stream;
use tokio::sync::oneshot;

/// Makes round trips on a client's connection.
#[derive(Clone)]
pub(crate) struct Echo {
    client: Client,
    inbox: async_nats::Subject,
    waiting: Arc<Mutex<Waiting>>,
}

/// Who waits for which message to come back.
#[derive(Default)]
struct Waiting {
    last: u64,
    trips: BTreeMap<u64, oneshot::Sender<()>>,
}

impl Echo {
    /// Listens to an inbox, and gives what is to run for that, which ends with the client.
    pub(crate) async fn new(client: Client) -> Result<(Self, impl Future<Output = ()>), SubscribeError> {
        let inbox = async_nats::Subject::from(client.new_inbox());
        let heard = client.subscribe(inbox.clone()).await?;
        let echo = Self { client, inbox, waiting: Arc::default() };
        let waiting = Arc::clone(&echo.waiting);
        Ok((echo, hear(heard, waiting)))
    }

    /// Returns when the server has done all that this connection asked of it before, and all that it sent before has been
    /// handed out. Pends for ever when the connection is lost meanwhile.
    pub(crate) async fn round_trip(self) {
        let (number, back) = {
            let mut waiting = lock(&self.waiting);
            waiting.last += 1;
            let (tell, back) = oneshot::channel();
            let number = waiting.last;
            waiting.trips.insert(number, tell);
            (number, back)
        };
        // Also when nobody waits for it any more.
        let _forget = Forget(&self.waiting, number);
        let sent = self.client.publish(self.inbox.clone(), number.to_be_bytes().to_vec().into()).await;
        if sent.is_err() || back.await.is_err() {
            pending::<()>().await;
        }
    }
}

struct Forget<'a>(&'a Mutex<Waiting>, u64);

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        lock(self.0).trips.remove(&self.1);
    }
}

/// Tells those who wait for what comes back.
async fn hear(mut heard: Subscriber, waiting: Arc<Mutex<Waiting>>) {
    while let Some(message) = poll_fn(|cx| Pin::new(&mut heard).poll_next(cx)).await {
        let Ok(number) = <[u8; 8]>::try_from(&message.payload[..]) else { continue };
        let back = lock(&waiting).trips.remove(&u64::from_be_bytes(number));
        if let Some(back) = back {
            // Whoever waited may have gone.
            let _ = back.send(());
        }
    }
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}
