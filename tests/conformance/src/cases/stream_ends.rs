//! Ends of streams: closed by either side, by an error, or by the end of a client or a server.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use psrpc::proto::StreamBody;
use psrpc::{Error, ErrorCode, Reason, Server, ServerOptions, ServerStream, SlowConsumer};
use tokio::sync::watch;

use super::case_list;
use super::streams::{
    ForeignClient, LONG, Parade, SHORT, closed, exchange, frame, next, pair, parade, send, server,
};
use crate::case::{Case, Verdict, check, check_eq};
use crate::env::{Env, expect_error, unexpected};
use crate::proto::{Ask, Reply, ShopClient};
use crate::shop::{Hatter, ask, failing, slow};

pub(super) const CASES: &[Case] = case_list! {
    "stream/close/client", "I8", "a stream that the client closes ends on both sides without an error", close_client;
    "stream/close/client-cause", "I8", "the cause that a client closes with reaches the handler", close_client_cause;
    "stream/close/handler-returns", "I8", "a stream ends on both sides when its handler returns", handler_returns;
    "stream/close/handler-fails", "I8", "the error of a handler is the cause that the client sees", handler_fails;
    "stream/close/what-came-before", "section 8", "messages received before the end are still delivered", what_came_before;
    "stream/close/sends-fail", "section 8", "pending and later sends fail with the cause of the end", sends_fail;
    "stream/close/panic", "features V7", "a panic in a handler ends only its own stream", panic;
    "stream/drop/client", "I8", "dropping a stream at the client ends it at the server", dropped;
    "stream/drop/client-closed", "I15", "closing a client ends its streams at once, on both sides", client_closed;
    "stream/hijack", "features T3", "a hijacked stream outlives its handler, until it is dropped", hijack;
    "stream/slow-consumer", "I12", "with the policy Discard, a message beyond the capacity is not acknowledged, and other streams are not blocked", slow_consumer;
    "stream/slow-consumer/goes-on", "I12", "with the policy Discard, a stream continues once its consumer has made room", slow_goes_on;
    "stream/slow-consumer/close", "I12", "with the policy Close, a slow consumer loses its stream", slow_close;
    "stream/idle", "I8", "with an idle timeout, a stream ends if its peer is silent", idle;
    "stream/shutdown/eof", "I14", "a shutdown ends streams with EOF, and waits for their handlers", shutdown_eof;
    "stream/shutdown/bounded", "I14", "a handler that ignores EOF is stopped after a second", shutdown_bounded;
    "stream/kill", "features V3", "a kill drops the handlers of streams, and their clients see EOF", kill;
    "stream/deregister", "features V1", "deregistering a topic ends its streams with EOF", deregister;
    "stream/nothing-left", "I9", "a hundred ended streams leave no state behind", nothing_left;
};

/// Returns the cause that the hatter's one handler saw.
async fn cause(env: &Env, hatter: &Hatter) -> Result<Arc<Error>, String> {
    env.until("the handler sees the end", || !hatter.causes().is_empty()).await?;
    Ok(hatter.causes().remove(0))
}

async fn close_client(env: Env) -> Verdict {
    let (hatter, server, client) = pair(&env).await?;
    let stream = parade(&client).await?;
    exchange(&env, &stream, "top").await?;
    stream.close(None);
    let seen = closed(&env, &stream).await?;
    check!(seen.is_stream_closed(), "the cause at the client is {seen}");
    check_eq!(seen.reason(), Some(Reason::Closed), "the reason");
    let cause = cause(&env, &hatter).await?;
    check!(cause.is_stream_closed(), "the cause at the server is {cause}");
    check_eq!(cause.reason(), Some(Reason::ClosedByPeer), "the reason at the server");
    env.until("the handler is done", || server.server().streams() == 0).await?;
    check_eq!(client.client().streams(), 0, "the streams of the client");
    Ok(())
}

async fn close_client_cause(env: Env) -> Verdict {
    let (hatter, _server, client) = pair(&env).await?;
    let stream = parade(&client).await?;
    stream.close(Error::new(ErrorCode::FailedPrecondition, "rain: 100% %s"));
    check_eq!(closed(&env, &stream).await?.text(), "rain: 100% %s", "the cause at the client");
    let cause = cause(&env, &hatter).await?;
    check_eq!(
        (cause.code(), cause.text()),
        (&ErrorCode::FailedPrecondition, "rain: 100% %s"),
        "the cause at the server"
    );
    Ok(())
}

