//! Multi calls: every server responds, and the caller decides how long it waits.

use std::time::Duration;

use prost::Message;
use psrpc::proto::Channel;
use psrpc::{ErrorCode, Reason, Responses};

use super::case_list;
use crate::case::{Case, Verdict, check, check_eq};
use crate::env::{Env, expect_error, unexpected};
use crate::foreign::{ForeignPeer, FrameReceiver, SHOP};
use crate::proto::{Ask, Blob, Reply, ShopServer};
use crate::shop::{Hatter, ask, failing, method, slow};

pub(super) const CASES: &[Case] = case_list! {
    "multi/every-server", "I5", "every server responds once, and each response names its server", every_server;
    "multi/timeout", "section 7", "without an expected count, the responses end at the timeout", timeout;
    "multi/expected-count", "section 7", "the responses end once the expected count is reached", expected_count;
    "multi/fewer-than-expected", "section 7", "with fewer responses than expected, the responses end at the timeout", fewer;
    "multi/nobody", "section 7", "without any response, the call ends at the timeout with an error", nobody;
    "multi/nobody/known", "features C10", "where the bus knows that nobody is subscribed, the call ends at once, with the reason", nobody_known;
    "multi/dropped", "section 7", "dropping the responses ends the call, and later responses are dropped", dropped;
    "multi/errors", "section 10", "an error counts as the response of its server and does not affect the others", errors;
    "multi/panic", "features V7", "a server whose handler panics responds with an error, and the others respond", panic;
    "multi/slow-server", "section 7", "a slow server delays only its own response", slow_server;
    "multi/late-answer", "I1", "a response after the timeout is dropped", late_answer;
    "multi/topics", "section 2", "only the servers of a topic respond to a call on it", topics;
    "multi/deregistered", "features V1", "a server that deregistered a topic does not respond to calls on it", deregistered;
    "multi/metadata", "section 1", "metadata reaches every handler", metadata;
    "multi/no-claim", "section 7", "no server bids for a multi call", no_claim;
    "multi/second-answer", "I5", "a second response of a server is dropped", second_answer;
    "multi/malformed-answer", "section 10", "a response that does not decode is an error of its server", malformed_answer;
    "multi/malformed-request", "section 7", "every server responds with an error if the request does not decode", malformed_request;
    "multi/large-messages", "section 1", "responses of 256 KiB arrive", large;
    "multi/many-at-once", "section 7", "a hundred concurrent multi calls get their own responses", many_at_once;
    "multi/fifty-servers", "section 7", "fifty servers respond, each once", fifty_servers;
    "multi/client-closed", "I15", "closing the client ends the responses with an error", client_closed;
    "multi/on-a-call", "section 7", "a multi call of a unary method is rejected, and the other way round", on_a_call;
};

const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(20);

/// Creates servers labelled `s0`, `s1` and so on.
async fn servers(env: &Env, count: usize) -> Result<(Vec<Hatter>, Vec<ShopServer>), String> {
    let hatters: Vec<_> = (0..count).map(|place| env.hatter(&format!("s{place}"), 1.0)).collect();
    let mut servers = Vec::new();
    for hatter in &hatters {
        servers.push(env.server(hatter).await?);
    }
    Ok((hatters, servers))
}

/// Returns the sorted labels of all servers that respond. Checks that each response names the right
/// server.
async fn labels(mut responses: Responses<Reply>, servers: &[ShopServer]) -> Result<Vec<String>, String> {
    let mut labels = Vec::new();
    while let Some(response) = responses.next().await {
        let response = response.map_err(unexpected)?;
        let place = servers.iter().position(|server| server.server().id() == response.server_id());
        check_eq!(
            place.map(|place| format!("s{place}")),
            Some(response.server.clone()),
            "the server of the response"
        );
        labels.push(response.into_message().server);
    }
    labels.sort();
    Ok(labels)
}

