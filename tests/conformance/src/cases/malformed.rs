//! Frames and messages that are not what they should be.

use std::time::Duration;

use prost::Message;
use psrpc::proto::{Any, Channel, Frame, Request};
use psrpc::{Client, ClientOptions, ErrorCode, Reason};

use super::case_list;
use crate::case::{Case, Verdict, check, check_eq};
use crate::env::{Env, expected, unexpected};
use crate::foreign::SHOP;
use crate::proto::{Ask, Blob, Reply, SHOP_SERVICE};
use crate::shop::ask;

pub(super) const CASES: &[Case] = case_list! {
    "malformed/request/queue", "section 6", "a queue request that does not decode is answered at once", request_queue;
    "malformed/request/affinity", "section 6", "a broadcast request that does not decode fails with the server's error", request_affinity;
    "malformed/request/single", "section 5", "an unclaimed request that does not decode is answered at once", request_single;
    "malformed/request/others-go-on", "I11", "a request that does not decode is no matter to other calls", others_go_on;
    "malformed/result", "section 10", "a response that does not decode fails its call alone", result;
    "malformed/frames/client", "I11", "random bytes and foreign messages at a client are counted, and it goes on", at_client;
    "malformed/frames/server", "I11", "random bytes and foreign messages at a server are counted, and it goes on", at_server;
    "malformed/frames/nameless-request", "I11", "a request without ids is counted, and runs nowhere", nameless_request;
};

const SHORT: Duration = Duration::from_millis(100);

/// Bytes that are no Ask, since its text is not UTF-8.
fn blob() -> Blob {
    Blob { blob: b"\xff\xfe hat".to_vec() }
}

async fn raw_client(env: &Env) -> Result<Client, String> {
    Client::new(env.bus().await?, env.runtime(), &SHOP_SERVICE, ClientOptions::new())
        .await
        .map_err(unexpected)
}

async fn request_queue(env: Env) -> Verdict {
    let _server = env.server(&env.hatter("s1", 1.0)).await?;
    let client = raw_client(&env).await?;
    let call = client.call::<_, Reply>(&SHOP_SERVICE.methods[0], &[], blob());
    let (error, took) = env.time(call.timeout(Duration::from_secs(20)).into_future()).await;
    let error = expected(error)?;
    check_eq!(error.code(), &ErrorCode::MalformedRequest, "the code");
    check_eq!(error.reason(), Some(Reason::Answered), "whose it is");
    check!(took < Duration::from_secs(10), "it took {took:?}");
    Ok(())
}

async fn request_affinity(env: Env) -> Verdict {
    let _server = env.server(&env.hatter("s1", 1.0)).await?;
    let client = raw_client(&env).await?;
    let call = client.call::<_, Reply>(&SHOP_SERVICE.methods[1], &[], blob());
    check_eq!(expected(call.await)?.code(), &ErrorCode::MalformedRequest, "the code");
    Ok(())
}

async fn request_single(env: Env) -> Verdict {
    let server = env.server(&env.hatter("s1", 1.0)).await?;
    server.register_owner_fit_topic("me").await.map_err(unexpected)?;
    let client = raw_client(&env).await?;
    let call = client.call::<_, Reply>(&SHOP_SERVICE.methods[2], &["me"], blob());
    check_eq!(expected(call.await)?.code(), &ErrorCode::MalformedRequest, "the code");
    Ok(())
}

async fn others_go_on(env: Env) -> Verdict {
    let _server = env.server(&env.hatter("s1", 1.0)).await?;
    let (client, raw) = (env.client().await?, raw_client(&env).await?);
    for round in 0..20 {
        let bad = raw.call::<_, Reply>(&SHOP_SERVICE.methods[0], &[], blob());
        let bad = env.spawn(bad.into_future());
        client.fit(ask(&format!("hat {round}"))).await.map_err(unexpected)?;
        check_eq!(expected(bad.await)?.code(), &ErrorCode::MalformedRequest, "the code");
    }
    Ok(())
}

