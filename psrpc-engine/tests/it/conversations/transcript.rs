//! Compares the frames that our engine publishes with those of the peer that it replaces.

use std::collections::{BTreeMap, VecDeque};

use psrpc_engine::proto::{Frame, Stream, StreamBody, Text};
use psrpc_vectors::{Bus, Publish};

use super::{RecordedPeer, assert_same, decode, name, publishes};
use crate::fixture::Published;

/// The recorded frames of a peer, and the mapping from its ids to those of our engine.
pub struct Transcript<'a> {
    bus: Bus,
    /// Whether envelopes contain local channel names.
    has_local_names: bool,
    context: String,
    /// Recorded frames that our engine has not published yet.
    expected: VecDeque<&'a Publish>,
    /// Our ids by the recorded ids.
    ids: BTreeMap<Text, Text>,
}

impl<'a> Transcript<'a> {
    pub fn new(peer: &RecordedPeer<'a>) -> Self {
        Self::of(peer, publishes(peer.conversation))
    }

    /// Returns a transcript of these recorded frames, in this order.
    pub fn of(peer: &RecordedPeer<'a>, frames: impl Iterator<Item = (usize, &'a Publish)>) -> Self {
        let from = peer.from();
        let frames = frames.map(|(_, publish)| publish);
        let expected = frames.filter(|publish| publish.from == from).collect();
        let has_local_names = peer.has_local_names();
        Self { bus: peer.bus, has_local_names, context: peer.context(), expected, ids: BTreeMap::new() }
    }

    /// Removes the recorded frames that our engine must not publish.
    pub fn retain(&mut self, mut keep: impl FnMut(&Publish) -> bool) {
        self.expected.retain(|publish| keep(publish));
    }

    /// Checks published frames against the recorded ones. `deviates` asserts an intended deviation.
    /// It either reverts the deviation in the frame, or returns [`Compared`] to skip the
    /// comparison.
    pub fn check(
        &mut self,
        published: Published,
        mut deviates: impl FnMut(&mut Frame, &Frame) -> Option<Compared>,
    ) {
        for (_, channel, mut frame) in published {
            let Some(recorded) = self.expected.pop_front() else {
                panic!("{}: Go did not publish {frame:?}", self.context)
            };
            let theirs = decode(recorded);
            self.map_ids(&mut frame, &theirs);
            let channel_name = name(self.bus, &channel);
            assert_eq!((&channel_name, frame.kind()), (&recorded.channel, theirs.kind()), "{}", self.context);
            if deviates(&mut frame, &theirs).is_none() {
                let local = if self.has_local_names { channel.local() } else { "" };
                assert_same(&frame, local, recorded, &self.context);
            }
        }
    }

    /// Asserts that our engine has published all recorded frames.
    pub fn finish(&self) {
        assert!(self.expected.is_empty(), "{}: only Go published {:?}", self.context, self.expected);
    }

    /// Returns another peer's frame, with recorded ids replaced by ours.
    pub fn incoming(&self, publish: &Publish) -> Frame {
        let ours = |id: &mut Text| {
            if let Some(ours) = self.ids.get(id) {
                *id = ours.clone();
            }
        };
        let mut frame = decode(publish);
        match &mut frame {
            Frame::ClaimRequest(claim) => ours(&mut claim.request_id),
            Frame::Response(response) => ours(&mut response.request_id),
            Frame::Stream(stream) => {
                ours(&mut stream.stream_id);
                ours(&mut stream.request_id);
            }
            _ => {}
        }
        frame
    }

    fn map_ids(&mut self, frame: &mut Frame, recorded: &Frame) {
        match (frame, recorded) {
            (Frame::Request(ours), Frame::Request(recorded)) => {
                self.draw(&ours.request_id, &recorded.request_id);
                self.map(&mut ours.request_id, &recorded.request_id);
            }
            (Frame::ClaimResponse(ours), Frame::ClaimResponse(recorded)) => {
                self.map(&mut ours.request_id, &recorded.request_id);
            }
            (Frame::Stream(ours), Frame::Stream(recorded)) => {
                let Stream { stream_id, request_id, body, .. } = recorded;
                if let Some(StreamBody::Open { .. }) = body {
                    self.draw(&ours.stream_id, stream_id);
                }
                if !matches!(body, Some(StreamBody::Ack)) {
                    self.draw(&ours.request_id, request_id);
                }
                self.map(&mut ours.stream_id, stream_id);
                self.map(&mut ours.request_id, request_id);
            }
            _ => {}
        }
    }

    /// Records an id that the recorded peer generated, and the id that our engine generated in its
    /// place.
    fn draw(&mut self, ours: &Text, recorded: &Text) {
        let known = self.ids.insert(recorded.clone(), ours.clone());
        assert!(known.is_none(), "{}: {recorded:?} is not a new id", self.context);
    }

    fn map(&self, ours: &mut Text, recorded: &Text) {
        if self.ids.get(recorded) == Some(ours) {
            *ours = recorded.clone();
        }
    }
}

/// Marks a frame as compared by its deviation.
pub struct Compared;
