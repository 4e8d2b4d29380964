//! Subscriptions: who gets the updates that servers publish.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use futures_core::Stream;
use prost::Message;
use psrpc::proto::{Any, Channel, Frame};
use psrpc::{ClientLimits, ClientOptions, ErrorCode, Reason, ServerOptions, Subscription};

use super::case_list;
use crate::case::{Case, Verdict, check, check_eq};
use crate::env::{Env, expected, unexpected};
use crate::proto::{GOSSIP_SERVICE, GossipClient, GossipServer, Reply, ShopClient, ShopServer};

pub(super) const CASES: &[Case] = case_list! {
    "subscription/queue/one-gets-each", "section 9", "of the subscribers of a queue-routed method, one gets each update", one_gets_each;
    "subscription/queue/shared", "section 9", "two queue subscriptions of one client share the updates", shared;
    "subscription/queue/takes-over", "section 9", "when a subscriber of a queue leaves, those that stay get its updates", takes_over;
    "subscription/multi/all", "section 9", "every subscriber of a multi method gets every update", all;
    "subscription/multi/two-on-one-client", "section 9", "two subscriptions of one client get every update each", two_on_one;
    "subscription/mixed", "section 9", "twenty subscribers, queue and plain mixed, get what is theirs", mixed;
    "subscription/topics", "section 2", "an update reaches the subscribers of its topic alone", topics;
    "subscription/any-server", "section 9", "updates come from every server", any_server;
    "subscription/live", "I13", "an update that is published right after a subscription reaches it", live;
    "subscription/order", "section 9", "a thousand updates in a row arrive in their order", order;
    "subscription/large-updates", "section 1", "an update of 256 KiB arrives", large;
    "subscription/nobody", "section 9", "that nobody is subscribed is no error", nobody;
    "subscription/close", "features U1", "a subscription that is closed ends, and what came before can be taken", close;
    "subscription/drop", "features U1", "a subscription that is dropped holds up nobody", dropped;
    "subscription/client-closed", "I15", "closing a client ends its subscriptions", client_closed;
    "subscription/server-closed", "features V6", "a server that was shut down publishes nothing", server_closed;
    "subscription/other-type", "I11", "an update of another type is counted, and no matter to the next", other_type;
    "subscription/malformed-update", "I11", "an update that does not decode is an error in its place, and no matter to the next", malformed;
    "subscription/slow-consumer", "I12", "updates without room leave a gap in their place, and others are not held up", slow;
};

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(300);

type Updates = Subscription<Reply>;

fn update(text: &str) -> Reply {
    Reply { text: text.to_owned(), ..Reply::default() }
}

async fn rumours(client: &GossipClient) -> Result<Updates, String> {
    client.subscribe_rumour().await.map_err(unexpected)
}

async fn bulletins(client: &ShopClient, ward: &str) -> Result<Updates, String> {
    client.subscribe_bulletin(ward).await.map_err(unexpected)
}

/// No two cases say the same, which on Redis is one update if it is said twice within 5 s.
async fn rumour(server: &GossipServer, text: &str) -> Verdict {
    server.publish_rumour(&update(text)).await.map(|_| ()).map_err(unexpected)
}

async fn bulletin(server: &ShopServer, ward: &str, text: &str) -> Verdict {
    server.publish_bulletin(ward, &update(text)).await.map(|_| ()).map_err(unexpected)
}

async fn server(env: &Env) -> Result<ShopServer, String> {
    env.server(&env.hatter("s1", 1.0)).await
}

async fn gossip(env: &Env) -> Result<GossipServer, String> {
    let hatter = env.hatter("s1", 1.0);
    GossipServer::with_runtime(env.bus().await?, env.runtime(), hatter, ServerOptions::new())
        .await
        .map_err(unexpected)
}

async fn listener(env: &Env) -> Result<GossipClient, String> {
    GossipClient::with_runtime(env.bus().await?, env.runtime(), ClientOptions::new())
        .await
        .map_err(unexpected)
}

