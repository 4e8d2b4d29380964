//! A client that has made a call which every server sees, and hears their bids.

use psrpc_engine::proto::{ClaimRequest, Frame, MethodProperties, Routing, Text};
use psrpc_engine::{Call, Client, ClientConfig, Engine, Now, Route, SubscriptionHandle};

use crate::{START, STEP, is_idle, later, subscribe};

/// A client that selects: the bids that come count, and none wins at once.
pub struct Bids {
    client: Client,
    now: Now,
    at_client: SubscriptionHandle,
    request_id: Text,
}

impl Bids {
    /// A client that has so many bids, and the frame of one more.
    pub fn new(count: usize) -> (Self, Frame) {
        let properties = MethodProperties { routing: Routing::Affinity, require_claim: true };
        let route = Route::new::<&str>("Hats", "Fit", properties, &[]).expect("names that can be carried");
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
            let bid = bids.of(10 * server);
            bids.hear(bid);
        }
        // Its place, by its server's id, is in the middle of the others.
        let another = bids.of(5 * count + 5);
        (bids, another)
    }

    /// Takes a bid.
    pub fn hear(&mut self, bid: Frame) {
        self.now = later(self.now, STEP);
        self.client.handle_frame(self.now, self.at_client, bid);
        assert!(is_idle(&mut self.client), "the bid counts, and does not win at once");
    }

    fn of(&self, server: usize) -> Frame {
        let (request_id, server_id) = (self.request_id.clone(), format!("SRV_{server:012}").into());
        Frame::ClaimRequest(ClaimRequest { request_id, server_id, affinity: 0.5, handling: false })
    }
}
