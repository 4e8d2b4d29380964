//! Claims, duplicates, and foreign peers that handle them in unusual ways.

use std::time::Duration;

use prost::Message;
use psrpc::proto::{Any, Channel, ErrorResponse, Frame, Request};
use psrpc::{Client, ErrorCode, Reason, Selection, ServerOptions};

use super::case_list;
use crate::case::{Case, Verdict, check, check_eq};
use crate::env::{Env, expect_error, unexpected};
use crate::foreign::{ForeignPeer, SHOP};
use crate::proto::Reply;
use crate::shop::ask;

pub(super) const CASES: &[Case] = case_list! {
    "unary/claim/foreign-server", "section 5", "a foreign server is granted a call, and its response is accepted", foreign_server;
    "unary/claim/foreign-client", "section 5", "a server bids for a foreign client's request and responds once granted", foreign_client;
    "unary/claim/without-a-grant", "I2", "a claimed request that is not granted does not run", without_a_grant;
    "unary/claim/granted-elsewhere", "I2", "a request that is granted to another server does not run", granted_elsewhere;
    "unary/claim/second-grant", "I2", "a request that is granted twice runs once", second_grant;
    "unary/claim/late-claim", "section 13.1", "a thousand bids for a completed call are ignored", late_claims;
    "unary/claim/second-bid", "section 6", "a server that bids twice counts once", second_bid;
    "unary/claim/non-finite", "section 13.13", "a bid whose affinity is infinite or NaN is dropped", non_finite;
    "unary/claim/nameless", "section 6", "a bid without a server id is dropped", nameless;
    "unary/response/not-selected", "I5", "only the selected server's response is accepted", not_selected;
    "unary/response/twice", "I1", "a response that comes twice resolves the call once", response_twice;
    "unary/response/unclaimed-first", "I5", "without a claim the first response is accepted and the second is counted", unclaimed_first;
    "unary/duplicate/queue", "I2", "a duplicate of a queue request does not run twice", duplicate_queue;
    "unary/duplicate/affinity", "I2", "a duplicate of a broadcast request is bid for once", duplicate_affinity;
    "unary/duplicate/single", "section 13.2", "a duplicate of an unclaimed request does not run twice", duplicate_single;
    "unary/skip-claim/advertised", "section 5", "a request by queue, claimed or not, permits skip claim; others do not", advertised;
    "unary/skip-claim/announced", "section 5", "an announcement selects its server without a grant", announced;
    "unary/skip-claim/response-first", "section 5", "a queue call accepts a response that arrives before its announcement", response_first;
    "unary/skip-claim/error-first", "section 5", "a queue call accepts an error that arrives before its announcement", error_first;
    "unary/skip-claim/other-server", "I5", "after an announcement or a grant only that server's response is accepted", other_server;
    "unary/skip-claim/affinity", "section 5", "an affinity call accepts an announcement; a response before it is ignored", announced_to_affinity;
    "unary/skip-claim/field-9", "section 1", "a server ignores field 9 of a request: it bids and waits for a grant", field_9;
};

const SHORT: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_secs(20);

fn reply(server: &str) -> Result<Vec<u8>, psrpc::proto::ErrorResponse> {
    Ok(Reply { text: "made by hand".into(), server: server.into() }.encode_to_vec())
}

/// Returns a hand-made request for one of our servers.
fn request(env: &Env, id: &str) -> Request {
    let wall = env.runtime().now().wall;
    Request {
        request_id: id.into(),
        client_id: "CLI_foreign".into(),
        sent_at: wall.as_unix_nanos(),
        expiry: (wall + LONG).as_unix_nanos(),
        payload: ask(id).encode_to_vec().into(),
        ..Request::default()
    }
}

fn requests(method: &str, queue: bool) -> Channel {
    Channel::request::<&str>(SHOP, method, &[], queue)
}

fn bids() -> Channel {
    Channel::claim_request(SHOP, "CLI_foreign")
}

fn responses() -> Channel {
    Channel::response(SHOP, "CLI_foreign")
}