/// The text of the next update.
async fn next(env: &Env, updates: &mut Updates) -> Result<String, String> {
    let update = env.within(LONG, updates.next()).await?.ok_or("it has ended")?;
    update.map(|update| update.text).map_err(unexpected)
}

/// The texts of all updates up to the one that says that it is the last.
async fn until_last(env: &Env, updates: &mut Updates) -> Result<Vec<String>, String> {
    let mut texts = Vec::new();
    loop {
        let text = next(env, updates).await?;
        if text == "last" {
            return Ok(texts);
        }
        texts.push(text);
    }
}

/// Returns the texts of the updates that each subscriber gets, once `count` have come, and all that
/// follow within a while.
async fn heard(env: &Env, subscribers: &mut [Updates], count: usize) -> Result<Vec<Vec<String>>, String> {
    let mut heard = vec![Vec::new(); subscribers.len()];
    for _ in 0..count {
        let next = poll_fn(|cx| {
            let next = subscribers.iter_mut().enumerate().find_map(|(index, updates)| {
                match Pin::new(updates).poll_next(cx) {
                    Poll::Ready(update) => Some((index, update)),
                    Poll::Pending => None,
                }
            });
            next.map_or(Poll::Pending, Poll::Ready)
        });
        let (subscriber, update) = env.within(LONG, next).await?;
        heard[subscriber].push(update.ok_or("it has ended")?.map_err(unexpected)?.text);
    }
    // Nothing is delivered twice in this time.
    env.sleep(SHORT).await;
    for (updates, heard) in subscribers.iter_mut().zip(&mut heard) {
        while let Ok(update) = env.within(Duration::ZERO, updates.next()).await {
            heard.push(update.ok_or("it has ended")?.map_err(unexpected)?.text);
        }
    }
    Ok(heard)
}

/// That these are the updates of a queue: each of so many came to somebody, once.
fn check_shared(heard: &[Vec<String>], count: usize) -> Verdict {
    let distinct: BTreeSet<_> = heard.iter().flatten().collect();
    check_eq!(distinct.len(), count, "the updates that came to somebody");
    check_eq!(heard.iter().map(Vec::len).sum::<usize>(), count, "the updates that came");
    Ok(())
}

async fn one_gets_each(env: Env) -> Verdict {
    let server = gossip(&env).await?;
    let (mut clients, mut subscribers) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let client = listener(&env).await?;
        subscribers.push(rumours(&client).await?);
        clients.push(client);
    }
    for number in 0..60 {
        rumour(&server, &format!("to one {number}")).await?;
    }
    let heard = heard(&env, &mut subscribers, 60).await?;
    check_shared(&heard, 60)
}

async fn shared(env: Env) -> Verdict {
    let server = gossip(&env).await?;
    let client = listener(&env).await?;
    let mut subscribers = [rumours(&client).await?, rumours(&client).await?];
    for number in 0..40 {
        rumour(&server, &format!("shared {number}")).await?;
    }
    let heard = heard(&env, &mut subscribers, 40).await?;
    check_shared(&heard, 40)?;
    check!(heard.iter().all(|texts| !texts.is_empty()), "one of them got all");
    Ok(())
}

async fn takes_over(env: Env) -> Verdict {
    let server = gossip(&env).await?;
    let (leaving, staying) = (listener(&env).await?, listener(&env).await?);
    let (mut left, mut stays) = (rumours(&leaving).await?, rumours(&staying).await?);
    rumour(&server, "before").await?;
    left.close();
    let mut before = 0;
    while env.within(LONG, left.next()).await?.is_some() {
        before += 1;
    }
    // If the one that leaves did not get it, the other does.
    if before == 0 {
        check_eq!(next(&env, &mut stays).await?, "before", "the update");
    }
    for number in 0..20 {
        rumour(&server, &format!("taken over {number}")).await?;
    }
    for number in 0..20 {
        check_eq!(next(&env, &mut stays).await?, format!("taken over {number}"), "the update");
    }
    Ok(())
}

