//! Opening a stream.

use std::fmt;
use std::future::IntoFuture;
use std::sync::Arc;

use prost::Message;
use psrpc_engine::OpenStream as EngineOpen;
use psrpc_engine::{Route, StreamHandle};

use super::builder::{call_options, selection_option};
use super::in_flight::Opening;
use crate::client::{Client, RouteResult};
use crate::error::Error;
use crate::info::Side;
use crate::interceptor::{CallOptions, OpeningStream, StreamInterceptor};
use crate::method::{Method, MethodKind};
use crate::runtime::BoxFuture;
use crate::stream::{ClientStream, Codec, DriverEnd};

/// A stream to be opened: set what it needs, then await it for the [`ClientStream`].
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
/// It resolves when a server has taken the stream; timeouts, deadline and selection are those of
/// that, and the stream itself lives as long as both sides want. Dropping the future gives up, and
/// tells a server that may have taken it.
///
/// # Errors
///
/// Those of a [`Call`](crate::Call); a server that has too many streams answers
/// `resource_exhausted`.
#[must_use = "a stream is opened when it is awaited"]
pub struct OpenStream<S, R> {
    target: OpenTarget<S, R>,
    options: CallOptions,
    interceptors: Vec<Arc<dyn StreamInterceptor>>,
}

/// Where a stream comes from.
enum OpenTarget<S, R> {
    Method(Client, RouteResult),
    Fake(Result<ClientStream<S, R>, Error>),
}

impl<S, R> OpenStream<S, R> {
    pub(crate) fn new(client: Client, route: RouteResult) -> Self {
        let interceptors = client.interceptors().streams.clone();
        Self { target: OpenTarget::Method(client, route), options: CallOptions::new(), interceptors }
    }

    /// A stream that no client opens, for fakes of a client in unit tests: it gives this one
    /// (`stream_pair` of the crate `psrpc-testing`), whatever its options and interceptors are.
    pub fn fake(stream: Result<ClientStream<S, R>, Error>) -> Self {
        Self { target: OpenTarget::Fake(stream), options: CallOptions::new(), interceptors: Vec::new() }
    }

    call_options!(
        "Sets how long the opening may take from when it is first polled. Default: that of the client."
    );
    selection_option!();

    /// Puts an interceptor around this stream, within those of the client and those that were added
    /// before.
    pub fn interceptor(mut self, interceptor: impl StreamInterceptor) -> Self {
        self.interceptors.push(Arc::new(interceptor));
        self
    }
}

impl Client {
    /// Opens a stream with `method` on `topic`, on which the client sends `S` and receives `R`.
    ///
    /// Generated clients have a method for each rpc, which is what to call instead.
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
        let Self { target, options, interceptors } = self;
        Box::pin(async move {
            let (client, route): (_, Route) = match target {
                OpenTarget::Method(client, route) => (client, route?),
                OpenTarget::Fake(stream) => return stream,
            };
            let codec = Arc::new(Codec::new::<S, R>(route.clone().into(), Side::Client));
            match open(&client, route, options, &interceptors, &codec).await {
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
    let CallOptions { timeout, deadline, selection, metadata, .. } = opening.options;
    let (selection, choose) = selection.into_parts();
    let open = EngineOpen { timeout, deadline, selection, metadata, ..EngineOpen::new(route) };
    Opening::start(client.clone(), open, choose, Arc::clone(codec))?.opened().await
}
