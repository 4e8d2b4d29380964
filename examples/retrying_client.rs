//! A client that tries again, the metadata that it sends along, the details of an error, and
//! OpenTelemetry on the console.
//!
//! `cargo run --example retrying_client --features opentelemetry` plays it through in one process.
//! Over Redis or NATS, each line in a terminal of its own, here with `RUN` for that command:
//!
//! ```text
//! RUN -- --bus nats://127.0.0.1:4222 serve      # until Ctrl-D; fails twice, then answers
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
use psrpc_examples::{BusArgument, input_ends};

use exchange::{DidYouMean, Exchange, ExchangeClient, ExchangeServer, Price, Share};

mod exchange {
    psrpc::include_proto!("exchange.v1");
}

/// An exchange that fails twice before it answers.
#[derive(Default)]
struct Flaky {
    calls: AtomicU32,
}

impl Exchange for Flaky {
    async fn quote(&self, share: Request<Share>) -> Result<Price, Error> {
        let trader = share.metadata().get("trader").map_or("somebody", |name| name.as_str());
        println!("the exchange is asked by {trader} for {}", share.symbol);
        if self.calls.fetch_add(1, Ordering::Relaxed) < 2 {
            return Err(Error::new(ErrorCode::Unavailable, "the exchange is being restarted"));
        }
        match share.symbol.as_str() {
            "OAK" => Ok(Price { cents: 1234 }),
            symbol => Err(Error::new(ErrorCode::NotFound, format!("there is no share {symbol}"))
                // Any message can go along with an error.
                .with_detail(&DidYouMean { symbol: "OAK".to_owned() })),
        }
    }
}

/// Traces go to the console, each span when it ends. A real program exports them in batches to a
/// collector.
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
    // An interceptor can be a function: this one sees every attempt.
    let tell = |call: OutgoingCall, next: NextCall| async move {
        let result = next.run(call).await;
        if let Err(error) = &result {
            println!("an attempt has failed: {error}");
        }
        result
    };
    // The first is the outermost. So a call is one trace, whatever its attempts are; before each
    // attempt comes what follows the retry.
    let options = ClientOptions::new().interceptor(tracing).interceptor(retry).interceptor(tell);
    ExchangeClient::with_options(bus, options).await
}

async fn ask(client: &ExchangeClient, symbol: &str) -> Result<(), Error> {
    match client.quote(Share { symbol: symbol.to_owned() }).metadata("trader", "ann").await {
        Ok(price) => println!("{symbol} costs {} cents", price.cents),
        // What is wrong about the request will be so the next time; it was not tried again.
        Err(error) => match error.detail::<DidYouMean>() {
            Some(Ok(hint)) => println!("{}; did you mean {}?", error.text(), hint.symbol),
            _ => return Err(error),
        },
    }
    Ok(())
}

/// Plays it through in one process.
async fn play(bus: Arc<dyn Bus>) -> Result<(), Error> {
    let tracing = tracing();
    let server = serve(bus.clone(), tracing.clone()).await?;
    let client = client(bus, tracing).await?;
    ask(&client, "OAK").await?;
    ask(&client, "ELM").await?;
    server.shutdown().await;
    println!("the exchange is closed");
    Ok(())
}

/// A client that tries again, played through in one process unless it is told which part to be.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    bus: BusArgument,
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Subcommand)]
enum Part {
    /// The exchange, until its input ends.
    Serve,
    /// Asks for the price of a share.
    Ask { symbol: String },
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let Arguments { bus, part } = Arguments::parse();
    let bus = bus.connect().await?;
    match part {
        None => play(bus).await,
        Some(Part::Serve) => {
            let server = serve(bus, tracing()).await?;
            input_ends().await;
            server.shutdown().await;
            println!("the exchange is closed");
            Ok(())
        }
        Some(Part::Ask { symbol }) => ask(&client(bus, tracing()).await?, &symbol).await,
    }
}
