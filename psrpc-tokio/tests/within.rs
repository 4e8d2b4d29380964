//! Calls within a handler: bounded by its deadline, ended with it, and part of its trace.

mod hats;

use std::future::{Future, IntoFuture, pending};
use std::sync::Arc;
use std::time::Duration;

use hats::{FIT, HATS, Log, PICK, client, echo, fit, runtime, serve, settle};
use psrpc_bus_local::LocalBus;
use psrpc_tokio::*;
use tokio::sync::oneshot;

static DESK: Service = Service {
    name: "Desk",
    methods: &[
        Method::call(0, "Ask", MethodProperties { routing: Routing::Queue, require_claim: true }),
        Method::stream(1, "Talk", MethodProperties { routing: Routing::Affinity, require_claim: true }),
    ],
};
static ASK: &Method = &DESK.methods[0];
static TALK: &Method = &DESK.methods[1];

const MS: Duration = Duration::from_millis(1);

/// A desk whose handler calls the service of hats.
struct Desk {
    client: Client,
    _server: Server,
}

impl Desk {
    /// The handler gets the request and a client of the service of hats.
    async fn new<F, Fut>(bus: &LocalBus, options: ClientOptions, handler: F) -> Self
    where
        F: Fn(Client, Request<String>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<String, Error>> + Send + 'static,
    {
        let hats = client(bus, options).await;
        let handlers =
            Handlers::new(&DESK, hats).unary(ASK, move |hats, request| handler((*hats).clone(), request));
        Self::serving(bus, handlers, &[ASK]).await
    }

    async fn serving(bus: &LocalBus, handlers: Handlers<Client>, methods: &[&'static Method]) -> Self {
        let server = Server::new(bus.clone(), runtime(), handlers, ServerOptions::new()).unwrap();
        server.register(methods, &[]).await.unwrap();
        let client = Client::new(bus.clone(), runtime(), &DESK, ClientOptions::new()).await.unwrap();
        Self { client, _server: server }
    }

    fn ask(&self) -> Call<String, String> {
        self.client.call(ASK, &[], "fez".to_owned())
    }
}

/// A handler that notes its remaining time, and never ends.
fn stuck(log: &Log) -> impl Fn(Request<String>) -> BoxFuture<Result<String, Error>> + Clone + use<> {
    let log = log.clone();
    move |request| {
        log.add(format!("{:?} remain", request.remaining()));
        let dropped = LogOnDrop(log.clone());
        Box::pin(async move {
            let _dropped = dropped;
            pending().await
        })
    }
}

struct LogOnDrop(Log);

impl Drop for LogOnDrop {
    fn drop(&mut self) {
        self.0.add("dropped");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_within_a_handler_has_its_deadline_even_with_a_longer_timeout() {
    let (bus, log) = (LocalBus::new(), Log::default());
    let _hats = serve(&bus, ServerOptions::new(), stuck(&log)).await;
    let desk = Desk::new(&bus, ClientOptions::new(), |hats, request| async move {
        tokio::time::sleep(100 * MS).await;
        fit(&hats, "fez").timeout(5000 * MS).within(&request).await
    })
    .await;
    let error = desk.ask().timeout(700 * MS).await.unwrap_err();
    assert_eq!(error.code(), &ErrorCode::DeadlineExceeded);
    settle().await;
    assert_eq!(log.take(), ["600ms remain", "dropped"]);
}

#[tokio::test(start_paused = true)]
async fn a_shorter_timeout_or_deadline_of_the_call_applies() {
    let (bus, log) = (LocalBus::new(), Log::default());
    let _hats = serve(&bus, ServerOptions::new(), stuck(&log)).await;
    let desk = Desk::new(&bus, ClientOptions::new(), |hats, request| async move {
        let by_timeout = fit(&hats, "fez").within(&request).timeout(50 * MS).await;
        let deadline = runtime().now().time + 20 * MS;
        let by_deadline = fit(&hats, "fez").deadline(deadline).within(&request).await;
        let code = |result: Result<String, Error>| result.unwrap_err().code().to_string();
        Ok(format!("{} {}", code(by_timeout), code(by_deadline)))
    })
    .await;
    assert_eq!(desk.ask().await.unwrap(), "deadline_exceeded deadline_exceeded");
    assert_eq!(log.take(), ["50ms remain", "dropped", "20ms remain", "dropped"]);
}

/// Makes two calls within a handler, one by a client within it, and awaits them in other tasks.
/// Returns their results once the handler has ended in the given way.
async fn spawned_calls(end: impl Future<Output = ()> + Send + 'static, caller_waits: bool) -> Vec<String> {
    let (bus, log) = (LocalBus::new(), Log::default());
    let _hats = serve(&bus, ServerOptions::new(), stuck(&log)).await;
    let (results, mut received) = tokio::sync::mpsc::unbounded_channel();
    let end = std::sync::Mutex::new(Some(end));
    let desk = Desk::new(&bus, ClientOptions::new(), move |hats, request| {
        let (call, scoped) = (fit(&hats, "fez").within(&request), hats.within(&request));
        let results = results.clone();
        let send = results.clone();
        tokio::spawn(async move { send.send(call.await.map(|_| ())) });
        tokio::spawn(async move { results.send(fit(&scoped, "fez").await.map(|_| ())) });
        let end = end.lock().unwrap().take().expect("one request");
        async move {
            end.await;
            Ok(request.into_message())
        }
    })
    .await;
    let call = tokio::spawn(desk.ask().timeout(60_000 * MS).into_future());
    settle().await;
    if caller_waits {
        call.await.unwrap().unwrap();
    } else {
        call.abort();
    }
    let mut texts = Vec::new();
    for _ in 0..2 {
        texts.push(received.recv().await.unwrap().unwrap_err().to_string());
    }
    settle().await;
    // Canceled calls cancel the handlers that they reached.
    assert_eq!(log.take().iter().filter(|event| *event == "dropped").count(), 2);
    texts
}

#[tokio::test(start_paused = true)]
async fn a_call_in_another_task_ends_when_the_handler_returns() {
    let texts = spawned_calls(tokio::time::sleep(300 * MS), true).await;
    assert_eq!(texts, ["canceled: the handler that made this call has ended"; 2]);
}

#[tokio::test(start_paused = true)]
async fn a_call_in_another_task_ends_when_the_caller_of_the_handler_gives_up() {
    let texts = spawned_calls(pending(), false).await;
    assert_eq!(texts, ["canceled: the handler that made this call has ended"; 2]);
}

#[tokio::test(start_paused = true)]
async fn a_call_within_a_request_whose_handler_has_ended_does_not_start() {
    let (bus, log) = (LocalBus::new(), Log::default());
    let _hats = serve(&bus, ServerOptions::new(), stuck(&log)).await;
    let (send, kept) = oneshot::channel();
    let send = std::sync::Mutex::new(Some(send));
    let desk = Desk::new(&bus, ClientOptions::new(), move |hats, request| {
        let send = send.lock().unwrap().take().expect("one request");
        send.send(hats.within(&request)).expect("the test waits");
        async { Ok(String::new()) }
    })
    .await;
    desk.ask().await.unwrap();
    settle().await;
    let error = fit(&kept.await.unwrap(), "fez").await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (&ErrorCode::Canceled, Some(Reason::Canceled)));
    assert!(!error.may_have_run(), "nothing was sent");
    assert!(log.take().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_call_within_a_request_that_another_server_runs_ends() {
    let (bus, log) = (LocalBus::new(), Log::default());
    let handlers = Handlers::new(&HATS, stuck(&log)).unary(FIT, |stuck, request| stuck(request));
    let fitter = Server::new(bus.clone(), runtime(), handlers, ServerOptions::new()).unwrap();
    fitter.register(&[FIT], &[]).await.unwrap();
    let hats = client(&bus, ClientOptions::new()).await;
    let (results, mut received) = tokio::sync::mpsc::unbounded_channel();
    // Two servers bid. The affinity function of each one makes a call within the request.
    let mut servers = Vec::new();
    for affinity in [0.4, 0.9] {
        let (hats, results) = (hats.clone(), results.clone());
        let handlers = Handlers::new(&HATS, ()).unary_with_affinity(PICK, |_, request| echo(request), {
            move |_: &(), request: &Request<String>| {
                let (call, results) = (fit(&hats, "fez").timeout(9000 * MS).within(request), results.clone());
                tokio::spawn(async move { results.send((affinity, call.await.unwrap_err().to_string())) });
                affinity
            }
        });
        let server = Server::new(bus.clone(), runtime(), handlers, ServerOptions::new()).unwrap();
        server.register(&[PICK], &[]).await.unwrap();
        servers.push(server);
    }
    let picked: Call<String, String> = hats.call(PICK, &[], "top".to_owned());
    assert_eq!(picked.await.unwrap(), "top");
    let mut ended = vec![received.recv().await.unwrap(), received.recv().await.unwrap()];
    ended.sort_by(|one, other| f32::total_cmp(&one.0, &other.0));
    let text = "canceled: the handler that made this call has ended".to_owned();
    assert_eq!(ended, [(0.4, text.clone()), (0.9, text)]);
}

#[tokio::test(start_paused = true)]
async fn responses_to_a_multi_call_end_with_the_handler() {
    static CENSUS: Service = Service {
        name: "Census",
        methods: &[Method::call(
            0,
            "Count",
            MethodProperties { routing: Routing::Multi, require_claim: false },
        )],
    };
    let bus = LocalBus::new();
    let handlers = Handlers::new(&CENSUS, ()).unary(&CENSUS.methods[0], |_, request| echo(request));
    let counted = Server::new(bus.clone(), runtime(), handlers, ServerOptions::new()).unwrap();
    counted.register(&[&CENSUS.methods[0]], &[]).await.unwrap();
    let census = Client::new(bus.clone(), runtime(), &CENSUS, ClientOptions::new()).await.unwrap();
    let (send, kept) = oneshot::channel();
    let send = std::sync::Mutex::new(Some(send));
    let desk = Desk::new(&bus, ClientOptions::new(), move |_, request| {
        let (send, census) = (send.lock().unwrap().take().expect("one request"), census.clone());
        async move {
            let call = census.multi_call::<_, String>(&CENSUS.methods[0], &[], "one".to_owned());
            let mut responses = call.timeout(9000 * MS).within(&request).await?;
            let first = responses.next().await.expect("one server")?.into_message();
            send.send(responses).expect("the test waits");
            Ok(first)
        }
    })
    .await;
    assert_eq!(desk.ask().await.unwrap(), "one");
    let mut responses = kept.await.unwrap();
    let error = responses.next().await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "canceled: the handler that made this call has ended");
    assert!(responses.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn the_trace_context_and_named_metadata_go_along() {
    let (bus, seen) = (LocalBus::new(), Log::default());
    let recorder = seen.clone();
    let _hats = serve(&bus, ServerOptions::new(), move |request| {
        for (name, value) in request.metadata().iter() {
            recorder.add(format!("{name}={value}"));
        }
        echo(request)
    })
    .await;
    let options = ClientOptions::new().propagate_metadata("tenant").propagate_metadata("zone");
    let desk = Desk::new(&bus, options, |hats, request| async move {
        fit(&hats, "fez").metadata("zone", "own").within(&request).await
    })
    .await;
    let ask = desk.ask().metadata("tenant", "acme").metadata("zone", "theirs").metadata("secret", "x");
    ask.metadata("traceparent", "00-1-2-01").metadata("baggage", "a=b").await.unwrap();
    let mut seen = seen.take();
    seen.sort_unstable();
    assert_eq!(seen, ["baggage=a=b", "tenant=acme", "traceparent=00-1-2-01", "zone=own"]);
}

#[tokio::test(start_paused = true)]
async fn calls_within_the_handler_of_a_stream_have_no_deadline_and_end_with_it() {
    let (bus, log) = (LocalBus::new(), Log::default());
    let _hats = serve(&bus, ServerOptions::new(), stuck(&log)).await;
    let (results, mut received) = tokio::sync::mpsc::unbounded_channel();
    let hats = client(&bus, ClientOptions::new()).await;
    let handlers = Handlers::new(&DESK, hats).stream(
        TALK,
        move |hats: Arc<Client>, stream: ServerStream<String, String>| {
            let call = fit(&hats, "fez").timeout(9000 * MS).within(&stream);
            let results = results.clone();
            tokio::spawn(async move { results.send(call.await) });
            async move {
                stream.next().await;
                Ok(())
            }
        },
    );
    let desk = Desk::serving(&bus, handlers, &[TALK]).await;
    let stream: ClientStream<String, String> =
        desk.client.open_stream(TALK, &[]).timeout(500 * MS).await.unwrap();
    tokio::time::sleep(1000 * MS).await;
    assert!(received.try_recv().is_err(), "the opening's deadline is not the handler's");
    stream.send("bye".to_owned()).await.unwrap();
    let error = received.recv().await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "canceled: the handler that made this call has ended");
    settle().await;
    assert_eq!(log.take(), ["9s remain", "dropped"]);
}
