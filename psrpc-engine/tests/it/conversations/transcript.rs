//! What our engine published, next to what the peer in whose place it is had published.

use std::collections::{BTreeMap, VecDeque};

use psrpc_engine::proto::{Frame, Stream, StreamBody, Text};
use psrpc_vectors::{Bus, Publish};

use super::{Place, assert_same, decode, name, publishes};
use crate::fixture::Published;

/// Compares frame for frame, with the ids that our engine draws mapped to those that the peer drew.
pub struct Transcript<'a> {
    bus: Bus,
    /// Whether envelopes name local channels.
    names_locals: bool,
    context: String,
    /// What the peer had published and ours has not yet.
    expected: VecDeque<&'a Publish>,
    /// Our ids, by the recorded ones.
    ids: BTreeMap<Text, Text>,
}

impl<'a> Transcript<'a> {
    pub fn new(place: &Place<'a>) -> Self {
        Self::of(place, publishes(place.conversation))
    }

    /// With these recorded frames, in this order.
    pub fn of(place: &Place<'a>, frames: impl Iterator<Item = (usize, &'a Publish)>) -> Self {
        let from = place.from();
        let frames = frames.map(|(_, publish)| publish);
        let expected = frames.filter(|publish| publish.from == from).collect();
        let names_locals = place.names_locals();
        Self { bus: place.bus, names_locals, context: place.context(), expected, ids: BTreeMap::new() }
    }

    /// Our peer does not publish what is not `wanted`.
    pub fn retain(&mut self, mut wanted: impl FnMut(&Publish) -> bool) {
        self.expected.retain(|publish| wanted(publish));
    }

    /// Checks what was published since the last look. `deviates` asserts what we mean to do
    /// otherwise, and either undoes it in the frame or tells that nothing is left to compare.
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
                let local = if self.names_locals { channel.local() } else { "" };
                assert_same(&frame, local, recorded, &self.context);
            }
        }
    }

    /// Everything that the peer had published, ours has too.
    pub fn finish(&self) {
        assert!(self.expected.is_empty(), "{}: only Go published {:?}", self.context, self.expected);
    }

    /// What another peer published, as it names what ours did.
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

    /// An id that both have drawn, which nothing had before.
    fn draw(&mut self, ours: &Text, recorded: &Text) {
        let known = self.ids.insert(recorded.clone(), ours.clone());
        assert!(known.is_none(), "{}: {recorded:?} was drawn before", self.context);
    }

    fn map(&self, ours: &mut Text, recorded: &Text) {
        if self.ids.get(recorded) == Some(ours) {
            *ours = recorded.clone();
        }
    }
}

/// A frame that a deviation has compared.
pub struct Compared;
