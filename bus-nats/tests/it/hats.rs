//! A service for tests of whole clients and servers.

use std::sync::Arc;

use psrpc_bus_nats::NatsBus;
use psrpc_tokio::*;
use tokio::sync::Semaphore;

use crate::runtime;

const CLAIMED: MethodProperties = MethodProperties { routing: Routing::Queue, require_claim: true };
const MULTI: MethodProperties = MethodProperties { routing: Routing::Multi, require_claim: false };

static HATS: Service = Service {
    name: "Hats",
    methods: &[
        Method::call(0, "Fit", CLAIMED),
        Method::call(1, "Census", MULTI),
        Method::stream(2, "Parade", CLAIMED),
        Method::subscription(3, "Rumour", MULTI).messages("", "hats.Rumour"),
    ],
};
pub static FIT: &Method = &HATS.methods[0];
pub static CENSUS: &Method = &HATS.methods[1];
pub static PARADE: &Method = &HATS.methods[2];
pub static RUMOUR: &Method = &HATS.methods[3];

/// Holds up the responses to `slow`.
pub struct Gate {
    /// A permit for each request that has reached the gate.
    pub reached: Semaphore,
    /// A permit for each request that may pass.
    pub open: Semaphore,
}

impl Default for Gate {
    fn default() -> Self {
        Self { reached: Semaphore::new(0), open: Semaphore::new(0) }
    }
}

pub fn large() -> String {
    "x".repeat(8192)
}

/// Returns the request as the response. The response to `large` is [`large`]; the response to
/// `slow` waits for the gate.
async fn respond(gate: &Gate, request: Request<String>) -> Result<String, Error> {
    match request.as_str() {
        "large" => return Ok(large()),
        "slow" => {
            gate.reached.add_permits(1);
            gate.open.acquire().await.unwrap().forget();
        }
        _ => {}
    }
    Ok(request.into_message())
}

/// Creates a server that responds to requests and stream messages with their own text, or with
/// [`large`] on request.
pub async fn server(url: &str, id: &str, gate: Arc<Gate>) -> Server {
    let census = Arc::clone(&gate);
    let handlers = Handlers::new(&HATS, ())
        .unary(FIT, move |_, request| {
            let gate = Arc::clone(&gate);
            async move { respond(&gate, request).await }
        })
        .unary(CENSUS, move |_, request| {
            let gate = Arc::clone(&census);
            async move { respond(&gate, request).await }
        })
        .stream(PARADE, |_, stream: ServerStream<String, String>| async move {
            while let Some(message) = stream.next().await {
                let reply = if message == "large" { large() } else { message };
                if let Err(error) = stream.send(reply).await {
                    stream.send(error.to_string()).await?;
                }
            }
            Ok(())
        });
    let bus = NatsBus::connect(url, runtime()).await.unwrap();
    let server = Server::new(bus, runtime(), handlers, ServerOptions::new().id(id)).unwrap();
    server.register(&[FIT, CENSUS, PARADE], &[]).await.unwrap();
    server
}

pub async fn client(url: &str) -> Client {
    let bus = NatsBus::connect(url, runtime()).await.unwrap();
    Client::new(bus, runtime(), &HATS, ClientOptions::new().id("CLI_a")).await.unwrap()
}
