//! What the examples share: the service and the machine of the quickstart, the `--bus` argument,
//! and what is typed in.

use std::io;
use std::sync::Arc;
use std::thread;

use psrpc::Error;
use psrpc::bus::Bus;
pub use psrpc_quickstart::{Machine, studio};
use tokio::sync::mpsc;

/// The argument that every example has.
#[derive(clap::Args)]
pub struct BusArgument {
    /// The bus, by URL: `local:` is one within this process, `redis://127.0.0.1:6379` and
    /// `nats://127.0.0.1:4222` are servers.
    #[arg(long, global = true, default_value = "local:")]
    bus: String,
}

impl BusArgument {
    /// Connects to the bus.
    ///
    /// # Errors
    ///
    /// When there is no such bus.
    pub async fn connect(&self) -> Result<Arc<dyn Bus>, Error> {
        psrpc_bus_url::connect(&self.bus, psrpc::default_runtime()?).await
    }
}

/// The lines that are typed in, until the input ends (Ctrl-D). A thread reads them, which does not
/// keep a program from ending.
pub fn input() -> mpsc::UnboundedReceiver<String> {
    let (typed, lines) = mpsc::unbounded_channel();
    thread::spawn(move || io::stdin().lines().map_while(Result::ok).try_for_each(|line| typed.send(line)));
    lines
}

/// Waits until the input ends (Ctrl-D).
pub async fn input_ends() {
    let mut input = input();
    while input.recv().await.is_some() {}
}
