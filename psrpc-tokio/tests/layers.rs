//! What is around multi calls and streams: the order of interceptors and hooks, and what each of
//! them may do.

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

fn word(message: &AnyMessage) -> &str {
    message.downcast_ref::<String>().unwrap()
}

fn more(message: &AnyMessage, what: &str) -> AnyMessage {
    AnyMessage::new(format!("{}{what}", word(message)))
}

fn code<T: std::fmt::Debug>(result: Result<T, Error>) -> ErrorCode {
    result.unwrap_err().code().clone()
}

// --- multi calls ---------------------------------------------------------------------------------

/// Logs when a multi call passes, and its answers.
fn multi(log: &Log, name: &'static str) -> impl MultiCallInterceptor + use<> {
    let log = log.clone();
    move |call: OutgoingCall, next: NextMultiCall| {
        let log = log.clone();
        async move {
            log.add(format!("{name} in"));
            let answers = next.run(call).await?;
            Ok(answers.map_responses(move |answer| {
                log.add(format!("{name} out"));
                answer
            }))
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_interceptor_of_multi_calls_is_the_outermost_and_hooks_are_around_them_all() {
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
        .request_hook(move |info, request| requests.add(format!("{info} {}", word(request))))
        .response_hook(move |_, request, result| {
            responses.add(format!("{} of {}", result.is_ok(), word(request)));
        })
        .with(ClientOptions::new().multi_interceptor(multi(&log, "client 2")));
    let client = client_with(&bus, options).await;
    let call = census(&client, "fail").answers(2);
    let call = call.interceptor(multi(&log, "call 1")).interceptor(multi(&log, "call 2")).into_future();
    assert!(log.take().is_empty(), "nothing happens before the call is polled");
    let answers = call.await.unwrap();
    let way_in = ["Shop.Census fail", "client 1 in", "client 2 in", "call 1 in", "call 2 in"];
    assert_eq!(log.take(), way_in);
    assert_eq!(all(answers).await, ["resource_exhausted: out of hats"; 2]);
    let way_out = ["call 2 out", "call 1 out", "client 2 out", "client 1 out", "false of fail"];
    assert_eq!(log.take(), [["handler, multi: true"; 2].as_slice(), &way_out, &way_out].concat());
    assert_eq!(all(census(&client, "who").answers(1).await.unwrap()).await.len(), 1);
    assert!(!log.take().concat().contains("call"), "those of one call are not around the next");
}

#[tokio::test(start_paused = true)]
async fn an_interceptor_changes_the_request_the_options_and_the_answers_of_a_multi_call() {
    let bus = LocalBus::new();
    let options =
        ServerOptions::new().interceptor(|request: Request<AnyMessage>, _: NextHandler| async move {
            let shop = request.metadata().get("shop").unwrap();
            Ok(more(&request, &format!(" at the {shop} within {:?}", request.remaining())))
        });
    let _server = server(&bus, "elm", options, echo).await;
    let change = |mut call: OutgoingCall, next: NextMultiCall| async move {
        assert_eq!(call.options.timeout, Some(Duration::from_secs(9)));
        call.message = more(&call.message, "!");
        call.options.metadata.insert("shop", "corner");
        call.options.timeout = Some(Duration::from_millis(10));
        let answers = next.run(call).await?;
        Ok(answers.map_responses(|answer| answer?.try_map(|message| Ok(more(&message, "?")))))
    };
    let client = client_with(&bus, ClientOptions::new().multi_interceptor(change)).await;
    let started = runtime().now().time;
    let answers = census(&client, "who").timeout(Duration::from_secs(9)).await.unwrap();
    assert_eq!(all(answers).await, ["who! at the corner within 10ms?"]);
    assert_eq!(runtime().now().time.since(started).as_millis(), 10);
}

/// Answers that no server gave.
struct Fake(VecDeque<Result<Response<AnyMessage>, Error>>);

impl Stream for Fake {
    type Item = Result<Response<AnyMessage>, Error>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(self.0.pop_front())
    }
}

#[tokio::test(start_paused = true)]
async fn an_interceptor_answers_a_multi_call_by_itself_or_refuses_it() {
    let (bus, log) = (LocalBus::new(), Log::default());
    let client = client(&bus).await;
    let fake = |_: OutgoingCall, _: NextMultiCall| async {
        let gone = Err(error(ErrorCode::NotFound));
        let answers = ["ash", "oak"].map(|name| Ok(Response::new(name, AnyMessage::new(text(name)))));
        Ok(Responses::new(Fake(answers.into_iter().chain([gone]).collect())))
    };
    let call = census(&client, "who").interceptor(fake).interceptor(multi(&log, "beyond it"));
    assert_eq!(all(call.await.unwrap()).await, ["ash", "oak", "not_found: no hat"]);
    let refuse = |_: OutgoingCall, _: NextMultiCall| async { Err(error(ErrorCode::PermissionDenied)) };
    let call = census(&client, "who").interceptor(refuse).interceptor(multi(&log, "beyond it"));
    assert_eq!(code(call.await), ErrorCode::PermissionDenied);
    assert!(log.take().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_message_of_another_type_fails_its_multi_call_or_stands_for_one_answer() {
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
    let answer = |call: OutgoingCall, next: NextMultiCall| async move {
        Ok(next.run(call).await?.map_responses(|answer| match answer? {
            elm if elm.server_id() == "elm" => elm.try_map(|_| Ok(AnyMessage::new(7_u32))),
            other => Ok(other),
        }))
    };
    let answers = census(&client, "who").interceptor(answer).answers(2).await.unwrap();
    let wrong = "internal: the message is of the type u32, not alloc::string::String";
    let mut answers = all(answers).await;
    answers.sort();
    assert_eq!(answers, [wrong, "oak"]);
}

#[tokio::test(start_paused = true)]
async fn a_multi_call_with_interceptors_ends_when_its_answers_are_dropped() {
    let (bus, log) = (LocalBus::new(), Log::default());
    let client = client_with(&bus, ClientOptions::new().multi_interceptor(multi(&log, "client"))).await;
    let answers = census(&client, "who").await.unwrap();
    assert_eq!(client.in_flight(), 1);
    drop(answers);
    assert_eq!(client.in_flight(), 0);
}

// --- streams -------------------------------------------------------------------------------------

/// Logs all that a stream does, and does as a message says.
struct Noting(Log, &'static str);

fn noting(log: &Log, name: &'static str) -> impl StreamInterceptor + use<> {
    let log = log.clone();
    move |opening: &mut OpeningStream| {
        log.add(format!("{name} open {} at the {:?}", opening.info(), opening.side()));
        Ok(Box::new(Noting(log.clone(), name)) as Box<dyn InterceptedStream>)
    }
}

impl Noting {
    fn note(&self, what: &str) {
        self.0.add(format!("{} {what}", self.1));
    }
}

impl InterceptedStream for Noting {
    fn opened(&self) {
        self.note("opened");
    }

    fn send(
        &self,
        message: AnyMessage,
        options: SendOptions,
        next: NextSend,
    ) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send>> {
        self.note(&format!("send {}", word(&message)));
        next.run(message, options)
    }

    fn receive(&self, message: AnyMessage) -> Result<AnyMessage, Error> {
        self.note(&format!("receive {}", word(&message)));
        Ok(message)
    }

    fn closed(&self, cause: &Error) {
        self.note(&format!("closed: {cause}"));
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_interceptor_of_streams_is_the_outermost_in_all_that_they_do() {
    let (bus, ours, theirs) = (LocalBus::new(), Log::default(), Log::default());
    let options = ServerOptions::new()
        .stream_interceptor(noting(&theirs, "server 1"))
        .with(ServerOptions::new().stream_interceptor(noting(&theirs, "server 2")));
    let _server = server(&bus, "elm", options, echo).await;
    let options = ClientOptions::new()
        .stream_interceptor(noting(&ours, "client 1"))
        .with(ClientOptions::new().stream_interceptor(noting(&ours, "client 2")));
    let client = client_with(&bus, options).await;
    let opening = opening(&client).interceptor(noting(&ours, "own 1")).interceptor(noting(&ours, "own 2"));
    let opening = opening.into_future();
    assert!(ours.take().is_empty(), "nothing happens before it is polled");
    let stream = opening.await.unwrap();
    let sending = stream.send(text("a")).into_future();
    let each = |names: &[&str], what: &str| -> Vec<String> {
        names.iter().map(|name| format!("{name} {what}")).collect()
    };
    let names = ["client 1", "client 2", "own 1", "own 2"];
    let open = each(&names, "open Shop.Parade at the Client");
    assert_eq!(ours.take(), [open, each(&names, "opened")].concat(), "nothing is sent before it is polled");
    sending.await.unwrap();
    assert_eq!(stream.next().await.unwrap(), "echo a");
    stream.close(error(ErrorCode::NotFound));
    settle().await;
    let passed = ["send a", "receive echo a", "closed: not_found: no hat"];
    assert_eq!(ours.take(), passed.map(|what| each(&names, what)).concat());
    let names = ["server 1", "server 2"];
    let passed =
        ["open Shop.Parade at the Server", "opened", "receive a", "send echo a", "closed: not_found: no hat"];
    assert_eq!(theirs.take(), passed.map(|what| each(&names, what)).concat());
    drop(parade(&client).await);
    assert!(!ours.take().concat().contains("own"), "those of one stream are not around the next");
}

/// An interceptor that does nothing but to open in this way.
fn opens(
    open: impl Fn(&mut OpeningStream) -> Result<(), Error> + Send + Sync + 'static,
) -> impl StreamInterceptor {
    struct Nothing;

    impl InterceptedStream for Nothing {}

    move |opening: &mut OpeningStream| open(opening).map(|()| Box::new(Nothing) as Box<dyn InterceptedStream>)
}

#[tokio::test(start_paused = true)]
async fn an_interceptor_changes_how_a_stream_is_opened() {
    let bus = LocalBus::new();
    let options = ServerOptions::new().stream_interceptor(opens(|opening| {
        let metadata = &mut opening.options.metadata;
        let band = metadata.get("band").unwrap().clone();
        metadata.insert("band", format!("{band} and drums"));
        Ok(())
    }));
    let server = server(&bus, "elm", options, |stream| async move {
        stream.send(stream.metadata().get("band").unwrap().to_string()).await
    })
    .await;
    let change = opens(|opening| {
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
    assert_eq!(code(opening().await), ErrorCode::Unavailable);
    assert_eq!(runtime().now().time.since(started).as_millis(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_client_refuses_to_open_a_stream_before_anything_is_sent() {
    let (bus, log, theirs) = (LocalBus::new(), Log::default(), Log::default());
    let options = ServerOptions::new().stream_interceptor(noting(&theirs, "server"));
    let _server = server(&bus, "elm", options, echo).await;
    let client = client_with(&bus, ClientOptions::new().stream_interceptor(noting(&log, "outer"))).await;
    let refuse = opens(|_| Err(error(ErrorCode::PermissionDenied)));
    let opening = opening(&client).interceptor(refuse).interceptor(noting(&log, "beyond it"));
    assert_eq!(code(opening.await), ErrorCode::PermissionDenied);
    settle().await;
    assert_eq!(
        log.take(),
        ["outer open Shop.Parade at the Client", "outer closed: permission_denied: no hat"]
    );
    assert_eq!((client.in_flight(), theirs.take().len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn layers_hear_of_a_stream_that_does_not_come_to_be_open() {
    let (bus, log) = (LocalBus::new(), Log::default());
    let client = client_with(&bus, ClientOptions::new().stream_interceptor(noting(&log, "client"))).await;
    assert_eq!(code(opening(&client).await), ErrorCode::Unavailable);
    assert_eq!(
        log.take()[1..],
        ["client closed: unavailable: no response from servers (nobody was subscribed)"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_server_refuses_a_stream_without_running_its_handler() {
    let (bus, log) = (LocalBus::new(), Log::default());
    let options = ServerOptions::new()
        .stream_interceptor(noting(&log, "outer"))
        .stream_interceptor(opens(|_| Err(error(ErrorCode::PermissionDenied))))
        .stream_interceptor(noting(&log, "beyond it"));
    let server = server(&bus, "elm", options, |_| async { panic!("it does not run") }).await;
    let stream = parade(&client(&bus).await).await;
    assert_eq!(stream.closed().await.code(), &ErrorCode::PermissionDenied);
    settle().await;
    assert_eq!(
        log.take(),
        ["outer open Shop.Parade at the Server", "outer closed: permission_denied: no hat"]
    );
    assert_eq!(server.streams(), 0);
}

/// A layer that does harm, where it is told to.
struct Harmful(&'static str);

fn harmful(what: &'static str) -> impl StreamInterceptor {
    move |_: &mut OpeningStream| {
        assert_ne!(what, "open");
        Ok(Box::new(Harmful(what)) as Box<dyn InterceptedStream>)
    }
}

impl InterceptedStream for Harmful {
    fn opened(&self) {
        assert_ne!(self.0, "opened");
    }

    fn send(
        &self,
        message: AnyMessage,
        options: SendOptions,
        next: NextSend,
    ) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send>> {
        match (self.0, word(&message)) {
            ("panic", "out") => panic!("as it was told"),
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
        match (self.0, word(&message)) {
            ("panic", "echo in") => panic!("as it was told"),
            ("refuse", "echo in") => Err(error(ErrorCode::OutOfRange)),
            ("retype", "echo in") => Ok(AnyMessage::new(7_u32)),
            _ => Ok(message),
        }
    }

    fn closed(&self, _: &Error) {
        assert_ne!(self.0, "closed");
    }
}

impl Drop for Harmful {
    fn drop(&mut self) {
        assert_ne!(self.0, "drop");
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_that_a_layer_does_not_want_is_not_delivered_and_the_stream_goes_on() {
    for what in ["panic", "refuse", "retype"] {
        let (bus, log) = (LocalBus::new(), Log::default());
        let noted = log.clone();
        let options = ServerOptions::new().timeout(Duration::from_millis(100));
        let _server = server(&bus, "elm", options, move |stream| {
            let log = noted.clone();
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
        let stream = opening(&client).interceptor(harmful(what)).await.unwrap();
        stream.send(text("in")).await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(client.counters().get(Reason::Refused), 1, "{what}");
        assert_eq!(log.take(), ["deadline_exceeded: request timed out"], "{what}");
        stream.send(text("a")).await.unwrap();
        assert_eq!(stream.next().await.unwrap(), "echo a", "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_layer_refuses_a_message_or_sends_it_twice() {
    let bus = LocalBus::new();
    let _server = server(&bus, "elm", ServerOptions::new(), echo).await;
    let client = client(&bus).await;
    for (what, expected) in [("refuse", ErrorCode::OutOfRange), ("retype", ErrorCode::Internal)] {
        let stream = opening(&client).interceptor(harmful(what)).await.unwrap();
        assert_eq!(code(stream.send(text("out")).await), expected);
        stream.send(text("a")).await.unwrap();
        assert_eq!(stream.next().await.unwrap(), "echo a");
    }
    let stream = opening(&client).interceptor(harmful("twice")).await.unwrap();
    stream.send(text("out")).await.unwrap();
    assert_eq!([stream.next().await.unwrap(), stream.next().await.unwrap()], ["echo out", "echo out"]);
}

#[tokio::test(start_paused = true)]
async fn a_panic_goes_to_the_caller_where_it_is_around_the_caller() {
    let bus = LocalBus::new();
    let _server = server(&bus, "elm", ServerOptions::new(), echo).await;
    let client = client(&bus).await;
    let opening_task = tokio::spawn(opening(&client).interceptor(harmful("open")).into_future());
    assert!(opening_task.await.unwrap_err().is_panic());
    let stream = opening(&client).interceptor(harmful("panic")).await.unwrap();
    let sending = tokio::spawn(stream.send(text("out")).into_future());
    assert!(sending.await.unwrap_err().is_panic());
    stream.send(text("a")).await.unwrap();
    assert_eq!(stream.next().await.unwrap(), "echo a");
    let asking = tokio::spawn(
        census(&client, "who")
            .interceptor(|_: OutgoingCall, _: NextMultiCall| async { panic!() })
            .into_future(),
    );
    assert!(asking.await.unwrap_err().is_panic());
    assert_eq!(client.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_what_is_around_a_stream_ends_nothing_but_an_opening() {
    for what in ["opened", "closed", "drop"] {
        let (bus, log) = (LocalBus::new(), Log::default());
        let options =
            ServerOptions::new().stream_interceptor(harmful(what)).stream_interceptor(noting(&log, "server"));
        let server = server(&bus, "elm", options, echo).await;
        let client = client_with(&bus, ClientOptions::new().stream_interceptor(harmful(what))).await;
        let other = parade(&client).await;
        let stream = parade(&client).await;
        stream.send(text("a")).await.unwrap();
        assert_eq!(stream.next().await.unwrap(), "echo a", "{what}");
        drop(stream);
        other.send(text("b")).await.unwrap();
        assert_eq!(other.next().await.unwrap(), "echo b", "{what}");
        assert!(log.take().iter().any(|line| line.contains("closed")), "{what}");
        drop(other);
        settle().await;
        assert_eq!((client.streams(), server.streams()), (0, 0), "{what}");
    }
    let (bus, log) = (LocalBus::new(), Log::default());
    let panics = log.clone();
    let options = ServerOptions::new()
        .stream_interceptor(harmful("open"))
        .on_panic(move |info, _| panics.add(format!("{info} panicked")));
    let server = server(&bus, "elm", options, |_| async { panic!("it does not run") }).await;
    let stream = parade(&client(&bus).await).await;
    assert_eq!(stream.closed().await.to_string(), "internal: an interceptor panicked");
    settle().await;
    assert_eq!((log.take(), server.streams()), (vec![text("Shop.Parade panicked")], 0));
}
