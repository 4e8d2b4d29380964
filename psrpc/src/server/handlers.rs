//! The handlers from which a server is created.

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

/// The handlers of a server, one for each method, with a shared service value of type `S`.
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
    /// Returns an empty set of handlers.
    pub fn new(description: &'static Service, service: S) -> Self {
        Self { description, service: Arc::new(service), handlers: BTreeMap::new() }
    }

    /// Adds a handler of a unary or multi method. The handler's future is dropped at the deadline
    /// of the request. A panic in it fails only its own call, with `internal`.
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

    /// Adds a handler of a unary method, and a function that returns the affinity of this server
    /// for a request. A higher affinity is better. Below 0 the server does not bid. A bid of 0 is
    /// selected only by a call that takes the first bid, as calls of queue-routed methods do by
    /// default, or by a selection function.
    ///
    /// The affinity function runs on the server's background task, and must not block. A panic in
    /// it counts as no bid. It is not called for a method that requires no claim.
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

    /// Adds a handler of a method that opens streams, on which the server sends `Send` and receives
    /// `Recv`. The stream ends when the handler returns, with its error if it returns one
    /// ([`ServerStream`]).
    ///
    /// The handler's future is dropped when the server is killed, and one second after a shutdown
    /// begins. A panic in it ends only its own stream, with `internal`.
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

    /// Adds a handler of a method that opens streams, and a function that returns the affinity of
    /// this server for a stream, as in [`unary_with_affinity`](Self::unary_with_affinity).
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
