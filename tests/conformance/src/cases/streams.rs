//! Opening streams, and exchanging messages on them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prost::Message;
use psrpc::proto::{Channel, Frame, FrameLimits, Stream, StreamBody};
use psrpc::{
    ClientLimits, ClientOptions, ClientStream, Error, ErrorCode, Handlers, Reason, Selection, Server,
    ServerOptions, ServerStream, SubscriptionKind,
};

use super::case_list;
use crate::case::{Case, Verdict, check, check_eq};
use crate::env::{Env, expect_error, unexpected};
use crate::foreign::{ForeignPeer, FrameReceiver, SHOP};
use crate::proto::{Ask, Blob, Reply, SHOP_SERVICE, ShopClient, ShopServer};
use crate::shop::{Hatter, ask, method, slow};

pub(super) const CASES: &[Case] = case_list! {
    "stream/echo", "section 8", "a stream carries messages both ways", echo;
    "stream/open/context", "features T3", "the handler sees the client and the metadata of a stream", context;
    "stream/open/one-server", "I8", "one of several servers handles all messages of a stream", one_server;
    "stream/open/affinity", "section 8", "the server with the highest affinity gets the stream", affinity;
    "stream/open/single-server", "section 8", "a stream of a single_server method goes to its topic's server without a claim", single_server;
    "stream/open/nobody", "section 8", "opening a stream without a server fails, and a close frame is published", nobody;
    "stream/open/canceled", "I4", "a stream whose opening was canceled is not handled", canceled;
    "stream/open/twice-on-the-wire", "I8", "a stream with a duplicated opening has one handler", opened_twice;
    "stream/order", "I7", "a thousand messages in a row arrive in their order, each once", order;
    "stream/both-ways", "I7", "both sides send at once, and every message arrives in order", both_ways;
    "stream/sends-at-once", "I7", "two hundred concurrent sends on one stream all arrive, each once", sends_at_once;
    "stream/many-at-once", "section 8", "a hundred concurrent streams carry their own messages", many_at_once;
    "stream/large-messages", "section 1", "a message of 256 KiB is carried both ways", large;
    "stream/too-large", "section 1", "a message beyond the limit is rejected, and the stream continues", too_large;
    "stream/message/twice-on-the-wire", "I7", "a duplicated message is delivered once", message_twice;
    "stream/message/expired", "section 8", "an expired message is neither delivered nor acknowledged", message_expired;
    "stream/malformed/at-server", "section 8", "a message that the server cannot decode closes only its own stream", malformed_at_server;
    "stream/malformed/at-client", "section 8", "a message that the client cannot decode closes its stream", malformed_at_client;
};

pub(super) const SHORT: Duration = Duration::from_millis(300);
pub(super) const LONG: Duration = Duration::from_secs(20);

pub(super) type Parade = ClientStream<Ask, Reply>;

pub(super) async fn parade(client: &ShopClient) -> Result<Parade, String> {
    client.parade().timeout(LONG).await.map_err(unexpected)
}

/// Creates a server and a client of the shop.
pub(super) async fn pair(env: &Env) -> Result<(Hatter, ShopServer, ShopClient), String> {
    let hatter = env.hatter("s1", 1.0);
    let server = env.server(&hatter).await?;
    Ok((hatter, server, env.client().await?))
}

/// Creates a server that handles parades with `handler`, regardless of the asks.
pub(super) async fn server<F, Fut>(env: &Env, options: ServerOptions, handler: F) -> Result<Server, String>
where
    F: Fn(ServerStream<Reply, Ask>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), Error>> + Send + 'static,
{
    let parade = method("Parade");
    let handlers = Handlers::new(&SHOP_SERVICE, ()).stream(parade, move |_, stream| handler(stream));
    let server = Server::new(env.bus().await?, env.runtime(), handlers, options).map_err(unexpected)?;
    server.register(&[parade], &[]).await.map_err(unexpected)?;
    Ok(server)
}

pub(super) async fn send(stream: &Parade, ask: Ask) -> Verdict {
    stream.send(ask).timeout(LONG).await.map_err(unexpected)
}

pub(super) async fn next(env: &Env, stream: &Parade) -> Result<Reply, String> {
    env.within(LONG, stream.next()).await?.ok_or_else(|| format!("the stream ended: {:?}", stream.cause()))
}

