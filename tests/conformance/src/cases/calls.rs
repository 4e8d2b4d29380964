//! Unary calls that end with a response: a message or an error.

use psrpc::proto::Any;
use psrpc::{Error, Handlers, Method, Server, Service};
use psrpc::{ErrorCode, MethodProperties, Reason, Request, Routing, ServerOptions, SubscriptionKind};

use super::case_list;
use crate::case::{Case, Verdict, check, check_eq};
use crate::env::{Env, expect_error, unexpected};
use crate::foreign::SHOP;
use crate::proto::{Ask, Reply};
use crate::shop::{Hatter, ask, failing};

pub(super) const CASES: &[Case] = case_list! {
    "unary/queue/answered", "section 5", "a queue call is answered", queue;
    "unary/queue/one-of-several", "I2", "of several servers one handles a queue call", one_of_several;
    "unary/affinity/answered", "section 5", "a call of an affinity method is answered", affinity;
    "unary/single/answered", "section 5", "a call of a single_server method is answered without a claim", single;
    "unary/single/on-the-wire", "section 5", "no server bids for a call of a single_server method", single_on_the_wire;
    "unary/many-in-a-row", "section 5", "a thousand calls in a row are answered, each with its own response", in_a_row;
    "unary/many-at-once", "section 5", "a hundred concurrent calls are answered, each with its own response", at_once;
    "unary/empty-messages", "section 5", "an empty request and an empty response are messages like any other", empty;
    "unary/large-messages", "section 1", "a message of 256 KiB is carried both ways", large;
    "unary/method-name", "section 2", "a method whose name differs on the wire can be called", method_name;
    "unary/metadata", "section 1", "metadata reaches the handler", metadata;
    "unary/handler-context", "features V5", "the handler sees the caller, the method, the topic and the deadline", context;
    "unary/error/code-and-text", "section 10", "the handler's code and text reach the caller", error;
    "unary/error/every-code", "section 10", "every error code reaches the caller", every_code;
    "unary/error/unknown-code", "section 10", "an error code that is not predefined reaches the caller", unknown_code;
    "unary/error/empty-text", "I6", "an error without a text is still an error", empty_text;
    "unary/error/percent-sign", "section 6", "an error's text is not a format string", percent;
    "unary/error/details", "features E1", "an error's details reach the caller", details;
    "unary/error/foreign-without-text", "I6", "a response with a code and no text is an error", foreign_without_text;
    "unary/error/foreign-without-code", "section 5", "an error without a code has the code unknown", foreign_without_code;
};

async fn queue(env: Env) -> Verdict {
    let _server = env.server(&env.hatter("s1", 1.0)).await?;
    let client = env.client().await?;
    let reply = client.fit(ask("top")).await.map_err(unexpected)?;
    check_eq!(reply, Reply { text: "top".into(), server: "s1".into() }, "the reply");
    Ok(())
}

async fn one_of_several(env: Env) -> Verdict {
    let hatters = ["s1", "s2", "s3"].map(|label| env.hatter(label, 1.0));
    let mut servers = Vec::new();
    for hatter in &hatters {
        servers.push(env.server(hatter).await?);
    }
    let client = env.client().await?;
    for round in 0..60 {
        client.fit(ask(&format!("hat {round}"))).await.map_err(unexpected)?;
    }
    let mut handled: Vec<_> = hatters.iter().flat_map(Hatter::started).map(|entry| entry.text).collect();
    handled.sort_unstable();
    let mut called: Vec<_> = (0..60).map(|round| format!("hat {round}")).collect();
    called.sort_unstable();
    check_eq!(handled, called, "the requests handled");
    Ok(())
}

async fn affinity(env: Env) -> Verdict {
    let _server = env.server(&env.hatter("s1", 0.5)).await?;
    let client = env.client().await?;
    let reply = client.pick(ask("top")).await.map_err(unexpected)?;
    check_eq!(reply.server, "s1", "the responding server");
    Ok(())
}

async fn single(env: Env) -> Verdict {
    let server = env.server(&env.hatter("s1", 1.0)).await?;
    server.register_owner_fit_topic("me").await.map_err(unexpected)?;
    let client = env.client().await?;
    let reply = client.owner_fit("me", ask("top")).await.map_err(unexpected)?;
    check_eq!(reply, Reply { text: "top".into(), server: "s1".into() }, "the reply");
    Ok(())
}

