//! Streams and multi calls on a bus with faults, in virtual time. Their guarantees hold under every
//! fault.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use psrpc::proto::{Channel, Frame, Stream, StreamBody};
use psrpc::{ClientOptions, ClientStream, Error, Reason, Request, Runtime, ServerOptions, ServerStream};
use psrpc_bus_local::LocalBus;
use psrpc_conformance::proto::{Ask, Reply, Shop, ShopClient, ShopServer};
use psrpc_conformance::runtime::{Host, Solo};
use psrpc_testing::{FaultyBus, Rule};

const SECOND: Duration = Duration::from_secs(1);

/// Replies to every message, and records what it received.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Record>>);

#[derive(Default)]
struct Record {
    /// The number of handler runs for each stream, by the name in its metadata.
    runs: BTreeMap<String, u32>,
    received: Vec<String>,
    causes: Vec<Error>,
    requests: u32,
}

impl Recorder {
    fn with_record<T>(&self, f: impl FnOnce(&mut Record) -> T) -> T {
        f(&mut self.0.lock().unwrap())
    }

    fn received(&self) -> Vec<String> {
        self.with_record(|record| record.received.clone())
    }
}

impl Shop for Recorder {
    async fn parade(&self, stream: ServerStream<Reply, Ask>) -> Result<(), Error> {
        let name = stream.metadata().get("name").unwrap().to_string();
        self.with_record(|record| *record.runs.entry(name).or_default() += 1);
        while let Some(Ask { text, .. }) = stream.next().await {
            self.with_record(|record| record.received.push(text.clone()));
            // The tests check the reply, if there is one.
            let _ = stream.send(Reply { text, ..Reply::default() }).await;
        }
        self.with_record(|record| record.causes.extend(stream.cause()));
        Ok(())
    }

    async fn census(&self, ask: Request<Ask>) -> Result<Reply, Error> {
        self.with_record(|record| record.requests += 1);
        Ok(Reply { text: ask.text.clone(), ..Reply::default() })
    }
}

/// A server and a client on a faulty bus.
struct Fixture {
    solo: Solo,
    bus: FaultyBus,
    recorder: Recorder,
    server: ShopServer,
    client: ShopClient,
}

fn run<F: Future<Output = ()>>(test: impl FnOnce(Fixture) -> F) {
    run_with(1, ClientOptions::new(), ServerOptions::new(), test);
}

fn run_with<F: Future<Output = ()>>(
    seed: u64,
    client: ClientOptions,
    server: ServerOptions,
    test: impl FnOnce(Fixture) -> F,
) {
    let solo = Solo::new();
    let bus = FaultyBus::new(LocalBus::new(), solo.clone(), seed);
    let recorder = Recorder::default();
    solo.clone().block_on(Box::pin(async move {
        let server =
            ShopServer::with_runtime(bus.clone(), solo.clone(), recorder.clone(), server).await.unwrap();
        let client = ShopClient::with_runtime(bus.clone(), solo.clone(), client).await.unwrap();
        test(Fixture { solo, bus, recorder, server, client }).await;
    }));
}

impl Fixture {
    async fn open(&self, name: &str) -> Result<ClientStream<Ask, Reply>, Error> {
        self.client.parade().metadata("name", name).await
    }

    async fn sleep(&self, duration: Duration) {
        self.solo.sleep_until(self.solo.now().time + duration).await;
    }

    /// Checks that no state is left once everything has expired.
    async fn check_nothing_left(&self) {
        self.sleep(10 * SECOND).await;
        let (client, server) = (self.client.client(), self.server.server());
        assert_eq!((client.streams(), client.in_flight()), (0, 0));
        assert_eq!((server.streams(), server.in_flight()), (0, 0));
    }
}

async fn send(stream: &ClientStream<Ask, Reply>, text: &str) -> Result<(), Error> {
    stream.send(Ask { text: text.to_owned(), ..Ask::default() }).await
}

fn texts(count: u32) -> Vec<String> {
    (0..count).map(|number| number.to_string()).collect()
}

/// Matches frames of streams by their body.
fn stream_frames(
    matches: impl Fn(&StreamBody) -> bool + Send + 'static,
) -> impl Fn(&Channel, &Frame) -> bool + Send + 'static {
    move |_, frame| matches!(frame, Frame::Stream(Stream { body: Some(body), .. }) if matches(body))
}

fn acks() -> impl Fn(&Channel, &Frame) -> bool + Send + 'static {
    stream_frames(|body| matches!(body, StreamBody::Ack))
}

fn closes() -> impl Fn(&Channel, &Frame) -> bool + Send + 'static {
    stream_frames(|body| matches!(body, StreamBody::Close { .. }))
}

