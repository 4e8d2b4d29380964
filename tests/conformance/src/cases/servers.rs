//! Shutting down, killing, dropping and naming servers.

use std::time::Duration;

use psrpc::{ErrorCode, Reason, ServerOptions};

use super::case_list;
use crate::case::{Case, Verdict, check, check_eq};
use crate::env::{Env, expect_error, unexpected};
use crate::proto::ShopServer;
use crate::shop::{ask, slow};

pub(super) const CASES: &[Case] = case_list! {
    "server/shutdown/finishes", "I14", "a shutdown waits for the handlers, and their responses arrive", shutdown_finishes;
    "server/shutdown/under-load", "I14", "a shutdown under load loses no accepted request", shutdown_under_load;
    "server/shutdown/takes-nothing-new", "I14", "a server takes no calls after shutdown", takes_nothing_new;
    "server/shutdown/bounded", "I14", "a shutdown ends by the last request's expiry, even if a handler takes longer", bounded;
    "server/shutdown/twice", "I14", "two shutdowns end together", twice;
    "server/shutdown/others-go-on", "I14", "calls go to the remaining servers", others_stay;
    "server/kill", "features V3", "a kill drops the handlers at once", kill;
    "server/drop", "features V3", "dropping a server shuts it down in the background", dropped;
    "server/restart-with-the-same-id", "section 4", "a new server can reuse the id of a server that has shut down", same_id;
    "server/id/refused", "section 2", "an id with an invalid character is rejected", refused_id;
    "server/register/after-shutdown", "features V1", "registering fails after shutdown", register_after;
    "server/counters", "design: reasons", "dropped and abandoned requests are counted by reason", counters;
};

const LONG: Duration = Duration::from_secs(20);

async fn shutdown_finishes(env: Env) -> Verdict {
    let hatter = env.hatter("s1", 1.0);
    let server = env.server(&hatter).await?;
    let client = env.client().await?;
    let caller = client.clone();
    let call = env.spawn(async move { caller.fit(slow("top", 300)).timeout(LONG).await });
    env.until("the handler runs", || hatter.started().len() == 1).await?;
    env.within(LONG, server.shutdown()).await?;
    check_eq!(hatter.finished(), ["top"], "the handlers that finished");
    check_eq!(call.await.map_err(unexpected)?.text, "top", "the response");
    Ok(())
}

async fn shutdown_under_load(env: Env) -> Verdict {
    let hatter = env.hatter("s1", 1.0);
    let server = env.server(&hatter).await?;
    let client = env.client().await?;
    let calls: Vec<_> = (0..200)
        .map(|round| {
            let client = client.clone();
            env.spawn(async move { client.fit(slow(&format!("{round}"), 20)).timeout(LONG / 4).await })
        })
        .collect();
    env.until("some handlers run", || hatter.started().len() >= 20).await?;
    env.within(LONG, server.shutdown()).await?;
    let mut answered = Vec::new();
    for call in calls {
        match call.await {
            Ok(reply) => answered.push(reply.text),
            Err(error) => {
                let nobody = [Some(Reason::NoResponse), Some(Reason::TimedOut)];
                check!(nobody.contains(&error.reason()), "an unexpected error: {error}");
            }
        }
    }
    let mut started: Vec<_> = hatter.started().into_iter().map(|entry| entry.text).collect();
    started.sort();
    answered.sort();
    check_eq!(answered, started, "the calls answered, compared to the handlers started");
    Ok(())
}

async fn takes_nothing_new(env: Env) -> Verdict {
    let hatter = env.hatter("s1", 1.0);
    let server = env.server(&hatter).await?;
    let client = env.client().await?;
    client.fit(ask("before")).await.map_err(unexpected)?;
    server.shutdown().await;
    let error = expect_error(client.fit(ask("after")).timeout(Duration::from_millis(200)).await)?;
    check_eq!(error.code(), &ErrorCode::Unavailable, "the code");
    check_eq!(hatter.started().len(), 1, "the handlers started");
    Ok(())
}

async fn bounded(env: Env) -> Verdict {
    let hatter = env.hatter("s1", 1.0);
    let server = env.server(&hatter).await?;
    let client = env.client().await?;
    let timeout = Duration::from_millis(400);
    let call = env.spawn(async move { client.fit(slow("top", 60_000)).timeout(timeout).await });
    env.until("the handler runs", || hatter.started().len() == 1).await?;
    let ((), elapsed) = env.time(server.shutdown()).await;
    check!(elapsed < LONG, "took {elapsed:?}");
    env.until("the handler is dropped", || hatter.dropped() == ["top"]).await?;
    check_eq!(expect_error(call.await)?.code(), &ErrorCode::DeadlineExceeded, "the code");
    Ok(())
}

