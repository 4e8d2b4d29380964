//! The environment of a case: a bus, a runtime, and constructors for servers and clients of the
//! shop.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Poll, Waker};
use std::time::Duration;

use psrpc::bus::Bus;
use psrpc::proto::{Channel, Frame};
use psrpc::{ClientOptions, Error, Runtime, ServerOptions, SubscriptionKind, Time};

use crate::case::{Connect, Subject};
use crate::foreign::{ForeignPeer, FrameReceiver, SHOP};
use crate::proto::{ShopClient, ShopServer};
use crate::settling::SettlingBus;
use crate::shop::{Hatter, method};

/// The environment of a case.
#[derive(Clone)]
pub struct Env {
    connect: Connect,
    runtime: Arc<dyn Runtime>,
    calls: usize,
    settling_time: Duration,
    /// The connections opened so far.
    connections: Arc<Mutex<Vec<Weak<dyn Bus>>>>,
}

impl Env {
    pub(crate) fn new(connect: Connect, runtime: Arc<dyn Runtime>, subject: &Subject) -> Self {
        let Subject { calls, settling_time, .. } = *subject;
        Self { connect, runtime, calls, settling_time, connections: Arc::default() }
    }

    /// Returns the number of calls that a load case makes.
    pub(crate) fn calls(&self) -> usize {
        self.calls
    }

    /// Opens a connection to the bus.
    ///
    /// # Errors
    ///
    /// Returns the reason if the connection fails.
    pub async fn bus(&self) -> Result<Arc<dyn Bus>, String> {
        let mut bus = (self.connect)().await?;
        if !self.settling_time.is_zero() {
            bus = Arc::new(SettlingBus { bus, runtime: self.runtime(), delay: self.settling_time });
        }
        self.connections.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&bus));
        Ok(bus)
    }

    /// Waits until all connections are dropped. Polls, since the drop of the last reference cannot
    /// be awaited.
    pub(crate) async fn disconnected(&self) {
        let is_used = || {
            let connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
            connections.iter().any(|bus| bus.strong_count() > 0)
        };
        while is_used() {
            self.sleep(Duration::from_millis(2)).await;
        }
    }

    /// Returns the runtime.
    pub fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::clone(&self.runtime)
    }

    /// Creates a client of the shop.
    pub(crate) async fn client(&self) -> Result<ShopClient, String> {
        self.client_with(ClientOptions::new()).await
    }

    pub(crate) async fn client_with(&self, options: ClientOptions) -> Result<ShopClient, String> {
        ShopClient::with_runtime(self.bus().await?, self.runtime(), options).await.map_err(unexpected)
    }

    /// Creates a server of the shop.
    pub(crate) async fn server(&self, hatter: &Hatter) -> Result<ShopServer, String> {
        self.server_with(hatter, ServerOptions::new()).await
    }

    pub(crate) async fn server_with(
        &self,
        hatter: &Hatter,
        options: ServerOptions,
    ) -> Result<ShopServer, String> {
        let (bus, runtime) = (self.bus().await?, self.runtime());
        ShopServer::with_runtime(bus, runtime, hatter.clone(), options).await.map_err(unexpected)
    }

    /// Creates a service implementation named `label`, with a fixed affinity.
    pub(crate) fn hatter(&self, label: &str, affinity: f32) -> Hatter {
        Hatter::new(label, affinity, self.runtime())
    }

    /// Creates a peer that sends and receives raw frames.
    pub(crate) async fn foreign(&self) -> Result<ForeignPeer, String> {
        Ok(ForeignPeer::new(self.bus().await?))
    }

    /// Subscribes to the requests of a method on a topic, like a server that ignores them, until
    /// the result is dropped.
    pub(crate) async fn unresponsive(&self, name: &str, topic: &[&str]) -> Result<FrameReceiver, String> {
        let is_queue = method(name).properties.queue();
        let kind = if is_queue { SubscriptionKind::Queue } else { SubscriptionKind::Plain };
        self.foreign().await?.listen(&Channel::request(SHOP, name, topic, is_queue), kind).await
    }

    /// Returns `true` if the bus knows how many subscribers a frame reaches.
    pub(crate) async fn counts_subscribers(&self) -> Result<bool, String> {
        let channel = Channel::request::<&str>("Nobody", "Listens", &[], false);
        let published = self.foreign().await?.publish(&channel, Frame::Raw(Vec::new().into())).await;
        Ok(published.map_err(|error| format!("failed to publish: {error}"))?.is_some())
    }

    /// Returns the time of the runtime's monotonic clock.
    pub(crate) fn now(&self) -> Time {
        self.runtime.now().time
    }

    /// Returns the output of a future and the time that it took.
    pub(crate) async fn time<T>(&self, future: impl Future<Output = T>) -> (T, Duration) {
        let start = self.now();
        let result = future.await;
        (result, self.now().since(start))
    }

    /// Lets time pass, so that a deadline expires or to check that nothing happens meanwhile. To
    /// wait for something that does happen, use [`until`](Self::until).
    pub(crate) async fn sleep(&self, duration: Duration) {
        self.runtime.sleep_until(self.runtime.now().time + duration).await;
    }

    /// Returns the output of `future`, or an error if it does not resolve within `limit`.
    pub(crate) async fn within<T>(
        &self,
        limit: Duration,
        future: impl Future<Output = T>,
    ) -> Result<T, String> {
        let mut future = pin!(future);
        let mut timeout = self.runtime.sleep_until(self.now() + limit);
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(result) => Poll::Ready(Ok(result)),
            Poll::Pending => timeout.as_mut().poll(cx).map(|()| Err(format!("timed out after {limit:?}"))),
        })
        .await
    }

    /// Waits until a condition holds. Polls, since changes of the counters and records that
    /// conditions check cannot be awaited.
    pub(crate) async fn until(
        &self,
        condition: &str,
        mut is_met: impl FnMut() -> bool,
    ) -> Result<(), String> {
        for _ in 0..2000 {
            if is_met() {
                return Ok(());
            }
            self.sleep(Duration::from_millis(5)).await;
        }
        Err(format!("timed out waiting until {condition}"))
    }

    /// Runs a future in the background. The returned future resolves to its output.
    pub(crate) fn spawn<T, F>(&self, future: F) -> impl Future<Output = T> + Send + use<T, F>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let done = Arc::new(Mutex::new((None, None::<Waker>)));
        let task_result = Arc::clone(&done);
        self.runtime.spawn(Box::pin(async move {
            let result = future.await;
            let waker = {
                let mut done = task_result.lock().unwrap_or_else(PoisonError::into_inner);
                done.0 = Some(result);
                done.1.take()
            };
            waker.into_iter().for_each(Waker::wake);
        }));
        poll_fn(move |cx| {
            let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
            match done.0.take() {
                Some(result) => Poll::Ready(result),
                None => {
                    done.1 = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
    }
}

pub(crate) fn unexpected(error: Error) -> String {
    format!("unexpected error: {error}")
}

/// Returns the code and the text of an error, without its explanation, which depends on the bus.
pub(crate) fn code_and_text(error: &Error) -> String {
    format!("{}: {}", error.code(), error.text())
}

/// Returns the error of a call that must fail.
pub(crate) fn expect_error<T: std::fmt::Debug>(result: Result<T, Error>) -> Result<Error, String> {
    match result {
        Ok(response) => Err(format!("expected an error, got {response:?}")),
        Err(error) => Ok(error),
    }
}