async fn all(env: Env) -> Verdict {
    let server = server(&env).await?;
    let (mut clients, mut subscribers) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let client = env.client().await?;
        subscribers.push(bulletins(&client, "east").await?);
        clients.push(client);
    }
    for number in 0..20 {
        bulletin(&server, "east", &number.to_string()).await?;
    }
    bulletin(&server, "east", "last").await?;
    for subscriber in &mut subscribers {
        let heard = until_last(&env, subscriber).await?;
        check!(heard.into_iter().eq((0..20).map(|number| number.to_string())), "somebody missed some");
    }
    Ok(())
}

async fn two_on_one(env: Env) -> Verdict {
    let server = server(&env).await?;
    let client = env.client().await?;
    let mut subscribers = [bulletins(&client, "east").await?, bulletins(&client, "east").await?];
    for text in ["tide", "fog", "last"] {
        bulletin(&server, "east", text).await?;
    }
    for subscriber in &mut subscribers {
        check_eq!(until_last(&env, subscriber).await?, ["tide", "fog"], "what one of them got");
    }
    Ok(())
}

async fn mixed(env: Env) -> Verdict {
    const UPDATES: usize = 50;
    let (server, gossip) = (server(&env).await?, gossip(&env).await?);
    let (mut clients, mut listeners, mut queue, mut plain) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for number in 0..20 {
        if number % 2 == 0 {
            let listener = listener(&env).await?;
            queue.push(rumours(&listener).await?);
            listeners.push(listener);
        } else {
            let client = env.client().await?;
            plain.push(bulletins(&client, "east").await?);
            clients.push(client);
        }
    }
    for number in 0..UPDATES {
        rumour(&gossip, &format!("mixed {number}")).await?;
        bulletin(&server, "east", &number.to_string()).await?;
    }
    bulletin(&server, "east", "last").await?;
    for subscriber in &mut plain {
        let heard = until_last(&env, subscriber).await?;
        check!(heard.into_iter().eq((0..UPDATES).map(|number| number.to_string())), "somebody missed some");
    }
    let heard = heard(&env, &mut queue, UPDATES).await?;
    check_shared(&heard, UPDATES)
}

async fn topics(env: Env) -> Verdict {
    let server = server(&env).await?;
    let client = env.client().await?;
    let wards = ["east", "é", "a.b | *", ""];
    let mut subscribers = Vec::new();
    for ward in wards {
        subscribers.push(bulletins(&client, ward).await?);
    }
    for ward in wards {
        bulletin(&server, ward, &format!("to {ward}")).await?;
        bulletin(&server, ward, "last").await?;
    }
    for (subscriber, ward) in subscribers.iter_mut().zip(wards) {
        check_eq!(until_last(&env, subscriber).await?, [format!("to {ward}")], "what {ward:?} got");
    }
    Ok(())
}

async fn any_server(env: Env) -> Verdict {
    let servers = [server(&env).await?, server(&env).await?];
    let gossips = [gossip(&env).await?, gossip(&env).await?];
    let (client, listener) = (env.client().await?, listener(&env).await?);
    let (mut rumours, mut bulletins) = (rumours(&listener).await?, bulletins(&client, "east").await?);
    for ((server, gossip), text) in servers.iter().zip(&gossips).zip(["one", "two"]) {
        rumour(gossip, text).await?;
        bulletin(server, "east", text).await?;
        check_eq!(next(&env, &mut rumours).await?, text, "the rumour");
        check_eq!(next(&env, &mut bulletins).await?, text, "the bulletin");
    }
    Ok(())
}

