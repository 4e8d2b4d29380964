//! The subjects that the bus is known to be allowed to publish on.
//!
//! NATS does not confirm publishes. It reports a refused publish asynchronously, with the subject.
//! The first frames on a subject are therefore confirmed by a round trip: frames that the server
//! has not refused by then were accepted.

use std::collections::BTreeMap;

use async_nats::Subject;
use psrpc::bus::Receipt;

/// The maximum number of remembered subjects. When it is reached all are forgotten, which costs one
/// round trip each.
const MAX_ALLOWED: usize = 16 * 1024;

/// The maximum number of unconfirmed frames once the server has refused a frame. Each may cause an
/// error, and the client library buffers 128 errors.
const MAX_UNCONFIRMED: usize = 16;

#[derive(Default)]
pub(crate) struct Permissions {
    /// The allowed subjects by name.
    allowed: BTreeMap<Box<str>, Subject>,
    /// The frames being passed to the client library on subjects not known to be allowed.
    sending: Vec<Unconfirmed>,
    /// The frames passed to the client library, to be confirmed by the next round.
    sent: Vec<Unconfirmed>,
    /// The frames of the current round and of the previous one. A refusal may be reported late, so
    /// a frame is confirmed by the round after its own.
    current_round: Vec<Unconfirmed>,
    previous_round: Vec<Unconfirmed>,
    /// Whether the server has ever refused a frame.
    has_refused: bool,
    /// The number of refusals still expected for frames that have already failed with another frame
    /// on their subject.
    expected_refusals: usize,
}

/// A frame on a subject that may not be allowed.
pub(crate) struct Unconfirmed {
    pub(crate) subject: Subject,
    pub(crate) receipt: Receipt,
    /// Whether the frame was sent while the number of unconfirmed frames was limited.
    pub(crate) is_limited: bool,
}

impl Permissions {
    /// Returns the subject with this name if it is known to be allowed.
    pub(crate) fn allowed(&self, name: &str) -> Option<Subject> {
        self.allowed.get(name).cloned()
    }

    /// Returns `true` if the number of unconfirmed frames is limited.
    pub(crate) fn is_limited(&self) -> bool {
        self.has_refused
    }

    /// Returns how many more frames may be unconfirmed.
    pub(crate) fn room(&self) -> usize {
        let unconfirmed =
            self.sending.len() + self.sent.len() + self.current_round.len() + self.previous_round.len();
        if self.has_refused { MAX_UNCONFIRMED.saturating_sub(unconfirmed) } else { usize::MAX }
    }

    /// Tracks frames that are about to be passed to the client library.
    pub(crate) fn sending(&mut self, frames: &mut Vec<Unconfirmed>) {
        self.sending.append(frames);
    }

    /// Records that the tracked frames were passed to the client library.
    pub(crate) fn sent(&mut self) {
        self.sent.append(&mut self.sending);
    }

    /// Starts a round. Returns `true` if it is needed to confirm a frame.
    pub(crate) fn begin_round(&mut self) -> bool {
        self.current_round.append(&mut self.sent);
        !self.current_round.is_empty() || !self.previous_round.is_empty()
    }

    /// Returns `true` if frames wait for the next round.
    pub(crate) fn needs_round(&self) -> bool {
        !self.sent.is_empty()
    }

    /// Handles the end of a round. Returns the confirmed frames, whose subjects are now known to be
    /// allowed.
    pub(crate) fn confirm_publishes(&mut self) -> Vec<Unconfirmed> {
        let confirmed = std::mem::replace(&mut self.previous_round, std::mem::take(&mut self.current_round));
        for frame in &confirmed {
            if self.allowed.len() >= MAX_ALLOWED {
                self.allowed.clear();
            }
            self.allowed.insert(frame.subject.as_str().into(), frame.subject.clone());
        }
        confirmed
    }

    /// Handles a refused frame. Returns all unconfirmed frames on the subject: they were sent at
    /// about the same time, so the server refuses them too. Also returns `true` if the frame was
    /// sent while the number of unconfirmed frames was limited: the client library has room for the
    /// errors of all such frames.
    pub(crate) fn refuse(&mut self, subject: &str) -> (Vec<Unconfirmed>, bool) {
        self.has_refused = true;
        self.allowed.remove(subject);
        let mut refused = Vec::new();
        for frames in [&mut self.previous_round, &mut self.current_round, &mut self.sent, &mut self.sending] {
            refused.extend(frames.extract_if(.., |frame| frame.subject.as_str() == subject));
        }
        let limited = refused.iter().filter(|frame| frame.is_limited).count();
        let is_expected = limited > 0 || refused.is_empty() && self.expected_refusals > 0;
        match limited.checked_sub(1) {
            Some(others) => self.expected_refusals += others,
            None => {
                self.expected_refusals =
                    self.expected_refusals.saturating_sub(usize::from(refused.is_empty()));
            }
        }
        (refused, is_expected)
    }

    /// Handles a lost connection. Returns the unconfirmed frames.
    pub(crate) fn lost(&mut self) -> Vec<Unconfirmed> {
        self.allowed.clear();
        self.expected_refusals = 0;
        let mut lost = std::mem::take(&mut self.previous_round);
        lost.append(&mut self.current_round);
        lost.append(&mut self.sent);
        lost.append(&mut self.sending);
        lost
    }
}
