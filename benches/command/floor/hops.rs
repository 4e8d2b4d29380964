//! The number and sizes of the messages of a unit of work.

use bytes::Bytes;
use prost::Message;
use psrpc::Metadata;
use psrpc::proto::{
    Any, Channel, ClaimRequest, ClaimResponse, Frame, Request, Response, Stream, StreamBody, Text,
};

use crate::place::Kind;
use crate::work::{SERVICE, UPDATE, Work};

/// The hops of a unit of work, alternately to the server and back.
#[derive(Clone)]
pub(super) struct Hops {
    /// The encoded size of each message.
    pub(super) sizes: Vec<usize>,
    /// The number of servers that respond.
    pub(super) responses: usize,
    /// True if the server takes a lock before its first response, which adds a round trip.
    pub(super) lock: bool,
}

/// A timestamp as encoded in a frame.
const MOMENT: i64 = 1_795_345_422_597_360_562;

impl Hops {
    /// Returns the hops of a kind of work on a bus.
    pub(super) fn of(work: Work, kind: Kind, size: usize) -> Self {
        let payload = Bytes::from(Bytes::from(vec![b'x'; size]).encode_to_vec());
        let request_id = Text::from("REQ_3uCAEw6NG1Sh");
        let (client_id, server_id) = (Text::from("CLI_L4brBeZaAcP1"), Text::from("SRV_6CVbpeS4C1mB"));
        let claimed = matches!(work, Work::Queue | Work::Affinity);
        let request = Frame::Request(Request {
            request_id: request_id.clone(),
            client_id,
            sent_at: MOMENT,
            expiry: MOMENT,
            multi: work == Work::Multi,
            metadata: Metadata::new(),
            payload: payload.clone(),
            skip_claim: work == Work::Queue,
        });
        let bid = Frame::ClaimRequest(ClaimRequest {
            request_id: request_id.clone(),
            server_id: server_id.clone(),
            affinity: 1.0,
            handling: false,
        });
        let grant = Frame::ClaimResponse(ClaimResponse {
            request_id: request_id.clone(),
            server_id: server_id.clone(),
        });
        let response = Frame::Response(Response {
            request_id: request_id.clone(),
            server_id,
            sent_at: MOMENT,
            result: Ok(payload.clone()),
        });
        let stream = |body| {
            Frame::Stream(Stream {
                stream_id: "STR_8wXkVv2EkUvD".into(),
                request_id: request_id.clone(),
                sent_at: MOMENT,
                expiry: MOMENT,
                body: Some(body),
            })
        };
        let update = Frame::Other(Any {
            type_url: format!("type.googleapis.com/{UPDATE}").into(),
            value: payload.clone(),
        });
        let method = SERVICE.methods[work as usize].name;
        let queue = matches!(work, Work::Queue | Work::Single);
        let to_server = Channel::request::<&str>(SERVICE.name, method, &[], queue);
        let frames = match work {
            Work::Stream => vec![stream(StreamBody::Message { payload }), stream(StreamBody::Ack)],
            Work::Subscription => vec![update],
            _ if claimed => vec![request, bid, grant, response],
            _ => vec![request, response],
        };
        let encoded = frames.iter().enumerate().map(|(hop, frame)| {
            // The channels of clients have no local name.
            frame.encode(if hop.is_multiple_of(2) { to_server.local() } else { "" }).len()
        });
        Self { sizes: encoded.collect(), responses: work.servers(), lock: queue && kind == Kind::Redis }
    }

    /// Returns `true` if there is no response.
    pub(super) fn is_one_way(&self) -> bool {
        self.sizes.len() == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_work_has_the_hops_of_its_protocol() {
        let of = |work, kind| {
            let Hops { sizes, responses, lock } = Hops::of(work, kind, 64);
            (sizes.len(), responses, lock)
        };
        for kind in [Kind::Local, Kind::Redis, Kind::Nats] {
            let locks = kind == Kind::Redis;
            assert_eq!(of(Work::Queue, kind), (4, 1, locks));
            assert_eq!(of(Work::Affinity, kind), (4, 1, false));
            assert_eq!(of(Work::Single, kind), (2, 1, locks));
            assert_eq!(of(Work::Multi, kind), (2, 2, false));
            assert_eq!(of(Work::Stream, kind), (2, 1, false));
            assert_eq!(of(Work::Subscription, kind), (1, 1, false));
        }
    }

    #[test]
    fn what_carries_the_payload_grows_with_it() {
        let (small, large) =
            (Hops::of(Work::Queue, Kind::Nats, 0).sizes, Hops::of(Work::Queue, Kind::Nats, 100).sizes);
        // The payload has a length and a tag in its message, and the message has both in the frame.
        let grown: Vec<_> =
            small.iter().zip(&large).map(|(small, large)| (100..110).contains(&(large - small))).collect();
        assert_eq!(grown, [true, false, false, true]);
        assert_eq!(small[1..3], large[1..3]);
    }
}
