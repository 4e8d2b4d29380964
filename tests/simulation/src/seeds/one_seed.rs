//! One seed: which simulations run for it.

use crate::engines::simulation::simulate;
use crate::report::{Report, same_trace};
use crate::services::driver_run::simulate_driver;
use crate::trace::Show;

/// One in so many seeds is of services too, with the driver and all that users see, which takes
/// longer.
const SERVICES: u64 = 16;

/// One in so many seeds is run twice.
const TWICE: u64 = 64;

/// Runs one seed: engines, and for some seeds whole services. The trace of each goes line by line
/// to what `show` gives.
pub fn simulate_seed(seed: u64, mut show: impl FnMut() -> Option<Show>) -> Report {
    let report = simulate(seed, show());
    if report.violation.is_some() || !seed.is_multiple_of(SERVICES) {
        return report;
    }
    report.and(&simulate_driver(seed, show()))
}

/// Runs one seed; some of them twice, to see that they go the same way (I17).
pub fn check_seed(seed: u64) -> Report {
    let report = simulate_seed(seed, || None);
    if report.violation.is_some() || !seed.is_multiple_of(TWICE) {
        return report;
    }
    let violation = same_trace(&report, &simulate_seed(seed, || None)).err();
    Report { violation, ..report }
}
