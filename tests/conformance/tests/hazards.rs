//! Misbehaving user code: panics in unusual places, values that use the client while they are
//! dropped, and invalid registrations.

use std::panic::panic_any;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use psrpc::bus::Bus;
use psrpc::{
    Client, ClientOptions, Error, ErrorCode, Handlers, Method, MethodProperties, Reason, Request, Routing,
    Runtime, Selection, Server, ServerOptions, Service,
};
use psrpc_bus_local::LocalBus;
use psrpc_conformance::runtime::{Host, Solo};
use psrpc_testing::FaultyBus;

const CLAIMED: MethodProperties = MethodProperties { routing: Routing::Queue, require_claim: true };
const AFFINITY: MethodProperties = MethodProperties { routing: Routing::Affinity, require_claim: true };

static HATS: Service = Service {
    name: "Hats",
    methods: &[
        Method::call(0, "Fit", CLAIMED),
        Method::call(1, "Pick", AFFINITY),
        Method::call(2, "Unhandled", CLAIMED),
    ],
};
static FIT: &Method = &HATS.methods[0];
static PICK: &Method = &HATS.methods[1];
static UNHANDLED: &Method = &HATS.methods[2];

/// Panics when it is dropped, unless the thread is panicking already.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic_any(Bomb);
        }
    }
}

fn run<F: Future<Output = ()>>(test: impl FnOnce(Solo) -> F) {
    let solo = Solo::new();
    solo.clone().block_on(Box::pin(test(solo)));
}

/// Creates handlers that echo the text, or misbehave as it says.
fn handlers(solo: &Solo) -> Handlers<Solo> {
    async fn handle(solo: Arc<Solo>, request: Request<String>) -> Result<String, Error> {
        match &**request {
            "throw a bomb" => panic_any(Bomb),
            "hold a bomb" => {
                let _bomb = Bomb;
                solo.sleep_until(solo.now().time + Duration::from_secs(100)).await;
            }
            _ => {}
        }
        Ok(request.into_message())
    }
    let affinity = |_: &Solo, request: &Request<String>| match &***request {
        "affinity" => panic_any(Bomb),
        _ => 1.0,
    };
    Handlers::new(&HATS, solo.clone()).unary(FIT, handle).unary_with_affinity(PICK, handle, affinity)
}

async fn hats(solo: &Solo, bus: impl Bus + Clone) -> (Server, Client) {
    let server = Server::new(bus.clone(), solo.clone(), handlers(solo), ServerOptions::new()).unwrap();
    server.register(&[FIT, PICK], &[]).await.unwrap();
    (server, Client::new(bus, solo.clone(), &HATS, ClientOptions::new()).await.unwrap())
}

async fn call(client: &Client, method: &'static Method, text: &str) -> Result<String, Error> {
    client.call(method, &[], text.to_owned()).await
}

async fn check_still_works(solo: &Solo, server: &Server, client: &Client) {
    for method in [FIT, PICK] {
        assert_eq!(call(client, method, "a hat").await.unwrap(), "a hat");
    }
    // Bids that were never granted end at the request's expiry.
    solo.sleep_until(solo.now().time + Duration::from_secs(3)).await;
    assert_eq!((server.in_flight(), client.in_flight()), (0, 0));
}

#[test]
fn what_is_thrown_may_panic_when_it_is_dropped() {
    run(|solo| async move {
        let (server, client) = hats(&solo, LocalBus::new()).await;
        assert_eq!(call(&client, FIT, "throw a bomb").await.unwrap_err().code(), &ErrorCode::Internal);
        assert_eq!(call(&client, PICK, "affinity").await.unwrap_err().reason(), Some(Reason::NoResponse));
        let selection = Selection::new().choose(|_| panic_any(Bomb));
        let picked = client.call::<String, String>(PICK, &[], "a hat".to_owned()).selection(selection).await;
        assert_eq!(picked.unwrap_err().reason(), Some(Reason::SelectionFailed));
        check_still_works(&solo, &server, &client).await;
    });
}

