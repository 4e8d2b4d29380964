//! A client without calls and a server that is never granted: the frames they receive are for
//! others, or too late.

use psrpc_engine::proto::{ClaimResponse, Frame, MethodProperties, Request, Response, Routing, Text};
use psrpc_engine::{
    Client, ClientConfig, ClientEvent, Engine, Now, Output, Route, Server, ServerConfig, ServerEvent,
    SubscriptionHandle,
};

use crate::{START, STEP, is_idle, later, subscribe};

/// A client without calls.
pub struct IdleClient {
    client: Client,
    responses: SubscriptionHandle,
}

impl IdleClient {
    /// Creates a client that has received a response before. Also returns the frame of one more.
    pub fn new() -> (Self, Frame) {
        let mut client = Client::new(ClientConfig::new("Hats"), [1; 32]).expect("a client");
        let responses = subscribe(&mut client, START)[1];
        let mut idle = Self { client, responses };
        idle.receive(response(1));
        (idle, response(2))
    }

    /// Receives a response to an unknown call.
    pub fn receive(&mut self, response: Frame) {
        self.client.handle_frame(START, self.responses, response);
        let Some(Output::Event(ClientEvent::Dropped(_))) = self.client.poll_output() else {
            panic!("the response was not dropped");
        };
        assert!(is_idle(&mut self.client));
    }
}

fn response(number: u64) -> Frame {
    let (request_id, server_id) = (format!("REQ_{number:012}").into(), "SRV_t2JoZkQm5Xe8".into());
    let (sent_at, result) = (START.wall.as_unix_nanos(), Ok("here it is".into()));
    Frame::Response(Response { request_id, server_id, sent_at, result })
}

/// A server that bids for every request and is never granted.
pub struct IdleServer {
    server: Server,
    now: Now,
    requests: SubscriptionHandle,
    grants: SubscriptionHandle,
}

impl IdleServer {
    /// Creates a server that has received a thousand requests with their grants, expired requests
    /// and grants of unknown requests. Also returns one more request, with its grant.
    pub fn new() -> (Self, [Frame; 2]) {
        let properties = MethodProperties { routing: Routing::Affinity, require_claim: true };
        let route = Route::new::<&str>("Hats", "Fit", properties, &[]).expect("the names are valid");
        let mut server = Server::new(ServerConfig::new("Hats"), [2; 32]).expect("a server");
        server.register(vec![route]).expect("a registration");
        let [grants, requests] = subscribe(&mut server, START)[..] else { panic!("two subscriptions") };
        let mut idle = Self { server, now: START, requests, grants };
        for number in 0..1000 {
            idle.lose([request(number), grant(number)]);
            idle.drop_expired(expired(number));
            idle.receive_grant(grant(number));
        }
        (idle, [request(1000), grant(1000)])
    }

    /// Creates a server, and an expired request.
    pub fn with_expired() -> (Self, Frame) {
        (Self::new().0, expired(1000))
    }

    /// Creates a server, and the grant of a request that the server did not receive.
    pub fn with_grant() -> (Self, Frame) {
        (Self::new().0, grant(1000))
    }

    /// Receives a request, bids for it, and receives the grant to another server.
    pub fn lose(&mut self, [request, grant]: [Frame; 2]) {
        self.pass_time();
        self.server.handle_frame(self.now, self.requests, request);
        let Some(Output::Event(ServerEvent::Received(received))) = self.server.poll_output() else {
            panic!("the request was not received");
        };
        self.server.bid(self.now, received.request, 0.5);
        let outgoing = self.server.poll_publish().expect("a bid");
        let token = outgoing.token();
        drop(outgoing.take());
        self.server.handle_published(self.now, token, Ok(None));
        self.server.handle_frame(self.now, self.grants, grant);
        let Some(Output::Event(ServerEvent::Abandoned { .. })) = self.server.poll_output() else {
            panic!("the bid did not lose");
        };
        assert!(is_idle(&mut self.server));
    }

    /// Receives an expired request.
    pub fn drop_expired(&mut self, request: Frame) {
        self.pass_time();
        self.server.handle_frame(self.now, self.requests, request);
        let Some(Output::Event(ServerEvent::Dropped(_))) = self.server.poll_output() else {
            panic!("the request was not dropped");
        };
        assert!(is_idle(&mut self.server));
    }

    /// Receives the grant of an unknown request.
    pub fn receive_grant(&mut self, grant: Frame) {
        self.pass_time();
        self.server.handle_frame(self.now, self.grants, grant);
        assert!(is_idle(&mut self.server), "the grant had an effect");
    }

    fn pass_time(&mut self) {
        self.now = later(self.now, STEP);
    }
}

fn request(number: u64) -> Frame {
    sent_at(number, START.wall.as_unix_nanos())
}

/// Returns a request sent a minute ago.
fn expired(number: u64) -> Frame {
    sent_at(1_000_000 + number, START.wall.as_unix_nanos() - 60_000_000_000)
}

fn sent_at(number: u64, sent_at: i64) -> Frame {
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
