//! The fault tests notice defects. Each test plants a defect of one kind in the bus or the
//! runtime.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use psrpc::bus::Bus;
use psrpc::proto::{Channel, Frame, Request, Seed};
use psrpc::{Now, Runtime, Task, Time};
use psrpc_faults::case::Case;
use psrpc_faults::fault;
use psrpc_faults::runtime::{Executor, RuntimeName};
use psrpc_faults::setup::SetUp;
use psrpc_smol::SmolRuntime;
use psrpc_testing::{FaultyBus, Rule};

/// The number of the first bus of a client.
const FIRST_CLIENT: usize = psrpc_faults::fleet::SERVERS;

fn smol() -> Executor {
    RuntimeName::Smol.start()
}

/// Runs an outage of the in-process bus.
fn run(
    executor: Executor,
    wrap: impl Fn(usize, Arc<dyn Bus>) -> Arc<dyn Bus> + Send + Sync + 'static,
) -> Result<(), String> {
    let fault = fault::named("broken").expect("it is a fault");
    let case = Case { fault, set_up: SetUp::Local, runtime: RuntimeName::Smol };
    let (measured, checked) = case.run_with(executor, wrap);
    assert!(measured.totals.made > 0, "calls were made");
    checked
}

/// Asserts that a run failed, and that its error contains this invariant and this text.
fn assert_noticed(checked: Result<(), String>, invariant: &str, text: &str) {
    let problem = checked.expect_err("the defect must be noticed");
    assert!(problem.contains(invariant) && problem.contains(text), "{problem}");
}

#[test]
fn a_bus_without_defects_passes() {
    assert_eq!(run(smol(), |_, bus| bus), Ok(()));
    let (_, on_tokio) = Case {
        fault: fault::named("broken").expect("it is a fault"),
        set_up: SetUp::Local,
        runtime: RuntimeName::Tokio,
    }
    .run();
    assert_eq!(on_tokio, Ok(()));
}

#[test]
fn a_request_that_is_delivered_again_with_another_id_is_noticed() {
    let checked = run(smol(), |number, bus| {
        let faulty = FaultyBus::new(Arc::clone(&bus), SmolRuntime, 1);
        if number >= FIRST_CLIENT {
            faulty.intercept_publish(move |channel: &Channel, frame, receipt| {
                if let Frame::Request(request) = &frame
                    && channel.legacy() == "Hats|Fit|REQ"
                {
                    let again = Request { request_id: "REQ_again".into(), ..request.clone() };
                    let (bus, channel) = (Arc::clone(&bus), channel.clone());
                    SmolRuntime.spawn(Box::pin(async move {
                        drop(psrpc::bus::publish(&bus, channel, Frame::Request(again)).await);
                    }));
                }
                Some((frame, receipt))
            });
        }
        Arc::new(faulty)
    });
    assert_noticed(checked, "I2", "was retried on server");
}

#[test]
fn updates_that_are_lost_without_a_gap_are_noticed() {
    let checked = run(smol(), |number, bus| {
        let faulty = FaultyBus::new(bus, SmolRuntime, 1);
        if number == FIRST_CLIENT {
            // Several updates are lost, since the gap of the outage excuses a loss just before it.
            let count = AtomicU64::new(0);
            faulty.intercept_delivery(move |channel: &Channel, frame| {
                let is_lost =
                    channel.legacy() == "Hats|News|REQ" && count.fetch_add(1, Ordering::Relaxed) % 10 == 5;
                (!is_lost).then_some(frame)
            });
        }
        Arc::new(faulty)
    });
    assert_noticed(checked, "I13", "and was not told");
}

/// A runtime whose timers for more than 300 ms fire 300 ms late.
#[derive(Clone)]
struct LateRuntime;

const LATE: Duration = Duration::from_millis(300);

impl Runtime for LateRuntime {
    fn now(&self) -> Now {
        SmolRuntime.now()
    }

    fn seed(&self) -> Seed {
        SmolRuntime.seed()
    }

    fn sleep_until(&self, deadline: Time) -> Task {
        let is_long = deadline.since(self.now().time) > LATE;
        SmolRuntime.sleep_until(if is_long { deadline + LATE } else { deadline })
    }

    fn spawn(&self, task: Task) {
        SmolRuntime.spawn(task);
    }
}

#[test]
fn a_call_that_ends_after_its_deadline_is_noticed() {
    let checked = run(Executor::new(Arc::new(LateRuntime)), |number, bus| {
        let faulty = FaultyBus::new(bus, SmolRuntime, 1);
        if number == FIRST_CLIENT {
            faulty.inject(Rule::drop().channel("Hats|Fit|REQ").first(3));
        }
        Arc::new(faulty)
    });
    assert_noticed(checked, "I1", "past its deadline");
}