async fn handler_returns(env: Env) -> Verdict {
    let (_hatter, server, client) = pair(&env).await?;
    let stream = parade(&client).await?;
    send(&stream, Ask { leave: true, ..ask("bye") }).await?;
    let cause = closed(&env, &stream).await?;
    check!(cause.is_stream_closed(), "the cause is {cause}");
    check_eq!(cause.reason(), Some(Reason::ClosedByPeer), "the reason");
    check!(stream.next().await.is_none(), "a message came after the end");
    check_eq!((client.client().streams(), server.server().streams()), (0, 0), "the streams");
    Ok(())
}

async fn handler_fails(env: Env) -> Verdict {
    let (_hatter, _server, client) = pair(&env).await?;
    let stream = parade(&client).await?;
    send(&stream, failing("hat_on_fire", "run")).await?;
    let cause = closed(&env, &stream).await?;
    check_eq!((cause.code().as_str(), cause.text()), ("hat_on_fire", "run"), "the cause");
    Ok(())
}

async fn what_came_before(env: Env) -> Verdict {
    let handler = |stream: ServerStream<Reply, Ask>| async move {
        for text in ["one", "two", "three"] {
            stream.send(Reply { text: text.into(), ..Reply::default() }).timeout(LONG).await?;
        }
        Err(Error::new(ErrorCode::PermissionDenied, "the street is closed"))
    };
    let _server = server(&env, ServerOptions::new(), handler).await?;
    let client = env.client().await?;
    let stream = parade(&client).await?;
    check_eq!(closed(&env, &stream).await?.text(), "the street is closed", "the cause");
    for text in ["one", "two", "three"] {
        check_eq!(next(&env, &stream).await?.text, text, "the message");
    }
    check!(stream.next().await.is_none(), "there are more items");
    Ok(())
}

async fn sends_fail(env: Env) -> Verdict {
    let handler = |stream: ServerStream<Reply, Ask>| async move {
        stream.closed().await;
        Ok(())
    };
    let server = server(&env, room_for_one().slow_consumer(SlowConsumer::Discard), handler).await?;
    let client = env.client().await?;
    let stream = Arc::new(parade(&client).await?);
    send(&stream, ask("first")).await?;
    let sender = Arc::clone(&stream);
    let sending = env.spawn(async move { sender.send(ask("second")).timeout(LONG).await });
    env.until("the message is discarded", || server.counters().get(Reason::SlowConsumer) == 1).await?;
    stream.close(Error::new(ErrorCode::Aborted, "enough"));
    let error = expect_error(env.within(LONG / 2, sending).await?)?;
    check_eq!((error.code(), error.text()), (&ErrorCode::Aborted, "enough"), "the error of the pending send");
    let error = expect_error(stream.send(ask("third")).await)?;
    check_eq!((error.code(), error.text()), (&ErrorCode::Aborted, "enough"), "the error of a later send");
    Ok(())
}

async fn panic(env: Env) -> Verdict {
    let (_hatter, _server, client) = pair(&env).await?;
    let (calm, scared) = (parade(&client).await?, parade(&client).await?);
    exchange(&env, &calm, "before").await?;
    send(&scared, Ask { panic: true, ..ask("boo") }).await?;
    check_eq!(closed(&env, &scared).await?.code(), &ErrorCode::Internal, "the cause");
    exchange(&env, &calm, "after").await?;
    Ok(())
}

async fn dropped(env: Env) -> Verdict {
    let (hatter, server, client) = pair(&env).await?;
    drop(parade(&client).await?);
    let cause = cause(&env, &hatter).await?;
    check!(cause.is_stream_closed(), "the cause at the server is {cause}");
    env.until("the handler is done", || server.server().streams() == 0).await?;
    check_eq!(client.client().streams(), 0, "the streams of the client");
    Ok(())
}

async fn client_closed(env: Env) -> Verdict {
    let (hatter, server, client) = pair(&env).await?;
    let streams = [parade(&client).await?, parade(&client).await?];
    client.client().close();
    for stream in &streams {
        let (cause, elapsed) = env.time(closed(&env, stream)).await;
        check!(cause.as_ref().is_ok_and(Error::is_client_closed), "an unexpected cause: {cause:?}");
        check!(elapsed < LONG / 2, "took {elapsed:?}");
    }
    env.until("both handlers see the end", || hatter.causes().len() == 2).await?;
    env.until("both handlers are done", || server.server().streams() == 0).await?;
    check!(expect_error(client.parade().await)?.is_client_closed(), "a closed client opened a stream");
    Ok(())
}

