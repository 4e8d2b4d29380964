//! Retry: which calls are retried, and the schedules recorded from Go.

mod hats;
mod shop;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Wake};
use std::time::Duration;

use hats::{FIT, Log, client, echo, error, fit, runtime, serve, unresponsive};
use psrpc_bus_local::LocalBus;
use psrpc_testing::{FaultyBus, Rule};
use psrpc_tokio::bus::{Accepted, Bus, Full, Offer, Sink, Subscription, WakeList};
use psrpc_tokio::middleware::Retry;
use psrpc_tokio::proto::{Frame, StreamBody};
use psrpc_tokio::*;
use shop::{Parade, text};

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Returns an interceptor that responds with these errors in turn and then with a hat. Logs the
/// timeout of each attempt in milliseconds.
fn respond_with(log: &Log, codes: &'static [ErrorCode]) -> impl CallInterceptor + use<> {
    let (log, count) = (log.clone(), Arc::new(AtomicU32::new(0)));
    move |call: OutgoingCall, _: NextCall| {
        let timeout = call.options.timeout.map(|timeout| timeout.as_millis() as u64);
        log.add(serde_json::to_string(&timeout).unwrap());
        let attempt = count.fetch_add(1, Ordering::Relaxed) as usize;
        let code = codes.get(attempt).cloned();
        async move { code.map_or(Ok(AnyMessage::new("fez".to_owned())), |code| Err(error(code))) }
    }
}

#[tokio::test(start_paused = true)]
async fn the_linear_schedule_matches_the_recordings() {
    use ErrorCode::{NotFound, Unavailable, Unknown};
    let client = client(&LocalBus::new(), ClientOptions::new()).await;
    for row in psrpc_vectors::retry_schedules() {
        let codes: &[ErrorCode] = match row.what.as_str() {
            "unavailable, then success" => &[Unavailable, Unavailable],
            "unavailable, then not_found" => &[Unavailable, NotFound],
            "not_found is not retried" => &[NotFound],
            // In Go, the error was not a PSRPC error. Here every error is one, so `unknown` stands
            // in for it, and the policy below retries only that code.
            "an error that is no psrpc error is retried" => &[Unknown, Unknown],
            "max attempts 0 never gives up; the 13th attempt was let through" => &[const { Unavailable }; 12],
            _ => &[const { Unavailable }; 9],
        };
        let log = Log::default();
        let mut retry = Retry::linear(millis(row.options.backoff_ms)).attempts(row.options.max_attempts);
        if row.final_error.as_deref() == Some("plain") {
            retry = retry.retry_if(|error| *error.code() == Unknown);
        }
        if row.options.timeout_ms > 0 {
            retry = retry.timeout(millis(row.options.timeout_ms));
        }
        let started = runtime().now().time;
        let result = fit(&client, "fez").interceptor(retry).interceptor(respond_with(&log, codes)).await;
        assert_eq!(runtime().now().time, started, "{}: there is no pause", row.what);
        let expected: Vec<_> =
            row.attempt_timeouts_ms.iter().map(|timeout| serde_json::to_string(timeout).unwrap()).collect();
        assert_eq!(log.take(), expected, "{}", row.what);
        let code = result.err().map(|error| error.code().to_string());
        match row.final_error.as_deref() {
            Some("plain") => assert_eq!(code.as_deref(), Some("unknown"), "{}", row.what),
            _ => assert_eq!(code, row.final_code, "{}", row.what),
        }
    }
}

