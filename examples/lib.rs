//! Shared code of the examples: the service of the quickstart, the `--bus` argument, and reading
//! stdin.

use std::io;
use std::sync::Arc;
use std::thread;

use psrpc::Error;
use psrpc::bus::Bus;
pub use psrpc_quickstart::{Machine, studio};
use tokio::sync::mpsc;

/// The `--bus` argument.
#[derive(clap::Args)]
pub struct BusArgument {
    /// URL of the bus: `local:` for an in-process bus, `redis://127.0.0.1:6379` or
    /// `nats://127.0.0.1:4222` for a server.
    #[arg(long, global = true, default_value = "local:")]
    bus: String,
}

impl BusArgument {
    /// Connects to the bus.
    ///
    /// # Errors
    ///
    /// Returns an error if the bus cannot be reached.
    pub async fn connect(&self) -> Result<Arc<dyn Bus>, Error> {
        psrpc_bus_url::connect(&self.bus, psrpc::default_runtime()?).await
    }
}

/// Returns the lines of stdin until it ends (Ctrl-D). They are read on a thread that does not keep
/// the process alive.
pub fn stdin_lines() -> mpsc::UnboundedReceiver<String> {
    let (typed, lines) = mpsc::unbounded_channel();
    thread::spawn(move || io::stdin().lines().map_while(Result::ok).try_for_each(|line| typed.send(line)));
    lines
}

/// Waits until stdin ends (Ctrl-D).
pub async fn wait_for_eof() {
    let mut lines = stdin_lines();
    while lines.recv().await.is_some() {}
}
