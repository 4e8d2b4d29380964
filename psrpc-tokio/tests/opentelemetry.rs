//! OpenTelemetry: spans, their parents, and the propagated context.

mod hats;
mod shop;

use hats::{Log, client, error, fit, serve};
use opentelemetry::trace::{
    FutureExt, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId, TraceState,
    Tracer, TracerProvider,
};
use opentelemetry::{Context, global};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use psrpc_bus_local::LocalBus;
use psrpc_tokio::middleware::OpenTelemetry;
use psrpc_tokio::*;

/// Returns an exporter, a middleware that exports to it, and the provider that both need.
fn exported() -> (InMemorySpanExporter, OpenTelemetry, SdkTracerProvider) {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let tracing = OpenTelemetry::new().tracer_provider(&provider).propagator(TraceContextPropagator::new());
    (exporter, tracing, provider)
}

struct TracedCalls {
    provider: SdkTracerProvider,
    exporter: InMemorySpanExporter,
    /// The metadata of the requests.
    metadata: Log,
    client: Client,
    _server: Server,
}

impl TracedCalls {
    async fn new() -> Self {
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
        let tracing =
            OpenTelemetry::new().tracer_provider(&provider).propagator(TraceContextPropagator::new());
        let (bus, metadata) = (LocalBus::new(), Log::default());
        let (recorder, tracer) = (metadata.clone(), provider.tracer("handler"));
        let handler = move |request: Request<String>| {
            for (name, value) in request.metadata().iter() {
                recorder.add(format!("{name}: {value}"));
            }
            let tracer = tracer.clone();
            async move {
                tracer.start("within the handler");
                match request.as_str() {
                    "none" => Err(error(ErrorCode::NotFound)),
                    _ => Ok(request.into_message()),
                }
            }
        };
        let server = serve(&bus, ServerOptions::new().interceptor(tracing.clone()), handler).await;
        let client = client(&bus, ClientOptions::new().interceptor(tracing)).await;
        Self { provider, exporter, metadata, client, _server: server }
    }

    fn span(&self, name: &str) -> SpanData {
        let spans = self.exporter.get_finished_spans().unwrap();
        let named: Vec<_> = spans.into_iter().filter(|span| span.name == name).collect();
        assert_eq!(named.len(), 1, "spans {name}");
        named[0].clone()
    }
}

#[tokio::test(start_paused = true)]
async fn the_spans_of_a_call_are_one_trace() {
    let traced = TracedCalls::new().await;
    let span = traced.provider.tracer("caller").start("caller");
    let caller = Context::current_with_span(span);
    fit(&traced.client, "fez").into_future().with_context(caller.clone()).await.unwrap();
    drop(caller);
    let spans =
        ["caller", "Sent.Hats.Fit", "Recv.Hats.Fit", "within the handler"].map(|name| traced.span(name));
    for pair in spans.windows(2) {
        assert_eq!(pair[1].span_context.trace_id(), pair[0].span_context.trace_id());
        assert_eq!(pair[1].parent_span_id, pair[0].span_context.span_id(), "{}", pair[1].name);
    }
    assert_eq!((&spans[1].span_kind, &spans[2].span_kind), (&SpanKind::Client, &SpanKind::Server));
    assert!(spans[2].parent_span_is_remote);
    assert!(spans.iter().all(|span| span.attributes.is_empty() && span.status == Status::Unset));
}

#[tokio::test(start_paused = true)]
async fn the_metadata_has_the_w3c_names() {
    let traced = TracedCalls::new().await;
    fit(&traced.client, "fez").await.unwrap();
    let sent = traced.span("Sent.Hats.Fit").span_context;
    let parent = format!("traceparent: 00-{}-{}-01", sent.trace_id(), sent.span_id());
    // An empty tracestate is not sent.
    assert_eq!(traced.metadata.take(), [parent]);
    let state = TraceState::from_key_value([("shop", "corner")]).unwrap();
    let (trace, span) = (TraceId::from(7), SpanId::from(8));
    let remote = SpanContext::new(trace, span, TraceFlags::SAMPLED, true, state);
    let caller = Context::new().with_remote_span_context(remote);
    fit(&traced.client, "fez").into_future().with_context(caller).await.unwrap();
    let metadata = traced.metadata.take();
    assert!(metadata[0].starts_with(&format!("traceparent: 00-{trace}-")), "{metadata:?}");
    assert_eq!(metadata[1..], ["tracestate: shop=corner"]);
}

/// As a call within a handler that is made in another task.
#[tokio::test(start_paused = true)]
async fn a_call_without_a_current_span_continues_the_trace_of_its_metadata() {
    let traced = TracedCalls::new().await;
    let (trace, span) = (TraceId::from(7), SpanId::from(8));
    fit(&traced.client, "fez").metadata("traceparent", format!("00-{trace}-{span}-01")).await.unwrap();
    let sent = traced.span("Sent.Hats.Fit");
    assert_eq!((sent.span_context.trace_id(), sent.parent_span_id), (trace, span));
    assert_eq!(traced.span("Recv.Hats.Fit").parent_span_id, sent.span_context.span_id());
}