async fn live(env: Env) -> Verdict {
    let (server, gossip) = (server(&env).await?, gossip(&env).await?);
    let (client, listener) = (env.client().await?, listener(&env).await?);
    for round in 0..30 {
        let text = format!("round {round}");
        let mut updates = bulletins(&client, &text).await?;
        bulletin(&server, &text, &text).await?;
        check_eq!(next(&env, &mut updates).await?, text, "the bulletin");
        let mut updates = rumours(&listener).await?;
        rumour(&gossip, &text).await?;
        check_eq!(next(&env, &mut updates).await?, text, "the rumour");
        // The next round is another subscription's alone.
        updates.close();
        check!(env.within(LONG, updates.next()).await?.is_none(), "there is more");
    }
    Ok(())
}

async fn order(env: Env) -> Verdict {
    let (server, gossip) = (server(&env).await?, gossip(&env).await?);
    let (client, listener) = (env.client().await?, listener(&env).await?);
    let (mut rumours, mut bulletins) = (rumours(&listener).await?, bulletins(&client, "east").await?);
    for number in 0..1000 {
        rumour(&gossip, &format!("{number} in order")).await?;
        bulletin(&server, "east", &number.to_string()).await?;
    }
    for number in 0..1000 {
        check_eq!(next(&env, &mut rumours).await?, format!("{number} in order"), "the rumour");
        check_eq!(next(&env, &mut bulletins).await?, number.to_string(), "the bulletin");
    }
    Ok(())
}

async fn large(env: Env) -> Verdict {
    let (server, gossip) = (server(&env).await?, gossip(&env).await?);
    let (client, listener) = (env.client().await?, listener(&env).await?);
    let text = "hat ".repeat(64 * 1024);
    let (mut rumours, mut bulletins) = (rumours(&listener).await?, bulletins(&client, "east").await?);
    rumour(&gossip, &text).await?;
    bulletin(&server, "east", &text).await?;
    for updates in [&mut rumours, &mut bulletins] {
        check!(next(&env, updates).await? == text, "the update has changed");
    }
    Ok(())
}

async fn nobody(env: Env) -> Verdict {
    let (server, gossip) = (server(&env).await?, gossip(&env).await?);
    rumour(&gossip, "to nobody").await?;
    bulletin(&server, "east", "tide").await?;
    let client = env.client().await?;
    let mut updates = bulletins(&client, "east").await?;
    bulletin(&server, "east", "fog").await?;
    check_eq!(next(&env, &mut updates).await?, "fog", "what a later subscriber gets");
    Ok(())
}

async fn close(env: Env) -> Verdict {
    let server = server(&env).await?;
    let client = env.client().await?;
    let (mut first, mut second) = (bulletins(&client, "east").await?, bulletins(&client, "east").await?);
    for text in ["tide", "fog"] {
        bulletin(&server, "east", text).await?;
    }
    check_eq!(next(&env, &mut second).await?, "tide", "the update");
    check_eq!(next(&env, &mut second).await?, "fog", "the update");
    check_eq!(next(&env, &mut first).await?, "tide", "the update");
    env.until("both have come to both", || client.client().counters().frames == 4).await?;
    first.close();
    check_eq!(next(&env, &mut first).await?, "fog", "what came before");
    check!(env.within(LONG, first.next()).await?.is_none(), "it goes on");
    bulletin(&server, "east", "rain").await?;
    check_eq!(next(&env, &mut second).await?, "rain", "what the other one gets");
    check!(first.next().await.is_none(), "it goes on after its end");
    Ok(())
}

async fn dropped(env: Env) -> Verdict {
    let server = server(&env).await?;
    let client = env.client().await?;
    let mut stays = bulletins(&client, "east").await?;
    for round in 0..20 {
        drop(bulletins(&client, "east").await?);
        // Given up before it is live.
        drop(client.subscribe_bulletin("east").into_future());
        let text = round.to_string();
        bulletin(&server, "east", &text).await?;
        check_eq!(next(&env, &mut stays).await?, text, "the update");
    }
    Ok(())
}