async fn foreign_server(env: Env) -> Verdict {
    let foreign = env.foreign().await?;
    let (mut requests, mut grants) =
        (foreign.listen_to_requests("Fit").await?, foreign.listen_to_grants("Fit").await?);
    let client = env.client().await?;
    let call = env.spawn(async move { client.fit(ask("top")).await });
    let request = requests.request().await?;
    check!(request.expiry > request.sent_at, "the request expires before it is sent");
    foreign.bid(&request, "SRV_foreign", 1.0).await?;
    let grant = grants.grant().await?;
    check_eq!(
        (grant.request_id, grant.server_id),
        (request.request_id.clone(), "SRV_foreign".into()),
        "the grant"
    );
    foreign.respond(&request, "SRV_foreign", reply("foreign")).await?;
    check_eq!(call.await.map_err(unexpected)?.server, "foreign", "the responding server");
    Ok(())
}

async fn foreign_client(env: Env) -> Verdict {
    let server = env.server(&env.hatter("s1", 0.75)).await?;
    let foreign = env.foreign().await?;
    let (mut claims, mut responses) =
        (foreign.listen_to_client(bids()).await?, foreign.listen_to_client(responses()).await?);
    let request = request(&env, "REQ_by_hand");
    foreign.send(&requests("Pick", false), Frame::Request(request.clone())).await?;
    let claim = claims.claim().await?;
    check_eq!((claim.affinity, claim.handling), (0.75, false), "the bid");
    check_eq!(claim.server_id.as_str(), server.server().id(), "the bidding server");
    foreign.grant("Pick", &request.request_id, claim.server_id.as_str()).await?;
    let response = responses.response().await?;
    let payload = response.result.map_err(|error| format!("{error:?}"))?;
    let reply = Reply::decode(payload).map_err(|error| error.to_string())?;
    check_eq!((reply.text.as_str(), reply.server.as_str()), ("REQ_by_hand", "s1"), "the response");
    check!(response.sent_at >= request.sent_at, "the response is older than its request");
    Ok(())
}

async fn without_a_grant(env: Env) -> Verdict {
    let hatter = env.hatter("s1", 1.0);
    let server = env.server(&hatter).await?;
    let foreign = env.foreign().await?;
    let mut claims = foreign.listen_to_client(bids()).await?;
    let request =
        Request { expiry: (env.runtime().now().wall + SHORT).as_unix_nanos(), ..request(&env, "REQ_1") };
    foreign.send(&requests("Fit", true), Frame::Request(request)).await?;
    claims.claim().await?;
    env.until("the request is abandoned", || server.server().counters().get(Reason::NotGranted) == 1).await?;
    check!(hatter.started().is_empty(), "the handler ran");
    Ok(())
}

async fn granted_elsewhere(env: Env) -> Verdict {
    let hatter = env.hatter("s1", 1.0);
    let server = env.server(&hatter).await?;
    let foreign = env.foreign().await?;
    let mut claims = foreign.listen_to_client(bids()).await?;
    let request = request(&env, "REQ_1");
    foreign.send(&requests("Fit", true), Frame::Request(request.clone())).await?;
    let own = claims.claim().await?.server_id;
    foreign.grant("Fit", &request.request_id, "SRV_somebody_else").await?;
    foreign.grant("Fit", &request.request_id, own.as_str()).await?;
    env.until("the bid is lost", || server.server().counters().get(Reason::BidLost) == 1).await?;
    env.sleep(SHORT).await;
    check!(hatter.started().is_empty(), "the handler ran");
    Ok(())
}

async fn second_grant(env: Env) -> Verdict {
    let hatter = env.hatter("s1", 1.0);
    let _server = env.server(&hatter).await?;
    let foreign = env.foreign().await?;
    let (mut claims, mut responses) =
        (foreign.listen_to_client(bids()).await?, foreign.listen_to_client(responses()).await?);
    let request = request(&env, "REQ_1");
    foreign.send(&requests("Fit", true), Frame::Request(request.clone())).await?;
    let own = claims.claim().await?.server_id;
    for _ in 0..3 {
        foreign.grant("Fit", &request.request_id, own.as_str()).await?;
    }
    responses.response().await?;
    env.sleep(SHORT).await;
    check_eq!(hatter.started().len(), 1, "the number of runs");
    check!(responses.waiting().is_empty(), "there was a second response");
    Ok(())
}

