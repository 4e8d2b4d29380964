//! Methods that one server alone may serve: no two of one process on one bus.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use psrpc_engine::Route;
use psrpc_engine::proto::ErrorCode;

use crate::bus::BusId;
use crate::error::Error;

/// What is served alone in this process, by bus and request channel.
static SERVED: Mutex<BTreeSet<(BusId, String)>> = Mutex::new(BTreeSet::new());

/// The right to serve methods alone. Dropping it gives it up.
#[derive(Default)]
pub(super) struct SingleServerGuard(Vec<(BusId, String)>);

impl SingleServerGuard {
    /// Takes the right for those of the routes that one server alone may serve.
    ///
    /// # Errors
    ///
    /// `already_exists` when another server of this process has it.
    pub(super) fn claim(bus: Option<BusId>, routes: &[Route]) -> Result<Self, Error> {
        let mut guard = Self::default();
        let Some(bus) = bus else { return Ok(guard) };
        for route in routes {
            let properties = route.properties();
            if properties.require_claim || properties.multi() {
                continue;
            }
            let key = (bus, route.requests().legacy().to_owned());
            if !SERVED.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone()) {
                let text = format!("{route} is for one server guard, and another of this process serves it");
                return Err(Error::new(ErrorCode::AlreadyExists, text));
            }
            guard.0.push(key);
        }
        Ok(guard)
    }
}

impl Drop for SingleServerGuard {
    fn drop(&mut self) {
        let mut served = SERVED.lock().unwrap_or_else(PoisonError::into_inner);
        for key in &self.0 {
            served.remove(key);
        }
    }
}
