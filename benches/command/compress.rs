//! `compress`: how the compression of large messages affects concurrent small calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hdrhistogram::Histogram;
use psrpc::bus::Bus;
use psrpc::proto::Compression;
use psrpc::{Client, ClientOptions};
use psrpc_bus_redis::{RedisBus, RedisOptions};
use psrpc_servers::Server;
use serde_json::json;
use tokio::task::JoinSet;

use crate::measure::now;
use crate::work::{SERVICE, Work, server};
use crate::{BenchError, runtime};

/// The number of concurrent small calls.
const CALLS: usize = 8;
/// The payload size of a small call, in bytes.
const SMALL: usize = 64;
/// The size from which frames are compressed, if compression is on. Small calls are never
/// compressed.
const THRESHOLD: usize = 1024 * 1024;
/// The warm-up of each measurement.
const WARM_UP: Duration = Duration::from_millis(200);

/// Measure how the compression of large messages affects concurrent small calls. Small claimed
/// calls run over Redis, on two worker threads, while a sequence of calls on the same buses carries
/// a large message both ways. Each round measures the small calls with and without compression, and
/// prints the ratio of their p99.
#[derive(clap::Args)]
pub(crate) struct Compress {
    /// Size of a large message in bytes.
    #[arg(long, default_value_t = 4 * 1024 * 1024)]
    size: usize,
    /// Number of rounds.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Seconds for each measurement. A round has two.
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    /// Print a JSON summary in the last line.
    #[arg(long)]
    json: bool,
}

/// The figures of one measurement.
struct Found {
    calls: usize,
    p99_us: f64,
    large: usize,
}

impl Compress {
    pub(crate) fn run(&self) -> Result<bool, BenchError> {
        let redis = Server::redis(&[]);
        let mut ratios = Vec::new();
        println!("round | plain: calls  p99 us  large | compressed: calls  p99 us  large | ratio of p99");
        for round in 0..self.rounds {
            // The order alternates, so that other load on the machine affects both alike.
            let order = if round % 2 == 0 { [false, true] } else { [true, false] };
            let mut found = [None, None];
            for compressed in order {
                found[usize::from(compressed)] = Some(self.measure(&redis, compressed)?);
            }
            let [Some(plain), Some(compressed)] = found else { unreachable!("both were measured") };
            let ratio = compressed.p99_us / plain.p99_us;
            println!(
                "{round:>5} | {:>12} {:>7.0} {:>6} | {:>17} {:>7.0} {:>6} | {ratio:>6.2}x",
                plain.calls, plain.p99_us, plain.large, compressed.calls, compressed.p99_us, compressed.large
            );
            ratios.push(ratio);
        }
        ratios.sort_by(f64::total_cmp);
        let median = ratios.get(ratios.len() / 2).copied().ok_or("no rounds")?;
        println!(
            "p99 of small calls: {median:.2}x with compression, compared to without (median of the rounds)"
        );
        if self.json {
            println!("{}", json!({ "p99_ratio": median, "ratios": ratios }));
        }
        Ok(true)
    }

    fn measure(&self, redis: &Server, compressed: bool) -> Result<Found, BenchError> {
        let runtime = runtime(2)?;
        let found = runtime.block_on(self.calls(redis, compressed));
        runtime.shutdown_background();
        found
    }

    async fn calls(&self, redis: &Server, compressed: bool) -> Result<Found, BenchError> {
        let connect = async || {
            let mut options = RedisOptions::new();
            if compressed {
                options = options.compression(Compression { threshold: THRESHOLD });
            }
            RedisBus::connect_with(&redis.url(), psrpc_tokio::default_runtime()?, options)
                .await
                .map_err(BenchError::from)
        };
        let server = server(connect().await?)?;
        server.register(&[Work::Queue.method(), Work::Single.method()], &[]).await?;
        let bus: Arc<dyn Bus> = Arc::new(connect().await?);
        let runtime = psrpc_tokio::default_runtime()?;
        let client = Client::new(bus, runtime, &SERVICE, ClientOptions::new()).await?;
        let stop = Arc::new(AtomicBool::new(false));
        let large = tokio::spawn(carry(client.clone(), message(self.size), Arc::clone(&stop)));
        let mut small = JoinSet::new();
        for _ in 0..CALLS {
            small.spawn(call(client.clone(), Duration::from_secs(self.seconds)));
        }
        let mut all = Histogram::<u64>::new(3)?;
        while let Some(latencies) = small.join_next().await {
            all.add(latencies??)?;
        }
        stop.store(true, Ordering::Relaxed);
        let large = large.await??;
        let p99_us = all.value_at_quantile(0.99) as f64 / 1000.0;
        Ok(Found { calls: all.len() as usize, p99_us, large })
    }
}

/// Makes small calls, one after the other, and returns their durations in nanoseconds.
async fn call(client: Client, duration: Duration) -> Result<Histogram<u64>, BenchError> {
    let mut latencies = Histogram::new(3)?;
    let (started_at, message) = (now(), message(SMALL));
    while started_at.elapsed() < WARM_UP + duration {
        let started = now();
        let _: Bytes = client.call(Work::Queue.method(), &[], message.clone()).await?;
        if started_at.elapsed() >= WARM_UP {
            latencies.record(started.elapsed().as_nanos() as u64)?;
        }
    }
    Ok(latencies)
}

/// Repeats calls with a large message, and returns their number.
async fn carry(client: Client, message: Bytes, stop: Arc<AtomicBool>) -> Result<usize, BenchError> {
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        let _: Bytes = client.call(Work::Single.method(), &[], message.clone()).await?;
        count += 1;
    }
    Ok(count)
}

/// Returns a message of random letters, which takes as long to compress as text.
fn message(size: usize) -> Bytes {
    let letter = |number: u32| b'a' + (number.wrapping_mul(2_654_435_761) >> 27) as u8 % 26;
    (0..size as u32).map(letter).collect()
}
