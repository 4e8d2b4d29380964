//! Interceptors and hooks of calls: their order and their effects.

mod hats;

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use hats::{Log, client, echo, error, fit, serve};
use psrpc_bus_local::LocalBus;
use psrpc_tokio::*;

/// Returns an interceptor that logs before and after the call.
fn outgoing(log: &Log, name: &'static str) -> impl CallInterceptor + use<> {
    let log = log.clone();
    move |call: OutgoingCall, next: NextCall| {
        let log = log.clone();
        async move {
            log.add(format!("{name} in"));
            let result = next.run(call).await;
            log.add(format!("{name} out"));
            result
        }
    }
}

fn incoming(log: &Log, name: &'static str) -> impl HandlerInterceptor + use<> {
    let log = log.clone();
    move |request: Request<AnyMessage>, next: NextHandler| {
        let log = log.clone();
        async move {
            log.add(format!("{name} in"));
            let result = next.run(request).await;
            log.add(format!("{name} out"));
            result
        }
    }
}

/// Creates a client and an echo server with these options.
async fn hats(client_options: ClientOptions, server_options: ServerOptions) -> (Client, Server) {
    let bus = LocalBus::new();
    let server = serve(&bus, server_options, echo).await;
    (client(&bus, client_options).await, server)
}

fn append(message: &AnyMessage, suffix: &str) -> AnyMessage {
    AnyMessage::new(format!("{}{suffix}", message.downcast_ref::<String>().unwrap()))
}

#[tokio::test(start_paused = true)]
async fn interceptors_run_in_order_and_those_of_a_call_within_those_of_the_client() {
    let log = Log::default();
    let (requests, responses) = (log.clone(), log.clone());
    let options = ClientOptions::new()
        .interceptor(outgoing(&log, "client 1"))
        .request_hook(move |info, _| requests.add(format!("request of {info}")))
        .response_hook(move |info, _, _| responses.add(format!("response of {info}")))
        .with(ClientOptions::new().interceptor(outgoing(&log, "client 2")));
    let server = ServerOptions::new()
        .interceptor(incoming(&log, "server 1"))
        .with(ServerOptions::new().interceptor(incoming(&log, "server 2")));
    let (client, _server) = hats(options, server).await;
    let call = fit(&client, "fez")
        .interceptor(outgoing(&log, "call 1"))
        .interceptor(outgoing(&log, "call 2"))
        .into_future();
    assert!(log.take().is_empty(), "nothing happens before the call is polled");
    assert_eq!(call.await.unwrap(), "fez");
    let way_in = ["client 1 in", "client 2 in", "call 1 in", "call 2 in", "server 1 in", "server 2 in"];
    let way_out =
        ["server 2 out", "server 1 out", "call 2 out", "call 1 out", "client 2 out", "client 1 out"];
    let mut expected = vec!["request of Hats.Fit"];
    expected.extend(way_in);
    expected.extend(way_out);
    expected.push("response of Hats.Fit");
    assert_eq!(log.take(), expected);
}

#[tokio::test(start_paused = true)]
async fn an_interceptor_of_one_call_does_not_apply_to_the_next() {
    let log = Log::default();
    let (client, _server) = hats(ClientOptions::new(), ServerOptions::new()).await;
    fit(&client, "fez").interceptor(outgoing(&log, "call")).await.unwrap();
    assert_eq!(log.take().len(), 2);
    fit(&client, "fez").await.unwrap();
    assert!(log.take().is_empty());
}

#[tokio::test(start_paused = true)]
async fn hooks_see_the_request_and_result_of_the_caller_outside_of_interceptors() {
    let log = Log::default();
    let (requests, responses) = (log.clone(), log.clone());
    let options = ClientOptions::new()
        .interceptor(|mut call: OutgoingCall, next: NextCall| async move {
            call.message = append(&call.message, " with a brim");
            let response = next.run(call).await?;
            match response.downcast_ref::<String>().unwrap().as_str() {
                "none with a brim" => Err(error(ErrorCode::NotFound)),
                _ => Ok(append(&response, ", made")),
            }
        })
        .request_hook(move |_, request| requests.add(request.downcast_ref::<String>().unwrap()))
        .response_hook(move |_, request, result| {
            let request = request.downcast_ref::<String>().unwrap();
            let result = result.map(|response| response.downcast_ref::<String>().unwrap());
            responses.add(format!("{request}: {result:?}"));
        });
    let (client, _server) = hats(options, ServerOptions::new()).await;
    assert_eq!(fit(&client, "fez").await.unwrap(), "fez with a brim, made");
    assert_eq!(log.take(), ["fez", "fez: Ok(\"fez with a brim, made\")"]);
    assert_eq!(fit(&client, "none").await.unwrap_err().code(), &ErrorCode::NotFound);
    assert_eq!(log.take(), ["none", "none: Err(not_found: no hat)"]);
}

