//! One case: a fault, on a set-up, on a runtime.

use std::fmt;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use psrpc::bus::Bus;
use psrpc_simulation::judge::services::ledger::{Ledger, Totals};
use psrpc_simulation::judge::services::run_context::RunContext;

use crate::fault::Fault;
use crate::fleet::crew::Crew;
use crate::fleet::{CLIENTS, Fleet, SERVERS};
use crate::real_run::RealRun;
use crate::runtime::{Executor, RuntimeName};
use crate::setup::SetUp;
use crate::stage::{PASSWORD, Stage};
use crate::{memory, panics};

/// The limit for each step of a case that does not depend on the fault, such as the start.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a case waits after the fault until the service is back.
const LONGEST_RECOVERY: Duration = Duration::from_secs(15);

/// The limit for the peak memory of the process of a case, in MB.
const MOST_MEMORY: u64 = 256;

/// A case.
#[derive(Clone, Copy)]
pub struct Case {
    /// The fault.
    pub fault: &'static Fault,
    /// The servers.
    pub set_up: SetUp,
    /// The runtime of all clients and servers.
    pub runtime: RuntimeName,
}

/// The measurements of a case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// The calls.
    pub totals: Totals,
    /// How long after the end of the fault everything worked again.
    pub recovery: Duration,
    /// The longest delay of any timer of the runtime.
    pub longest_stall: Duration,
    /// The peak memory of the process, in MB. Zero on systems other than Linux.
    pub memory: u64,
}

/// Changes a bus before a client or server uses it, given the number of the bus.
pub type Wrap = dyn Fn(usize, Arc<dyn Bus>) -> Arc<dyn Bus> + Send + Sync;

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {} with {}", self.fault.name, self.set_up.as_str(), self.runtime.as_str())
    }
}

impl Case {
    /// Runs the case in this process. Returns its measurements, and an error if a check failed.
    pub fn run(&self) -> (Measured, Result<(), String>) {
        self.run_with(self.runtime.start(), |_, bus| bus)
    }

    /// Runs the case on an executor, with buses that `wrap` has changed.
    pub fn run_with(
        &self,
        executor: Executor,
        wrap: impl Fn(usize, Arc<dyn Bus>) -> Arc<dyn Bus> + Send + Sync + 'static,
    ) -> (Measured, Result<(), String>) {
        panics::record();
        let mut stage = Stage::start(self.set_up, self.fault.proxied);
        let run = RealRun::new(executor.runtime());
        let ledger = Ledger::new(run.clone());
        let crew = Crew::new(executor.runtime(), ledger.clone());
        let mut measured = Measured::default();
        let checked = start_fleet(&stage, &executor, &crew, Arc::new(wrap)).and_then(|fleet| {
            let conductor = Conductor { case: self, executor: &executor, run: &run, crew: &crew };
            conductor.conduct(&mut stage, fleet, &mut measured)
        });
        // If the case failed, the users are still running.
        crew.stop();
        measured.totals = ledger.totals();
        measured.longest_stall = run.longest_stall();
        measured.memory = memory::peak();
        (measured, checked.map_err(|problem| explain(problem, &ledger)))
    }
}

/// Appends the first violation and the overdue calls to the description of a problem.
fn explain(problem: String, ledger: &Ledger) -> String {
    let violation = ledger.violation().map(|violation| violation.to_string());
    let overdue = ledger.overdue();
    let more = violation.into_iter().chain(overdue).filter(|more| !problem.contains(more.as_str()));
    more.fold(problem.clone(), |text, more| format!("{text}\n{more}"))
}

fn start_fleet(stage: &Stage, executor: &Executor, crew: &Crew, wrap: Arc<Wrap>) -> Result<Fleet, String> {
    let mut buses = Vec::new();
    for number in 0..CLIENTS + SERVERS {
        let bus = executor.wait("connecting", PATIENCE, stage.connect(number, executor.runtime()))?;
        buses.push(wrap(number, bus.map_err(|error| format!("connecting: {error}"))?));
    }
    let fleet = executor.wait("starting", PATIENCE, Fleet::start(buses, crew.clone()))?;
    fleet.map_err(|error| format!("starting: {error}"))
}

