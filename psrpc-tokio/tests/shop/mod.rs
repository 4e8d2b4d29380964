//! A shop service for the tests, with a multi call, a stream and two subscriptions.

#![allow(dead_code, reason = "each test program uses a part of the helpers")]

use psrpc_tokio::bus::Bus;
use psrpc_tokio::*;

use crate::hats::runtime;

pub const CLAIMED: MethodProperties = MethodProperties { routing: Routing::Queue, require_claim: true };
const MULTI: MethodProperties = MethodProperties { routing: Routing::Multi, require_claim: false };

pub static SHOP: Service = Service {
    name: "Shop",
    methods: &[
        Method::call(0, "Census", MULTI),
        Method::stream(1, "Parade", CLAIMED),
        Method::subscription(2, "Rumour", CLAIMED).messages("", "shop.Rumour"),
        Method::subscription(3, "Bulletin", MULTI).messages("", "shop.Bulletin"),
    ],
};
pub static CENSUS: &Method = &SHOP.methods[0];
pub static PARADE: &Method = &SHOP.methods[1];
pub static RUMOUR: &Method = &SHOP.methods[2];
pub static BULLETIN: &Method = &SHOP.methods[3];

pub type Parade = ClientStream<String, String>;

/// Creates a server that handles streams with `parade` and responds to a census with its name.
pub async fn server<F, Fut>(
    bus: &(impl Bus + Clone),
    name: &'static str,
    options: ServerOptions,
    parade: F,
) -> Server
where
    F: Fn(ServerStream<String, String>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), Error>> + Send + 'static,
{
    let handlers = Handlers::new(&SHOP, ())
        .unary(CENSUS, move |_, request: Request<String>| async move {
            match request.as_str() {
                "fail" => Err(Error::new(ErrorCode::ResourceExhausted, "out of hats")),
                _ => Ok(name.to_owned()),
            }
        })
        .stream(PARADE, move |_, stream| parade(stream));
    let server = Server::new(bus.clone(), runtime(), handlers, options.id(name)).unwrap();
    server.register(&[CENSUS, PARADE], &[]).await.unwrap();
    server
}

/// A stream handler that returns each message.
pub async fn echo(stream: ServerStream<String, String>) -> Result<(), Error> {
    while let Some(message) = stream.next().await {
        stream.send(format!("echo {message}")).await?;
    }
    Ok(())
}

pub async fn client(bus: &(impl Bus + Clone)) -> Client {
    client_with(bus, ClientOptions::new()).await
}

pub async fn client_with(bus: &(impl Bus + Clone), options: ClientOptions) -> Client {
    Client::new(bus.clone(), runtime(), &SHOP, options).await.unwrap()
}

pub fn census(client: &Client, question: &str) -> MultiCall<String, String> {
    client.multi_call(CENSUS, &[], question.to_owned())
}

/// Returns a stream that is not opened yet.
pub fn opening(client: &Client) -> OpenStream<String, String> {
    client.open_stream(PARADE, &[])
}

pub async fn parade(client: &Client) -> Parade {
    opening(client).await.unwrap()
}

pub fn text(message: &str) -> String {
    message.to_owned()
}

/// Returns all responses: the messages, or the texts of the errors.
pub async fn all(mut responses: Responses<String>) -> Vec<String> {
    let mut all = Vec::new();
    while let Some(response) = responses.next().await {
        all.push(response.map_or_else(|error| error.to_string(), Response::into_message));
    }
    all
}
