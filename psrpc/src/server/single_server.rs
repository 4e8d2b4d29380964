//! A guard against two servers in one process that register the same single-server method.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use psrpc_engine::Route;
use psrpc_engine::proto::ErrorCode;

use crate::bus::BusId;
use crate::error::Error;

/// The single-server methods served in this process, by bus and request channel.
static SERVED: Mutex<BTreeSet<(BusId, String)>> = Mutex::new(BTreeSet::new());

/// The exclusive right to serve single-server methods. Dropping it releases the right.
#[derive(Default)]
pub(super) struct SingleServerGuard(Vec<(BusId, String)>);

impl SingleServerGuard {
    /// Acquires the right for those of the routes that are for a single server.
    ///
    /// # Errors
    ///
    /// Returns `already_exists` if another server in this process has the right.
    pub(super) fn acquire(bus: Option<BusId>, routes: &[Route]) -> Result<Self, Error> {
        let mut guard = Self::default();
        let Some(bus) = bus else { return Ok(guard) };
        for route in routes {
            let properties = route.properties();
            if properties.require_claim || properties.multi() {
                continue;
            }
            let key = (bus, route.requests().legacy().to_owned());
            if !SERVED.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone()) {
                let text = format!(
                    "{route} is for a single server, and another server in this process already serves it"
                );
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