async fn late_claims(env: Env) -> Verdict {
    let foreign = env.foreign().await?;
    let (mut requests, mut grants) =
        (foreign.listen_to_requests("Fit").await?, foreign.listen_to_grants("Fit").await?);
    let client = env.client().await?;
    for round in 0..3 {
        let caller = client.clone();
        let call = env.spawn(async move { caller.fit(ask("top")).timeout(LONG).await });
        let request = requests.request().await?;
        foreign.bid(&request, "SRV_first", 1.0).await?;
        grants.grant().await?;
        foreign.respond(&request, "SRV_first", reply("first")).await?;
        check_eq!(call.await.map_err(unexpected)?.server, "first", "the responding server, call {round}");
        for server in 0..1000 {
            foreign.bid(&request, &format!("SRV_{server}"), 1.0).await?;
        }
    }
    env.until("the late bids are counted", || client.client().counters().get(Reason::Late) == 3000).await
}

async fn second_bid(env: Env) -> Verdict {
    let foreign = env.foreign().await?;
    let mut requests = foreign.listen_to_broadcast("Pick").await?;
    let client = env.client().await?;
    let selection = Selection::new().minimum_affinity(0.5).affinity_timeout(SHORT);
    let call = env.spawn(async move { client.pick(ask("top")).selection(selection).await });
    let request = requests.request().await?;
    foreign.bid(&request, "SRV_1", 0.1).await?;
    foreign.bid(&request, "SRV_1", 0.9).await?;
    let error = expect_error(call.await)?;
    check_eq!(error.text(), "no servers available (received 1 responses)", "the error");
    Ok(())
}

async fn non_finite(env: Env) -> Verdict {
    let foreign = env.foreign().await?;
    let (mut requests, mut grants) =
        (foreign.listen_to_broadcast("Pick").await?, foreign.listen_to_grants("Pick").await?);
    let client = env.client().await?;
    let caller = client.clone();
    let call = env.spawn(async move { caller.pick(ask("top")).await });
    let request = requests.request().await?;
    for (server, affinity) in
        [("SRV_1", f32::INFINITY), ("SRV_2", f32::NAN), ("SRV_3", f32::NEG_INFINITY), ("SRV_4", 0.1)]
    {
        foreign.bid(&request, server, affinity).await?;
    }
    check_eq!(grants.grant().await?.server_id, "SRV_4", "the granted server");
    foreign.respond(&request, "SRV_4", reply("s4")).await?;
    call.await.map_err(unexpected)?;
    check_eq!(client.client().counters().get(Reason::NonFiniteAffinity), 3, "the bids dropped");
    Ok(())
}

async fn nameless(env: Env) -> Verdict {
    let foreign = env.foreign().await?;
    let mut requests = foreign.listen_to_requests("Fit").await?;
    let client = env.client_with(psrpc::ClientOptions::new().selection_timeout(SHORT)).await?;
    let caller = client.clone();
    let call = env.spawn(async move { caller.fit(ask("top")).await });
    foreign.bid(&requests.request().await?, "", 1.0).await?;
    check_eq!(expect_error(call.await)?.text(), "no response from servers", "the error");
    check_eq!(client.client().counters().get(Reason::MissingId), 1, "the bids dropped");
    Ok(())
}

