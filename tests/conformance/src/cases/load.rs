//! Load: many calls and stream messages from many clients to several servers.

use std::collections::BTreeSet;
use std::time::Duration;

use super::case_list;
use crate::case::{Case, Verdict, check, check_eq};
use crate::env::{Env, unexpected};
use crate::proto::{Reply, ShopClient};
use crate::shop::{Hatter, ask};

pub(super) const CASES: &[Case] = case_list! {
    "load/queue", "I1, I2", "3 servers, 8 clients, many concurrent queue calls: each runs once and is answered once", queue;
    "load/affinity", "I1, I2", "like load/queue, with calls of an affinity method", affinity;
    "load/single", "I1, I2", "like load/queue, with calls of a single_server method", single;
    "load/topics", "I1, I2", "like load/queue, with topics mixed", topics;
    "load/multi", "I1, I5", "like load/queue, with multi calls: every server responds once", multi;
    "load/streams", "I7, I8", "like load/queue, with stream messages: each arrives once, in order, and is answered", streams;
};

const SERVERS: usize = 3;
const CLIENTS: usize = 8;
const LONG: Duration = Duration::from_secs(30);

#[derive(Clone, Copy)]
enum Kind {
    Queue,
    Affinity,
    Single,
    Topics,
    Multi,
    Streams,
}

async fn queue(env: Env) -> Verdict {
    load(env, Kind::Queue).await
}

async fn affinity(env: Env) -> Verdict {
    load(env, Kind::Affinity).await
}

async fn single(env: Env) -> Verdict {
    load(env, Kind::Single).await
}

async fn topics(env: Env) -> Verdict {
    load(env, Kind::Topics).await
}

async fn multi(env: Env) -> Verdict {
    load(env, Kind::Multi).await
}

async fn streams(env: Env) -> Verdict {
    load(env, Kind::Streams).await
}

async fn load(env: Env, kind: Kind) -> Verdict {
    let mut hatters = Vec::new();
    let mut servers = Vec::new();
    for place in 0..SERVERS {
        let hatter = env.hatter(&format!("s{place}"), 1.0 + place as f32);
        let server = env.server(&hatter).await?;
        match kind {
            Kind::Queue | Kind::Affinity | Kind::Multi | Kind::Streams => {}
            Kind::Single => server.register_owner_fit_topic(format!("t{place}")).await.map_err(unexpected)?,
            Kind::Topics => {
                server.register_owner_fit_topic(format!("t{place}")).await.map_err(unexpected)?;
                server.register_all_rack_topics(format!("t{place}"), "é").await.map_err(unexpected)?;
            }
        }
        hatters.push(hatter);
        servers.push(server);
    }
    let calls_each = env.calls() / CLIENTS;
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        clients.push(env.spawn(client(env.clone(), kind, number, calls_each)));
    }
    // Clients stay open until the servers have processed all of their frames.
    let mut done = Vec::new();
    for client in clients {
        done.push(client.await?);
    }
    match kind {
        // Every server handles every call.
        Kind::Multi => hatters.iter().try_for_each(|hatter| check_activity(&[hatter], kind, calls_each))?,
        _ => check_activity(&hatters.iter().collect::<Vec<_>>(), kind, calls_each)?,
    }
    for server in &servers {
        let server = server.server();
        env.until("nothing is left", || server.in_flight() + server.streams() == 0).await?;
        env.within(LONG, server.shutdown()).await?;
    }
    Ok(())
}

/// Runs one client. Client 0 keeps one call in flight, and each next client twice as many as the
/// one before, up to 128.
async fn client(env: Env, kind: Kind, number: usize, calls: usize) -> Result<ShopClient, String> {
    let client = env.client().await?;
    let lanes_open = 1 << number;
    let lanes: Vec<_> = (0..lanes_open)
        .map(|lane| {
            let client = client.clone();
            let rounds = (lane..calls).step_by(lanes_open);
            env.spawn(async move {
                match kind {
                    Kind::Streams => exchange(&client, rounds.map(|round| format!("{number}/{round}"))).await,
                    Kind::Multi => ask_all(&client, rounds.map(|round| format!("{number}/{round}"))).await,
                    _ => call_one(&client, kind, number, rounds).await,
                }
            })
        })
        .collect();
    for lane in lanes {
        lane.await?;
    }
    let remaining = (client.client().in_flight(), client.client().streams());
    check_eq!(remaining, (0, 0), "calls and streams at the end");
    Ok(client)
}

