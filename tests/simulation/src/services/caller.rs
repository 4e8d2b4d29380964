//! The caller: uses one client and the futures that it returns.

use std::future::{Future, IntoFuture, poll_fn};
use std::panic::resume_unwind;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use psrpc::middleware::Retry;
use psrpc::{Call, ClientStream, Error, ErrorCode, OpenStream, RecvHalf, Runtime, Selection, SendHalf, Time};
use psrpc_testing::StoppableRuntime;

use super::handlers::{HABIT, STREAM};
use super::hats::{Ask, HatsClient, Manner, Reply};
use super::node::{Node, NodeRuntime};
use crate::clock::Clock;
use crate::fault::Fault;
use crate::judge::services::ledger::Ledger;
use crate::judge::services::stream_messages::Direction;
use crate::judge::services::user_call::{CallKind, CallSpec, Expected};
use crate::judge::violation::Invariant;
use crate::rng::Rng;

/// The topic of the single server of `OwnFit`.
pub(super) const OWNER: &str = "owner";

/// The user of one incarnation of a client.
#[derive(Clone)]
pub(super) struct Caller {
    pub(super) client: HatsClient,
    /// The runtime of the client.
    pub(super) runtime: StoppableRuntime,
    /// The number of the client in the ledger.
    pub(super) number: usize,
    pub(super) node: Node,
    pub(super) clock: Clock,
    pub(super) ledger: Ledger,
}

impl Caller {
    /// Performs one random act with the client.
    pub(super) async fn act(self, mut rng: Rng) {
        match rng.below(20) {
            0..=10 => self.call(&mut rng).await,
            11..=13 => self.census(&mut rng).await,
            14..=17 => self.stream(&mut rng).await,
            _ => self.listen(&mut rng).await,
        }
    }

    // --- calls -----------------------------------------------------------------------------------

    async fn call(&self, rng: &mut Rng) {
        let kind =
            rng.pick(&[CallKind::Fit, CallKind::Fit, CallKind::Pick, CallKind::Pick, CallKind::OwnFit]);
        let timeout = random_timeout(rng);
        let (retry, again) = match rng.below(5) {
            0 => (Some(Retry::new()), RetryMode::Always),
            1 => (Some(Retry::new().only_if_not_run()), RetryMode::IfNotRun),
            _ => (None, RetryMode::Never),
        };
        let total = if retry.is_some() { 2 * timeout } else { timeout };
        let deadline = self.runtime().now().time + total;
        let ask = self.ask(kind, deadline, again, Expected::Anything, rng);
        let (number, patience) = (ask.number as usize, rng.maybe(250, |rng| rng.grains(0..800)));
        let mut call = self.make(kind, ask).timeout(timeout);
        if kind == CallKind::Pick {
            call = call.selection(random_selection(rng));
        }
        if let Some(retry) = retry {
            call = call.deadline(deadline).interceptor(retry);
        }
        self.wait_for(number, call, patience).await;
    }

    /// Waits for a call, or drops it after `patience`.
    async fn wait_for(&self, number: usize, call: Call<Ask, Reply>, patience: Option<Duration>) {
        let mut future = Box::pin(call.into_future());
        let result = match patience {
            Some(patience) => self.run_for(patience, future.as_mut()).await,
            None => Some(future.as_mut().await),
        };
        match result {
            Some(result) => self.ledger.call_resolved(number, &result),
            None => {
                self.ledger.call_dropped(number);
                drop(future);
            }
        }
    }

    fn make(&self, kind: CallKind, ask: Ask) -> Call<Ask, Reply> {
        match kind {
            CallKind::Pick => self.client.pick(ask),
            CallKind::OwnFit => self.client.own_fit(OWNER, ask),
            _ => self.client.fit(ask),
        }
    }

