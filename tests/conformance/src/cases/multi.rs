//! Multi calls: every server answers, and the caller decides how long it waits for whom.

use std::time::Duration;

use prost::Message;
use psrpc::proto::Channel;
use psrpc::{ErrorCode, Reason, Responses};

use super::case_list;
use crate::case::{Case, Verdict, check, check_eq};
use crate::env::{Env, expected, unexpected};
use crate::foreign::{Ear, Foreign, SHOP};
use crate::proto::{Ask, Blob, Reply, ShopServer};
use crate::shop::{Hatter, ask, failing, method, slow};

pub(super) const CASES: &[Case] = case_list! {
    "multi/every-server", "I5", "every server answers once, and each answer names its server", every_server;
    "multi/timeout", "section 7", "the answers end at the timeout, when nobody says how many there will be", timeout;
    "multi/expected-count", "section 7", "the answers end as soon as as many have come as were expected", expected_count;
    "multi/fewer-than-expected", "section 7", "when fewer answer than were expected, the answers end at the timeout", fewer;
    "multi/nobody", "section 7", "when nobody answers, the answers end at the timeout, with an error that says so", nobody;
    "multi/dropped", "section 7", "dropping the answers ends the call, and what servers still answer is dropped", dropped;
    "multi/errors", "section 10", "an error is an answer of its server, and no matter to the others", errors;
    "multi/panic", "features V7", "a server whose handler panics answers that, and the others answer all the same", panic;
    "multi/slow-server", "section 7", "a slow server holds up nobody's answer but its own", slow_server;
    "multi/late-answer", "I1", "a server that answers after the timeout is not heard", late_answer;
    "multi/topics", "section 2", "a call on a topic is answered by the servers of that topic alone", topics;
    "multi/deregistered", "features V1", "a server that deregistered a topic answers for it no more", deregistered;
    "multi/metadata", "section 1", "metadata reaches every handler", metadata;
    "multi/no-claim", "section 7", "nobody bids for a multi call", no_claim;
    "multi/second-answer", "I5", "a second answer of a server is dropped", second_answer;
    "multi/malformed-answer", "section 10", "an answer that does not decode is an error of its server", malformed_answer;
    "multi/malformed-request", "section 7", "every server says so when the request does not decode", malformed_request;
    "multi/large-messages", "section 1", "answers of 256 KiB each arrive", large;
    "multi/many-at-once", "section 7", "a hundred multi calls at once get their own answers", many_at_once;
    "multi/fifty-servers", "section 7", "fifty servers answer, each once", fifty_servers;
    "multi/client-closed", "I15", "closing the client ends the answers with an error", client_closed;
    "multi/on-a-call", "section 7", "a method that one server answers is not to be called as a multi call", on_a_call;
};

const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(20);

/// Servers labelled `s0`, `s1` and so on.
async fn servers(env: &Env, count: usize) -> Result<(Vec<Hatter>, Vec<ShopServer>), String> {
    let hatters: Vec<_> = (0..count).map(|place| env.hatter(&format!("s{place}"), 1.0)).collect();
    let mut servers = Vec::new();
    for hatter in &hatters {
        servers.push(env.server(hatter).await?);
    }
    Ok((hatters, servers))
}

/// The labels of all that answer, in order; that the answers name the right servers is checked.
async fn labels(mut answers: Responses<Reply>, servers: &[ShopServer]) -> Result<Vec<String>, String> {
    let mut labels = Vec::new();
    while let Some(answer) = answers.next().await {
        let answer = answer.map_err(unexpected)?;
        let place = servers.iter().position(|server| server.server().id() == answer.server_id());
        check_eq!(place.map(|place| format!("s{place}")), Some(answer.server.clone()), "whose answer it is");
        labels.push(answer.into_message().server);
    }
    labels.sort();
    Ok(labels)
}

async fn every_server(env: Env) -> Verdict {
    let (hatters, servers) = servers(&env, 3).await?;
    let client = env.client().await?;
    let answers = client.census(ask("who")).timeout(SHORT).await.map_err(unexpected)?;
    check_eq!(labels(answers, &servers).await?, ["s0", "s1", "s2"], "who answers");
    for hatter in hatters {
        check_eq!(hatter.finished(), ["who"], "what a server handled");
    }
    check_eq!(client.client().in_flight(), 0, "calls in flight");
    Ok(())
}