async fn every_server(env: Env) -> Verdict {
    let (hatters, servers) = servers(&env, 3).await?;
    let client = env.client().await?;
    let responses = client.census(ask("who")).timeout(SHORT).await.map_err(unexpected)?;
    check_eq!(labels(responses, &servers).await?, ["s0", "s1", "s2"], "the responding server");
    for hatter in hatters {
        check_eq!(hatter.finished(), ["who"], "the requests that a server handled");
    }
    check_eq!(client.client().in_flight(), 0, "calls in flight");
    Ok(())
}

async fn timeout(env: Env) -> Verdict {
    let _server = env.server(&env.hatter("s0", 1.0)).await?;
    let client = env.client().await?;
    let start = env.now();
    let mut responses = client.census(ask("who")).timeout(SHORT).await.map_err(unexpected)?;
    responses.next().await.ok_or("no response")?.map_err(unexpected)?;
    check!(responses.next().await.is_none(), "there was another response");
    let elapsed = env.now().since(start);
    check!(elapsed >= SHORT && elapsed < LONG, "took {elapsed:?}");
    check!(responses.next().await.is_none(), "it yielded an item after its end");
    Ok(())
}

async fn expected_count(env: Env) -> Verdict {
    let (_hatters, _servers) = servers(&env, 3).await?;
    let client = env.client().await?;
    let start = env.now();
    let mut responses = client.census(ask("who")).timeout(LONG).responses(2).await.map_err(unexpected)?;
    for _ in 0..2 {
        responses.next().await.ok_or("too few responses")?.map_err(unexpected)?;
    }
    check!(responses.next().await.is_none(), "there are more responses than expected");
    let elapsed = env.now().since(start);
    check!(elapsed < LONG / 2, "took {elapsed:?}");
    check_eq!(client.client().in_flight(), 0, "calls in flight");
    Ok(())
}

async fn fewer(env: Env) -> Verdict {
    let (_hatters, servers) = servers(&env, 2).await?;
    let client = env.client().await?;
    let responses = client.census(ask("who")).timeout(SHORT).responses(3).await.map_err(unexpected)?;
    let (labels, elapsed) = env.time(labels(responses, &servers)).await;
    check_eq!(labels?, ["s0", "s1"], "the responding server");
    check!(elapsed < LONG, "took {elapsed:?}");
    Ok(())
}

async fn nobody(env: Env) -> Verdict {
    let _unresponsive = env.unresponsive("Census", &[]).await?;
    let client = env.client().await?;
    let start = env.now();
    let mut responses = client.census(ask("who")).timeout(SHORT).await.map_err(unexpected)?;
    let error = match responses.next().await {
        Some(response) => expect_error(response)?,
        None => return Err("it ended without an error".to_owned()),
    };
    check_eq!(error.code(), &ErrorCode::DeadlineExceeded, "the code");
    check_eq!(error.server_id(), None, "the server");
    check!(responses.next().await.is_none(), "there are items after the error");
    check!(env.now().since(start) >= SHORT, "ended after {:?}", env.now().since(start));
    Ok(())
}

async fn nobody_known(env: Env) -> Verdict {
    let client = env.client().await?;
    let mut responses = client.census(ask("who")).timeout(SHORT).await.map_err(unexpected)?;
    let error = expect_error(responses.next().await.ok_or("it ended without an error")?)?;
    if env.counts_subscribers().await? {
        check_eq!(error.text(), "no response from servers", "the error");
        check_eq!(error.reason(), Some(Reason::NobodySubscribed), "the reason");
    }
    check!(responses.next().await.is_none(), "there are items after the error");
    Ok(())
}

async fn dropped(env: Env) -> Verdict {
    let hatter = env.hatter("s0", 1.0);
    let _server = env.server(&hatter).await?;
    let client = env.client().await?;
    let responses = client.census(slow("who", 100)).timeout(LONG).await.map_err(unexpected)?;
    check_eq!(client.client().in_flight(), 1, "calls in flight");
    env.until("the handler runs", || hatter.started().len() == 1).await?;
    drop(responses);
    check_eq!(client.client().in_flight(), 0, "calls in flight after the responses are dropped");
    env.until("the late response is counted", || client.client().counters().get(Reason::Late) == 1).await
}

