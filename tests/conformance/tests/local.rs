//! Runs every case on the in-process bus, on each available runtime.

use std::sync::Arc;
use std::time::Duration;

use psrpc::bus::Bus;
use psrpc_bus_local::LocalBus;
use psrpc_conformance::runtime::{Host, Smol, Solo, Tokio};
use psrpc_conformance::{Subject, bus, cases, run};
use psrpc_testing::{FaultyBus, Rule};

fn all_pass_on(host: impl Host + 'static) {
    all_pass(Subject {
        bus: bus("local:", host.runtime()),
        host: Arc::new(host),
        calls: 400,
        settling_time: Duration::ZERO,
    });
}

fn all_pass(subject: Subject) {
    let failed: Vec<_> = cases()
        .into_iter()
        .filter_map(|case| run(case, &subject).err().map(|problem| format!("{}: {problem}", case.id)))
        .collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn every_case_passes_on_tokio() {
    all_pass_on(Tokio::multi_thread(2));
}

#[test]
fn every_case_passes_on_tokio_on_one_thread() {
    all_pass_on(Tokio::current_thread());
}

#[test]
fn every_case_passes_on_smol() {
    all_pass_on(Smol);
}

#[cfg(feature = "async-std")]
#[test]
fn every_case_passes_on_async_std() {
    all_pass_on(psrpc_conformance::runtime::AsyncStd);
}

#[test]
fn every_case_passes_on_an_executor_of_our_own() {
    all_pass_on(Solo::new());
}

/// Runs every case with a faulty bus on each connection; `inject` adds the faults.
fn all_pass_through(inject: fn(&FaultyBus)) {
    let solo = Solo::new();
    let runtime = solo.clone();
    let subject = Subject {
        bus: Arc::new(move || {
            let (local, runtime) = (LocalBus::new(), runtime.clone());
            Arc::new(move || {
                let bus = FaultyBus::new(local.clone(), runtime.clone(), 1);
                inject(&bus);
                let bus: Arc<dyn Bus> = Arc::new(bus);
                Box::pin(async { Ok(bus) })
            })
        }),
        host: Arc::new(solo),
        calls: 400,
        settling_time: Duration::ZERO,
    };
    all_pass(subject);
}

#[test]
fn every_case_passes_through_a_faulty_bus_without_faults() {
    all_pass_through(|_| ());
}

#[test]
fn every_case_passes_where_frames_are_late() {
    all_pass_through(|bus| {
        bus.inject(Rule::delay(Duration::from_micros(100)));
    });
}

#[test]
fn no_two_cases_have_one_id() {
    let mut ids: Vec<_> = cases().iter().map(|case| case.id).collect();
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count);
}