async fn timeout(env: Env) -> Verdict {
    let _server = env.server(&env.hatter("s0", 1.0)).await?;
    let client = env.client().await?;
    let start = env.now();
    let mut answers = client.census(ask("who")).timeout(SHORT).await.map_err(unexpected)?;
    answers.next().await.ok_or("nobody answers")?.map_err(unexpected)?;
    check!(answers.next().await.is_none(), "somebody else answers");
    let took = env.now().since(start);
    check!(took >= SHORT && took < LONG, "it took {took:?}");
    check!(answers.next().await.is_none(), "it goes on after its end");
    Ok(())
}

async fn expected_count(env: Env) -> Verdict {
    let (_hatters, _servers) = servers(&env, 3).await?;
    let client = env.client().await?;
    let start = env.now();
    let mut answers = client.census(ask("who")).timeout(LONG).answers(2).await.map_err(unexpected)?;
    for _ in 0..2 {
        answers.next().await.ok_or("too few answers")?.map_err(unexpected)?;
    }
    check!(answers.next().await.is_none(), "there are more than were expected");
    let took = env.now().since(start);
    check!(took < LONG / 2, "it took {took:?}");
    check_eq!(client.client().in_flight(), 0, "calls in flight");
    Ok(())
}

async fn fewer(env: Env) -> Verdict {
    let (_hatters, servers) = servers(&env, 2).await?;
    let client = env.client().await?;
    let answers = client.census(ask("who")).timeout(SHORT).answers(3).await.map_err(unexpected)?;
    let (labels, took) = env.time(labels(answers, &servers)).await;
    check_eq!(labels?, ["s0", "s1"], "who answers");
    check!(took < LONG, "it took {took:?}");
    Ok(())
}

async fn nobody(env: Env) -> Verdict {
    let client = env.client().await?;
    let start = env.now();
    let mut answers = client.census(ask("who")).timeout(SHORT).await.map_err(unexpected)?;
    let error = match answers.next().await {
        Some(answer) => expected(answer)?,
        None => return Err("it ended without a word".to_owned()),
    };
    check_eq!(error.code(), &ErrorCode::DeadlineExceeded, "the code");
    check_eq!(error.server_id(), None, "the server");
    check!(answers.next().await.is_none(), "more comes after the error");
    check!(env.now().since(start) >= SHORT, "it was over after {:?}", env.now().since(start));
    Ok(())
}

async fn dropped(env: Env) -> Verdict {
    let hatter = env.hatter("s0", 1.0);
    let _server = env.server(&hatter).await?;
    let client = env.client().await?;
    let answers = client.census(slow("who", 100)).timeout(LONG).await.map_err(unexpected)?;
    check_eq!(client.client().in_flight(), 1, "calls in flight");
    env.until("the handler runs", || hatter.started().len() == 1).await?;
    drop(answers);
    check_eq!(client.client().in_flight(), 0, "calls in flight once the answers are dropped");
    env.until("the answer is dropped", || client.client().counters().get(Reason::Late) == 1).await
}

