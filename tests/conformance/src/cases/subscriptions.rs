//! Subscriptions to updates.

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
use crate::env::{Env, expect_error, unexpected};
use crate::proto::{GOSSIP_SERVICE, GossipClient, GossipServer, Reply, ShopClient, ShopServer};

pub(super) const CASES: &[Case] = case_list! {
    "subscription/queue/one-gets-each", "section 9", "each queue-routed update goes to one subscriber", one_gets_each;
    "subscription/queue/shared", "section 9", "two queue subscriptions of one client share the updates", shared;
    "subscription/queue/takes-over", "section 9", "after a queue subscriber unsubscribes, the remaining ones get all updates", takes_over;
    "subscription/multi/all", "section 9", "every subscriber of a multi method gets every update", all;
    "subscription/multi/two-on-one-client", "section 9", "two subscriptions of one client get every update each", two_on_one;
    "subscription/mixed", "section 9", "twenty subscribers, queue and plain mixed, get their updates", mixed;
    "subscription/topics", "section 2", "an update reaches only the subscribers of its topic", topics;
    "subscription/any-server", "section 9", "updates come from every server", any_server;
    "subscription/live", "I13", "a subscriber gets an update published right after its subscription resolved", live;
    "subscription/order", "section 9", "a thousand updates in a row arrive in their order", order;
    "subscription/large-updates", "section 1", "an update of 256 KiB arrives", large;
    "subscription/nobody", "section 9", "publishing without subscribers is not an error", nobody;
    "subscription/close", "features U1", "a closed subscription ends after the updates received before", close;
    "subscription/drop", "features U1", "a dropped subscription does not block others", dropped;
    "subscription/client-closed", "I15", "closing a client ends its subscriptions", client_closed;
    "subscription/server-closed", "features V6", "a server publishes nothing after shutdown", server_closed;
    "subscription/other-type", "I11", "an update of another type is counted and skipped", other_type;
    "subscription/malformed-update", "I11", "an update that does not decode yields an error, and the subscription continues", malformed;
    "subscription/slow-consumer", "I12", "updates that exceed the capacity yield a gap, and other subscriptions are not blocked", slow;
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

/// Publishes a rumour. The texts of all cases are distinct, since Redis drops a repeated update
/// within 5 s.
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

/// Returns the text of the next update.
async fn next(env: &Env, updates: &mut Updates) -> Result<String, String> {
    let update = env.within(LONG, updates.next()).await?.ok_or("it ended")?;
    update.map(|update| update.text).map_err(unexpected)
}

/// Returns the texts of all updates before the one with the text `last`.
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

/// Returns the texts of the updates that each subscriber gets: the first `count`, and those that
/// follow within a moment.
async fn received(env: &Env, subscribers: &mut [Updates], count: usize) -> Result<Vec<Vec<String>>, String> {
    let mut received = vec![Vec::new(); subscribers.len()];
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
        received[subscriber].push(update.ok_or("it ended")?.map_err(unexpected)?.text);
    }
    // Duplicates would arrive within this time.
    env.sleep(SHORT).await;
    for (updates, received) in subscribers.iter_mut().zip(&mut received) {
        while let Ok(update) = env.within(Duration::ZERO, updates.next()).await {
            received.push(update.ok_or("it ended")?.map_err(unexpected)?.text);
        }
    }
    Ok(received)
}

/// Checks that each of `count` updates went to one subscriber, once.
fn check_shared(received: &[Vec<String>], count: usize) -> Verdict {
    let distinct: BTreeSet<_> = received.iter().flatten().collect();
    check_eq!(distinct.len(), count, "the distinct updates received");
    check_eq!(received.iter().map(Vec::len).sum::<usize>(), count, "the updates received");
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
    let received = received(&env, &mut subscribers, 60).await?;
    check_shared(&received, 60)
}

async fn shared(env: Env) -> Verdict {
    let server = gossip(&env).await?;
    let client = listener(&env).await?;
    let mut subscribers = [rumours(&client).await?, rumours(&client).await?];
    for number in 0..40 {
        rumour(&server, &format!("shared {number}")).await?;
    }
    let received = received(&env, &mut subscribers, 40).await?;
    check_shared(&received, 40)?;
    check!(received.iter().all(|texts| !texts.is_empty()), "one subscription got all updates");
    Ok(())
}

