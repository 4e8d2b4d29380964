//! Election: requests that a server runs without waiting for a grant.

mod hats;

use std::sync::{Arc, Mutex};

use hats::{FIT, HATS, PICK, client, echo, fit, runtime, serve};
use psrpc_bus_local::LocalBus;
use psrpc_tokio::bus::{Accepted, Bus, Full, Offer, Sink, Subscription, WakeList};
use psrpc_tokio::proto::{Channel, Frame};
use psrpc_tokio::*;

/// A bus that notes whether bids announced that the request runs already, and how many grants there
/// were.
#[derive(Clone, Default)]
struct Noting {
    local: LocalBus,
    announcements: Arc<Mutex<Vec<bool>>>,
    grants: Arc<Mutex<usize>>,
}

impl Bus for Noting {
    fn publish(&self, offer: Offer<'_>, wakes: &mut WakeList) -> Result<Accepted, Full> {
        match offer.frame() {
            Frame::ClaimRequest(claim) => self.announcements.lock().unwrap().push(claim.handling),
            Frame::ClaimResponse(_) => *self.grants.lock().unwrap() += 1,
            _ => {}
        }
        self.local.publish(offer, wakes)
    }

    fn subscribe(
        &self,
        channel: &Channel,
        kind: SubscriptionKind,
        sink: Sink,
        wakes: &mut WakeList,
    ) -> Subscription {
        self.local.subscribe(channel, kind, sink, wakes)
    }
}

/// Makes a call of both methods with a server with these options: which bids announced, and how
/// many grants there were.
async fn calls(options: ServerOptions, vip: &str) -> (Vec<bool>, usize) {
    let bus = Noting::default();
    let server = serve(&bus, options, echo).await;
    let client = client(&bus, ClientOptions::new()).await;
    assert_eq!(fit(&client, "fez").metadata("vip", vip).await.unwrap(), "fez");
    let picked: String = client.call(PICK, &[], "cap".to_owned()).metadata("vip", vip).await.unwrap();
    assert_eq!(picked, "cap");
    server.shutdown().await;
    let announcements = bus.announcements.lock().unwrap().clone();
    (announcements, *bus.grants.lock().unwrap())
}

fn elects_vips() -> ServerOptions {
    ServerOptions::new().skip_claim(|info, metadata| {
        assert_eq!(info.method(), "Fit", "a method that is not queue-routed is not asked for");
        metadata.get("vip").unwrap() == "yes"
    })
}

#[tokio::test(start_paused = true)]
async fn nothing_is_elected_unless_a_server_says_so() {
    assert_eq!(calls(ServerOptions::new(), "yes").await, (vec![false, false], 2));
    assert_eq!(calls(elects_vips(), "no").await, (vec![false, false], 2));
}

#[tokio::test(start_paused = true)]
async fn what_is_elected_runs_without_a_grant() {
    assert_eq!(calls(elects_vips(), "yes").await, (vec![true, false], 1));
}

/// Of two servers that skip claims the queue gives each request to one.
#[tokio::test(start_paused = true)]
async fn of_two_servers_that_elect_one_runs_each_request() {
    let (bus, log) = (Noting::default(), hats::Log::default());
    let mut servers = Vec::new();
    for name in ["s1", "s2"] {
        let log = log.clone();
        let options = ServerOptions::new().skip_claim(|_, _| true);
        servers.push(
            serve(&bus, options, move |request| {
                log.add(name);
                echo(request)
            })
            .await,
        );
    }
    let client = client(&bus, ClientOptions::new()).await;
    for _ in 0..10 {
        assert_eq!(fit(&client, "fez").await.unwrap(), "fez");
    }
    let ran = log.take();
    assert_eq!(ran.len(), 10, "{ran:?}");
    assert_eq!(*bus.announcements.lock().unwrap(), [true; 10]);
    assert_eq!(*bus.grants.lock().unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_panic_elects_nothing() {
    let options = ServerOptions::new().skip_claim(|_, _| panic!("as it was told"));
    assert_eq!(calls(options, "yes").await, (vec![false, false], 2));
}

#[tokio::test(start_paused = true)]
async fn what_would_not_be_bid_for_is_not_elected() {
    let bus = LocalBus::new();
    let handlers = Handlers::new(&HATS, ()).unary_with_affinity(FIT, |_, request| echo(request), |_, _| -1.0);
    let options = ServerOptions::new().skip_claim(|_, _| true);
    let server = Server::new(bus.clone(), runtime(), handlers, options).unwrap();
    server.register(&[FIT], &[]).await.unwrap();
    let call = fit(&client(&bus, ClientOptions::new()).await, "fez").await;
    assert_eq!(call.unwrap_err().reason(), Some(Reason::NoResponse));
}
