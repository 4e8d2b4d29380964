//! Publishing updates to subscribers.

use std::fmt;
use std::future::{IntoFuture, poll_fn};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use psrpc_engine::Route;
use psrpc_engine::proto::{Any, Text};

use super::role::ServerRole;
use super::updates::Outcome;
use crate::driver::Driver;
use crate::error::Error;
use crate::runtime::BoxFuture;

/// A builder for the publishing of an update. Await it to publish.
///
/// The future resolves once the bus has accepted the update, to the number of subscribers that
/// received it, if the bus knows it. Having no subscribers is not an error. Dropping the future
/// stops the wait. If the future was polled before, the update may still be published.
///
/// # Errors
///
/// Returns `unavailable` if the bus does not accept the update, `deadline_exceeded` if it has no
/// room in time, `invalid_argument` if the topic is invalid or the update too large,
/// `resource_exhausted` if too many updates are waiting for the bus, and `canceled` if the server
/// is closed.
#[must_use = "an update is not published until it is awaited"]
pub struct Publish<'a> {
    driver: &'a Arc<Driver<ServerRole>>,
    route: Result<Route, Error>,
    update: Any,
    timeout: Option<Duration>,
}

impl<'a> Publish<'a> {
    pub(super) fn new(
        driver: &'a Arc<Driver<ServerRole>>,
        route: Result<Route, Error>,
        message: &'static str,
        payload: Vec<u8>,
    ) -> Self {
        let type_url = Text::from(format!("type.googleapis.com/{message}"));
        let update = Any { type_url, value: payload.into() };
        Self { driver, route, update, timeout: None }
    }

    /// Sets how long publishing may take, counted from the first poll. Default: the server's
    /// timeout, 3 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }
}

impl fmt::Debug for Publish<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publish").field("route", &self.route).field("update", &self.update.type_url).finish()
    }
}

impl IntoFuture for Publish<'_> {
    type Output = Result<Option<u64>, Error>;
    type IntoFuture = BoxFuture<Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { driver, route, update, timeout } = self;
        let driver = Arc::clone(driver);
        Box::pin(async move {
            let mut pending = PendingUpdate::start(driver, &route?, update, timeout)?;
            poll_fn(|cx| pending.poll(cx)).await.map_err(|failure| (*failure).into())
        })
    }
}

/// An update that the engine is publishing. Dropping it stops the wait.
struct PendingUpdate {
    driver: Arc<Driver<ServerRole>>,
    /// The key of the publisher; `None` once the outcome was taken.
    key: Option<usize>,
}

impl PendingUpdate {
    fn start(
        driver: Arc<Driver<ServerRole>>,
        route: &Route,
        update: Any,
        timeout: Option<Duration>,
    ) -> Result<Self, Error> {
        let key = driver.execute(|state, now| {
            let update = state.engine.publish(now, route, update, timeout)?;
            Ok::<_, Error>(state.role.updates.start(update))
        })?;
        Ok(Self { driver, key: Some(key) })
    }

    fn poll(&mut self, cx: &Context<'_>) -> Poll<Outcome> {
        let key = self.key.expect("polled after completion");
        let (polled, _replaced) = self.driver.with_state(|state| state.role.updates.poll(key, cx));
        if polled.is_ready() {
            self.key = None;
        }
        polled
    }
}

impl Drop for PendingUpdate {
    fn drop(&mut self) {
        let Some(key) = self.key else { return };
        let replaced = self.driver.execute(|state, now| {
            let (update, replaced) = state.role.updates.remove(key);
            if let Some(update) = update {
                state.engine.cancel_update(now, update);
            }
            replaced
        });
        // Dropped after the lock is released.
        drop(replaced);
    }
}
