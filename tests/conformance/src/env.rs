//! What a case has to work with: a bus, a runtime, and servers and clients of the shop on them.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Poll, Waker};
use std::time::Duration;

use psrpc::bus::Bus;
use psrpc::{ClientOptions, Error, Runtime, ServerOptions, Time};

use crate::case::Connect;
use crate::foreign::Foreign;
use crate::proto::{ShopClient, ShopServer};
use crate::shop::Hatter;

/// What a case has to work with.
#[derive(Clone)]
pub struct Env {
    connect: Connect,
    runtime: Arc<dyn Runtime>,
    calls: usize,
    /// The connections that were asked for.
    connections: Arc<Mutex<Vec<Weak<dyn Bus>>>>,
}

impl Env {
    pub(crate) fn new(connect: Connect, runtime: Arc<dyn Runtime>, calls: usize) -> Self {
        Self { connect, runtime, calls, connections: Arc::default() }
    }

    /// How many calls a case about load makes.
    pub(crate) fn calls(&self) -> usize {
        self.calls
    }

    /// The bus, over a connection of its own.
    ///
    /// # Errors
    ///
    /// Why there is no connection.
    pub async fn bus(&self) -> Result<Arc<dyn Bus>, String> {
        let bus = (self.connect)().await?;
        self.connections.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&bus));
        Ok(bus)
    }

    /// Waits until nobody has a connection any more. Polls, since the end of the last reference
    /// notifies nobody.
    pub(crate) async fn disconnected(&self) {
        let is_used = || {
            let connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
            connections.iter().any(|bus| bus.strong_count() > 0)
        };
        while is_used() {
            self.sleep(Duration::from_millis(2)).await;
        }
    }

    /// The runtime.
    pub fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::clone(&self.runtime)
    }

    /// A client of the shop.
    pub(crate) async fn client(&self) -> Result<ShopClient, String> {
        self.client_with(ClientOptions::new()).await
    }

    pub(crate) async fn client_with(&self, options: ClientOptions) -> Result<ShopClient, String> {
        ShopClient::with_runtime(self.bus().await?, self.runtime(), options).await.map_err(unexpected)
    }

    /// A server of the shop.
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

    /// Somebody who does what a hatter does, named `label`, with an affinity.
    pub(crate) fn hatter(&self, label: &str, affinity: f32) -> Hatter {
        Hatter::new(label, affinity, self.runtime())
    }

    /// A peer that is not ours, and speaks the protocol by hand.
    pub(crate) async fn foreign(&self) -> Result<Foreign, String> {
        Ok(Foreign::new(self.bus().await?))
    }

    /// The runtime's monotonic clock.
    pub(crate) fn now(&self) -> Time {
        self.runtime.now().time
    }

    /// How long something takes.
    pub(crate) async fn time<T>(&self, future: impl Future<Output = T>) -> (T, Duration) {
        let start = self.now();
        let result = future.await;
        (result, self.now().since(start))
    }

    /// Lets time pass: so that a deadline is over, or for a check that nothing happens in that
    /// time. [`until`](Self::until) waits for something that does happen.
    pub(crate) async fn sleep(&self, duration: Duration) {
        self.runtime.sleep_until(self.runtime.now().time + duration).await;
    }

    /// What `future` ends with, if it does so within `limit`.
    pub(crate) async fn within<T>(
        &self,
        limit: Duration,
        future: impl Future<Output = T>,
    ) -> Result<T, String> {
        let mut future = pin!(future);
        let mut limit_is_over = self.runtime.sleep_until(self.now() + limit);
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(result) => Poll::Ready(Ok(result)),
            Poll::Pending => {
                limit_is_over.as_mut().poll(cx).map(|()| Err(format!("it was not over after {limit:?}")))
            }
        })
        .await
    }

    /// Waits until a condition holds, which something that is under way will bring about. Polls,
    /// since the counters and records that conditions are about notify nobody.
    pub(crate) async fn until(&self, what: &str, mut holds: impl FnMut() -> bool) -> Result<(), String> {
        for _ in 0..2000 {
            if holds() {
                return Ok(());
            }
            self.sleep(Duration::from_millis(5)).await;
        }
        Err(format!("waited in vain until {what}"))
    }

    /// Runs a future in the background; awaiting what it gives is awaiting its end.
    pub(crate) fn spawn<T, F>(&self, future: F) -> impl Future<Output = T> + Send + use<T, F>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let done = Arc::new(Mutex::new((None, None::<Waker>)));
        let at_end = Arc::clone(&done);
        self.runtime.spawn(Box::pin(async move {
            let result = future.await;
            let waker = {
                let mut done = at_end.lock().unwrap_or_else(PoisonError::into_inner);
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

/// The code and the text of an error, without what is known of the cause, which depends on the bus.
pub(crate) fn code_and_text(error: &Error) -> String {
    format!("{}: {}", error.code(), error.text())
}

/// The error that a call is expected to fail with.
pub(crate) fn expected<T: std::fmt::Debug>(result: Result<T, Error>) -> Result<Error, String> {
    match result {
        Ok(answer) => Err(format!("an error was expected, and {answer:?} came")),
        Err(error) => Ok(error),
    }
}
