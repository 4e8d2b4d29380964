//! Deadlines, cancellation and clock skew.

use std::time::Duration;

use prost::Message;
use psrpc::bus::{Bus, Delivery};
use psrpc::middleware::Retry;
use psrpc::proto::{Channel, Frame, Request};
use psrpc::{ClientOptions, ErrorCode, Reason, Selection, ServerOptions, SubscriptionKind};

use super::case_list;
use crate::case::{Case, Verdict, check, check_eq};
use crate::env::{Env, code_and_text, expect_error, unexpected};
use crate::foreign::SHOP;
use crate::shop::{ask, slow};

pub(super) const CASES: &[Case] = case_list! {
    "unary/no-servers/queue", "section 6", "a call for which no server bids ends at the affinity timeout, with the reason", no_servers;
    "unary/no-servers/default", "section 6", "the affinity timeout is 1 s by default", no_servers_default;
    "unary/no-servers/short-timeout", "section 6", "a call for which no server bids ends by its deadline", no_servers_short;
    "unary/no-servers/single", "section 5", "an unclaimed call to which no server responds times out", no_servers_single;
    "unary/nobody", "features C10", "where the bus knows that nobody is subscribed, a call ends at once, with the reason", nobody;
    "unary/nobody/waits", "features C10", "a call that waits for a subscriber is answered by a server that comes", nobody_waits;
    "unary/nobody/retry", "features C10", "a call that is tried again survives a restart of its only server", nobody_retry;
    "unary/deadline/slow-handler", "I1", "a call whose handler is too slow ends at its deadline", slow_handler;
    "unary/deadline/no-late-response", "section 5", "a response past the expiry is not published", no_late_response;
    "unary/deadline/handler-dropped", "features V5", "a handler that is too slow is dropped at the deadline", handler_dropped;
    "unary/deadline/default", "section 5", "the timeout of a call is 3 s by default", default_timeout;
    "unary/deadline/of-client", "features C2", "the client's timeout is the default of its calls", client_timeout;
    "unary/deadline/clamped", "section 5", "the earlier of the caller's deadline and the timeout is sent as the expiry", clamped;
    "unary/deadline/zero", "I1", "a call with a timeout of zero fails at once and sends nothing", zero;
    "unary/deadline/expired-request", "I3", "a request past its expiry is dropped and counted", expired;
    "unary/deadline/granted-too-late", "I3", "a request that is granted past its expiry does not run", granted_too_late;
    "unary/deadline/skew-allowance", "section 13.7", "a request that expired within the skew allowance is accepted", allowance;
    "unary/cancel/while-running", "features C5", "dropping a call drops its handler within a process; on other buses the handler finishes", cancel_running;
    "unary/cancel/during-selection", "I4", "a claimed call that is dropped before its grant does not run", cancel_selection;
    "unary/cancel/leaves-nothing", "I9", "a thousand dropped calls leave no state behind", cancel_many;
    "unary/cancel/before-polled", "features C5", "a call that is never polled sends nothing", never_polled;
};

const SHORT: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_secs(20);

async fn no_servers(env: Env) -> Verdict {
    let _unresponsive = env.unresponsive("Fit", &[]).await?;
    let client = env.client_with(ClientOptions::new().selection_timeout(SHORT)).await?;
    let (error, elapsed) = env.time(client.fit(ask("top")).timeout(LONG).into_future()).await;
    let error = expect_error(error)?;
    check_eq!(code_and_text(&error), "unavailable: no response from servers", "the error");
    check_eq!(error.reason(), Some(Reason::NoResponse), "the reason");
    check!(elapsed >= SHORT && elapsed < LONG / 2, "took {elapsed:?}");
    if error.evidence().receivers.is_some() {
        let explanation = "the request reached 1 subscriber; no server bid";
        check_eq!(error.explanation().as_deref(), Some(explanation), "the explanation");
    }
    Ok(())
}

