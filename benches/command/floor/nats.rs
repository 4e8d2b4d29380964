//! The floor on NATS by the client library: connections as processes would have them, messages without a protocol.

use std::future::poll_fn;
use std::pin::Pin;

use async_nats::{Client, Subscriber};
use bytes::Bytes;
use futures_core::Stream;
use tokio::task::JoinSet;

use super::letters::{self, Boxes, Correspondent, Post};
use super::{Hops, Names};
use crate::Fault;
use crate::load::{Load, Workers};

struct NatsPost {
    client: Client,
    subject: async_nats::Subject,
}

impl Post for NatsPost {
    async fn publish(&mut self, letter: Bytes) -> Result<(), Fault> {
        Ok(self.client.publish(self.subject.clone(), letter).await?)
    }
}

pub(super) async fn load(url: &str, hops: Hops, concurrency: usize) -> Result<Box<dyn Load>, Fault> {
    let (names, mut tasks) = (Names::new(), JoinSet::new());
    let (boxes, answers) = Boxes::new(concurrency);
    let client = async_nats::connect(url).await?;
    let hears = if hops.is_one_way() { None } else { Some(listen(&client, &names.back).await?) };
    for _ in 0..hops.answers {
        let server = async_nats::connect(url).await?;
        let heard = listen(&server, &names.there).await?;
        let post = NatsPost { client: server, subject: names.back.as_str().into() };
        match hears {
            Some(_) => tasks.spawn(answer(heard, post, hops.clone())),
            None => tasks.spawn(deliver(heard, boxes.clone())),
        };
    }
    if let Some(heard) = hears {
        tasks.spawn(deliver(heard, boxes));
    }
    let worker = |(answers, number)| {
        let post = NatsPost { client: client.clone(), subject: names.there.as_str().into() };
        Correspondent { post, number, answers, hops: hops.clone() }
    };
    Ok(Workers::load(answers.into_iter().zip(0..).map(worker).collect(), tasks))
}

/// Subscribes; the subscription is live when this returns.
async fn listen(client: &Client, subject: &str) -> Result<Subscriber, Fault> {
    let heard = client.subscribe(subject.to_owned()).await?;
    // What comes back on the same connection comes after it.
    let inbox = client.new_inbox();
    let mut echo = client.subscribe(inbox.clone()).await?;
    client.publish(inbox, Bytes::new()).await?;
    next(&mut echo).await.ok_or("the connection is gone")?;
    Ok(heard)
}

/// A server: answers each message with the next one.
async fn answer(mut heard: Subscriber, mut post: NatsPost, hops: Hops) {
    while let Some(letter) = next(&mut heard).await {
        let Some((hop, worker)) = letters::read(&letter) else { return };
        if post.publish(letters::write(&hops, hop + 1, worker)).await.is_err() {
            return;
        }
    }
}

async fn deliver(mut heard: Subscriber, boxes: Boxes) {
    while let Some(letter) = next(&mut heard).await {
        boxes.put(&letter);
    }
}

async fn next(heard: &mut Subscriber) -> Option<Bytes> {
    let message = poll_fn(|cx| Pin::new(&mut *heard).poll_next(cx)).await?;
    Some(message.payload)
}