async fn twice(env: Env) -> Verdict {
    let server = env.server(&env.hatter("s1", 1.0)).await?;
    let other = server.clone();
    let first = env.spawn(async move { other.shutdown().await });
    env.within(LONG, server.shutdown()).await?;
    env.within(LONG, first).await?;
    env.within(LONG, server.shutdown()).await
}

async fn others_stay(env: Env) -> Verdict {
    let leaving = env.server(&env.hatter("leaving", 0.9)).await?;
    let _staying = env.server(&env.hatter("staying", 0.1)).await?;
    let client = env.client().await?;
    check_eq!(client.pick(ask("top")).await.map_err(unexpected)?.server, "leaving", "the responding server");
    leaving.shutdown().await;
    check_eq!(
        client.pick(ask("top")).await.map_err(unexpected)?.server,
        "staying",
        "the responding server, then"
    );
    check_eq!(
        client.fit(ask("top")).await.map_err(unexpected)?.server,
        "staying",
        "the responding server, the queue"
    );
    Ok(())
}

async fn kill(env: Env) -> Verdict {
    let hatter = env.hatter("s1", 1.0);
    let server = env.server(&hatter).await?;
    let client = env.client().await?;
    let timeout = Duration::from_secs(2);
    let call = env.spawn(async move { client.fit(slow("top", 10_000)).timeout(timeout).await });
    env.until("the handler runs", || hatter.started().len() == 1).await?;
    server.kill();
    let (dropped, elapsed) =
        env.time(env.until("the handler is dropped", || hatter.dropped() == ["top"])).await;
    dropped?;
    check!(elapsed < timeout / 2, "took {elapsed:?}, about the timeout of the request");
    check_eq!(server.server().in_flight(), 0, "requests in flight");
    check_eq!(expect_error(call.await)?.code(), &ErrorCode::DeadlineExceeded, "the code");
    env.within(LONG, server.shutdown()).await
}

async fn dropped(env: Env) -> Verdict {
    let hatter = env.hatter("s1", 1.0);
    let server = env.server(&hatter).await?;
    let client = env.client().await?;
    let caller = client.clone();
    let call = env.spawn(async move { caller.fit(slow("top", 200)).timeout(LONG).await });
    env.until("the handler runs", || hatter.started().len() == 1).await?;
    drop(server);
    check_eq!(call.await.map_err(unexpected)?.text, "top", "the response of the handler in flight");
    expect_error(client.fit(ask("after")).timeout(Duration::from_millis(200)).await)?;
    Ok(())
}

async fn same_id(env: Env) -> Verdict {
    let client = env.client().await?;
    for round in 0..3 {
        let label = format!("round {round}");
        let options = ServerOptions::new().id("SRV_always_me");
        let server = env.server_with(&env.hatter(&label, 1.0), options).await?;
        check_eq!(server.server().id(), "SRV_always_me", "the id");
        check_eq!(client.fit(ask("top")).await.map_err(unexpected)?.server, label, "the responding server");
        server.shutdown().await;
    }
    Ok(())
}

async fn refused_id(env: Env) -> Verdict {
    let options = ServerOptions::new().id("server.1");
    let hatter = env.hatter("s1", 1.0);
    let error =
        expect_error(ShopServer::with_runtime(env.bus().await?, env.runtime(), hatter, options).await)?;
    check_eq!(error.code(), &ErrorCode::InvalidArgument, "the code");
    check!(error.text().contains("\"server.1\""), "{} does not name the id", error.text());
    Ok(())
}

async fn register_after(env: Env) -> Verdict {
    let server = env.server(&env.hatter("s1", 1.0)).await?;
    server.shutdown().await;
    let error = expect_error(server.register_owner_fit_topic("me").await)?;
    check_eq!(error.to_string(), "canceled: server is closed", "the error");
    Ok(())
}

async fn counters(env: Env) -> Verdict {
    let server = env.server(&env.hatter("s1", -1.0)).await?;
    let client = env.client().await?;
    expect_error(client.pick(ask("top")).timeout(Duration::from_millis(100)).await)?;
    env.until("the missing bid is counted", || server.server().counters().get(Reason::NoBid) == 1).await?;
    check_eq!(client.client().counters().get(Reason::NoResponse), 1, "calls without a response");
    Ok(())
}
