//! Retries of calls, and of sends on streams.

use std::fmt;
use std::future::{Future, poll_fn};
use std::mem;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use psrpc_engine::{Reason, Time};

use crate::error::Error;
use crate::interceptor::{
    CallInterceptor, CallOptions, InterceptedStream, NextCall, NextSend, OpeningStream, OutgoingCall,
    SendOptions, StreamInterceptor,
};
use crate::message::AnyMessage;
use crate::runtime::{BoxFuture, Runtime};

/// A policy that retries failed calls, and failed sends on streams. It is an interceptor of calls
/// and streams, and can drive retry loops of your own ([`start`](Self::start)).
///
/// ```
/// # use std::time::Duration;
/// use psrpc::ClientOptions;
/// use psrpc::middleware::Retry;
///
/// let retry = Retry::new().attempts(5).total(Duration::from_secs(10));
/// let options = ClientOptions::new().timeout(Duration::from_secs(1)).interceptor(retry);
/// ```
///
/// The caller gets the error of the last attempt. If the caller's deadline or the
/// [total](Self::total) has passed, it gets `deadline_exceeded`, with that error as its source. A
/// call that timed out may have run, and servers see each attempt as a separate call. Do not retry
/// calls that must not run twice.
///
/// Each attempt [waits for a server to subscribe](crate::Call::wait_for_subscriber), so that the
/// attempts last as long as a restart of the servers.
///
/// # Timeouts
///
/// A timeout that the caller sets ([`Call::timeout`](crate::Call::timeout)) applies to every
/// attempt: it overrides the timeouts of policies, and does not grow. Among nested policies the
/// innermost one that has a timeout applies (PROTOCOL section 14).
///
/// # Streams
///
/// As an interceptor of streams ([`stream_interceptor`](crate::ClientOptions::stream_interceptor)
/// of a client or server, or [`OpenStream::interceptor`](crate::OpenStream::interceptor)) it
/// retries sends, but not the opening. Each attempt is a separate message, and the receiver gets it
/// twice if an ack was lost or late. Use it only if duplicates are harmless. Sends that are awaited
/// one by one stay in order. Nothing is retried after the stream has ended.
#[derive(Clone)]
pub struct Retry {
    attempts: u32,
    total: Option<Duration>,
    timeout: Option<Duration>,
    schedule: Schedule,
    decide: Arc<dyn Fn(&Error) -> bool + Send + Sync>,
}

#[derive(Clone, Copy, Debug)]
enum Schedule {
    /// The pause doubles with each attempt, up to a limit. With jitter it is a random part of that.
    Exponential { first: Duration, most: Duration, jitter: bool },
    /// There is no pause, and the timeout grows.
    Linear { step: Duration },
}

impl Retry {
    /// Returns a policy that makes up to three attempts, and retries on the codes `unavailable` and
    /// `deadline_exceeded`. The pauses are random: at most 100 ms, then at most 200 ms, and so on
    /// up to 10 s.
    pub fn new() -> Self {
        let (first, most) = (Duration::from_millis(100), Duration::from_secs(10));
        Self {
            attempts: 3,
            total: None,
            timeout: None,
            schedule: Schedule::Exponential { first, most, jitter: true },
            decide: Arc::new(Error::is_retryable),
        }
    }

    /// Returns a policy that retries as Go does: without pauses, and with a timeout that grows by
    /// `step` with each attempt, unless the call has its own timeout. If neither the policy nor the
    /// call has a timeout, the first attempt uses the client's timeout, the second `step`, the
    /// third twice `step`, and so on.
    pub fn linear(step: Duration) -> Self {
        Self { schedule: Schedule::Linear { step }, ..Self::new() }
    }

    /// Sets pauses that double from `first` up to `most`.
    #[must_use]
    pub fn backoff(mut self, first: Duration, most: Duration) -> Self {
        self.schedule = Schedule::Exponential { first, most, jitter: true };
        self
    }

    /// Makes each pause full length. By default its length is random, so that callers that fail
    /// together do not retry together.
    #[must_use]
    pub fn without_jitter(mut self) -> Self {
        if let Schedule::Exponential { jitter, .. } = &mut self.schedule {
            *jitter = false;
        }
        self
    }

    /// Sets the maximum number of attempts, including the first one; 0 means no limit. Default: 3.
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    /// Limits the time for all attempts and pauses together. Default: no limit other than the
    /// call's own deadline.
    #[must_use]
    pub fn total(mut self, total: Duration) -> Self {
        self.total = Some(total);
        self
    }

