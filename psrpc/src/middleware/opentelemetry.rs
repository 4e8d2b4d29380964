//! OpenTelemetry: spans for calls, handlers and streams, joined into one trace by the metadata.

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

/// The name of our tracer.
const TRACER: &str = "psrpc";

/// The attribute with the code of the error that a call ended with.
const STATUS_CODE: &str = "rpc.psrpc.status_code";

/// Traces calls, handlers and streams: an interceptor of each kind, for clients and for servers.
/// Unary calls and handlers are traced as Go's middleware does it, which knows no others.
///
/// A call is a span `Sent.Service.Method` of the kind client, a handler a span
/// `Recv.Service.Method` of the kind server. The context travels in the metadata; with the W3C
/// propagator its names there are `traceparent` and `tracestate`. The handler runs with its span as
/// the current context. A span that ends with an error has its code as the attribute
/// `rpc.psrpc.status_code`.
///
/// The span of a multi call ends with its answers; errors of single servers are not its own. A
/// stream has a span of either kind on its sides, from its opening to its end, which is an error
/// unless it was closed plainly; nothing runs with it as the current context.
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
/// With the feature `opentelemetry`.
#[derive(Clone, Default)]
pub struct OpenTelemetry {
    tracer: Option<Arc<BoxedTracer>>,
    propagator: Option<Arc<dyn TextMapPropagator + Send + Sync>>,
}

impl OpenTelemetry {
    /// With the global tracer provider and the global propagator, whatever these are when a call is
    /// made. Until a program sets them, there are neither spans nor metadata.
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

    /// Starts the span of a client, and puts its context into the metadata.
    fn send(&self, info: &CallInfo, metadata: &mut Metadata) -> Context {
        let context = self.start("Sent", SpanKind::Client, info, Context::current());
        self.propagate(|propagator| propagator.inject_context(&context, &mut Carrier(metadata)));
        context
    }

    /// Starts the span of a server, in the context that the metadata holds.
    fn receive(&self, info: &CallInfo, metadata: &Metadata) -> Context {
        let parent = self.propagate(|propagator| propagator.extract(&Carried(metadata)));
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

/// The span of a multi call, which ends when its answers are dropped.
struct MultiSpan(Context);

impl MultiSpan {
    /// An error came, which is the call's own unless it is a server's.
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

/// The span of a stream. Of one whose opening is dropped it ends when the last of its context is.
struct StreamSpan(Context);

impl InterceptedStream for StreamSpan {
    fn closed(&self, cause: &Error) {
        if !cause.is_stream_closed() {
            failed(&self.0, cause);
        }
        self.0.span().end();
    }
}

/// Runs a future with a context, whose span ends with it.
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