async fn not_selected(env: Env) -> Verdict {
    let foreign = env.foreign().await?;
    let (mut requests, mut grants) =
        (foreign.listen_to_requests("Fit").await?, foreign.listen_to_grants("Fit").await?);
    let client = env.client().await?;
    let caller = client.clone();
    let call = env.spawn(async move { caller.fit(ask("top")).timeout(LONG).await });
    let request = requests.request().await?;
    foreign.bid(&request, "SRV_1", 1.0).await?;
    grants.grant().await?;
    foreign.respond(&request, "SRV_2", reply("an impostor")).await?;
    env.until("the impostor is counted", || client.client().counters().get(Reason::NotSelected) == 1).await?;
    foreign.respond(&request, "SRV_1", reply("the selected")).await?;
    check_eq!(call.await.map_err(unexpected)?.server, "the selected", "the responding server");
    Ok(())
}

async fn response_twice(env: Env) -> Verdict {
    let foreign = env.foreign().await?;
    let (mut requests, mut grants) =
        (foreign.listen_to_requests("Fit").await?, foreign.listen_to_grants("Fit").await?);
    let client = env.client().await?;
    let caller = client.clone();
    let call = env.spawn(async move { caller.fit(ask("top")).timeout(LONG).await });
    let request = requests.request().await?;
    foreign.bid(&request, "SRV_1", 1.0).await?;
    grants.grant().await?;
    foreign.respond(&request, "SRV_1", reply("first")).await?;
    foreign.respond(&request, "SRV_1", reply("second")).await?;
    check_eq!(call.await.map_err(unexpected)?.server, "first", "the responding server");
    env.until("the second is counted", || client.client().counters().get(Reason::Late) == 1).await
}

async fn unclaimed_first(env: Env) -> Verdict {
    let foreign = env.foreign().await?;
    let channel = Channel::request(SHOP, "OwnerFit", &["me"], true);
    let mut requests = foreign.listen(&channel, psrpc::SubscriptionKind::Queue).await?;
    let client = env.client().await?;
    let caller = client.clone();
    let call = env.spawn(async move { caller.owner_fit("me", ask("top")).timeout(LONG).await });
    let request = requests.request().await?;
    foreign.respond(&request, "SRV_1", reply("first")).await?;
    foreign.respond(&request, "SRV_2", reply("second")).await?;
    check_eq!(call.await.map_err(unexpected)?.server, "first", "the responding server");
    env.until("the second is counted", || client.client().counters().get(Reason::SecondServer) == 1).await
}

/// Waits until a client has processed the bids published so far: publishes a bid for an unknown
/// call after them, and waits until it is counted.
async fn wait_for_bids(env: &Env, foreign: &ForeignPeer, client: &Client, request: &Request) -> Verdict {
    let before = client.counters().get(Reason::Late);
    let stray = Request { request_id: "REQ_stray".into(), ..request.clone() };
    foreign.bid(&stray, "SRV_stray", 1.0).await?;
    env.until("the stray bid is counted", || client.counters().get(Reason::Late) == before + 1).await
}

/// Publishes a request several times. Returns the number of bids for it.
async fn publish_repeatedly(env: &Env, channel: &Channel, request: &Request) -> Result<usize, String> {
    let foreign = env.foreign().await?;
    let mut claims = foreign.listen_to_client(bids()).await?;
    for _ in 0..5 {
        foreign.send(channel, Frame::Request(request.clone())).await?;
    }
    env.sleep(SHORT).await;
    Ok(claims.waiting().len())
}

async fn duplicate_queue(env: Env) -> Verdict {
    let hatter = env.hatter("s1", 1.0);
    let server = env.server(&hatter).await?;
    let request = request(&env, "REQ_1");
    let channel = requests("Fit", true);
    check_eq!(publish_repeatedly(&env, &channel, &request).await?, 1, "the bids");
    let foreign = env.foreign().await?;
    let mut responses = foreign.listen_to_client(responses()).await?;
    foreign.grant("Fit", &request.request_id, server.server().id()).await?;
    responses.response().await?;
    check_eq!(publish_repeatedly(&env, &channel, &request).await?, 0, "the bids after the response");
    check_eq!(hatter.started().len(), 1, "the number of runs");
    Ok(())
}

