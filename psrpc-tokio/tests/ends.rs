//! Stream interceptors are notified of the end of a stream once, and after `opened`, whatever ends
//! it.

mod hats;
mod shop;

use std::sync::atomic::{AtomicIsize, Ordering};
use std::sync::{Arc, OnceLock};

use hats::{Log, error, settle};
use psrpc_bus_local::LocalBus;
use psrpc_tokio::middleware::{MetricsObserver, Side};
use psrpc_tokio::*;
use shop::{client, client_with, echo, opening, server};

/// A stream interceptor that logs its events, and calls a function when the stream is opened.
struct LoggingStream {
    log: Log,
    name: &'static str,
    when_open: Box<dyn Fn() + Send + Sync>,
}

impl LoggingStream {
    fn boxed(
        log: &Log,
        name: &'static str,
        when_open: impl Fn() + Send + Sync + 'static,
    ) -> Box<dyn InterceptedStream> {
        Box::new(Self { log: log.clone(), name, when_open: Box::new(when_open) })
    }
}

impl InterceptedStream for LoggingStream {
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
async fn an_interceptor_that_ends_its_stream_in_opened_ends_it_after_all_are_notified_of_the_opening() {
    let (bus, log, gauge) = (LocalBus::new(), Log::default(), Gauge::default());
    let _server = server(&bus, "elm", ServerOptions::new(), echo).await;
    let own: Arc<OnceLock<Client>> = Arc::default();
    let (cell, outer, inner) = (Arc::clone(&own), log.clone(), log.clone());
    let options = ClientOptions::new()
        .stream_interceptor(move |_: &mut OpeningStream| {
            let client = Arc::clone(&cell);
            Ok(LoggingStream::boxed(&outer, "outer", move || client.get().unwrap().close()))
        })
        .stream_interceptor(move |_: &mut OpeningStream| Ok(LoggingStream::boxed(&inner, "inner", || ())))
        .metrics(gauge.clone());
    let client = client_with(&bus, options).await;
    assert!(own.set(client.clone()).is_ok());
    let stream = opening(&client).await.unwrap();
    assert_eq!(stream.closed().await.code(), &ErrorCode::Canceled);
    let events = ["outer opened", "inner opened", "outer closed: canceled", "inner closed: canceled"];
    assert_eq!(log.take(), events);
    assert_eq!(gauge.streams(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_while_it_is_being_opened_at_a_server_notifies_its_interceptors() {
    for refuses in [false, true] {
        let (bus, log, gauge) = (LocalBus::new(), Log::default(), Gauge::default());
        let own: Arc<OnceLock<Server>> = Arc::default();
        let (cell, outer) = (Arc::clone(&own), log.clone());
        let options = ServerOptions::new()
            .metrics(gauge.clone())
            .stream_interceptor(move |_: &mut OpeningStream| {
                cell.get().unwrap().kill();
                Ok(LoggingStream::boxed(&outer, "outer", || ()))
            })
            .stream_interceptor(move |_: &mut OpeningStream| match refuses {
                true => Err(error(ErrorCode::PermissionDenied)),
                false => Ok(LoggingStream::boxed(&Log::default(), "inner", || ())),
            });
        let server = server(&bus, "elm", options, |_| async { panic!("the handler must not run") }).await;
        assert!(own.set(server.clone()).is_ok());
        let client = client(&bus).await;
        drop(opening(&client).await);
        settle().await;
        let events = log.take();
        match refuses {
            true => assert_eq!(events, ["outer closed: permission_denied"]),
            false => assert_eq!(events, ["outer opened", "outer closed: unavailable"]),
        }
        assert_eq!((gauge.streams(), server.streams()), (0, 0));
    }
}