/// Leads a fleet through a case.
struct Conductor<'a> {
    case: &'a Case,
    executor: &'a Executor,
    run: &'a Arc<RealRun>,
    crew: &'a Crew,
}

impl Conductor<'_> {
    fn conduct(&self, stage: &mut Stage, fleet: Fleet, measured: &mut Measured) -> Result<(), String> {
        let fault = self.case.fault;
        self.begin_progress(&fleet);
        self.crew.progress.wait(PATIENCE).map_err(|missing| missed("in the beginning", &missing))?;
        self.check_calm(&fleet, "before the fault")?;
        fleet.logs().iter().for_each(|(_, log)| log.clear());

        (fault.begin)(stage);
        thread::sleep(fault.hold);
        (fault.end)(stage);
        stage.wait_until_back();

        let back = self.run.now();
        self.begin_progress(&fleet);
        fleet.recover();
        let recovered = self.crew.progress.wait(LONGEST_RECOVERY);
        let (recovery, last) = recovered.map_err(|missing| missed("after the fault", &missing))?;
        measured.recovery = recovery;
        let limit = fault.recovery + self.run.stalled_since(back);
        if recovery > limit {
            return Err(format!(
                "the service was back after {recovery:?}, not within {limit:?}: {last} was last"
            ));
        }
        (fault.mend)(stage);
        self.check_calm(&fleet, "after the fault")?;
        self.finish(fleet)
    }

    fn begin_progress(&self, fleet: &Fleet) {
        self.crew.progress.begin(self.run.now(), fleet.goals());
    }

    fn check_calm(&self, fleet: &Fleet, when: &str) -> Result<(), String> {
        self.executor.wait(&format!("fresh calls {when}"), 2 * PATIENCE, fleet.check_calm())?;
        self.check_ledger()
    }

    /// Ends the fleet and performs the final checks.
    fn finish(&self, fleet: Fleet) -> Result<(), String> {
        self.crew.stop();
        let hung = |names: Vec<String>| format!("hung for {PATIENCE:?}: {}", names.join(", "));
        self.crew.tasks.wait(PATIENCE).map_err(hung)?;
        let logs = fleet.logs().to_vec();
        self.executor.wait("the shutdown", PATIENCE, fleet.end())?;
        self.crew.listeners.wait(PATIENCE).map_err(hung)?;
        self.crew.ledger.check_streams();
        let fault = self.case.fault;
        let may_lose = |server: usize, published, next| {
            fault.loses_between_servers || logs[server].1.may_lose(published, next)
        };
        self.crew.ledger.judge(self.crew.updates.check(may_lose));
        self.check_ledger()?;
        fault.sight.check(&logs)?;
        let leaks = |cause: &String| cause.contains(PASSWORD);
        if let Some(cause) = logs.iter().flat_map(|(_, log)| log.causes()).find(leaks) {
            return Err(format!("an event shows the password: {cause}"));
        }
        self.run.check_blocks()?;
        if let Some((name, _)) = logs.iter().find(|(_, log)| log.causes().iter().any(String::is_empty)) {
            return Err(format!("an event of the bus of {name} has no cause"));
        }
        if let Some(panic) = panics::first() {
            return Err(format!("panicked: {panic}"));
        }
        match memory::peak() {
            peak if peak > MOST_MEMORY => Err(format!("used {peak} MB, more than {MOST_MEMORY} MB")),
            _ => Ok(()),
        }
    }

    fn check_ledger(&self) -> Result<(), String> {
        self.crew.ledger.violation().map_or(Ok(()), |violation| Err(violation.to_string()))
    }
}

fn missed(when: &str, missing: &[String]) -> String {
    format!("{when}, these did not succeed in time: {}", missing.join(", "))
}
