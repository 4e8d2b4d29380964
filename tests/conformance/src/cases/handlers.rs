//! Handlers that panic, are slow, or make calls.

use std::future::IntoFuture;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use psrpc::{
    Client, ClientOptions, Error, ErrorCode, Handlers, Method, MethodProperties, Reason, Request, Routing,
    Server, ServerOptions, Service,
};

use super::case_list;
use crate::case::{Case, Verdict, check, check_eq};
use crate::env::{Env, expect_error, unexpected};
use crate::proto::{Ask, Reply};
use crate::shop::{ask, slow};

pub(super) const CASES: &[Case] = case_list! {
    "handler/panic", "features V7", "a panic fails its own call with internal, without the panic's message", panic;
    "handler/panic/others-go-on", "features V7", "a panic does not affect other calls", panic_others;
    "handler/affinity-panic", "features V7", "an affinity function that panics makes no bid, and the server keeps working", affinity_panic;
    "handler/slow/others-go-on", "I12", "a slow handler delays no other call", slow_others;
    "handler/calls-others", "features V5", "a handler calls another service, within its own deadline", calls_others;
    "handler/within/ends", "features C9", "a call within a handler ends with it, also in another task", within_ends;
    "handler/within/metadata", "features C9", "a call within a handler passes on the trace context and named metadata", within_metadata;
    "handler/calls-itself", "features V5", "a handler calls its own service", calls_itself;
};

fn panicking() -> Ask {
    Ask { panic: true, ..ask("top") }
}

async fn panic(env: Env) -> Verdict {
    let server = env.server(&env.hatter("s1", 1.0)).await?;
    let client = env.client().await?;
    let error = expect_error(client.fit(panicking()).await)?;
    check_eq!(error.to_string(), "internal: the handler panicked", "the error");
    check_eq!(error.reason(), Some(Reason::Answered), "the reason");
    env.until("nothing is in flight", || server.server().in_flight() == 0).await
}

async fn panic_others(env: Env) -> Verdict {
    let _server = env.server(&env.hatter("s1", 1.0)).await?;
    let client = env.client().await?;
    let caller = client.clone();
    let before = env.spawn(async move { caller.fit(slow("before", 200)).await });
    for _ in 0..10 {
        check_eq!(expect_error(client.fit(panicking()).await)?.code(), &ErrorCode::Internal, "the code");
        client.fit(ask("after")).await.map_err(unexpected)?;
    }
    check_eq!(before.await.map_err(unexpected)?.text, "before", "the call in flight");
    Ok(())
}

async fn affinity_panic(env: Env) -> Verdict {
    let _server = env.server(&env.hatter("s1", 0.5)).await?;
    let client = env.client_with(ClientOptions::new().selection_timeout(Duration::from_millis(100))).await?;
    let error = expect_error(client.pick(Ask { affinity_panic: true, ..ask("top") }).await)?;
    check_eq!(error.text(), "no response from servers", "the error");
    client.pick(ask("top")).await.map_err(unexpected)?;
    Ok(())
}

async fn slow_others(env: Env) -> Verdict {
    let _server = env.server(&env.hatter("s1", 1.0)).await?;
    let client = env.client().await?;
    let caller = client.clone();
    let long = Duration::from_secs(20);
    let slow = env.spawn(async move { caller.fit(slow("slow", 1000)).timeout(long).await });
    let (reply, elapsed) = env.time(client.fit(ask("quick")).into_future()).await;
    reply.map_err(unexpected)?;
    check!(elapsed < Duration::from_millis(900), "took {elapsed:?}");
    slow.await.map_err(unexpected)?;
    Ok(())
}

static RELAY: Service = Service {
    name: "Relay",
    methods: &[Method::call(0, "Pass", MethodProperties { routing: Routing::Queue, require_claim: true })],
};

async fn relay(env: &Env) -> Result<(Server, Client), String> {
    let shop = env.client_with(ClientOptions::new().propagate_metadata("tenant")).await?;
    let handlers =
        Handlers::new(&RELAY, shop).unary(&RELAY.methods[0], |shop, request: Request<Ask>| async move {
            shop.fit(request.clone()).timeout(Duration::from_secs(60)).within(&request).await
        });
    serve_relay(env, handlers).await
}

async fn serve_relay<S: Send + Sync + 'static>(
    env: &Env,
    handlers: Handlers<S>,
) -> Result<(Server, Client), String> {
    let server =
        Server::new(env.bus().await?, env.runtime(), handlers, ServerOptions::new()).map_err(unexpected)?;
    server.register(&[&RELAY.methods[0]], &[]).await.map_err(unexpected)?;
    let client = Client::new(env.bus().await?, env.runtime(), &RELAY, ClientOptions::new())
        .await
        .map_err(unexpected)?;
    Ok((server, client))
}