/// Replays the recorded conversations about retries without a server, and compares the timeouts on
/// the wire.
#[tokio::test(start_paused = true)]
async fn the_timeouts_of_attempts_match_those_of_go_on_the_wire() {
    let conversations = psrpc_vectors::RECORDINGS.iter().filter(|recording| recording.version == "v0.8.2");
    let mut replayed = 0;
    for conversation in conversations.flat_map(psrpc_vectors::Recording::conversations) {
        let retry = Retry::linear(millis(50)).timeout(millis(200));
        let (retry, timeout, deadline) = match conversation.id.as_str() {
            "retry-unary-request-timeout" => (retry.attempts(3), Some(400), None),
            "retry-unary-no-timeout" => (Retry::linear(millis(50)).attempts(2), Some(400), None),
            "retry-unary-context-deadline" => (retry.attempts(5), None, Some(500)),
            _ => continue,
        };
        let bus = FaultyBus::new(LocalBus::new(), runtime(), 1);
        let _unresponsive = unresponsive(&bus, FIT).await;
        let (log, client) = (Log::default(), client(&bus, ClientOptions::new()).await);
        let recorder = log.clone();
        bus.inject(Rule::drop().when(move |_, frame| {
            if let Frame::Request(request) = frame {
                recorder.add(((request.expiry - request.sent_at) / 1_000_000).to_string());
            }
            false
        }));
        let mut call = fit(&client, "fez").interceptor(retry);
        if let Some(timeout) = timeout {
            call = call.timeout(millis(timeout));
        }
        if let Some(deadline) = deadline {
            call = call.deadline(runtime().now().time + millis(deadline));
        }
        let error = call.await.unwrap_err();
        let recorded = conversation.frames.iter().filter_map(|event| match event {
            psrpc_vectors::Event::Publish(publish) => {
                let at = |name: &str| publish.fields[name].as_str().unwrap().parse::<i64>().unwrap();
                Some((at("expiry") - at("sent_at")) / 1_000_000)
            }
            psrpc_vectors::Event::Lock(_) => None,
        });
        let ours: Vec<i64> = log.take().iter().map(|timeout| timeout.parse().unwrap()).collect();
        let recorded: Vec<i64> = recorded.collect();
        assert_eq!(ours.len(), recorded.len(), "{}", conversation.id);
        // The last attempt before a deadline gets the remaining time. In Go it is a little shorter
        // because of its timers.
        let close = |(ours, go): (&i64, &i64)| ours.abs_diff(*go) <= 5;
        assert!(ours.iter().zip(&recorded).all(close), "{}: {ours:?}, {recorded:?}", conversation.id);
        match deadline {
            None => assert!(error.is_no_response(), "{}: {error}", conversation.id),
            // Go returns `canceled`.
            Some(_) => {
                assert_eq!((error.code(), error.text()), (&ErrorCode::DeadlineExceeded, "request timed out"));
                let last = std::error::Error::source(&error).unwrap().downcast_ref::<Error>().unwrap();
                assert!(last.is_no_response());
            }
        }
        replayed += 1;
    }
    assert_eq!(replayed, 6);
}

/// The conversation `retry-unary-no-servers`, but without a timeout of the caller. It was not
/// recorded from Go.
#[tokio::test(start_paused = true)]
async fn without_a_timeout_of_the_caller_the_timeout_of_the_policy_grows() {
    let (log, client) = (Log::default(), client(&LocalBus::new(), ClientOptions::new()).await);
    let retry = Retry::linear(millis(50)).timeout(millis(200)).attempts(3);
    let failing = respond_with(&log, &[const { ErrorCode::Unavailable }; 9]);
    fit(&client, "fez").interceptor(retry).interceptor(failing).await.unwrap_err();
    assert_eq!(log.take(), ["200", "250", "300"]);
}

#[tokio::test(start_paused = true)]
async fn a_timeout_of_the_caller_takes_precedence_over_policies_and_inner_policies_over_outer_ones() {
    let client = client(&LocalBus::new(), ClientOptions::new()).await;
    let policy = |timeout, step| Retry::linear(millis(step)).attempts(2).timeout(millis(timeout));
    let attempts = async |timeout: Option<Duration>, policies: [Retry; 2]| {
        let log = Log::default();
        let [outer, inner] = policies;
        let mut call = fit(&client, "fez").interceptor(outer).interceptor(inner);
        if let Some(timeout) = timeout {
            call = call.timeout(timeout);
        }
        call.interceptor(respond_with(&log, &[const { ErrorCode::Unavailable }; 9])).await.unwrap_err();
        log.take().join(" ")
    };
    assert_eq!(attempts(Some(millis(7)), [policy(100, 10), policy(200, 20)]).await, "7 7 7 7");
    assert_eq!(attempts(None, [policy(100, 10), policy(200, 20)]).await, "200 220 200 220");
    // An inner policy without a timeout starts from the timeout of the outer policy.
    let without = Retry::linear(millis(20)).attempts(2);
    assert_eq!(attempts(None, [policy(100, 10), without]).await, "100 120 110 130");
}

