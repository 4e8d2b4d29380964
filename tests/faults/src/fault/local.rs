//! The fault of the in-process bus.

use super::{Fault, OUTAGE};
use crate::setup::SetUp;
use std::time::Duration;

pub(super) static FAULTS: &[Fault] = &[Fault {
    name: "broken",
    about: "All connections break, and are restored later.",
    set_ups: &[SetUp::Local],
    hold: Duration::from_millis(300),
    begin: |stage| stage.local().break_all(),
    end: |stage| stage.local().restore_all(),
    ..OUTAGE
}];
