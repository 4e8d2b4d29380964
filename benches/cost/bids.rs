//! A client that receives bids for a call.

use psrpc_engine::proto::{ClaimRequest, Frame, MethodProperties, Routing, Text};
use psrpc_engine::{Call, Client, ClientConfig, Engine, Now, Route, SubscriptionHandle};

use crate::{START, STEP, is_idle, later, subscribe};

/// A client in a selection: bids are collected and none wins at once.
pub struct Bids {
    client: Client,
    now: Now,
    at_client: SubscriptionHandle,
    request_id: Text,
}

impl Bids {
    /// Creates a client that has received `count` bids. Also returns the frame of one more.
    pub fn new(count: usize) -> (Self, Frame) {
        let properties = MethodProperties { routing: Routing::Affinity, require_claim: true };
        let route = Route::new::<&str>("Hats", "Fit", properties, &[]).expect("the names are valid");
        let mut client = Client::new(ClientConfig::new("Hats"), [1; 32]).expect("a client");
        let now = START;
        let at_client = subscribe(&mut client, now)[0];
        client.call(now, Call::new(route, "a hat, please")).expect("a call");
        let outgoing = client.poll_publish().expect("a request");
        let token = outgoing.token();
        let (_, Frame::Request(request)) = outgoing.take() else { panic!("a request") };
        client.handle_published(now, token, Ok(None));
        let mut bids = Self { client, now, at_client, request_id: request.request_id };
        for server in 0..count {
            let bid = bids.bid(10 * server);
            bids.receive(bid);
        }
        // Its server id sorts into the middle of the others.
        let another = bids.bid(5 * count + 5);
        (bids, another)
    }

    /// Receives a bid.
    pub fn receive(&mut self, bid: Frame) {
        self.now = later(self.now, STEP);
        self.client.handle_frame(self.now, self.at_client, bid);
        assert!(is_idle(&mut self.client), "the bid won at once");
    }

    fn bid(&self, server: usize) -> Frame {
        let (request_id, server_id) = (self.request_id.clone(), format!("SRV_{server:012}").into());
        Frame::ClaimRequest(ClaimRequest { request_id, server_id, affinity: 0.5, handling: false })
    }
}
