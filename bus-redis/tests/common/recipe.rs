//! The recipes of docs/operations.md, and a service that needs every right that they give.

use std::time::Duration;

use psrpc_tokio::bus::{Bus, publish};
use psrpc_tokio::proto::{Any, Channel, Frame};
use psrpc_tokio::*;

const OPERATIONS: &str = include_str!("../../../docs/operations.md");

/// The timeout of calls that succeed.
const LONG: Duration = Duration::from_secs(20);

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
static FIT: &Method = &HATS.methods[0];
static CENSUS: &Method = &HATS.methods[1];
static PARADE: &Method = &HATS.methods[2];
static RUMOUR: &Method = &HATS.methods[3];

/// A service that the recipes do not name.
static CAPS: Service = Service { name: "Caps", methods: &[Method::call(0, "Fit", CLAIMED)] };

/// Returns the first code block under a heading of the document.
pub fn block(heading: &str) -> String {
    let heading = format!("\n### {heading}\n");
    let (_, section) = OPERATIONS.split_once(&heading).unwrap_or_else(|| panic!("there is no {heading}"));
    let section = section.split("\n#").next().unwrap();
    let (_, code) = section.split_once("```text\n").expect("the section has a code block");
    let (code, _) = code.split_once("```").expect("the code block ends");
    code.to_owned()
}

fn runtime() -> TokioRuntime {
    TokioRuntime::current().unwrap()
}

async fn echo(request: Request<String>) -> Result<String, Error> {
    Ok(request.into_message())
}

fn hats_server(bus: impl Bus, id: &str) -> Server {
    let handlers = Handlers::new(&HATS, ())
        .unary(FIT, |_, request| echo(request))
        .unary(CENSUS, |_, request| echo(request))
        .stream(PARADE, |_, stream: ServerStream<String, String>| async move {
            while let Some(message) = stream.next().await {
                stream.send(message).await?;
            }
            Ok(())
        });
    Server::new(bus, runtime(), handlers, ServerOptions::new().id(id)).unwrap()
}

/// Starts a server with every method, both without a topic and with one.
pub async fn serve(bus: impl Bus, id: &str) -> Server {
    let server = hats_server(bus, id);
    server.register(&[FIT, CENSUS, PARADE], &[]).await.unwrap();
    server.register(&[FIT], &["paris"]).await.unwrap();
    server
}

/// Checks that two servers and a client that use these buses reach each other in every way.
pub async fn assert_reaches(servers: [impl Bus; 2], client: impl Bus) {
    let [elm, oak] = servers;
    let (elm, _oak) = (serve(elm, "elm").await, serve(oak, "oak").await);
    let client = Client::new(client, runtime(), &HATS, ClientOptions::new()).await.unwrap();
    for topic in [&[][..], &["paris"]] {
        let call: Call<String, String> = client.call(FIT, topic, "fez".to_owned());
        assert_eq!(call.timeout(LONG).await.unwrap(), "fez");
    }

    let call: MultiCall<String, String> = client.multi_call(CENSUS, &[], "count".to_owned());
    let mut responses = call.timeout(LONG).responses(2).await.unwrap();
    for _ in 0..2 {
        assert_eq!(responses.next().await.unwrap().unwrap().into_message(), "count");
    }

    let stream: ClientStream<String, String> = client.open_stream(PARADE, &[]).timeout(LONG).await.unwrap();
    stream.send("bowler".to_owned()).await.unwrap();
    assert_eq!(stream.next().await.unwrap(), "bowler");

    let mut rumours: Subscription<String> = client.subscribe(RUMOUR, &[]).await.unwrap();
    elm.publish(RUMOUR, &[], &"psst".to_owned()).await.unwrap();
    assert_eq!(rumours.next().await.unwrap().unwrap(), "psst");
}

/// Calls the service, and returns the error.
pub async fn call_refused(bus: impl Bus) -> String {
    let client = match Client::new(bus, runtime(), &HATS, ClientOptions::new()).await {
        Ok(client) => client,
        Err(error) => return error.to_string(),
    };
    let call: Call<String, String> = client.call(FIT, &[], "fez".to_owned());
    call.timeout(Duration::from_secs(2)).await.expect_err("no server may be reached").to_string()
}

/// Serves the service, and returns the error.
pub async fn serving_refused(bus: impl Bus) -> String {
    let server = hats_server(bus, "ash");
    server.register(&[FIT], &[]).await.expect_err("the user must not serve").to_string()
}

/// Publishes a request to another service, and returns the error.
pub async fn publish_refused(bus: &impl Bus) -> String {
    let frame = Frame::Other(Any { type_url: "a/b".into(), value: "fez".into() });
    let channel = Channel::request::<&str>("Caps", "Fit", &[], true);
    publish(bus, channel, frame).await.expect_err("the user must not publish").to_string()
}

/// Becomes a client of another service, and returns the error.
pub async fn other_client_refused(bus: impl Bus) -> String {
    let client = Client::new(bus, runtime(), &CAPS, ClientOptions::new()).await;
    client.expect_err("the user must not use another service").to_string()
}

/// Serves another service, and returns the error.
pub async fn other_server_refused(bus: impl Bus) -> String {
    let method = &CAPS.methods[0];
    let handlers = Handlers::new(&CAPS, ()).unary(method, |_, request| echo(request));
    let server = Server::new(bus, runtime(), handlers, ServerOptions::new()).unwrap();
    server.register(&[method], &[]).await.expect_err("the user must not serve another service").to_string()
}