/// Sends a text and waits for its echo.
pub(super) async fn exchange(env: &Env, stream: &Parade, text: &str) -> Result<Reply, String> {
    send(stream, ask(text)).await?;
    let reply = next(env, stream).await?;
    check!(reply.text == text, "sent {text:?} and got {:?}", reply.text);
    Ok(reply)
}

pub(super) async fn closed(env: &Env, stream: &Parade) -> Result<Error, String> {
    env.within(LONG, stream.closed()).await
}

async fn echo(env: Env) -> Verdict {
    let (_hatter, server, client) = pair(&env).await?;
    let stream = parade(&client).await?;
    check_eq!((client.client().streams(), server.server().streams()), (1, 1), "the streams");
    for text in ["top", "", "fez"] {
        check_eq!(exchange(&env, &stream, text).await?.server, "s1", "the responding server");
    }
    check!(stream.cause().is_none(), "it ended");
    Ok(())
}

async fn context(env: Env) -> Verdict {
    let (hatter, _server, client) = pair(&env).await?;
    let opening = client.parade().metadata("band", "brass").metadata("drum-é", "a | b");
    let stream = opening.timeout(LONG).await.map_err(unexpected)?;
    env.until("the handler runs", || hatter.streams().len() == 1).await?;
    let mut seen = hatter.streams().remove(0);
    seen.metadata.sort();
    let sent = [("band", "brass"), ("drum-é", "a | b")];
    check_eq!(seen.metadata, sent.map(|(name, value)| (name.to_owned(), value.to_owned())), "the metadata");
    check_eq!(seen.client_id, client.client().id(), "the client id");
    check!(seen.topic.is_empty(), "unexpected topic: {:?}", seen.topic);
    check_eq!(stream.info().method(), "Parade", "the method");
    Ok(())
}

async fn one_server(env: Env) -> Verdict {
    let hatters = ["s1", "s2", "s3"].map(|label| env.hatter(label, 1.0));
    let mut servers = Vec::new();
    for hatter in &hatters {
        servers.push(env.server(hatter).await?);
    }
    let client = env.client().await?;
    for round in 0..10 {
        let stream = parade(&client).await?;
        let mut answered = Vec::new();
        for number in 0..3 {
            answered.push(exchange(&env, &stream, &format!("{round}/{number}")).await?.server);
        }
        check!(answered.iter().all(|label| *label == answered[0]), "the responding servers: {answered:?}");
    }
    let handled: usize = hatters.iter().map(|hatter| hatter.streams().len()).sum();
    check_eq!(handled, 10, "the handlers started");
    let received: usize = hatters.iter().map(|hatter| hatter.received().len()).sum();
    check_eq!(received, 30, "the messages delivered");
    Ok(())
}

async fn affinity(env: Env) -> Verdict {
    let (low, high) = (env.hatter("low", 0.3), env.hatter("high", 0.9));
    let _servers = (env.server(&low).await?, env.server(&high).await?);
    let client = env.client().await?;
    for _ in 0..3 {
        let stream = client.pick_parade().timeout(LONG).await.map_err(unexpected)?;
        check_eq!(exchange(&env, &stream, "top").await?.server, "high", "the responding server");
    }
    check!(low.streams().is_empty(), "the other server also handled a stream");
    Ok(())
}

async fn single_server(env: Env) -> Verdict {
    let (north, south) = (env.hatter("north", 1.0), env.hatter("south", 1.0));
    let servers = (env.server(&north).await?, env.server(&south).await?);
    servers.0.register_owner_parade_topic("north").await.map_err(unexpected)?;
    servers.1.register_owner_parade_topic("south").await.map_err(unexpected)?;
    let client = env.client().await?;
    let bids = Channel::claim_request(SHOP, client.client().id());
    let mut bids = env.foreign().await?.listen_to_client(bids).await?;
    for topic in ["north", "south"] {
        let stream = client.owner_parade(topic).timeout(LONG).await.map_err(unexpected)?;
        check_eq!(exchange(&env, &stream, "top").await?.server, topic, "the responding server");
    }
    check_eq!(north.streams()[0].topic, ["north"], "the topic that the handler saw");
    check!(bids.waiting().is_empty(), "a server bid");
    Ok(())
}