async fn result(env: Env) -> Verdict {
    let _server = env.server(&env.hatter("s1", 1.0)).await?;
    let client = raw_client(&env).await?;
    // An answer whose text happens to be no Ask: a field of another type where a number should be.
    let call = client.call::<Ask, NotAReply>(&SHOP_SERVICE.methods[0], &[], ask("top"));
    let error = expected(call.await)?;
    check_eq!(error.code(), &ErrorCode::MalformedResult, "the code");
    check_eq!(error.reason(), Some(Reason::MalformedResult), "the reason");
    client.call::<_, Reply>(&SHOP_SERVICE.methods[0], &[], ask("top")).await.map_err(unexpected)?;
    Ok(())
}

/// What a Reply with a text cannot be read as.
#[derive(Clone, PartialEq, Message)]
struct NotAReply {
    #[prost(uint32, tag = "1")]
    number: u32,
}

/// Frames that have no business on any channel of ours.
fn nonsense() -> Vec<Frame> {
    let truncated = |type_url: &'static str| {
        Frame::Raw(
            Frame::Other(Any { type_url: type_url.into(), value: vec![0x0a, 200, 1].into() }).encode(""),
        )
    };
    vec![
        Frame::Raw(vec![0xff; 40].into()),
        Frame::Raw((0..=255).collect::<Vec<u8>>().into()),
        Frame::Raw(vec![].into()),
        truncated("type.googleapis.com/internal.Request"),
        truncated("type.googleapis.com/internal.Response"),
        truncated("type.googleapis.com/internal.ClaimRequest"),
        Frame::Other(Any {
            type_url: "type.googleapis.com/conformance.v1.Reply".into(),
            value: vec![].into(),
        }),
        Frame::Stream(psrpc::proto::Stream::default()),
    ]
}

async fn at_client(env: Env) -> Verdict {
    let _server = env.server(&env.hatter("s1", 1.0)).await?;
    let client = env.client().await?;
    let foreign = env.foreign().await?;
    let id = client.client().id();
    for channel in [Channel::claim_request(SHOP, id), Channel::response(SHOP, id)] {
        for frame in nonsense() {
            foreign.send(&channel, frame).await?;
        }
        client.fit(ask("top")).await.map_err(unexpected)?;
    }
    env.until("all of it is counted", || {
        let counters = client.client().counters();
        counters.get(Reason::Malformed) >= 10 && counters.get(Reason::UnexpectedType) >= 4
    })
    .await
}

async fn at_server(env: Env) -> Verdict {
    let server = env.server(&env.hatter("s1", 1.0)).await?;
    let client = env.client().await?;
    let foreign = env.foreign().await?;
    // Broadcast and grants: where every server hears everything.
    for channel in [
        Channel::request::<&str>(SHOP, "Pick", &[], false),
        Channel::claim_response::<&str>(SHOP, "Pick", &[]),
    ] {
        for frame in nonsense() {
            foreign.send(&channel, frame).await?;
        }
        client.fit(ask("top")).await.map_err(unexpected)?;
    }
    // What is no envelope reaches nobody where the envelope says for whom it is.
    env.until("all of it is counted", || server.server().counters().get(Reason::UnexpectedType) >= 4).await
}

async fn nameless_request(env: Env) -> Verdict {
    let hatter = env.hatter("s1", 1.0);
    let server = env.server(&hatter).await?;
    let foreign = env.foreign().await?;
    let now = env.runtime().now().wall;
    let request = Request {
        sent_at: now.as_unix_nanos(),
        expiry: (now + Duration::from_secs(20)).as_unix_nanos(),
        payload: ask("top").encode_to_vec().into(),
        ..Request::default()
    };
    let channel = Channel::request::<&str>(SHOP, "Fit", &[], true);
    foreign.send(&channel, Frame::Request(Request { client_id: "CLI_1".into(), ..request.clone() })).await?;
    foreign.send(&channel, Frame::Request(Request { request_id: "REQ_1".into(), ..request })).await?;
    env.until("both are counted", || server.server().counters().get(Reason::MissingId) == 2).await?;
    env.sleep(SHORT).await;
    check!(hatter.started().is_empty(), "one of them ran");
    Ok(())
}
