//! Seeds of the driver: they pass, are deterministic, and cover all faults and outcomes.

use psrpc_simulation::{Fault, Report, Summary, simulate_driver};

#[test]
fn a_few_hundred_seeds_of_the_driver_pass_and_meet_every_fault_and_outcome() {
    let mut summary = Summary::new();
    for seed in 0..400 {
        let report = simulate_driver(seed, None);
        assert_eq!(report.violation, None, "seed {seed}");
        summary.add(&report);
    }
    // A hasty cancel needs access to the engine while it handles a frame, which only the driver
    // has.
    assert_eq!(summary.rarer_than(1), [(Fault::HastyCancel, 0)], "{:?}", summary.faults);
    let outcomes = [
        "answered",
        "answered with an error",
        "client closed",
        "dropped",
        "no server bid",
        "no bid was acceptable",
        "no response before the deadline",
        "publish failed",
        "runtime has shut down",
        "selection function failed",
        "subscription lost",
    ];
    for outcome in outcomes {
        assert!(summary.outcomes.contains_key(outcome), "{outcome}: {:?}", summary.outcomes);
    }
}

#[test]
fn a_seed_of_the_driver_is_deterministic_and_differs_from_others() {
    for seed in 0..20 {
        let first = simulate_driver(seed, None);
        assert_eq!(first, simulate_driver(seed, None));
        assert_eq!(
            first,
            simulate_driver(seed, Some(Box::new(|_| {}))),
            "showing the trace does not change it"
        );
        assert_ne!(first.trace_hash, simulate_driver(seed + 1, None).trace_hash);
    }
}

#[test]
fn seeds_of_the_driver_make_many_calls_and_a_fresh_one_of_each_kind_by_every_client() {
    let mut all = 0;
    for seed in 0..50 {
        let Report { calls, fresh_calls, .. } = simulate_driver(seed, None);
        assert!([7, 14, 21].contains(&fresh_calls), "seed {seed}: {fresh_calls}");
        all += calls;
    }
    assert!(all >= 1500, "{all}");
}