async fn nobody(env: Env) -> Verdict {
    let foreign = env.foreign().await?;
    let mut received = listen(&foreign, Channel::stream_to_server::<&str>(SHOP, "Parade", &[])).await?;
    let client = env.client().await?;
    let opening = client.parade().timeout(SHORT);
    let error = expect_error(opening.await)?;
    check!(error.is_no_response(), "an unexpected error: {error}");
    let opened = frame(&mut received).await?;
    check!(matches!(opened.body, Some(StreamBody::Open { .. })), "expected an open, got {opened:?}");
    let closed = frame(&mut received).await?;
    check_eq!(closed.stream_id, opened.stream_id, "the stream that is closed");
    let Some(StreamBody::Close { code, text }) = closed.body else {
        return Err(format!("expected a close, got {closed:?}"));
    };
    check_eq!(
        (code, text.as_str()),
        (ErrorCode::Unavailable, "no response from servers"),
        "the cause on the wire"
    );
    check_eq!(
        (client.client().streams(), client.client().in_flight()),
        (0, 0),
        "the streams and calls of the client"
    );
    Ok(())
}

async fn canceled(env: Env) -> Verdict {
    let hatter = env.hatter("s1", 0.5);
    let server = env.server(&hatter).await?;
    let client = env.client().await?;
    let wait = Selection::new().affinity_timeout(LONG).short_circuit_timeout(LONG);
    let opening = client.pick_parade().selection(wait).timeout(LONG);
    let opened = env.within(SHORT, opening.into_future()).await;
    check!(opened.is_err(), "the stream was opened before a server was selected");
    check_eq!(
        (client.client().streams(), client.client().in_flight()),
        (0, 0),
        "the streams and calls of the client"
    );
    env.until("the server abandons it", || server.server().in_flight() == 0).await?;
    check!(hatter.streams().is_empty(), "the stream was handled");
    Ok(())
}

const FOREIGN_CLIENT: &str = "CLI_foreign";

/// A foreign client that opened the stream `STR_1` to the server of the topic "me".
pub(super) struct ForeignClient {
    foreign: ForeignPeer,
    pub(super) receiver: FrameReceiver,
    env: Env,
}

impl ForeignClient {
    pub(super) async fn open(env: &Env) -> Result<Self, String> {
        let foreign = env.foreign().await?;
        let receiver = listen(&foreign, Channel::stream_to_client(SHOP, FOREIGN_CLIENT)).await?;
        let mut client = Self { foreign, receiver, env: env.clone() };
        client.send("REQ_open", open_body(), LONG).await?;
        client.expect_ack("REQ_open").await?;
        Ok(client)
    }

    /// Sends a frame that expires after `lives`.
    async fn send(&mut self, request_id: &str, body: StreamBody, lives: Duration) -> Verdict {
        let now = self.env.runtime().now().wall;
        let frame = Stream {
            stream_id: "STR_1".into(),
            request_id: request_id.to_owned().into(),
            sent_at: now.as_unix_nanos(),
            expiry: (now + lives).as_unix_nanos(),
            body: Some(body),
        };
        let channel = Channel::stream_to_server(SHOP, "OwnerParade", &["me"]);
        self.foreign.send(&channel, Frame::Stream(frame)).await
    }

    async fn expect_ack(&mut self, request_id: &str) -> Verdict {
        let ack = frame(&mut self.receiver).await?;
        check!(matches!(ack.body, Some(StreamBody::Ack)), "expected an ack, got {ack:?}");
        check_eq!(ack.request_id.as_str(), request_id, "the acknowledged request id");
        Ok(())
    }
}

fn open_body() -> StreamBody {
    StreamBody::Open { node_id: FOREIGN_CLIENT.into(), metadata: Default::default() }
}

fn message_body(text: &str) -> StreamBody {
    // The handler takes a while, so that its replies do not arrive between the acks.
    StreamBody::Message { payload: slow(text, 100).encode_to_vec().into() }
}

async fn listen(foreign: &ForeignPeer, channel: Channel) -> Result<FrameReceiver, String> {
    foreign.listen(&channel, SubscriptionKind::Plain).await
}

pub(super) async fn frame(receiver: &mut FrameReceiver) -> Result<Stream, String> {
    match receiver.frame().await? {
        Frame::Stream(frame) => Ok(frame),
        other => Err(format!("expected a stream frame, got a {}", other.kind())),
    }
}