async fn errors(env: Env) -> Verdict {
    let (_hatters, servers) = servers(&env, 3).await?;
    let client = env.client().await?;
    let mut responses =
        client.census(failing("not_found", "no hat")).timeout(LONG).responses(3).await.map_err(unexpected)?;
    let mut named = Vec::new();
    while let Some(response) = responses.next().await {
        let error = expect_error(response)?;
        check_eq!(error.to_string(), "not_found: no hat", "the error");
        check_eq!(error.reason(), Some(Reason::Answered), "the reason");
        named.push(error.server_id().ok_or("the error names no server")?.to_owned());
    }
    named.sort();
    let mut ids: Vec<_> = servers.iter().map(|server| server.server().id().to_owned()).collect();
    ids.sort();
    check_eq!(named, ids, "the servers that the errors name");
    Ok(())
}

async fn panic(env: Env) -> Verdict {
    let (_hatters, servers) = servers(&env, 2).await?;
    let client = env.client().await?;
    let mut responses = client
        .census(Ask { panic: true, ..ask("boo") })
        .timeout(LONG)
        .responses(2)
        .await
        .map_err(unexpected)?;
    while let Some(response) = responses.next().await {
        check_eq!(expect_error(response)?.code(), &ErrorCode::Internal, "the code");
    }
    let responses = client.census(ask("who")).timeout(LONG).responses(2).await.map_err(unexpected)?;
    check_eq!(labels(responses, &servers).await?, ["s0", "s1"], "the responding server, then");
    Ok(())
}

async fn slow_server(env: Env) -> Verdict {
    let (_hatters, _servers) = servers(&env, 1).await?;
    let (foreign, mut requests) = foreign_responder(&env).await?;
    let client = env.client().await?;
    let mut responses = client.census(ask("who")).timeout(LONG).responses(2).await.map_err(unexpected)?;
    let (first, elapsed) = env.time(responses.next()).await;
    check_eq!(first.ok_or("no response")?.map_err(unexpected)?.server, "s0", "the responding server, first");
    check!(elapsed < LONG / 2, "took {elapsed:?}");
    let request = requests.request().await?;
    foreign.respond(&request, "SRV_slow", Ok(ask("late").encode_to_vec())).await?;
    let response = responses.next().await.ok_or("no response from the slow server")?.map_err(unexpected)?;
    check_eq!(response.server_id(), "SRV_slow", "the responding server, at last");
    Ok(())
}

async fn late_answer(env: Env) -> Verdict {
    let hatter = env.hatter("s0", 1.0);
    let _server = env.server(&hatter).await?;
    let (foreign, mut requests) = foreign_responder(&env).await?;
    let client = env.client().await?;
    let mut responses = client.census(ask("who")).timeout(SHORT).await.map_err(unexpected)?;
    let request = requests.request().await?;
    responses.next().await.ok_or("no response")?.map_err(unexpected)?;
    check!(responses.next().await.is_none(), "there was another response");
    foreign.respond(&request, "SRV_late", Ok(ask("late").encode_to_vec())).await?;
    env.until("the late response is counted", || client.client().counters().get(Reason::Late) == 1).await?;
    check!(responses.next().await.is_none(), "it yielded an item after its end");
    Ok(())
}

/// Returns a foreign peer that receives the requests of multi calls, for hand-made responses.
async fn foreign_responder(env: &Env) -> Result<(ForeignPeer, FrameReceiver), String> {
    let foreign = env.foreign().await?;
    let requests = foreign.listen_to_broadcast("Census").await?;
    Ok((foreign, requests))
}

async fn topics(env: Env) -> Verdict {
    let (hatters, servers) = servers(&env, 3).await?;
    for (place, ward) in [(0, "east"), (1, "west"), (2, "east")] {
        servers[place].register_ward_census_topic(ward).await.map_err(unexpected)?;
    }
    let client = env.client().await?;
    for (ward, labelled) in [("east", ["s0", "s2"].as_slice()), ("west", &["s1"])] {
        let responses = client.ward_census(ward, ask(ward)).timeout(SHORT).await.map_err(unexpected)?;
        check_eq!(labels(responses, &servers).await?, labelled, "the responding server, in the {ward}");
    }
    let mut nobody = client.ward_census("north", ask("north")).timeout(SHORT).await.map_err(unexpected)?;
    expect_error(nobody.next().await.ok_or("it ended without an error")?)?;
    check_eq!(hatters[0].started()[0].topic, ["east"], "the topic that the handler saw");
    Ok(())
}

