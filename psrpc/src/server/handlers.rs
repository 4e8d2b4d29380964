//! The handlers of a server to be.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use prost::Message;

use crate::error::Error;
use crate::method::{Method, Service};
use crate::request::Request;
use crate::server::handler::{Affinity, MethodHandler, StreamHandler, Unary};
use crate::stream::ServerStream;

/// The handlers of a server to be, one for each method, on a service of type `S` that they share.
pub struct Handlers<S> {
    pub(super) description: &'static Service,
    service: Arc<S>,
    pub(super) handlers: BTreeMap<&'static str, Box<dyn MethodHandler>>,
}

impl<S> fmt::Debug for Handlers<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { description, handlers, .. } = self;
        let methods: Vec<_> = handlers.keys().collect();
        f.debug_struct("Handlers").field("service", &description.name).field("methods", &methods).finish()
    }
}

impl<S: Send + Sync + 'static> Handlers<S> {
    /// No handlers yet.
    pub fn new(description: &'static Service, service: S) -> Self {
        Self { description, service: Arc::new(service), handlers: BTreeMap::new() }
    }

    /// Handles a method that is called, by one server or all. The handler's future is dropped at
    /// the request's deadline; a panic in it fails its call alone, with `internal`.
    #[must_use]
    pub fn unary<Req, Res, F, Fut>(self, method: &'static Method, handler: F) -> Self
    where
        Req: Message + Default + 'static,
        Res: Message + 'static,
        F: Fn(Arc<S>, Request<Req>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Res, Error>> + Send + 'static,
    {
        self.add(method, handler, None)
    }

    /// Handles a unary method, with a function that says how well this server suits a request: more
    /// is better, 0 is not available, below 0 makes no bid, and so does a panic. It runs on the
    /// server's background task, which it must not block. A method that requires no claim does
    /// not ask it.
    #[must_use]
    pub fn unary_with_affinity<Req, Res, F, Fut>(
        self,
        method: &'static Method,
        handler: F,
        affinity: impl Fn(&S, &Request<Req>) -> f32 + Send + Sync + 'static,
    ) -> Self
    where
        Req: Message + Default + 'static,
        Res: Message + 'static,
        F: Fn(Arc<S>, Request<Req>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Res, Error>> + Send + 'static,
    {
        let service = Arc::clone(&self.service);
        self.add(method, handler, Some(Box::new(move |request| affinity(&service, request))))
    }

    /// Handles a method that opens streams, on which the server sends `Send` and receives `Recv`.
    /// The stream ends when the handler returns: with its error, or else plainly
    /// ([`ServerStream`]). The handler's future is dropped when the server is killed, and
    /// one second after a shutdown began; a panic in it ends its stream alone, with `internal`.
    #[must_use]
    pub fn stream<Send, Recv, F, Fut>(self, method: &'static Method, handler: F) -> Self
    where
        Send: Message + 'static,
        Recv: Message + Default + 'static,
        F: Fn(Arc<S>, ServerStream<Send, Recv>) -> Fut + std::marker::Send + Sync + 'static,
        Fut: Future<Output = Result<(), Error>> + std::marker::Send + 'static,
    {
        self.add_stream(method, handler, None)
    }

    /// Handles a method that opens streams, with a function that says how well this server suits
    /// one, as [`unary_with_affinity`](Self::unary_with_affinity) does.
    #[must_use]
    pub fn stream_with_affinity<Send, Recv, F, Fut>(
        self,
        method: &'static Method,
        handler: F,
        affinity: impl Fn(&S, &Request<()>) -> f32 + std::marker::Send + Sync + 'static,
    ) -> Self
    where
        Send: Message + 'static,
        Recv: Message + Default + 'static,
        F: Fn(Arc<S>, ServerStream<Send, Recv>) -> Fut + std::marker::Send + Sync + 'static,
        Fut: Future<Output = Result<(), Error>> + std::marker::Send + 'static,
    {
        let service = Arc::clone(&self.service);
        self.add_stream(method, handler, Some(Box::new(move |request| affinity(&service, request))))
    }

    fn add_stream<Send, Recv, F, Fut>(
        mut self,
        method: &'static Method,
        handler: F,
        affinity: Option<Affinity<()>>,
    ) -> Self
    where
        Send: Message + 'static,
        Recv: Message + Default + 'static,
        F: Fn(Arc<S>, ServerStream<Send, Recv>) -> Fut + std::marker::Send + Sync + 'static,
        Fut: Future<Output = Result<(), Error>> + std::marker::Send + 'static,
    {
        let service = Arc::clone(&self.service);
        let handler = Arc::new(move |stream| handler(Arc::clone(&service), stream));
        let messages = std::marker::PhantomData;
        let handler = StreamHandler { handler, affinity, interceptors: None, messages };
        self.handlers.insert(method.name, Box::new(handler));
        self
    }

    fn add<Req, Res, F, Fut>(
        mut self,
        method: &'static Method,
        handler: F,
        affinity: Option<Affinity<Req>>,
    ) -> Self
    where
        Req: Message + Default + 'static,
        Res: Message + 'static,
        F: Fn(Arc<S>, Request<Req>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Res, Error>> + Send + 'static,
    {
        let service = Arc::clone(&self.service);
        let handler = Arc::new(move |request| handler(Arc::clone(&service), request));
        self.handlers.insert(method.name, Box::new(Unary { handler, affinity, interceptors: None }));
        self
    }
}
