//! Interceptors and hooks of multi calls and streams: their order and their effects.

mod hats;
mod shop;

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use hats::{Log, error, runtime, settle};
use psrpc_bus_local::LocalBus;
use psrpc_tokio::middleware::Side;
use psrpc_tokio::*;
use shop::{all, census, client, client_with, echo, opening, parade, server, text};

fn message_text(message: &AnyMessage) -> &str {
    message.downcast_ref::<String>().unwrap()
}

fn append(message: &AnyMessage, suffix: &str) -> AnyMessage {
    AnyMessage::new(format!("{}{suffix}", message_text(message)))
}

fn code<T: std::fmt::Debug>(result: Result<T, Error>) -> ErrorCode {
    result.unwrap_err().code().clone()
}

// --- multi calls ---------------------------------------------------------------------------------

/// Returns an interceptor that logs a multi call and its responses.
fn multi(log: &Log, name: &'static str) -> impl MultiCallInterceptor + use<> {
    let log = log.clone();
    move |call: OutgoingCall, next: NextMultiCall| {
        let log = log.clone();
        async move {
            log.add(format!("{name} in"));
            let responses = next.run(call).await?;
            Ok(responses.map_responses(move |response| {
                log.add(format!("{name} out"));
                response
            }))
        }
    }
}

#[tokio::test(start_paused = true)]
async fn interceptors_of_multi_calls_run_in_order_within_the_hooks() {
    let (bus, log) = (LocalBus::new(), Log::default());
    let (requests, responses, handlers) = (log.clone(), log.clone(), log.clone());
    let options = ServerOptions::new().interceptor(move |request: Request<AnyMessage>, next: NextHandler| {
        handlers.add(format!("handler, multi: {}", request.info().is_multi()));
        async move { next.run(request).await }
    });
    let _servers =
        (server(&bus, "elm", options.clone(), echo).await, server(&bus, "oak", options, echo).await);
    let options = ClientOptions::new()
        .multi_interceptor(multi(&log, "client 1"))
        .request_hook(move |info, request| requests.add(format!("{info} {}", message_text(request))))
        .response_hook(move |_, request, result| {
            responses.add(format!("{} of {}", result.is_ok(), message_text(request)));
        })
        .with(ClientOptions::new().multi_interceptor(multi(&log, "client 2")));
    let client = client_with(&bus, options).await;
    let call = census(&client, "fail").responses(2);
    let call = call.interceptor(multi(&log, "call 1")).interceptor(multi(&log, "call 2")).into_future();
    assert!(log.take().is_empty(), "nothing happens before the call is polled");
    let responses = call.await.unwrap();
    let way_in = ["Shop.Census fail", "client 1 in", "client 2 in", "call 1 in", "call 2 in"];
    assert_eq!(log.take(), way_in);
    assert_eq!(all(responses).await, ["resource_exhausted: out of hats"; 2]);
    let way_out = ["call 2 out", "call 1 out", "client 2 out", "client 1 out", "false of fail"];
    assert_eq!(log.take(), [["handler, multi: true"; 2].as_slice(), &way_out, &way_out].concat());
    assert_eq!(all(census(&client, "who").responses(1).await.unwrap()).await.len(), 1);
    assert!(!log.take().concat().contains("call"), "interceptors of one call do not apply to the next");
}

#[tokio::test(start_paused = true)]
async fn an_interceptor_can_change_the_request_the_options_and_the_responses_of_a_multi_call() {
    let bus = LocalBus::new();
    let options =
        ServerOptions::new().interceptor(|request: Request<AnyMessage>, _: NextHandler| async move {
            let shop = request.metadata().get("shop").unwrap();
            Ok(append(&request, &format!(" at the {shop} within {:?}", request.remaining())))
        });
    let _server = server(&bus, "elm", options, echo).await;
    let change = |mut call: OutgoingCall, next: NextMultiCall| async move {
        assert_eq!(call.options.timeout, Some(Duration::from_secs(9)));
        call.message = append(&call.message, "!");
        call.options.metadata.insert("shop", "corner");
        call.options.timeout = Some(Duration::from_millis(10));
        let responses = next.run(call).await?;
        Ok(responses.map_responses(|response| response?.try_map(|message| Ok(append(&message, "?")))))
    };
    let client = client_with(&bus, ClientOptions::new().multi_interceptor(change)).await;
    let started = runtime().now().time;
    let responses = census(&client, "who").timeout(Duration::from_secs(9)).await.unwrap();
    assert_eq!(all(responses).await, ["who! at the corner within 10ms?"]);
    assert_eq!(runtime().now().time.since(started).as_millis(), 10);
}

