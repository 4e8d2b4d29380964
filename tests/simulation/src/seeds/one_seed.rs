//! One seed: runs its simulations.

use crate::engines::simulation::simulate;
use crate::report::{Report, same_trace};
use crate::services::driver_run::simulate_driver;
use crate::trace::Show;

/// One seed in this many also runs services, with the driver, which takes longer.
const SERVICES: u64 = 16;

/// One seed in this many is run twice.
const TWICE: u64 = 64;

/// Runs one seed: engines, and for some seeds also services. `show` returns the callback for the
/// lines of each trace.
pub fn simulate_seed(seed: u64, mut show: impl FnMut() -> Option<Show>) -> Report {
    let report = simulate(seed, show());
    if report.violation.is_some() || !seed.is_multiple_of(SERVICES) {
        return report;
    }
    report.merge(&simulate_driver(seed, show()))
}

/// Runs one seed, and for some seeds runs it again and compares the traces (I17).
pub fn check_seed(seed: u64) -> Report {
    let report = simulate_seed(seed, || None);
    if report.violation.is_some() || !seed.is_multiple_of(TWICE) {
        return report;
    }
    let violation = same_trace(&report, &simulate_seed(seed, || None)).err();
    Report { violation, ..report }
}