async fn single_on_the_wire(env: Env) -> Verdict {
    let server = env.server(&env.hatter("s1", 1.0)).await?;
    server.register_owner_fit_topic("me").await.map_err(unexpected)?;
    let client = env.client().await?;
    let claims = psrpc::proto::Channel::claim_request(SHOP, client.client().id());
    let mut receiver = env.foreign().await?.listen(&claims, SubscriptionKind::Plain).await?;
    client.owner_fit("me", ask("top")).await.map_err(unexpected)?;
    check!(receiver.waiting().is_empty(), "a server bid");
    Ok(())
}

async fn in_a_row(env: Env) -> Verdict {
    let _server = env.server(&env.hatter("s1", 1.0)).await?;
    let client = env.client().await?;
    for round in 0..1000 {
        let text = format!("hat {round}");
        check_eq!(client.fit(ask(&text)).await.map_err(unexpected)?.text, text, "the response");
    }
    Ok(())
}

async fn at_once(env: Env) -> Verdict {
    let _server = env.server(&env.hatter("s1", 1.0)).await?;
    let client = env.client().await?;
    let calls: Vec<_> = (0..100)
        .map(|round| {
            let client = client.clone();
            env.spawn(async move { (round, client.fit(ask(&format!("hat {round}"))).await) })
        })
        .collect();
    for call in calls {
        let (round, reply) = call.await;
        check_eq!(reply.map_err(unexpected)?.text, format!("hat {round}"), "the response");
    }
    check_eq!(client.client().in_flight(), 0, "calls in flight");
    Ok(())
}

async fn empty(env: Env) -> Verdict {
    let _server = env.server(&env.hatter("", 1.0)).await?;
    let client = env.client().await?;
    let reply = client.fit(Ask::default()).await.map_err(unexpected)?;
    check_eq!(reply, Reply::default(), "the reply");
    Ok(())
}

async fn large(env: Env) -> Verdict {
    let _server = env.server(&env.hatter("s1", 1.0)).await?;
    let client = env.client().await?;
    let text = "hat ".repeat(64 * 1024);
    check!(client.fit(ask(&text)).await.map_err(unexpected)?.text == text, "the response has changed");
    Ok(())
}

async fn method_name(env: Env) -> Verdict {
    let hatter = env.hatter("s1", 1.0);
    let _server = env.server(&hatter).await?;
    let client = env.client().await?;
    client.make_hat_v1(ask("top")).await.map_err(unexpected)?;
    check_eq!(hatter.started()[0].method, "MakeHatV1", "the method, by its name on the wire");
    Ok(())
}

async fn metadata(env: Env) -> Verdict {
    let hatter = env.hatter("s1", 1.0);
    let _server = env.server(&hatter).await?;
    let client = env.client().await?;
    let call = client.fit(ask("top")).metadata("shop", "first").metadata("clerk-é", "Ana | 7");
    call.metadata("shop", "corner").metadata("", "").await.map_err(unexpected)?;
    let mut seen = hatter.started()[0].metadata.clone();
    seen.sort();
    let expected = [("", ""), ("clerk-é", "Ana | 7"), ("shop", "corner")];
    check_eq!(
        seen,
        expected.map(|(name, value)| (name.to_owned(), value.to_owned())),
        "the metadata that the handler saw"
    );
    Ok(())
}

async fn context(env: Env) -> Verdict {
    let hatter = env.hatter("s1", 1.0);
    let server = env.server(&hatter).await?;
    server.register_rack_fit_topic("eu", "7").await.map_err(unexpected)?;
    let client = env.client().await?;
    let timeout = std::time::Duration::from_secs(20);
    client.rack_fit("eu", "7", ask("top")).timeout(timeout).await.map_err(unexpected)?;
    let seen = &hatter.started()[0];
    check_eq!(seen.client_id, client.client().id(), "the client id");
    check_eq!(seen.method, "RackFit", "the method");
    check_eq!(seen.topic, ["eu", "7"], "the topic");
    check!(seen.request_id.starts_with("REQ_"), "the request id is {:?}", seen.request_id);
    check!(
        seen.remaining <= timeout && seen.remaining > timeout / 2,
        "{:?} remain until the deadline",
        seen.remaining
    );
    Ok(())
}

