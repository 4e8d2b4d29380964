//! The floor on Redis by the client library: connections as processes would have them, messages without a protocol.

use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, IntoConnectionInfo, ProtocolVersion, PushInfo, PushKind, Value};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinSet;

use super::letters::{self, Boxes, Correspondent, Post};
use super::{Hops, Names, words};
use crate::Fault;
use crate::load::{Load, Workers};

#[derive(Clone)]
struct RedisPost {
    connection: MultiplexedConnection,
    channel: String,
}

impl Post for RedisPost {
    async fn publish(&mut self, letter: Bytes) -> Result<(), Fault> {
        let mut command = redis::cmd("PUBLISH");
        command.arg(&self.channel).arg(&letter[..]);
        self.connection.send_packed_command(&command).await?;
        Ok(())
    }
}

impl RedisPost {
    /// Takes the lock of a message, as the first of all.
    async fn lock(&mut self, number: u64) -> Result<(), Fault> {
        let mut command = redis::cmd("SET");
        command.arg(words::lock_key(&self.channel, number)).arg(1).arg("EX").arg(5).arg("NX");
        match self.connection.send_packed_command(&command).await? {
            Value::Okay => Ok(()),
            other => Err(format!("{other:?} for a lock").into()),
        }
    }
}

pub(super) async fn load(url: &str, hops: Hops, concurrency: usize) -> Result<Box<dyn Load>, Fault> {
    let (names, mut tasks) = (Names::new(), JoinSet::new());
    let (boxes, answers) = Boxes::new(concurrency);
    let (mut client, heard) = connect(url).await?;
    if !hops.is_one_way() {
        client.subscribe(&names.back).await?;
        tasks.spawn(deliver(heard, boxes.clone(), client.clone()));
    }
    for _ in 0..hops.answers {
        let (mut server, heard) = connect(url).await?;
        server.subscribe(&names.there).await?;
        let post = RedisPost { connection: server, channel: names.back.clone() };
        match hops.is_one_way() {
            true => tasks.spawn(deliver(heard, boxes.clone(), post.connection)),
            false => tasks.spawn(answer(heard, post, hops.clone())),
        };
    }
    let worker = |(answers, number)| {
        let post = RedisPost { connection: client.clone(), channel: names.there.clone() };
        Correspondent { post, number, answers, hops: hops.clone() }
    };
    Ok(Workers::load(answers.into_iter().zip(0..).map(worker).collect(), tasks))
}

/// A connection as the bus has them, and what the server pushes on it.
async fn connect(url: &str) -> Result<(MultiplexedConnection, UnboundedReceiver<PushInfo>), Fault> {
    let info = url.into_connection_info()?;
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    let tcp = info.tcp_settings().clone().set_nodelay(true);
    let client = Client::open(info.set_redis_settings(settings).set_tcp_settings(tcp))?;
    let (pushed, heard) = unbounded_channel();
    let config = AsyncConnectionConfig::new().set_push_sender(pushed);
    Ok((client.get_multiplexed_async_connection_with_config(&config).await?, heard))
}

/// A server: answers each message with the next one. Each in a task of its own, so that none waits for the server's answer to
/// another.
async fn answer(mut heard: UnboundedReceiver<PushInfo>, post: RedisPost, hops: Hops) {
    let mut locks = 0;
    while let Some(info) = heard.recv().await {
        let Some((hop, worker)) = letter(&info).and_then(letters::read) else { continue };
        let (mut post, reply) = (post.clone(), letters::write(&hops, hop + 1, worker));
        let lock = (hops.lock && hop == 0).then_some(locks);
        locks += 1;
        tokio::spawn(async move {
            if let Some(number) = lock {
                post.lock(number).await?;
            }
            post.publish(reply).await
        });
    }
}

/// Hands on what comes in, on a connection that lives as long as somebody has it.
async fn deliver(mut heard: UnboundedReceiver<PushInfo>, boxes: Boxes, _: MultiplexedConnection) {
    while let Some(info) = heard.recv().await {
        if let Some(letter) = letter(&info) {
            boxes.put(letter);
        }
    }
}

fn letter(info: &PushInfo) -> Option<&[u8]> {
    match (&info.kind, &info.data[..]) {
        (PushKind::Message, [_, Value::BulkString(letter)]) => Some(letter),
        _ => None,
    }
}