#[tokio::test(start_paused = true)]
async fn the_same_errors_are_retried_by_default_as_in_go() {
    let client = client(&LocalBus::new(), ClientOptions::new()).await;
    for row in psrpc_vectors::error_codes().into_iter().filter(|row| !row.code.is_empty()) {
        let log = Log::default();
        let code = ErrorCode::from(row.code.as_str());
        let recorder = log.clone();
        let fail = move |_: OutgoingCall, _: NextCall| {
            recorder.add("attempt");
            let error = error(code.clone());
            async { Err(error) }
        };
        fit(&client, "fez").interceptor(Retry::new().attempts(2)).interceptor(fail).await.unwrap_err();
        assert_eq!(log.take().len(), 1 + usize::from(row.retried_by_default), "{}", row.code);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_is_retried_until_a_server_accepts_it() {
    let bus = LocalBus::new();
    let pause = millis(700);
    let retry = Retry::new().backoff(pause, pause).without_jitter();
    let client = client(&bus, ClientOptions::new().timeout(millis(100)).interceptor(retry)).await;
    let started = runtime().now().time;
    let call = tokio::spawn(fit(&client, "fez").into_future());
    tokio::time::sleep(millis(500)).await;
    let _server = serve(&bus, ServerOptions::new(), echo).await;
    assert_eq!(call.await.unwrap().unwrap(), "fez");
    assert_eq!(runtime().now().time.since(started), millis(800));
}

#[tokio::test(start_paused = true)]
async fn the_total_deadline_also_ends_an_attempt() {
    let pause = millis(100);
    let retry = Retry::new().attempts(0).total(millis(1000)).backoff(pause, pause).without_jitter();
    let bus = LocalBus::new();
    let _unresponsive = unresponsive(&bus, FIT).await;
    let client = client(&bus, ClientOptions::new().timeout(millis(400)).interceptor(retry)).await;
    let started = runtime().now().time;
    assert_eq!(fit(&client, "fez").await.unwrap_err().reason(), Some(Reason::NoResponse));
    // 400 + 100 + 400; no time is left for another pause of 100.
    assert_eq!(runtime().now().time.since(started), millis(900));
    let started = runtime().now().time;
    let error = fit(&client, "fez").timeout(millis(700)).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::TimedOut), "the total has passed");
    assert_eq!(runtime().now().time.since(started), millis(1000), "700 + 100, and 200 are left");
}

#[tokio::test(start_paused = true)]
async fn pauses_are_random() {
    let log = Log::default();
    let recorder = log.clone();
    let client = client(&LocalBus::new(), ClientOptions::new()).await;
    let fail = move |_: OutgoingCall, next: NextCall| {
        recorder.add(next.runtime().now().time.as_nanos().to_string());
        async { Err(error(ErrorCode::Unavailable)) }
    };
    let second = Duration::from_secs(1);
    let retry = Retry::new().attempts(50).backoff(second, second);
    let started = runtime().now().time;
    fit(&client, "fez").interceptor(retry).interceptor(fail).await.unwrap_err();
    let took = runtime().now().time.since(started);
    assert!(took > second * 15 && took < second * 35, "49 pauses of half a second on average took {took:?}");
    assert_eq!(log.take().len(), 50);
}

/// Opens a stream with retried sends on a bus with faults. The server logs the messages.
async fn open_retried(retry: Retry, log: &Log) -> (FaultyBus, Server, Parade) {
    let bus = FaultyBus::new(LocalBus::new(), runtime(), 1);
    let (server, stream) = open_retried_on(&bus, retry, log).await;
    (bus, server, stream)
}