    /// Sets the timeout of each attempt, if the call has none; with [`linear`](Self::linear), of
    /// the first attempt. Default: the client's timeout.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Retries only if the handler cannot have run ([`Error::may_have_run`]), so that it never runs
    /// twice. On a queue-routed method, where servers may run a call without a grant, this retries
    /// only calls that were not sent or reached no subscriber. Replaces the condition of
    /// [`retry_if`](Self::retry_if).
    #[must_use]
    pub fn only_if_not_run(self) -> Self {
        self.retry_if(|error| error.is_retryable() && !error.may_have_run())
    }

    /// Sets which errors to retry. Default: those that are [retryable](Error::is_retryable). A
    /// client whose runtime has shut down never retries.
    #[must_use]
    pub fn retry_if(mut self, decide: impl Fn(&Error) -> bool + Send + Sync + 'static) -> Self {
        self.decide = Arc::new(decide);
        self
    }

    /// Starts counting attempts, with the timeout and the deadline that the caller has set, if any.
    ///
    /// A call fails at once where the bus knows that nobody is subscribed. To outlast a restart of
    /// the servers, make each attempt with
    /// [`wait_for_subscriber`](crate::Call::wait_for_subscriber), and pause between multi calls.
    pub fn start(&self, now: Time, timeout: Option<Duration>, deadline: Option<Time>) -> Attempts {
        let total = self.total.map(|total| now + total);
        let deadline = match (total, deadline) {
            (Some(total), Some(deadline)) => Some(total.min(deadline)),
            (total, deadline) => total.or(deadline),
        };
        let timeout = match timeout {
            Some(timeout) => AttemptTimeout::OfCaller(timeout),
            None => AttemptTimeout::OfPolicy(self.timeout),
        };
        Attempts { policy: self.clone(), timeout, deadline, failed: 0, may_have_run: false }
    }

    /// Like [`start`](Self::start), but for a timeout that an outer policy may have set.
    fn start_within(
        &self,
        now: Time,
        timeout: Option<Duration>,
        retry_set_timeout: bool,
        deadline: Option<Time>,
    ) -> Attempts {
        let attempts = self.start(now, timeout.filter(|_| !retry_set_timeout), deadline);
        match attempts.timeout {
            AttemptTimeout::OfPolicy(inner) => {
                Attempts { timeout: AttemptTimeout::OfPolicy(inner.or(timeout)), ..attempts }
            }
            AttemptTimeout::OfCaller(_) => attempts,
        }
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { attempts, total, timeout, schedule, decide: _ } = self;
        f.debug_struct("Retry")
            .field("attempts", attempts)
            .field("total", total)
            .field("timeout", timeout)
            .field("schedule", schedule)
            .finish_non_exhaustive()
    }
}

/// The attempts of one operation. This type decides whether, when and with which timeout to make
/// the next attempt. It neither waits nor makes the attempt itself.
#[derive(Clone, Debug)]
pub struct Attempts {
    policy: Retry,
    timeout: AttemptTimeout,
    deadline: Option<Time>,
    failed: u32,
    /// Whether a handler may have run in any of the failed attempts.
    may_have_run: bool,
}

/// The timeout of attempts.
#[derive(Clone, Copy, Debug)]
enum AttemptTimeout {
    /// Set by the caller: the same for every attempt.
    OfCaller(Duration),
    /// Set by a policy, for the first attempt; `None` for the client's default.
    OfPolicy(Option<Duration>),
}

impl AttemptTimeout {
    /// Returns the timeout of the first attempt.
    fn first(self) -> Option<Duration> {
        match self {
            AttemptTimeout::OfCaller(timeout) => Some(timeout),
            AttemptTimeout::OfPolicy(timeout) => timeout,
        }
    }
}

/// An attempt to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attempt {
    /// How long to wait before the attempt.
    pub pause: Duration,
    /// How long the attempt may take; `None` for the default of the operation.
    pub timeout: Option<Duration>,
    /// When the attempt must end, if there is an overall deadline.
    pub deadline: Option<Time>,
}

impl Attempts {
    /// Returns the first attempt.
    pub fn first(&self) -> Attempt {
        Attempt { pause: Duration::ZERO, timeout: self.timeout.first(), deadline: self.deadline }
    }

