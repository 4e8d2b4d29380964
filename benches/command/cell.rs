//! A cell: a kind of work at a concurrency on a bus, measured alternately with its floors.

use std::fmt;
use std::time::Duration;

use crate::BenchError;
use crate::args::{CellSpec, Run};
use crate::floor;
use crate::load::{Load, Pace};
use crate::measure::{Tally, now};
use crate::place::Place;
use crate::work::{self, Work, World};

/// The time slice of each load before the next one's turn.
const TURN: Duration = Duration::from_millis(50);

/// The warm-up of each load, limited to a tenth of the measured time.
const WARM_UP: Duration = Duration::from_millis(200);

pub(crate) struct Cell<'a> {
    /// `None` for the engine, which uses no bus.
    pub(crate) place: Option<&'a Place>,
    pub(crate) work: Work,
    pub(crate) concurrency: usize,
    pub(crate) size: usize,
    pub(crate) threads: usize,
    pub(crate) has_floor: bool,
}

/// The measurements of a cell.
pub(crate) struct Measured {
    pub(crate) bus: &'static str,
    pub(crate) work: &'static str,
    pub(crate) concurrency: usize,
    pub(crate) size: usize,
    pub(crate) threads: usize,
    pub(crate) ours: Tally,
    /// The floor for the latency, if it differs from `floor`.
    pub(crate) quickest: Option<Tally>,
    /// The floor for the CPU time, and for the latency unless `quickest` is set.
    pub(crate) floor: Option<Tally>,
}

impl<'a> Cell<'a> {
    pub(crate) fn of(spec: &CellSpec<'a, Place>, run: &Run) -> Self {
        let CellSpec { bus: place, work, concurrency, threads } = *spec;
        let size = if work == Work::Engine { work::ENGINE_SIZE } else { run.size };
        let has_floor = place.is_some() && !run.no_floor;
        Self { place, work, concurrency, size, threads, has_floor }
    }
}

impl Cell<'_> {
    pub(crate) async fn measure(&self, time: Duration) -> Result<Measured, BenchError> {
        let Cell { work, concurrency, size, threads, .. } = *self;
        let mut loads = Vec::new();
        match self.place {
            Some(place) => {
                loads.push(World::new(place, &[work]).await?.load(work, concurrency, size).await?);
                if self.has_floor {
                    loads.extend(floor::loads(place, work, concurrency, size).await?);
                }
            }
            None => loads.push(work::engine()),
        }
        let mut tallies = in_turns(loads, time, self.place).await?.into_iter();
        let ours = tallies.next().expect("the first load is ours");
        let (floor, quickest) = (tallies.next(), tallies.next());
        let bus = self.place.map_or("none", Place::name);
        Ok(Measured { bus, work: work.name(), concurrency, size, threads, ours, quickest, floor })
    }
}

/// Runs loads in turns, for `time` in total.
async fn in_turns(
    mut loads: Vec<Box<dyn Load>>,
    time: Duration,
    place: Option<&Place>,
) -> Result<Vec<Tally>, BenchError> {
    let warm_up = WARM_UP.min(time / 10);
    for load in &mut loads {
        load.slice(warm_up, Pace::Full, &mut Tally::new()).await?;
    }
    let mut tallies: Vec<_> = loads.iter().map(|_| Tally::new()).collect();
    let end = now() + time;
    let turn = TURN.min(time / (2 * loads.len() as u32));
    while now() < end {
        for (load, tally) in loads.iter_mut().zip(&mut tallies) {
            let server_cpu = || place.and_then(Place::server_cpu);
            let before = server_cpu();
            load.slice(turn, Pace::Full, tally).await?;
            if let (Some(before), Some(after)) = (before, server_cpu()) {
                tally.record_server_cpu(after - before);
            }
        }
    }
    Ok(tallies)
}

impl fmt::Display for Cell<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, work, concurrency, threads, .. } = self;
        let bus = place.map_or("none", Place::name);
        write!(f, "{bus} {} c={concurrency} threads={threads}", work.name())
    }
}
