//! The faults: how each begins and ends, and which events the buses must report.

mod groups;
mod local;
mod nats;
mod network;
mod process;
mod redis;

use std::time::Duration;

use crate::bus_log::Sight;
use crate::setup::SetUp;
use crate::stage::Stage;

/// A fault of servers or of the network.
pub struct Fault {
    /// The name, unique among all faults.
    pub name: &'static str,
    /// One sentence about what happens.
    pub about: &'static str,
    /// The set-ups that it can happen on.
    pub set_ups: &'static [SetUp],
    /// Whether the buses connect through a proxy.
    pub proxied: bool,
    /// How long it lasts.
    pub hold: Duration,
    /// The events that the buses must report.
    pub sight: Sight,
    /// How soon after its end every kind of call must succeed again.
    pub recovery: Duration,
    /// Whether messages may be lost between servers while every bus stays connected, so that no
    /// subscriber can know.
    pub loses_between_servers: bool,
    /// Begins the fault.
    pub begin: fn(&mut Stage),
    /// Ends the fault, or waits for a failover. A failed server of a group may stay down until
    /// `mend`.
    pub end: fn(&mut Stage),
    /// Repairs the remaining damage after the service has recovered.
    pub mend: fn(&mut Stage),
}

/// The limit for the recovery of the service after its only server is back.
pub const RECOVERY: Duration = Duration::from_secs(2);

/// The limit for the recovery of the service after a failover.
pub const FAILOVER_RECOVERY: Duration = Duration::from_secs(5);

/// The duration of most faults.
const HOLD: Duration = Duration::from_millis(1500);

/// The defaults of most faults.
const OUTAGE: Fault = Fault {
    name: "",
    about: "",
    set_ups: &[],
    proxied: false,
    hold: HOLD,
    sight: Sight::Outage,
    recovery: RECOVERY,
    loses_between_servers: false,
    begin: |_| {},
    end: |_| {},
    mend: |_| {},
};

/// Returns all faults.
pub fn all() -> impl Iterator<Item = &'static Fault> {
    [local::FAULTS, process::FAULTS, network::FAULTS, redis::FAULTS, nats::FAULTS, groups::FAULTS]
        .into_iter()
        .flatten()
}

/// Returns the fault of this name.
pub fn named(name: &str) -> Option<&'static Fault> {
    all().find(|fault| fault.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_names_of_faults_are_unique_and_each_has_a_set_up() {
        let names: BTreeSet<_> = all().map(|fault| fault.name).collect();
        assert_eq!(names.len(), all().count());
        assert!(all().all(|fault| !fault.set_ups.is_empty() && fault.about.ends_with('.')));
    }
}
