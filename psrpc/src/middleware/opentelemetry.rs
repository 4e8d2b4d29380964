//! OpenTelemetry: spans for calls and handlers, joined into one trace by the metadata.

use std::fmt;
use std::sync::Arc;

use ::opentelemetry::global::{self, BoxedTracer};
use ::opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use ::opentelemetry::trace::{FutureExt, Span, SpanKind, Status, TraceContextExt, Tracer, TracerProvider};
use ::opentelemetry::{Context, KeyValue};
use psrpc_engine::proto::{Metadata, Text};

use crate::runtime::BoxFuture;
use crate::{
    AnyMessage, CallInfo, CallInterceptor, Error, HandlerInterceptor, NextCall, NextHandler, Outgoing,
    Request,
};

/// The name of our tracer.
const TRACER: &str = "psrpc";

/// The attribute with the code of the error that a call ended with.
const STATUS_CODE: &str = "rpc.psrpc.status_code";

/// Traces unary calls and handlers, as Go's middleware does: an interceptor for clients and for servers.
///
/// A call is a span `Sent.Service.Method` of the kind client, a handler a span `Recv.Service.Method` of the kind server. The
/// context travels in the metadata; with the W3C propagator its names there are `traceparent` and `tracestate`. The handler runs
/// with its span as the current context. A span that ends with an error has its code as the attribute `rpc.psrpc.status_code`.
///
/// ```
/// use psrpc::middleware::OpenTelemetry;
/// use psrpc::{ClientOptions, ServerOptions};
///
/// let client = ClientOptions::new().interceptor(OpenTelemetry::new());
/// let server = ServerOptions::new().interceptor(OpenTelemetry::new());
/// ```
///
/// With the feature `opentelemetry`.
#[derive(Clone, Default)]
pub struct OpenTelemetry {
    tracer: Option<Arc<BoxedTracer>>,
    propagator: Option<Arc<dyn TextMapPropagator + Send + Sync>>,
}

impl OpenTelemetry {
    /// With the global tracer provider and the global propagator, whatever these are when a call is made. Until a program sets
    /// them, there are neither spans nor metadata.
    pub fn new() -> Self {
        Self::default()
    }

    /// With the tracer of this provider.
    #[must_use]
    pub fn tracer_provider<P>(mut self, provider: &P) -> Self
    where
        P: TracerProvider<Tracer: Tracer<Span: Span + Send + Sync + 'static> + Send + Sync + 'static>,
    {
        self.tracer = Some(Arc::new(BoxedTracer::new(Box::new(provider.tracer(TRACER)))));
        self
    }

    /// With this propagator.
    #[must_use]
    pub fn propagator(mut self, propagator: impl TextMapPropagator + Send + Sync + 'static) -> Self {
        self.propagator = Some(Arc::new(propagator));
        self
    }

    /// A context with a new span in `parent`.
    fn start(&self, direction: &str, kind: SpanKind, info: &CallInfo, parent: Context) -> Context {
        let start = |tracer: &BoxedTracer| {
            let name = format!("{direction}.{}.{}", info.service(), info.method());
            tracer.span_builder(name).with_kind(kind).start_with_context(tracer, &parent)
        };
        let span = match &self.tracer {
            Some(tracer) => start(tracer),
            None => start(&global::tracer(TRACER)),
        };
        parent.with_span(span)
    }

    fn propagate<T>(&self, mut run: impl FnMut(&dyn TextMapPropagator) -> T) -> T {
        match &self.propagator {
            Some(propagator) => run(&**propagator),
            None => global::get_text_map_propagator(run),
        }
    }
}

impl fmt::Debug for OpenTelemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenTelemetry").finish_non_exhaustive()
    }
}

impl CallInterceptor for OpenTelemetry {
    fn call(&self, mut call: Outgoing, next: NextCall) -> BoxFuture<Result<AnyMessage, Error>> {
        let context = self.start("Sent", SpanKind::Client, call.info(), Context::current());
        let metadata = &mut call.options.metadata;
        self.propagate(|propagator| propagator.inject_context(&context, &mut Carrier(metadata)));
        Box::pin(traced(context, async move { next.run(call).await }))
    }
}

impl HandlerInterceptor for OpenTelemetry {
    fn handle(
        &self,
        request: Request<AnyMessage>,
        next: NextHandler,
    ) -> BoxFuture<Result<AnyMessage, Error>> {
        let metadata = request.metadata();
        let parent = self.propagate(|propagator| propagator.extract(&Carried(metadata)));
        let context = self.start("Recv", SpanKind::Server, &request.info(), parent);
        Box::pin(traced(context, async move { next.run(request).await }))
    }
}

/// Runs a future with a context, whose span ends with it.
async fn traced(
    context: Context,
    run: impl Future<Output = Result<AnyMessage, Error>>,
) -> Result<AnyMessage, Error> {
    let result = run.with_context(context.clone()).await;
    if let Err(error) = &result {
        let span = context.span();
        span.set_attribute(KeyValue::new(STATUS_CODE, error.code().to_string()));
        span.set_status(Status::error(error.text().to_owned()));
    }
    context.span().end();
    result
}

/// Metadata that a context is put into.
struct Carrier<'a>(&'a mut Metadata);

impl Injector for Carrier<'_> {
    fn set(&mut self, name: &str, value: String) {
        // Go leaves an empty `tracestate` out.
        if !value.is_empty() {
            self.0.insert(name, value);
        }
    }
}

/// Metadata that a context is taken from.
struct Carried<'a>(&'a Metadata);

impl Extractor for Carried<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(Text::as_str)
    }

    fn keys(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| name.as_str()).collect()
    }
}
