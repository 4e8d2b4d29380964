//! Seeds of engines: they pass, are deterministic, and cover all faults and outcomes.

use psrpc_engine::Reason;
use psrpc_simulation::judge::violation::Invariant;
use psrpc_simulation::{Fault, Kept, Report, Summary, check_seed, kept, same_trace, simulate};

#[test]
fn a_few_hundred_seeds_pass_and_meet_every_kind_of_fault_and_outcome() {
    let mut summary = Summary::new();
    for seed in 0..300 {
        let report = simulate(seed, None);
        assert_eq!(report.violation, None, "seed {seed}");
        summary.add(&report);
    }
    // An engine has no runtime; seeds of the driver cover its end.
    assert_eq!(summary.rarer_than(1), [(Fault::RuntimeEnd, 0)]);
    let outcomes = [
        "answered",
        Reason::Answered.as_str(),
        Reason::Canceled.as_str(),
        Reason::ClientClosed.as_str(),
        Reason::TimedOut.as_str(),
        Reason::NoResponse.as_str(),
        Reason::NotAcceptable.as_str(),
        Reason::SelectionFailed.as_str(),
        Reason::PublishFailed.as_str(),
    ];
    for outcome in outcomes {
        assert!(summary.outcomes.contains_key(outcome), "{outcome}: {:?}", summary.outcomes);
    }
    assert_eq!(summary.outcomes.values().sum::<u64>(), summary.calls, "every call has an outcome");
}

#[test]
fn every_seed_that_failed_once_passes() {
    let kept = kept();
    assert!(!kept.is_empty());
    for Kept { seed, showed } in kept {
        assert_eq!(check_seed(seed).violation, None, "seed {seed}: {showed}");
    }
}

#[test]
fn a_seed_is_deterministic_and_differs_from_others() {
    let first = simulate(7, None);
    assert_eq!(first, simulate(7, None));
    assert_eq!(first, simulate(7, Some(Box::new(|_| {}))), "showing the trace does not change it");
    assert_ne!(first.trace_hash, simulate(8, None).trace_hash);
}

#[test]
fn a_seed_makes_many_calls_and_fresh_ones_of_each_method() {
    for seed in 0..50 {
        let Report { calls, fresh_calls, .. } = simulate(seed, None);
        assert!((5..=320).contains(&calls), "seed {seed}: {calls}");
        assert!(fresh_calls >= 3, "seed {seed}: {fresh_calls}");
    }
}

#[test]
fn two_traces_of_a_seed_that_differ_are_a_violation_of_i17() {
    let (first, second) = (simulate(7, None), simulate(8, None));
    assert_eq!(same_trace(&first, &first.clone()), Ok(()));
    assert_eq!(same_trace(&first, &second).unwrap_err().invariant, Invariant::I17);
}

#[test]
fn a_panic_is_a_violation_of_i11_and_affects_no_other_seed() {
    let report = simulate(7, Some(Box::new(|_| panic!("boom"))));
    let violation = report.violation.expect("the callback panics");
    assert_eq!((violation.invariant, violation.what.as_str()), (Invariant::I11, "panic: boom"));
    assert_eq!(simulate(7, None).violation, None);
}

#[test]
fn a_kind_of_fault_that_happened_too_rarely_is_reported() {
    let mut summary = Summary::new();
    summary.add(&simulate(7, None));
    let once = |fault| summary.faults.iter().any(|(known, count)| known == fault && count >= 1);
    let (seen, missed): (Vec<_>, Vec<_>) = Fault::ALL.iter().partition(|fault| once(**fault));
    assert!(!seen.is_empty() && !missed.is_empty(), "{seen:?} {missed:?}");
    assert_eq!(summary.rarer_than(0), []);
    assert_eq!(summary.rarer_than(1).iter().map(|(fault, _)| *fault).collect::<Vec<_>>(), missed);
    assert_eq!(summary.rarer_than(u64::MAX).len(), Fault::ALL.len());
}