async fn call_one(
    client: &ShopClient,
    kind: Kind,
    number: usize,
    rounds: impl Iterator<Item = usize>,
) -> Verdict {
    for round in rounds {
        let text = format!("{number}/{round}");
        let reply = call(client, kind, round, &text).await?;
        check_eq!(reply.text, text, "the response");
        if let Kind::Single = kind {
            check_eq!(reply.server, format!("s{}", round % SERVERS), "the responding server");
        }
    }
    Ok(())
}

/// Makes a multi call for each text.
async fn ask_all(client: &ShopClient, texts: impl Iterator<Item = String>) -> Verdict {
    for text in texts {
        let call = client.census(ask(&text)).timeout(LONG).responses(SERVERS);
        let mut responses = call.await.map_err(unexpected)?;
        let mut servers = BTreeSet::new();
        while let Some(response) = responses.next().await {
            let Reply { text: answered, server } = response.map_err(unexpected)?.into_message();
            check_eq!(answered, text, "the response");
            servers.insert(server);
        }
        check_eq!(servers.len(), SERVERS, "the servers that answered");
    }
    Ok(())
}

/// Opens a stream, sends each text and waits for its echo.
async fn exchange(client: &ShopClient, texts: impl Iterator<Item = String>) -> Verdict {
    let stream = client.parade().timeout(LONG).await.map_err(unexpected)?;
    for text in texts {
        stream.send(ask(&text)).timeout(LONG).await.map_err(unexpected)?;
        let reply = stream.next().await.ok_or_else(|| format!("the stream ended: {:?}", stream.cause()))?;
        check_eq!(reply.text, text, "the response");
    }
    Ok(())
}

async fn call(client: &ShopClient, kind: Kind, round: usize, text: &str) -> Result<Reply, String> {
    let topic = format!("t{}", round % SERVERS);
    let call = match (kind, round % 4) {
        (Kind::Queue, _) | (Kind::Topics, 0) => client.fit(ask(text)),
        // The highest affinity wins as soon as it bids, so calls do not wait for the short circuit
        // timeout.
        (Kind::Affinity, _) => {
            client.pick(ask(text)).selection(psrpc::Selection::new().maximum_affinity(SERVERS as f32))
        }
        (Kind::Single, _) | (Kind::Topics, 1) => client.owner_fit(topic, ask(text)),
        (Kind::Topics, 2) => client.rack_fit(topic, "é", ask(text)),
        _ => {
            let first = psrpc::Selection::new().accept_first_available(true);
            client.rack_pick(topic, "é", ask(text)).selection(first)
        }
    };
    call.timeout(LONG).await.map_err(unexpected)
}

/// Checks that every call ran exactly once, on any server, and every message of a stream arrived
/// exactly once.
fn check_activity(hatters: &[&Hatter], kind: Kind, calls_each: usize) -> Verdict {
    let texts = |hatter: &&Hatter| match kind {
        Kind::Streams => hatter.received(),
        _ => hatter.started().into_iter().map(|entry| entry.text).collect(),
    };
    let received: Vec<_> = hatters.iter().flat_map(texts).collect();
    let distinct: BTreeSet<_> = received.iter().collect();
    check_eq!(received.len(), distinct.len(), "requests received, compared to distinct ones");
    check_eq!(distinct.len(), calls_each * CLIENTS, "the calls that ran");
    check!(hatters.iter().all(|hatter| hatter.dropped().is_empty()), "a handler was dropped");
    Ok(())
}
