//! A pool of workers: a job goes to the worker with the most room, none gets more than it can do,
//! and one that is told to stop finishes what it has accepted.
//!
//! `cargo run --example worker_pool` plays it through in one process. Over Redis or NATS, each line
//! in a terminal of its own:
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

/// How long a job may take, with all the waiting for a worker.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone)]
struct Worker {
    name: String,
    /// How many jobs it does at a time.
    slots: usize,
    /// How many it is at.
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

    // The bid: 1 for a worker with nothing to do, less with every job.
    fn work_affinity(&self, _: &Request<Job>) -> f32 {
        1.0 - *self.running.borrow() as f32 / self.slots as f32
    }
}

/// A job that is being done. It counts until it is dropped, which also happens when its caller's
/// deadline has passed: the handler's future is dropped then, wherever it is.
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
        // A worker that is at all it can do makes no bid.
        let options = ServerOptions::new().concurrency(self.slots);
        let server = WorkersServer::with_options(bus, self.clone(), options).await?;
        println!("{} is here, for {} at a time", self.name, self.slots);
        Ok(server)
    }

    /// Resolves when this many jobs are being done.
    async fn is_at(&self, jobs: usize) {
        self.running.subscribe().wait_for(|running| *running == jobs).await.expect("we have the sender");
    }
}

async fn client(bus: Arc<dyn Bus>) -> Result<WorkersClient, Error> {
    // While every worker is at all it can do, nobody bids. Such a job runs nowhere, so that it can
    // be offered again.
    let retry = Retry::new()
        .attempts(0)
        .total(PATIENCE)
        .backoff(Duration::from_millis(50), Duration::from_millis(400))
        .only_if_not_run();
    let options = ClientOptions::new()
        .timeout(PATIENCE)
        .selection_timeout(Duration::from_millis(400))
        .interceptor(retry);
    WorkersClient::with_options(bus, options).await
}

async fn submit(client: WorkersClient, name: String, millis: u32) -> Result<(), Error> {
    // A worker with nothing to do gets the job at once. Otherwise the client waits a little for
    // better bids.
    let idle = Selection::new().maximum_affinity(1.0);
    let report = client.work(Job { name: name.clone(), millis }).selection(idle).await?;
    println!("{name} was done by {}", report.worker);
    Ok(())
}

/// Plays it through in one process.
async fn play(bus: Arc<dyn Bus>) -> Result<(), Error> {
    let client = client(bus.clone()).await?;
    let mut jobs = JoinSet::new();
    let mut submit = |name: &str, millis| jobs.spawn(submit(client.clone(), name.to_owned(), millis));

    let oak = Worker::new("oak", 2);
    let oak_server = oak.start(bus.clone()).await?;
    submit("job 1", 2000);
    oak.is_at(1).await;

    let elm = Worker::new("elm", 1);
    let elm_server = elm.start(bus).await?;
    println!("oak has room and elm is idle: job 2 is for elm");
    submit("job 2", 500);
    elm.is_at(1).await;

    println!("elm is at all it can do: job 3 is for oak");
    submit("job 3", 1500);
    oak.is_at(2).await;

    println!("nobody has room: job 4 waits for somebody");
    submit("job 4", 100);

    println!("oak is told to stop");
    oak_server.shutdown().await;
    println!("oak has finished what it had accepted, and goes");

    jobs.join_all().await.into_iter().collect::<Result<(), Error>>()?;
    elm_server.shutdown().await;
    println!("every job is done");
    Ok(())
}

/// A pool of workers, played through in one process unless it is told which part to be.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    bus: BusArgument,
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Subcommand)]
enum Part {
    /// A worker, until Ctrl-C.
    Work {
        /// What it is called.
        name: String,
        /// How many jobs it does at a time.
        #[arg(long, default_value_t = 1)]
        slots: usize,
    },
    /// Has a job done.
    Submit {
        /// What it is called.
        job: String,
        /// How long it takes.
        #[arg(long, default_value_t = 1000)]
        millis: u32,
    },
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let Arguments { bus, part } = Arguments::parse();
    let bus = bus.connect().await?;
    match part {
        None => play(bus).await,
        Some(Part::Work { name, slots }) => {
            let server = Worker::new(&name, slots).start(bus).await?;
            tokio::signal::ctrl_c().await.map_err(|error| Error::from_source(ErrorCode::Internal, error))?;
            println!("{name} stops");
            server.shutdown().await;
            println!("{name} has finished what it had accepted, and goes");
            Ok(())
        }
        Some(Part::Submit { job, millis }) => submit(client(bus).await?, job, millis).await,
    }
}
