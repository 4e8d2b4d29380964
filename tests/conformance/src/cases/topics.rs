//! Topics: registration, routing and deregistration.

use std::time::Duration;

use psrpc::ErrorCode;

use super::case_list;
use crate::case::{Case, Verdict, check, check_eq};
use crate::env::{Env, expect_error, unexpected};
use crate::shop::{ask, slow};

pub(super) const CASES: &[Case] = case_list! {
    "topics/routed", "section 2", "a call goes only to the servers of its topic", routed;
    "topics/several-on-one-server", "features V1", "a server serves several topics at once", several;
    "topics/names", "section 2", "topics may contain any characters and stay distinct", names;
    "topics/empty-parts", "section 2", "a topic may have empty parts", empty_parts;
    "topics/register/live", "I13", "a call made right after a registration reaches the server", live;
    "topics/register/twice", "features V1", "registering a topic twice fails, and the error names it", register_twice;
    "topics/register/conflict", "section 2", "topics that map to the same channel are rejected, and the error names both", conflict;
    "topics/register/too-long", "section 2", "a topic that is too long is rejected, in a registration and in a call", too_long;
    "topics/register/again", "features V1", "a topic can be registered again after it was deregistered", again;
    "topics/deregister/stops", "features V1", "a deregistered topic is no longer served", deregister_stops;
    "topics/deregister/waits", "features V1", "a deregistration waits for the topic's handlers", deregister_waits;
    "topics/deregister/unknown", "features V1", "a topic that is not registered cannot be deregistered", deregister_unknown;
    "topics/group", "features G3", "the methods of a group are registered and deregistered together", group;
    "topics/group/atomic", "features G3", "either all methods of a group are registered or none", group_atomic;
    "topics/many", "features V1", "one server serves two hundred topics", many;
};

const SHORT: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_secs(20);

async fn routed(env: Env) -> Verdict {
    let (north, south) =
        (env.server(&env.hatter("north", 1.0)).await?, env.server(&env.hatter("south", 1.0)).await?);
    for (server, topic) in [(&north, "north"), (&south, "south")] {
        server.register_owner_fit_topic(topic).await.map_err(unexpected)?;
        server.register_all_rack_topics(topic, "1").await.map_err(unexpected)?;
    }
    let client = env.client().await?;
    for topic in ["north", "south", "north"] {
        for reply in [
            client.owner_fit(topic, ask("top")).await,
            client.rack_fit(topic, "1", ask("top")).await,
            client.rack_pick(topic, "1", ask("top")).await,
        ] {
            check_eq!(reply.map_err(unexpected)?.server, topic, "the responding server");
        }
    }
    expect_error(client.rack_fit("north", "2", ask("top")).timeout(SHORT).await)?;
    Ok(())
}

async fn several(env: Env) -> Verdict {
    let hatter = env.hatter("s1", 1.0);
    let server = env.server(&hatter).await?;
    for topic in ["a", "b", "c"] {
        server.register_owner_fit_topic(topic).await.map_err(unexpected)?;
    }
    let client = env.client().await?;
    for topic in ["c", "a", "b"] {
        client.owner_fit(topic, ask(topic)).await.map_err(unexpected)?;
    }
    let topics: Vec<_> = hatter.started().into_iter().map(|entry| entry.topic.concat()).collect();
    check_eq!(topics, ["c", "a", "b"], "the topics that the handler saw");
    Ok(())
}

/// Topic parts from the recordings of Go, and a few more.
const PARTS: [&str; 20] = [
    "eu-west.1",
    "a b",
    "é",
    "🙂",
    "|",
    "*",
    ">",
    "x.y",
    "日本",
    "~tilde~",
    "UPPER_lower_09",
    "tab\tnl\n",
    "\u{10ffff}",
    "\u{ffff}",
    "u+0041",
    "Q",
    "REQ",
    "RCLAIM",
    "a\0b",
    "\u{200d}",
];