async fn hijack(env: Env) -> Verdict {
    let hijacked: Arc<Mutex<Option<ServerStream<Reply, Ask>>>> = Arc::default();
    let slot = Arc::clone(&hijacked);
    let handler = move |stream: ServerStream<Reply, Ask>| {
        stream.hijack();
        *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(stream);
        async { Ok(()) }
    };
    let server = server(&env, ServerOptions::new(), handler).await?;
    let client = env.client().await?;
    let stream = parade(&client).await?;
    env.until("the handler has run", || hijacked.lock().is_ok_and(|hijacked| hijacked.is_some())).await?;
    let hijacked = hijacked
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take()
        .ok_or("the handler hijacked no stream")?;
    hijacked
        .send(Reply { text: "still here".into(), ..Reply::default() })
        .timeout(LONG)
        .await
        .map_err(unexpected)?;
    check_eq!(next(&env, &stream).await?.text, "still here", "the message");
    send(&stream, ask("and I")).await?;
    let received = env.within(LONG, hijacked.next()).await?;
    check_eq!(received.map(|ask| ask.text), Some("and I".to_owned()), "the message received at the server");
    drop(hijacked);
    let cause = closed(&env, &stream).await?;
    check!(cause.is_stream_closed(), "the cause is {cause}");
    env.until("the server has no streams", || server.streams() == 0).await
}

/// Returns the options of a server with a capacity of one message for each stream.
fn room_for_one() -> ServerOptions {
    ServerOptions::new().unread_per_stream(1)
}

/// Creates a server with a capacity of one message for each stream. Handlers of slow parades
/// receive nothing until the gate is open.
async fn gated(env: &Env, policy: SlowConsumer) -> Result<(Server, watch::Sender<bool>), String> {
    let (gate, is_open) = watch::channel(false);
    let handler = move |stream: ServerStream<Reply, Ask>| {
        let mut is_open = is_open.clone();
        let is_slow = stream.metadata().get("slow").is_some();
        async move {
            if is_slow {
                tokio::select! {
                    biased;
                    _ = stream.closed() => return Ok(()),
                    _ = is_open.wait_for(|is_open| *is_open) => {}
                }
            }
            while let Some(ask) = stream.next().await {
                stream.send(Reply { text: ask.text, ..Reply::default() }).timeout(LONG).await?;
            }
            Ok(())
        }
    };
    Ok((server(env, room_for_one().slow_consumer(policy), handler).await?, gate))
}

async fn slow_parade(client: &ShopClient) -> Result<Parade, String> {
    client.parade().metadata("slow", "yes").timeout(LONG).await.map_err(unexpected)
}

async fn slow_consumer(env: Env) -> Verdict {
    let (server, _gate) = gated(&env, SlowConsumer::Discard).await?;
    let client = env.client().await?;
    let (slow, quick) = (slow_parade(&client).await?, parade(&client).await?);
    send(&slow, ask("first")).await?;
    let (sent, elapsed) = env.time(slow.send(ask("second")).timeout(SHORT).into_future()).await;
    let error = expect_error(sent)?;
    check_eq!(error.code(), &ErrorCode::DeadlineExceeded, "the code");
    check!(elapsed >= SHORT && elapsed < LONG, "took {elapsed:?}");
    check_eq!(server.counters().get(Reason::SlowConsumer), 1, "the messages discarded");
    let (exchanged, elapsed) = env.time(exchange(&env, &quick, "quick")).await;
    exchanged?;
    check!(elapsed < LONG / 2, "the other stream was held up for {elapsed:?}");
    check!(slow.cause().is_none(), "the stream ended");
    Ok(())
}

async fn slow_goes_on(env: Env) -> Verdict {
    let (_server, gate) = gated(&env, SlowConsumer::Discard).await?;
    let client = env.client().await?;
    let stream = slow_parade(&client).await?;
    send(&stream, ask("first")).await?;
    expect_error(stream.send(ask("second")).timeout(SHORT).await)?;
    gate.send_replace(true);
    check_eq!(next(&env, &stream).await?.text, "first", "the message within the capacity");
    exchange(&env, &stream, "third").await?;
    Ok(())
}

async fn slow_close(env: Env) -> Verdict {
    let (server, _gate) = gated(&env, SlowConsumer::Close).await?;
    let client = env.client().await?;
    let stream = slow_parade(&client).await?;
    send(&stream, ask("first")).await?;
    let error = expect_error(stream.send(ask("second")).timeout(LONG).await)?;
    check!(error.is_slow_consumer(), "an unexpected error: {error}");
    check!(closed(&env, &stream).await?.is_slow_consumer(), "the cause is {:?}", stream.cause());
    env.until("its handler is done", || server.streams() == 0).await
}

