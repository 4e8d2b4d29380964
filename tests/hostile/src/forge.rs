//! Forged frames, encoded as on a network.

use std::time::Duration;

use bytes::Bytes;
use psrpc_tokio::proto::{
    Any, Channel, ClaimRequest, ClaimResponse, Compression, ErrorCode, Frame, Metadata, Request, Response,
    Stream, StreamBody,
};
use psrpc_tokio::{Runtime, Text, TokioRuntime};

use crate::memory::MIB;

const SERVICE: &str = "Hats";
const NO_TOPIC: &[&str] = &[];
/// The lifetime of a forged request, unless the attack needs another one.
const SHORT: Duration = Duration::from_millis(100);
/// A text that would clear a terminal, add a line to a log, and turn it red.
const ESCAPES: &str = "\u{1b}[2J\nERROR forged \u{1b}[31m";

/// Forges frames with the knowledge of a peer on the bus, which sees every id.
pub(crate) struct Forger {
    pub(crate) runtime: TokioRuntime,
    /// The client's id.
    pub(crate) client: String,
    /// The id of the call that the client holds; empty if there is none.
    pub(crate) call: Text,
    /// A frame that is large, made once.
    pub(crate) large: Option<Frame>,
}

/// A channel and a frame for it.
pub(crate) type Forged = (Channel, Frame);

/// Returns an id that no other frame has.
fn unique(prefix: &str, number: usize) -> Text {
    format!("{prefix}_{number:012}").into()
}

/// Encodes a frame.
fn encoded(channel: Channel, frame: &Frame) -> Forged {
    let bytes = frame.encode(channel.local());
    (channel, Frame::Raw(bytes))
}

impl Forger {
    fn now(&self) -> i64 {
        self.runtime.now().wall.as_unix_nanos()
    }

    /// Returns a request of a client that does not exist, for the method that the server serves.
    fn a_request(&self, number: usize, lifetime: Duration) -> Request {
        let sent_at = self.now();
        Request {
            request_id: unique("REQ", number),
            client_id: unique("CLI", number),
            sent_at,
            expiry: sent_at.saturating_add(i64::try_from(lifetime.as_nanos()).unwrap_or(i64::MAX)),
            multi: false,
            metadata: Metadata::new(),
            payload: Bytes::new(),
            skip_claim: false,
        }
    }

    pub(crate) fn request(&self, number: usize) -> Forged {
        to_server(self.a_request(number, SHORT))
    }

    /// A request that waits for its grant as long as the server lets it.
    pub(crate) fn waiting_request(&self, number: usize) -> Forged {
        to_server(Request { expiry: i64::MAX, ..self.a_request(number, SHORT) })
    }

    /// A request that is sent again and again.
    pub(crate) fn duplicate(&self, _: usize) -> Forged {
        to_server(Request { payload: undecodable(), expiry: i64::MAX, ..self.a_request(0, SHORT) })
    }

    /// A request of a megabyte that waits for its grant.
    pub(crate) fn large_request(&self, number: usize) -> Forged {
        let mut payload = vec![b'x'; MIB as usize];
        // A string of this length in field 1.
        payload.splice(..0, [0x0a, 0x80, 0x80, 0x40]);
        to_server(Request { payload: payload.into(), expiry: i64::MAX, ..self.a_request(number, SHORT) })
    }

    /// A request with an unknown field of a megabyte, and with a long metadata value that would
    /// keep the whole frame in memory if the server did not copy it.
    pub(crate) fn sparse_request(&self, number: usize) -> Forged {
        let mut metadata = Metadata::new();
        metadata.insert("note", "x".repeat(100));
        let request = Frame::Request(Request { metadata, ..self.a_request(number, 5 * SHORT) });
        let channel = requests();
        let envelope = request.encode("");
        let name = b"type.googleapis.com/internal.Request";
        // Skips the type with its tag and length, and the tag and the two-byte length of the value.
        let mut value = envelope[2 + name.len() + 3..].to_vec();
        value.extend([0xa2, 0x06, 0x80, 0x80, 0x40]);
        value.resize(value.len() + MIB as usize, 0);
        let type_url = String::from_utf8_lossy(name).into_owned().into();
        encoded(channel, &Frame::Other(Any { type_url, value: value.into() }))
    }

    /// A request whose payload does not decode, and whose expiry is as late as possible.
    pub(crate) fn far_expiry(&self, number: usize) -> Forged {
        let request = self.a_request(number, SHORT);
        to_server(Request { payload: undecodable(), expiry: i64::MAX, ..request })
    }

    pub(crate) fn far_future(&self, number: usize) -> Forged {
        to_server(Request { sent_at: i64::MAX, expiry: i64::MAX, ..self.a_request(number, SHORT) })
    }

    pub(crate) fn expired(&self, number: usize) -> Forged {
        to_server(self.a_request(number, Duration::ZERO))
    }

    pub(crate) fn without_id(&self, number: usize) -> Forged {
        to_server(Request { request_id: Text::EMPTY, ..self.a_request(number, SHORT) })
    }

    /// Ten megabytes of metadata.
    pub(crate) fn large_metadata(&mut self, number: usize) -> Forged {
        let mut request = self.a_request(number, SHORT);
        let frame = self.large.get_or_insert_with(|| {
            for entry in 0..10 {
                request.metadata.insert(format!("{entry}"), "x".repeat(MIB as usize));
            }
            to_server(request).1
        });
        (requests(), frame.clone())
    }

