//! Hooks for panics of handlers.

mod hats;

use std::panic::panic_any;

use hats::{Log, client, fit, serve};
use psrpc_bus_local::LocalBus;
use psrpc_tokio::*;

/// Panics when it is dropped, unless that would end the process.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic_any(Bomb);
        }
    }
}

/// Creates a client, and a server with a hook that logs panics. The request selects how the handler
/// panics.
async fn hats(log: &Log, options: ServerOptions) -> (Client, Server) {
    let (bus, log) = (LocalBus::new(), log.clone());
    let options = options.on_panic(move |info, thrown| {
        log.add(format!("{info}: {:?}", thrown.downcast_ref::<&str>()));
    });
    let server = serve(&bus, options, |request: Request<String>| {
        assert_ne!(*request, "before the future".to_owned());
        async move {
            match request.as_str() {
                "in the future" => panic!("no hat"),
                "a bomb" => panic_any(Bomb),
                _ => Ok(request.into_message()),
            }
        }
    })
    .await;
    (client(&bus, ClientOptions::new()).await, server)
}

async fn fails(client: &Client, hat: &str) {
    let error = fit(client, hat).await.unwrap_err();
    assert_eq!(error.to_string(), "internal: the handler panicked");
}

#[tokio::test(start_paused = true)]
async fn the_hook_gets_the_panic_payload_and_the_caller_does_not() {
    let log = Log::default();
    let (client, _server) = hats(&log, ServerOptions::new()).await;
    fails(&client, "in the future").await;
    assert_eq!(log.take(), ["Hats.Fit: Some(\"no hat\")"]);
    fails(&client, "before the future").await;
    fails(&client, "a bomb").await;
    assert_eq!(log.take(), ["Hats.Fit: None", "Hats.Fit: None"]);
    assert_eq!(fit(&client, "fez").await.unwrap(), "fez");
    assert!(log.take().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_an_interceptor_is_reported_as_well() {
    let log = Log::default();
    let options = ServerOptions::new().interceptor(|request: Request<AnyMessage>, next: NextHandler| {
        assert!(request.downcast_ref::<String>().unwrap() != "fez", "no fez");
        async move { next.run(request).await }
    });
    let (client, _server) = hats(&log, options).await;
    fails(&client, "fez").await;
    assert_eq!(log.take(), ["Hats.Fit: Some(\"no fez\")"]);
    assert_eq!(fit(&client, "cap").await.unwrap(), "cap");
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_a_hook_does_not_affect_other_hooks() {
    let log = Log::default();
    let (client, _server) = hats(&log, ServerOptions::new().on_panic(|_, _| panic_any(Bomb))).await;
    fails(&client, "in the future").await;
    assert_eq!(log.take().len(), 1);
    assert_eq!(fit(&client, "fez").await.unwrap(), "fez");
}
