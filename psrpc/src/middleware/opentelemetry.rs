//! OpenTelemetry tracing of calls, handlers and streams. The trace context travels in the metadata.

use std::fmt;
use std::sync::Arc;

use ::opentelemetry::global::{self, BoxedTracer};
use ::opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use ::opentelemetry::trace::{FutureExt, Span, SpanKind, Status, TraceContextExt, Tracer, TracerProvider};
use ::opentelemetry::{Context, KeyValue};
use psrpc_engine::proto::{Metadata, Text};

use crate::error::Error;
use crate::info::{CallInfo, Side};
use crate::interceptor::{
    CallInterceptor, HandlerInterceptor, InterceptedStream, MultiCallInterceptor, NextCall, NextHandler,
    NextMultiCall, OpeningStream, OutgoingCall, StreamInterceptor,
};
use crate::message::AnyMessage;
use crate::request::Request;
use crate::responses::Responses;
use crate::runtime::BoxFuture;

/// The name of the tracer.
const TRACER: &str = "psrpc";

/// The attribute that holds the error code of a failed call.
const STATUS_CODE: &str = "rpc.psrpc.status_code";

/// An interceptor that traces calls, handlers and streams with OpenTelemetry, for clients and
/// servers. The spans of unary calls and handlers are those of Go's middleware, which does not
/// trace the other kinds.
///
/// A call has a client span named `Sent.Service.Method`, and a handler a server span named
/// `Recv.Service.Method`. The context travels in the metadata; the W3C propagator uses the names
/// `traceparent` and `tracestate`. A handler runs with its span as the current context. A span that
/// ends with an error has the code in the attribute `rpc.psrpc.status_code`.
///
/// The span of a multi call ends with its responses, and does not record errors of single servers.
/// A stream has a client span and a server span, which last from the opening to the end. Unless the
/// stream was closed without an error, they record its error. Nothing runs with them as the current
/// context.
///
/// ```
/// use psrpc::middleware::OpenTelemetry;
/// use psrpc::{ClientOptions, ServerOptions};
///
/// let tracing = OpenTelemetry::new();
/// let client = ClientOptions::new()
///     .interceptor(tracing.clone())
///     .multi_interceptor(tracing.clone())
///     .stream_interceptor(tracing.clone());
/// let server = ServerOptions::new().interceptor(tracing.clone()).stream_interceptor(tracing);
/// ```
///
/// Requires the feature `opentelemetry`.
#[derive(Clone, Default)]
pub struct OpenTelemetry {
    tracer: Option<Arc<BoxedTracer>>,
    propagator: Option<Arc<dyn TextMapPropagator + Send + Sync>>,
}

impl OpenTelemetry {
    /// Returns an interceptor that uses the global tracer provider and propagator, looked up for
    /// each call. It does nothing until the program sets them.
    pub fn new() -> Self {
        Self::default()
    }

    /// Uses the tracer of this provider.
    #[must_use]
    pub fn tracer_provider<P>(mut self, provider: &P) -> Self
    where
        P: TracerProvider<Tracer: Tracer<Span: Span + Send + Sync + 'static> + Send + Sync + 'static>,
    {
        self.tracer = Some(Arc::new(BoxedTracer::new(Box::new(provider.tracer(TRACER)))));
        self
    }

    /// Uses this propagator.
    #[must_use]
    pub fn propagator(mut self, propagator: impl TextMapPropagator + Send + Sync + 'static) -> Self {
        self.propagator = Some(Arc::new(propagator));
        self
    }

    /// Returns a context with a new span whose parent is `parent`.
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

    /// Starts a client span, and injects its context into the metadata.
    fn send(&self, info: &CallInfo, metadata: &mut Metadata) -> Context {
        let current = Context::current();
        // Without a current span, a call within a handler has the context of the request in its
        // metadata.
        let parent = match current.has_active_span() {
            true => current,
            false => self.propagate(|propagator| propagator.extract(&MetadataExtractor(metadata))),
        };
        let context = self.start("Sent", SpanKind::Client, info, parent);
        self.propagate(|propagator| propagator.inject_context(&context, &mut MetadataInjector(metadata)));
        context
    }

