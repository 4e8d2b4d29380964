//! `soak`: a steady load for a long time, on buses whose servers are killed every minute.

use std::time::Duration;

use clap::value_parser;
use serde_json::{Value, json};
use tokio::task::{JoinSet, spawn_blocking};

use crate::load::{Load, Pace};
use crate::measure::{Tally, ratio, resident};
use crate::place::{BusArgument, Place};
use crate::work::{Work, World};
use crate::{BenchError, runtime};

/// The kinds of work, in equal parts.
const MIX: [Work; 5] = [Work::Queue, Work::Affinity, Work::Single, Work::Stream, Work::Subscription];

/// The number of workers for each kind of work on a bus.
const WORKERS: usize = 4;

const SIZE: usize = 64;

/// The time after a restart in which errors are counted separately: calls in flight end within 3 s,
/// and connections are restored within a second.
const RECOVERY: Duration = Duration::from_secs(10);

const CALM: Duration = Duration::from_secs(50);

/// The tolerated growth of memory, as a fraction and in MiB. The larger of the two applies.
const GROWTH: (f64, f64) = (0.10, 8.0);

/// Run a steady load of calls, stream messages and updates. Kills and restarts the bus's server at
/// the start of every minute except the first. Prints a line for each bus every minute: the
/// latencies and errors after the first 10 s, the number of errors in these 10 s, and the resident
/// memory. At the end, compares the last third with the first third, leaving out the first minute.
/// Fails if memory grew by more than 10 % and 8 MiB.
#[derive(clap::Args)]
pub(crate) struct Soak {
    /// Duration in minutes.
    #[arg(long, value_parser = value_parser!(u32).range(1..=100_000))]
    minutes: u32,
    /// Bus: redis, nats, local, or the URL of a running server. For redis and nats, a server is
    /// started; a server given by its URL is not restarted. Repeat for several. Default: redis and
    /// nats.
    #[arg(long)]
    bus: Vec<BusArgument>,
    /// Operations per second on each bus.
    #[arg(long, default_value_t = 500, value_parser = value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Print a JSON summary in the last line.
    #[arg(long)]
    json: bool,
}

/// The figures of a minute on one bus. Only numbers, so that they do not add to the measured
/// memory.
struct Minute {
    minute: u32,
    bus: &'static str,
    resident_mib: f64,
    calls: u64,
    p50_us: f64,
    p99_us: f64,
    errors: u64,
    /// The errors around the restart.
    recovery_errors: u64,
}

impl Soak {
    /// Runs the load. Returns `true` if the memory has not grown by more than [`GROWTH`].
    pub(crate) fn run(&self) -> Result<bool, BenchError> {
        let own = [BusArgument::Redis, BusArgument::Nats];
        let argument = if self.bus.is_empty() { &own[..] } else { &self.bus };
        let places = argument.iter().map(Place::open).collect::<Result<Vec<_>, _>>()?;
        runtime(2)?.block_on(self.run_on(places))
    }

    async fn run_on(&self, mut places: Vec<Place>) -> Result<bool, BenchError> {
        let buses: Vec<_> = places.iter().map(Place::name).collect();
        let mut loads = Vec::new();
        for (bus, place) in places.iter().enumerate() {
            let world = World::new(place, &MIX).await?;
            for work in MIX {
                loads.push((bus, world.load(work, WORKERS, SIZE).await?));
            }
        }
        let pace = Pace::Every(Duration::from_secs(1) * (MIX.len() * WORKERS) as u32 / self.rate);
        println!("minute bus     calls   p50 us   p99 us errors | errors around the restart | resident MiB");
        let mut minutes = Vec::new();
        for minute in 1..=self.minutes {
            let restarting = spawn_blocking(move || {
                if minute > 1 {
                    places.iter_mut().for_each(Place::restart);
                }
                places
            });
            let recovery = slice(&mut loads, buses.len(), RECOVERY, pace).await?;
            places = restarting.await?;
            let calm = slice(&mut loads, buses.len(), CALM, pace).await?;
            let resident_mib = resident().ok_or("this system does not report the resident memory")?;
            for ((place, calm), recovery) in places.iter().zip(calm).zip(recovery) {
                let one = Minute {
                    minute,
                    bus: place.name(),
                    resident_mib,
                    calls: calm.count(),
                    p50_us: calm.percentile(50.0),
                    p99_us: calm.percentile(99.0),
                    errors: calm.errors(),
                    recovery_errors: recovery.errors(),
                };
                println!("{}", one.line());
                if let Some(error) = calm.error() {
                    eprintln!("{} in minute {minute}: {error}", one.bus);
                }
                minutes.push(one);
            }
        }
        Ok(self.sum_up(&minutes, &buses))
    }