async fn names(env: Env) -> Verdict {
    let hatter = env.hatter("s1", 1.0);
    let server = env.server(&hatter).await?;
    let client = env.client().await?;
    for part in PARTS {
        server.register_all_rack_topics(part, "x").await.map_err(unexpected)?;
    }
    for part in PARTS {
        client.rack_fit(part, "x", ask(part)).await.map_err(unexpected)?;
        client.rack_pick(part, "x", ask(part)).await.map_err(unexpected)?;
    }
    for (entry, part) in hatter.started().iter().zip(PARTS.iter().flat_map(|part| [part, part])) {
        check_eq!(entry.topic, [*part, "x"], "the topic that the handler saw");
        check_eq!(entry.text, *part, "the request that the handler got");
    }
    Ok(())
}

async fn empty_parts(env: Env) -> Verdict {
    for (aisle, shelf) in [("", ""), ("", "b"), ("a", "")] {
        let hatter = env.hatter("s1", 1.0);
        let server = env.server(&hatter).await?;
        server.register_all_rack_topics(aisle, shelf).await.map_err(unexpected)?;
        let client = env.client().await?;
        client.rack_fit(aisle, shelf, ask("top")).await.map_err(unexpected)?;
        client.rack_pick(aisle, shelf, ask("top")).await.map_err(unexpected)?;
        check_eq!(hatter.started()[0].topic, [aisle, shelf], "the topic that the handler saw");
        server.shutdown().await;
    }
    Ok(())
}

async fn live(env: Env) -> Verdict {
    let server = env.server(&env.hatter("s1", 1.0)).await?;
    let client = env.client().await?;
    for round in 0..50 {
        let topic = format!("t{round}");
        server.register_owner_fit_topic(&topic).await.map_err(unexpected)?;
        client.owner_fit(&topic, ask("top")).timeout(LONG).await.map_err(unexpected)?;
    }
    Ok(())
}

async fn register_twice(env: Env) -> Verdict {
    let server = env.server(&env.hatter("s1", 1.0)).await?;
    server.register_owner_fit_topic("me").await.map_err(unexpected)?;
    let error = expect_error(server.register_owner_fit_topic("me").await)?;
    check_eq!(error.to_string(), "already_exists: Shop.OwnerFit[\"me\"] is already registered", "the error");
    let client = env.client().await?;
    client.owner_fit("me", ask("top")).await.map_err(unexpected)?;
    Ok(())
}

async fn conflict(env: Env) -> Verdict {
    let server = env.server(&env.hatter("s1", 1.0)).await?;
    server.register_rack_fit_topic("", "b").await.map_err(unexpected)?;
    let error = expect_error(server.register_rack_fit_topic("b", "").await)?;
    check_eq!(error.code(), &ErrorCode::AlreadyExists, "the code");
    for topic in ["[\"\", \"b\"]", "[\"b\", \"\"]"] {
        check!(error.text().contains(topic), "{} does not name {topic}", error.text());
    }
    Ok(())
}

async fn too_long(env: Env) -> Verdict {
    let server = env.server(&env.hatter("s1", 1.0)).await?;
    let client = env.client().await?;
    let topic = "x".repeat(2000);
    for error in [
        expect_error(server.register_owner_fit_topic(&topic).await)?,
        expect_error(client.owner_fit(&topic, ask("top")).await)?,
    ] {
        check_eq!(error.code(), &ErrorCode::InvalidArgument, "the code");
        check!(error.text().contains("OwnerFit"), "{} does not name the method", error.text());
    }
    Ok(())
}

async fn again(env: Env) -> Verdict {
    let server = env.server(&env.hatter("s1", 1.0)).await?;
    let client = env.client().await?;
    for _ in 0..5 {
        server.register_owner_fit_topic("me").await.map_err(unexpected)?;
        client.owner_fit("me", ask("top")).await.map_err(unexpected)?;
        server.deregister_owner_fit_topic("me").await.map_err(unexpected)?;
    }
    Ok(())
}