    /// Registers a call with the ledger, and returns its request message.
    fn ask(
        &self,
        kind: CallKind,
        deadline: Time,
        again: RetryMode,
        expected: Expected,
        rng: &mut Rng,
    ) -> Ask {
        let start = self.ledger.now();
        let due = self.clock.virtual_time(deadline).max(start);
        let (only_if_not_run, retried) = (again != RetryMode::Always, again != RetryMode::Never);
        let (client, node) = (self.number, self.node.number());
        let number = self.ledger.call_made(CallSpec {
            kind,
            client,
            node,
            start,
            due,
            retried,
            only_if_not_run,
            expected,
        }) as u64;
        let (manner, duration) = match (expected, rng.below(20)) {
            (Expected::Panic, _) => (Manner::Panic, Duration::ZERO),
            (Expected::Answer, _) => (Manner::Answer, rng.grains(0..40)),
            (_, 0) => (Manner::Panic, Duration::ZERO),
            (_, 1) => (Manner::Hang, Duration::ZERO),
            (_, 2 | 3) => (Manner::Fail, rng.grains(0..40)),
            (_, 4 | 5) => (Manner::Answer, rng.grains(400..8000)),
            (_, 6..=10) => (Manner::Answer, Duration::ZERO),
            _ => (Manner::Answer, rng.grains(0..200)),
        };
        Ask { number, micros: duration.as_micros() as u32, manner: manner.into() }
    }

    async fn census(&self, rng: &mut Rng) {
        let timeout = random_timeout(rng);
        let deadline = self.runtime().now().time + timeout;
        let ask = self.ask(CallKind::Census, deadline, RetryMode::Never, Expected::Anything, rng);
        let number = ask.number as usize;
        let patience = rng.maybe(250, |rng| rng.grains(0..800));
        let counting = self.count(ask, timeout);
        let counted = match patience {
            Some(patience) => self.run_for(patience, pin!(counting)).await,
            None => Some(counting.await),
        };
        match counted {
            Some(_) => self.ledger.call_ended(number),
            None => self.ledger.call_dropped(number),
        }
    }

    /// Makes a multi call and receives all responses. Returns their number.
    async fn count(&self, ask: Ask, timeout: Duration) -> usize {
        let number = ask.number as usize;
        let Ok(mut answers) = self.client.census(ask).timeout(timeout).await else { return 0 };
        let mut received = 0;
        while let Some(answer) = answers.next().await {
            received += 1;
            match &answer {
                Ok(answer) => self.ledger.response_received(number, Some(answer.server_id()), Ok(answer)),
                Err(error) => self.ledger.response_received(number, error.server_id(), Err(error)),
            }
        }
        received
    }

    // --- streams ---------------------------------------------------------------------------------

    fn open(&self, pick: bool, stream: usize, habit: u64) -> OpenStream<Ask, Reply> {
        let opening = if pick { self.client.pick_parade() } else { self.client.parade() };
        opening.metadata(STREAM, stream.to_string()).metadata(HABIT, habit.to_string())
    }

    async fn stream(&self, rng: &mut Rng) {
        let id = self.ledger.new_stream();
        let timeout = random_timeout(rng);
        let opening = self.open(rng.chance(500), id, rng.within(1..1 << 30)).timeout(timeout);
        let start = self.ledger.now();
        let opened = match rng.maybe(200, |rng| rng.grains(0..400)) {
            Some(patience) => self.run_for(patience, opening.into_future()).await,
            None => Some(opening.await),
        };
        if self.ledger.now()
            > self.ledger.latest_allowed(self.node.number(), start + timeout + timeout / 1000)
        {
            self.ledger.judge(Invariant::I1.violated(format!("stream {id} was not open in time")));
        }
        let Some(Ok(stream)) = opened else { return };
        let (messages, mut other) = (rng.index(8), rng.fork());
        if rng.chance(500) {
            let (sending, receiving) = stream.split();
            let (sender, receiver, mut rng) = (self.clone(), self.clone(), rng.fork());
            let sent =
                self.node.spawn(async move { sender.send_all(id, &sending, messages, &mut rng).await });
            let received = self.node.spawn(async move { receiver.take_all(id, receiving, &mut other).await });
            sent.await;
            received.await;
            return;
        }
        for _ in 0..messages {
            let timeout = rng.grains(40..2000);
            self.send(id, timeout, |message| stream.send(message)).await;
            if rng.chance(500) {
                let taken = self.run_for(rng.grains(1..400), pin!(stream.next())).await;
                if let Some(Some(reply)) = taken {
                    self.ledger.message_received(id, Direction::ToClient, reply.number);
                }
            }
        }
        match rng.below(4) {
            0 => stream.close(None),
            1 => stream.close(Error::new(ErrorCode::Aborted, "enough")),
            2 => return,
            _ => drop(self.run_for(rng.grains(0..4000), pin!(stream.closed())).await),
        }
        if stream.cause().is_some() {
            while let Some(reply) = stream.next().await {
                self.ledger.message_received(id, Direction::ToClient, reply.number);
            }
            self.ledger.received_all(id, Direction::ToClient);
        }
    }