    /// Returns the next attempt after one that failed with `error`, or `None` if there is none.
    /// `random` returns 64 random bits, for the jitter.
    pub fn next(&mut self, now: Time, error: &Error, random: impl FnOnce() -> u64) -> Option<Attempt> {
        self.failed = self.failed.saturating_add(1);
        self.may_have_run |= error.may_have_run();
        if self.failed == self.policy.attempts || is_permanent(error) || !(self.policy.decide)(error) {
            return None;
        }
        let (pause, timeout) = match self.policy.schedule {
            Schedule::Exponential { first, most, jitter } => {
                let doubled = 2_u32.saturating_pow(self.failed - 1);
                let pause = first.saturating_mul(doubled).min(most);
                (if jitter { scale(pause, random()) } else { pause }, self.timeout.first())
            }
            Schedule::Linear { step } => {
                let timeout = match self.timeout {
                    AttemptTimeout::OfCaller(timeout) => Some(timeout),
                    AttemptTimeout::OfPolicy(first) => {
                        let grown =
                            first.unwrap_or_default().saturating_add(step.saturating_mul(self.failed));
                        Some(grown).filter(|timeout| !timeout.is_zero())
                    }
                };
                (Duration::ZERO, timeout)
            }
        };
        // If no time would be left after the pause, the caller would wait in vain.
        let in_time = self.deadline.is_none_or(|deadline| now + pause < deadline);
        in_time.then_some(Attempt { pause, timeout, deadline: self.deadline })
    }

    /// Returns `true` if the timeouts come from a policy.
    fn sets_timeout(&self) -> bool {
        matches!(self.timeout, AttemptTimeout::OfPolicy(_))
    }

    /// Returns the error of the whole operation, whose last attempt failed with `error`.
    fn end(&self, now: Time, error: Error) -> Error {
        let out_of_time = self.deadline.is_some_and(|deadline| now >= deadline);
        let whole = match out_of_time && !is_permanent(&error) && (self.policy.decide)(&error) {
            true => error.out_of_time(),
            false => error,
        };
        whole.of_attempts(self.may_have_run)
    }
}

/// Returns `true` if every later attempt would fail too, whatever the policy says.
fn is_permanent(error: &Error) -> bool {
    error.reason() == Some(Reason::RuntimeEnded)
}