async fn duplicate_affinity(env: Env) -> Verdict {
    let _server = env.server(&env.hatter("s1", 1.0)).await?;
    let request = request(&env, "REQ_1");
    let bids = publish_repeatedly(&env, &requests("Pick", false), &request).await?;
    check_eq!(bids, 1, "the bids");
    Ok(())
}

async fn duplicate_single(env: Env) -> Verdict {
    let hatter = env.hatter("s1", 1.0);
    let server = env.server(&hatter).await?;
    server.register_owner_fit_topic("me").await.map_err(unexpected)?;
    let foreign = env.foreign().await?;
    let mut responses = foreign.listen_to_client(responses()).await?;
    let channel = Channel::request(SHOP, "OwnerFit", &["me"], true);
    let request = request(&env, "REQ_1");
    for _ in 0..5 {
        foreign.send(&channel, Frame::Request(request.clone())).await?;
    }
    responses.response().await?;
    // Also after its handler has finished.
    foreign.send(&channel, Frame::Request(request)).await?;
    env.sleep(SHORT).await;
    check_eq!(hatter.started().len(), 1, "the number of runs");
    check!(responses.waiting().is_empty(), "there was a second response");
    Ok(())
}

async fn advertised(env: Env) -> Verdict {
    let foreign = env.foreign().await?;
    let client = env.client_with(psrpc::ClientOptions::new().selection_timeout(SHORT)).await?;
    let mut queue = foreign.listen_to_requests("Fit").await?;
    expect_error(client.fit(ask("top")).await)?;
    check!(queue.request().await?.skip_claim, "a claimed queue call does not permit skip claim");
    let mut broadcast = foreign.listen_to_broadcast("Pick").await?;
    expect_error(client.pick(ask("top")).await)?;
    check!(!broadcast.request().await?.skip_claim, "an affinity call permits skip claim");
    let channel = Channel::request(SHOP, "OwnerFit", &["me"], true);
    let mut single = foreign.listen(&channel, psrpc::SubscriptionKind::Queue).await?;
    expect_error(client.owner_fit("me", ask("top")).timeout(SHORT).await)?;
    check!(single.request().await?.skip_claim, "an unclaimed queue call does not permit skip claim");
    Ok(())
}

async fn announced(env: Env) -> Verdict {
    let foreign = env.foreign().await?;
    let (mut requests, mut grants) =
        (foreign.listen_to_requests("Fit").await?, foreign.listen_to_grants("Fit").await?);
    let client = env.client().await?;
    let call = env.spawn(async move { client.fit(ask("top")).timeout(LONG).await });
    let request = requests.request().await?;
    foreign.announce(&request, "SRV_1").await?;
    env.sleep(SHORT).await;
    check!(grants.waiting().is_empty(), "the call was granted");
    foreign.respond(&request, "SRV_1", reply("s1")).await?;
    check_eq!(call.await.map_err(unexpected)?.server, "s1", "the responding server");
    Ok(())
}

async fn response_first(env: Env) -> Verdict {
    let foreign = env.foreign().await?;
    let mut requests = foreign.listen_to_requests("Fit").await?;
    let client = env.client().await?;
    let untyped = client.client().clone();
    let call = env.spawn(async move { client.fit(ask("top")).timeout(LONG).await });
    let request = requests.request().await?;
    foreign.respond(&request, "SRV_1", reply("s1")).await?;
    check_eq!(call.await.map_err(unexpected)?.server, "s1", "the responding server");
    foreign.announce(&request, "SRV_1").await?;
    env.until("the late announcement is counted", || untyped.counters().get(Reason::Late) == 1).await
}

async fn error_first(env: Env) -> Verdict {
    let foreign = env.foreign().await?;
    let mut requests = foreign.listen_to_requests("Fit").await?;
    let client = env.client().await?;
    let call = env.spawn(async move { client.fit(ask("top")).timeout(LONG).await });
    let no = ErrorResponse::new(ErrorCode::NotFound, "no such hat");
    foreign.respond(&requests.request().await?, "SRV_1", Err(no)).await?;
    check_eq!(expect_error(call.await)?.text(), "no such hat", "the error");
    Ok(())
}