async fn nobody(env: Env) -> Verdict {
    let counts = env.counts_subscribers().await?;
    let timeout = if counts { LONG } else { SHORT };
    let client = env.client_with(ClientOptions::new().selection_timeout(timeout)).await?;
    for call in [client.fit(ask("top")), client.pick(ask("top")), client.owner_fit("nobody", ask("top"))] {
        let (error, elapsed) = env.time(call.timeout(timeout).into_future()).await;
        let error = expect_error(error)?;
        if !counts {
            check!(elapsed >= SHORT, "took {elapsed:?}");
            continue;
        }
        check!(elapsed < LONG / 2, "took {elapsed:?}");
        check_eq!(code_and_text(&error), "unavailable: no response from servers", "the error");
        check_eq!(error.reason(), Some(Reason::NobodySubscribed), "the reason");
        check_eq!(error.explanation().as_deref(), Some("nobody was subscribed"), "the explanation");
        check!(!error.may_have_run(), "may_have_run is set");
    }
    Ok(())
}

async fn nobody_waits(env: Env) -> Verdict {
    if !env.counts_subscribers().await? {
        return Ok(());
    }
    let client = env.client_with(ClientOptions::new().selection_timeout(LONG)).await?;
    let caller = client.clone();
    let call = env.spawn(async move { caller.fit(ask("top")).timeout(LONG).wait_for_subscriber().await });
    env.until("the call is in flight", || client.client().in_flight() == 1).await?;
    let hatter = env.hatter("s1", 1.0);
    let _server = env.server(&hatter).await?;
    check_eq!(call.await.map_err(unexpected)?.server, "s1", "the responding server");
    check_eq!(hatter.started().len(), 1, "the handlers started");
    Ok(())
}

async fn nobody_retry(env: Env) -> Verdict {
    let hatter = env.hatter("s1", 1.0);
    let server = env.server(&hatter).await?;
    let client = env.client_with(ClientOptions::new().interceptor(Retry::new())).await?;
    client.fit(ask("before")).await.map_err(unexpected)?;
    server.shutdown().await;
    let caller = client.clone();
    let call = env.spawn(async move { caller.fit(ask("during")).await });
    env.until("the call is in flight", || client.client().in_flight() == 1).await?;
    // A restart takes a second, and three attempts last three selection timeouts of 1 s.
    env.sleep(Duration::from_secs(1)).await;
    let _server = env.server(&hatter).await?;
    check_eq!(call.await.map_err(unexpected)?.text, "during", "the response");
    Ok(())
}

async fn no_servers_default(env: Env) -> Verdict {
    let _unresponsive = env.unresponsive("Pick", &[]).await?;
    let client = env.client().await?;
    let (error, elapsed) = env.time(client.pick(ask("top")).timeout(LONG).into_future()).await;
    expect_error(error)?;
    check!(elapsed >= Duration::from_secs(1) && elapsed < LONG / 2, "took {elapsed:?}");
    Ok(())
}

async fn no_servers_short(env: Env) -> Verdict {
    let _unresponsive = env.unresponsive("Fit", &[]).await?;
    let client = env.client_with(ClientOptions::new().selection_timeout(LONG)).await?;
    let (error, elapsed) = env.time(client.fit(ask("top")).timeout(SHORT).into_future()).await;
    check_eq!(code_and_text(&expect_error(error)?), "unavailable: no response from servers", "the error");
    check!(elapsed >= SHORT && elapsed < LONG / 2, "took {elapsed:?}");
    Ok(())
}

async fn no_servers_single(env: Env) -> Verdict {
    let _unresponsive = env.unresponsive("OwnerFit", &["nobody"]).await?;
    let client = env.client().await?;
    let error = expect_error(client.owner_fit("nobody", ask("top")).timeout(SHORT).await)?;
    check_eq!(code_and_text(&error), "deadline_exceeded: request timed out", "the error");
    check_eq!(error.reason(), Some(Reason::TimedOut), "the reason");
    Ok(())
}

async fn slow_handler(env: Env) -> Verdict {
    let server = env.server(&env.hatter("s1", 1.0)).await?;
    let client = env.client().await?;
    let (error, elapsed) = env.time(client.fit(slow("top", 20_000)).timeout(SHORT * 3).into_future()).await;
    let error = expect_error(error)?;
    check_eq!(code_and_text(&error), "deadline_exceeded: request timed out", "the error");
    let selected = error.evidence().selected.as_ref().map(|server| server.as_str().to_owned());
    check_eq!(selected.as_deref(), Some(server.server().id()), "the selected server");
    check!(elapsed >= SHORT * 3 && elapsed < LONG / 2, "took {elapsed:?}");
    Ok(())
}