/// Creates a server of the topic "me" and a foreign client with a stream to it.
async fn foreign_pair(env: &Env) -> Result<(Hatter, ShopServer, ForeignClient), String> {
    let hatter = env.hatter("s1", 1.0);
    let server = env.server(&hatter).await?;
    server.register_owner_parade_topic("me").await.map_err(unexpected)?;
    Ok((hatter, server, ForeignClient::open(env).await?))
}

async fn opened_twice(env: Env) -> Verdict {
    let (hatter, server, mut client) = foreign_pair(&env).await?;
    client.send("REQ_open", open_body(), LONG).await?;
    client.send("REQ_open_again", open_body(), LONG).await?;
    client.send("REQ_1", message_body("top"), LONG).await?;
    client.expect_ack("REQ_1").await?;
    env.until("the message is delivered", || hatter.received() == ["top"]).await?;
    check_eq!(hatter.streams().len(), 1, "the handlers started");
    check_eq!(server.server().streams(), 1, "the streams");
    Ok(())
}

async fn message_twice(env: Env) -> Verdict {
    let (hatter, server, mut client) = foreign_pair(&env).await?;
    for _ in 0..3 {
        client.send("REQ_1", message_body("top"), LONG).await?;
    }
    client.expect_ack("REQ_1").await?;
    client.send("REQ_2", message_body("fez"), LONG).await?;
    env.until("the last one is delivered", || hatter.received().len() >= 2).await?;
    check_eq!(hatter.received(), ["top", "fez"], "the messages delivered");
    check_eq!(server.server().counters().get(Reason::Duplicate), 2, "the messages dropped");
    Ok(())
}

async fn message_expired(env: Env) -> Verdict {
    let (hatter, server, mut client) = foreign_pair(&env).await?;
    client.send("REQ_1", message_body("late"), Duration::ZERO).await?;
    client.send("REQ_2", message_body("top"), LONG).await?;
    client.expect_ack("REQ_2").await?;
    env.until("one is delivered", || !hatter.received().is_empty()).await?;
    check_eq!(hatter.received(), ["top"], "the messages delivered");
    check_eq!(server.server().counters().get(Reason::ExpiredMessage), 1, "the messages dropped");
    Ok(())
}

async fn order(env: Env) -> Verdict {
    let (hatter, _server, client) = pair(&env).await?;
    let stream = parade(&client).await?;
    for number in 0..1000 {
        exchange(&env, &stream, &number.to_string()).await?;
    }
    check!(
        hatter.received().into_iter().eq((0..1000).map(|number| number.to_string())),
        "the order has changed"
    );
    Ok(())
}

async fn both_ways(env: Env) -> Verdict {
    const MESSAGES: u32 = 200;
    let received: Arc<Mutex<Vec<String>>> = Arc::default();
    let handler = {
        let (env, received) = (env.clone(), Arc::clone(&received));
        move |stream: ServerStream<Reply, Ask>| {
            let (env, received) = (env.clone(), Arc::clone(&received));
            async move {
                stream.hijack();
                let (sender, receiver) = stream.split();
                let sending = env.spawn(async move {
                    for number in 0..MESSAGES {
                        let reply = Reply { text: number.to_string(), ..Reply::default() };
                        sender.send(reply).timeout(LONG).await?;
                    }
                    Ok::<_, Error>(())
                });
                while let Some(ask) = receiver.next().await {
                    received.lock().unwrap_or_else(PoisonError::into_inner).push(ask.text);
                }
                sending.await
            }
        }
    };
    let _server = server(&env, ServerOptions::new(), handler).await?;
    let client = env.client().await?;
    let (sender, receiver) = parade(&client).await?.split();
    let sending = env.spawn(async move {
        for number in 0..MESSAGES {
            sender.send(ask(&number.to_string())).timeout(LONG).await.map_err(unexpected)?;
        }
        Ok::<_, String>(sender)
    });
    for number in 0..MESSAGES {
        let reply = env.within(LONG, receiver.next()).await?.ok_or("the stream ended")?;
        check_eq!(reply.text, number.to_string(), "the message");
    }
    let sender = sending.await?;
    // A send resolves once the message is queued for the consumer, which may receive it a moment
    // later.
    let received = || received.lock().unwrap_or_else(PoisonError::into_inner).clone();
    env.until("all messages are received", || received().len() >= MESSAGES as usize).await?;
    check!(
        received().into_iter().eq((0..MESSAGES).map(|number| number.to_string())),
        "the order has changed"
    );
    drop(sender);
    Ok(())
}

