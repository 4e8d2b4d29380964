//! Clients and servers that outlive the runtime that they were created on.

use std::time::Duration;

use psrpc::middleware::Retry;
use psrpc::proto::Channel;
use psrpc::{ClientOptions, Error, ErrorCode, Reason, ServerOptions, SubscriptionKind};
use psrpc_testing::StoppableRuntime;

use super::case_list;
use super::streams::{exchange, parade};
use crate::case::{Case, Verdict, check, check_eq};
use crate::env::{Env, expect_error, unexpected};
use crate::foreign::SHOP;
use crate::proto::{GossipClient, ShopClient, ShopServer};
use crate::shop::{ask, slow};

pub(super) const CASES: &[Case] = case_list! {
    "runtime/ends/calls", "I1", "calls in flight fail at once when the client's runtime ends, and so do later calls", calls;
    "runtime/ends/multi-call", "I1", "a multi call ends with an error when the client's runtime ends", multi_call;
    "runtime/ends/streams", "I1", "streams, their sends and their openings fail at once", streams;
    "runtime/ends/subscriptions", "I1", "a subscription ends with an error, and later ones fail", subscriptions;
    "runtime/ends/retry", "I1", "retries stop when the runtime ends", retry;
    "runtime/ends/new-client", "I1", "creating a client or a server on an ended runtime fails", new_client;
    "runtime/ends/shutdown", "I1", "a client and a server whose runtime has ended shut down at once", shutdown;
    "runtime/ends/server", "I1", "registering and publishing fail on a server whose runtime has ended", server;
    "runtime/ends/others", "I16", "calls reach another server after the runtime of one has ended", others;
};

/// Much longer than a pending operation may take after the runtime has ended.
const LONG: Duration = Duration::from_secs(20);

const OF_CLIENT: &str = "unavailable: the runtime this client was created on has shut down";
const OF_SERVER: &str = "unavailable: the runtime this server was created on has shut down";

fn stoppable(env: &Env) -> StoppableRuntime {
    StoppableRuntime::new(env.runtime())
}

async fn client_on(
    env: &Env,
    runtime: &StoppableRuntime,
    options: ClientOptions,
) -> Result<ShopClient, String> {
    ShopClient::with_runtime(env.bus().await?, runtime.clone(), options).await.map_err(unexpected)
}

fn check_ended(error: &Error, text: &str, operation: &str) -> Verdict {
    check_eq!(error.to_string(), text, "the error of {operation}");
    check_eq!(error.reason(), Some(Reason::RuntimeEnded), "the reason of {operation}");
    check!(!error.is_retryable(), "the error of {operation} is retryable");
    Ok(())
}

async fn calls(env: Env) -> Verdict {
    let _unresponsive = env.unresponsive("OwnerFit", &["nobody"]).await?;
    let _server = env.server(&env.hatter("s1", 1.0)).await?;
    let runtime = stoppable(&env);
    let client = client_on(&env, &runtime, ClientOptions::new()).await?;
    let caller = client.clone();
    let running = env.spawn(async move { caller.fit(slow("top", 30_000)).timeout(2 * LONG).await });
    let caller = client.clone();
    let waiting = env.spawn(async move { caller.owner_fit("nobody", ask("top")).timeout(2 * LONG).await });
    env.until("both calls are in flight", || client.client().in_flight() == 2).await?;
    runtime.stop();
    for call in [env.within(LONG, running).await?, env.within(LONG, waiting).await?] {
        check_ended(&expect_error(call)?, OF_CLIENT, "a call in flight")?;
    }
    let later = env.within(LONG, client.pick(ask("top")).timeout(2 * LONG).into_future()).await?;
    let error = expect_error(later)?;
    check_ended(&error, OF_CLIENT, "a later call")?;
    check!(!error.may_have_run(), "may_have_run is set for a call that was not sent");
    check_eq!(client.client().in_flight(), 0, "calls in flight");
    Ok(())
}

