//! A pool of workers. A job goes to the worker with the most free slots, no worker accepts more
//! jobs than it has slots, and a worker that stops finishes its accepted jobs.
//!
//! `cargo run --example worker_pool` runs everything in one process. To use Redis or NATS, run each
//! line in its own terminal:
//!
//! ```text
//! cargo run --example worker_pool -- --bus redis://127.0.0.1:6379 work oak --slots 2     # until Ctrl-C
//! cargo run --example worker_pool -- --bus redis://127.0.0.1:6379 work elm
//! cargo run --example worker_pool -- --bus redis://127.0.0.1:6379 submit castle --millis 5000
//! ```

use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, Subcommand};
use psrpc::bus::Bus;
use psrpc::middleware::Retry;
use psrpc::{ClientOptions, Error, ErrorCode, Request, Selection, ServerOptions};
use psrpc_examples::BusArgument;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use workers::{Job, Report, Workers, WorkersClient, WorkersServer};

mod workers {
    psrpc::include_proto!("workers.v1");
}

/// The timeout of a job, including the time to wait for a worker.
const JOB_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Clone)]
struct Worker {
    name: String,
    /// The number of jobs it runs at a time.
    slots: usize,
    /// The number of jobs it is running.
    running: watch::Sender<usize>,
}

impl Workers for Worker {
    async fn work(&self, job: Request<Job>) -> Result<Report, Error> {
        let _running = Running::new(&self.running);
        println!("{} starts {}", self.name, job.name);
        sleep(Duration::from_millis(job.millis.into())).await;
        println!("{} has done {}", self.name, job.name);
        Ok(Report { worker: self.name.clone() })
    }

    // The bid is 1 for an idle worker, and lower with every job.
    fn work_affinity(&self, _: &Request<Job>) -> f32 {
        1.0 - *self.running.borrow() as f32 / self.slots as f32
    }
}

/// A running job, counted until it is dropped. If the caller's deadline passes, the handler's
/// future is dropped, and this with it.
struct Running<'a>(&'a watch::Sender<usize>);

impl<'a> Running<'a> {
    fn new(running: &'a watch::Sender<usize>) -> Self {
        running.send_modify(|jobs| *jobs += 1);
        Self(running)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|jobs| *jobs -= 1);
    }
}

impl Worker {
    fn new(name: &str, slots: usize) -> Self {
        Self { name: name.to_owned(), slots, running: watch::Sender::new(0) }
    }

    async fn start(&self, bus: Arc<dyn Bus>) -> Result<WorkersServer, Error> {
        // A worker without free slots makes no bid.
        let options = ServerOptions::new().concurrency(self.slots);
        let server = WorkersServer::with_options(bus, self.clone(), options).await?;
        println!("{} is ready, slots: {}", self.name, self.slots);
        Ok(server)
    }

    /// Resolves once this many jobs are running.
    async fn wait_for_jobs(&self, jobs: usize) {
        self.running.subscribe().wait_for(|running| *running == jobs).await.expect("self holds the sender");
    }
}

async fn client(bus: Arc<dyn Bus>) -> Result<WorkersClient, Error> {
    // While all workers are busy, no server bids. The job has not run, so the call can be retried.
    let retry = Retry::new()
        .attempts(0)
        .total(JOB_TIMEOUT)
        .backoff(Duration::from_millis(50), Duration::from_millis(400))
        .only_if_not_run();
    let options = ClientOptions::new()
        .timeout(JOB_TIMEOUT)
        .selection_timeout(Duration::from_millis(400))
        .interceptor(retry);
    WorkersClient::with_options(bus, options).await
}

async fn submit(client: WorkersClient, name: String, millis: u32) -> Result<(), Error> {
    // An idle worker gets the job at once. Otherwise the client waits briefly for better bids.
    let idle = Selection::new().maximum_affinity(1.0);
    let report = client.work(Job { name: name.clone(), millis }).selection(idle).await?;
    println!("{name} was done by {}", report.worker);
    Ok(())
}

/// Runs the workers and a client in one process.
async fn run_all(bus: Arc<dyn Bus>) -> Result<(), Error> {
    let client = client(bus.clone()).await?;
    let mut jobs = JoinSet::new();
    let mut submit = |name: &str, millis| jobs.spawn(submit(client.clone(), name.to_owned(), millis));

    let oak = Worker::new("oak", 2);
    let oak_server = oak.start(bus.clone()).await?;
    submit("job 1", 2000);
    oak.wait_for_jobs(1).await;

    let elm = Worker::new("elm", 1);
    let elm_server = elm.start(bus).await?;
    println!("elm is idle: job 2 goes to elm");
    submit("job 2", 500);
    elm.wait_for_jobs(1).await;

    println!("elm is busy: job 3 goes to oak");
    submit("job 3", 1500);
    oak.wait_for_jobs(2).await;

    println!("all workers are busy: job 4 waits");
    submit("job 4", 100);

    println!("oak is shutting down");
    oak_server.shutdown().await;
    println!("oak has finished its accepted jobs");

    jobs.join_all().await.into_iter().collect::<Result<(), Error>>()?;
    elm_server.shutdown().await;
    println!("every job is done");
    Ok(())
}

/// A pool of workers. Runs everything in one process without a subcommand.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    bus: BusArgument,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Runs a worker until Ctrl-C.
    Work {
        /// Name of the worker.
        name: String,
        /// Number of jobs to run at a time.
        #[arg(long, default_value_t = 1)]
        slots: usize,
    },
    /// Submits a job and waits for it.
    Submit {
        /// Name of the job.
        job: String,
        /// Duration of the job in milliseconds.
        #[arg(long, default_value_t = 1000)]
        millis: u32,
    },
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let Arguments { bus, command } = Arguments::parse();
    let bus = bus.connect().await?;
    match command {
        None => run_all(bus).await,
        Some(Command::Work { name, slots }) => {
            let server = Worker::new(&name, slots).start(bus).await?;
            tokio::signal::ctrl_c().await.map_err(|error| Error::from_source(ErrorCode::Internal, error))?;
            println!("{name} is shutting down");
            server.shutdown().await;
            println!("{name} has finished its accepted jobs");
            Ok(())
        }
        Some(Command::Submit { job, millis }) => submit(client(bus).await?, job, millis).await,
    }
}
