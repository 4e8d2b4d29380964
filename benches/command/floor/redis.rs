//! The floor on Redis: messages without the protocol, sent with the client library. Client and
//! servers have separate connections, as separate processes would.

use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, IntoConnectionInfo, ProtocolVersion, PushInfo, PushKind, Value};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinSet;

use super::messages::{self, Inboxes, Publish, Worker};
use super::{Hops, Names, wire};
use crate::BenchError;
use crate::load::{Load, Workers};

#[derive(Clone)]
struct RedisPublisher {
    connection: MultiplexedConnection,
    channel: String,
}

impl Publish for RedisPublisher {
    async fn publish(&mut self, message: Bytes) -> Result<(), BenchError> {
        let mut command = redis::cmd("PUBLISH");
        command.arg(&self.channel).arg(&message[..]);
        self.connection.send_packed_command(&command).await?;
        Ok(())
    }
}

impl RedisPublisher {
    /// Takes the lock of a message.
    async fn lock(&mut self, number: u64) -> Result<(), BenchError> {
        let mut command = redis::cmd("SET");
        command.arg(wire::lock_key(&self.channel, number)).arg(1).arg("EX").arg(5).arg("NX");
        match self.connection.send_packed_command(&command).await? {
            Value::Okay => Ok(()),
            other => Err(format!("failed to take a lock: {other:?}").into()),
        }
    }
}

pub(super) async fn load(url: &str, hops: Hops, concurrency: usize) -> Result<Box<dyn Load>, BenchError> {
    let (names, mut tasks) = (Names::new(), JoinSet::new());
    let (inboxes, responses) = Inboxes::new(concurrency);
    let (mut client, received) = connect(url).await?;
    if !hops.is_one_way() {
        client.subscribe(&names.to_client).await?;
        tasks.spawn(deliver(received, inboxes.clone(), client.clone()));
    }
    for _ in 0..hops.responses {
        let (mut server, received) = connect(url).await?;
        server.subscribe(&names.to_server).await?;
        let publisher = RedisPublisher { connection: server, channel: names.to_client.clone() };
        match hops.is_one_way() {
            true => tasks.spawn(deliver(received, inboxes.clone(), publisher.connection)),
            false => tasks.spawn(respond(received, publisher, hops.clone())),
        };
    }
    let worker = |(responses, number)| {
        let publisher = RedisPublisher { connection: client.clone(), channel: names.to_server.clone() };
        Worker { publisher, number, responses, hops: hops.clone() }
    };
    Ok(Workers::load(responses.into_iter().zip(0..).map(worker).collect(), tasks))
}

/// Opens a connection with the settings of the bus, and a receiver of its push messages.
async fn connect(url: &str) -> Result<(MultiplexedConnection, UnboundedReceiver<PushInfo>), BenchError> {
    let info = url.into_connection_info()?;
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    let tcp = info.tcp_settings().clone().set_nodelay(true);
    let client = Client::open(info.set_redis_settings(settings).set_tcp_settings(tcp))?;
    let (pushed, received) = unbounded_channel();
    let config = AsyncConnectionConfig::new().set_push_sender(pushed);
    Ok((client.get_multiplexed_async_connection_with_config(&config).await?, received))
}

/// Runs a server: responds to each message with the next one. Each response is a task, so that none
/// waits for another's reply from Redis.
async fn respond(mut received: UnboundedReceiver<PushInfo>, publisher: RedisPublisher, hops: Hops) {
    let mut locks = 0;
    while let Some(info) = received.recv().await {
        let Some((hop, worker)) = message(&info).and_then(messages::read) else { continue };
        let (mut publisher, reply) = (publisher.clone(), messages::write(&hops, hop + 1, worker));
        let lock = (hops.lock && hop == 0).then_some(locks);
        locks += 1;
        tokio::spawn(async move {
            if let Some(number) = lock {
                publisher.lock(number).await?;
            }
            publisher.publish(reply).await
        });
    }
}

/// Passes received messages to the workers. Holds the connection to keep it open.
async fn deliver(mut received: UnboundedReceiver<PushInfo>, inboxes: Inboxes, _: MultiplexedConnection) {
    while let Some(info) = received.recv().await {
        if let Some(message) = message(&info) {
            inboxes.put(message);
        }
    }
}

fn message(info: &PushInfo) -> Option<&[u8]> {
    match (&info.kind, &info.data[..]) {
        (PushKind::Message, [_, Value::BulkString(message)]) => Some(message),
        _ => None,
    }
}
