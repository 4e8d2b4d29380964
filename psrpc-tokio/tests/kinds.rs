//! Multi calls, streams and subscriptions without generated code, in paused time.

use std::future::IntoFuture;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use psrpc_bus_local::LocalBus;
use psrpc_tokio::*;

mod hats;
mod shop;

use hats::{runtime, settle};
use shop::{
    BULLETIN, CENSUS, CLAIMED, PARADE, Parade, RUMOUR, census, client, client_with, echo, parade, server,
    text,
};

#[tokio::test(start_paused = true)]
async fn every_server_responds_to_a_multi_call_until_its_timeout() {
    let bus = LocalBus::new();
    let _servers = (
        server(&bus, "elm", ServerOptions::new(), echo).await,
        server(&bus, "oak", ServerOptions::new(), echo).await,
    );
    let client = client(&bus).await;
    let started = runtime().now().time;
    let mut responses = census(&client, "who").timeout(Duration::from_millis(500)).await.unwrap();
    let mut names = Vec::new();
    while let Some(response) = responses.next().await {
        let response = response.unwrap();
        assert_eq!(response.server_id(), response.as_str());
        names.push(response.into_message());
    }
    names.sort();
    let took = runtime().now().time.since(started);
    assert_eq!((names, took.as_millis()), (vec![text("elm"), text("oak")], 500));
}

#[tokio::test(start_paused = true)]
async fn a_multi_call_ends_at_the_expected_count_and_errors_name_their_servers() {
    let bus = LocalBus::new();
    let _server = server(&bus, "elm", ServerOptions::new(), echo).await;
    let client = client(&bus).await;
    let started = tokio::time::Instant::now();
    let mut responses = census(&client, "fail").responses(1).await.unwrap();
    let error = responses.next().await.unwrap().unwrap_err();
    assert_eq!((error.code(), error.server_id()), (&ErrorCode::ResourceExhausted, Some("elm")));
    assert!(responses.next().await.is_none() && started.elapsed().is_zero());
    drop(census(&client, "who").await.unwrap());
    assert_eq!(client.in_flight(), 0, "a multi call ends when its responses are dropped");
}