/// Scales a duration by a random number, uniformly.
fn scale(whole: Duration, random: u64) -> Duration {
    let nanos = (whole.as_nanos() * u128::from(random)) >> 64;
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

impl CallInterceptor for Retry {
    fn call(&self, mut call: OutgoingCall, next: NextCall) -> BoxFuture<Result<AnyMessage, Error>> {
        call.options.wait_for_subscriber = true;
        let now = next.runtime().now().time;
        let CallOptions { timeout, retry_set_timeout, deadline, .. } = call.options;
        let mut attempts = self.start_within(now, timeout, retry_set_timeout, deadline);
        Box::pin(async move {
            let mut attempt = attempts.first();
            loop {
                call.options.timeout = attempt.timeout;
                call.options.retry_set_timeout = attempts.sets_timeout();
                call.options.deadline = attempt.deadline;
                let error = match next.run(call.clone()).await {
                    Ok(response) => return Ok(response),
                    Err(error) => error,
                };
                let runtime = next.runtime();
                let now = runtime.now().time;
                attempt = match attempts.next(now, &error, || random(&**runtime)) {
                    Some(attempt) => attempt,
                    None => return Err(attempts.end(now, error)),
                };
                // After the runtime has shut down no pause ends. The next attempt fails at once,
                // and is the last one.
                race(next.abandoned(), pause(&**runtime, now + attempt.pause)).await;
            }
        })
    }
}

impl StreamInterceptor for Retry {
    fn open(&self, _: &mut OpeningStream) -> Result<Box<dyn InterceptedStream>, Error> {
        Ok(Box::new(RetrySends(self.clone())))
    }
}

/// The retries of the sends on one stream.
struct RetrySends(Retry);

impl InterceptedStream for RetrySends {
    fn send(
        &self,
        message: AnyMessage,
        mut options: SendOptions,
        next: NextSend,
    ) -> BoxFuture<Result<(), Error>> {
        let SendOptions { timeout, retry_set_timeout, deadline, .. } = options;
        let mut attempts =
            self.0.start_within(next.runtime().now().time, timeout, retry_set_timeout, deadline);
        Box::pin(async move {
            let mut attempt = attempts.first();
            loop {
                (options.timeout, options.deadline) = (attempt.timeout, attempt.deadline);
                options.retry_set_timeout = attempts.sets_timeout();
                let Err(error) = next.run(message.clone(), options).await else { return Ok(()) };
                let runtime = next.runtime();
                let now = runtime.now().time;
                attempt = match attempts.next(now, &error, || random(&**runtime)) {
                    Some(attempt) if !ends_within(&next, now + attempt.pause).await => attempt,
                    _ => return Err(attempts.end(now, error)),
                };
            }
        })
    }
}

/// Sleeps until the given time, and yields at least once. Without the yield, attempts that fail at
/// once would starve other tasks.
async fn pause(runtime: &dyn Runtime, until: Time) {
    let mut yielded = false;
    poll_fn(|cx| {
        if mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
    if runtime.now().time < until {
        runtime.sleep_until(until).await;
    }
}

/// Sleeps until the given time, or until the stream ends. Returns `true` if the stream has ended.
async fn ends_within(next: &NextSend, until: Time) -> bool {
    race(next.closed(), pause(&**next.runtime(), until)).await
}

/// Waits for either future. Returns `true` if the first one finished first.
async fn race<T>(first: impl Future<Output = T>, second: impl Future<Output = ()>) -> bool {
    let (mut first, mut second) = (pin!(first), pin!(second));
    poll_fn(|cx| match first.as_mut().poll(cx) {
        Poll::Ready(_) => Poll::Ready(true),
        Poll::Pending => second.as_mut().poll(cx).map(|()| false),
    })
    .await
}

fn random(runtime: &dyn Runtime) -> u64 {
    let seed = runtime.seed();
    u64::from_le_bytes(std::array::from_fn(|index| seed[index]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorCode;

    fn unavailable() -> Error {
        Error::new(ErrorCode::Unavailable, "nobody")
    }

    fn pauses(retry: &Retry, random: u64) -> Vec<u64> {
        let mut attempts = retry.start(Time::ZERO, None, None);
        let next = || attempts.next(Time::ZERO, &unavailable(), || random);
        std::iter::from_fn(next).map(|attempt| attempt.pause.as_millis() as u64).collect()
    }

    #[test]
    fn pauses_double_up_to_their_limit_and_jitter_takes_any_part_of_them() {
        let retry = Retry::new().attempts(5).backoff(Duration::from_millis(100), Duration::from_millis(500));
        assert_eq!(pauses(&retry, 0), [0; 4]);
        assert_eq!(pauses(&retry, 1 << 63), [50, 100, 200, 250]);
        assert_eq!(pauses(&retry, u64::MAX), [99, 199, 399, 499]);
        assert_eq!(pauses(&retry.without_jitter(), 0), [100, 200, 400, 500]);
    }

    #[test]
    fn after_several_attempts_the_handler_may_have_run_if_it_may_in_one_of_them() {
        for (codes, may_have_run) in
            [([Reason::NoResponse; 2], false), ([Reason::TimedOut, Reason::NoResponse], true)]
        {
            let second = Duration::from_secs(1);
            let mut attempts = Retry::new().attempts(0).start(Time::ZERO, None, Some(Time::ZERO + second));
            for reason in codes {
                attempts.next(Time::ZERO, &unavailable().with_reason(reason), || 0);
            }
            for now in [Time::ZERO, Time::ZERO + second] {
                let last = unavailable().with_reason(Reason::NoResponse);
                assert_eq!(attempts.end(now, last).may_have_run(), may_have_run, "{codes:?}");
            }
        }
    }

    #[test]
    fn the_hundredth_pause_is_no_longer_than_any() {
        let retry = Retry::new().attempts(101).without_jitter();
        assert_eq!(pauses(&retry, 0).last(), Some(&10_000));
    }

    #[test]
    fn nothing_is_tried_whose_pause_would_end_at_the_deadline() {
        let second = Duration::from_secs(1);
        let retry = Retry::new().attempts(0).total(second * 3).backoff(second, second).without_jitter();
        let mut attempts = retry.start(Time::ZERO, None, Some(Time::ZERO + second * 9));
        assert_eq!(attempts.first().deadline, Some(Time::ZERO + second * 3));
        let mut at = |secs| attempts.next(Time::ZERO + second * secs, &unavailable(), || 0);
        assert_eq!(at(1).unwrap().deadline, Some(Time::ZERO + second * 3));
        assert_eq!(at(2), None);
        let sooner = retry.start(Time::ZERO, None, Some(Time::ZERO + second));
        assert_eq!(sooner.first().deadline, Some(Time::ZERO + second));
    }
}