async fn no_late_response(env: Env) -> Verdict {
    let server = env.server(&env.hatter("s1", 1.0)).await?;
    let client = env.client().await?;
    let foreign = env.foreign().await?;
    let mut responses = foreign.listen_to_client(Channel::response(SHOP, client.client().id())).await?;
    expect_error(client.fit(slow("top", 300)).timeout(SHORT).await)?;
    env.until("the handler is stopped", || server.server().counters().get(Reason::Overran) == 1).await?;
    env.sleep(SHORT * 4).await;
    check!(responses.waiting().is_empty(), "a response was published");
    Ok(())
}

async fn handler_dropped(env: Env) -> Verdict {
    let hatter = env.hatter("s1", 1.0);
    let server = env.server(&hatter).await?;
    let client = env.client().await?;
    expect_error(client.fit(slow("top", 20_000)).timeout(SHORT).await)?;
    env.until("the handler is dropped", || hatter.dropped() == ["top"]).await?;
    check_eq!(server.server().in_flight(), 0, "requests in flight");
    Ok(())
}

async fn default_timeout(env: Env) -> Verdict {
    let foreign = env.foreign().await?;
    let mut requests = foreign.listen_to_requests("Fit").await?;
    let client = env.client().await?;
    let call = env.spawn(async move { client.fit(ask("top")).await });
    let request = requests.request().await?;
    check_eq!(request.expiry - request.sent_at, 3_000_000_000, "nanoseconds until the expiry");
    drop(call);
    Ok(())
}

async fn client_timeout(env: Env) -> Verdict {
    let _unresponsive = env.unresponsive("OwnerFit", &["nobody"]).await?;
    let client = env.client_with(ClientOptions::new().timeout(SHORT)).await?;
    let (error, elapsed) = env.time(client.owner_fit("nobody", ask("top")).into_future()).await;
    check_eq!(expect_error(error)?.code(), &ErrorCode::DeadlineExceeded, "the code");
    // The default is 3 s.
    check!(elapsed >= SHORT && elapsed < Duration::from_secs(2), "took {elapsed:?}");
    Ok(())
}

async fn clamped(env: Env) -> Verdict {
    let foreign = env.foreign().await?;
    let channel = Channel::request(SHOP, "OwnerFit", &["me"], true);
    let mut requests = foreign.listen(&channel, SubscriptionKind::Queue).await?;
    let client = env.client().await?;
    let deadline = env.now() + SHORT;
    let call = client.owner_fit("me", ask("top")).timeout(LONG).deadline(deadline);
    check_eq!(expect_error(call.await)?.code(), &ErrorCode::DeadlineExceeded, "the code");
    check!(env.now() >= deadline, "it ended before the deadline");
    let request = requests.request().await?;
    let lifetime = Duration::from_nanos((request.expiry - request.sent_at) as u64);
    check!(lifetime <= SHORT, "{lifetime:?} until the expiry");
    Ok(())
}

async fn zero(env: Env) -> Verdict {
    let foreign = env.foreign().await?;
    let mut requests = foreign.listen_to_requests("Fit").await?;
    let client = env.client().await?;
    let error = expect_error(client.fit(ask("top")).timeout(Duration::ZERO).await)?;
    check_eq!(error.code(), &ErrorCode::DeadlineExceeded, "the code");
    env.sleep(SHORT).await;
    check!(requests.waiting().is_empty(), "a request was sent");
    Ok(())
}

/// Returns a request whose expiry is `late` before the current time.
fn behind(env: &Env, late: Duration) -> Request {
    let now = env.runtime().now().wall.as_unix_nanos();
    let expiry = now - late.as_nanos() as i64;
    Request {
        request_id: "REQ_late".into(),
        client_id: "CLI_foreign".into(),
        sent_at: expiry - 1_000_000_000,
        expiry,
        payload: ask("late").encode_to_vec().into(),
        ..Request::default()
    }
}

fn fit() -> Channel {
    Channel::request::<&str>(SHOP, "Fit", &[], true)
}

async fn expired(env: Env) -> Verdict {
    let hatter = env.hatter("s1", 1.0);
    let server = env.server(&hatter).await?;
    let foreign = env.foreign().await?;
    let mut claims = foreign.listen_to_client(Channel::claim_request(SHOP, "CLI_foreign")).await?;
    foreign.send(&fit(), Frame::Request(behind(&env, Duration::from_secs(5)))).await?;
    env.until("the request is counted", || server.server().counters().get(Reason::Expired) == 1).await?;
    check!(claims.waiting().is_empty() && hatter.started().is_empty(), "the request was accepted");
    Ok(())
}

