//! Closing, dropping and naming clients.

use std::time::Duration;

use psrpc::{ClientOptions, ErrorCode, Reason};

use super::case_list;
use crate::case::{Case, Verdict, check, check_eq};
use crate::env::{Env, expect_error, unexpected};
use crate::proto::ShopClient;
use crate::shop::{ask, slow};

pub(super) const CASES: &[Case] = case_list! {
    "client/close/pending", "I15", "closing a client resolves its pending calls at once", close_pending;
    "client/close/later", "features C7", "a call on a closed client fails with that reason", close_later;
    "client/close/clones", "features C7", "closing a client closes all of its clones", close_clones;
    "client/close/twice", "features C7", "closing a client twice has no further effect", close_twice;
    "client/drop/keeps-calls", "features C7", "calls in flight complete after their client is dropped", drop_keeps_calls;
    "client/id/own", "features C2", "servers see the id that was set for a client", own_id;
    "client/id/drawn", "section 4", "generated ids are unique", drawn_ids;
    "client/id/refused", "section 2", "an id with an invalid character is rejected, and the error names the character", refused_id;
    "client/several-on-a-bus", "section 2", "clients on one bus get their own responses", several;
};

const LONG: Duration = Duration::from_secs(20);

async fn close_pending(env: Env) -> Verdict {
    let _server = env.server(&env.hatter("s1", 1.0)).await?;
    let client = env.client().await?;
    let caller = client.clone();
    let running = env.spawn(async move { caller.fit(slow("top", 10_000)).timeout(LONG).await });
    let _unresponsive = env.unresponsive("OwnerFit", &["nobody"]).await?;
    let caller = client.clone();
    let waiting = env.spawn(async move { caller.owner_fit("nobody", ask("top")).timeout(LONG).await });
    env.until("both calls are in flight", || client.client().in_flight() == 2).await?;
    client.close();
    for call in [env.within(LONG / 2, running).await?, env.within(LONG / 2, waiting).await?] {
        let error = expect_error(call)?;
        check_eq!(error.to_string(), "canceled: client is closed", "the error");
        check_eq!(error.reason(), Some(Reason::ClientClosed), "the reason");
    }
    Ok(())
}

async fn close_later(env: Env) -> Verdict {
    let _server = env.server(&env.hatter("s1", 1.0)).await?;
    let client = env.client().await?;
    client.close();
    let error = expect_error(client.fit(ask("top")).await)?;
    check_eq!(error.to_string(), "canceled: client is closed", "the error");
    check_eq!(error.reason(), Some(Reason::ClientClosed), "the reason");
    Ok(())
}

async fn close_clones(env: Env) -> Verdict {
    let client = env.client().await?;
    let clone = client.clone();
    client.close();
    check_eq!(expect_error(clone.fit(ask("top")).await)?.code(), &ErrorCode::Canceled, "the code");
    Ok(())
}

async fn close_twice(env: Env) -> Verdict {
    let client = env.client().await?;
    client.close();
    client.close();
    check_eq!(client.client().in_flight(), 0, "calls in flight");
    Ok(())
}

async fn drop_keeps_calls(env: Env) -> Verdict {
    let _server = env.server(&env.hatter("s1", 1.0)).await?;
    let client = env.client().await?;
    let call = client.fit(slow("top", 100)).timeout(LONG).into_future();
    drop(client);
    check_eq!(call.await.map_err(unexpected)?.text, "top", "the response");
    Ok(())
}

async fn own_id(env: Env) -> Verdict {
    let hatter = env.hatter("s1", 1.0);
    let _server = env.server(&hatter).await?;
    let client = env.client_with(ClientOptions::new().id("my-own_Id|7")).await?;
    check_eq!(client.client().id(), "my-own_Id|7", "the id");
    client.fit(ask("top")).await.map_err(unexpected)?;
    check_eq!(hatter.started()[0].client_id, "my-own_Id|7", "the id that the server saw");
    Ok(())
}

async fn drawn_ids(env: Env) -> Verdict {
    let (one, other) = (env.client().await?, env.client().await?);
    check!(one.client().id() != other.client().id(), "both are {}", one.client().id());
    check!(one.client().id().starts_with("CLI_"), "the id is {}", one.client().id());
    Ok(())
}

async fn refused_id(env: Env) -> Verdict {
    for (id, character) in [("node.1", '.'), ("node 1", ' '), ("*", '*'), ("a>", '>'), ("a\nb", '\n')] {
        let options = ClientOptions::new().id(id);
        let error = expect_error(ShopClient::with_runtime(env.bus().await?, env.runtime(), options).await)?;
        check_eq!(error.code(), &ErrorCode::InvalidArgument, "the code for {id:?}");
        check!(error.text().contains(&format!("{character:?}")), "{} names no {character:?}", error.text());
    }
    let options = ClientOptions::new().id("");
    ShopClient::with_runtime(env.bus().await?, env.runtime(), options).await.map_err(unexpected)?;
    Ok(())
}

async fn several(env: Env) -> Verdict {
    let _server = env.server(&env.hatter("s1", 1.0)).await?;
    let mut calls = Vec::new();
    for number in 0..10 {
        let client = env.client().await?;
        calls.push(env.spawn(async move {
            for round in 0..20 {
                let text = format!("hat {round} of client {number}");
                let reply = client.fit(ask(&text)).timeout(LONG).await.map_err(unexpected)?;
                check_eq!(reply.text, text, "the response");
            }
            Ok(())
        }));
    }
    for call in calls {
        call.await?;
    }
    Ok(())
}
