//! The updates of a run. A subscriber that misses an update must receive an error in its place
//! (I13).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use psrpc::Time;
use psrpc_simulation::judge::violation::{Checked, Invariant, Violation};

/// The kinds of updates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum UpdateKind {
    /// Each goes to every subscriber.
    News,
    /// Each goes to one subscriber, so others see jumps.
    Gossip,
}

/// Records the updates that servers publish and subscribers receive.
#[derive(Default)]
pub struct Updates(Mutex<Entries>);

#[derive(Default)]
struct Entries {
    published: BTreeMap<(UpdateKind, usize), Vec<Published>>,
    /// The last update of each server that each subscriber received since its last error.
    last: BTreeMap<(usize, usize), u64>,
    /// The updates that each subscriber received.
    received: BTreeSet<(UpdateKind, usize, usize, u64)>,
    jumps: Vec<Jump>,
    late: Vec<Late>,
    violation: Option<Violation>,
}

struct Published {
    start: Time,
    confirmed: bool,
}

/// Updates of a server that a subscriber missed without being told.
struct Jump {
    subscriber: usize,
    server: usize,
    first: u64,
    next: u64,
}

/// An update that a subscriber received after a later one.
struct Late {
    subscriber: usize,
    server: usize,
    number: u64,
    last: u64,
}

impl Updates {
    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an update that a server is about to publish. Returns its number.
    pub fn publish(&self, kind: UpdateKind, server: usize, start: Time) -> u64 {
        let mut entries = self.lock();
        let published = entries.published.entry((kind, server)).or_default();
        published.push(Published { start, confirmed: false });
        published.len() as u64 - 1
    }

    /// Notes that the bus has published an update.
    pub fn published(&self, kind: UpdateKind, server: usize, number: u64) {
        if let Some(published) = self.lock().published.get_mut(&(kind, server)) {
            published[number as usize].confirmed = true;
        }
    }

    /// Notes a received update. Returns the time at which its server began to publish it, or `None`
    /// if the server never did.
    pub fn received(&self, kind: UpdateKind, subscriber: usize, server: usize, number: u64) -> Option<Time> {
        let mut entries = self.lock();
        let start = entries.published.get(&(kind, server))?.get(number as usize)?.start;
        if !entries.received.insert((kind, subscriber, server, number)) {
            let what = format!("subscriber {subscriber} received update {number} of server {server} twice");
            entries.violation.get_or_insert(violation(what));
        }
        if kind == UpdateKind::News {
            entries.note_order(subscriber, server, number);
        }
        Some(start)
    }

    /// Notes that a subscriber was told that it may have missed updates.
    pub fn gap(&self, subscriber: usize) {
        self.lock().last.retain(|(known, _), _| *known != subscriber);
    }

    /// Checks the updates at the end of a run. `may_lose` returns `true` if an update may be lost
    /// for a reason that no subscriber can know, such as a lost connection of the server that
    /// publishes it. Its arguments are the server, and the times at which the server began to
    /// publish the update and the next update that arrived. Such an update may also arrive late,
    /// for example if a frozen bus server resumes after the buses have given it up.
    ///
    /// # Errors
    ///
    /// Returns the first violation.
    pub fn check(&self, may_lose: impl Fn(usize, Time, Time) -> bool) -> Checked {
        let entries = self.lock();
        if let Some(violation) = &entries.violation {
            return Err(violation.clone());
        }
        for Late { subscriber, server, number, last } in &entries.late {
            let published = &entries.published[&(UpdateKind::News, *server)];
            let [start, next] = [number, last].map(|number| published[*number as usize].start);
            if !may_lose(*server, start, next) {
                return Err(violation(format!(
                    "subscriber {subscriber} received update {number} of server {server} after update {last}"
                )));
            }
        }
        for jump in &entries.jumps {
            let published = &entries.published[&(UpdateKind::News, jump.server)];
            let mut missed = (jump.first..jump.next).map(|number| (number, &published[number as usize]));
            let next = published[jump.next as usize].start;
            let lost =
                missed.find(|(_, update)| update.confirmed && !may_lose(jump.server, update.start, next));
            if let Some((number, _)) = lost {
                return Err(violation(format!(
                    "subscriber {} missed update {number} of server {} and was not told",
                    jump.subscriber, jump.server
                )));
            }
        }
        Ok(())
    }
}

impl Entries {
    fn note_order(&mut self, subscriber: usize, server: usize, number: u64) {
        let last = self.last.entry((subscriber, server)).or_insert(number);
        if number > *last + 1 {
            self.jumps.push(Jump { subscriber, server, first: *last + 1, next: number });
        }
        if number < *last {
            self.late.push(Late { subscriber, server, number, last: *last });
        }
        *last = number.max(*last);
    }
}

fn violation(what: String) -> Violation {
    Violation { invariant: Invariant::I13, what }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(updates: &Updates, count: u64) {
        for number in 0..count {
            assert_eq!(updates.publish(UpdateKind::News, 1, Time::from_nanos(number)), number);
            updates.published(UpdateKind::News, 1, number);
        }
    }

    #[test]
    fn a_missed_update_is_a_violation_unless_the_subscriber_is_told_or_cannot_know() {
        let updates = Updates::default();
        publish(&updates, 6);
        for number in [0, 1] {
            assert!(updates.received(UpdateKind::News, 7, 1, number).is_some());
        }
        updates.gap(7);
        updates.received(UpdateKind::News, 7, 1, 3);
        assert_eq!(updates.check(|_, _, _| false), Ok(()));
        updates.received(UpdateKind::News, 7, 1, 5);
        assert!(updates.check(|_, _, _| false).is_err());
        assert_eq!(
            updates.check(|server, at, next| server == 1 && at < next && at == Time::from_nanos(4)),
            Ok(())
        );
    }

    #[test]
    fn an_update_arrives_once() {
        for again in [0, 1] {
            let updates = Updates::default();
            publish(&updates, 2);
            for number in [0, 1, again] {
                updates.received(UpdateKind::News, 7, 1, number);
            }
            assert!(updates.check(|_, _, _| true).is_err());
        }
    }

    #[test]
    fn an_update_arrives_after_later_ones_only_if_its_server_lost_the_connection_in_between() {
        let updates = Updates::default();
        publish(&updates, 3);
        for number in [0, 2, 1] {
            updates.received(UpdateKind::News, 7, 1, number);
        }
        assert_eq!(updates.check(|_, _, _| true), Ok(()));
        assert!(updates.check(|_, _, _| false).is_err());
    }
}
