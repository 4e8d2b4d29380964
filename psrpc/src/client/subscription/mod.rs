//! Subscriptions to the updates that servers publish.

mod table;

use std::fmt;
use std::future::{IntoFuture, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use prost::Message;
use psrpc_engine::proto::ErrorCode;
use psrpc_engine::{Reason, Route, SubscriptionHandle};

use self::table::SubscriptionEvent;
pub(crate) use self::table::SubscriptionTable;
use crate::client::{Client, RouteResult};
use crate::error::Error;
use crate::info::CallInfo;
use crate::method::{Method, MethodKind};
use crate::runtime::BoxFuture;

/// A builder for a subscription. Await it to get the [`Subscription`], which is then live.
///
/// Do not put queue-routed updates and queue-routed calls into one service [on
/// NATS](Subscription#on-nats).
///
/// Dropping the future cancels the subscription.
///
/// # Errors
///
/// Returns `invalid_argument` if the topic is invalid, `canceled` if the client is closed, and
/// `unavailable` if the bus refuses the subscription.
#[must_use = "does nothing until it is awaited"]
pub struct Subscribe<T>(SubscribeTarget<T>);

/// The source of updates.
enum SubscribeTarget<T> {
    Method(Client, RouteResult, &'static str),
    Fake(Result<Subscription<T>, Error>),
}

impl<T> Subscribe<T> {
    pub(crate) fn new(client: Client, route: RouteResult, message: &'static str) -> Self {
        Self(SubscribeTarget::Method(client, route, message))
    }

    /// Returns a builder that resolves to `subscription`, for fake clients in unit tests. See
    /// [`Subscription::fake`].
    pub fn fake(subscription: Result<Subscription<T>, Error>) -> Self {
        Self(SubscribeTarget::Fake(subscription))
    }
}

impl Client {
    /// Subscribes to the updates of `method` on `topic`.
    ///
    /// On NATS, a subscription to queue-routed updates shares a queue group with the servers of the
    /// queue-routed calls of its service. About half of the updates, and of the requests, then go
    /// to a member that cannot use them, and are lost. See
    /// [`Subscription`](crate::Subscription#on-nats) for ways to avoid it.
    ///
    /// Generated clients have a method for each rpc; prefer those.
    pub fn subscribe<T>(&self, method: &'static Method, topic: &[&str]) -> Subscribe<T> {
        let route = self.route(MethodKind::Subscription, method, topic);
        Subscribe::new(self.clone(), route, method.response)
    }
}

impl<T> fmt::Debug for Subscribe<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let route = match &self.0 {
            SubscribeTarget::Method(_, route, _) => Some(route),
            SubscribeTarget::Fake(_) => None,
        };
        f.debug_struct("Subscribe").field("route", &route).finish_non_exhaustive()
    }
}

impl<T: Message + Default + 'static> IntoFuture for Subscribe<T> {
    type Output = Result<Subscription<T>, Error>;
    type IntoFuture = BoxFuture<Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            match self.0 {
                SubscribeTarget::Method(client, route, message) => {
                    let raw = RawSubscription::start(client, route?, message)?;
                    poll_fn(|cx| raw.with_table(|table, key| table.poll_live(key, cx)).0).await?;
                    Ok(Subscription(UpdateSource::Bus(raw)))
                }
                SubscribeTarget::Fake(subscription) => subscription,
            }
        })
    }
}

/// A subscription to the updates that servers publish (PROTOCOL section 9).
///
/// ```
/// # async fn example(mut rumours: psrpc::Subscription<String>) {
/// while let Some(update) = rumours.next().await {
///     match update {
///         Ok(rumour) => println!("{rumour}"),
///         Err(error) => println!("missed some: {error}"),
///     }
/// }
/// # }
/// ```
///
/// With a queue-routed method, one of the subscribed clients gets each update; otherwise every
/// client does. Publishers do not know the subscribers, and updates are not stored.
///
/// # On NATS
///
/// If a service has both queue-routed updates and queue-routed calls, their subscribers and servers
/// share one subject and one queue group (for methods with topics, one for each topic). NATS hands
/// each message to any member of the group, so about half of the updates, and of the requests, go
/// to a member that cannot use them, and are lost. The same happens to two kinds of updates in one
/// service if some clients subscribe to only one of them. Go fleets have the same problem.
///
/// Any of these avoids it:
///
/// * Move the updates to a service of their own.
/// * Give the updates topics that no server of the service registers.
/// * Route the updates as `type = MULTI`, so that every subscriber gets each update.
/// * Set `NatsOptions::separate_updates(service, method)` of the crate `psrpc-bus-nats` on every
///   bus of the fleet. Do this only if no Go client subscribes to the same updates.
///
/// `psrpc-build` warns about a service that has both queue-routed updates and queue-routed calls.
///
/// # Missing updates
///
/// An item is an error wherever updates may be missing: the bus lost its connection, the consumer
/// fell behind by more updates than there is [room
/// for](crate::ClientOptions::updates_per_subscription) ([`Reason::Gap`], `data_loss`), or an
/// update did not decode ([`Reason::MalformedMessage`], `malformed_result`). The subscription
/// continues after such an error and across reconnects. It ends after an error with
/// [`Reason::SubscriptionLost`], when you close it, and when its client is closed.
///
/// Dropping the subscription unsubscribes.
#[must_use = "dropping it unsubscribes"]
pub struct Subscription<T>(UpdateSource<T>);

