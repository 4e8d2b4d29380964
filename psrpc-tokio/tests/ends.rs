//! What is around a stream hears of its end once, and after it heard that it is open, whatever ends
//! it meanwhile.

mod hats;
mod shop;

use std::sync::atomic::{AtomicIsize, Ordering};
use std::sync::{Arc, OnceLock};

use hats::{Log, error, settle};
use psrpc_bus_local::LocalBus;
use psrpc_tokio::middleware::{MetricsObserver, Side};
use psrpc_tokio::*;
use shop::{client, client_with, echo, opening, server};

/// A layer that logs what it hears, and does something when the stream is open.
struct Hearing {
    log: Log,
    name: &'static str,
    when_open: Box<dyn Fn() + Send + Sync>,
}

impl Hearing {
    fn layer(
        log: &Log,
        name: &'static str,
        when_open: impl Fn() + Send + Sync + 'static,
    ) -> Box<dyn InterceptedStream> {
        Box::new(Self { log: log.clone(), name, when_open: Box::new(when_open) })
    }
}

impl InterceptedStream for Hearing {
    fn opened(&self) {
        self.log.add(format!("{} opened", self.name));
        (self.when_open)();
    }

    fn closed(&self, cause: &Error) {
        self.log.add(format!("{} closed: {}", self.name, cause.code()));
    }
}

/// Counts the streams that are open.
#[derive(Clone, Default)]
struct Gauge(Arc<AtomicIsize>);

impl Gauge {
    fn streams(&self) -> isize {
        self.0.load(Ordering::SeqCst)
    }
}

impl MetricsObserver for Gauge {
    fn stream_opened(&self, _: Side, _: &CallInfo) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    fn stream_closed(&self, _: Side, _: &CallInfo) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[tokio::test(start_paused = true)]
async fn a_layer_that_ends_its_stream_when_it_is_open_ends_it_after_all_heard_that_it_is() {
    let (bus, log, gauge) = (LocalBus::new(), Log::default(), Gauge::default());
    let _server = server(&bus, "elm", ServerOptions::new(), echo).await;
    let itself: Arc<OnceLock<Client>> = Arc::default();
    let (known, outer, inner) = (Arc::clone(&itself), log.clone(), log.clone());
    let options = ClientOptions::new()
        .stream_interceptor(move |_: &mut OpeningStream| {
            let client = Arc::clone(&known);
            Ok(Hearing::layer(&outer, "outer", move || client.get().unwrap().close()))
        })
        .stream_interceptor(move |_: &mut OpeningStream| Ok(Hearing::layer(&inner, "inner", || ())))
        .metrics(gauge.clone());
    let client = client_with(&bus, options).await;
    assert!(itself.set(client.clone()).is_ok());
    let stream = opening(&client).await.unwrap();
    assert_eq!(stream.closed().await.code(), &ErrorCode::Canceled);
    let heard = ["outer opened", "inner opened", "outer closed: canceled", "inner closed: canceled"];
    assert_eq!(log.take(), heard);
    assert_eq!(gauge.streams(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_while_a_server_asks_what_is_around_it_tells_that_of_its_end() {
    for refuses in [false, true] {
        let (bus, log, gauge) = (LocalBus::new(), Log::default(), Gauge::default());
        let itself: Arc<OnceLock<Server>> = Arc::default();
        let (known, outer) = (Arc::clone(&itself), log.clone());
        let options = ServerOptions::new()
            .metrics(gauge.clone())
            .stream_interceptor(move |_: &mut OpeningStream| {
                known.get().unwrap().kill();
                Ok(Hearing::layer(&outer, "outer", || ()))
            })
            .stream_interceptor(move |_: &mut OpeningStream| match refuses {
                true => Err(error(ErrorCode::PermissionDenied)),
                false => Ok(Hearing::layer(&Log::default(), "inner", || ())),
            });
        let server = server(&bus, "elm", options, |_| async { panic!("it does not run") }).await;
        assert!(itself.set(server.clone()).is_ok());
        let client = client(&bus).await;
        drop(opening(&client).await);
        settle().await;
        let heard = log.take();
        match refuses {
            true => assert_eq!(heard, ["outer closed: permission_denied"]),
            false => assert_eq!(heard, ["outer opened", "outer closed: unavailable"]),
        }
        assert_eq!((gauge.streams(), server.streams()), (0, 0));
    }
}
