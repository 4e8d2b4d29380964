//! Cases, and the function that runs one.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use psrpc::bus::Bus;

use crate::env::Env;
use crate::runtime::Host;

/// Time limit for a case's background tasks to release their connections before the next case
/// starts.
const CLEANUP_TIMEOUT: Duration = Duration::from_millis(250);

/// Time limit for a case, by the runtime's clock.
const CASE_TIMEOUT: Duration = Duration::from_secs(60);

/// The result of a case; the error says what went wrong.
pub type Verdict = Result<(), String>;

/// A test of one behaviour that users can observe.
pub struct Case {
    /// The stable id, such as `unary/claim/late-claim`.
    pub id: &'static str,
    /// The invariant (`I5`) or section of the protocol (`section 6`) that the case checks.
    pub stands_for: &'static str,
    /// The expected behaviour.
    pub about: &'static str,
    pub(crate) run: fn(Env) -> Pin<Box<dyn Future<Output = Verdict> + Send>>,
}

/// A future that resolves to a connection to a bus, or to the reason that there is none.
pub type Connecting = Pin<Box<dyn Future<Output = Result<Arc<dyn Bus>, String>> + Send>>;

/// Opens connections to a bus. Called on the runtime of the case.
pub type Connect = Arc<dyn Fn() -> Connecting + Send + Sync>;

/// The bus and the runtime under test.
#[derive(Clone)]
pub struct Subject {
    /// Creates a bus for a case. Nothing else may use the bus during the case.
    pub bus: Arc<dyn Fn() -> Connect + Send + Sync>,
    /// The runtime that the case runs on.
    pub host: Arc<dyn Host>,
    /// The number of calls of each kind in load cases.
    pub calls: usize,
    /// How long other servers of the bus may take to learn of the start or the end of a
    /// subscription, as in a NATS cluster, or to forward a frame, as in a Redis Cluster. Zero for a
    /// single server. The cases see each start and end only after this time, so that no case
    /// receives frames of the one before.
    pub settling_time: Duration,
}

/// Runs a case.
///
/// # Errors
///
/// Returns an error if the behaviour differs from the expected one, or if the case panics or
/// exceeds its time limit.
pub fn run(case: &Case, subject: &Subject) -> Verdict {
    let runtime = subject.host.runtime();
    let env = Env::new((subject.bus)(), Arc::clone(&runtime), subject);
    let cleanup = env.clone();
    let deadline = runtime.sleep_until(runtime.now().time + CASE_TIMEOUT);
    let mut verdict = None;
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let case = (case.run)(env);
        subject.host.block_on(Box::pin(async {
            verdict = Some(first(case, deadline).await);
            let _ = cleanup.within(CLEANUP_TIMEOUT, cleanup.disconnected()).await;
        }));
    }));
    match (outcome, verdict) {
        (Ok(()), Some(Some(verdict))) => verdict,
        (Ok(()), Some(None)) => Err(format!("timed out after {CASE_TIMEOUT:?}")),
        (Ok(()), None) => Err("the host stopped before the case was finished".to_owned()),
        (Err(panic), _) => Err(format!("panicked: {}", message(&*panic))),
    }
}

/// Returns the output of `future`, or `None` if `limit` resolves first.
async fn first<T>(future: impl Future<Output = T>, limit: impl Future<Output = ()>) -> Option<T> {
    let (mut future, mut limit) = (pin!(future), pin!(limit));
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(result) => Poll::Ready(Some(result)),
        Poll::Pending => limit.as_mut().poll(cx).map(|()| None),
    })
    .await
}

fn message(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}

/// Fails the case with a message if the condition does not hold.
macro_rules! check {
    ($condition:expr, $($text:tt)+) => {
        if !$condition {
            return Err(format!($($text)+));
        }
    };
}

/// Fails the case if two values are not equal.
macro_rules! check_eq {
    ($left:expr, $right:expr, $($text:tt)+) => {
        match (&$left, &$right) {
            (left, right) => {
                if left != right {
                    return Err(format!("{}: {left:?}, expected {right:?}", format_args!($($text)+)));
                }
            }
        }
    };
}

pub(crate) use {check, check_eq};