    fn sum_up(&self, minutes: &[Minute], buses: &[&'static str]) -> bool {
        let memory = Drift::of(minutes.iter().step_by(buses.len()).map(|minute| minute.resident_mib));
        let grown = memory.last - memory.first;
        let passed = grown <= GROWTH.1 || grown <= memory.first * GROWTH.0;
        println!("resident memory: {:.1} MiB, then {:.1} MiB", memory.first, memory.last);
        let mut latencies = Vec::new();
        for (index, bus) in buses.iter().enumerate() {
            let medians = minutes.iter().skip(index).step_by(buses.len()).map(|one| one.p50_us);
            let drift = Drift::of(medians);
            println!("{bus} p50: {:.1} us, then {:.1} us", drift.first, drift.last);
            latencies.push(drift.json(bus));
        }
        if !passed {
            println!("FAILED: the memory has grown by {grown:.1} MiB");
        }
        if self.json {
            let json = json!({
                "minutes": minutes.iter().map(Minute::json).collect::<Vec<_>>(),
                "resident_mib": memory.json("process"),
                "p50_us": latencies,
                "passed": passed,
            });
            println!("{json}");
        }
        passed
    }
}

type Loads = Vec<(usize, Box<dyn Load>)>;

/// Runs all loads at once. Returns a tally for each bus.
async fn slice(
    loads: &mut Loads,
    buses: usize,
    length: Duration,
    pace: Pace,
) -> Result<Vec<Tally>, BenchError> {
    let mut running = JoinSet::new();
    for (bus, mut load) in loads.drain(..) {
        running.spawn(async move {
            let mut tally = Tally::new();
            load.slice(length, pace, &mut tally).await?;
            Ok::<_, BenchError>((bus, load, tally))
        });
    }
    let mut tallies: Vec<_> = (0..buses).map(|_| Tally::new()).collect();
    while let Some(ended) = running.join_next().await {
        let (bus, load, tally) = ended??;
        tallies[bus].add(tally);
        loads.push((bus, load));
    }
    Ok(tallies)
}

impl Minute {
    fn line(&self) -> String {
        let Self { minute, bus, resident_mib, calls, p50_us, p99_us, errors, recovery_errors } = self;
        format!(
            "{minute:>6} {bus:<6} {calls:>6} {p50_us:>8.1} {p99_us:>8.1} {errors:>6} | {recovery_errors:>25} | \
             {resident_mib:>12.1}"
        )
    }

    fn json(&self) -> Value {
        json!({
            "minute": self.minute,
            "bus": self.bus,
            "calls": self.calls,
            "p50_us": self.p50_us,
            "p99_us": self.p99_us,
            "errors": self.errors,
            "errors_around_restart": self.recovery_errors,
            "resident_mib": self.resident_mib,
        })
    }
}

/// The start and end values of a figure.
struct Drift {
    first: f64,
    last: f64,
}

impl Drift {
    /// Computes the means of the first and last third, without the first value.
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let values: Vec<_> = values.collect();
        let steady = if values.len() > 1 { &values[1..] } else { &values };
        let third = steady.len().div_ceil(3);
        let mean = |values: &[f64]| ratio(values.iter().sum(), values.len() as f64);
        Self { first: mean(&steady[..third]), last: mean(&steady[steady.len() - third..]) }
    }

    fn json(&self, of: &str) -> Value {
        json!({ "of": of, "first": self.first, "last": self.last, "ratio": ratio(self.last, self.first) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_third_is_compared_with_the_first_without_the_first_minute() {
        let drift = |values: &[f64]| {
            let Drift { first, last } = Drift::of(values.iter().copied());
            (first, last)
        };
        assert_eq!(drift(&[9.0, 1.0, 3.0, 5.0, 5.0, 6.0, 8.0]), (2.0, 7.0));
        assert_eq!(drift(&[9.0, 1.0]), (1.0, 1.0));
        assert_eq!(drift(&[9.0]), (9.0, 9.0));
    }
}