#[test]
fn what_a_handler_holds_may_panic_when_its_time_is_up() {
    run(|solo| async move {
        let (server, client) = hats(&solo, LocalBus::new()).await;
        assert_eq!(call(&client, FIT, "hold a bomb").await.unwrap_err().reason(), Some(Reason::TimedOut));
        check_still_works(&solo, &server, &client).await;
    });
}

/// Uses a client when it is dropped, which deadlocks if the client's lock is held.
struct ClientUser(Client);

impl Drop for ClientUser {
    fn drop(&mut self) {
        self.0.in_flight();
    }
}

impl Wake for ClientUser {
    fn wake(self: Arc<Self>) {}
}

#[test]
fn a_selection_function_may_use_the_client_when_it_is_dropped() {
    run(|solo| async move {
        let (server, client) = hats(&solo, LocalBus::new()).await;
        let client_user = ClientUser(client.clone());
        let selection = Selection::new().maximum_affinity(0.5).choose(move |bids| {
            let _ = &client_user;
            Ok(bids.first())
        });
        // The bid wins by its affinity, so the function is not called.
        let picked = client.call::<String, String>(PICK, &[], "a hat".to_owned()).selection(selection).await;
        assert_eq!(picked.unwrap(), "a hat");
        check_still_works(&solo, &server, &client).await;
    });
}

#[test]
fn a_waker_may_use_the_client_when_it_is_dropped() {
    run(|solo| async move {
        let (server, client) = hats(&solo, LocalBus::new()).await;
        let mut calling = client.call::<String, String>(FIT, &[], "a hat".to_owned()).into_future();
        for _ in 0..2 {
            let waker = Waker::from(Arc::new(ClientUser(client.clone())));
            assert!(Pin::new(&mut calling).poll(&mut Context::from_waker(&waker)).is_pending());
        }
        assert_eq!(calling.await.unwrap(), "a hat");
        check_still_works(&solo, &server, &client).await;
    });
}

#[test]
fn a_method_without_a_handler_is_not_registered_and_one_of_another_service_not_called() {
    static STRANGE: Method = Method::call(1, "Strange", CLAIMED);
    static BEYOND: Method = Method::call(9, "Beyond", CLAIMED);
    run(|solo| async move {
        let (server, client) = hats(&solo, LocalBus::new()).await;
        let error = server.register(&[UNHANDLED], &[]).await.unwrap_err();
        assert_eq!(error.to_string(), "invalid_argument: Hats.Unhandled has no handler");
        for method in [&STRANGE, &BEYOND] {
            let text = format!("invalid_argument: {} is not a method of Hats", method.name);
            assert_eq!(server.register(&[method], &["topic"]).await.unwrap_err().to_string(), text);
            assert_eq!(call(&client, method, "a hat").await.unwrap_err().to_string(), text);
        }
        check_still_works(&solo, &server, &client).await;
    });
}

#[test]
fn a_registration_may_be_given_up_before_it_is_live_and_made_again() {
    run(|solo| async move {
        let bus = FaultyBus::new(LocalBus::new(), solo.clone(), 1);
        let (server, client) = hats(&solo, bus.clone()).await;
        // Captured subscriptions neither become live nor end.
        let sinks = Arc::new(Mutex::new(Vec::new()));
        let captured = Arc::clone(&sinks);
        bus.intercept_subscribe(move |_, _, sink, _| {
            captured.lock().unwrap().push(sink);
            None
        });
        let mut cx = Context::from_waker(Waker::noop());
        let (methods, topic) = ([FIT], ["eu"]);
        let mut register = Box::pin(server.register(&methods, &topic));
        assert!(register.as_mut().poll(&mut cx).is_pending());
        let mut deregister = Box::pin(server.deregister(&methods, &topic));
        assert!(deregister.as_mut().poll(&mut cx).is_pending());
        bus.heal();
        sinks.lock().unwrap().clear();
        deregister.await.unwrap();
        let error = register.await.unwrap_err();
        assert_eq!(error.text(), "deregistered before the registration was complete");
        server.register(&[FIT], &["eu"]).await.unwrap();
        server.deregister(&[FIT], &["eu"]).await.unwrap();
        check_still_works(&solo, &server, &client).await;
    });
}