/// Checks that messages of a stream arrive in order and once, each way, that each stream has one
/// handler, and that a multi call gets one response.
async fn check_order_and_duplicates(fixture: &Fixture) {
    for round in 0..5 {
        let stream = fixture.open(&round.to_string()).await.unwrap();
        for text in texts(20) {
            send(&stream, &text).await.unwrap();
            assert_eq!(stream.next().await.unwrap().text, text);
        }
        drop(stream);
        let mut answers = fixture.client.census(Ask::default()).timeout(SECOND).await.unwrap();
        answers.next().await.unwrap().unwrap();
        assert!(answers.next().await.is_none(), "there was a second response");
    }
    fixture.check_nothing_left().await;
    let runs = fixture.recorder.with_record(|record| record.runs.values().copied().collect::<Vec<_>>());
    assert_eq!(runs, [1; 5], "the number of handler runs for each stream");
    assert_eq!(fixture.recorder.received(), [(); 5].map(|()| texts(20)).concat());
    assert_eq!(fixture.recorder.with_record(|record| record.requests), 5);
}

#[test]
fn nothing_comes_twice_where_every_frame_does() {
    run(|fixture| async move {
        fixture.bus.inject(Rule::duplicate(2));
        check_order_and_duplicates(&fixture).await;
        assert!(fixture.bus.injected().duplicated > 500);
    });
}

#[test]
fn nothing_comes_twice_where_copies_come_late() {
    run(|fixture| async move {
        fixture.bus.inject(Rule::duplicate(2));
        fixture.bus.inject(Rule::delay_within(Duration::ZERO..=Duration::from_millis(300)));
        check_order_and_duplicates(&fixture).await;
        assert!(fixture.bus.injected().delayed > 500);
    });
}

#[test]
fn sends_in_a_row_arrive_in_order_where_frames_overtake_each_other() {
    run(|fixture| async move {
        fixture.bus.inject(Rule::reorder(2, Duration::from_millis(50)).probability(0.5));
        check_order_and_duplicates(&fixture).await;
        assert!(fixture.bus.injected().reordered > 100);
    });
}

#[test]
fn sends_at_once_all_arrive_once_where_frames_overtake_each_other() {
    run(|fixture| async move {
        let stream = fixture.open("a").await.unwrap();
        fixture.bus.inject(Rule::reorder(3, Duration::from_millis(50)).probability(0.5));
        let mut sends: Vec<_> = (0..100)
            .map(|number| {
                let text = format!("{number:02}");
                Box::pin(stream.send(Ask { text, ..Ask::default() }).into_future())
            })
            .collect();
        // All sends are in flight before the first is awaited.
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        sends.iter_mut().for_each(|send| assert!(send.as_mut().poll(&mut cx).is_pending()));
        for send in sends {
            send.await.unwrap();
        }
        // The handler replies to each message before it receives the next.
        fixture.sleep(10 * SECOND).await;
        let mut received = fixture.recorder.received();
        assert!(!received.is_sorted(), "no message overtook another");
        received.sort();
        assert!(received.into_iter().eq((0..100).map(|number| format!("{number:02}"))));
    });
}

#[test]
fn a_send_whose_ack_is_lost_fails_by_its_deadline_and_has_arrived_once() {
    run(|fixture| async move {
        let stream = fixture.open("a").await.unwrap();
        let rule = fixture.bus.inject(Rule::drop().when(acks()).first(1));
        let start = fixture.solo.now().time;
        let error = send(&stream, "unacknowledged").await.unwrap_err();
        assert_eq!(error.reason(), Some(Reason::TimedOut));
        assert_eq!(fixture.solo.now().time.since(start), 3 * SECOND);
        assert_eq!(fixture.recorder.received(), ["unacknowledged"]);
        fixture.bus.remove(rule);
        assert_eq!(stream.next().await.unwrap().text, "unacknowledged");
        send(&stream, "the next").await.unwrap();
        assert_eq!(stream.next().await.unwrap().text, "the next");
    });
}

#[test]
fn a_send_whose_message_is_lost_fails_by_its_deadline_and_never_arrives() {
    run(|fixture| async move {
        let stream = fixture.open("a").await.unwrap();
        let message = stream_frames(|body| matches!(body, StreamBody::Message { .. }));
        fixture.bus.inject(Rule::drop().when(message).first(1));
        assert_eq!(send(&stream, "lost").await.unwrap_err().reason(), Some(Reason::TimedOut));
        send(&stream, "the next").await.unwrap();
        fixture.sleep(10 * SECOND).await;
        assert_eq!(fixture.recorder.received(), ["the next"]);
    });
}

#[test]
fn a_message_that_is_late_beyond_its_expiry_is_not_delivered() {
    run(|fixture| async move {
        let stream = fixture.open("a").await.unwrap();
        let message = stream_frames(|body| matches!(body, StreamBody::Message { .. }));
        fixture.bus.inject(Rule::delay(4 * SECOND).when(message).first(1));
        assert_eq!(send(&stream, "late").await.unwrap_err().reason(), Some(Reason::TimedOut));
        fixture.sleep(10 * SECOND).await;
        assert!(fixture.recorder.received().is_empty());
        assert_eq!(fixture.server.server().counters().get(Reason::ExpiredMessage), 1);
    });
}

