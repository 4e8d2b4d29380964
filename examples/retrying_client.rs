//! A client with retries, metadata, error details, and OpenTelemetry traces on the console.
//!
//! `cargo run --example retrying_client --features opentelemetry` runs everything in one process.
//! To use Redis or NATS, run each line in its own terminal, with `RUN` replaced by that command:
//!
//! ```text
//! RUN -- --bus nats://127.0.0.1:4222 serve      # until Ctrl-D; fails twice, then succeeds
//! RUN -- --bus nats://127.0.0.1:4222 ask OAK
//! RUN -- --bus nats://127.0.0.1:4222 ask ELM
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use clap::{Parser, Subcommand};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use psrpc::bus::Bus;
use psrpc::middleware::{OpenTelemetry, Retry};
use psrpc::{ClientOptions, Error, ErrorCode, NextCall, OutgoingCall, Request, ServerOptions};
use psrpc_examples::{BusArgument, wait_for_eof};

use exchange::{DidYouMean, Exchange, ExchangeClient, ExchangeServer, Price, Share};

mod exchange {
    psrpc::include_proto!("exchange.v1");
}

/// An exchange that fails twice before it responds.
#[derive(Default)]
struct Flaky {
    calls: AtomicU32,
}

impl Exchange for Flaky {
    async fn quote(&self, share: Request<Share>) -> Result<Price, Error> {
        let trader = share.metadata().get("trader").map_or("an unknown trader", |name| name.as_str());
        println!("the exchange: {trader} requests {}", share.symbol);
        if self.calls.fetch_add(1, Ordering::Relaxed) < 2 {
            return Err(Error::new(ErrorCode::Unavailable, "the exchange is restarting"));
        }
        match share.symbol.as_str() {
            "OAK" => Ok(Price { cents: 1234 }),
            symbol => Err(Error::new(ErrorCode::NotFound, format!("no share {symbol}"))
                // Any message can be attached to an error.
                .with_detail(&DidYouMean { symbol: "OAK".to_owned() })),
        }
    }
}

/// Prints traces to the console, each span when it ends. Production code would export them in
/// batches to a collector.
fn tracing() -> OpenTelemetry {
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(opentelemetry_stdout::SpanExporter::default())
        .build();
    OpenTelemetry::new().tracer_provider(&provider).propagator(TraceContextPropagator::new())
}

async fn serve(bus: Arc<dyn Bus>, tracing: OpenTelemetry) -> Result<ExchangeServer, Error> {
    let options = ServerOptions::new().interceptor(tracing);
    let server = ExchangeServer::with_options(bus, Flaky::default(), options).await?;
    println!("the exchange is open");
    Ok(server)
}

async fn client(bus: Arc<dyn Bus>, tracing: OpenTelemetry) -> Result<ExchangeClient, Error> {
    let retry = Retry::new().attempts(5).backoff(Duration::from_millis(50), Duration::from_secs(1));
    // An interceptor can be a function. This one prints failed attempts.
    let print_failures = |call: OutgoingCall, next: NextCall| async move {
        let result = next.run(call).await;
        if let Err(error) = &result {
            println!("attempt failed: {error}");
        }
        result
    };
    // The first interceptor is the outermost: a call is one trace with all of its attempts. Those
    // after the retry run for each attempt.
    let options = ClientOptions::new().interceptor(tracing).interceptor(retry).interceptor(print_failures);
    ExchangeClient::with_options(bus, options).await
}

async fn ask(client: &ExchangeClient, symbol: &str) -> Result<(), Error> {
    match client.quote(Share { symbol: symbol.to_owned() }).metadata("trader", "ann").await {
        Ok(price) => println!("{symbol} costs {} cents", price.cents),
        // The retry skips errors that a second attempt would not fix.
        Err(error) => match error.detail::<DidYouMean>() {
            Some(Ok(hint)) => println!("{}; did you mean {}?", error.text(), hint.symbol),
            _ => return Err(error),
        },
    }
    Ok(())
}

/// Runs a server and a client in one process.
async fn run_all(bus: Arc<dyn Bus>) -> Result<(), Error> {
    let tracing = tracing();
    let server = serve(bus.clone(), tracing.clone()).await?;
    let client = client(bus, tracing).await?;
    ask(&client, "OAK").await?;
    ask(&client, "ELM").await?;
    server.shutdown().await;
    println!("the exchange is closed");
    Ok(())
}

/// A client that retries. Runs everything in one process without a subcommand.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    bus: BusArgument,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the exchange until stdin ends.
    Serve,
    /// Requests the price of a share.
    Ask { symbol: String },
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let Arguments { bus, command } = Arguments::parse();
    let bus = bus.connect().await?;
    match command {
        None => run_all(bus).await,
        Some(Command::Serve) => {
            let server = serve(bus, tracing()).await?;
            wait_for_eof().await;
            server.shutdown().await;
            println!("the exchange is closed");
            Ok(())
        }
        Some(Command::Ask { symbol }) => ask(&client(bus, tracing()).await?, &symbol).await,
    }
}
