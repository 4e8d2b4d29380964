//! The floor on NATS: messages without the protocol, sent with the client library. Client and
//! servers have separate connections, as separate processes would.

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
    let (inboxes, responses) = Inboxes::new(concurrency);
    let client = async_nats::connect(url).await?;
    let response_subscription =
        if hops.is_one_way() { None } else { Some(subscribe(&client, &names.to_client).await?) };
    for _ in 0..hops.responses {
        let server = async_nats::connect(url).await?;
        let received = subscribe(&server, &names.to_server).await?;
        let publisher = NatsPublisher { client: server, subject: names.to_client.as_str().into() };
        match response_subscription {
            Some(_) => tasks.spawn(respond(received, publisher, hops.clone())),
            None => tasks.spawn(deliver(received, inboxes.clone())),
        };
    }
    if let Some(received) = response_subscription {
        tasks.spawn(deliver(received, inboxes));
    }
    let worker = |(responses, number)| {
        let publisher = NatsPublisher { client: client.clone(), subject: names.to_server.as_str().into() };
        Worker { publisher, number, responses, hops: hops.clone() }
    };
    Ok(Workers::load(responses.into_iter().zip(0..).map(worker).collect(), tasks))
}

/// Subscribes. The subscription is live when this returns.
async fn subscribe(client: &Client, subject: &str) -> Result<Subscriber, BenchError> {
    let received = client.subscribe(subject.to_owned()).await?;
    // The server processes commands in order, so an echo on this connection confirms the
    // subscription.
    let inbox = client.new_inbox();
    let mut echo = client.subscribe(inbox.clone()).await?;
    client.publish(inbox, Bytes::new()).await?;
    next(&mut echo).await.ok_or("the connection was lost")?;
    Ok(received)
}

/// Runs a server: responds to each message with the next one.
async fn respond(mut received: Subscriber, mut publisher: NatsPublisher, hops: Hops) {
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
