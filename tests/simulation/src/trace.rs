//! The trace: everything that happens in a run, as a hash to compare and as lines to read.

use std::fmt::{self, Display};

use psrpc_engine::Time;
use psrpc_engine::proto::{Frame, Stream, StreamBody};

use crate::fault::Fault;
use crate::frame_text::without_types;
use crate::node_id::NodeId;

/// A callback that shows lines.
pub(crate) type Show = Box<dyn FnMut(&Line) + Send>;

/// One event of a run. Its `Display` is a line of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub(crate) at: Time,
    /// A node, the bus or the run itself.
    pub(crate) source: String,
    pub(crate) text: String,
    pub(crate) kind: LineKind,
}

/// The kind of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LineKind {
    /// An event that most readers want to see.
    Note,
    /// A detail between a node and the bus, other than a frame.
    Detail,
    /// A frame is published: its number among all published frames, and a short text.
    Publish(u64, String),
    /// A frame arrives: the number of the published frame, and the fault that changed, delayed or
    /// forged it.
    Arrival(u64, Option<Fault>, String),
    /// A frame is lost on its way to a node: the number of the published frame.
    Loss(u64, NodeId, Fault),
}

/// Hashes the events of a run, and shows them if there is a callback.
///
/// Lines are formatted only if they are shown: formatting takes longer than the rest of a run.
pub(crate) struct Trace {
    hash: TraceHash,
    show: Option<Show>,
}

impl Trace {
    pub(crate) fn new(show: Option<Show>) -> Self {
        Self { hash: TraceHash::new(), show }
    }

    pub(crate) fn line(
        &mut self,
        at: Time,
        source: impl Display,
        text: impl Display,
        kind: impl FnOnce() -> LineKind,
    ) {
        if let Some(show) = &mut self.show {
            let text = without_types(&text.to_string());
            show(&Line { at, source: source.to_string(), text, kind: kind() });
        }
    }

    pub(crate) fn hash(&mut self) -> &mut TraceHash {
        &mut self.hash
    }
}

impl Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.at.as_nanos() / 1000;
        write!(f, "{:>6}.{:03} {} {}", micros / 1000, micros % 1000, self.source, self.text)
    }
}

/// A hash that consumes eight bytes at a time, the same on every machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TraceHash(u64);

impl TraceHash {
    pub(crate) const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    pub(crate) fn value(self) -> u64 {
        self.0
    }

    /// Returns the hash of a sequence of traces: `hash` for those so far, followed by `next`.
    pub(crate) fn chain(hash: u64, next: u64) -> u64 {
        let mut hash = Self(hash);
        hash.word(next);
        hash.value()
    }

    pub(crate) fn word(&mut self, word: u64) {
        let mixed = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 29);
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks();
        for word in words {
            self.word(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.word(u64::from_le_bytes(last));
        self.word(bytes.len() as u64);
    }

    fn all<'a>(&mut self, texts: impl IntoIterator<Item = &'a [u8]>) {
        for text in texts {
            self.bytes(text);
        }
    }

    /// Adds all fields of a frame.
    pub(crate) fn frame(&mut self, frame: &Frame) {
        match frame {
            Frame::Request(request) => {
                self.word(1);
                self.all([request.request_id.as_bytes(), request.client_id.as_bytes(), &request.payload]);
                let flags = u64::from(request.multi) << 1 | u64::from(request.skip_claim);
                for word in [request.sent_at as u64, request.expiry as u64, flags] {
                    self.word(word);
                }
                for (key, value) in request.metadata.iter() {
                    self.all([key.as_bytes(), value.as_bytes()]);
                }
            }
            Frame::ClaimRequest(claim) => {
                self.word(2);
                self.all([claim.request_id.as_bytes(), claim.server_id.as_bytes()]);
                self.word(u64::from(claim.affinity.to_bits()) << 1 | u64::from(claim.handling));
            }
            Frame::ClaimResponse(grant) => {
                self.word(3);
                self.all([grant.request_id.as_bytes(), grant.server_id.as_bytes()]);
            }
            Frame::Response(response) => {
                self.word(4);
                self.all([response.request_id.as_bytes(), response.server_id.as_bytes()]);
                self.word(response.sent_at as u64);
                match &response.result {
                    Ok(payload) => self.bytes(payload),
                    Err(error) => self.all([error.code.as_str().as_bytes(), error.text.as_bytes()]),
                }
            }
            Frame::Stream(stream) => self.stream(stream),
            Frame::Other(other) => {
                self.word(6);
                self.all([other.type_url.as_bytes(), &other.value]);
            }
            Frame::Raw(bytes) => {
                self.word(7);
                self.bytes(bytes);
            }
        }
    }

    fn stream(&mut self, stream: &Stream) {
        self.word(5);
        self.all([stream.stream_id.as_bytes(), stream.request_id.as_bytes()]);
        self.word(stream.sent_at as u64);
        self.word(stream.expiry as u64);
        match &stream.body {
            Some(StreamBody::Open { node_id, .. }) => self.bytes(node_id.as_bytes()),
            Some(StreamBody::Message { payload }) => self.bytes(payload),
            Some(StreamBody::Close { code, text }) => self.all([code.as_str().as_bytes(), text.as_bytes()]),
            Some(StreamBody::Ack) => self.word(1),
            None => self.word(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(feed: impl FnOnce(&mut TraceHash)) -> u64 {
        let mut hash = TraceHash::new();
        feed(&mut hash);
        hash.value()
    }

    #[test]
    fn every_byte_counts_and_so_does_the_length() {
        let of = |bytes: &[u8]| hash(|hash| hash.bytes(bytes));
        assert_eq!(of(b"a longer text"), of(b"a longer text"));
        assert_ne!(of(b"a longer text"), of(b"a longer test"));
        assert_ne!(of(b"a"), of(b"a\0"));
        assert_ne!(of(b""), of(b"\0\0\0\0\0\0\0\0"));
    }

    #[test]
    fn order_counts() {
        let of = |words: [u64; 2]| hash(|hash| words.iter().for_each(|word| hash.word(*word)));
        assert_ne!(of([1, 2]), of([2, 1]));
    }
}
