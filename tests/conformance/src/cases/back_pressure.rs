//! Streams whose consumers are slow: messages that are held back, and sends that wait.

use std::future::{IntoFuture, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use psrpc::{ClientLimits, ClientOptions, Error, Reason, Server, ServerOptions, ServerStream, StreamLimits};
use tokio::sync::watch;

use super::case_list;
use super::streams::{LONG, Parade, SHORT, exchange, next, parade, send, server};
use crate::case::{Case, Verdict, check, check_eq};
use crate::env::{Env, expect_error, unexpected};
use crate::proto::{Ask, Reply, ShopClient};
use crate::shop::ask;

pub(super) const CASES: &[Case] = case_list! {
    "stream/back-pressure/slow-reader", "features T2", "two hundred concurrent sends all reach a reader that takes one in 5 ms and has room for 16", slow_reader;
    "stream/back-pressure/slow-client", "features T2", "two hundred concurrent sends of a handler all reach a client that takes one in 5 ms and has room for 16", slow_client;
    "stream/back-pressure/held-back", "section 8", "a message beyond the capacity is acknowledged once its consumer has taken another, and not before", held_back;
    "stream/back-pressure/expired", "section 8", "a message that is held back until its send times out is not delivered", expired;
    "stream/back-pressure/other-streams", "I12", "a stream that holds messages back delays no other stream", other_streams;
    "stream/back-pressure/window", "features T2", "with a window of one, concurrent sends arrive in their order, each once", window;
    "stream/back-pressure/dropped-send", "features T2", "a send that waits for others and is dropped is never delivered", dropped_send;
};

/// How long a slow reader takes for a message.
const READ: Duration = Duration::from_millis(5);

/// The messages that a handler has taken.
type Taken = Arc<Mutex<Vec<String>>>;

fn taken(taken: &Taken) -> Vec<String> {
    taken.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Creates a server whose streams have room for `room` messages. Its handlers take a message, pause
/// for `READ` and record it, but those of slow parades take nothing until the gate is open.
async fn gated(env: &Env, room: usize) -> Result<(Server, watch::Sender<bool>, Taken), String> {
    let ((gate, is_open), taken) = (watch::channel(false), Taken::default());
    let (env_of_handler, record) = (env.clone(), Arc::clone(&taken));
    let handler = move |stream: ServerStream<Reply, Ask>| {
        let (env, record, mut is_open) = (env_of_handler.clone(), Arc::clone(&record), is_open.clone());
        async move {
            if stream.metadata().get("slow").is_some() {
                let _ = is_open.wait_for(|is_open| *is_open).await;
            }
            while let Some(ask) = stream.next().await {
                env.sleep(READ).await;
                record.lock().unwrap_or_else(PoisonError::into_inner).push(ask.text.clone());
                if stream.metadata().get("echo").is_some() {
                    stream.send(Reply { text: ask.text, ..Reply::default() }).timeout(LONG).await?;
                }
            }
            Ok(())
        }
    };
    let server = server(env, ServerOptions::new().unread_per_stream(room), handler).await?;
    Ok((server, gate, taken))
}

async fn slow_parade(client: &ShopClient) -> Result<Parade, String> {
    client.parade().metadata("slow", "yes").timeout(LONG).await.map_err(unexpected)
}

/// The texts of two hundred messages, in order.
fn numbers() -> Vec<String> {
    (0..200).map(|number| format!("{number:03}")).collect()
}

/// Starts sends one after another, and returns those that have not succeeded yet.
async fn start<F>(sends: impl IntoIterator<Item = F>) -> Result<Vec<F>, String>
where
    F: Future<Output = Result<(), Error>> + Unpin,
{
    let mut pending = Vec::new();
    for mut send in sends {
        match poll_fn(|cx| Poll::Ready(Pin::new(&mut send).poll(cx))).await {
            Poll::Ready(sent) => sent.map_err(unexpected)?,
            Poll::Pending => pending.push(send),
        }
    }
    Ok(pending)
}

/// Waits until all sends have succeeded.
async fn finish<F: Future<Output = Result<(), Error>>>(env: &Env, sends: Vec<F>) -> Verdict {
    for send in sends {
        env.within(LONG, send).await?.map_err(unexpected)?;
    }
    Ok(())
}

async fn slow_reader(env: Env) -> Verdict {
    let (server, _gate, received) = gated(&env, 16).await?;
    let client = env.client().await?;
    let stream = parade(&client).await?;
    let sends = numbers().into_iter().map(|text| stream.send(ask(&text)).timeout(LONG).into_future());
    finish(&env, start(sends).await?).await?;
    env.until("all messages are taken", || taken(&received).len() >= 200).await?;
    check_eq!(taken(&received), numbers(), "the messages taken");
    check_eq!(server.counters().get(Reason::SlowConsumer), 0, "the messages discarded");
    Ok(())
}

async fn slow_client(env: Env) -> Verdict {
    let spawner = env.clone();
    let handler = move |stream: ServerStream<Reply, Ask>| {
        let env = spawner.clone();
        async move {
            let stream = Arc::new(stream);
            let sends: Vec<_> = numbers()
                .into_iter()
                .map(|text| {
                    let stream = Arc::clone(&stream);
                    env.spawn(
                        async move { stream.send(Reply { text, ..Reply::default() }).timeout(LONG).await },
                    )
                })
                .collect();
            for send in sends {
                send.await?;
            }
            Ok::<_, Error>(())
        }
    };
    let _server = server(&env, ServerOptions::new(), handler).await?;
    let client = env.client_with(ClientOptions::new().unread_per_stream(16)).await?;
    let stream = parade(&client).await?;
    let mut received = Vec::new();
    for _ in 0..200 {
        env.sleep(READ).await;
        received.push(next(&env, &stream).await?.text);
    }
    received.sort();
    check_eq!(received, numbers(), "the messages taken");
    check_eq!(client.client().counters().get(Reason::SlowConsumer), 0, "the messages discarded");
    Ok(())
}

async fn held_back(env: Env) -> Verdict {
    let (_server, gate, received) = gated(&env, 1).await?;
    let client = env.client().await?;
    let stream = slow_parade(&client).await?;
    send(&stream, ask("first")).await?;
    let mut second = stream.send(ask("second")).timeout(LONG).into_future();
    check!(env.within(SHORT, &mut second).await.is_err(), "the second was acknowledged without room");
    gate.send_replace(true);
    env.within(LONG, second).await?.map_err(unexpected)?;
    env.until("both are taken", || taken(&received).len() == 2).await?;
    check_eq!(taken(&received), ["first", "second"], "the messages taken");
    Ok(())
}

async fn expired(env: Env) -> Verdict {
    let (server, gate, received) = gated(&env, 1).await?;
    let client = env.client().await?;
    let stream = slow_parade(&client).await?;
    send(&stream, ask("first")).await?;
    expect_error(stream.send(ask("second")).timeout(SHORT).await)?;
    env.until("it expires", || server.counters().get(Reason::SlowConsumer) == 1).await?;
    gate.send_replace(true);
    send(&stream, ask("third")).await?;
    env.until("the third is taken", || taken(&received).len() >= 2).await?;
    check_eq!(taken(&received), ["first", "third"], "the messages taken");
    Ok(())
}

async fn other_streams(env: Env) -> Verdict {
    let (_server, gate, received) = gated(&env, 1).await?;
    let client = env.client().await?;
    let slow = slow_parade(&client).await?;
    let sends = (0..8).map(|number| slow.send(ask(&number.to_string())).timeout(LONG).into_future());
    let sends = start(sends).await?;
    let quick = client.parade().metadata("echo", "yes").timeout(LONG).await.map_err(unexpected)?;
    let (exchanged, elapsed) = env.time(exchange(&env, &quick, "quick")).await;
    exchanged?;
    check!(elapsed < LONG / 2, "the other stream was held up for {elapsed:?}");
    check_eq!(taken(&received), ["quick"], "the messages taken");
    gate.send_replace(true);
    finish(&env, sends).await
}

/// Creates a client whose streams have a window of one.
async fn narrow_client(env: &Env) -> Result<ShopClient, String> {
    let streams = StreamLimits { sends_per_stream: 1, ..StreamLimits::DEFAULT };
    env.client_with(ClientOptions::new().limits(ClientLimits { streams, ..ClientLimits::DEFAULT })).await
}

async fn window(env: Env) -> Verdict {
    let (_server, _gate, received) = gated(&env, 16).await?;
    let client = narrow_client(&env).await?;
    let stream = parade(&client).await?;
    let texts: Vec<_> = numbers().into_iter().take(30).collect();
    let sends = texts.clone().into_iter().map(|text| stream.send(ask(&text)).timeout(LONG).into_future());
    finish(&env, start(sends).await?).await?;
    env.until("all messages are taken", || taken(&received).len() >= texts.len()).await?;
    check_eq!(taken(&received), texts, "the messages taken");
    Ok(())
}

async fn dropped_send(env: Env) -> Verdict {
    let (_server, gate, received) = gated(&env, 1).await?;
    let client = narrow_client(&env).await?;
    let stream = slow_parade(&client).await?;
    send(&stream, ask("first")).await?;
    let sends = ["second", "dropped", "third"].map(|text| stream.send(ask(text)).timeout(LONG).into_future());
    let mut sends = start(sends).await?;
    check_eq!(sends.len(), 3, "the sends that wait");
    drop(sends.remove(1));
    gate.send_replace(true);
    finish(&env, sends).await?;
    env.until("the last is taken", || taken(&received).len() >= 3).await?;
    check_eq!(taken(&received), ["first", "second", "third"], "the messages taken");
    Ok(())
}
