//! The claim of a call: the bids, the selected server, and the check of which server may run the
//! call.

use psrpc_engine::proto::{ClaimRequest, ClaimResponse};

use crate::exhaustive::scenario::{SERVERS, name, server_of};
use crate::judge::violation::{Checked, Invariant};

/// The claim, as the client of a call sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ClaimOracle {
    bids: [bool; SERVERS],
    /// The server that the client has granted the call to, or that has announced the call.
    pub(super) selected: Option<usize>,
    /// Whether it was canceled before a server was selected.
    pub(super) withdrawn: bool,
}

impl ClaimOracle {
    /// Notes a bid or an announcement that the client receives.
    pub(super) fn bid(&mut self, claim: &ClaimRequest, is_over: bool) {
        // Later bids have no effect.
        let is_late = is_over || self.selected.is_some();
        let Some(server) = server_of(&claim.server_id).filter(|_| !is_late) else { return };
        self.bids[server] = true;
        if claim.handling {
            self.selected = Some(server);
        }
    }

    /// Checks a grant of the client.
    pub(super) fn grant(&mut self, grant: &ClaimResponse, is_over: bool) -> Checked {
        let to = server_of(&grant.server_id);
        if self.withdrawn {
            return Invariant::I4.violated(format!("it was granted to {to:?} after it was canceled"));
        }
        if is_over {
            return Invariant::I5.violated(format!("it was granted to {to:?} after it had ended"));
        }
        if let Some(other) = self.selected {
            return Invariant::I2.violated(format!("it was granted to {to:?}, but {other} was selected"));
        }
        let Some(server) = to.filter(|server| self.bids[*server]) else {
            return Invariant::I5.violated(format!("it was granted to {to:?}, which made no bid"));
        };
        self.selected = Some(server);
        Ok(())
    }

    /// Checks that a server may run the call.
    pub(super) fn may_run(&self, server: usize) -> Checked {
        if self.withdrawn {
            let server = name(server + 1);
            return Invariant::I4
                .violated(format!("{server} runs a call that was canceled before it was granted"));
        }
        if self.selected != Some(server) {
            let server = name(server + 1);
            return Invariant::I2.violated(format!("{server} runs a call that was not granted to it"));
        }
        Ok(())
    }
}
