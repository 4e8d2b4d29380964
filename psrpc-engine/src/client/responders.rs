//! Who answered the calls that require no claim, to notice when two servers answer one.

use alloc::collections::VecDeque;

use psrpc_proto::{Response, Text};

/// How many calls are remembered.
const REMEMBERED: usize = 256;

/// The last calls without a claim that were answered, and by whom. Where nobody is granted a call,
/// one server alone should have it; that there is only one is up to its users.
pub(super) struct Responders(VecDeque<(Text, Text)>);

impl Responders {
    pub(super) const fn new() -> Self {
        Self(VecDeque::new())
    }

    /// A call was answered by a server.
    pub(super) fn answered(&mut self, request_id: Text, server_id: Text) {
        if self.0.len() >= REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back((request_id, server_id));
    }

    /// Whether a response is a second server's to a call that was answered.
    pub(super) fn is_second(&self, response: &Response) -> bool {
        let mut answered = self.0.iter().rev();
        answered.any(|(request, server)| *request == response.request_id && *server != response.server_id)
    }
}
