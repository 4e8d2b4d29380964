//! Opening streams.

use std::fmt;
use std::future::IntoFuture;
use std::sync::Arc;

use prost::Message;
use psrpc_engine::OpenStream as EngineOpen;
use psrpc_engine::{Route, StreamHandle};

use super::builder::{call_options, selection_option};
use super::in_flight::Opening;
use super::within::Within;
use crate::client::{Client, RouteResult};
use crate::error::Error;
use crate::info::Side;
use crate::interceptor::{CallOptions, OpeningStream, StreamInterceptor};
use crate::method::{Method, MethodKind};
use crate::runtime::BoxFuture;
use crate::stream::{ClientStream, Codec, DriverEnd};

/// A builder for a stream. Await it to open the stream and get the [`ClientStream`].
///
/// ```
/// # use std::time::Duration;
/// # use psrpc::{ClientStream, Error, OpenStream};
/// # async fn example(opening: OpenStream<String, String>) -> Result<(), Error> {
/// # struct Client(Option<OpenStream<String, String>>);
/// # impl Client { fn parade(&mut self) -> OpenStream<String, String> { self.0.take().unwrap() } }
/// # let mut client = Client(Some(opening));
/// let stream = client.parade().timeout(Duration::from_millis(500)).metadata("band", "brass").await?;
/// # Ok(())
/// # }
/// ```
///
/// The future resolves once a server has accepted the stream. Timeout, deadline and selection apply
/// to the opening only; the stream stays open until one side ends it. Dropping the future cancels
/// the opening, and notifies a server that may have accepted the stream.
///
/// # Errors
///
/// Those of a [`Call`](crate::Call). In addition, a server with too many streams responds
/// `resource_exhausted`.
#[must_use = "a stream is not opened until it is awaited"]
pub struct OpenStream<S, R> {
    target: OpenTarget<S, R>,
    options: CallOptions,
    interceptors: Vec<Arc<dyn StreamInterceptor>>,
}

/// The source of a stream.
enum OpenTarget<S, R> {
    Method(Client, RouteResult),
    Fake(Result<ClientStream<S, R>, Error>),
}

impl<S, R> OpenStream<S, R> {
    pub(crate) fn new(client: Client, route: RouteResult) -> Self {
        let interceptors = client.interceptors().streams.clone();
        let options = client.call_options();
        Self { target: OpenTarget::Method(client, route), options, interceptors }
    }

    /// Returns a builder that resolves to `stream`, for fake clients in unit tests. It ignores its
    /// options and interceptors. Use `stream_pair` of the crate `psrpc-testing` to make a stream.
    pub fn fake(stream: Result<ClientStream<S, R>, Error>) -> Self {
        Self { target: OpenTarget::Fake(stream), options: CallOptions::new(), interceptors: Vec::new() }
    }

    call_options!(
        "Sets how long the opening may take, counted from the first poll. Default: the client's timeout."
    );
    selection_option!();

    /// Adds an interceptor around this stream. It runs inside those of the client and those added
    /// before.
    pub fn interceptor(mut self, interceptor: impl StreamInterceptor) -> Self {
        self.interceptors.push(Arc::new(interceptor));
        self
    }
}

impl Client {
    /// Opens a stream with `method` on `topic`, on which the client sends `S` and receives `R`.
    ///
    /// Generated clients have a method for each rpc; prefer those.
    pub fn open_stream<S, R>(&self, method: &'static Method, topic: &[&str]) -> OpenStream<S, R> {
        OpenStream::new(self.clone(), self.route(MethodKind::Stream, method, topic))
    }
}

impl<S, R> fmt::Debug for OpenStream<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let route = match &self.target {
            OpenTarget::Method(_, route) => Some(route),
            OpenTarget::Fake(_) => None,
        };
        f.debug_struct("OpenStream")
            .field("route", &route)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl<S: Message + 'static, R: Message + Default + 'static> IntoFuture for OpenStream<S, R> {
    type Output = Result<ClientStream<S, R>, Error>;
    type IntoFuture = BoxFuture<Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { target, mut options, interceptors } = self;
        Box::pin(async move {
            let (client, route): (_, Route) = match target {
                OpenTarget::Method(client, route) => (client, route?),
                OpenTarget::Fake(stream) => return stream,
            };
            let codec = Arc::new(Codec::new::<S, R>(route.clone().into(), Side::Client));
            let scope = client.enter_scope(&mut options);
            let opening = open(&client, route, options, &interceptors, &codec);
            let opened = match scope {
                Some(scope) => Within::new(opening, scope).await,
                None => opening.await,
            };
            match opened {
                Ok((stream, key)) => {
                    codec.opened();
                    let driver = Arc::clone(client.driver());
                    Ok(ClientStream::new(DriverEnd::at_client(driver, stream, key, codec, client)))
                }
                Err(error) => {
                    codec.closed(&error);
                    Err(error)
                }
            }
        })
    }
}

async fn open(
    client: &Client,
    route: Route,
    options: CallOptions,
    interceptors: &[Arc<dyn StreamInterceptor>],
    codec: &Arc<Codec>,
) -> Result<(StreamHandle, usize), Error> {
    let mut opening = OpeningStream::new(codec.info().clone(), Side::Client, options);
    codec.intercept(interceptors, &mut opening)?;
    let CallOptions { timeout, deadline, selection, wait_for_subscriber, metadata, .. } = opening.options;
    let (selection, choose) = selection.into_parts();
    let open = EngineOpen {
        timeout,
        deadline,
        selection,
        waits_for_subscriber: wait_for_subscriber,
        metadata,
        ..EngineOpen::new(route)
    };
    Opening::start(client.clone(), open, choose, Arc::clone(codec))?.opened().await
}