    /// Starts a server span in the context extracted from the metadata.
    fn receive(&self, info: &CallInfo, metadata: &Metadata) -> Context {
        let parent = self.propagate(|propagator| propagator.extract(&MetadataExtractor(metadata)));
        self.start("Recv", SpanKind::Server, info, parent)
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
    fn call(&self, mut call: OutgoingCall, next: NextCall) -> BoxFuture<Result<AnyMessage, Error>> {
        let info = call.info().clone();
        let context = self.send(&info, &mut call.options.metadata);
        Box::pin(traced(context, async move { next.run(call).await }))
    }
}

impl HandlerInterceptor for OpenTelemetry {
    fn handle(
        &self,
        request: Request<AnyMessage>,
        next: NextHandler,
    ) -> BoxFuture<Result<AnyMessage, Error>> {
        let context = self.receive(&request.info(), request.metadata());
        Box::pin(traced(context, async move { next.run(request).await }))
    }
}

impl MultiCallInterceptor for OpenTelemetry {
    fn call(
        &self,
        mut call: OutgoingCall,
        next: NextMultiCall,
    ) -> BoxFuture<Result<Responses<AnyMessage>, Error>> {
        let info = call.info().clone();
        let span = MultiSpan(self.send(&info, &mut call.options.metadata));
        Box::pin(async move {
            match next.run(call).with_context(span.0.clone()).await {
                Ok(responses) => {
                    Ok(responses
                        .map_responses(move |response| response.inspect_err(|error| span.failed(error))))
                }
                Err(error) => {
                    span.failed(&error);
                    Err(error)
                }
            }
        })
    }
}

/// The span of a multi call. Dropping it with the responses ends the span.
struct MultiSpan(Context);

impl MultiSpan {
    /// Records an error of the call, but not one of a server.
    fn failed(&self, error: &Error) {
        if error.server_id().is_none() {
            failed(&self.0, error);
        }
    }
}

impl Drop for MultiSpan {
    fn drop(&mut self) {
        self.0.span().end();
    }
}

impl StreamInterceptor for OpenTelemetry {
    fn open(&self, opening: &mut OpeningStream) -> Result<Box<dyn InterceptedStream>, Error> {
        let info = opening.info().clone();
        Ok(Box::new(StreamSpan(match opening.side() {
            Side::Client => self.send(&info, &mut opening.options.metadata),
            Side::Server => self.receive(&info, &opening.options.metadata),
        })))
    }
}

/// The span of a stream. If the opening is dropped, the span ends with its last reference.
struct StreamSpan(Context);

impl InterceptedStream for StreamSpan {
    fn closed(&self, cause: &Error) {
        if !cause.is_stream_closed() {
            failed(&self.0, cause);
        }
        self.0.span().end();
    }
}

/// Runs a future with a context, and ends its span afterwards.
async fn traced(
    context: Context,
    run: impl Future<Output = Result<AnyMessage, Error>>,
) -> Result<AnyMessage, Error> {
    let result = run.with_context(context.clone()).await;
    if let Err(error) = &result {
        failed(&context, error);
    }
    context.span().end();
    result
}

fn failed(context: &Context, error: &Error) {
    let span = context.span();
    span.set_attribute(KeyValue::new(STATUS_CODE, error.code().to_string()));
    span.set_status(Status::error(error.text().to_owned()));
}

/// Metadata to inject a context into.
struct MetadataInjector<'a>(&'a mut Metadata);

impl Injector for MetadataInjector<'_> {
    fn set(&mut self, name: &str, value: String) {
        // Go omits an empty `tracestate`.
        if !value.is_empty() {
            self.0.insert(name, value);
        }
    }
}

/// Metadata to extract a context from.
struct MetadataExtractor<'a>(&'a Metadata);

impl Extractor for MetadataExtractor<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(Text::as_str)
    }

    fn keys(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| name.as_str()).collect()
    }
}