async fn other_server(env: Env) -> Verdict {
    let foreign = env.foreign().await?;
    let mut requests = foreign.listen_to_requests("Fit").await?;
    let mut grants = foreign.listen_to_grants("Fit").await?;
    let client = env.client().await?;
    for announced in [true, false] {
        let (client, untyped) = (client.clone(), client.client().clone());
        let before = untyped.counters().get(Reason::NotSelected);
        let call = env.spawn(async move { client.fit(ask("top")).timeout(LONG).await });
        let request = requests.request().await?;
        if announced {
            foreign.announce(&request, "SRV_1").await?;
            // Bids and responses arrive on two subscriptions.
            wait_for_bids(&env, &foreign, &untyped, &request).await?;
        } else {
            foreign.bid(&request, "SRV_1", 1.0).await?;
            grants.grant().await?;
        }
        foreign.respond(&request, "SRV_2", reply("s2")).await?;
        let counted = || untyped.counters().get(Reason::NotSelected) == before + 1;
        env.until("the other server's response is counted", counted).await?;
        foreign.respond(&request, "SRV_1", reply("s1")).await?;
        check_eq!(call.await.map_err(unexpected)?.server, "s1", "the responding server");
    }
    Ok(())
}

async fn announced_to_affinity(env: Env) -> Verdict {
    let foreign = env.foreign().await?;
    let mut requests = foreign.listen_to_broadcast("Pick").await?;
    let client = env.client().await?;
    let untyped = client.client().clone();
    let patient = Selection::new().affinity_timeout(LONG);
    let call = env.spawn(async move { client.pick(ask("top")).timeout(LONG).selection(patient).await });
    let request = requests.request().await?;
    foreign.respond(&request, "SRV_1", reply("s1")).await?;
    let counted = || untyped.counters().get(Reason::NotSelected) == 1;
    env.until("the response before any announcement is counted", counted).await?;
    foreign.announce(&request, "SRV_2").await?;
    wait_for_bids(&env, &foreign, &untyped, &request).await?;
    foreign.respond(&request, "SRV_2", reply("s2")).await?;
    check_eq!(call.await.map_err(unexpected)?.server, "s2", "the responding server");
    Ok(())
}

async fn field_9(env: Env) -> Verdict {
    let hatter = env.hatter("s1", 1.0);
    let options = ServerOptions::new().skip_claim(|_, _| true);
    let _server = env.server_with(&hatter, options).await?;
    let foreign = env.foreign().await?;
    let mut bids = foreign.listen_to_client(Channel::claim_request(SHOP, "CLI_foreign")).await?;
    let channel = requests("Fit", true);
    let nines: [(&str, &[u8], bool); 3] = [
        ("REQ_9", &[9 << 3, 1], false),
        ("REQ_9_is_text", &[9 << 3 | 2, 3, b'y', b'e', b's'], false),
        ("REQ_9_and_10", &[9 << 3, 1, 10 << 3, 1], true),
    ];
    for (id, nine, announced) in nines {
        let frame = Frame::Request(request(&env, id)).encode("");
        // Appended to the message, within the value of the envelope.
        let value = [&value_of(&frame)[..], nine].concat();
        let type_url = "type.googleapis.com/internal.Request".into();
        let decorated = Frame::Other(Any { type_url, value: value.into() });
        foreign.send(&channel, Frame::Raw(decorated.encode(channel.local()))).await?;
        let bid = bids.claim().await?;
        check_eq!((bid.request_id.as_str(), bid.handling), (id, announced), "the bid");
    }
    env.until("the request with field 10 runs", || hatter.started().len() == 1).await
}

/// Returns the value of an envelope.
fn value_of(envelope: &[u8]) -> Vec<u8> {
    #[derive(Clone, PartialEq, Message)]
    struct Envelope {
        #[prost(bytes = "vec", tag = "2")]
        value: Vec<u8>,
    }

    Envelope::decode(envelope).map(|envelope| envelope.value).unwrap_or_default()
}