    /// A small frame that decompresses to more than a frame may have.
    pub(crate) fn gzip_bomb(&mut self, _: usize) -> Forged {
        let frame = self.large.get_or_insert_with(|| {
            let type_url = "type.googleapis.com/internal.Request".into();
            let value = vec![0; 64 * MIB as usize].into();
            Frame::Raw(
                Frame::Other(Any { type_url, value }).encode_with("Fit.REQ", Some(Compression::DEFAULT)),
            )
        });
        (requests(), frame.clone())
    }

    pub(crate) fn garbage(&self, number: usize) -> Forged {
        let (channel, frame) = self.request(number);
        let Frame::Raw(bytes) = frame else { unreachable!("forged frames are encoded") };
        // The last field of the envelope, the channel, has nine bytes.
        (channel, Frame::Raw(bytes.slice(..bytes.len() - 1 - number % 8)))
    }

    /// A response where a server expects requests.
    pub(crate) fn response_to_server(&self, number: usize) -> Forged {
        encoded(requests(), &Frame::Response(response(unique("REQ", number), number)))
    }

    pub(crate) fn grant(&self, number: usize) -> Forged {
        let grant = ClaimResponse { request_id: unique("REQ", number), server_id: unique("SRV", number) };
        encoded(Channel::claim_response(SERVICE, "Fit", NO_TOPIC), &Frame::ClaimResponse(grant))
    }

    /// The opening of a stream.
    pub(crate) fn opening(&self, number: usize) -> Forged {
        let body = StreamBody::Open { node_id: unique("CLI", number), metadata: Metadata::new() };
        self.stream_frame(stream_to_server(), number, body)
    }

    pub(crate) fn message_to_server(&self, number: usize) -> Forged {
        self.stream_frame(stream_to_server(), number, StreamBody::Message { payload: Bytes::new() })
    }

    pub(crate) fn ack_to_server(&self, number: usize) -> Forged {
        self.stream_frame(stream_to_server(), number, StreamBody::Ack)
    }

    pub(crate) fn close_to_server(&self, number: usize) -> Forged {
        let body = StreamBody::Close { code: ErrorCode::Canceled, text: "forged".into() };
        self.stream_frame(stream_to_server(), number, body)
    }

    pub(crate) fn message_to_client(&self, number: usize) -> Forged {
        self.stream_frame(self.stream_to_client(), number, StreamBody::Message { payload: Bytes::new() })
    }

    pub(crate) fn ack_to_client(&self, number: usize) -> Forged {
        self.stream_frame(self.stream_to_client(), number, StreamBody::Ack)
    }

    fn stream_to_client(&self) -> Channel {
        Channel::stream_to_client(SERVICE, &self.client)
    }

    fn stream_frame(&self, channel: Channel, number: usize, body: StreamBody) -> Forged {
        let Request { request_id, sent_at, expiry, .. } = self.a_request(number, SHORT);
        let stream =
            Stream { stream_id: unique("STR", number), request_id, sent_at, expiry, body: Some(body) };
        encoded(channel, &Frame::Stream(stream))
    }

    /// A bid for a call that does not exist.
    pub(crate) fn stray_bid(&self, number: usize) -> Forged {
        self.bid(unique("REQ", number), number, 0.5)
    }

    /// A bid for the call that the client holds, from a server that does not exist.
    pub(crate) fn bid_for_call(&self, number: usize) -> Forged {
        self.bid(self.call.clone(), number, 0.5)
    }

    pub(crate) fn infinite_bid(&self, number: usize) -> Forged {
        self.bid(self.call.clone(), number, f32::INFINITY)
    }

    fn bid(&self, request_id: Text, number: usize, affinity: f32) -> Forged {
        let claim = ClaimRequest { request_id, server_id: unique("SRV", number), affinity, handling: false };
        encoded(Channel::claim_request(SERVICE, &self.client), &Frame::ClaimRequest(claim))
    }

    /// A response to a call that does not exist.
    pub(crate) fn stray_response(&self, number: usize) -> Forged {
        self.to_client(response(unique("REQ", number), number))
    }

    /// A response to the call that the client holds, from a server that does not exist.
    pub(crate) fn response_to_call(&self, number: usize) -> Forged {
        self.to_client(response(self.call.clone(), number))
    }

    pub(crate) fn escapes_to_client(&self, number: usize) -> Forged {
        self.to_client(response(format!("{ESCAPES}{number}").into(), number))
    }

    pub(crate) fn escapes_to_server(&self, number: usize) -> Forged {
        let (request_id, client_id) = (format!("{ESCAPES}{number}").into(), ESCAPES.into());
        let request = self.a_request(number, SHORT);
        to_server(Request { request_id, client_id, payload: undecodable(), ..request })
    }

    pub(crate) fn update(&self, _: usize) -> Forged {
        let update = Any { type_url: "type.googleapis.com/hats.Rumour".into(), value: Bytes::new() };
        encoded(Channel::request(SERVICE, "Rumour", NO_TOPIC, false), &Frame::Other(update))
    }

    fn to_client(&self, response: Response) -> Forged {
        encoded(Channel::response(SERVICE, &self.client), &Frame::Response(response))
    }
}

fn to_server(request: Request) -> Forged {
    encoded(requests(), &Frame::Request(request))
}

fn requests() -> Channel {
    Channel::request(SERVICE, "Fit", NO_TOPIC, true)
}

fn stream_to_server() -> Channel {
    Channel::stream_to_server(SERVICE, "Parade", NO_TOPIC)
}

fn response(request_id: Text, number: usize) -> Response {
    Response { request_id, server_id: unique("SRV", number), sent_at: 1, result: Ok(Bytes::new()) }
}

/// A string that is not UTF-8.
fn undecodable() -> Bytes {
    Bytes::from_static(&[0x0a, 0x02, 0xff, 0xfe])
}
