//! Streams whose consumers are slow: held messages, the window of sends, and their limits, in
//! paused time.

use std::future::{IntoFuture, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use psrpc_bus_local::LocalBus;
use psrpc_tokio::*;

mod hats;
mod shop;

use hats::{runtime, settle};
use shop::{SHOP, client, client_with, echo, parade, server, text};

/// A stream handler that takes a message every 5 ms, and closes the stream after `count` messages
/// with all of them.
async fn take_slowly(stream: ServerStream<String, String>, count: usize) -> Result<(), Error> {
    let mut taken = Vec::new();
    while taken.len() < count {
        tokio::time::sleep(Duration::from_millis(5)).await;
        taken.extend(stream.next().await);
    }
    stream.send(taken.join(" ")).await
}

#[tokio::test(start_paused = true)]
async fn two_hundred_sends_at_once_reach_a_slow_consumer_in_order() {
    let bus = LocalBus::new();
    let options = ServerOptions::new().unread_per_stream(16);
    let server = server(&bus, "elm", options, |stream| take_slowly(stream, 200)).await;
    let client = client(&bus).await;
    let stream = Arc::new(parade(&client).await);
    let sends: Vec<_> = (0..200)
        .map(|number| {
            let stream = Arc::clone(&stream);
            tokio::spawn(async move { stream.send(number.to_string()).await })
        })
        .collect();
    for send in sends {
        send.await.unwrap().unwrap();
    }
    let taken = stream.next().await.unwrap();
    assert!(taken.split(' ').eq((0..200).map(|number| number.to_string())), "{taken}");
    assert_eq!(server.counters().get(Reason::SlowConsumer), 0, "none was discarded");
}

#[tokio::test(start_paused = true)]
async fn a_message_that_was_held_back_arrives_when_the_consumer_takes_another() {
    let bus = LocalBus::new();
    let (gate, opened) = tokio::sync::oneshot::channel::<()>();
    let opened = Mutex::new(Some(opened));
    let options = ServerOptions::new().unread_per_stream(1);
    let _server = server(&bus, "elm", options, move |stream| {
        let opened = opened.lock().unwrap().take().unwrap();
        async move {
            opened.await.unwrap();
            take_slowly(stream, 3).await
        }
    })
    .await;
    let client = client(&bus).await;
    let stream = parade(&client).await;
    stream.send(text("one")).await.unwrap();
    let mut two = stream.send(text("two")).into_future();
    let mut three = stream.send(text("three")).into_future();
    let waited =
        tokio::time::timeout(Duration::from_millis(100), async { tokio::join!(&mut two, &mut three) });
    assert!(waited.await.is_err(), "the consumer has no room");
    gate.send(()).unwrap();
    two.await.unwrap();
    three.await.unwrap();
    assert_eq!(stream.next().await.unwrap(), "one two three");
}

#[tokio::test(start_paused = true)]
async fn a_send_that_waits_for_others_and_is_dropped_never_arrives() {
    let bus = LocalBus::new();
    let _server = server(&bus, "elm", ServerOptions::new(), |stream| take_slowly(stream, 2)).await;
    let limits = StreamLimits { sends_per_stream: 1, ..StreamLimits::DEFAULT };
    let options = ClientOptions::new().limits(ClientLimits { streams: limits, ..ClientLimits::DEFAULT });
    let client = client_with(&bus, options).await;
    let stream = parade(&client).await;
    let mut sends = ["one", "dropped", "three"].map(|message| Some(stream.send(text(message)).into_future()));
    for send in sends.iter_mut().flatten() {
        assert!(poll_once(send).await.is_pending());
    }
    sends[1] = None;
    for send in sends.into_iter().flatten() {
        send.await.unwrap();
    }
    assert_eq!(stream.next().await.unwrap(), "one three");
}

/// Polls a future once.
async fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    poll_fn(|cx| Poll::Ready(Pin::new(&mut *future).poll(cx))).await
}

#[tokio::test(start_paused = true)]
async fn a_send_that_waited_in_vain_was_not_sent() {
    let bus = LocalBus::new();
    let options = ServerOptions::new().unread_per_stream(1);
    let _server = server(&bus, "elm", options, |stream| async move {
        stream.closed().await;
        Ok(())
    })
    .await;
    let limits = StreamLimits { sends_per_stream: 1, ..StreamLimits::DEFAULT };
    let options = ClientOptions::new().limits(ClientLimits { streams: limits, ..ClientLimits::DEFAULT });
    let client = client_with(&bus, options).await;
    let stream = parade(&client).await;
    stream.send(text("one")).await.unwrap();
    let (held, waiting) = tokio::join!(
        stream.send(text("two")).timeout(Duration::from_millis(400)).into_future(),
        stream.send(text("three")).timeout(Duration::from_millis(300)).into_future(),
    );
    let (held, waiting) = (held.unwrap_err(), waiting.unwrap_err());
    assert!(held.is_timed_out() && held.may_have_run());
    assert!(waiting.is_timed_out() && !waiting.may_have_run());
}

#[tokio::test(start_paused = true)]
async fn a_limit_out_of_range_is_refused_by_its_name_and_value() {
    let bus = LocalBus::new();
    let handlers = || Handlers::new(&SHOP, ());
    let refused = |options: ServerOptions| {
        Server::new(LocalBus::new(), runtime(), handlers(), options).unwrap_err().text().to_owned()
    };
    let range = "expected 1 to 4294967295";
    assert_eq!(refused(ServerOptions::new().queued_frames(0)), format!("invalid queued_frames: 0; {range}"));
    assert_eq!(
        refused(ServerOptions::new().unread_per_stream(0)),
        format!("invalid unread_per_stream: 0; {range}")
    );
    let streams = StreamLimits { sends_per_stream: 1 << 32, ..StreamLimits::DEFAULT };
    let limits = ServerLimits { streams, ..ServerLimits::DEFAULT };
    assert_eq!(
        refused(ServerOptions::new().limits(limits)),
        format!("invalid sends_per_stream: 4294967296; {range}")
    );
    let options = ClientOptions::new().updates_per_subscription(0);
    let error = Client::new(bus.clone(), runtime(), &SHOP, options).await.unwrap_err();
    assert_eq!(
        (error.code(), error.text().to_owned()),
        (&ErrorCode::InvalidArgument, format!("invalid updates_per_subscription: 0; {range}"))
    );
    // A limit of 1 is in range.
    let one = ServerOptions::new().queued_frames(1).unread_per_stream(1);
    let server = server(&bus, "elm", one, echo).await;
    let client = client(&bus).await;
    parade(&client).await.send(text("hey")).await.unwrap();
    settle().await;
    assert_eq!(server.counters().get(Reason::SlowConsumer), 0);
}
