//! Load: many calls of each kind, from many clients to several servers.

use std::collections::BTreeSet;
use std::time::Duration;

use super::case_list;
use crate::case::{Case, Verdict, check, check_eq};
use crate::env::{Env, unexpected};
use crate::proto::{Reply, ShopClient};
use crate::shop::{Hatter, ask};

pub(super) const CASES: &[Case] = case_list! {
    "load/queue", "I1, I2", "3 servers, 8 clients, many queue calls at once: each is answered once, and runs once", queue;
    "load/affinity", "I1, I2", "the same with calls of an affinity method", affinity;
    "load/single", "I1, I2", "the same with calls of a single_server method", single;
    "load/topics", "I1, I2", "the same with topics mixed", topics;
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

async fn load(env: Env, kind: Kind) -> Verdict {
    let mut hatters = Vec::new();
    let mut servers = Vec::new();
    for place in 0..SERVERS {
        let hatter = env.hatter(&format!("s{place}"), 1.0 + place as f32);
        let server = env.server(&hatter).await?;
        match kind {
            Kind::Queue | Kind::Affinity => {}
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
    for client in clients {
        client.await?;
    }
    check_books(&hatters, calls_each)?;
    for server in &servers {
        env.until("nothing is in flight", || server.server().in_flight() == 0).await?;
        env.within(LONG, server.shutdown()).await?;
    }
    Ok(())
}

/// One client: the first keeps one call in flight, each after it twice as many, the last 128.
async fn client(env: Env, kind: Kind, number: usize, calls: usize) -> Verdict {
    let client = env.client().await?;
    let lanes_open = 1 << number;
    let lanes: Vec<_> = (0..lanes_open)
        .map(|lane| {
            let client = client.clone();
            env.spawn(async move {
                for round in (lane..calls).step_by(lanes_open) {
                    let text = format!("{number}/{round}");
                    let reply = call(&client, kind, round, &text).await?;
                    check_eq!(reply.text, text, "the answer");
                    if let Kind::Single = kind {
                        check_eq!(reply.server, format!("s{}", round % SERVERS), "who answers");
                    }
                }
                Ok(())
            })
        })
        .collect();
    for lane in lanes {
        lane.await?;
    }
    check_eq!(client.client().in_flight(), 0, "calls in flight at the end");
    Ok(())
}

async fn call(client: &ShopClient, kind: Kind, round: usize, text: &str) -> Result<Reply, String> {
    let topic = format!("t{}", round % SERVERS);
    let call = match (kind, round % 4) {
        (Kind::Queue, _) | (Kind::Topics, 0) => client.fit(ask(text)),
        // The highest affinity wins as soon as it bids, so that the calls do not wait for the short circuit.
        (Kind::Affinity, _) => {
            client.pick(ask(text)).selection(psrpc::Selection::new().maximum_affinity(SERVERS as f32))
        }
        (Kind::Single, _) | (Kind::Topics, 1) => client.owner_fit(topic, ask(text)),
        (Kind::Topics, 2) => client.rack_fit(topic, "é", ask(text)),
        (Kind::Topics, _) => {
            let first = psrpc::Selection::new().accept_first_available(true);
            client.rack_pick(topic, "é", ask(text)).selection(first)
        }
    };
    call.timeout(LONG).await.map_err(unexpected)
}

/// Every call ran exactly once, wherever it ran.
fn check_books(hatters: &[Hatter], calls_each: usize) -> Verdict {
    let started: Vec<_> = hatters.iter().flat_map(Hatter::started).map(|entry| entry.text).collect();
    let distinct: BTreeSet<_> = started.iter().collect();
    check_eq!(started.len(), distinct.len(), "the handlers started, and the calls they were started for");
    check_eq!(distinct.len(), calls_each * CLIENTS, "the calls that ran");
    check!(hatters.iter().all(|hatter| hatter.dropped().is_empty()), "a handler was dropped");
    Ok(())
}