#[tokio::test(start_paused = true)]
async fn an_error_is_the_status_of_both_spans() {
    let traced = TracedCalls::new().await;
    fit(&traced.client, "none").await.unwrap_err();
    for name in ["Sent.Hats.Fit", "Recv.Hats.Fit"] {
        let span = traced.span(name);
        let attributes: Vec<_> =
            span.attributes.iter().map(|kv| format!("{}={}", kv.key, kv.value)).collect();
        assert_eq!(attributes, ["rpc.psrpc.status_code=not_found"]);
        assert_eq!(span.status, Status::error("no hat"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_without_a_trace_starts_one() {
    let bus = LocalBus::new();
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let tracing = OpenTelemetry::new().tracer_provider(&provider).propagator(TraceContextPropagator::new());
    let _server = serve(&bus, ServerOptions::new().interceptor(tracing), hats::echo).await;
    fit(&client(&bus, ClientOptions::new()).await, "fez").await.unwrap();
    let spans = exporter.get_finished_spans().unwrap();
    assert_eq!((spans.len(), spans[0].parent_span_id), (1, SpanId::INVALID));
}

#[tokio::test(start_paused = true)]
async fn the_global_provider_and_propagator_are_read_at_the_time_of_the_call() {
    let (bus, metadata) = (LocalBus::new(), Log::default());
    let recorder = metadata.clone();
    let _server = serve(&bus, ServerOptions::new(), move |request: Request<String>| {
        recorder.add(request.metadata().len().to_string());
        hats::echo(request)
    })
    .await;
    let client = client(&bus, ClientOptions::new().interceptor(OpenTelemetry::new())).await;
    fit(&client, "fez").await.unwrap();
    assert_eq!(metadata.take(), ["0"]);
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    global::set_tracer_provider(provider);
    global::set_text_map_propagator(TraceContextPropagator::new());
    fit(&client, "fez").await.unwrap();
    assert_eq!(metadata.take(), ["1"]);
    assert_eq!(exporter.get_finished_spans().unwrap()[0].name, "Sent.Hats.Fit");
}

#[tokio::test(start_paused = true)]
async fn a_stream_has_a_span_on_both_sides_from_its_opening_to_its_end() {
    let (exporter, tracing, _provider) = exported();
    let (bus, names) = (LocalBus::new(), Log::default());
    let recorder = names.clone();
    let options = ServerOptions::new().stream_interceptor(tracing.clone());
    let server = shop::server(&bus, "elm", options, move |stream| {
        let log = recorder.clone();
        async move {
            log.add(stream.metadata().iter().map(|(name, _)| name.as_str()).collect::<String>());
            Err(stream.closed().await)
        }
    })
    .await;
    let client = shop::client_with(&bus, ClientOptions::new().stream_interceptor(tracing)).await;
    let stream = shop::parade(&client).await;
    hats::settle().await;
    assert!(exporter.get_finished_spans().unwrap().is_empty());
    assert_eq!(names.take(), ["traceparent"]);
    stream.close(error(ErrorCode::NotFound));
    hats::settle().await;
    let [client_span, server_span] = &exporter.get_finished_spans().unwrap()[..] else { panic!("two spans") };
    assert_eq!((&*client_span.name, &client_span.span_kind), ("Sent.Shop.Parade", &SpanKind::Client));
    assert_eq!((&*server_span.name, &server_span.span_kind), ("Recv.Shop.Parade", &SpanKind::Server));
    assert_eq!(server_span.parent_span_id, client_span.span_context.span_id());
    assert_eq!([&client_span.status, &server_span.status], [&Status::error("no hat"); 2]);
    exporter.reset();
    drop(shop::parade(&client).await);
    hats::settle().await;
    let spans = exporter.get_finished_spans().unwrap();
    assert!(spans.len() == 2 && spans.iter().all(|span| span.status == Status::Unset));
    exporter.reset();
    server.shutdown().await;
    shop::opening(&client).await.unwrap_err();
    let spans = exporter.get_finished_spans().unwrap();
    assert_eq!(spans[0].status, Status::error("no response from servers"));
}

#[tokio::test(start_paused = true)]
async fn the_span_of_a_multi_call_ends_with_its_responses() {
    let (exporter, tracing, _provider) = exported();
    let bus = LocalBus::new();
    let options = ServerOptions::new().interceptor(tracing.clone());
    let _server = shop::server(&bus, "elm", options, shop::echo).await;
    let client = shop::client_with(&bus, ClientOptions::new().multi_interceptor(tracing)).await;
    let mut responses = shop::census(&client, "fail").await.unwrap();
    assert!(responses.next().await.unwrap().is_err());
    assert_eq!(exporter.get_finished_spans().unwrap().len(), 1);
    drop(responses);
    let [server_span, client_span] = &exporter.get_finished_spans().unwrap()[..] else { panic!("two spans") };
    assert_eq!((&*client_span.name, &*server_span.name), ("Sent.Shop.Census", "Recv.Shop.Census"));
    assert_eq!(server_span.parent_span_id, client_span.span_context.span_id());
    assert_eq!((&client_span.status, &server_span.status), (&Status::Unset, &Status::error("out of hats")));
    exporter.reset();
    let responses = shop::census(&client, "who").await.unwrap();
    client.close();
    shop::all(responses).await;
    let spans = exporter.get_finished_spans().unwrap();
    assert_eq!(spans[0].status, Status::error("client is closed"));
}