async fn sends_at_once(env: Env) -> Verdict {
    let (hatter, _server, client) = pair(&env).await?;
    let stream = Arc::new(parade(&client).await?);
    let sends: Vec<_> = (0..200)
        .map(|number| {
            let stream = Arc::clone(&stream);
            env.spawn(async move { stream.send(ask(&format!("{number:03}"))).timeout(LONG).await })
        })
        .collect();
    for send in sends {
        send.await.map_err(unexpected)?;
    }
    for _ in 0..200 {
        next(&env, &stream).await?;
    }
    let mut received = hatter.received();
    received.sort();
    check!(
        received.into_iter().eq((0..200).map(|number| format!("{number:03}"))),
        "not every message arrived exactly once"
    );
    Ok(())
}

async fn many_at_once(env: Env) -> Verdict {
    let (hatter, server, client) = pair(&env).await?;
    let mut streams = Vec::new();
    for _ in 0..100 {
        streams.push(parade(&client).await?);
    }
    check_eq!((client.client().streams(), server.server().streams()), (100, 100), "the streams");
    let exchanges: Vec<_> = streams
        .into_iter()
        .enumerate()
        .map(|(number, stream)| {
            let env = env.clone();
            env.clone().spawn(async move {
                for round in 0..5 {
                    exchange(&env, &stream, &format!("{number}/{round}")).await?;
                }
                Ok::<_, String>(())
            })
        })
        .collect();
    for exchange in exchanges {
        exchange.await?;
    }
    check_eq!(hatter.received().len(), 500, "the messages delivered");
    Ok(())
}

async fn large(env: Env) -> Verdict {
    let (_hatter, _server, client) = pair(&env).await?;
    let stream = parade(&client).await?;
    let text = "hat ".repeat(64 * 1024);
    send(&stream, ask(&text)).await?;
    check!(next(&env, &stream).await?.text == text, "the message has changed");
    Ok(())
}

async fn too_large(env: Env) -> Verdict {
    let _server = env.server(&env.hatter("s1", 1.0)).await?;
    let frame = FrameLimits { frame_bytes: 1000, ..FrameLimits::DEFAULT };
    let limits = ClientLimits { frame, ..ClientLimits::DEFAULT };
    let client = env.client_with(ClientOptions::new().limits(limits)).await?;
    let stream = parade(&client).await?;
    let error = expect_error(stream.send(ask(&"x".repeat(1001))).await)?;
    check_eq!(error.code(), &ErrorCode::InvalidArgument, "the code");
    exchange(&env, &stream, "top").await?;
    Ok(())
}

async fn malformed_at_server(env: Env) -> Verdict {
    let (_hatter, server, client) = pair(&env).await?;
    let other = parade(&client).await?;
    let opening = client.client().open_stream::<Blob, Reply>(method("Parade"), &[]);
    let stream = opening.timeout(LONG).await.map_err(unexpected)?;
    let error = expect_error(stream.send(Blob { blob: b"\xff\xfe hat".to_vec() }).timeout(LONG).await)?;
    check_eq!(error.code(), &ErrorCode::MalformedRequest, "the code");
    let cause = env.within(LONG, stream.closed()).await?;
    check_eq!(cause.code(), &ErrorCode::MalformedRequest, "the cause");
    exchange(&env, &other, "top").await?;
    env.until("its handler is done", || server.server().streams() == 1).await
}

async fn malformed_at_client(env: Env) -> Verdict {
    let (_hatter, server, client) = pair(&env).await?;
    let opening = client.client().open_stream::<Ask, NotAReply>(method("Parade"), &[]);
    let stream = opening.timeout(LONG).await.map_err(unexpected)?;
    stream.send(ask("top")).timeout(LONG).await.map_err(unexpected)?;
    let message = env.within(LONG, stream.next()).await?;
    check!(message.is_none(), "{message:?} was delivered");
    let cause = env.within(LONG, stream.closed()).await?;
    check_eq!(cause.code(), &ErrorCode::MalformedRequest, "the cause");
    env.until("the server sees the end", || server.server().streams() == 0).await
}

/// A type that a Reply with a text does not decode as.
#[derive(Clone, PartialEq, Message)]
struct NotAReply {
    #[prost(uint32, tag = "1")]
    number: u32,
}
