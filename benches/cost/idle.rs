//! A client that makes no calls and a server that is granted none: what they hear is for others, or
//! too late.

use psrpc_engine::proto::{ClaimResponse, Frame, MethodProperties, Request, Response, Routing, Text};
use psrpc_engine::{
    Client, ClientConfig, ClientEvent, Engine, Now, Output, Route, Server, ServerConfig, ServerEvent,
    SubscriptionHandle,
};

use crate::{START, STEP, is_idle, later, subscribe};

/// A client without any calls.
pub struct IdleClient {
    client: Client,
    responses: SubscriptionHandle,
}

impl IdleClient {
    /// A client that has heard an answer before, and the frame of one more.
    pub fn new() -> (Self, Frame) {
        let mut client = Client::new(ClientConfig::new("Hats"), [1; 32]).expect("a client");
        let responses = subscribe(&mut client, START)[1];
        let mut idle = Self { client, responses };
        idle.hear(answer(1));
        (idle, answer(2))
    }

    /// Hears the answer to a call that it did not make.
    pub fn hear(&mut self, answer: Frame) {
        self.client.handle_frame(START, self.responses, answer);
        let Some(Output::Event(ClientEvent::Dropped(_))) = self.client.poll_output() else {
            panic!("the answer is dropped");
        };
        assert!(is_idle(&mut self.client));
    }
}

fn answer(number: u64) -> Frame {
    let (request_id, server_id) = (format!("REQ_{number:012}").into(), "SRV_t2JoZkQm5Xe8".into());
    let (sent_at, result) = (START.wall.as_unix_nanos(), Ok("here it is".into()));
    Frame::Response(Response { request_id, server_id, sent_at, result })
}

/// A server among others, which bids for every request and is granted none.
pub struct IdleServer {
    server: Server,
    now: Now,
    requests: SubscriptionHandle,
    grants: SubscriptionHandle,
}

impl IdleServer {
    /// A server that has heard a thousand requests, and one more with its grant.
    pub fn new() -> (Self, [Frame; 2]) {
        let properties = MethodProperties { routing: Routing::Affinity, require_claim: true };
        let route = Route::new::<&str>("Hats", "Fit", properties, &[]).expect("names that can be carried");
        let mut server = Server::new(ServerConfig::new("Hats"), [2; 32]).expect("a server");
        server.register(vec![route]).expect("a registration");
        let [grants, requests] = subscribe(&mut server, START)[..] else { panic!("two subscriptions") };
        let mut idle = Self { server, now: START, requests, grants };
        for number in 0..1000 {
            idle.lose([request(number), grant(number)]);
            idle.drop_expired(expired(number));
            idle.pass_by(grant(number));
        }
        (idle, [request(1000), grant(1000)])
    }

    /// The same, and a request that has expired.
    pub fn with_expired() -> (Self, Frame) {
        (Self::new().0, expired(1000))
    }

    /// The same, and the grant of a request that it did not hear.
    pub fn with_grant() -> (Self, Frame) {
        (Self::new().0, grant(1000))
    }

    /// Hears a request, bids for it, and hears that another server is granted it.
    pub fn lose(&mut self, [request, grant]: [Frame; 2]) {
        self.pass_time();
        self.server.handle_frame(self.now, self.requests, request);
        let Some(Output::Event(ServerEvent::Received(received))) = self.server.poll_output() else {
            panic!("the request comes in");
        };
        self.server.bid(self.now, received.request, 0.5);
        let outgoing = self.server.poll_publish().expect("a bid");
        let token = outgoing.token();
        drop(outgoing.take());
        self.server.handle_published(self.now, token, Ok(None));
        self.server.handle_frame(self.now, self.grants, grant);
        let Some(Output::Event(ServerEvent::Abandoned { .. })) = self.server.poll_output() else {
            panic!("the bid loses");
        };
        assert!(is_idle(&mut self.server));
    }

    /// Hears a request that has expired.
    pub fn drop_expired(&mut self, request: Frame) {
        self.pass_time();
        self.server.handle_frame(self.now, self.requests, request);
        let Some(Output::Event(ServerEvent::Dropped(_))) = self.server.poll_output() else {
            panic!("the request is dropped");
        };
        assert!(is_idle(&mut self.server));
    }

    /// Hears a grant that is none of its business.
    pub fn pass_by(&mut self, grant: Frame) {
        self.pass_time();
        self.server.handle_frame(self.now, self.grants, grant);
        assert!(is_idle(&mut self.server), "the grant is ignored");
    }

    fn pass_time(&mut self) {
        self.now = later(self.now, STEP);
    }
}

fn request(number: u64) -> Frame {
    asked(number, START.wall.as_unix_nanos())
}

/// A request of a minute ago.
fn expired(number: u64) -> Frame {
    asked(1_000_000 + number, START.wall.as_unix_nanos() - 60_000_000_000)
}

fn asked(number: u64, sent_at: i64) -> Frame {
    Frame::Request(Request {
        request_id: request_id(number),
        client_id: "CLI_L4brBeZaAcP1".into(),
        sent_at,
        expiry: sent_at + 3_000_000_000,
        payload: vec![b'x'; 64].into(),
        ..Request::default()
    })
}

fn grant(number: u64) -> Frame {
    Frame::ClaimResponse(ClaimResponse {
        request_id: request_id(number),
        server_id: "SRV_t2JoZkQm5Xe8".into(),
    })
}

fn request_id(number: u64) -> Text {
    format!("REQ_{number:012}").into()
}
