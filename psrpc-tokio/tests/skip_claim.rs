//! Skip claim: requests that a server runs without waiting for a grant.

mod hats;

use std::sync::{Arc, Mutex};

use hats::{FIT, HATS, PICK, client, echo, fit, runtime, serve};
use psrpc_bus_local::LocalBus;
use psrpc_tokio::bus::{Accepted, Bus, Full, Offer, Sink, Subscription, WakeList};
use psrpc_tokio::proto::{Channel, Frame};
use psrpc_tokio::*;

/// A bus that records for each bid whether it is an announcement, and counts the grants.
#[derive(Clone, Default)]
struct RecordingBus {
    local: LocalBus,
    announcements: Arc<Mutex<Vec<bool>>>,
    grants: Arc<Mutex<usize>>,
}

impl Bus for RecordingBus {
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

/// Calls both methods of a server with these options. Returns for each bid whether it was an
/// announcement, and the number of grants.
async fn calls(options: ServerOptions, vip: &str) -> (Vec<bool>, usize) {
    let bus = RecordingBus::default();
    let server = serve(&bus, options, echo).await;
    let client = client(&bus, ClientOptions::new()).await;
    assert_eq!(fit(&client, "fez").metadata("vip", vip).await.unwrap(), "fez");
    let picked: String = client.call(PICK, &[], "cap".to_owned()).metadata("vip", vip).await.unwrap();
    assert_eq!(picked, "cap");
    server.shutdown().await;
    let announcements = bus.announcements.lock().unwrap().clone();
    (announcements, *bus.grants.lock().unwrap())
}

fn skip_for_vips() -> ServerOptions {
    ServerOptions::new().skip_claim(|info, metadata| {
        assert_eq!(info.method(), "Fit", "only queue-routed methods can skip claims");
        metadata.get("vip").unwrap() == "yes"
    })
}

#[tokio::test(start_paused = true)]
async fn claims_are_not_skipped_by_default() {
    assert_eq!(calls(ServerOptions::new(), "yes").await, (vec![false, false], 2));
    assert_eq!(calls(skip_for_vips(), "no").await, (vec![false, false], 2));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_skips_its_claim_runs_without_a_grant() {
    assert_eq!(calls(skip_for_vips(), "yes").await, (vec![true, false], 1));
}

/// With two servers that skip claims, the queue passes each request to one of them.
#[tokio::test(start_paused = true)]
async fn with_two_servers_that_skip_claims_each_request_runs_once() {
    let (bus, log) = (RecordingBus::default(), hats::Log::default());
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
async fn a_panic_in_the_skip_claim_function_skips_no_claim() {
    let options = ServerOptions::new().skip_claim(|_, _| panic!("on purpose"));
    assert_eq!(calls(options, "yes").await, (vec![false, false], 2));
}

#[tokio::test(start_paused = true)]
async fn a_negative_affinity_skips_no_claim() {
    let bus = LocalBus::new();
    let handlers = Handlers::new(&HATS, ()).unary_with_affinity(FIT, |_, request| echo(request), |_, _| -1.0);
    let options = ServerOptions::new().skip_claim(|_, _| true);
    let server = Server::new(bus.clone(), runtime(), handlers, options).unwrap();
    server.register(&[FIT], &[]).await.unwrap();
    let call = fit(&client(&bus, ClientOptions::new()).await, "fez").await;
    assert_eq!(call.unwrap_err().reason(), Some(Reason::NoResponse));
}