    async fn send_all(&self, id: usize, sending: &SendHalf<Ask>, messages: usize, rng: &mut Rng) {
        for _ in 0..messages {
            let timeout = rng.grains(40..2000);
            self.send(id, timeout, |message| sending.send(message)).await;
        }
        if rng.chance(500) {
            sending.close(None);
        }
    }

    async fn take_all(&self, id: usize, receiving: RecvHalf<Reply>, rng: &mut Rng) {
        let patience = rng.maybe(300, |rng| rng.grains(100..4000));
        let taking = async {
            loop {
                let since = self.ledger.now();
                let reply = receiving.next().await;
                self.ledger.check_wait(self.number, self.node.number(), since, "a receive");
                let Some(reply) = reply else { break };
                self.ledger.message_received(id, Direction::ToClient, reply.number);
                if rng.chance(200) {
                    self.ledger.count(Fault::SlowConsumer);
                    self.sleep(rng.grains(0..400)).await;
                }
            }
            self.ledger.received_all(id, Direction::ToClient);
        };
        match patience {
            Some(patience) => drop(self.run_for(patience, pin!(taking)).await),
            None => taking.await,
        }
    }

    /// Sends the next message of a stream. Returns `true` if the send succeeded.
    async fn send<'a>(
        &self,
        id: usize,
        timeout: Duration,
        send: impl FnOnce(Ask) -> psrpc::PendingSend<'a>,
    ) -> bool {
        let (number, start) = (self.ledger.add_message(id, Direction::ToServer), self.ledger.now());
        let sent = send(Ask { number, ..Ask::default() }).timeout(timeout).await;
        self.ledger.check_wait(self.number, self.node.number(), start, "a send");
        if sent.is_ok() {
            self.ledger.message_sent(id, Direction::ToServer, number, start);
        }
        if self.ledger.now()
            > self.ledger.latest_allowed(self.node.number(), start + timeout + timeout / 1000)
        {
            self.ledger.judge(
                Invariant::I1.violated(format!("message {number} of stream {id} was not sent in time")),
            );
        }
        sent.is_ok()
    }

    // --- updates ---------------------------------------------------------------------------------

    async fn listen(&self, rng: &mut Rng) {
        let subscribing = self.client.subscribe_news();
        let subscribed = self.run_for(rng.grains(40..8000), subscribing.into_future()).await;
        let Some(Ok(mut news)) = subscribed else { return };
        if !self.node.has_been_subscribed("News") {
            self.ledger.judge(Invariant::I13.violated("a subscription resolved before it was live"));
        }
        let hearing = async {
            while let Some(received) = news.next().await {
                if received.is_ok() && rng.chance(100) {
                    self.sleep(READ_TIME).await;
                }
            }
        };
        let _ = self.run_for(Duration::from_secs(1), pin!(hearing)).await;
    }

    // --- fresh calls -----------------------------------------------------------------------------

    /// Makes a fresh call of each kind, now that there are no faults. All must succeed.
    pub(super) async fn probe(self, mut rng: Rng, servers: usize) {
        let second = Duration::from_secs(1);
        let rng = &mut rng;
        for kind in [CallKind::Fit, CallKind::Pick, CallKind::OwnFit] {
            for expected in [Expected::Answer, Expected::Panic] {
                let timeout = 2 * second;
                let ask =
                    self.ask(kind, self.runtime().now().time + timeout, RetryMode::Never, expected, rng);
                let (number, call) = (ask.number as usize, self.make(kind, ask).timeout(timeout));
                self.wait_for(number, call, None).await;
            }
        }
        let ask = self.ask(
            CallKind::Census,
            self.runtime().now().time + second,
            RetryMode::Never,
            Expected::Answer,
            rng,
        );
        let number = ask.number as usize;
        let answers = self.count(ask, second).await;
        self.ledger.call_ended(number);
        if answers != servers {
            let what = format!("{answers} of {servers} servers responded to a fresh multi call");
            self.ledger.judge(Invariant::I16.violated(what));
        }
        self.probe_stream(rng).await;
        self.probe_updates().await;
    }

    /// Opens a stream, sends on it, drops it, and checks that the handler ends.
    async fn probe_stream(&self, rng: &mut Rng) {
        let id = self.ledger.new_stream();
        let second = Duration::from_secs(1);
        let fails = |what: String| self.ledger.judge(Invariant::I16.violated(what));
        let stream: ClientStream<Ask, Reply> = match self.open(rng.chance(500), id, 0).await {
            Ok(stream) => stream,
            Err(error) => return fails(format!("a fresh stream was not opened: {error}")),
        };
        for _ in 0..3 {
            if !self.send(id, 2 * second, |message| stream.send(message)).await {
                return fails("a message of a fresh stream was not accepted".to_owned());
            }
        }
        let answer = self.run_for(Duration::from_secs(1), pin!(stream.next())).await;
        match answer {
            Some(Some(reply)) => self.ledger.message_received(id, Direction::ToClient, reply.number),
            _ => return fails("no message arrived on a fresh stream".to_owned()),
        }
        if rng.chance(500) {
            drop(stream.split());
        } else {
            drop(stream);
        }
        self.sleep(Duration::from_millis(500)).await;
        if self.ledger.is_handled(id) {
            let what = format!("stream {id} was dropped, but its handler still runs");
            self.ledger.judge(Invariant::I8.violated(what));
        }
    }

    /// Subscribes, and checks that an update arrives.
    async fn probe_updates(&self) {
        let mut news = match self.client.subscribe_news().await {
            Ok(news) => news,
            Err(error) => {
                return self
                    .ledger
                    .judge(Invariant::I16.violated(format!("a fresh subscription failed: {error}")));
            }
        };
        // Servers publish all the time.
        match self.run_for(Duration::from_secs(1), pin!(news.next())).await {
            Some(Some(Ok(_))) => {}
            received => {
                self.ledger
                    .judge(Invariant::I13.violated(format!("received {received:?} on a fresh subscription")));
            }
        }
    }

    // --- time ------------------------------------------------------------------------------------

    fn runtime(&self) -> NodeRuntime {
        self.node.runtime()
    }

    async fn sleep(&self, duration: Duration) {
        let runtime = self.runtime();
        runtime.sleep_until(runtime.now().time + duration).await;
    }

    /// Returns the output of a future, or drops the future and returns `None` after `patience`.
    async fn run_for<F: Future + Unpin>(&self, patience: Duration, mut future: F) -> Option<F::Output> {
        let mut sleep = pin!(self.sleep(patience));
        poll_fn(|cx| match Pin::new(&mut future).poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => sleep.as_mut().poll(cx).map(|()| None),
        })
        .await
    }
}

const READ_TIME: Duration = Duration::from_millis(5);

fn random_timeout(rng: &mut Rng) -> Duration {
    match rng.below(20) {
        0 => Duration::ZERO,
        1..=3 => rng.grains(1..40),
        4..=12 => rng.grains(40..2000),
        _ => rng.grains(2000..12_000),
    }
}

/// When a failed call is retried.
#[derive(Clone, Copy, PartialEq, Eq)]
enum RetryMode {
    Never,
    IfNotRun,
    Always,
}

/// Draws selection options.
fn random_selection(rng: &mut Rng) -> Selection {
    let mut selection = Selection::new();
    if rng.chance(300) {
        selection = selection.minimum_affinity(rng.pick(&[0.25, 0.5, 1.0]));
    }
    if rng.chance(300) {
        selection = selection.affinity_timeout(rng.grains(0..400));
    }
    match rng.below(12) {
        0 => selection.choose(|bids| Ok(bids.last())),
        1 => selection.choose(|_| Err(Error::new(ErrorCode::FailedPrecondition, "cannot choose"))),
        // `resume_unwind` does not call the panic hook, so nothing is printed.
        2 => selection.choose(|_| resume_unwind(Box::new("as requested"))),
        _ => selection,
    }
}
