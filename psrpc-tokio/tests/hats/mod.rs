//! A hat service for the tests, with strings as requests and responses.

#![allow(dead_code, reason = "each test program uses a part of the helpers")]

use std::pin::Pin;
use std::sync::{Arc, Mutex};

use futures_core::Stream;
use psrpc_tokio::bus::{Accepted, Bus, Delivery, Full, Inbox, Offer, Sink, Subscription, WakeList};
use psrpc_tokio::proto::{Channel, Frame};
use psrpc_tokio::*;

pub static HATS: Service = Service {
    name: "Hats",
    methods: &[
        Method::call(0, "Fit", MethodProperties { routing: Routing::Queue, require_claim: true }),
        Method::call(1, "Pick", MethodProperties { routing: Routing::Affinity, require_claim: true }),
    ],
};
pub static FIT: &Method = &HATS.methods[0];
pub static PICK: &Method = &HATS.methods[1];

/// A tokio runtime whose wall clock follows paused time, so that results do not depend on the speed
/// of the test.
#[derive(Clone)]
pub struct PausedRuntime(TokioRuntime);

/// A millisecond in nanoseconds.
const MILLI: u64 = 1_000_000;

pub fn runtime() -> PausedRuntime {
    PausedRuntime(default_runtime().unwrap())
}

impl Runtime for PausedRuntime {
    fn now(&self) -> Now {
        // Paused time advances by whole milliseconds, but does not start at a whole millisecond.
        let time = Time::from_nanos(self.0.now().time.as_nanos() / MILLI * MILLI);
        Now { time, wall: WallTime::from_unix_nanos(1 << 60) + time.since(Time::ZERO) }
    }

    fn seed(&self) -> proto::Seed {
        self.0.seed()
    }

    fn sleep_until(&self, deadline: Time) -> Task {
        self.0.sleep_until(Time::from_nanos(deadline.as_nanos().div_ceil(MILLI).saturating_mul(MILLI)))
    }

    fn spawn(&self, task: Task) {
        self.0.spawn(task);
    }

    fn is_tokio(&self) -> bool {
        true
    }
}

/// A log of events in order.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub fn add(&self, event: impl Into<String>) {
        self.0.lock().unwrap().push(event.into());
    }

    /// Returns the number of events since the last `take`.
    pub fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// Returns the events since the last `take`.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

pub fn error(code: ErrorCode) -> Error {
    Error::new(code, "no hat")
}

/// Creates a server for both methods.
pub async fn serve<F, Fut>(bus: &(impl Bus + Clone), options: ServerOptions, handler: F) -> Server
where
    F: Fn(Request<String>) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<String, Error>> + Send + 'static,
{
    let pick = handler.clone();
    let handlers = Handlers::new(&HATS, ())
        .unary(FIT, move |_, request| handler(request))
        .unary(PICK, move |_, request| pick(request));
    let server = Server::new(bus.clone(), runtime(), handlers, options).unwrap();
    server.register(&[FIT, PICK], &[]).await.unwrap();
    server
}

pub async fn client(bus: &(impl Bus + Clone), options: ClientOptions) -> Client {
    Client::new(bus.clone(), runtime(), &HATS, options).await.unwrap()
}

/// Returns a call of the queue-routed method.
pub fn fit(client: &Client, hat: &str) -> Call<String, String> {
    client.call(FIT, &[], hat.to_owned())
}

/// Subscribes to the requests of a method, like a server that ignores them, until the result is
/// dropped.
pub async fn unresponsive(bus: &impl Bus, method: &Method) -> (Subscription, Inbox) {
    let (sink, mut inbox) = Inbox::new(10);
    let is_queue = method.properties.queue();
    let channel = Channel::request::<&str>(HATS.name, method.name, &[], is_queue);
    let kind = if is_queue { SubscriptionKind::Queue } else { SubscriptionKind::Plain };
    let subscription = bus.subscribe(&channel, kind, sink, &mut WakeList::new());
    let first = std::future::poll_fn(|cx| Pin::new(&mut inbox).poll_next(cx)).await;
    assert!(matches!(first, Some(Delivery::Live)));
    (subscription, inbox)
}

/// A handler that returns its request.
pub async fn echo(request: Request<String>) -> Result<String, Error> {
    Ok(request.into_message())
}

/// A bus that delivers nothing. The test fills the sinks of the subscriptions.
#[derive(Clone, Default)]
pub struct ManualBus(Arc<Mutex<Vec<Sink>>>);

impl ManualBus {
    /// Returns the sinks of the subscriptions since the last `take`.
    pub fn take(&self) -> Vec<Sink> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl Bus for ManualBus {
    fn publish(&self, offer: Offer<'_>, _: &mut WakeList) -> Result<Accepted, Full> {
        drop(offer.take());
        Ok(Accepted::Done(None))
    }

    fn subscribe(&self, _: &Channel, _: SubscriptionKind, sink: Sink, wakes: &mut WakeList) -> Subscription {
        sink.live(wakes);
        self.0.lock().unwrap().push(sink);
        Subscription::new(|| ())
    }
}

/// Returns a response without a matching call.
pub fn stray_response(request_id: &str) -> Frame {
    Frame::Response(proto::Response {
        request_id: request_id.into(),
        server_id: "SRV_stray".into(),
        sent_at: 0,
        result: Ok(Vec::new().into()),
    })
}

/// Returns a request that has already expired.
pub fn late_request(request_id: &str) -> Frame {
    let now = runtime().now().wall;
    Frame::Request(proto::Request {
        request_id: request_id.into(),
        client_id: "CLI_late".into(),
        sent_at: now.as_unix_nanos() - 7_000_000,
        expiry: now.as_unix_nanos() - 2_000_000,
        multi: false,
        metadata: Metadata::new(),
        payload: Vec::new().into(),
        skip_claim: false,
    })
}

/// Lets all ready tasks run.
pub async fn settle() {
    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
}
