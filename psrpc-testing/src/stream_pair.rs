//! The two ends of a stream, for unit tests of code that uses one of them.

use std::future::{Future, poll_fn, ready};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use prost::Message;
use psrpc::bus::Lock;
use psrpc::{
    Client, ClientOptions, ClientStream, Error, Handlers, Method, MethodProperties, Routing, Runtime, Server,
    ServerOptions, ServerStream, Service,
};
use psrpc_bus_local::LocalBus;

const PROPERTIES: MethodProperties = MethodProperties { routing: Routing::Queue, require_claim: false };
static SERVICE: Service = Service { name: "Fake", methods: &[Method::stream(0, "Stream", PROPERTIES)] };

/// Returns the two connected ends of a stream.
///
/// It is a real stream over its own in-process bus. Its client and server run on `runtime` and live
/// as long as the ends.
///
/// # Errors
///
/// Returns `unavailable` if the runtime has shut down.
///
/// ```
/// # use psrpc::{Error, OpenStream, Runtime};
/// # async fn example(runtime: impl Runtime) -> Result<(), Error> {
/// let (client, server) = psrpc_testing::stream_pair::<String, u64>(runtime).await?;
/// let opening = OpenStream::fake(Ok(client)); // what a mock client returns
///
/// let stream = opening.await?;
/// stream.send("how many hats?".to_owned()).await?;
/// assert_eq!(server.next().await.unwrap(), "how many hats?");
/// server.send(7).await?;
/// assert_eq!(stream.next().await, Some(7));
/// # Ok(())
/// # }
/// ```
pub async fn stream_pair<S, R>(
    runtime: impl Runtime,
) -> Result<(ClientStream<S, R>, ServerStream<R, S>), Error>
where
    S: Message + Default + 'static,
    R: Message + Default + 'static,
{
    let (bus, runtime): (_, Arc<dyn Runtime>) = (LocalBus::new(), Arc::new(runtime));
    let method = &SERVICE.methods[0];
    let served = Arc::new(Handover::new());
    let handover = Arc::clone(&served);
    let handlers = Handlers::new(&SERVICE, ()).stream(method, move |_, stream: ServerStream<R, S>| {
        stream.hijack();
        handover.put(stream);
        ready(Ok(()))
    });
    let server = Server::new(bus.clone(), Arc::clone(&runtime), handlers, ServerOptions::new())?;
    server.register(&[method], &[]).await?;
    // The stream keeps its client alive, and the observer of the client keeps the server alive.
    let options = ClientOptions::new().observer(move |_| _ = &server);
    let client = Client::new(bus, runtime, &SERVICE, options).await?;
    let opened = client.open_stream(method, &[]).await?;
    let served = {
        let mut ended = pin!(opened.closed());
        // The stream ends early if the runtime shuts down before the handler starts.
        let poll = |cx: &mut Context<'_>| match served.poll(cx) {
            Poll::Ready(stream) => Poll::Ready(Ok(stream)),
            Poll::Pending => ended.as_mut().poll(cx).map(Err),
        };
        poll_fn(poll).await?
    };
    Ok((opened, served))
}

/// Passes the server's end of the stream from the handler to the caller.
struct Handover<S, R>(Lock<HandoverState<S, R>>);

struct HandoverState<S, R> {
    stream: Option<ServerStream<S, R>>,
    waker: Option<Waker>,
}

impl<S, R> Handover<S, R> {
    fn new() -> Self {
        Self(Lock::new(HandoverState { stream: None, waker: None }))
    }

    fn put(&self, stream: ServerStream<S, R>) {
        let mut handover = self.0.lock();
        handover.stream = Some(stream);
        let waker = handover.waker.take();
        drop(handover);
        waker.into_iter().for_each(Waker::wake);
    }

    fn poll(&self, cx: &Context<'_>) -> Poll<ServerStream<S, R>> {
        let mut handover = self.0.lock();
        match handover.stream.take() {
            Some(stream) => Poll::Ready(stream),
            None => {
                let replaced = handover.waker.replace(cx.waker().clone());
                drop(handover);
                drop(replaced);
                Poll::Pending
            }
        }
    }
}
