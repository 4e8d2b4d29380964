//! `compress`: what the compression of large messages does to the calls beside them.

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

/// How many small calls are under way at a time.
const CALLS: usize = 8;
/// The message of a small call, in bytes.
const SMALL: usize = 64;
/// Frames from this size on are compressed, if any are: so the small ones never are.
const THRESHOLD: usize = 1024 * 1024;
/// How long the calls run before they count, in each measurement.
const WARM_UP: Duration = Duration::from_millis(200);

/// See what the compression of large messages does to the calls beside them: small claimed calls
/// over Redis, on two worker threads, while one call after the other carries a large message there
/// and back on the same buses. Each round measures the small calls with compression and without,
/// and the ratio of their p99 is told.
#[derive(clap::Args)]
pub(crate) struct Compress {
    /// Bytes of a large message.
    #[arg(long, default_value_t = 4 * 1024 * 1024)]
    size: usize,
    /// How many rounds.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// How long each measurement takes, in seconds; there are two in a round.
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    /// Sum up as JSON in the last line.
    #[arg(long)]
    json: bool,
}

/// What one measurement found.
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
            // In turns, so that what else the machine does hits both alike.
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
        let median = ratios.get(ratios.len() / 2).copied().ok_or("there were no rounds")?;
        println!("p99 of small calls beside compression, to that without: {median:.2}x (median)");
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

/// Makes small calls, one after the other, and returns how long they took, in nanoseconds.
async fn call(client: Client, duration: Duration) -> Result<Histogram<u64>, BenchError> {
    let mut latencies = Histogram::new(3)?;
    let (begun, message) = (now(), message(SMALL));
    while begun.elapsed() < WARM_UP + duration {
        let started = now();
        let _: Bytes = client.call(Work::Queue.method(), &[], message.clone()).await?;
        if begun.elapsed() >= WARM_UP {
            latencies.record(started.elapsed().as_nanos() as u64)?;
        }
    }
    Ok(latencies)
}

/// Carries a large message there and back, again and again, and returns how often.
async fn carry(client: Client, message: Bytes, stop: Arc<AtomicBool>) -> Result<usize, BenchError> {
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        let _: Bytes = client.call(Work::Single.method(), &[], message.clone()).await?;
        count += 1;
    }
    Ok(count)
}

/// A message that takes as long to compress as text does: letters at random.
fn message(size: usize) -> Bytes {
    let letter = |number: u32| b'a' + (number.wrapping_mul(2_654_435_761) >> 27) as u8 % 26;
    (0..size as u32).map(letter).collect()
}
