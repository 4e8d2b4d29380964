//! What the examples share: the service of the first ones, as generated from `proto/studio.proto`, a machine that serves it, the
//! `--bus` argument, and what is typed in.

use std::io;
use std::sync::Arc;
use std::thread;

use psrpc::bus::Bus;
use psrpc::{Error, ErrorCode, Request, ServerStream};
use tokio::sync::mpsc;

use crate::studio::{Picture, Presence, Preview, Scene, Size, Stroke, Studio};

/// The service of the first examples.
#[allow(missing_docs, reason = "documented in proto/studio.proto")]
pub mod studio {
    psrpc::include_proto!("studio.v1");
}

/// One of the machines that serve the studio.
pub struct Machine {
    /// What it is called.
    pub name: String,
    /// How idle it is, from 0 to 1.
    pub idle: f32,
}

impl Studio for Machine {
    async fn render(&self, scene: Request<Scene>) -> Result<Picture, Error> {
        if scene.triangles == 0 {
            return Err(Error::new(ErrorCode::InvalidArgument, format!("scene {:?} is empty", scene.name)));
        }
        Ok(Picture { machine: self.name.clone() })
    }

    // The more idle a machine is, the better it suits.
    fn render_affinity(&self, _: &Request<Scene>) -> f32 {
        self.idle
    }

    async fn estimate(&self, scene: Request<Scene>) -> Result<Size, Error> {
        Ok(Size { bytes: scene.triangles * 3 })
    }

    async fn roll_call(&self, _: Request<()>) -> Result<Presence, Error> {
        Ok(Presence { machine: self.name.clone() })
    }

    // The stream ends when this returns, and when the client closes or drops it.
    async fn sketch(&self, stream: ServerStream<Preview, Stroke>) -> Result<(), Error> {
        let mut strokes = Vec::new();
        while let Some(stroke) = stream.next().await {
            strokes.push(stroke.adds);
            stream.send(Preview { shows: strokes.join(" and ") }).await?;
        }
        Ok(())
    }
}

/// The argument that every example has.
#[derive(clap::Args)]
pub struct BusArgument {
    /// The bus, by URL: `local:` is one within this process, `redis://127.0.0.1:6379` and `nats://127.0.0.1:4222` are servers.
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

/// The lines that are typed in, until the input ends (Ctrl-D). A thread reads them, which does not keep a program from ending.
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