enum UpdateSource<T> {
    Bus(RawSubscription),
    Fake(Pin<Box<dyn Stream<Item = Result<T, Error>> + Send>>),
}

impl<T: Message + Default> Subscription<T> {
    /// Returns the next update, or an error where updates may be missing. Returns `None` once the
    /// subscription has ended. Cancel safe: dropping the future loses no update.
    pub async fn next(&mut self) -> Option<Result<T, Error>> {
        poll_fn(|cx| self.poll_update(cx)).await
    }

    fn poll_update(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<T, Error>>> {
        let raw = match &mut self.0 {
            UpdateSource::Bus(raw) => raw,
            UpdateSource::Fake(updates) => return updates.as_mut().poll_next(cx),
        };
        let (event, _replaced) = raw.client.driver().with_engine(|engine, role| {
            let (event, replaced) = role.subscriptions.poll(raw.key, cx);
            if let Poll::Ready(Some(SubscriptionEvent::Update(_))) = event {
                engine.taken_update(raw.subscription);
            }
            (event, replaced)
        });
        event.map(|event| {
            Some(match event? {
                SubscriptionEvent::Update(payload) => T::decode(payload).map_err(|error| {
                    Error::from_source(ErrorCode::MalformedResult, error)
                        .with_reason(Reason::MalformedMessage)
                }),
                SubscriptionEvent::Gap(lost) => Err(gap_error(lost)),
                SubscriptionEvent::Lost(failure) => Err((*failure).into()),
            })
        })
    }
}

impl<T> Subscription<T> {
    /// Returns a subscription to the given updates, for fake clients in unit tests.
    pub fn fake(updates: impl Stream<Item = Result<T, Error>> + Send + 'static) -> Self {
        Self(UpdateSource::Fake(Box::pin(updates)))
    }

    /// Unsubscribes. Updates received before remain available.
    pub fn close(&self) {
        if let UpdateSource::Bus(RawSubscription { client, subscription, .. }) = &self.0 {
            client.driver().execute(|state, _| state.engine.unsubscribe(*subscription));
        }
    }
}

impl<T: Message + Default> Stream for Subscription<T> {
    type Item = Result<T, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_update(cx)
    }
}

impl<T> fmt::Debug for Subscription<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let info = match &self.0 {
            UpdateSource::Bus(raw) => Some(&raw.info),
            UpdateSource::Fake(_) => None,
        };
        f.debug_struct("Subscription").field("info", &info).finish_non_exhaustive()
    }
}

fn gap_error(lost: Option<u64>) -> Error {
    let text = match lost {
        Some(1) => "an update was lost".to_owned(),
        Some(lost) => format!("{lost} updates were lost"),
        None => "updates may have been lost".to_owned(),
    };
    Error::new(ErrorCode::DataLoss, text).with_reason(Reason::Gap)
}

/// A subscription to updates of any type. Dropping it unsubscribes.
struct RawSubscription {
    client: Client,
    subscription: SubscriptionHandle,
    key: usize,
    info: CallInfo,
}

impl RawSubscription {
    fn start(client: Client, route: Route, message: &'static str) -> Result<Self, Error> {
        let (subscription, key) = client.driver().execute(|state, _| {
            let subscription = state.engine.subscribe(&route, message)?;
            Ok::<_, Error>((subscription, state.role.subscriptions.start(subscription)))
        })?;
        Ok(Self { client, subscription, key, info: route.into() })
    }

    fn with_table<R>(&self, read: impl FnOnce(&mut SubscriptionTable, usize) -> R) -> R {
        self.client.driver().with_state(|state| read(&mut state.role.subscriptions, self.key))
    }
}

impl Drop for RawSubscription {
    fn drop(&mut self) {
        let discarded = self.client.driver().execute(|state, _| {
            state.engine.unsubscribe(self.subscription);
            state.role.subscriptions.remove(self.key)
        });
        // Dropped after the lock is released.
        drop(discarded);
    }
}