/// Responses that do not come from a server.
struct FakeResponses(VecDeque<Result<Response<AnyMessage>, Error>>);

impl Stream for FakeResponses {
    type Item = Result<Response<AnyMessage>, Error>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(self.0.pop_front())
    }
}

#[tokio::test(start_paused = true)]
async fn an_interceptor_can_respond_to_a_multi_call_or_refuse_it() {
    let (bus, log) = (LocalBus::new(), Log::default());
    let client = client(&bus).await;
    let fake = |_: OutgoingCall, _: NextMultiCall| async {
        let last = Err(error(ErrorCode::NotFound));
        let responses = ["ash", "oak"].map(|name| Ok(Response::new(name, AnyMessage::new(text(name)))));
        Ok(Responses::new(FakeResponses(responses.into_iter().chain([last]).collect())))
    };
    let call = census(&client, "who").interceptor(fake).interceptor(multi(&log, "after it"));
    assert_eq!(all(call.await.unwrap()).await, ["ash", "oak", "not_found: no hat"]);
    let refuse = |_: OutgoingCall, _: NextMultiCall| async { Err(error(ErrorCode::PermissionDenied)) };
    let call = census(&client, "who").interceptor(refuse).interceptor(multi(&log, "after it"));
    assert_eq!(code(call.await), ErrorCode::PermissionDenied);
    assert!(log.take().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_message_of_another_type_fails_the_multi_call_or_one_response() {
    let bus = LocalBus::new();
    let _servers = (
        server(&bus, "elm", ServerOptions::new(), echo).await,
        server(&bus, "oak", ServerOptions::new(), echo).await,
    );
    let client = client(&bus).await;
    let request = |mut call: OutgoingCall, next: NextMultiCall| async move {
        call.message = AnyMessage::new(7_u32);
        next.run(call).await
    };
    assert_eq!(code(census(&client, "who").interceptor(request).await), ErrorCode::Internal);
    let response = |call: OutgoingCall, next: NextMultiCall| async move {
        Ok(next.run(call).await?.map_responses(|response| match response? {
            elm if elm.server_id() == "elm" => elm.try_map(|_| Ok(AnyMessage::new(7_u32))),
            other => Ok(other),
        }))
    };
    let responses = census(&client, "who").interceptor(response).responses(2).await.unwrap();
    let wrong = "internal: the message is of the type u32, not alloc::string::String";
    let mut responses = all(responses).await;
    responses.sort();
    assert_eq!(responses, [wrong, "oak"]);
}

#[tokio::test(start_paused = true)]
async fn a_multi_call_with_interceptors_ends_when_its_responses_are_dropped() {
    let (bus, log) = (LocalBus::new(), Log::default());
    let _server = server(&bus, "elm", ServerOptions::new(), echo).await;
    let client = client_with(&bus, ClientOptions::new().multi_interceptor(multi(&log, "client"))).await;
    let responses = census(&client, "who").await.unwrap();
    assert_eq!(client.in_flight(), 1);
    drop(responses);
    assert_eq!(client.in_flight(), 0);
}

// --- streams -------------------------------------------------------------------------------------

/// Logs every event of a stream.
struct LoggingStream(Log, &'static str);

fn logging(log: &Log, name: &'static str) -> impl StreamInterceptor + use<> {
    let log = log.clone();
    move |opening: &mut OpeningStream| {
        log.add(format!("{name} open {} at the {:?}", opening.info(), opening.side()));
        Ok(Box::new(LoggingStream(log.clone(), name)) as Box<dyn InterceptedStream>)
    }
}

impl LoggingStream {
    fn log(&self, event: &str) {
        self.0.add(format!("{} {event}", self.1));
    }
}

impl InterceptedStream for LoggingStream {
    fn opened(&self) {
        self.log("opened");
    }

    fn send(
        &self,
        message: AnyMessage,
        options: SendOptions,
        next: NextSend,
    ) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send>> {
        self.log(&format!("send {}", message_text(&message)));
        next.run(message, options)
    }

    fn receive(&self, message: AnyMessage) -> Result<AnyMessage, Error> {
        self.log(&format!("receive {}", message_text(&message)));
        Ok(message)
    }

    fn closed(&self, cause: &Error) {
        self.log(&format!("closed: {cause}"));
    }
}

#[tokio::test(start_paused = true)]
async fn interceptors_of_streams_run_in_order() {
    let (bus, ours, theirs) = (LocalBus::new(), Log::default(), Log::default());
    let options = ServerOptions::new()
        .stream_interceptor(logging(&theirs, "server 1"))
        .with(ServerOptions::new().stream_interceptor(logging(&theirs, "server 2")));
    let _server = server(&bus, "elm", options, echo).await;
    let options = ClientOptions::new()
        .stream_interceptor(logging(&ours, "client 1"))
        .with(ClientOptions::new().stream_interceptor(logging(&ours, "client 2")));
    let client = client_with(&bus, options).await;
    let opening = opening(&client).interceptor(logging(&ours, "own 1")).interceptor(logging(&ours, "own 2"));
    let opening = opening.into_future();
    assert!(ours.take().is_empty(), "nothing happens before it is polled");
    let stream = opening.await.unwrap();
    let sending = stream.send(text("a")).into_future();
    let each = |names: &[&str], event: &str| -> Vec<String> {
        names.iter().map(|name| format!("{name} {event}")).collect()
    };
    let names = ["client 1", "client 2", "own 1", "own 2"];
    let open = each(&names, "open Shop.Parade at the Client");
    assert_eq!(ours.take(), [open, each(&names, "opened")].concat(), "nothing is sent before it is polled");
    sending.await.unwrap();
    assert_eq!(stream.next().await.unwrap(), "echo a");
    stream.close(error(ErrorCode::NotFound));
    settle().await;
    let passed = ["send a", "receive echo a", "closed: not_found: no hat"];
    assert_eq!(ours.take(), passed.map(|event| each(&names, event)).concat());
    let names = ["server 1", "server 2"];
    let passed =
        ["open Shop.Parade at the Server", "opened", "receive a", "send echo a", "closed: not_found: no hat"];
    assert_eq!(theirs.take(), passed.map(|event| each(&names, event)).concat());
    drop(parade(&client).await);
    assert!(!ours.take().concat().contains("own"), "interceptors of one stream do not apply to the next");
}

/// Returns an interceptor with only an `open` function.
fn on_open(
    open: impl Fn(&mut OpeningStream) -> Result<(), Error> + Send + Sync + 'static,
) -> impl StreamInterceptor {
    struct Nothing;

    impl InterceptedStream for Nothing {}

    move |opening: &mut OpeningStream| open(opening).map(|()| Box::new(Nothing) as Box<dyn InterceptedStream>)
}

#[tokio::test(start_paused = true)]
async fn an_interceptor_can_change_the_options_of_a_stream() {
    let bus = LocalBus::new();
    let options = ServerOptions::new().stream_interceptor(on_open(|opening| {
        let metadata = &mut opening.options.metadata;
        let band = metadata.get("band").unwrap().clone();
        metadata.insert("band", format!("{band} and drums"));
        Ok(())
    }));
    let server = server(&bus, "elm", options, |stream| async move {
        stream.send(stream.metadata().get("band").unwrap().to_string()).await
    })
    .await;
    let change = on_open(|opening| {
        assert_eq!((opening.side(), opening.options.timeout), (Side::Client, Some(Duration::from_secs(9))));
        opening.options.metadata.insert("band", "brass");
        opening.options.timeout = Some(Duration::from_millis(10));
        Ok(())
    });
    let client = client_with(&bus, ClientOptions::new().stream_interceptor(change)).await;
    let opening = || opening(&client).timeout(Duration::from_secs(9));
    assert_eq!(opening().await.unwrap().next().await.unwrap(), "brass and drums");
    server.shutdown().await;
    let started = runtime().now().time;
    assert_eq!(code(opening().wait_for_subscriber().await), ErrorCode::Unavailable);
    assert_eq!(runtime().now().time.since(started).as_millis(), 10);
}

#[tokio::test(start_paused = true)]
async fn an_interceptor_of_a_client_can_refuse_a_stream_before_anything_is_sent() {
    let (bus, log, theirs) = (LocalBus::new(), Log::default(), Log::default());
    let options = ServerOptions::new().stream_interceptor(logging(&theirs, "server"));
    let _server = server(&bus, "elm", options, echo).await;
    let client = client_with(&bus, ClientOptions::new().stream_interceptor(logging(&log, "outer"))).await;
    let refuse = on_open(|_| Err(error(ErrorCode::PermissionDenied)));
    let opening = opening(&client).interceptor(refuse).interceptor(logging(&log, "after it"));
    assert_eq!(code(opening.await), ErrorCode::PermissionDenied);
    settle().await;
    assert_eq!(
        log.take(),
        ["outer open Shop.Parade at the Client", "outer closed: permission_denied: no hat"]
    );
    assert_eq!((client.in_flight(), theirs.take().len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn interceptors_are_notified_when_opening_a_stream_fails() {
    let (bus, log) = (LocalBus::new(), Log::default());
    let client = client_with(&bus, ClientOptions::new().stream_interceptor(logging(&log, "client"))).await;
    assert_eq!(code(opening(&client).await), ErrorCode::Unavailable);
    assert_eq!(
        log.take()[1..],
        ["client closed: unavailable: no response from servers (nobody was subscribed)"]
    );
}

#[tokio::test(start_paused = true)]
async fn an_interceptor_of_a_server_can_refuse_a_stream_without_running_its_handler() {
    let (bus, log) = (LocalBus::new(), Log::default());
    let options = ServerOptions::new()
        .stream_interceptor(logging(&log, "outer"))
        .stream_interceptor(on_open(|_| Err(error(ErrorCode::PermissionDenied))))
        .stream_interceptor(logging(&log, "after it"));
    let server = server(&bus, "elm", options, |_| async { panic!("the handler must not run") }).await;
    let stream = parade(&client(&bus).await).await;
    assert_eq!(stream.closed().await.code(), &ErrorCode::PermissionDenied);
    settle().await;
    assert_eq!(
        log.take(),
        ["outer open Shop.Parade at the Server", "outer closed: permission_denied: no hat"]
    );
    assert_eq!(server.streams(), 0);
}

/// A stream interceptor that misbehaves at the named point.
struct FaultyStream(&'static str);

fn faulty(fault: &'static str) -> impl StreamInterceptor {
    move |_: &mut OpeningStream| {
        assert_ne!(fault, "open");
        Ok(Box::new(FaultyStream(fault)) as Box<dyn InterceptedStream>)
    }
}

impl InterceptedStream for FaultyStream {
    fn opened(&self) {
        assert_ne!(self.0, "opened");
    }

    fn send(
        &self,
        message: AnyMessage,
        options: SendOptions,
        next: NextSend,
    ) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send>> {
        match (self.0, message_text(&message)) {
            ("panic", "out") => panic!("on purpose"),
            ("refuse", "out") => Box::pin(async { Err(error(ErrorCode::OutOfRange)) }),
            ("retype", "out") => next.run(AnyMessage::new(7_u32), options),
            ("twice", "out") => Box::pin(async move {
                next.run(message.clone(), options).await?;
                next.run(message, options).await
            }),
            _ => next.run(message, options),
        }
    }

    fn receive(&self, message: AnyMessage) -> Result<AnyMessage, Error> {
        match (self.0, message_text(&message)) {
            ("panic", "echo in") => panic!("on purpose"),
            ("refuse", "echo in") => Err(error(ErrorCode::OutOfRange)),
            ("retype", "echo in") => Ok(AnyMessage::new(7_u32)),
            _ => Ok(message),
        }
    }

    fn closed(&self, _: &Error) {
        assert_ne!(self.0, "closed");
    }
}

impl Drop for FaultyStream {
    fn drop(&mut self) {
        assert_ne!(self.0, "drop");
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_rejected_by_an_interceptor_is_not_delivered_and_the_stream_continues() {
    for fault in ["panic", "refuse", "retype"] {
        let (bus, log) = (LocalBus::new(), Log::default());
        let recorder = log.clone();
        let options = ServerOptions::new().timeout(Duration::from_millis(100));
        let _server = server(&bus, "elm", options, move |stream| {
            let log = recorder.clone();
            async move {
                while let Some(message) = stream.next().await {
                    if let Err(error) = stream.send(format!("echo {message}")).await {
                        log.add(error.to_string());
                    }
                }
                Ok(())
            }
        })
        .await;
        let client = client(&bus).await;
        let stream = opening(&client).interceptor(faulty(fault)).await.unwrap();
        stream.send(text("in")).await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(client.counters().get(Reason::Refused), 1, "{fault}");
        assert_eq!(log.take(), ["deadline_exceeded: request timed out"], "{fault}");
        stream.send(text("a")).await.unwrap();
        assert_eq!(stream.next().await.unwrap(), "echo a", "{fault}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_interceptor_can_reject_a_message_or_send_it_twice() {
    let bus = LocalBus::new();
    let _server = server(&bus, "elm", ServerOptions::new(), echo).await;
    let client = client(&bus).await;
    for (fault, expected) in [("refuse", ErrorCode::OutOfRange), ("retype", ErrorCode::Internal)] {
        let stream = opening(&client).interceptor(faulty(fault)).await.unwrap();
        assert_eq!(code(stream.send(text("out")).await), expected);
        stream.send(text("a")).await.unwrap();
        assert_eq!(stream.next().await.unwrap(), "echo a");
    }
    let stream = opening(&client).interceptor(faulty("twice")).await.unwrap();
    stream.send(text("out")).await.unwrap();
    assert_eq!([stream.next().await.unwrap(), stream.next().await.unwrap()], ["echo out", "echo out"]);
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_an_interceptor_reaches_the_caller_on_the_client() {
    let bus = LocalBus::new();
    let _server = server(&bus, "elm", ServerOptions::new(), echo).await;
    let client = client(&bus).await;
    let opening_task = tokio::spawn(opening(&client).interceptor(faulty("open")).into_future());
    assert!(opening_task.await.unwrap_err().is_panic());
    let stream = opening(&client).interceptor(faulty("panic")).await.unwrap();
    let sending = tokio::spawn(stream.send(text("out")).into_future());
    assert!(sending.await.unwrap_err().is_panic());
    stream.send(text("a")).await.unwrap();
    assert_eq!(stream.next().await.unwrap(), "echo a");
    let calling = tokio::spawn(
        census(&client, "who")
            .interceptor(|_: OutgoingCall, _: NextMultiCall| async { panic!() })
            .into_future(),
    );
    assert!(calling.await.unwrap_err().is_panic());
    assert_eq!(client.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_a_stream_interceptor_only_prevents_opening() {
    for fault in ["opened", "closed", "drop"] {
        let (bus, log) = (LocalBus::new(), Log::default());
        let options = ServerOptions::new()
            .stream_interceptor(faulty(fault))
            .stream_interceptor(logging(&log, "server"));
        let server = server(&bus, "elm", options, echo).await;
        let client = client_with(&bus, ClientOptions::new().stream_interceptor(faulty(fault))).await;
        let other = parade(&client).await;
        let stream = parade(&client).await;
        stream.send(text("a")).await.unwrap();
        assert_eq!(stream.next().await.unwrap(), "echo a", "{fault}");
        drop(stream);
        other.send(text("b")).await.unwrap();
        assert_eq!(other.next().await.unwrap(), "echo b", "{fault}");
        assert!(log.take().iter().any(|line| line.contains("closed")), "{fault}");
        drop(other);
        settle().await;
        assert_eq!((client.streams(), server.streams()), (0, 0), "{fault}");
    }
    let (bus, log) = (LocalBus::new(), Log::default());
    let panics = log.clone();
    let options = ServerOptions::new()
        .stream_interceptor(faulty("open"))
        .on_panic(move |info, _| panics.add(format!("{info} panicked")));
    let server = server(&bus, "elm", options, |_| async { panic!("the handler must not run") }).await;
    let stream = parade(&client(&bus).await).await;
    assert_eq!(stream.closed().await.to_string(), "internal: an interceptor panicked");
    settle().await;
    assert_eq!((log.take(), server.streams()), (vec![text("Shop.Parade panicked")], 0));
}
