//! A client and a server of the engine with open streams.

use psrpc_engine::proto::{MethodProperties, Routing};
use psrpc_engine::{
    Client, ClientConfig, ClientEvent, Engine, Now, OpenStream, Output, Route, Server, ServerConfig,
    ServerEvent, StreamEvent, StreamHandle, SubscriptionHandle,
};

use crate::{START, STEP, later, subscribe};

/// A client with streams to a server, each of which has carried a message before.
pub struct Streams {
    client: Client,
    server: Server,
    now: Now,
    at_client: SubscriptionHandle,
    at_server: SubscriptionHandle,
    streams: Vec<StreamHandle>,
    next: usize,
    taken: u64,
}

impl Streams {
    /// Creates `count` open streams.
    pub fn new(count: usize) -> Self {
        let properties = MethodProperties { routing: Routing::Queue, require_claim: false };
        let route = Route::stream::<&str>("Hats", "Parade", properties, &[]).expect("the names are valid");
        let config = ClientConfig { opens_streams: true, ..ClientConfig::new("Hats") };
        let mut client = Client::new(config, [1; 32]).expect("a client");
        let mut server = Server::new(ServerConfig::new("Hats"), [2; 32]).expect("a server");
        server.register(vec![route.clone()]).expect("a registration");
        let now = START;
        let (at_client, at_server) = (subscribe(&mut client, now)[2], subscribe(&mut server, now)[0]);
        let (streams, next, taken) = (Vec::new(), 0, 0);
        let mut pair = Self { client, server, now, at_client, at_server, streams, next, taken };
        pair.exchange();
        for _ in 0..count {
            pair.client.open_stream(pair.now, OpenStream::new(route.clone())).expect("an opening");
            pair.exchange();
        }
        assert_eq!(pair.streams.len(), count, "not every stream opened");
        for _ in 0..count {
            pair.message();
        }
        pair
    }

    /// Sends one message on the next stream and waits for its ack. The server takes the message at
    /// once.
    pub fn message(&mut self) {
        self.now = later(self.now, STEP);
        let payload = b"a message of sixty-four bytes, which is about what many calls have".as_slice();
        let stream = self.streams[self.next];
        self.next = (self.next + 1) % self.streams.len();
        let taken = self.taken;
        self.client.stream_commands().send(self.now, stream, payload, None).expect("a send");
        self.exchange();
        assert_eq!(self.taken, taken + 1, "the message was not taken");
    }

    /// Passes frames in both directions until there are none.
    fn exchange(&mut self) {
        let mut more = true;
        while more {
            more = false;
            loop {
                while let Some(output) = self.client.poll_output() {
                    match output {
                        Output::Event(ClientEvent::Opened { outcome, .. }) => {
                            self.streams.push(outcome.expect("the server accepts the stream"));
                        }
                        Output::Event(ClientEvent::Stream(StreamEvent::Sent { outcome, .. })) => {
                            outcome.expect("the server takes the message");
                            self.taken += 1;
                        }
                        _ => {}
                    }
                }
                let Some(outgoing) = self.client.poll_publish() else { break };
                more = true;
                let token = outgoing.token();
                self.server.handle_frame(self.now, self.at_server, outgoing.take().1);
                self.client.handle_published(self.now, token, Ok(None));
            }
            loop {
                while let Some(output) = self.server.poll_output() {
                    match output {
                        Output::Event(ServerEvent::Received(received)) => {
                            self.server.bid(self.now, received.request, 1.0);
                        }
                        Output::Event(ServerEvent::Stream(StreamEvent::Message { delivery, .. })) => {
                            let stream = delivery.stream();
                            self.server.stream_commands().accept(self.now, delivery);
                            assert!(!self.server.stream_commands().taken(stream), "nothing is held back");
                        }
                        _ => {}
                    }
                }
                let Some(outgoing) = self.server.poll_publish() else { break };
                more = true;
                let token = outgoing.token();
                self.client.handle_frame(self.now, self.at_client, outgoing.take().1);
                self.server.handle_published(self.now, token, Ok(None));
            }
        }
    }
}
