//! The client and the server under attack, and their honest calls.

use std::time::Duration;

use psrpc_tokio::*;
use tokio::time::Instant;

use crate::network::Network;

const CLAIMED: MethodProperties = MethodProperties { routing: Routing::Queue, require_claim: true };
const AFFINITY: MethodProperties = MethodProperties { routing: Routing::Affinity, require_claim: true };
const MULTI: MethodProperties = MethodProperties { routing: Routing::Multi, require_claim: false };

static SERVICE: Service = Service {
    name: "Hats",
    methods: &[
        Method::call(0, "Fit", CLAIMED),
        Method::call(1, "Census", MULTI),
        Method::stream(2, "Parade", CLAIMED),
        Method::call(3, "Pick", AFFINITY),
        Method::call(4, "Poll", MULTI),
        Method::subscription(5, "Rumour", MULTI).messages("", "hats.Rumour"),
    ],
};
static FIT: &Method = &SERVICE.methods[0];
static CENSUS: &Method = &SERVICE.methods[1];
static PARADE: &Method = &SERVICE.methods[2];
/// No server serves these two.
static PICK: &Method = &SERVICE.methods[3];
static POLL: &Method = &SERVICE.methods[4];
static RUMOUR: &Method = &SERVICE.methods[5];

/// How long a held call waits: longer than any attack.
const HOLD: Duration = Duration::from_secs(240);

/// A client and a server on one bus, with a stream between them.
pub(crate) struct Site {
    pub(crate) bus: Network,
    pub(crate) server: Server,
    pub(crate) client: Client,
    stream: ClientStream<String, String>,
}

/// The operation that the client holds during an attack.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Held {
    Nothing,
    /// A call that waits for bids.
    Call,
    /// A multi call that waits for responses.
    Multi,
    /// A subscription whose consumer takes nothing.
    Subscription,
}

impl Site {
    pub(crate) async fn new(options: ServerOptions) -> Result<Self, Error> {
        let (bus, runtime) = (Network::default(), default_runtime()?);
        let handlers = Handlers::new(&SERVICE, ())
            .unary(FIT, |_, request: Request<String>| async { Ok(request.into_message()) })
            .unary(CENSUS, |_, request: Request<String>| async { Ok(request.into_message()) })
            .stream(PARADE, |_, stream: ServerStream<String, String>| async move {
                while let Some(message) = stream.next().await {
                    stream.send(message).await?;
                }
                Ok(())
            });
        let server = Server::new(bus.clone(), runtime.clone(), handlers, options)?;
        server.register(&[FIT, CENSUS, PARADE], &[]).await?;
        let client = Client::new(bus.clone(), runtime, &SERVICE, ClientOptions::new()).await?;
        let stream = client.open_stream(PARADE, &[]).await?;
        Ok(Self { bus, server, client, stream })
    }

    /// Makes a call, a multi call, and an exchange on the stream. Returns the time of the slowest.
    pub(crate) async fn honest_calls(&self) -> Result<Duration, Error> {
        let hat = || "fez".to_owned();
        let started = Instant::now();
        self.call().await?;
        let called = started.elapsed();
        let mut responses: Responses<String> =
            self.client.multi_call(CENSUS, &[], hat()).responses(1).await?;
        let first = responses.next().await.expect("one server responds")?;
        assert_eq!(first.as_str(), "fez");
        let counted = started.elapsed() - called;
        self.stream.send(hat()).await?;
        assert_eq!(self.stream.next().await.as_deref(), Some("fez"));
        Ok(called.max(counted).max(started.elapsed() - called - counted))
    }

    pub(crate) async fn call(&self) -> Result<(), Error> {
        let response = self.client.call::<_, String>(FIT, &[], "fez".to_owned()).await?;
        assert_eq!(response.as_str(), "fez", "the response is the server's");
        Ok(())
    }

    /// Starts an operation and holds it until the task is aborted.
    pub(crate) fn hold(&self, held: Held) -> tokio::task::JoinHandle<()> {
        let client = self.client.clone();
        tokio::spawn(async move {
            let hat = || "fez".to_owned();
            match held {
                Held::Nothing => {}
                Held::Call => {
                    let selection = Selection::none().short_circuit_timeout(HOLD);
                    let call = client.call::<_, String>(PICK, &[], hat()).selection(selection).timeout(HOLD);
                    let _ = call.await;
                }
                Held::Multi => {
                    let responses = client.multi_call::<_, String>(POLL, &[], hat()).timeout(HOLD).await;
                    // Holds the responses, and takes none.
                    std::future::pending::<()>().await;
                    drop(responses);
                }
                Held::Subscription => {
                    let updates = client.subscribe::<String>(RUMOUR, &[]).await;
                    std::future::pending::<()>().await;
                    drop(updates);
                }
            }
        })
    }

    pub(crate) async fn open_stream(&self) -> Result<ClientStream<String, String>, Error> {
        self.client.open_stream(PARADE, &[]).await
    }

    /// Ends the stream.
    pub(crate) fn close_stream(&self) {
        self.stream.close(None);
    }

    /// Returns how many entries the tables of both sides have, by table.
    pub(crate) fn entries(&self) -> Vec<(&'static str, usize)> {
        let Self { client, server, .. } = self;
        let tables = [
            ("calls of the client", client.in_flight()),
            ("streams of the client", client.streams()),
            ("messages that the client remembers", client.remembered()),
            ("requests of the server", server.in_flight()),
            ("streams of the server", server.streams()),
            ("requests that the server remembers", server.remembered()),
        ];
        tables.into_iter().filter(|(_, entries)| *entries > 0).collect()
    }
}
