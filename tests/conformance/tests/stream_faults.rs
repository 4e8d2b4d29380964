//! Streams and multi calls on a bus with faults, in virtual time: what is promised of them holds
//! whatever becomes of frames.

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

/// Answers every message, and keeps a book of all that it saw.
#[derive(Clone, Default)]
struct Witness(Arc<Mutex<Book>>);

#[derive(Default)]
struct Book {
    /// How often a handler ran for each stream, by the name that its client gave it.
    runs: BTreeMap<String, u32>,
    heard: Vec<String>,
    causes: Vec<Error>,
    asked: u32,
}

impl Witness {
    fn book<T>(&self, look: impl FnOnce(&mut Book) -> T) -> T {
        look(&mut self.0.lock().unwrap())
    }

    fn heard(&self) -> Vec<String> {
        self.book(|book| book.heard.clone())
    }
}

impl Shop for Witness {
    async fn parade(&self, stream: ServerStream<Reply, Ask>) -> Result<(), Error> {
        let name = stream.metadata().get("name").unwrap().to_string();
        self.book(|book| *book.runs.entry(name).or_default() += 1);
        while let Some(Ask { text, .. }) = stream.next().await {
            self.book(|book| book.heard.push(text.clone()));
            // What becomes of the answer is what tests look at.
            let _ = stream.send(Reply { text, ..Reply::default() }).await;
        }
        self.book(|book| book.causes.extend(stream.cause()));
        Ok(())
    }

    async fn census(&self, ask: Request<Ask>) -> Result<Reply, Error> {
        self.book(|book| book.asked += 1);
        Ok(Reply { text: ask.text.clone(), ..Reply::default() })
    }
}

/// A server and a client on a bus whose faults are up to the test.
struct Stage {
    solo: Solo,
    bus: FaultyBus,
    witness: Witness,
    server: ShopServer,
    client: ShopClient,
}

fn run<F: Future<Output = ()>>(test: impl FnOnce(Stage) -> F) {
    run_with(1, ClientOptions::new(), ServerOptions::new(), test);
}

fn run_with<F: Future<Output = ()>>(
    seed: u64,
    client: ClientOptions,
    server: ServerOptions,
    test: impl FnOnce(Stage) -> F,
) {
    let solo = Solo::new();
    let bus = FaultyBus::new(LocalBus::new(), solo.clone(), seed);
    let witness = Witness::default();
    solo.clone().block_on(Box::pin(async move {
        let server =
            ShopServer::with_runtime(bus.clone(), solo.clone(), witness.clone(), server).await.unwrap();
        let client = ShopClient::with_runtime(bus.clone(), solo.clone(), client).await.unwrap();
        test(Stage { solo, bus, witness, server, client }).await;
    }));
}

impl Stage {
    async fn open(&self, name: &str) -> Result<ClientStream<Ask, Reply>, Error> {
        self.client.parade().metadata("name", name).await
    }

    async fn sleep(&self, duration: Duration) {
        self.solo.sleep_until(self.solo.now().time + duration).await;
    }

    /// That nothing is left once everything has expired.
    async fn check_that_nothing_is_left(&self) {
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

/// Frames of streams whose body is such.
fn of_streams(
    is: impl Fn(&StreamBody) -> bool + Send + 'static,
) -> impl Fn(&Channel, &Frame) -> bool + Send + 'static {
    move |_, frame| matches!(frame, Frame::Stream(Stream { body: Some(body), .. }) if is(body))
}

fn acks() -> impl Fn(&Channel, &Frame) -> bool + Send + 'static {
    of_streams(|body| matches!(body, StreamBody::Ack))
}

fn closes() -> impl Fn(&Channel, &Frame) -> bool + Send + 'static {
    of_streams(|body| matches!(body, StreamBody::Close { .. }))
}

/// A stream carries messages both ways, in order and each once, and has one handler; a multi call
/// is answered once.
async fn check_that_nothing_is_doubled_or_out_of_order(stage: &Stage) {
    for round in 0..5 {
        let stream = stage.open(&round.to_string()).await.unwrap();
        for text in texts(20) {
            send(&stream, &text).await.unwrap();
            assert_eq!(stream.next().await.unwrap().text, text);
        }
        drop(stream);
        let mut answers = stage.client.census(Ask::default()).timeout(SECOND).await.unwrap();
        answers.next().await.unwrap().unwrap();
        assert!(answers.next().await.is_none(), "one server answers once");
    }
    stage.check_that_nothing_is_left().await;
    let runs = stage.witness.book(|book| book.runs.values().copied().collect::<Vec<_>>());
    assert_eq!(runs, [1; 5], "how often the handler of each stream ran");
    assert_eq!(stage.witness.heard(), [(); 5].map(|()| texts(20)).concat());
    assert_eq!(stage.witness.book(|book| book.asked), 5);
}

