//! Cases, and how one is run.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use psrpc::bus::Bus;

use crate::env::Env;
use crate::runtime::Host;

/// How long a case waits for what it leaves behind, so that it does not meddle with the next.
const AFTERMATH: Duration = Duration::from_millis(250);

/// How long a case may take before it has failed, by the runtime's clock.
const AT_MOST: Duration = Duration::from_secs(60);

/// What a case ends with: nothing, or what was not as it should be.
pub type Verdict = Result<(), String>;

/// One behaviour that a user can see.
pub struct Case {
    /// The id, which stays: `unary/claim/late-claim`.
    pub id: &'static str,
    /// The invariant (`I5`) or section of the protocol (`section 6`) that it stands for.
    pub stands_for: &'static str,
    /// What must hold.
    pub about: &'static str,
    pub(crate) run: fn(Env) -> Pin<Box<dyn Future<Output = Verdict> + Send>>,
}

/// A connection to a bus, or why there is none.
pub type Connecting = Pin<Box<dyn Future<Output = Result<Arc<dyn Bus>, String>> + Send>>;

/// A bus, as many connections to it as are asked for. It is called where the case runs.
pub type Connect = Arc<dyn Fn() -> Connecting + Send + Sync>;

/// What is judged.
#[derive(Clone)]
pub struct Subject {
    /// Makes a bus for a case, that nobody else uses meanwhile.
    pub bus: Arc<dyn Fn() -> Connect + Send + Sync>,
    /// Where the case runs.
    pub host: Arc<dyn Host>,
    /// How many calls a case about load makes of each kind.
    pub calls: usize,
}

/// Runs a case.
///
/// # Errors
///
/// What was not as it should be: also when the case took too long, or panicked.
pub fn run(case: &Case, subject: &Subject) -> Verdict {
    let runtime = subject.host.runtime();
    let env = Env::new((subject.bus)(), Arc::clone(&runtime), subject.calls);
    let aftermath = env.clone();
    let deadline = runtime.sleep_until(runtime.now().time + AT_MOST);
    let mut verdict = None;
    let ran = catch_unwind(AssertUnwindSafe(|| {
        let case = (case.run)(env);
        subject.host.block_on(Box::pin(async {
            verdict = Some(first(case, deadline).await);
            let _ = aftermath.within(AFTERMATH, aftermath.disconnected()).await;
        }));
    }));
    match (ran, verdict) {
        (Ok(()), Some(Some(verdict))) => verdict,
        (Ok(()), Some(None)) => Err(format!("it was not over after {AT_MOST:?}")),
        (Ok(()), None) => Err("the host did not run it to its end".to_owned()),
        (Err(panic), _) => Err(format!("it panicked: {}", message(&*panic))),
    }
}

/// What `future` ends with, unless `limit` ends first.
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

/// Ends the case when a condition does not hold, saying what was expected.
macro_rules! check {
    ($condition:expr, $($text:tt)+) => {
        if !$condition {
            return Err(format!($($text)+));
        }
    };
}

/// Ends the case when two values are not equal.
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