#[tokio::test(start_paused = true)]
async fn an_interceptor_can_respond_itself() {
    let log = Log::default();
    let server = ServerOptions::new()
        .interceptor(|_: Request<AnyMessage>, _: NextHandler| async { Ok(AnyMessage::new("cap".to_owned())) })
        .interceptor(incoming(&log, "after it"));
    let (client, server) = hats(ClientOptions::new(), server).await;
    assert_eq!(fit(&client, "fez").await.unwrap(), "cap");
    let refuse = |_: OutgoingCall, _: NextCall| async { Err(error(ErrorCode::PermissionDenied)) };
    let refused = fit(&client, "fez").interceptor(refuse).interceptor(outgoing(&log, "after it")).await;
    assert_eq!(refused.unwrap_err().code(), &ErrorCode::PermissionDenied);
    assert!(log.take().is_empty());
    assert_eq!(server.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_interceptor_can_run_the_call_twice() {
    let twice = |call: OutgoingCall, next: NextCall| async move {
        let first = next.run(call.clone()).await?;
        let second = next.run(call).await?;
        Ok(append(&first, second.downcast_ref::<String>().unwrap()))
    };
    let log = Log::default();
    let server = ServerOptions::new().interceptor(incoming(&log, "server"));
    let (client, _server) = hats(ClientOptions::new().interceptor(twice), server).await;
    assert_eq!(fit(&client, "fez").await.unwrap(), "fezfez");
    assert_eq!(log.take(), ["server in", "server out"].repeat(2));
}

#[tokio::test(start_paused = true)]
async fn an_interceptor_of_a_server_can_change_the_request_the_metadata_and_the_response() {
    let options =
        ServerOptions::new().interceptor(|request: Request<AnyMessage>, next: NextHandler| async move {
            assert_eq!(request.info().to_string(), "Hats.Fit");
            assert!(!request.info().is_multi());
            let mut request = request.map(|message| append(&message, "!"));
            request.metadata_mut().insert("shop", "corner");
            next.run(request).await.map(|response| append(&response, "?"))
        });
    let bus = LocalBus::new();
    let _server = serve(&bus, options, |request: Request<String>| async move {
        Ok(format!("{} at the {}", *request, request.metadata().get("shop").unwrap()))
    })
    .await;
    let client = client(&bus, ClientOptions::new()).await;
    assert_eq!(fit(&client, "fez").await.unwrap(), "fez! at the corner?");
}

#[tokio::test(start_paused = true)]
async fn an_interceptor_of_a_client_can_change_every_option() {
    let options = ClientOptions::new().interceptor(|mut call: OutgoingCall, next: NextCall| async move {
        assert_eq!(call.options.timeout, Some(Duration::from_secs(9)));
        call.options.metadata.insert("shop", "corner");
        call.options.timeout = Some(Duration::from_millis(10));
        next.run(call).await
    });
    let bus = LocalBus::new();
    let _server = serve(&bus, ServerOptions::new(), |request: Request<String>| async move {
        assert_eq!(request.metadata().get("shop").unwrap(), "corner");
        Ok(request.remaining().as_millis().to_string())
    })
    .await;
    let client = client(&bus, options).await;
    assert_eq!(fit(&client, "fez").timeout(Duration::from_secs(9)).await.unwrap(), "10");
    let wrong = |mut call: OutgoingCall, next: NextCall| async move {
        call.options.selection = call.options.selection.minimum_affinity(0.5);
        next.run(call).await
    };
    let refused = fit(&client, "fez").timeout(Duration::from_secs(9)).interceptor(wrong).await.unwrap_err();
    assert_eq!(
        refused.code(),
        &ErrorCode::InvalidArgument,
        "a queue-routed method takes no minimum affinity"
    );
}

#[tokio::test(start_paused = true)]
async fn a_message_of_another_type_fails_only_its_call() {
    let log = Log::default();
    let server =
        ServerOptions::new().interceptor(|request: Request<AnyMessage>, next: NextHandler| async move {
            match request.downcast_ref::<String>().unwrap().as_str() {
                "request" => next.run(request.map(|_| AnyMessage::new(7_u32))).await,
                "response" => next.run(request).await.map(|_| AnyMessage::new(7_u32)),
                _ => next.run(request).await,
            }
        });
    let (client, _server) = hats(ClientOptions::new(), server).await;
    let text = "internal: the message is of the type u32, not alloc::string::String";
    for of in ["request", "response"] {
        let error = fit(&client, of).await.unwrap_err();
        assert_eq!((error.to_string().as_str(), error.reason()), (text, Some(Reason::Answered)));
    }
    let request = |mut call: OutgoingCall, next: NextCall| async move {
        call.message = AnyMessage::new(7_u32);
        next.run(call).await
    };
    let response = |_: OutgoingCall, _: NextCall| async { Ok(AnyMessage::new(7_u32)) };
    let recorder = outgoing(&log, "outer");
    let error = fit(&client, "fez").interceptor(recorder).interceptor(request).await.unwrap_err();
    assert_eq!((error.to_string().as_str(), log.take().len()), (text, 2));
    let error = fit(&client, "fez").interceptor(response).await.unwrap_err();
    assert_eq!(error.to_string(), text);
    assert_eq!(fit(&client, "fez").await.unwrap(), "fez");
}

#[tokio::test(start_paused = true)]
async fn a_panic_reaches_the_caller_on_the_client_and_fails_the_call_on_the_server() {
    let server =
        ServerOptions::new().interceptor(|request: Request<AnyMessage>, next: NextHandler| async move {
            assert_ne!(request.downcast_ref::<String>().unwrap(), "server");
            next.run(request).await
        });
    let options = ClientOptions::new().request_hook(|_, request| {
        assert_ne!(request.downcast_ref::<String>().unwrap(), "client");
    });
    let (client, _server) = hats(options, server).await;
    assert_eq!(fit(&client, "server").await.unwrap_err().code(), &ErrorCode::Internal);
    let caller = tokio::spawn(fit(&client, "client").into_future());
    assert!(caller.await.unwrap_err().is_panic());
    assert_eq!(fit(&client, "fez").await.unwrap(), "fez");
    assert_eq!(client.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_within_an_interceptor_is_canceled() {
    let log = Log::default();
    let (client, server) =
        hats(ClientOptions::new().interceptor(outgoing(&log, "client")), ServerOptions::new()).await;
    let mut call = fit(&client, "fez").into_future();
    let polled = poll_fn(|cx| Poll::Ready(Pin::new(&mut call).poll(cx)));
    assert!(polled.await.is_pending());
    assert_eq!(client.in_flight(), 1);
    drop(call);
    assert_eq!(client.in_flight(), 0);
    assert_eq!(log.take(), ["client in"]);
    server.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn shared_call_options_apply_to_several_calls_and_merge_metadata() {
    let bus = LocalBus::new();
    let _server = serve(&bus, ServerOptions::new(), |request: Request<String>| async move {
        let metadata: Vec<_> =
            request.metadata().iter().map(|(name, value)| format!("{name}={value}")).collect();
        Ok(format!("{} {}", metadata.join(" "), request.remaining().as_millis()))
    })
    .await;
    let client = client(&bus, ClientOptions::new()).await;
    let bundle = CallOptions::new().timeout(Duration::from_millis(70)).metadata("shop", "corner");
    for _ in 0..2 {
        assert_eq!(fit(&client, "fez").options(bundle.clone()).await.unwrap(), "shop=corner 70");
    }
    let merged = fit(&client, "fez").metadata("size", "7").with_metadata(&bundle.metadata).await;
    assert_eq!(merged.unwrap(), "size=7 shop=corner 3000");
}

#[tokio::test(start_paused = true)]
async fn interceptors_of_shared_call_options_run_in_the_order_of_their_addition() {
    let log = Log::default();
    let (client, _server) =
        hats(ClientOptions::new().interceptor(outgoing(&log, "client")), ServerOptions::new()).await;
    let bundle = CallOptions::new()
        .interceptor(outgoing(&log, "bundle 1"))
        .with(CallOptions::new().interceptor(outgoing(&log, "bundle 2")));
    for _ in 0..2 {
        let call = fit(&client, "fez").interceptor(outgoing(&log, "before")).options(bundle.clone());
        call.interceptor(outgoing(&log, "after")).await.unwrap();
        let names = ["client", "before", "bundle 1", "bundle 2", "after"];
        let way_in = names.map(|name| format!("{name} in"));
        let way_out = names.map(|name| format!("{name} out")).into_iter().rev().collect();
        assert_eq!(log.take(), [way_in.to_vec(), way_out].concat());
    }
}

#[tokio::test(start_paused = true)]
async fn options_can_be_reused_and_later_settings_take_precedence() {
    let log = Log::default();
    let recorder = log.clone();
    let shared = ClientOptions::new().id("shared").timeout(Duration::from_millis(500));
    let shared = shared.request_hook(move |_, _| recorder.add("requested"));
    let bus = LocalBus::new();
    let hatter = ServerOptions::new().with(ServerOptions::new().id("hatter"));
    let server = serve(&bus, hatter, |request: Request<String>| async move {
        Ok(format!("{} {}", request.client_id(), request.remaining().as_millis()))
    })
    .await;
    assert_eq!(server.id(), "hatter");
    let options = ClientOptions::new().id("own").with(shared.clone());
    assert_eq!(fit(&client(&bus, options).await, "fez").await.unwrap(), "shared 500");
    let options = ClientOptions::new().with(shared).timeout(Duration::from_millis(70)).id("own");
    assert_eq!(fit(&client(&bus, options).await, "fez").await.unwrap(), "own 70");
    assert_eq!(log.take(), ["requested", "requested"]);
}

#[tokio::test(start_paused = true)]
async fn a_call_of_an_unknown_method_runs_no_interceptor() {
    static BEYOND: Method =
        Method::call(9, "Beyond", MethodProperties { routing: Routing::Queue, require_claim: true });
    let log = Log::default();
    let (client, _server) =
        hats(ClientOptions::new().interceptor(outgoing(&log, "client")), ServerOptions::new()).await;
    let call = client.call::<String, String>(&BEYOND, &[], String::new());
    assert_eq!(call.await.unwrap_err().code(), &ErrorCode::InvalidArgument);
    assert!(log.take().is_empty());
}