async fn errors(env: Env) -> Verdict {
    let (_hatters, servers) = servers(&env, 3).await?;
    let client = env.client().await?;
    let mut answers =
        client.census(failing("not_found", "no hat")).timeout(LONG).answers(3).await.map_err(unexpected)?;
    let mut named = Vec::new();
    while let Some(answer) = answers.next().await {
        let error = expected(answer)?;
        check_eq!(error.to_string(), "not_found: no hat", "the error");
        check_eq!(error.reason(), Some(Reason::Answered), "whose it is");
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
    let mut answers = client
        .census(Ask { panic: true, ..ask("boo") })
        .timeout(LONG)
        .answers(2)
        .await
        .map_err(unexpected)?;
    while let Some(answer) = answers.next().await {
        check_eq!(expected(answer)?.code(), &ErrorCode::Internal, "the code");
    }
    let answers = client.census(ask("who")).timeout(LONG).answers(2).await.map_err(unexpected)?;
    check_eq!(labels(answers, &servers).await?, ["s0", "s1"], "who answers then");
    Ok(())
}

async fn slow_server(env: Env) -> Verdict {
    let (_hatters, _servers) = servers(&env, 1).await?;
    let (foreign, mut requests) = silent(&env).await?;
    let client = env.client().await?;
    let mut answers = client.census(ask("who")).timeout(LONG).answers(2).await.map_err(unexpected)?;
    let (first, took) = env.time(answers.next()).await;
    check_eq!(first.ok_or("nobody answers")?.map_err(unexpected)?.server, "s0", "who answers first");
    check!(took < LONG / 2, "it took {took:?}");
    let request = requests.request().await?;
    foreign.respond(&request, "SRV_slow", Ok(ask("late").encode_to_vec())).await?;
    let answer = answers.next().await.ok_or("the slow one is not heard")?.map_err(unexpected)?;
    check_eq!(answer.server_id(), "SRV_slow", "who answers at last");
    Ok(())
}

async fn late_answer(env: Env) -> Verdict {
    let hatter = env.hatter("s0", 1.0);
    let _server = env.server(&hatter).await?;
    let (foreign, mut requests) = silent(&env).await?;
    let client = env.client().await?;
    let mut answers = client.census(ask("who")).timeout(SHORT).await.map_err(unexpected)?;
    let request = requests.request().await?;
    answers.next().await.ok_or("nobody answers")?.map_err(unexpected)?;
    check!(answers.next().await.is_none(), "somebody else answers");
    foreign.respond(&request, "SRV_late", Ok(ask("late").encode_to_vec())).await?;
    env.until("it is counted", || client.client().counters().get(Reason::Late) == 1).await?;
    check!(answers.next().await.is_none(), "it goes on after its end");
    Ok(())
}

/// A peer that hears what is asked of every server, and answers by hand.
async fn silent(env: &Env) -> Result<(Foreign, Ear), String> {
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
        let answers = client.ward_census(ward, ask(ward)).timeout(SHORT).await.map_err(unexpected)?;
        check_eq!(labels(answers, &servers).await?, labelled, "who answers in the {ward}");
    }
    let mut nobody = client.ward_census("north", ask("north")).timeout(SHORT).await.map_err(unexpected)?;
    expected(nobody.next().await.ok_or("it ended without a word")?)?;
    check_eq!(hatters[0].started()[0].topic, ["east"], "the topic that a handler saw");
    Ok(())
}

async fn deregistered(env: Env) -> Verdict {
    let (_hatters, servers) = servers(&env, 2).await?;
    for server in &servers {
        server.register_ward_census_topic("east").await.map_err(unexpected)?;
    }
    servers[0].deregister_ward_census_topic("east").await.map_err(unexpected)?;
    let client = env.client().await?;
    let answers = client.ward_census("east", ask("who")).timeout(SHORT).await.map_err(unexpected)?;
    check_eq!(labels(answers, &servers).await?, ["s1"], "who answers");
    Ok(())
}

async fn metadata(env: Env) -> Verdict {
    let (hatters, servers) = servers(&env, 2).await?;
    let client = env.client().await?;
    let call = client.census(ask("who")).metadata("shop", "corner").timeout(LONG).answers(2);
    labels(call.await.map_err(unexpected)?, &servers).await?;
    for hatter in hatters {
        let seen = &hatter.started()[0];
        check_eq!(seen.metadata, [("shop".to_owned(), "corner".to_owned())], "what a handler saw");
        check_eq!(seen.client_id, client.client().id(), "who calls");
        check_eq!(seen.method, "Census", "the method");
    }
    Ok(())
}

async fn no_claim(env: Env) -> Verdict {
    let (_hatters, servers) = servers(&env, 2).await?;
    let (foreign, mut requests) = silent(&env).await?;
    let client = env.client().await?;
    let mut bids = foreign.listen_to_client(Channel::claim_request(SHOP, client.client().id())).await?;
    let answers = client.census(ask("who")).timeout(LONG).answers(2).await.map_err(unexpected)?;
    labels(answers, &servers).await?;
    let request = requests.request().await?;
    check!(request.multi, "the request does not say that it is for all");
    check!(bids.waiting().is_empty(), "somebody bid");
    Ok(())
}

async fn second_answer(env: Env) -> Verdict {
    let (foreign, mut requests) = silent(&env).await?;
    let client = env.client().await?;
    let mut answers = client.census(ask("who")).timeout(LONG).answers(2).await.map_err(unexpected)?;
    let request = requests.request().await?;
    for (server, text) in [("SRV_1", "first"), ("SRV_1", "second"), ("SRV_2", "third")] {
        let reply = Reply { text: text.into(), ..Reply::default() };
        foreign.respond(&request, server, Ok(reply.encode_to_vec())).await?;
    }
    let mut texts = Vec::new();
    while let Some(answer) = answers.next().await {
        texts.push(answer.map_err(unexpected)?.into_message().text);
    }
    check_eq!(texts, ["first", "third"], "the answers");
    check_eq!(client.client().counters().get(Reason::SecondResponse), 1, "the answers dropped");
    Ok(())
}