#[test]
fn nothing_comes_twice_where_every_frame_does() {
    run(|stage| async move {
        stage.bus.inject(Rule::duplicate(2));
        check_that_nothing_is_doubled_or_out_of_order(&stage).await;
        assert!(stage.bus.injected().duplicated > 500);
    });
}

#[test]
fn nothing_comes_twice_where_copies_come_late() {
    run(|stage| async move {
        stage.bus.inject(Rule::duplicate(2));
        stage.bus.inject(Rule::delay_within(Duration::ZERO..=Duration::from_millis(300)));
        check_that_nothing_is_doubled_or_out_of_order(&stage).await;
        assert!(stage.bus.injected().delayed > 500);
    });
}

#[test]
fn sends_in_a_row_arrive_in_order_where_frames_overtake_each_other() {
    run(|stage| async move {
        stage.bus.inject(Rule::reorder(2, Duration::from_millis(50)).probability(0.5));
        check_that_nothing_is_doubled_or_out_of_order(&stage).await;
        assert!(stage.bus.injected().reordered > 100);
    });
}

#[test]
fn sends_at_once_all_arrive_once_where_frames_overtake_each_other() {
    run(|stage| async move {
        let stream = stage.open("a").await.unwrap();
        stage.bus.inject(Rule::reorder(3, Duration::from_millis(50)).probability(0.5));
        let mut sends: Vec<_> = (0..100)
            .map(|number| {
                let text = format!("{number:02}");
                Box::pin(stream.send(Ask { text, ..Ask::default() }).into_future())
            })
            .collect();
        // All are on their way before the first is waited for.
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        sends.iter_mut().for_each(|send| assert!(send.as_mut().poll(&mut cx).is_pending()));
        for send in sends {
            send.await.unwrap();
        }
        // The handler answers each before it takes the next.
        stage.sleep(10 * SECOND).await;
        let mut heard = stage.witness.heard();
        assert!(!heard.is_sorted(), "some have overtaken others");
        heard.sort();
        assert!(heard.into_iter().eq((0..100).map(|number| format!("{number:02}"))));
    });
}

#[test]
fn a_send_whose_ack_is_lost_fails_by_its_deadline_and_has_arrived_once() {
    run(|stage| async move {
        let stream = stage.open("a").await.unwrap();
        let rule = stage.bus.inject(Rule::drop().when(acks()).first(1));
        let begun = stage.solo.now().time;
        let error = send(&stream, "unacknowledged").await.unwrap_err();
        assert_eq!(error.reason(), Some(Reason::TimedOut));
        assert_eq!(stage.solo.now().time.since(begun), 3 * SECOND);
        assert_eq!(stage.witness.heard(), ["unacknowledged"]);
        stage.bus.remove(rule);
        assert_eq!(stream.next().await.unwrap().text, "unacknowledged");
        send(&stream, "the next").await.unwrap();
        assert_eq!(stream.next().await.unwrap().text, "the next");
    });
}

#[test]
fn a_send_whose_message_is_lost_fails_by_its_deadline_and_never_arrives() {
    run(|stage| async move {
        let stream = stage.open("a").await.unwrap();
        let message = of_streams(|body| matches!(body, StreamBody::Message { .. }));
        stage.bus.inject(Rule::drop().when(message).first(1));
        assert_eq!(send(&stream, "lost").await.unwrap_err().reason(), Some(Reason::TimedOut));
        send(&stream, "the next").await.unwrap();
        stage.sleep(10 * SECOND).await;
        assert_eq!(stage.witness.heard(), ["the next"]);
    });
}

#[test]
fn a_message_that_is_late_beyond_its_expiry_is_not_delivered() {
    run(|stage| async move {
        let stream = stage.open("a").await.unwrap();
        let message = of_streams(|body| matches!(body, StreamBody::Message { .. }));
        stage.bus.inject(Rule::delay(4 * SECOND).when(message).first(1));
        assert_eq!(send(&stream, "late").await.unwrap_err().reason(), Some(Reason::TimedOut));
        stage.sleep(10 * SECOND).await;
        assert!(stage.witness.heard().is_empty());
        assert_eq!(stage.server.server().counters().get(Reason::ExpiredMessage), 1);
    });
}