/// Opens a stream with retried sends on any bus. The server logs the messages.
async fn open_retried_on(bus: &(impl Bus + Clone), retry: Retry, log: &Log) -> (Server, Parade) {
    let recorder = log.clone();
    let server = shop::server(bus, "elm", ServerOptions::new(), move |stream| {
        let log = recorder.clone();
        async move {
            while let Some(message) = stream.next().await {
                log.add(message);
            }
            Ok(())
        }
    })
    .await;
    let options = ClientOptions::new().timeout(millis(100)).stream_interceptor(retry);
    let client = shop::client_with(bus, options).await;
    (server, shop::parade(&client).await)
}

/// A bus on which publishing can be made to fail.
#[derive(Clone, Default)]
struct CuttableBus(LocalBus, Arc<AtomicBool>);

impl Bus for CuttableBus {
    fn publish(&self, offer: Offer<'_>, wakes: &mut WakeList) -> Result<Accepted, Full> {
        if self.1.load(Ordering::Relaxed) {
            return Ok(Accepted::Failed(BusError::new("the connection is cut")));
        }
        self.0.publish(offer, wakes)
    }

    fn subscribe(
        &self,
        channel: &proto::Channel,
        kind: SubscriptionKind,
        sink: Sink,
        wakes: &mut WakeList,
    ) -> Subscription {
        self.0.subscribe(channel, kind, sink, wakes)
    }
}

fn body(is: fn(&StreamBody) -> bool) -> impl Fn(&proto::Channel, &Frame) -> bool {
    move |_, frame| matches!(frame, Frame::Stream(proto::Stream { body: Some(body), .. }) if is(body))
}

/// Returns a rule that drops stream messages.
fn lost_messages() -> Rule {
    Rule::drop().when(body(|body| matches!(body, StreamBody::Message { .. })))
}

#[tokio::test(start_paused = true)]
async fn a_lost_message_is_sent_again_and_arrives_once_and_in_order() {
    let log = Log::default();
    let pause = millis(50);
    let (bus, _server, stream) =
        open_retried(Retry::new().backoff(pause, pause).without_jitter(), &log).await;
    bus.inject(lost_messages().first(2));
    let started = runtime().now().time;
    for word in ["one", "two", "three"] {
        stream.send(text(word)).await.unwrap();
    }
    assert_eq!(runtime().now().time.since(started), millis(300), "100, 50, 100, 50");
    hats::settle().await;
    assert_eq!(log.take(), ["one", "two", "three"]);
}

#[tokio::test(start_paused = true)]
async fn a_message_whose_ack_is_lost_arrives_twice() {
    let log = Log::default();
    let (bus, _server, stream) = open_retried(Retry::new(), &log).await;
    bus.inject(Rule::drop().when(body(|body| matches!(body, StreamBody::Ack))).first(1));
    stream.send(text("one")).await.unwrap();
    hats::settle().await;
    assert_eq!(log.take(), ["one", "one"]);
}