async fn malformed_answer(env: Env) -> Verdict {
    let (foreign, mut requests) = silent(&env).await?;
    let client = env.client().await?;
    let mut answers = client.census(ask("who")).timeout(LONG).answers(2).await.map_err(unexpected)?;
    let request = requests.request().await?;
    foreign.respond(&request, "SRV_1", Ok(b"\x0a\x02\xff\xfe".to_vec())).await?;
    foreign.respond(&request, "SRV_2", Ok(Vec::new())).await?;
    let error = expected(answers.next().await.ok_or("nobody answers")?)?;
    check_eq!(error.code(), &ErrorCode::MalformedResult, "the code");
    check_eq!(error.server_id(), Some("SRV_1"), "whose it is");
    answers.next().await.ok_or("the other is not heard")?.map_err(unexpected)?;
    Ok(())
}

async fn malformed_request(env: Env) -> Verdict {
    let (hatters, _servers) = servers(&env, 2).await?;
    let client = env.client().await?;
    let blob = Blob { blob: b"\xff\xfe hat".to_vec() };
    let call = client.client().multi_call::<_, Reply>(method("Census"), &[], blob);
    let mut answers = call.timeout(LONG).answers(2).await.map_err(unexpected)?;
    let mut count = 0;
    while let Some(answer) = answers.next().await {
        check_eq!(expected(answer)?.code(), &ErrorCode::MalformedRequest, "the code");
        count += 1;
    }
    check_eq!(count, 2, "the servers that say so");
    check!(hatters.iter().all(|hatter| hatter.started().is_empty()), "it ran");
    Ok(())
}

async fn large(env: Env) -> Verdict {
    let (_hatters, _servers) = servers(&env, 3).await?;
    let client = env.client().await?;
    let text = "hat ".repeat(64 * 1024);
    let mut answers = client.census(ask(&text)).timeout(LONG).answers(3).await.map_err(unexpected)?;
    let mut count = 0;
    while let Some(answer) = answers.next().await {
        check!(answer.map_err(unexpected)?.text == text, "the answer has changed");
        count += 1;
    }
    check_eq!(count, 3, "the answers");
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
                let mut answers =
                    client.census(ask(&text)).timeout(LONG).answers(3).await.map_err(unexpected)?;
                let mut labels = Vec::new();
                while let Some(answer) = answers.next().await {
                    let answer = answer.map_err(unexpected)?;
                    check_eq!(answer.text, text, "the answer");
                    labels.push(answer.into_message().server);
                }
                labels.sort();
                check_eq!(labels, ["s0", "s1", "s2"], "who answers");
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
    let answers = client.census(ask("who")).timeout(LONG).answers(50).await.map_err(unexpected)?;
    let mut all: Vec<_> = (0..50).map(|place| format!("s{place}")).collect();
    all.sort();
    check_eq!(labels(answers, &servers).await?, all, "who answers");
    check!(hatters.iter().all(|hatter| hatter.finished() == ["who"]), "somebody was asked twice");
    Ok(())
}

async fn client_closed(env: Env) -> Verdict {
    let hatter = env.hatter("s0", 1.0);
    let _server = env.server(&hatter).await?;
    let client = env.client().await?;
    let mut answers = client.census(slow("who", 500)).timeout(LONG).await.map_err(unexpected)?;
    env.until("the handler runs", || hatter.started().len() == 1).await?;
    client.client().close();
    let (answer, took) = env.time(answers.next()).await;
    let error = expected(answer.ok_or("it ends without a word")?)?;
    check!(error.is_client_closed(), "an unexpected error: {error}");
    check!(took < LONG / 2, "it took {took:?}");
    check!(answers.next().await.is_none(), "it goes on after its end");
    Ok(())
}

async fn on_a_call(env: Env) -> Verdict {
    let client = env.client().await?;
    let call = client.client().multi_call::<_, Reply>(method("Fit"), &[], ask("who"));
    let error = expected(call.await)?;
    check_eq!(error.code(), &ErrorCode::InvalidArgument, "the code");
    let call = client.client().call::<_, Reply>(method("Census"), &[], ask("who"));
    let error = expected(call.await)?;
    check_eq!(error.code(), &ErrorCode::InvalidArgument, "the code of the opposite");
    Ok(())
}