#[test]
fn an_opening_whose_ack_is_lost_fails_and_its_handler_ends() {
    run(|fixture| async move {
        fixture.bus.inject(Rule::drop().when(acks()).first(1));
        let error = fixture.open("a").await.unwrap_err();
        assert_eq!(error.reason(), Some(Reason::TimedOut));
        fixture.check_nothing_left().await;
        let (runs, causes) =
            fixture.recorder.with_record(|record| (record.runs.clone(), record.causes.len()));
        assert_eq!((runs["a"], causes), (1, 1));
    });
}

#[test]
fn an_idle_timeout_ends_what_a_lost_close_has_left_at_the_server() {
    let options = ServerOptions::new().stream_idle_timeout(5 * SECOND);
    run_with(1, ClientOptions::new(), options, |fixture| async move {
        let stream = fixture.open("a").await.unwrap();
        send(&stream, "still here").await.unwrap();
        fixture.bus.inject(Rule::drop().when(closes()).first(1));
        drop(stream);
        fixture.sleep(4 * SECOND).await;
        assert_eq!((fixture.client.client().streams(), fixture.server.server().streams()), (0, 1));
        fixture.sleep(2 * SECOND).await;
        assert_eq!(fixture.server.server().streams(), 0);
        fixture.recorder.with_record(|record| assert_eq!(record.causes[0].reason(), Some(Reason::Idle)));
    });
}

#[test]
fn an_idle_timeout_ends_what_a_lost_close_has_left_at_the_client() {
    let options = ClientOptions::new().stream_idle_timeout(5 * SECOND);
    run_with(1, options, ServerOptions::new(), |fixture| async move {
        let stream = fixture.open("a").await.unwrap();
        fixture.bus.inject(Rule::drop().when(closes()).first(1));
        fixture.server.kill();
        let start = fixture.solo.now().time;
        let cause = stream.closed().await;
        assert_eq!(cause.reason(), Some(Reason::Idle));
        assert_eq!(fixture.solo.now().time.since(start), 5 * SECOND);
        assert_eq!(fixture.client.client().streams(), 0);
    });
}

#[test]
fn what_is_promised_of_streams_holds_under_faults_of_every_kind() {
    let options = || ServerOptions::new().stream_idle_timeout(30 * SECOND);
    let (mut sent, mut failed) = (0, 0);
    for seed in 0..40 {
        let client = ClientOptions::new().stream_idle_timeout(30 * SECOND);
        let (sent, failed) = (&mut sent, &mut failed);
        run_with(seed, client, options(), |fixture| async move {
            fixture.bus.inject(Rule::drop().probability(0.05));
            fixture.bus.inject(Rule::duplicate(1).probability(0.1));
            fixture.bus.inject(Rule::reorder(2, Duration::from_millis(100)).probability(0.1));
            fixture
                .bus
                .inject(Rule::delay_within(Duration::ZERO..=Duration::from_millis(2500)).probability(0.1));
            let mut delivered = Vec::new();
            for name in texts(5) {
                let Ok(stream) = fixture.open(&name).await else { continue };
                for text in texts(10) {
                    let text = format!("{name}/{text}");
                    match send(&stream, &text).await {
                        Ok(()) => delivered.push(text),
                        Err(_) => *failed += 1,
                    }
                }
            }
            fixture.bus.heal();
            fixture.sleep(40 * SECOND).await;
            *sent += delivered.len();
            let mut received = fixture.recorder.received();
            // Failed sends may have arrived too, even late. Only the order within a stream is
            // guaranteed.
            received.retain(|text| delivered.contains(text));
            received.sort_by_key(|text| text.split('/').next().map(str::to_owned));
            assert_eq!(
                received, delivered,
                "seed {seed}: the messages delivered, compared to the successful sends"
            );
            let all = fixture.recorder.received();
            let distinct: std::collections::BTreeSet<_> = all.iter().collect();
            assert_eq!(distinct.len(), all.len(), "seed {seed}: a message was delivered twice");
            fixture.recorder.with_record(|record| {
                assert!(
                    record.runs.values().all(|runs| *runs == 1),
                    "seed {seed}: a stream had two handlers"
                );
            });
            fixture.check_nothing_left().await;
            // Without faults, a new stream works.
            let stream = fixture.open("fresh").await.unwrap();
            send(&stream, "fresh").await.unwrap();
            assert_eq!(stream.next().await.unwrap().text, "fresh");
        });
    }
    assert!(sent > 1000 && failed > 50, "{sent} sent and {failed} failed");
}