async fn calls_others(env: Env) -> Verdict {
    let hatter = env.hatter("s1", 1.0);
    let _shop = env.server(&hatter).await?;
    let (_server, client) = relay(&env).await?;
    let timeout = Duration::from_secs(20);
    let call = client.call::<_, Reply>(&RELAY.methods[0], &[], ask("top")).timeout(timeout);
    check_eq!(call.await.map_err(unexpected)?.server, "s1", "the responding server, in the end");
    check!(hatter.started()[0].remaining <= timeout, "the inner call outlives the outer one");
    let error =
        client.call::<_, Reply>(&RELAY.methods[0], &[], Ask { fail_code: "not_found".into(), ..ask("x") });
    check_eq!(expect_error(error.await)?.code(), &ErrorCode::NotFound, "the code of the inner call");
    Ok(())
}

async fn within_ends(env: Env) -> Verdict {
    let hatter = env.hatter("s1", 1.0);
    let _shop = env.server(&hatter).await?;
    let (shop, inner) = (env.client().await?, Arc::new(Mutex::new(None)));
    let (spawner, nested) = (env.clone(), Arc::clone(&inner));
    let handlers =
        Handlers::new(&RELAY, shop).unary(&RELAY.methods[0], move |shop, request: Request<Ask>| {
            let call = shop.within(&request).fit(slow("inner", 5000)).timeout(Duration::from_secs(20));
            *nested.lock().unwrap() = Some(spawner.spawn(call.into_future()));
            let slept =
                request.runtime().sleep_until(request.runtime().now().time + Duration::from_millis(100));
            async move {
                slept.await;
                Ok(Reply { text: request.text.clone(), server: String::new() })
            }
        });
    let (_server, client) = serve_relay(&env, handlers).await?;
    client.call::<_, Reply>(&RELAY.methods[0], &[], ask("top")).await.map_err(unexpected)?;
    let nested = inner.lock().unwrap().take().ok_or("the handler made no call")?;
    let (result, elapsed) = env.time(nested).await;
    check_eq!(expect_error(result)?.code(), &ErrorCode::Canceled, "the code");
    check!(elapsed < Duration::from_secs(4), "the inner call ended {elapsed:?} after the handler");
    Ok(())
}

async fn within_metadata(env: Env) -> Verdict {
    let hatter = env.hatter("s1", 1.0);
    let _shop = env.server(&hatter).await?;
    let (_server, client) = relay(&env).await?;
    let call = client.call::<_, Reply>(&RELAY.methods[0], &[], ask("top"));
    let call = call.metadata("traceparent", "00-1-2-01").metadata("tenant", "acme").metadata("secret", "x");
    call.await.map_err(unexpected)?;
    let mut metadata = hatter.started()[0].metadata.clone();
    metadata.sort_unstable();
    let entry = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    check_eq!(metadata, [entry("tenant", "acme"), entry("traceparent", "00-1-2-01")], "the metadata");
    Ok(())
}

async fn calls_itself(env: Env) -> Verdict {
    static COUNTDOWN: Service = Service {
        name: "Countdown",
        methods: &[Method::call(
            0,
            "Next",
            MethodProperties { routing: Routing::Queue, require_claim: true },
        )],
    };
    let client = Client::new(env.bus().await?, env.runtime(), &COUNTDOWN, ClientOptions::new()).await;
    let client = client.map_err(unexpected)?;
    let handlers = Handlers::new(&COUNTDOWN, client.clone());
    let handlers = handlers.unary(&COUNTDOWN.methods[0], |client, request: Request<Ask>| async move {
        let Some(shorter) = request.text.strip_prefix('x') else {
            return Ok::<_, Error>(Reply { text: "done".into(), server: String::new() });
        };
        client.call::<_, Reply>(&COUNTDOWN.methods[0], &[], ask(shorter)).within(&request).await
    });
    let server =
        Server::new(env.bus().await?, env.runtime(), handlers, ServerOptions::new()).map_err(unexpected)?;
    server.register(&[&COUNTDOWN.methods[0]], &[]).await.map_err(unexpected)?;
    let reply = client.call::<_, Reply>(&COUNTDOWN.methods[0], &[], ask("xxxxxxxxxx")).await;
    check_eq!(reply.map_err(unexpected)?.text, "done", "the response of ten nested calls");
    Ok(())
}
