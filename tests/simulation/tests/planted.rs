//! Planted defects, in a separate process: a planted defect affects every engine of its process.

#![cfg(psrpc_planted)]

use psrpc_engine::planted::Defect;
use psrpc_simulation::check_seed;
use psrpc_simulation::judge::violation::Invariant;
use psrpc_simulation::seeds::planted_defects::catch;

#[test]
fn a_defect_is_caught_in_the_first_seed_that_shows_it_and_is_removed_again() {
    let caught = catch(Defect::UnannouncedIgnored, 100).expect("a hundred seeds catch it");
    assert_eq!(caught.invariant, Invariant::I16);
    assert_eq!(catch(Defect::UnannouncedIgnored, caught.seed), None);
    assert_eq!(catch(Defect::UnannouncedIgnored, caught.seed + 1), Some(caught));
    assert_eq!(check_seed(caught.seed).violation, None);
}

#[test]
fn defects_have_names_and_descriptions() {
    assert_eq!(Defect::UnannouncedIgnored.name(), "unannounced_ignored");
    assert_eq!(
        Defect::UnannouncedIgnored.what(),
        "A response on a queue that arrives before its announcement does not end the call."
    );
}