async fn deregistered(env: Env) -> Verdict {
    let (_hatters, servers) = servers(&env, 2).await?;
    for server in &servers {
        server.register_ward_census_topic("east").await.map_err(unexpected)?;
    }
    servers[0].deregister_ward_census_topic("east").await.map_err(unexpected)?;
    let client = env.client().await?;
    let responses = client.ward_census("east", ask("who")).timeout(SHORT).await.map_err(unexpected)?;
    check_eq!(labels(responses, &servers).await?, ["s1"], "the responding server");
    Ok(())
}

async fn metadata(env: Env) -> Verdict {
    let (hatters, servers) = servers(&env, 2).await?;
    let client = env.client().await?;
    let call = client.census(ask("who")).metadata("shop", "corner").timeout(LONG).responses(2);
    labels(call.await.map_err(unexpected)?, &servers).await?;
    for hatter in hatters {
        let seen = &hatter.started()[0];
        check_eq!(
            seen.metadata,
            [("shop".to_owned(), "corner".to_owned())],
            "the metadata that the handler saw"
        );
        check_eq!(seen.client_id, client.client().id(), "the client id");
        check_eq!(seen.method, "Census", "the method");
    }
    Ok(())
}

async fn no_claim(env: Env) -> Verdict {
    let (_hatters, servers) = servers(&env, 2).await?;
    let (foreign, mut requests) = foreign_responder(&env).await?;
    let client = env.client().await?;
    let mut bids = foreign.listen_to_client(Channel::claim_request(SHOP, client.client().id())).await?;
    let responses = client.census(ask("who")).timeout(LONG).responses(2).await.map_err(unexpected)?;
    labels(responses, &servers).await?;
    let request = requests.request().await?;
    check!(request.multi, "the request is not marked as multi");
    check!(bids.waiting().is_empty(), "a server bid");
    Ok(())
}

async fn second_answer(env: Env) -> Verdict {
    let (foreign, mut requests) = foreign_responder(&env).await?;
    let client = env.client().await?;
    let mut responses = client.census(ask("who")).timeout(LONG).responses(2).await.map_err(unexpected)?;
    let request = requests.request().await?;
    for (server, text) in [("SRV_1", "first"), ("SRV_1", "second"), ("SRV_2", "third")] {
        let reply = Reply { text: text.into(), ..Reply::default() };
        foreign.respond(&request, server, Ok(reply.encode_to_vec())).await?;
    }
    let mut texts = Vec::new();
    while let Some(response) = responses.next().await {
        texts.push(response.map_err(unexpected)?.into_message().text);
    }
    check_eq!(texts, ["first", "third"], "the responses");
    check_eq!(client.client().counters().get(Reason::SecondResponse), 1, "the responses dropped");
    Ok(())
}

async fn malformed_answer(env: Env) -> Verdict {
    let (foreign, mut requests) = foreign_responder(&env).await?;
    let client = env.client().await?;
    let mut responses = client.census(ask("who")).timeout(LONG).responses(2).await.map_err(unexpected)?;
    let request = requests.request().await?;
    foreign.respond(&request, "SRV_1", Ok(b"\x0a\x02\xff\xfe".to_vec())).await?;
    foreign.respond(&request, "SRV_2", Ok(Vec::new())).await?;
    let error = expect_error(responses.next().await.ok_or("no response")?)?;
    check_eq!(error.code(), &ErrorCode::MalformedResult, "the code");
    check_eq!(error.server_id(), Some("SRV_1"), "the reason");
    responses.next().await.ok_or("no response from the other server")?.map_err(unexpected)?;
    Ok(())
}