async fn granted_too_late(env: Env) -> Verdict {
    let hatter = env.hatter("s1", 1.0);
    let _server = env.server(&hatter).await?;
    let foreign = env.foreign().await?;
    let mut claims = foreign.listen_to_client(Channel::claim_request(SHOP, "CLI_foreign")).await?;
    let now = env.runtime().now().wall;
    let request = Request {
        sent_at: now.as_unix_nanos(),
        expiry: (now + SHORT).as_unix_nanos(),
        ..behind(&env, Duration::ZERO)
    };
    foreign.send(&fit(), Frame::Request(request.clone())).await?;
    let own = claims.claim().await?.server_id;
    env.sleep(SHORT).await;
    foreign.grant("Fit", &request.request_id, own.as_str()).await?;
    env.sleep(SHORT).await;
    check!(hatter.started().is_empty(), "the handler ran");
    Ok(())
}

async fn allowance(env: Env) -> Verdict {
    let options = ServerOptions::new().skew_allowance(LONG);
    let _server = env.server_with(&env.hatter("s1", 1.0), options).await?;
    let foreign = env.foreign().await?;
    let mut claims = foreign.listen_to_client(Channel::claim_request(SHOP, "CLI_foreign")).await?;
    foreign.send(&fit(), Frame::Request(behind(&env, LONG / 2))).await?;
    claims.claim().await?;
    Ok(())
}

async fn cancel_running(env: Env) -> Verdict {
    let hatter = env.hatter("s1", 1.0);
    let _server = env.server(&hatter).await?;
    let client = env.client().await?;
    let call = client.fit(slow("top", 300)).timeout(LONG).into_future();
    check!(env.within(SHORT, call).await.is_err(), "the call ended before it was dropped");
    check_eq!(client.client().counters().get(Reason::Canceled), 1, "calls canceled");
    match env.bus().await?.is_in_process() {
        true => env.until("the handler is dropped", || hatter.dropped() == ["top"]).await,
        false => env.until("the handler is done", || hatter.finished() == ["top"]).await,
    }
}

async fn cancel_selection(env: Env) -> Verdict {
    let hatter = env.hatter("s1", 0.5);
    let server = env.server(&hatter).await?;
    let client = env.client().await?;
    let foreign = env.foreign().await?;
    let mut grants = foreign.listen_to_grants("Pick").await?;
    let selection = Selection::none().affinity_timeout(SHORT * 3);
    let mut call = Box::pin(client.pick(ask("top")).timeout(LONG).selection(selection).into_future());
    check!(env.within(SHORT, &mut call).await.is_err(), "the call ended before it was dropped");
    check_eq!(server.server().in_flight(), 1, "requests with a bid");
    drop(call);
    env.sleep(SHORT * 4).await;
    // In process, a grant without a server id cancels the bids.
    let to_server = |delivery: &Delivery| matches!(delivery, Delivery::Frame(Frame::ClaimResponse(grant)) if !grant.server_id.is_empty());
    check!(!grants.waiting().iter().any(to_server) && hatter.started().is_empty(), "the call was granted");
    Ok(())
}

async fn cancel_many(env: Env) -> Verdict {
    let _unresponsive = env.unresponsive("OwnerFit", &["nobody"]).await?;
    let client = env.client().await?;
    let mut calls: Vec<_> = (0..1000)
        .map(|_| Box::pin(client.owner_fit("nobody", ask("top")).timeout(LONG).into_future()))
        .collect();
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    for call in &mut calls {
        check!(call.as_mut().poll(&mut cx).is_pending(), "a call without a server completed");
    }
    check_eq!(client.client().in_flight(), 1000, "calls in flight");
    drop(calls);
    check_eq!(client.client().in_flight(), 0, "calls in flight after the drop");
    Ok(())
}

async fn never_polled(env: Env) -> Verdict {
    let foreign = env.foreign().await?;
    let mut requests = foreign.listen_to_requests("Fit").await?;
    let client = env.client().await?;
    drop(client.fit(ask("top")).into_future());
    env.sleep(SHORT).await;
    check!(requests.waiting().is_empty(), "a request was sent");
    check_eq!(client.client().in_flight(), 0, "calls in flight");
    Ok(())
}