async fn multi_call(env: Env) -> Verdict {
    let _unresponsive = env.unresponsive("Census", &[]).await?;
    let runtime = stoppable(&env);
    let client = client_on(&env, &runtime, ClientOptions::new()).await?;
    let mut responses = client.census(ask("top")).timeout(2 * LONG).await.map_err(unexpected)?;
    runtime.stop();
    match env.within(LONG, responses.next()).await? {
        Some(Err(error)) => check_ended(&error, OF_CLIENT, "a multi call")?,
        other => return Err(format!("expected an error, got {other:?}")),
    }
    check!(env.within(LONG, responses.next()).await?.is_none(), "there are items after the error");
    let later = env.within(LONG, client.census(ask("top")).into_future()).await?;
    check_ended(&expect_error(later)?, OF_CLIENT, "a later multi call")
}

async fn streams(env: Env) -> Verdict {
    let _server = env.server(&env.hatter("s1", 1.0)).await?;
    let runtime = stoppable(&env);
    let client = client_on(&env, &runtime, ClientOptions::new()).await?;
    let stream = parade(&client).await?;
    exchange(&env, &stream, "top").await?;
    let (sending, receiving) = stream.split();
    let next = env.spawn(async move { (receiving.next().await, receiving) });
    let nobody = Channel::stream_to_server(SHOP, "OwnerParade", &["nobody"]);
    let _unresponsive = env.foreign().await?.listen(&nobody, SubscriptionKind::Plain).await?;
    let opener = client.clone();
    let opening = env.spawn(async move { opener.owner_parade("nobody").timeout(2 * LONG).await });
    env.until("the second stream is being opened", || client.client().streams() == 2).await?;
    runtime.stop();
    let (next, receiving) = env.within(LONG, next).await?;
    check!(next.is_none(), "a message came: {next:?}");
    let cause = receiving.cause().ok_or("the stream has no cause")?;
    check_ended(&cause, OF_CLIENT, "a stream")?;
    let error = expect_error(env.within(LONG, opening).await?)?;
    check_ended(&error, OF_CLIENT, "the opening of a stream")?;
    let sent = env.within(LONG, sending.send(ask("late")).into_future()).await?;
    check_ended(&expect_error(sent)?, OF_CLIENT, "a later send")?;
    let later = env.within(LONG, client.parade().into_future()).await?;
    check_ended(&expect_error(later)?, OF_CLIENT, "a later stream")
}

async fn subscriptions(env: Env) -> Verdict {
    let runtime = stoppable(&env);
    let bus = env.bus().await?;
    let client = GossipClient::with_runtime(bus, runtime.clone(), ClientOptions::new()).await;
    let client = client.map_err(unexpected)?;
    let mut rumours = client.subscribe_rumour().await.map_err(unexpected)?;
    runtime.stop();
    match env.within(LONG, rumours.next()).await? {
        Some(Err(error)) => check_ended(&error, OF_CLIENT, "a subscription")?,
        other => return Err(format!("expected an error, got {other:?}")),
    }
    check!(env.within(LONG, rumours.next()).await?.is_none(), "there are items after the error");
    let later = env.within(LONG, client.subscribe_rumour().into_future()).await?;
    match later {
        Err(error) => check_ended(&error, OF_CLIENT, "a later subscription"),
        Ok(_) => Err("a subscription was created".to_owned()),
    }
}