#[tokio::test(start_paused = true)]
async fn retries_of_sends_are_limited_like_retries_of_calls() {
    let log = Log::default();
    let retry = Retry::linear(millis(100)).attempts(0).total(millis(1000));
    let (bus, _server, stream) = open_retried(retry, &log).await;
    bus.inject(lost_messages());
    let started = runtime().now().time;
    assert!(stream.send(text("one")).await.unwrap_err().is_timed_out());
    assert_eq!(runtime().now().time.since(started), millis(1000));
    // 100 + 100 + 200 + 300, and 300 are left.
    assert_eq!(bus.injected().dropped, 5);
    let error = stream.send(text(&"x".repeat(17 << 20))).await.unwrap_err();
    assert_eq!((error.code(), bus.injected().dropped), (&ErrorCode::InvalidArgument, 5));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_again_on_a_stream_that_has_ended() {
    let log = Log::default();
    let pause = millis(60_000);
    let always = Retry::new().attempts(0).retry_if(|_| true).backoff(pause, pause).without_jitter();
    let (bus, server, stream) = open_retried(always, &log).await;
    bus.inject(lost_messages());
    let (started, stream) = (runtime().now().time, Arc::new(stream));
    let sending = tokio::spawn(stream.send(text("one")).into_future());
    // The stream ends during the pause after the first attempt.
    tokio::time::sleep(millis(500)).await;
    server.shutdown().await;
    assert!(sending.await.unwrap().unwrap_err().is_timed_out());
    assert!(stream.send(text("two")).await.unwrap_err().is_eof());
    assert_eq!((runtime().now().time.since(started), bus.injected().dropped), (millis(500), 1));
}

#[tokio::test(start_paused = true)]
async fn calls_that_may_have_run_are_not_retried_with_only_if_not_run() {
    let bus = LocalBus::new();
    let log = Log::default();
    let recorder = log.clone();
    let _server = serve(&bus, ServerOptions::new(), move |_| {
        recorder.add("ran");
        async { Err(Error::new(ErrorCode::Unavailable, "not now")) }
    })
    .await;
    let options = ClientOptions::new().interceptor(Retry::new().attempts(3).only_if_not_run());
    let busy = client(&bus, options).await;
    assert_eq!(fit(&busy, "fez").await.unwrap_err().text(), "not now");
    assert_eq!(log.take(), ["ran"], "the handler ran");
    // A server of a queue may run a call without a grant, and the client may miss the announcement.
    // It cannot have run if nobody was subscribed.
    let silent = LocalBus::new();
    let requests = proto::Channel::request::<&str>("Hats", "Fit", &[], true);
    let _silent =
        silent.subscribe(&requests, SubscriptionKind::Queue, Sink::new(|_, _| ()), &mut WakeList::new());
    for (bus, method, attempts) in
        [(&silent, hats::FIT, 1), (&LocalBus::new(), hats::FIT, 3), (&silent, hats::PICK, 3)]
    {
        let no_server = client(bus, ClientOptions::new()).await;
        let log = Log::default();
        let recorder = log.clone();
        let call = no_server
            .call::<String, String>(method, &[], "fez".to_owned())
            .interceptor(Retry::new().attempts(3).only_if_not_run())
            .interceptor(move |call: OutgoingCall, next: NextCall| {
                recorder.add("attempt");
                async move { next.run(call).await }
            });
        assert!(call.await.unwrap_err().is_no_response());
        assert_eq!(log.take(), vec!["attempt"; attempts], "{method:?}");
    }
}

/// Polls a future whose attempts fail immediately. Returns `true` if it yields between attempts.
fn yields<F: Future>(trying: F) -> bool {
    struct Woken(AtomicU32);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    let woken = Arc::new(Woken(AtomicU32::new(0)));
    let polled = pin!(trying).poll(&mut Context::from_waker(&Arc::clone(&woken).into()));
    polled.is_pending() && woken.0.load(Ordering::Relaxed) > 0
}

#[tokio::test(start_paused = true)]
async fn other_tasks_run_between_attempts_that_fail_immediately() {
    let zero = Duration::ZERO;
    for retry in [Retry::linear(millis(10)), Retry::new().backoff(zero, zero)] {
        let log = Log::default();
        let recorder = log.clone();
        // Limit the attempts, so that the test cannot run forever.
        let retry = retry.attempts(0).retry_if(move |_| {
            recorder.add("failed");
            recorder.len() < 100
        });
        let bus = CuttableBus::default();
        let (_server, stream) = open_retried_on(&bus, retry.clone(), &Log::default()).await;
        let client = client(&bus, ClientOptions::new()).await;
        bus.1.store(true, Ordering::Relaxed);
        assert!(yields(fit(&client, "fez").interceptor(retry).into_future()));
        assert_eq!(log.take(), ["failed"]);
        assert!(yields(stream.send(text("one")).into_future()));
        assert_eq!(log.take(), ["failed"]);
        assert_eq!(stream.send(text("one")).await.unwrap_err().reason(), Some(Reason::PublishFailed));
        assert_eq!(log.take().len(), 100);
    }
}
