//! The service of the quickstart, generated from `proto/studio.proto`, with an implementation and
//! the choice of the bus. The examples `server`, `client` and `simulate` use it as well.

use std::sync::Arc;

use psrpc::bus::Bus;
use psrpc::{Error, ErrorCode, Request, ServerStream};

use crate::studio::{Picture, Presence, Preview, Scene, Size, Stroke, Studio};

/// The generated service.
#[allow(missing_docs, reason = "documented in proto/studio.proto")]
pub mod studio {
    psrpc::include_proto!("studio.v1");
}

/// A machine that serves the studio.
pub struct Machine {
    /// The name of the machine.
    pub name: String,
    /// The idle share of its capacity, from 0 to 1.
    pub idle: f32,
}

impl Studio for Machine {
    async fn render(&self, scene: Request<Scene>) -> Result<Picture, Error> {
        if scene.triangles == 0 {
            return Err(Error::new(ErrorCode::InvalidArgument, format!("scene {:?} is empty", scene.name)));
        }
        Ok(Picture { machine: self.name.clone() })
    }

    // The most idle machine wins.
    fn render_affinity(&self, _: &Request<Scene>) -> f32 {
        self.idle
    }

    async fn estimate(&self, scene: Request<Scene>) -> Result<Size, Error> {
        Ok(Size { bytes: scene.triangles * 3 })
    }

    async fn roll_call(&self, _: Request<()>) -> Result<Presence, Error> {
        Ok(Presence { machine: self.name.clone() })
    }

    // The stream ends when this returns, or when the client closes or drops it.
    async fn sketch(&self, stream: ServerStream<Preview, Stroke>) -> Result<(), Error> {
        let mut strokes = Vec::new();
        while let Some(stroke) = stream.next().await {
            strokes.push(stroke.adds);
            stream.send(Preview { shows: strokes.join(" and ") }).await?;
        }
        Ok(())
    }
}

/// Connects to the bus given by `--bus URL`. Without arguments, creates an in-process bus.
///
/// # Errors
///
/// Returns an error if there are other arguments, or if the bus cannot be reached.
pub async fn bus() -> Result<Arc<dyn Bus>, Error> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [] => connect("local:").await,
        [option, url] if option == "--bus" => connect(url).await,
        _ => Err(Error::new(ErrorCode::InvalidArgument, "usage: quickstart [--bus URL]")),
    }
}

#[cfg(feature = "buses")]
async fn connect(url: &str) -> Result<Arc<dyn Bus>, Error> {
    psrpc_bus_url::connect(url, psrpc::default_runtime()?).await
}

#[cfg(not(feature = "buses"))]
async fn connect(url: &str) -> Result<Arc<dyn Bus>, Error> {
    match psrpc_bus_local::LocalBus::from_url(url) {
        Ok(bus) => Ok(Arc::new(bus)),
        Err(_) => {
            let text = "bus URL: only `local:` is supported; for Redis and NATS, run with `--features buses`";
            Err(Error::new(ErrorCode::InvalidArgument, text))
        }
    }
}