async fn deregister_stops(env: Env) -> Verdict {
    let hatter = env.hatter("s1", 1.0);
    let server = env.server(&hatter).await?;
    server.register_owner_fit_topic("me").await.map_err(unexpected)?;
    server.register_owner_fit_topic("you").await.map_err(unexpected)?;
    server.deregister_owner_fit_topic("me").await.map_err(unexpected)?;
    let client = env.client().await?;
    expect_error(client.owner_fit("me", ask("top")).timeout(SHORT).await)?;
    client.owner_fit("you", ask("top")).await.map_err(unexpected)?;
    client.fit(ask("top")).await.map_err(unexpected)?;
    check_eq!(hatter.started().len(), 2, "the handlers started");
    Ok(())
}

async fn deregister_waits(env: Env) -> Verdict {
    let hatter = env.hatter("s1", 1.0);
    let server = env.server(&hatter).await?;
    server.register_owner_fit_topic("me").await.map_err(unexpected)?;
    let client = env.client().await?;
    let call = env.spawn(async move { client.owner_fit("me", slow("top", 300)).timeout(LONG).await });
    env.until("the handler runs", || hatter.started().len() == 1).await?;
    server.deregister_owner_fit_topic("me").await.map_err(unexpected)?;
    check_eq!(hatter.finished(), ["top"], "the handlers that finished");
    call.await.map_err(unexpected)?;
    Ok(())
}

async fn deregister_unknown(env: Env) -> Verdict {
    let server = env.server(&env.hatter("s1", 1.0)).await?;
    let error = expect_error(server.deregister_owner_fit_topic("me").await)?;
    check_eq!(error.code(), &ErrorCode::NotFound, "the code");
    check!(error.text().contains("OwnerFit[\"me\"]"), "{} does not name it", error.text());
    server.register_all_rack_topics("a", "b").await.map_err(unexpected)?;
    let error = expect_error(server.deregister_rack_fit_topic("a", "b").await)?;
    check_eq!(error.code(), &ErrorCode::NotFound, "the code for one of a group");
    Ok(())
}

async fn group(env: Env) -> Verdict {
    let server = env.server(&env.hatter("s1", 1.0)).await?;
    let client = env.client().await?;
    server.register_all_rack_topics("a", "b").await.map_err(unexpected)?;
    client.rack_fit("a", "b", ask("top")).await.map_err(unexpected)?;
    client.rack_pick("a", "b", ask("top")).await.map_err(unexpected)?;
    server.deregister_all_rack_topics("a", "b").await.map_err(unexpected)?;
    expect_error(client.rack_fit("a", "b", ask("top")).timeout(SHORT).await)?;
    expect_error(client.rack_pick("a", "b", ask("top")).timeout(SHORT).await)?;
    Ok(())
}

async fn group_atomic(env: Env) -> Verdict {
    let server = env.server(&env.hatter("s1", 1.0)).await?;
    server.register_rack_pick_topic("a", "b").await.map_err(unexpected)?;
    let error = expect_error(server.register_all_rack_topics("a", "b").await)?;
    check_eq!(error.code(), &ErrorCode::AlreadyExists, "the code");
    let client = env.client().await?;
    expect_error(client.rack_fit("a", "b", ask("top")).timeout(SHORT).await)?;
    client.rack_pick("a", "b", ask("top")).await.map_err(unexpected)?;
    server.register_rack_fit_topic("a", "b").await.map_err(unexpected)?;
    client.rack_fit("a", "b", ask("top")).await.map_err(unexpected)?;
    Ok(())
}

async fn many(env: Env) -> Verdict {
    let server = env.server(&env.hatter("s1", 1.0)).await?;
    let client = env.client().await?;
    let registrations: Vec<_> = (0..200)
        .map(|topic| {
            let server = server.clone();
            env.spawn(async move { server.register_owner_fit_topic(format!("t{topic}")).await })
        })
        .collect();
    for registration in registrations {
        registration.await.map_err(unexpected)?;
    }
    for topic in 0..200 {
        client.owner_fit(format!("t{topic}"), ask("top")).timeout(LONG).await.map_err(unexpected)?;
    }
    env.within(LONG, server.shutdown()).await
}