async fn error(env: Env) -> Verdict {
    let server = env.server(&env.hatter("s1", 1.0)).await?;
    server.register_owner_fit_topic("me").await.map_err(unexpected)?;
    let client = env.client().await?;
    for result in [
        client.fit(failing("not_found", "no hat named \"fez\"")).await,
        client.pick(failing("not_found", "no hat named \"fez\"")).await,
        client.owner_fit("me", failing("not_found", "no hat named \"fez\"")).await,
    ] {
        let error = expect_error(result)?;
        check_eq!(error.to_string(), "not_found: no hat named \"fez\"", "the error");
        check_eq!(error.reason(), Some(Reason::Answered), "the reason");
    }
    Ok(())
}

async fn every_code(env: Env) -> Verdict {
    let _server = env.server(&env.hatter("s1", 1.0)).await?;
    let client = env.client().await?;
    for code in ErrorCode::ALL {
        let error = expect_error(client.fit(failing(code.as_str(), "text")).await)?;
        check_eq!(error.code(), code, "the code");
    }
    Ok(())
}

async fn unknown_code(env: Env) -> Verdict {
    let _server = env.server(&env.hatter("s1", 1.0)).await?;
    let client = env.client().await?;
    let error = expect_error(client.fit(failing("hat_on_fire", "run")).await)?;
    check_eq!((error.code().as_str(), error.text()), ("hat_on_fire", "run"), "the error");
    Ok(())
}

async fn empty_text(env: Env) -> Verdict {
    let _server = env.server(&env.hatter("s1", 1.0)).await?;
    let client = env.client().await?;
    let error = expect_error(client.fit(failing("not_found", "")).await)?;
    check_eq!(error.code(), &ErrorCode::NotFound, "the code");
    Ok(())
}

async fn percent(env: Env) -> Verdict {
    let _server = env.server(&env.hatter("s1", 1.0)).await?;
    let client = env.client().await?;
    let error = expect_error(client.fit(failing("internal", "100% wool %s {}")).await)?;
    check_eq!(error.text(), "100% wool %s {}", "the text");
    Ok(())
}

async fn details(env: Env) -> Verdict {
    static SHELF: Service = Service {
        name: "Shelf",
        methods: &[Method::call(0, "Fit", MethodProperties { routing: Routing::Queue, require_claim: true })],
    };
    let detail =
        |value: &'static [u8]| Any { type_url: "type.googleapis.com/x.Y".into(), value: value.into() };
    let handlers = Handlers::new(&SHELF, ()).unary(&SHELF.methods[0], move |_, _: Request<Ask>| async move {
        let error = Error::new(ErrorCode::FailedPrecondition, "it does not fit");
        Err::<Reply, _>(error.with_any_detail(detail(b"one")).with_any_detail(detail(b"two")))
    });
    let server =
        Server::new(env.bus().await?, env.runtime(), handlers, ServerOptions::new()).map_err(unexpected)?;
    server.register(&[&SHELF.methods[0]], &[]).await.map_err(unexpected)?;
    let client =
        psrpc::Client::new(env.bus().await?, env.runtime(), &SHELF, psrpc::ClientOptions::new()).await;
    let call = client.map_err(unexpected)?.call::<_, Reply>(&SHELF.methods[0], &[], ask("x"));
    let error = expect_error(call.await)?;
    check_eq!(error.details(), [detail(b"one"), detail(b"two")], "the details");
    Ok(())
}

/// Returns the error of a call to which a foreign server responds with this text and code.
async fn error_from_foreign(env: &Env, text: &str, code: &str) -> Result<Error, String> {
    let foreign = env.foreign().await?;
    let mut requests = foreign.listen_to_requests("Fit").await?;
    let mut grants = foreign.listen_to_grants("Fit").await?;
    let client = env.client().await?;
    let call = env.spawn(async move { client.fit(ask("top")).await });
    let request = requests.request().await?;
    foreign.bid(&request, "SRV_foreign", 1.0).await?;
    grants.grant().await?;
    foreign.respond_as_go(&request, "SRV_foreign", text, code).await?;
    expect_error(call.await)
}

async fn foreign_without_text(env: Env) -> Verdict {
    let error = error_from_foreign(&env, "", "not_found").await?;
    check_eq!(error.code(), &ErrorCode::NotFound, "the code");
    Ok(())
}

async fn foreign_without_code(env: Env) -> Verdict {
    let error = error_from_foreign(&env, "moths ate it", "").await?;
    check_eq!((error.code(), error.text()), (&ErrorCode::Unknown, "moths ate it"), "the error");
    Ok(())
}
