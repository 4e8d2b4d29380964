//! Malformed frames and messages.

use std::time::Duration;

use prost::Message;
use psrpc::proto::{Any, Channel, Frame, Request};
use psrpc::{Client, ClientOptions, ErrorCode, Reason};

use super::case_list;
use crate::case::{Case, Verdict, check, check_eq};
use crate::env::{Env, expect_error, unexpected};
use crate::foreign::SHOP;
use crate::proto::{Ask, Blob, Reply, SHOP_SERVICE};
use crate::shop::ask;

pub(super) const CASES: &[Case] = case_list! {
    "malformed/request/queue", "section 6", "a queue request that does not decode is answered at once", request_queue;
    "malformed/request/affinity", "section 6", "a broadcast request that does not decode fails with the server's error", request_affinity;
    "malformed/request/single", "section 5", "an unclaimed request that does not decode is answered at once", request_single;
    "malformed/request/others-go-on", "I11", "a request that does not decode does not affect other calls", others_go_on;
    "malformed/result", "section 10", "a response that does not decode fails only its own call", result;
    "malformed/frames/client", "I11", "random bytes and unexpected messages at a client are counted, and it keeps working", at_client;
    "malformed/frames/server", "I11", "random bytes and unexpected messages at a server are counted, and it keeps working", at_server;
    "malformed/compression", "section 1", "values with an unknown compression, damaged data or an excessive size are counted, and the client keeps working", compression;
    "malformed/compression/unsaid", "section 1", "a compressed value is not decompressed unless its envelope says so", compression_unsaid;
    "malformed/channel-name", "section 1", "an envelope that names another channel than the one it arrived on is ignored or dropped", channel_name;
    "malformed/frames/nameless-request", "I11", "a request without ids is counted, and does not run", nameless_request;
};

const SHORT: Duration = Duration::from_millis(100);

/// Returns bytes that do not decode as an Ask, since the text is not UTF-8.
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
    let (error, elapsed) = env.time(call.timeout(Duration::from_secs(20)).into_future()).await;
    let error = expect_error(error)?;
    check_eq!(error.code(), &ErrorCode::MalformedRequest, "the code");
    check_eq!(error.reason(), Some(Reason::Answered), "the reason");
    check!(elapsed < Duration::from_secs(10), "took {elapsed:?}");
    Ok(())
}

async fn request_affinity(env: Env) -> Verdict {
    let _server = env.server(&env.hatter("s1", 1.0)).await?;
    let client = raw_client(&env).await?;
    let call = client.call::<_, Reply>(&SHOP_SERVICE.methods[1], &[], blob());
    check_eq!(expect_error(call.await)?.code(), &ErrorCode::MalformedRequest, "the code");
    Ok(())
}

async fn request_single(env: Env) -> Verdict {
    let server = env.server(&env.hatter("s1", 1.0)).await?;
    server.register_owner_fit_topic("me").await.map_err(unexpected)?;
    let client = raw_client(&env).await?;
    let call = client.call::<_, Reply>(&SHOP_SERVICE.methods[2], &["me"], blob());
    check_eq!(expect_error(call.await)?.code(), &ErrorCode::MalformedRequest, "the code");
    Ok(())
}

async fn others_go_on(env: Env) -> Verdict {
    let _server = env.server(&env.hatter("s1", 1.0)).await?;
    let (client, raw) = (env.client().await?, raw_client(&env).await?);
    for round in 0..20 {
        let bad = raw.call::<_, Reply>(&SHOP_SERVICE.methods[0], &[], blob());
        let bad = env.spawn(bad.into_future());
        client.fit(ask(&format!("hat {round}"))).await.map_err(unexpected)?;
        check_eq!(expect_error(bad.await)?.code(), &ErrorCode::MalformedRequest, "the code");
    }
    Ok(())
}

async fn result(env: Env) -> Verdict {
    let _server = env.server(&env.hatter("s1", 1.0)).await?;
    let client = raw_client(&env).await?;
    // The response does not decode: it has a string where the type has a number.
    let call = client.call::<Ask, NotAReply>(&SHOP_SERVICE.methods[0], &[], ask("top"));
    let error = expect_error(call.await)?;
    check_eq!(error.code(), &ErrorCode::MalformedResult, "the code");
    check_eq!(error.reason(), Some(Reason::MalformedResult), "the reason");
    client.call::<_, Reply>(&SHOP_SERVICE.methods[0], &[], ask("top")).await.map_err(unexpected)?;
    Ok(())
}

/// A type that a Reply with a text does not decode as.
#[derive(Clone, PartialEq, Message)]
struct NotAReply {
    #[prost(uint32, tag = "1")]
    number: u32,
}

/// Returns frames that are invalid on every channel.
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