async fn retry(env: Env) -> Verdict {
    let runtime = stoppable(&env);
    // The backoff after the first attempt exceeds the duration of the case.
    let patient = Retry::new().attempts(9).backoff(3 * LONG, 3 * LONG).without_jitter().retry_if(|_| true);
    let client = client_on(&env, &runtime, ClientOptions::new().interceptor(patient)).await?;
    let caller = client.clone();
    let call = env.spawn(async move {
        let nobody = caller.owner_fit("nobody", ask("top")).timeout(Duration::from_millis(20));
        nobody.await
    });
    env.until("the first attempt has failed", || {
        client.client().counters().get(Reason::TimedOut) == 1 && client.client().in_flight() == 0
    })
    .await?;
    runtime.stop();
    check_ended(&expect_error(env.within(LONG, call).await?)?, OF_CLIENT, "a call that is tried again")?;
    let later = env.within(LONG, client.fit(ask("top")).into_future()).await?;
    check_ended(&expect_error(later)?, OF_CLIENT, "a later call")
}

async fn new_client(env: Env) -> Verdict {
    let runtime = stoppable(&env);
    runtime.stop();
    let client = ShopClient::with_runtime(env.bus().await?, runtime.clone(), ClientOptions::new());
    match env.within(LONG, client).await? {
        Err(error) => check_ended(&error, OF_CLIENT, "a new client")?,
        Ok(_) => return Err("a client was created".to_owned()),
    }
    let hatter = env.hatter("s1", 1.0);
    let server = ShopServer::with_runtime(env.bus().await?, runtime, hatter, ServerOptions::new());
    match env.within(LONG, server).await? {
        Err(error) => check_ended(&error, OF_SERVER, "a new server"),
        Ok(_) => Err("a server was created".to_owned()),
    }
}

async fn shutdown(env: Env) -> Verdict {
    let runtime = stoppable(&env);
    let client = client_on(&env, &runtime, ClientOptions::new()).await?;
    let (bus, hatter) = (env.bus().await?, env.hatter("s1", 1.0));
    let server = ShopServer::with_runtime(bus, runtime.clone(), hatter.clone(), ServerOptions::new());
    let server = server.await.map_err(unexpected)?;
    let caller = env.client().await?;
    let call =
        env.spawn(async move { caller.fit(slow("top", 30_000)).timeout(Duration::from_secs(3)).await });
    env.until("the handler runs", || hatter.started().len() == 1).await?;
    runtime.stop();
    env.within(LONG, client.client().shutdown()).await?;
    env.within(LONG, server.shutdown()).await?;
    check_eq!(hatter.dropped(), ["top"], "the handlers that were dropped");
    check_eq!(expect_error(call.await)?.code(), &ErrorCode::DeadlineExceeded, "the code");
    Ok(())
}

async fn server(env: Env) -> Verdict {
    let runtime = stoppable(&env);
    let (bus, hatter) = (env.bus().await?, env.hatter("s1", 1.0));
    let server = ShopServer::with_runtime(bus, runtime.clone(), hatter, ServerOptions::new());
    let server = server.await.map_err(unexpected)?;
    server.register_owner_fit_topic("me").await.map_err(unexpected)?;
    runtime.stop();
    let registered = env.within(LONG, server.register_owner_fit_topic("you")).await?;
    check_ended(&expect_error(registered)?, OF_SERVER, "a registration")?;
    let deregistered = env.within(LONG, server.deregister_owner_fit_topic("me")).await?;
    check_ended(&expect_error(deregistered)?, OF_SERVER, "a deregistration")?;
    let published =
        env.within(LONG, server.publish_bulletin("east", &Default::default()).into_future()).await?;
    check_ended(&expect_error(published)?, OF_SERVER, "an update")
}

async fn others(env: Env) -> Verdict {
    let (runtime, client) = (stoppable(&env), env.client().await?);
    let (bus, first) = (env.bus().await?, env.hatter("s1", 1.0));
    let _ended = ShopServer::with_runtime(bus, runtime.clone(), first, ServerOptions::new())
        .await
        .map_err(unexpected)?;
    let _other = env.server(&env.hatter("s2", 0.5)).await?;
    runtime.stop();
    for _ in 0..4 {
        let reply = client.pick(ask("top")).timeout(LONG).await.map_err(unexpected)?;
        check_eq!(reply.server, "s2", "the responding server");
    }
    Ok(())
}