async fn idle(env: Env) -> Verdict {
    let hatter = env.hatter("s1", 1.0);
    let server = env.server_with(&hatter, ServerOptions::new().stream_idle_timeout(SHORT)).await?;
    server.register_owner_parade_topic("me").await.map_err(unexpected)?;
    let mut client = ForeignClient::open(&env).await?;
    let (cause, elapsed) = env.time(cause(&env, &hatter)).await;
    check_eq!(cause?.reason(), Some(Reason::Idle), "the cause");
    check!(elapsed < LONG, "took {elapsed:?}");
    let closed = frame(&mut client.receiver).await?;
    check!(matches!(closed.body, Some(StreamBody::Close { .. })), "{closed:?} came in place of a close");
    env.until("nothing is left", || server.server().streams() == 0).await
}

async fn shutdown_eof(env: Env) -> Verdict {
    let (hatter, server, client) = pair(&env).await?;
    let stream = parade(&client).await?;
    exchange(&env, &stream, "top").await?;
    // Keeps the handler busy, so that it sees the end only later.
    send(&stream, slow("slow", 300)).await?;
    env.until("the handler has it", || hatter.received().len() == 2).await?;
    env.within(LONG, server.shutdown()).await?;
    let causes = hatter.causes();
    check!(causes.len() == 1 && causes[0].is_eof(), "the handler saw {causes:?}");
    check!(hatter.dropped().is_empty(), "the handler was dropped");
    let cause = closed(&env, &stream).await?;
    check!(cause.is_eof(), "the cause at the client is {cause}");
    check_eq!(server.server().streams(), 0, "the streams of the server");
    expect_error(client.parade().timeout(SHORT).await)?;
    Ok(())
}

async fn shutdown_bounded(env: Env) -> Verdict {
    let handler = |_stream: ServerStream<Reply, Ask>| std::future::pending();
    let server = server(&env, ServerOptions::new(), handler).await?;
    let client = env.client().await?;
    let stream = parade(&client).await?;
    let (shut_down, elapsed) = env.time(env.within(LONG, server.shutdown())).await;
    shut_down?;
    check!(elapsed >= Duration::from_millis(900), "ended after {elapsed:?}");
    check!(elapsed < LONG / 2, "took {elapsed:?}");
    check!(closed(&env, &stream).await?.is_eof(), "the cause is {:?}", stream.cause());
    Ok(())
}

async fn kill(env: Env) -> Verdict {
    let (hatter, server, client) = pair(&env).await?;
    let stream = parade(&client).await?;
    send(&stream, slow("slow", 10_000)).await?;
    env.until("the handler has it", || hatter.received().len() == 1).await?;
    server.kill();
    env.until("the handler is dropped", || hatter.dropped() == ["Parade"]).await?;
    check!(closed(&env, &stream).await?.is_eof(), "the cause is {:?}", stream.cause());
    check_eq!(server.server().streams(), 0, "the streams of the server");
    Ok(())
}

async fn deregister(env: Env) -> Verdict {
    let (hatter, server, client) = pair(&env).await?;
    for topic in ["me", "you"] {
        server.register_owner_parade_topic(topic).await.map_err(unexpected)?;
    }
    let mine = client.owner_parade("me").timeout(LONG).await.map_err(unexpected)?;
    let yours = client.owner_parade("you").timeout(LONG).await.map_err(unexpected)?;
    exchange(&env, &mine, "top").await?;
    server.deregister_owner_parade_topic("me").await.map_err(unexpected)?;
    check!(closed(&env, &mine).await?.is_eof(), "the cause is {:?}", mine.cause());
    check!(hatter.causes().iter().all(|cause| cause.is_eof()), "the handler saw {:?}", hatter.causes());
    exchange(&env, &yours, "fez").await?;
    expect_error(client.owner_parade("me").timeout(SHORT).await)?;
    Ok(())
}

async fn nothing_left(env: Env) -> Verdict {
    let (hatter, server, client) = pair(&env).await?;
    for round in 0..100 {
        let stream = parade(&client).await?;
        exchange(&env, &stream, "top").await?;
        match round % 3 {
            0 => stream.close(None),
            1 => send(&stream, Ask { leave: true, ..ask("bye") }).await?,
            _ => drop(stream),
        }
    }
    env.until("the server has none", || server.server().streams() == 0).await?;
    env.until("the client has none", || client.client().streams() == 0).await?;
    check_eq!(
        (client.client().in_flight(), server.server().in_flight()),
        (0, 0),
        "calls and requests in flight"
    );
    check_eq!(hatter.streams().len(), 100, "the handlers started");
    Ok(())
}
