//! Permissions: which subjects the server lets the bus publish on, as far as is known.
//!
//! NATS confirms no publish, and refuses one only in a message of its own, which names the subject.
//! So the first frames on a subject are confirmed by a round trip: what the server has not refused
//! by then it accepted.

use std::collections::BTreeMap;

use async_nats::Subject;
use psrpc::bus::Receipt;

/// How many allowed subjects are remembered; then all of them are forgotten, which costs a round
/// trip each.
const MOST: usize = 16 * 1024;

/// How many frames may wait for their confirmation once the server has refused any. Each may draw
/// an error, and the client library keeps 128 of those at most.
const MOST_UNCONFIRMED: usize = 16;

#[derive(Default)]
pub(crate) struct Permissions {
    /// The allowed subjects, by name.
    allowed: BTreeMap<Box<str>, Subject>,
    /// The frames that are being handed to the client library, on subjects that are not known to be
    /// allowed.
    sending: Vec<Unconfirmed>,
    /// Those that the library has, and that the next round trip confirms.
    sent: Vec<Unconfirmed>,
    /// Those that the round under way is about, and those that it confirms: a refusal may come
    /// late, so a frame is confirmed by the round after its own.
    asked: Vec<Unconfirmed>,
    confirming: Vec<Unconfirmed>,
    /// Whether the server has ever refused a frame.
    wary: bool,
    /// How many more refusals are to come, of frames that have failed with another on their
    /// subject.
    to_come: usize,
}

/// A frame whose subject may not be allowed.
pub(crate) struct Unconfirmed {
    pub(crate) subject: Subject,
    pub(crate) receipt: Receipt,
    /// Whether it was sent when few could be unconfirmed.
    pub(crate) is_limited: bool,
}

impl Permissions {
    /// Returns the subject of this name, if it is known to be allowed.
    pub(crate) fn allowed(&self, name: &str) -> Option<Subject> {
        self.allowed.get(name).cloned()
    }

    /// Returns `true` if few frames may be unconfirmed.
    pub(crate) fn is_limited(&self) -> bool {
        self.wary
    }

    /// Returns how many more frames may be unconfirmed.
    pub(crate) fn room(&self) -> usize {
        let unconfirmed = self.sending.len() + self.sent.len() + self.asked.len() + self.confirming.len();
        if self.wary { MOST_UNCONFIRMED.saturating_sub(unconfirmed) } else { usize::MAX }
    }

    /// These frames are about to be handed to the client library.
    pub(crate) fn sending(&mut self, frames: &mut Vec<Unconfirmed>) {
        self.sending.append(frames);
    }

    /// They have been handed over.
    pub(crate) fn sent(&mut self) {
        self.sent.append(&mut self.sending);
    }

    /// A round is about to begin. Returns `true` if it is about any frame.
    pub(crate) fn begin(&mut self) -> bool {
        self.asked.append(&mut self.sent);
        !self.asked.is_empty() || !self.confirming.is_empty()
    }

    /// Returns `true` if frames wait for the next round.
    pub(crate) fn needs_round(&self) -> bool {
        !self.sent.is_empty()
    }

    /// A round has ended. The subjects of the frames that it confirms are allowed. Returns these
    /// frames.
    pub(crate) fn confirm(&mut self) -> Vec<Unconfirmed> {
        let confirmed = std::mem::replace(&mut self.confirming, std::mem::take(&mut self.asked));
        for frame in &confirmed {
            if self.allowed.len() >= MOST {
                self.allowed.clear();
            }
            self.allowed.insert(frame.subject.as_str().into(), frame.subject.clone());
        }
        confirmed
    }

    /// The server has refused a frame. Returns the frames on this subject that are not confirmed:
    /// all of them left at about that time, so the server refuses them too. Returns `true`
    /// beside them if few refusals like this one can come at a time.
    pub(crate) fn refuse(&mut self, subject: &str) -> (Vec<Unconfirmed>, bool) {
        self.wary = true;
        self.allowed.remove(subject);
        let mut refused = Vec::new();
        for frames in [&mut self.confirming, &mut self.asked, &mut self.sent, &mut self.sending] {
            refused.extend(frames.extract_if(.., |frame| frame.subject.as_str() == subject));
        }
        let limited = refused.iter().filter(|frame| frame.is_limited).count();
        let is_expected = limited > 0 || refused.is_empty() && self.to_come > 0;
        match limited.checked_sub(1) {
            Some(others) => self.to_come += others,
            None => self.to_come = self.to_come.saturating_sub(usize::from(refused.is_empty())),
        }
        (refused, is_expected)
    }

    /// The connection was lost. Returns the frames that were not confirmed.
    pub(crate) fn lost(&mut self) -> Vec<Unconfirmed> {
        self.allowed.clear();
        self.to_come = 0;
        let mut lost = std::mem::take(&mut self.confirming);
        lost.append(&mut self.asked);
        lost.append(&mut self.sent);
        lost.append(&mut self.sending);
        lost
    }
}