async fn malformed_request(env: Env) -> Verdict {
    let (hatters, _servers) = servers(&env, 2).await?;
    let client = env.client().await?;
    let blob = Blob { blob: b"\xff\xfe hat".to_vec() };
    let call = client.client().multi_call::<_, Reply>(method("Census"), &[], blob);
    let mut responses = call.timeout(LONG).responses(2).await.map_err(unexpected)?;
    let mut count = 0;
    while let Some(response) = responses.next().await {
        check_eq!(expect_error(response)?.code(), &ErrorCode::MalformedRequest, "the code");
        count += 1;
    }
    check_eq!(count, 2, "the servers that responded");
    check!(hatters.iter().all(|hatter| hatter.started().is_empty()), "the handler ran");
    Ok(())
}

async fn large(env: Env) -> Verdict {
    let (_hatters, _servers) = servers(&env, 3).await?;
    let client = env.client().await?;
    let text = "hat ".repeat(64 * 1024);
    let mut responses = client.census(ask(&text)).timeout(LONG).responses(3).await.map_err(unexpected)?;
    let mut count = 0;
    while let Some(response) = responses.next().await {
        check!(response.map_err(unexpected)?.text == text, "the response has changed");
        count += 1;
    }
    check_eq!(count, 3, "the responses");
    Ok(())
}

async fn many_at_once(env: Env) -> Verdict {
    let (_hatters, _servers) = servers(&env, 3).await?;
    let client = env.client().await?;
    let calls: Vec<_> = (0..100)
        .map(|round| {
            let client = client.clone();
            env.spawn(async move {
                let text = format!("who {round}");
                let mut responses =
                    client.census(ask(&text)).timeout(LONG).responses(3).await.map_err(unexpected)?;
                let mut labels = Vec::new();
                while let Some(response) = responses.next().await {
                    let response = response.map_err(unexpected)?;
                    check_eq!(response.text, text, "the response");
                    labels.push(response.into_message().server);
                }
                labels.sort();
                check_eq!(labels, ["s0", "s1", "s2"], "the responding server");
                Ok(())
            })
        })
        .collect();
    for call in calls {
        call.await?;
    }
    check_eq!(client.client().in_flight(), 0, "calls in flight");
    Ok(())
}

async fn fifty_servers(env: Env) -> Verdict {
    let (hatters, servers) = servers(&env, 50).await?;
    let client = env.client().await?;
    let responses = client.census(ask("who")).timeout(LONG).responses(50).await.map_err(unexpected)?;
    let mut all: Vec<_> = (0..50).map(|place| format!("s{place}")).collect();
    all.sort();
    check_eq!(labels(responses, &servers).await?, all, "the responding server");
    check!(hatters.iter().all(|hatter| hatter.finished() == ["who"]), "a server handled the request twice");
    Ok(())
}

async fn client_closed(env: Env) -> Verdict {
    let hatter = env.hatter("s0", 1.0);
    let _server = env.server(&hatter).await?;
    let client = env.client().await?;
    let mut responses = client.census(slow("who", 500)).timeout(LONG).await.map_err(unexpected)?;
    env.until("the handler runs", || hatter.started().len() == 1).await?;
    client.client().close();
    let (response, elapsed) = env.time(responses.next()).await;
    let error = expect_error(response.ok_or("it ended without an error")?)?;
    check!(error.is_client_closed(), "an unexpected error: {error}");
    check!(elapsed < LONG / 2, "took {elapsed:?}");
    check!(responses.next().await.is_none(), "it yielded an item after its end");
    Ok(())
}

async fn on_a_call(env: Env) -> Verdict {
    let client = env.client().await?;
    let call = client.client().multi_call::<_, Reply>(method("Fit"), &[], ask("who"));
    let error = expect_error(call.await)?;
    check_eq!(error.code(), &ErrorCode::InvalidArgument, "the code");
    let call = client.client().call::<_, Reply>(method("Census"), &[], ask("who"));
    let error = expect_error(call.await)?;
    check_eq!(error.code(), &ErrorCode::InvalidArgument, "the code of a unary call of a multi method");
    Ok(())
}