async fn client_closed(env: Env) -> Verdict {
    let (client, listener) = (env.client().await?, listener(&env).await?);
    let (mut rumours, mut bulletins) = (rumours(&listener).await?, bulletins(&client, "east").await?);
    client.client().close();
    listener.client().close();
    for updates in [&mut rumours, &mut bulletins] {
        let update = env.within(LONG, updates.next()).await?;
        check!(update.is_none(), "{update:?} comes after the end");
    }
    check!(expected(listener.subscribe_rumour().await)?.is_client_closed(), "another one is made");
    Ok(())
}

async fn server_closed(env: Env) -> Verdict {
    let server = gossip(&env).await?;
    server.shutdown().await;
    let error = expected(server.publish_rumour(&update("psst")).await)?;
    check!(error.is_server_closed(), "an unexpected error: {error}");
    Ok(())
}

/// The channel of the rumours.
fn channel() -> Channel {
    Channel::request::<&str>(GOSSIP_SERVICE.name, "Rumour", &[], true)
}

fn envelope(type_name: &str, payload: Vec<u8>) -> Frame {
    let type_url = format!("type.googleapis.com/{type_name}").into();
    Frame::Other(Any { type_url, value: payload.into() })
}

async fn other_type(env: Env) -> Verdict {
    let server = gossip(&env).await?;
    let client = listener(&env).await?;
    let mut updates = rumours(&client).await?;
    let frame = envelope("conformance.v1.Ask", update("not for you").encode_to_vec());
    env.foreign().await?.send(&channel(), frame).await?;
    env.until("it is counted", || client.client().counters().get(Reason::UnexpectedType) == 1).await?;
    rumour(&server, "after another type").await?;
    check_eq!(next(&env, &mut updates).await?, "after another type", "the update");
    Ok(())
}

async fn malformed(env: Env) -> Verdict {
    let server = gossip(&env).await?;
    let client = listener(&env).await?;
    let mut updates = rumours(&client).await?;
    let frame = envelope(GOSSIP_SERVICE.methods[0].response, b"\x0a\x02\xff\xfe".to_vec());
    env.foreign().await?.send(&channel(), frame).await?;
    let error = expected(env.within(LONG, updates.next()).await?.ok_or("it has ended")?)?;
    check_eq!(error.code(), &ErrorCode::MalformedResult, "the code");
    check_eq!(error.reason(), Some(Reason::MalformedMessage), "the reason");
    rumour(&server, "after a malformed one").await?;
    check_eq!(next(&env, &mut updates).await?, "after a malformed one", "the update");
    Ok(())
}

async fn slow(env: Env) -> Verdict {
    let server = server(&env).await?;
    let limits = ClientLimits { updates_per_subscription: 8, ..ClientLimits::DEFAULT };
    let (client, other) = (env.client_with(ClientOptions::new().limits(limits)).await?, env.client().await?);
    let (mut updates, mut quick) = (bulletins(&client, "east").await?, bulletins(&other, "east").await?);
    for number in 0..12 {
        let text = number.to_string();
        bulletin(&server, "east", &text).await?;
        check_eq!(next(&env, &mut quick).await?, text, "what the other one gets");
        env.until("it has come", || client.client().counters().frames == number + 1).await?;
    }
    check_eq!(client.client().counters().get(Reason::SlowConsumer), 4, "the updates without room");
    for number in 0..8 {
        check_eq!(next(&env, &mut updates).await?, number.to_string(), "what had room");
    }
    let error = expected(env.within(LONG, updates.next()).await?.ok_or("it has ended")?)?;
    check_eq!((error.code(), error.reason()), (&ErrorCode::DataLoss, Some(Reason::Gap)), "the gap");
    bulletin(&server, "east", "after").await?;
    check_eq!(next(&env, &mut updates).await?, "after", "what comes after it");
    Ok(())
}
