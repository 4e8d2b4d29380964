//! Recent responders, to detect two servers registered for one single-server method.

use alloc::collections::VecDeque;

use psrpc_proto::{Response, Text};

/// How many calls are remembered.
const REMEMBERED: usize = 256;

/// The most recent calls without a claim, each with the server that answered. The protocol does not
/// enforce that a single-server method has one server.
pub(super) struct Responders(VecDeque<(Text, Text)>);

impl Responders {
    pub(super) const fn new() -> Self {
        Self(VecDeque::new())
    }

    /// Records that a server answered a call.
    pub(super) fn record(&mut self, request_id: Text, server_id: Text) {
        if self.0.len() >= REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back((request_id, server_id));
    }

    /// Returns `true` if another server already answered the call of a response.
    pub(super) fn is_second(&self, response: &Response) -> bool {
        let mut answered = self.0.iter().rev();
        answered.any(|(request, server)| *request == response.request_id && *server != response.server_id)
    }
}