/// Returns an envelope that declares this compression of its value.
fn compressed(channel: &Channel, compression: i32, value: &[u8]) -> Frame {
    #[derive(Clone, PartialEq, Message)]
    struct Envelope {
        #[prost(string, tag = "1")]
        type_url: String,
        #[prost(bytes = "vec", tag = "2")]
        value: Vec<u8>,
        #[prost(string, tag = "3")]
        channel: String,
        #[prost(int32, tag = "4")]
        compression: i32,
    }

    let type_url = "type.googleapis.com/internal.Response".to_owned();
    let channel = channel.local().to_owned();
    Frame::Raw(Envelope { type_url, value: value.to_vec(), channel, compression }.encode_to_vec().into())
}

/// Returns a gzipped response to an unknown request, with a payload of `len` zeros.
fn gzip_of(len: usize) -> Result<Vec<u8>, String> {
    let response = psrpc::proto::Response {
        request_id: "REQ_unheard".into(),
        server_id: "SRV_1".into(),
        sent_at: 0,
        result: Ok(vec![0; len].into()),
    };
    let frame = Frame::Response(response).encode_with("", Some(psrpc::proto::Compression { threshold: 0 }));
    let gzip = frame.windows(2).position(|pair| pair == [0x1f, 0x8b]).ok_or("the frame is not compressed")?;
    // The last two bytes are the envelope's compression field.
    Ok(frame[gzip..frame.len() - 2].to_vec())
}

async fn compression(env: Env) -> Verdict {
    let _server = env.server(&env.hatter("s1", 1.0)).await?;
    let (client, foreign) = (env.client().await?, env.foreign().await?);
    let channel = Channel::response(SHOP, client.client().id());
    let (gzip, bomb) = (gzip_of(5_000)?, gzip_of(17 << 20)?);
    let count = |reason| client.client().counters().get(reason);
    foreign.send(&channel, compressed(&channel, 1, &gzip)).await?;
    env.until("the valid frame is processed", || count(Reason::Late) == 1).await?;
    let damaged = [&gzip[..gzip.len() - 9], &gzip[gzip.len() - 8..]].concat();
    let trailing = [&gzip[..], b"hat"].concat();
    for (number, value) in [
        (7, &gzip[..]),
        (-1, &gzip),
        (2, b"plain"),
        (1, b"plain"),
        (1, b""),
        (1, &damaged),
        (1, &trailing),
        (1, &gzip[..20]),
    ] {
        foreign.send(&channel, compressed(&channel, number, value)).await?;
    }
    foreign.send(&channel, compressed(&channel, 1, &bomb)).await?;
    env.until("all invalid frames are counted", || {
        (count(Reason::Malformed), count(Reason::FrameLimit)) == (8, 1)
    })
    .await?;
    check_eq!(count(Reason::Late), 1, "the frames processed");
    client.fit(ask("top")).await.map_err(unexpected)?;
    Ok(())
}

async fn compression_unsaid(env: Env) -> Verdict {
    let (client, foreign) = (env.client().await?, env.foreign().await?);
    let channel = Channel::response(SHOP, client.client().id());
    foreign.send(&channel, compressed(&channel, 0, &gzip_of(5_000)?)).await?;
    env.until("the frame is counted", || client.client().counters().get(Reason::Malformed) == 1).await
}

async fn channel_name(env: Env) -> Verdict {
    let _server = env.server(&env.hatter("s1", 1.0)).await?;
    let (client, foreign) = (env.client().await?, env.foreign().await?);
    let response = psrpc::proto::Response {
        request_id: "REQ_unheard".into(),
        server_id: "SRV_1".into(),
        sent_at: 0,
        result: Ok("hat".into()),
    };
    // A client's own channels have no local name, so this name is wrong on every bus. A bus that
    // routes by it cannot deliver the frame; other buses ignore it.
    let channel = Channel::response(SHOP, client.client().id());
    foreign.send(&channel, Frame::Raw(Frame::Response(response).encode("Pick.REQ"))).await?;
    client.fit(ask("top")).await.map_err(unexpected)?;
    check!(client.client().counters().get(Reason::Late) <= 1, "the frame was read more than once");
    Ok(())
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
    env.until("all frames are counted", || {
        let counters = client.client().counters();
        counters.get(Reason::Malformed) >= 10 && counters.get(Reason::UnexpectedType) >= 4
    })
    .await
}

async fn at_server(env: Env) -> Verdict {
    let server = env.server(&env.hatter("s1", 1.0)).await?;
    let client = env.client().await?;
    let foreign = env.foreign().await?;
    // Requests and grants that every server receives.
    for channel in [
        Channel::request::<&str>(SHOP, "Pick", &[], false),
        Channel::claim_response::<&str>(SHOP, "Pick", &[]),
    ] {
        for frame in nonsense() {
            foreign.send(&channel, frame).await?;
        }
        client.fit(ask("top")).await.map_err(unexpected)?;
    }
    // Bytes that are not an envelope do not arrive on buses that route by the envelope.
    env.until("the frames are counted", || server.server().counters().get(Reason::UnexpectedType) >= 4).await
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
    check!(hatter.started().is_empty(), "a handler ran");
    Ok(())
}