#[test]
fn an_opening_whose_ack_is_lost_fails_and_its_handler_ends() {
    run(|stage| async move {
        stage.bus.inject(Rule::drop().when(acks()).first(1));
        let error = stage.open("a").await.unwrap_err();
        assert_eq!(error.reason(), Some(Reason::TimedOut));
        stage.check_that_nothing_is_left().await;
        let (runs, causes) = stage.witness.book(|book| (book.runs.clone(), book.causes.len()));
        assert_eq!((runs["a"], causes), (1, 1));
    });
}

#[test]
fn an_idle_timeout_ends_what_a_lost_close_has_left_at_the_server() {
    let options = ServerOptions::new().stream_idle_timeout(5 * SECOND);
    run_with(1, ClientOptions::new(), options, |stage| async move {
        let stream = stage.open("a").await.unwrap();
        send(&stream, "still here").await.unwrap();
        stage.bus.inject(Rule::drop().when(closes()).first(1));
        drop(stream);
        stage.sleep(4 * SECOND).await;
        assert_eq!((stage.client.client().streams(), stage.server.server().streams()), (0, 1));
        stage.sleep(2 * SECOND).await;
        assert_eq!(stage.server.server().streams(), 0);
        stage.witness.book(|book| assert_eq!(book.causes[0].reason(), Some(Reason::Idle)));
    });
}

#[test]
fn an_idle_timeout_ends_what_a_lost_close_has_left_at_the_client() {
    let options = ClientOptions::new().stream_idle_timeout(5 * SECOND);
    run_with(1, options, ServerOptions::new(), |stage| async move {
        let stream = stage.open("a").await.unwrap();
        stage.bus.inject(Rule::drop().when(closes()).first(1));
        stage.server.kill();
        let begun = stage.solo.now().time;
        let cause = stream.closed().await;
        assert_eq!(cause.reason(), Some(Reason::Idle));
        assert_eq!(stage.solo.now().time.since(begun), 5 * SECOND);
        assert_eq!(stage.client.client().streams(), 0);
    });
}

#[test]
fn what_is_promised_of_streams_holds_under_faults_of_every_kind() {
    let options = || ServerOptions::new().stream_idle_timeout(30 * SECOND);
    let (mut sent, mut failed) = (0, 0);
    for seed in 0..40 {
        let client = ClientOptions::new().stream_idle_timeout(30 * SECOND);
        let (sent, failed) = (&mut sent, &mut failed);
        run_with(seed, client, options(), |stage| async move {
            stage.bus.inject(Rule::drop().probability(0.05));
            stage.bus.inject(Rule::duplicate(1).probability(0.1));
            stage.bus.inject(Rule::reorder(2, Duration::from_millis(100)).probability(0.1));
            stage
                .bus
                .inject(Rule::delay_within(Duration::ZERO..=Duration::from_millis(2500)).probability(0.1));
            let mut delivered = Vec::new();
            for name in texts(5) {
                let Ok(stream) = stage.open(&name).await else { continue };
                for text in texts(10) {
                    let text = format!("{name}/{text}");
                    match send(&stream, &text).await {
                        Ok(()) => delivered.push(text),
                        Err(_) => *failed += 1,
                    }
                }
            }
            stage.bus.heal();
            stage.sleep(40 * SECOND).await;
            *sent += delivered.len();
            let mut heard = stage.witness.heard();
            // What failed may have arrived too, and late; streams are in order each by itself.
            heard.retain(|text| delivered.contains(text));
            heard.sort_by_key(|text| text.split('/').next().map(str::to_owned));
            assert_eq!(heard, delivered, "seed {seed}: a resolved send was delivered, once, in order");
            let all = stage.witness.heard();
            let distinct: std::collections::BTreeSet<_> = all.iter().collect();
            assert_eq!(distinct.len(), all.len(), "seed {seed}: nothing was delivered twice");
            stage.witness.book(|book| {
                assert!(book.runs.values().all(|runs| *runs == 1), "seed {seed}: one handler a stream");
            });
            stage.check_that_nothing_is_left().await;
            // Once the faults have stopped, a fresh stream is like any other.
            let stream = stage.open("fresh").await.unwrap();
            send(&stream, "fresh").await.unwrap();
            assert_eq!(stream.next().await.unwrap().text, "fresh");
        });
    }
    assert!(sent > 1000 && failed > 50, "{sent} sent and {failed} failed");
}
