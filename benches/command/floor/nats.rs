//! The floor on NATS by the client library: connections as processes would have them, messages
//! without a protocol.

use std::future::poll_fn;
use std::pin::Pin;

use async_nats::{Client, Subscriber};
use bytes::Bytes;
use futures_core::Stream;
use tokio::task::JoinSet;

use super::messages::{self, Inboxes, Publish, Worker};
use super::{Hops, Names};
use crate::BenchError;
use crate::load::{Load, Workers};

struct NatsPublisher {
    client: Client,
    subject: async_nats::Subject,
}

impl Publish for NatsPublisher {
    async fn publish(&mut self, message: Bytes) -> Result<(), BenchError> {
        Ok(self.client.publish(self.subject.clone(), message).await?)
    }
}

pub(super) async fn load(url: &str, hops: Hops, concurrency: usize) -> Result<Box<dyn Load>, BenchError> {
    let (names, mut tasks) = (Names::new(), JoinSet::new());
    let (inboxes, answers) = Inboxes::new(concurrency);
    let client = async_nats::connect(url).await?;
    let answered = if hops.is_one_way() { None } else { Some(subscribe(&client, &names.back).await?) };
    for _ in 0..hops.answers {
        let server = async_nats::connect(url).await?;
        let received = subscribe(&server, &names.there).await?;
        let publisher = NatsPublisher { client: server, subject: names.back.as_str().into() };
        match answered {
            Some(_) => tasks.spawn(answer(received, publisher, hops.clone())),
            None => tasks.spawn(deliver(received, inboxes.clone())),
        };
    }
    if let Some(received) = answered {
        tasks.spawn(deliver(received, inboxes));
    }
    let worker = |(answers, number)| {
        let publisher = NatsPublisher { client: client.clone(), subject: names.there.as_str().into() };
        Worker { publisher, number, answers, hops: hops.clone() }
    };
    Ok(Workers::load(answers.into_iter().zip(0..).map(worker).collect(), tasks))
}

/// Subscribes; the subscription is live when this returns.
async fn subscribe(client: &Client, subject: &str) -> Result<Subscriber, BenchError> {
    let received = client.subscribe(subject.to_owned()).await?;
    // What comes back on the same connection comes after it.
    let inbox = client.new_inbox();
    let mut echo = client.subscribe(inbox.clone()).await?;
    client.publish(inbox, Bytes::new()).await?;
    next(&mut echo).await.ok_or("the connection is gone")?;
    Ok(received)
}

/// A server: answers each message with the next one.
async fn answer(mut received: Subscriber, mut publisher: NatsPublisher, hops: Hops) {
    while let Some(message) = next(&mut received).await {
        let Some((hop, worker)) = messages::read(&message) else { return };
        if publisher.publish(messages::write(&hops, hop + 1, worker)).await.is_err() {
            return;
        }
    }
}

async fn deliver(mut received: Subscriber, inboxes: Inboxes) {
    while let Some(message) = next(&mut received).await {
        inboxes.put(&message);
    }
}

async fn next(received: &mut Subscriber) -> Option<Bytes> {
    let message = poll_fn(|cx| Pin::new(&mut *received).poll_next(cx)).await?;
    Some(message.payload)
}