#[tokio::test(start_paused = true)]
async fn a_stream_carries_messages_both_ways_and_its_close() {
    let bus = LocalBus::new();
    let server = server(&bus, "elm", ServerOptions::new(), |stream| async move {
        assert_eq!(stream.metadata().get("band").map(Text::as_str), Some("brass"));
        assert_eq!(stream.client_id(), "CLI_a");
        assert!(stream.request_id().starts_with("REQ_"));
        let result = echo(stream).await;
        assert!(result.is_ok());
        Err(Error::new(ErrorCode::NotFound, "the stream has already ended"))
    })
    .await;
    let client = client_with(&bus, ClientOptions::new().id("CLI_a")).await;
    let opening: OpenStream<String, String> = client.open_stream(PARADE, &[]);
    let stream: Parade = opening.metadata("band", "brass").await.unwrap();
    for number in 0..100 {
        stream.send(number.to_string()).await.unwrap();
        assert_eq!(stream.next().await.unwrap(), format!("echo {number}"));
    }
    assert_eq!((client.streams(), server.streams()), (1, 1));
    assert!(stream.cause().is_none());
    stream.close(Error::new(ErrorCode::FailedPrecondition, "rain"));
    let cause = stream.closed().await;
    assert_eq!(
        (cause.code(), cause.text(), cause.reason()),
        (&ErrorCode::FailedPrecondition, "rain", Some(Reason::Closed))
    );
    assert!(stream.next().await.is_none());
    let error = stream.send(text("more")).await.unwrap_err();
    assert_eq!(error.text(), "rain");
    settle().await;
    assert_eq!((client.streams(), server.streams()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn messages_received_before_the_end_can_still_be_read() {
    let bus = LocalBus::new();
    let _server = server(&bus, "elm", ServerOptions::new(), |stream| async move {
        stream.send(text("one")).await?;
        stream.send(text("two")).await?;
        Err(Error::new(ErrorCode::PermissionDenied, "the street is closed"))
    })
    .await;
    let client = client(&bus).await;
    let stream = parade(&client).await;
    assert_eq!(stream.closed().await.text(), "the street is closed");
    assert_eq!(stream.next().await.unwrap(), "one");
    assert_eq!(stream.next().await.unwrap(), "two");
    assert!(stream.next().await.is_none());
    let cause = stream.cause().unwrap();
    assert_eq!((cause.reason(), cause.fault()), (Some(Reason::ClosedByPeer), Fault::Peer));
}

#[tokio::test(start_paused = true)]
async fn halves_and_adapters_use_the_same_stream() {
    use futures_core::Stream;
    use futures_sink::Sink;

    let bus = LocalBus::new();
    let server = server(&bus, "elm", ServerOptions::new(), echo).await;
    let client = client(&bus).await;
    let (sender, mut receiver) = parade(&client).await.split();
    let mut sink = sender.into_sink();
    for word in ["a", "b"] {
        std::future::poll_fn(|cx| Pin::new(&mut sink).poll_ready(cx)).await.unwrap();
        Pin::new(&mut sink).start_send(text(word)).unwrap();
    }
    std::future::poll_fn(|cx| Pin::new(&mut sink).poll_flush(cx)).await.unwrap();
    for word in ["echo a", "echo b"] {
        let next = std::future::poll_fn(|cx| Pin::new(&mut receiver).poll_next(cx)).await;
        assert_eq!(next.unwrap(), word);
    }
    std::future::poll_fn(|cx| Pin::new(&mut sink).poll_close(cx)).await.unwrap();
    assert!(receiver.next().await.is_none());
    drop((sink, receiver));
    settle().await;
    assert_eq!((client.streams(), server.streams()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_when_the_client_drops_it_and_when_the_handler_returns() {
    let bus = LocalBus::new();
    let server = server(&bus, "elm", ServerOptions::new(), |stream| async move {
        match stream.next().await.as_deref() {
            Some("leave") => Ok(()),
            _ => Err(stream.closed().await),
        }
    })
    .await;
    let client = client(&bus).await;
    let stream = parade(&client).await;
    stream.send(text("leave")).await.unwrap();
    assert!(stream.closed().await.is_stream_closed());
    drop(parade(&client).await);
    settle().await;
    assert_eq!((client.streams(), server.streams()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_hijacked_stream_outlives_its_handler() {
    let stored: Arc<Mutex<Option<ServerStream<String, String>>>> = Arc::default();
    let bus = LocalBus::new();
    let store = Arc::clone(&stored);
    let server = server(&bus, "elm", ServerOptions::new(), move |stream| {
        stream.hijack();
        *store.lock().unwrap() = Some(stream);
        async { Ok(()) }
    })
    .await;
    let client = client(&bus).await;
    let stream = parade(&client).await;
    settle().await;
    let stored = stored.lock().unwrap().take().unwrap();
    stored.send(text("still here")).await.unwrap();
    assert_eq!(stream.next().await.unwrap(), "still here");
    drop(stored);
    assert!(stream.closed().await.is_stream_closed());
    settle().await;
    assert_eq!(server.streams(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_not_hijacked_ends_with_its_handler() {
    let bus = LocalBus::new();
    let stored: Arc<Mutex<Vec<ServerStream<String, String>>>> = Arc::default();
    let store = Arc::clone(&stored);
    let _server = server(&bus, "elm", ServerOptions::new(), move |stream| {
        store.lock().unwrap().push(stream);
        async { Ok(()) }
    })
    .await;
    let client = client(&bus).await;
    let stream = parade(&client).await;
    assert!(stream.closed().await.is_stream_closed());
    let stored = stored.lock().unwrap().pop().unwrap();
    assert!(stored.cause().unwrap().is_stream_closed() && stored.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_slow_consumer_delays_only_its_sender() {
    let bus = LocalBus::new();
    let options = ServerOptions::new().unread_per_stream(1);
    let server = server(&bus, "elm", options, |stream| async move {
        stream.closed().await;
        Ok(())
    })
    .await;
    let client = client(&bus).await;
    let stream = parade(&client).await;
    stream.send(text("one")).await.unwrap();
    let started = runtime().now().time;
    let error = stream.send(text("two")).timeout(Duration::from_millis(400)).await.unwrap_err();
    assert!(error.is_timed_out());
    assert_eq!(runtime().now().time.since(started).as_millis(), 400);
    settle().await;
    assert_eq!(server.counters().get(Reason::SlowConsumer), 1, "it expired with its send");
    let mut responses = census(&client, "who").responses(1).await.unwrap();
    assert!(responses.next().await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_streams_with_eof_and_waits_for_their_handlers() {
    let bus = LocalBus::new();
    let (sender, ended) = tokio::sync::oneshot::channel();
    let sender = Mutex::new(Some(sender));
    let server = server(&bus, "elm", ServerOptions::new(), move |stream| {
        let sender = sender.lock().unwrap().take();
        async move {
            assert!(stream.next().await.is_none());
            assert!(stream.cause().unwrap().is_eof());
            tokio::time::sleep(Duration::from_millis(300)).await;
            sender.unwrap().send(()).unwrap();
            Ok(())
        }
    })
    .await;
    let client = client(&bus).await;
    let stream = parade(&client).await;
    let started = tokio::time::Instant::now();
    server.shutdown().await;
    assert_eq!(started.elapsed().as_millis(), 300);
    ended.await.unwrap();
    assert!(stream.closed().await.is_eof());
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_ignores_eof_is_stopped_after_a_second() {
    let bus = LocalBus::new();
    let server = server(&bus, "elm", ServerOptions::new(), |_stream| std::future::pending()).await;
    let client = client(&bus).await;
    let _stream = parade(&client).await;
    let started = tokio::time::Instant::now();
    server.shutdown().await;
    assert_eq!(started.elapsed().as_secs(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_handler_ends_only_its_stream() {
    let bus = LocalBus::new();
    let _server = server(&bus, "elm", ServerOptions::new(), |stream| async move {
        match stream.next().await.as_deref() {
            Some("boo") => panic!("on purpose"),
            _ => echo(stream).await,
        }
    })
    .await;
    let client = client(&bus).await;
    let (calm, scared) = (parade(&client).await, parade(&client).await);
    calm.send(text("calm")).await.unwrap();
    scared.send(text("boo")).await.unwrap();
    assert_eq!(scared.closed().await.code(), &ErrorCode::Internal);
    calm.send(text("a")).await.unwrap();
    assert_eq!(calm.next().await.unwrap(), "echo a");
}

#[tokio::test(start_paused = true)]
async fn a_message_that_does_not_decode_ends_its_stream() {
    let bus = LocalBus::new();
    let _server =
        server(&bus, "elm", ServerOptions::new(), |stream| async move { Err(stream.closed().await) }).await;
    let client = client(&bus).await;
    let stream: ClientStream<Vec<u8>, String> = client.open_stream(PARADE, &[]).await.unwrap();
    let error = stream.send(vec![0xff, 0xfe]).await.unwrap_err();
    assert_eq!(error.code(), &ErrorCode::MalformedRequest);
    assert_eq!(stream.closed().await.code(), &ErrorCode::MalformedRequest);
}

#[tokio::test(start_paused = true)]
async fn closing_a_client_ends_everything_that_it_has_in_flight() {
    let bus = LocalBus::new();
    let server = server(&bus, "elm", ServerOptions::new(), echo).await;
    let client = client(&bus).await;
    let stream = parade(&client).await;
    let mut responses = census(&client, "who").await.unwrap();
    let mut rumours: Subscription<String> = client.subscribe(RUMOUR, &[]).await.unwrap();
    client.close();
    let cause = stream.closed().await;
    assert!(cause.is_client_closed() && cause.text() == "client is closed");
    let mut results = Vec::new();
    while let Some(response) = responses.next().await {
        results.push(response);
    }
    assert!(results.last().unwrap().as_ref().unwrap_err().is_client_closed());
    assert!(rumours.next().await.is_none());
    settle().await;
    assert_eq!(server.streams(), 0);
    assert!(client.open_stream::<String, String>(PARADE, &[]).await.unwrap_err().is_client_closed());
}

#[tokio::test(start_paused = true)]
async fn an_update_goes_to_one_member_of_a_queue_or_to_all_subscribers() {
    let bus = LocalBus::new();
    let server = server(&bus, "elm", ServerOptions::new(), echo).await;
    let clients = (client(&bus).await, client(&bus).await);
    let mut rumours: Vec<Subscription<String>> = vec![
        clients.0.subscribe(RUMOUR, &[]).await.unwrap(),
        clients.1.subscribe(RUMOUR, &[]).await.unwrap(),
    ];
    let mut bulletins: Vec<Subscription<String>> = vec![
        clients.0.subscribe(BULLETIN, &["harbour"]).await.unwrap(),
        clients.1.subscribe(BULLETIN, &["harbour"]).await.unwrap(),
    ];
    for number in 0..4 {
        assert_eq!(server.publish(RUMOUR, &[], &format!("psst {number}")).await.unwrap(), Some(1));
    }
    assert_eq!(server.publish(BULLETIN, &["harbour"], &text("tide")).await.unwrap(), Some(2));
    assert_eq!(server.publish(BULLETIN, &["hill"], &text("fog")).await.unwrap(), Some(0));
    let mut received = Vec::new();
    for subscription in &mut rumours {
        for _ in 0..2 {
            received.push(subscription.next().await.unwrap().unwrap());
        }
    }
    received.sort();
    assert_eq!(received, ["psst 0", "psst 1", "psst 2", "psst 3"]);
    for subscription in &mut bulletins {
        assert_eq!(subscription.next().await.unwrap().unwrap(), "tide");
        subscription.close();
        assert!(subscription.next().await.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn updates_without_room_leave_a_gap_in_their_place() {
    let bus = LocalBus::new();
    let server = server(&bus, "elm", ServerOptions::new(), echo).await;
    let client = client_with(&bus, ClientOptions::new().updates_per_subscription(2)).await;
    let mut rumours: Subscription<String> = client.subscribe(RUMOUR, &[]).await.unwrap();
    for number in 0..5 {
        server.publish(RUMOUR, &[], &number.to_string()).await.unwrap();
        settle().await;
    }
    assert_eq!(rumours.next().await.unwrap().unwrap(), "0");
    assert_eq!(rumours.next().await.unwrap().unwrap(), "1");
    let error = rumours.next().await.unwrap().unwrap_err();
    assert_eq!((error.text(), error.reason()), ("3 updates were lost", Some(Reason::Gap)));
    server.publish(RUMOUR, &[], &text("5")).await.unwrap();
    assert_eq!(rumours.next().await.unwrap().unwrap(), "5");
}

#[tokio::test(start_paused = true)]
async fn a_method_of_another_kind_is_an_error() {
    let bus = LocalBus::new();
    let client = client(&bus).await;
    let error = client.call::<String, String>(PARADE, &[], text("")).await.unwrap_err();
    assert_eq!(error.text(), "Shop.Parade is a stream, not a call");
    let error = client.subscribe::<String>(CENSUS, &[]).await.unwrap_err();
    assert_eq!(error.text(), "Shop.Census is a call, not a subscription");
}

#[tokio::test(start_paused = true)]
async fn a_single_server_method_is_refused_to_a_second_server_of_the_process() {
    const SINGLE: MethodProperties = MethodProperties { routing: Routing::Queue, require_claim: false };
    static OWNED: Service = Service { name: "Owned", methods: &[Method::call(0, "OwnerFit", SINGLE)] };
    let bus = LocalBus::new();
    let server = |bus: &LocalBus| {
        let handlers =
            Handlers::new(&OWNED, ()).unary(&OWNED.methods[0], |_, request: Request<String>| async move {
                Ok(request.into_message())
            });
        Server::new(bus.clone(), runtime(), handlers, ServerOptions::new()).unwrap()
    };
    let (first, second, elsewhere) = (server(&bus), server(&bus), server(&LocalBus::new()));
    let methods = [&OWNED.methods[0]];
    first.register(&methods, &["Ann"]).await.unwrap();
    let error = second.register(&methods, &["Ann"]).await.unwrap_err();
    assert_eq!(error.code(), &ErrorCode::AlreadyExists);
    assert_eq!(
        error.text(),
        "Owned.OwnerFit[\"Ann\"] is for a single server, and another server in this process already serves it"
    );
    let error = first.register(&methods, &["Ann"]).await.unwrap_err();
    assert_eq!(error.text(), "Owned.OwnerFit[\"Ann\"] is already registered");
    second.register(&methods, &["Bob"]).await.unwrap();
    elsewhere.register(&methods, &["Ann"]).await.unwrap();
    first.deregister(&methods, &["Ann"]).await.unwrap();
    second.register(&methods, &["Ann"]).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn within_a_process_dropping_a_call_drops_its_handler() {
    static SLOW: Service = Service { name: "Slow", methods: &[Method::call(0, "Fit", CLAIMED)] };

    struct Dropped(Option<tokio::sync::oneshot::Sender<()>>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.take().unwrap().send(()).unwrap();
        }
    }

    let (sender, dropped) = tokio::sync::oneshot::channel();
    let guard = Arc::new(Mutex::new(Some(Dropped(Some(sender)))));
    let bus = LocalBus::new();
    let handlers = Handlers::new(&SLOW, ()).unary(&SLOW.methods[0], move |_, _: Request<String>| {
        let guard = guard.lock().unwrap().take();
        async move {
            let _guard = guard;
            std::future::pending::<Result<String, Error>>().await
        }
    });
    let server = Server::new(bus.clone(), runtime(), handlers, ServerOptions::new()).unwrap();
    server.register(&[&SLOW.methods[0]], &[]).await.unwrap();
    let client = Client::new(bus, runtime(), &SLOW, ClientOptions::new()).await.unwrap();
    let call = client.call::<_, String>(&SLOW.methods[0], &[], text("")).into_future();
    let started = tokio::time::Instant::now();
    assert!(tokio::time::timeout(Duration::from_millis(100), call).await.is_err());
    dropped.await.unwrap();
    assert_eq!(started.elapsed().as_millis(), 100);
    assert_eq!(server.counters().get(Reason::Canceled), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stream_pair_is_connected() {
    let (client, server) = psrpc_testing::stream_pair::<String, u64>(runtime()).await.unwrap();
    let client = OpenStream::fake(Ok(client)).await.unwrap();
    let next = tokio::spawn(async move {
        let question = server.next().await.unwrap();
        server.send(question.len() as u64).await.unwrap();
        assert!(server.next().await.is_none());
        server.cause().unwrap().text().to_owned()
    });
    settle().await;
    client.send(text("four")).await.unwrap();
    assert_eq!(client.next().await, Some(4));
    client.close(Error::new(ErrorCode::Aborted, "enough"));
    assert_eq!(next.await.unwrap(), "enough");
    assert_eq!(client.send(text("more")).await.unwrap_err().text(), "enough");
    assert!(client.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn shutting_down_a_client_notifies_its_servers() {
    let bus = LocalBus::new();
    let server = server(&bus, "elm", ServerOptions::new(), echo).await;
    let client = client(&bus).await;
    let stream = parade(&client).await;
    client.shutdown().await;
    assert!(stream.cause().unwrap().is_client_closed());
    settle().await;
    assert_eq!(server.streams(), 0);
}

/// The affinity function is called right after decoding, so its calls show the order of decoding.
#[tokio::test(start_paused = true)]
async fn a_large_request_is_decoded_after_the_small_ones_that_came_with_it() {
    let (bus, log) = (LocalBus::new(), hats::Log::default());
    let decoded = log.clone();
    let handlers = Handlers::new(&hats::HATS, ()).unary_with_affinity(
        hats::PICK,
        |_, request| hats::echo(request),
        move |_, request: &Request<String>| {
            decoded.add(if request.len() > 1000 { "large" } else { "small" });
            1.0
        },
    );
    let server = Server::new(bus.clone(), hats::runtime(), handlers, ServerOptions::new()).unwrap();
    server.register(&[hats::PICK], &[]).await.unwrap();
    let client = hats::client(&bus, ClientOptions::new()).await;
    let pick = |hat: String| client.call::<_, String>(hats::PICK, &[], hat).into_future();
    let (large, small) = tokio::join!(pick("x".repeat(1 << 20)), pick("fez".to_owned()));
    assert_eq!((large.unwrap().len(), small.unwrap().as_str()), (1 << 20, "fez"));
    assert_eq!(log.take(), ["small", "large"]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_carries_large_messages_in_order_and_ends_after_the_last() {
    let bus = LocalBus::new();
    let _server = shop::server(&bus, "S", ServerOptions::new(), shop::echo).await;
    let client = shop::client(&bus).await;
    let stream = shop::parade(&client).await;
    for size in [1 << 20, 3, 1 << 17] {
        stream.send("x".repeat(size)).await.unwrap();
        assert_eq!(stream.next().await.unwrap().len(), size + "echo ".len());
    }
    stream.close(None);
    assert!(stream.next().await.is_none());
}