async fn takes_over(env: Env) -> Verdict {
    let server = gossip(&env).await?;
    let (leaving, staying) = (listener(&env).await?, listener(&env).await?);
    let (mut closing, mut remaining) = (rumours(&leaving).await?, rumours(&staying).await?);
    rumour(&server, "before").await?;
    closing.close();
    let mut before = 0;
    while env.within(LONG, closing.next()).await?.is_some() {
        before += 1;
    }
    // Either subscriber may have received it.
    if before == 0 {
        check_eq!(next(&env, &mut remaining).await?, "before", "the update");
    }
    for number in 0..20 {
        rumour(&server, &format!("taken over {number}")).await?;
    }
    for number in 0..20 {
        check_eq!(next(&env, &mut remaining).await?, format!("taken over {number}"), "the update");
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
        let received = until_last(&env, subscriber).await?;
        check!(
            received.into_iter().eq((0..20).map(|number| number.to_string())),
            "a subscriber missed updates"
        );
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
        check_eq!(until_last(&env, subscriber).await?, ["tide", "fog"], "the updates of one subscription");
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
        let received = until_last(&env, subscriber).await?;
        check!(
            received.into_iter().eq((0..UPDATES).map(|number| number.to_string())),
            "a subscriber missed updates"
        );
    }
    let received = received(&env, &mut queue, UPDATES).await?;
    check_shared(&received, UPDATES)
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
        check_eq!(until_last(&env, subscriber).await?, [format!("to {ward}")], "the updates of {ward:?}");
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
        // Leaves the queue, so that the next round's subscription is its only member.
        updates.close();
        check!(env.within(LONG, updates.next()).await?.is_none(), "there are more items");
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
    check_eq!(next(&env, &mut updates).await?, "fog", "the update of a later subscriber");
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
    env.until("both updates are received twice", || client.client().counters().frames == 4).await?;
    first.close();
    check_eq!(next(&env, &mut first).await?, "fog", "the update received before");
    check!(env.within(LONG, first.next()).await?.is_none(), "it did not end");
    bulletin(&server, "east", "rain").await?;
    check_eq!(next(&env, &mut second).await?, "rain", "the update of the other subscription");
    check!(first.next().await.is_none(), "it yielded an item after its end");
    Ok(())
}

async fn dropped(env: Env) -> Verdict {
    let server = server(&env).await?;
    let client = env.client().await?;
    let mut remaining = bulletins(&client, "east").await?;
    for round in 0..20 {
        drop(bulletins(&client, "east").await?);
        // Dropped before it is live.
        drop(client.subscribe_bulletin("east").into_future());
        let text = round.to_string();
        bulletin(&server, "east", &text).await?;
        check_eq!(next(&env, &mut remaining).await?, text, "the update");
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
    check!(
        expect_error(listener.subscribe_rumour().await)?.is_client_closed(),
        "a closed client opened a subscription"
    );
    Ok(())
}

async fn server_closed(env: Env) -> Verdict {
    let server = gossip(&env).await?;
    server.shutdown().await;
    let error = expect_error(server.publish_rumour(&update("psst")).await)?;
    check!(error.is_server_closed(), "an unexpected error: {error}");
    Ok(())
}

/// Returns the channel of the rumours.
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
    env.until("the update is counted", || client.client().counters().get(Reason::UnexpectedType) == 1)
        .await?;
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
    let error = expect_error(env.within(LONG, updates.next()).await?.ok_or("it ended")?)?;
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
        check_eq!(next(&env, &mut quick).await?, text, "the update of the other subscription");
        env.until("the update is received", || client.client().counters().frames == number + 1).await?;
    }
    check_eq!(client.client().counters().get(Reason::SlowConsumer), 4, "the updates dropped");
    for number in 0..8 {
        check_eq!(next(&env, &mut updates).await?, number.to_string(), "the update within the capacity");
    }
    let error = expect_error(env.within(LONG, updates.next()).await?.ok_or("it ended")?)?;
    check_eq!((error.code(), error.reason()), (&ErrorCode::DataLoss, Some(Reason::Gap)), "the gap");
    bulletin(&server, "east", "after").await?;
    check_eq!(next(&env, &mut updates).await?, "after", "the update after the gap");
    Ok(())
}
