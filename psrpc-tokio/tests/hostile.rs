//! Streams, multi calls and subscriptions that are dropped, ended and polled at awkward moments.

mod hats;
mod shop;

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use hats::{Log, ManualBus, settle};
use psrpc_bus_local::LocalBus;
use psrpc_tokio::*;
use shop::{BULLETIN, Parade, RUMOUR, all, census, client, echo, opening, parade, server, text};

/// Polls a future once.
async fn poll_once<F: Future + ?Sized>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
}

/// A waker that uses its client when it is woken and when it is dropped. This deadlocks if the
/// client holds its lock at that time.
struct ClientUsingWaker(Client);

impl ClientUsingWaker {
    fn waker(client: &Client) -> Waker {
        Arc::new(Self(client.clone())).into()
    }
}

impl Wake for ClientUsingWaker {
    fn wake(self: Arc<Self>) {
        self.0.in_flight();
    }
}

impl Drop for ClientUsingWaker {
    fn drop(&mut self) {
        self.0.streams();
    }
}

/// Polls with wakers that replace each other.
fn poll_with_client_wakers<F: Future + ?Sized>(client: &Client, future: Pin<&mut F>) {
    let mut future = future;
    for _ in 0..2 {
        let waker = ClientUsingWaker::waker(client);
        assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
}

#[tokio::test(start_paused = true)]
async fn a_waker_may_use_the_client_that_it_waits_for() {
    let bus = LocalBus::new();
    let server = server(&bus, "elm", ServerOptions::new(), echo).await;
    let client = client(&bus).await;
    let stream = parade(&client).await;
    let mut rumours: Subscription<String> = client.subscribe(RUMOUR, &[]).await.unwrap();
    let mut responses = census(&client, "who").timeout(Duration::from_millis(10)).await.unwrap();
    let mut subscribing = pin!(client.subscribe::<String>(BULLETIN, &["hill"]).into_future());
    let mut opening = pin!(opening(&client).into_future());
    poll_with_client_wakers(&client, subscribing.as_mut());
    poll_with_client_wakers(&client, opening.as_mut());
    poll_with_client_wakers(&client, pin!(stream.send(text("a")).into_future()));
    poll_with_client_wakers(&client, pin!(stream.next()));
    poll_with_client_wakers(&client, pin!(stream.closed()));
    poll_with_client_wakers(&client, pin!(responses.next()));
    poll_with_client_wakers(&client, pin!(rumours.next()));
    // Each future is woken through its last waker.
    settle().await;
    assert_eq!(stream.next().await.unwrap(), "echo a");
    assert_eq!(responses.next().await.unwrap().unwrap().as_str(), "elm");
    server.publish(RUMOUR, &[], &text("psst")).await.unwrap();
    assert_eq!(rumours.next().await.unwrap().unwrap(), "psst");
    poll_with_client_wakers(&client, pin!(stream.next()));
    poll_with_client_wakers(&client, pin!(responses.next()));
    poll_with_client_wakers(&client, pin!(rumours.next()));
    drop((stream, responses, rumours));
    assert!(subscribing.await.is_ok() && opening.await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn tasks_waiting_on_one_stream_share_its_messages_and_all_see_its_end() {
    let bus = LocalBus::new();
    let _server = server(&bus, "elm", ServerOptions::new(), echo).await;
    let (client, log) = (client(&bus).await, Log::default());
    let stream = Arc::new(parade(&client).await);
    let waiting = |forever: bool| {
        let (stream, log) = (Arc::clone(&stream), log.clone());
        tokio::spawn(async move {
            while let Some(message) = stream.next().await {
                log.add(message);
                if !forever {
                    return;
                }
            }
            log.add("end");
        })
    };
    let aborted = waiting(true);
    let tasks = [waiting(false), waiting(true), waiting(true)];
    settle().await;
    // An aborted task is still registered when the message arrives.
    stream.send(text("1")).await.unwrap();
    aborted.abort();
    settle().await;
    for number in 2..6 {
        stream.send(number.to_string()).await.unwrap();
    }
    settle().await;
    let mut received = log.take();
    received.sort();
    assert_eq!(received, ["echo 1", "echo 2", "echo 3", "echo 4", "echo 5"]);
    stream.close(None);
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(log.take(), ["end", "end"]);
}

#[tokio::test(start_paused = true)]
async fn a_message_being_decoded_is_delivered_before_the_end() {
    struct Inspector(Arc<OnceLock<Parade>>, Log);

    impl InterceptedStream for Inspector {
        fn receive(&self, message: AnyMessage) -> Result<AnyMessage, Error> {
            let stream = self.0.get().unwrap();
            let next = pin!(stream.next()).poll(&mut Context::from_waker(Waker::noop()));
            self.1.add(format!("{next:?}, ended: {}", stream.cause().is_some()));
            match message.downcast_ref::<String>().unwrap().as_str() {
                "last" => Ok(message),
                _ => Err(hats::error(ErrorCode::InvalidArgument)),
            }
        }
    }

    let bus = LocalBus::new();
    let _server = server(&bus, "elm", ServerOptions::new(), |stream| async move {
        stream.next().await;
        let (mut last, mut refused) =
            (pin!(stream.send(text("last")).into_future()), pin!(stream.send(text("refused")).into_future()));
        assert!(
            poll_once(last.as_mut()).await.is_pending() && poll_once(refused.as_mut()).await.is_pending()
        );
        stream.close(None);
        Ok(())
    })
    .await;
    let (client, log, cell) = (client(&bus).await, Log::default(), Arc::new(OnceLock::new()));
    let (recorder, inspected) = (log.clone(), Arc::clone(&cell));
    let stream = opening(&client)
        .interceptor(move |_: &mut OpeningStream| {
            Ok(Box::new(Inspector(Arc::clone(&inspected), recorder.clone())) as Box<dyn InterceptedStream>)
        })
        .await
        .unwrap();
    cell.set(stream).unwrap();
    let stream = cell.get().unwrap();
    stream.send(text("go")).await.unwrap();
    assert!(stream.closed().await.is_stream_closed());
    assert_eq!(log.take(), ["Pending, ended: true", "Ready(Some(\"last\")), ended: true"]);
    assert_eq!(stream.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_while_it_is_being_opened_is_still_returned() {
    let bus = LocalBus::new();
    let server = server(&bus, "elm", ServerOptions::new(), |stream| async move {
        stream.send(text("bye")).await?;
        Err(Error::new(ErrorCode::NotFound, "no parade today"))
    })
    .await;
    let client = client(&bus).await;
    let (mut fetched, mut dropped) = (opening(&client).into_future(), opening(&client).into_future());
    assert!(poll_once(fetched.as_mut()).await.is_pending() && poll_once(dropped.as_mut()).await.is_pending());
    settle().await;
    assert_eq!((client.streams(), server.streams()), (0, 0));
    drop(dropped);
    let stream = fetched.await.unwrap();
    assert_eq!(stream.next().await.unwrap(), "bye");
    assert!(stream.next().await.is_none());
    assert_eq!(stream.cause().unwrap().text(), "no parade today");
    assert_eq!(stream.send(text("late")).await.unwrap_err().text(), "no parade today");
}

#[tokio::test(start_paused = true)]
async fn dropping_a_completed_opening_closes_the_stream() {
    let bus = LocalBus::new();
    let server =
        server(&bus, "elm", ServerOptions::new(), |stream| async move { Err(stream.closed().await) }).await;
    let client = client(&bus).await;
    let mut opening = opening(&client).into_future();
    assert!(poll_once(opening.as_mut()).await.is_pending());
    settle().await;
    assert_eq!((client.streams(), server.streams()), (1, 1));
    drop(opening);
    settle().await;
    assert_eq!((client.streams(), server.streams()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn no_state_remains_of_streams_however_they_end() {
    let bus = LocalBus::new();
    let server = server(&bus, "elm", ServerOptions::new(), |stream| async move {
        match stream.next().await.as_deref() {
            Some("return") => Ok(()),
            Some("fail") => Err(hats::error(ErrorCode::NotFound)),
            Some("drop") => {
                drop(stream);
                settle().await;
                Ok(())
            }
            _ => echo(stream).await,
        }
    })
    .await;
    let client = client(&bus).await;
    let stored = parade(&client).await;
    stored.send(text("stay")).await.unwrap();
    for round in 0..60 {
        let stream = parade(&client).await;
        match round % 6 {
            0 => stream.send(text("return")).await.unwrap(),
            1 => stream.send(text("fail")).await.unwrap(),
            2 => stream.send(text("drop")).await.unwrap(),
            3 => stream.close(None),
            4 => {
                let sending = pin!(stream.send(text("never awaited")).into_future());
                assert!(poll_once(sending).await.is_pending());
            }
            _ => drop(opening(&client).into_future()),
        }
        // Half of the streams overlap with the next one.
        if round % 2 == 0 {
            settle().await;
        }
    }
    stored.send(text("a")).await.unwrap();
    assert_eq!(stored.next().await.unwrap(), "echo a");
    drop(stored);
    settle().await;
    assert_eq!((client.streams(), client.in_flight(), server.streams(), server.in_flight()), (0, 0, 0, 0));
}

/// Logs when it is dropped, and then uses its server. This deadlocks if the server holds its lock
/// at that time.
struct OnDrop(Arc<OnceLock<Server>>, Log);

impl InterceptedStream for OnDrop {
    fn opened(&self) {
        if self.0.get().unwrap().id() == "doomed" {
            self.0.get().unwrap().kill();
        }
    }
}

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.1.add(format!("dropped, {} streams", self.0.get().unwrap().streams()));
    }
}

/// Creates a server whose streams have an interceptor that uses the server.
async fn server_with_interceptor<F, Fut>(name: &'static str, log: &Log, handler: F) -> (LocalBus, Server)
where
    F: Fn(ServerStream<String, String>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), Error>> + Send + 'static,
{
    let (bus, cell, recorder) = (LocalBus::new(), Arc::new(OnceLock::new()), log.clone());
    let intercepted = Arc::clone(&cell);
    let options = ServerOptions::new().stream_interceptor(move |_: &mut OpeningStream| {
        Ok(Box::new(OnDrop(Arc::clone(&intercepted), recorder.clone())) as Box<dyn InterceptedStream>)
    });
    let server = server(&bus, name, options, handler).await;
    cell.set(server.clone()).unwrap();
    (bus, server)
}

#[tokio::test(start_paused = true)]
async fn a_dropped_stream_interceptor_may_use_its_server() {
    let log = Log::default();
    let (bus, server) = server_with_interceptor("elm", &log, |stream| async move {
        stream.closed().await;
        drop(stream);
        settle().await;
        Ok(())
    })
    .await;
    let client = client(&bus).await;
    drop(parade(&client).await);
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!((log.take(), server.streams()), (vec![text("dropped, 0 streams")], 0));
}

/// A message that runs a function when it is dropped.
#[derive(Default)]
struct DropMessage(Option<Box<dyn FnOnce() + Send + Sync>>);

impl Drop for DropMessage {
    fn drop(&mut self) {
        self.0.take().into_iter().for_each(|run| run());
    }
}

impl std::fmt::Debug for DropMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DropMessage")
    }
}

/// The message is empty on the wire.
impl prost::Message for DropMessage {
    fn encode_raw(&self, _: &mut impl prost::bytes::BufMut) {}

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: prost::encoding::WireType,
        buf: &mut impl prost::bytes::Buf,
        ctx: prost::encoding::DecodeContext,
    ) -> Result<(), prost::DecodeError> {
        prost::encoding::skip_field(wire_type, tag, buf, ctx)
    }

    fn encoded_len(&self) -> usize {
        0
    }

    fn clear(&mut self) {}
}

/// Replaces each received message with a `DropMessage`, and drops the stream.
struct ReplacingStream(Arc<Mutex<Option<ClientStream<String, DropMessage>>>>, Client, Log);

impl InterceptedStream for ReplacingStream {
    fn receive(&self, _: AnyMessage) -> Result<AnyMessage, Error> {
        self.0.lock().unwrap().take();
        let (client, log) = (self.1.clone(), self.2.clone());
        Ok(AnyMessage::new(DropMessage(Some(Box::new(move || {
            log.add(format!("dropped, {} streams", client.streams()));
            panic!("on purpose");
        })))))
    }
}

#[tokio::test(start_paused = true)]
async fn an_undelivered_message_may_use_its_client_and_panic_when_it_is_dropped() {
    let bus = LocalBus::new();
    let server = server(&bus, "elm", ServerOptions::new(), |stream| async move {
        settle().await;
        stream.send(text("a")).await
    })
    .await;
    let (client, log, stored) = (client(&bus).await, Log::default(), Arc::default());
    let (ours, recorder, shared) = (client.clone(), log.clone(), Arc::clone(&stored));
    let stream: ClientStream<String, DropMessage> = client
        .open_stream(shop::PARADE, &[])
        .interceptor(move |_: &mut OpeningStream| {
            let replacing = ReplacingStream(Arc::clone(&shared), ours.clone(), recorder.clone());
            Ok(Box::new(replacing) as Box<dyn InterceptedStream>)
        })
        .await
        .unwrap();
    *stored.lock().unwrap() = Some(stream);
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(log.take(), ["dropped, 0 streams"]);
    assert_eq!(all(census(&client, "who").responses(1).await.unwrap()).await, ["elm"]);
    assert_eq!(server.streams(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_is_stopped_before_it_starts_leaves_no_stream() {
    let log = Log::default();
    let (bus, server) =
        server_with_interceptor("doomed", &log, |_| async { panic!("the handler must not start") }).await;
    let stream = parade(&client(&bus).await).await;
    assert!(stream.closed().await.is_eof());
    server.shutdown().await;
    settle().await;
    assert_eq!(log.take(), ["dropped, 0 streams"]);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_killed_drops_the_handlers_of_its_streams() {
    struct Guard(ServerStream<String, String>, Log);

    impl Drop for Guard {
        fn drop(&mut self) {
            self.1.add(self.0.cause().unwrap().to_string());
        }
    }

    let (bus, log) = (LocalBus::new(), Log::default());
    let recorder = log.clone();
    let server = server(&bus, "elm", ServerOptions::new(), move |stream| {
        let guard = Guard(stream, recorder.clone());
        async move {
            let _guard = guard;
            std::future::pending().await
        }
    })
    .await;
    let client = client(&bus).await;
    let streams = [parade(&client).await, parade(&client).await];
    settle().await;
    server.kill();
    for stream in &streams {
        assert!(stream.closed().await.is_eof() && stream.next().await.is_none());
    }
    settle().await;
    assert_eq!(log.take(), ["unavailable: EOF", "unavailable: EOF"]);
    assert_eq!((client.streams(), server.streams()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn streams_responses_and_subscriptions_keep_their_client_alive() {
    let bus = LocalBus::new();
    let server = server(&bus, "elm", ServerOptions::new(), echo).await;
    let client = client(&bus).await;
    let (send, receive) = parade(&client).await.split();
    let responses = census(&client, "who").responses(1).await.unwrap();
    let mut bulletins: Subscription<String> = client.subscribe(BULLETIN, &["hill"]).await.unwrap();
    drop(client);
    assert_eq!(all(responses).await, ["elm"]);
    send.send(text("a")).await.unwrap();
    drop(send);
    assert_eq!(receive.next().await.unwrap(), "echo a");
    drop(receive);
    assert_eq!(server.publish(BULLETIN, &["hill"], &text("fog")).await.unwrap(), Some(1));
    assert_eq!(bulletins.next().await.unwrap().unwrap(), "fog");
    drop(bulletins);
    settle().await;
    assert_eq!(server.publish(BULLETIN, &["hill"], &text("fog")).await.unwrap(), Some(0));
    assert_eq!(server.streams(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_subscription_ends_with_its_client_even_if_the_bus_does_not_confirm_it() {
    let client = client(&ManualBus::default()).await;
    let mut rumours: Subscription<String> = client.subscribe(RUMOUR, &[]).await.unwrap();
    client.close();
    assert!(tokio::time::timeout(Duration::from_secs(60), rumours.next()).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_handler_may_drop_its_stream_and_continue() {
    let bus = LocalBus::new();
    let (sender, ended) = tokio::sync::oneshot::channel();
    let sender = Mutex::new(Some(sender));
    let server = server(&bus, "elm", ServerOptions::new(), move |stream| {
        drop(stream);
        let sender = sender.lock().unwrap().take().unwrap();
        async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            sender.send(()).unwrap();
            Err(hats::error(ErrorCode::NotFound))
        }
    })
    .await;
    let client = client(&bus).await;
    let stream = parade(&client).await;
    let error = stream.send(text("anybody?")).timeout(Duration::from_millis(100)).await.unwrap_err();
    assert!(error.is_timed_out());
    assert_eq!(server.counters().get(Reason::Refused), 1);
    assert_eq!(stream.closed().await.code(), &ErrorCode::NotFound);
    ended.await.unwrap();
    assert_eq!(server.streams(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_waker_of_a_dropped_future_is_removed() {
    struct Quiet;

    impl Wake for Quiet {
        fn wake(self: Arc<Self>) {}
    }

    let bus = LocalBus::new();
    let _server = server(&bus, "elm", ServerOptions::new(), echo).await;
    let client = client(&bus).await;
    let stream = parade(&client).await;
    let (dropped, waiting) = (Arc::new(Quiet), Arc::new(Quiet));
    let mut closed = pin!(stream.closed());
    let waker = Arc::clone(&waiting).into();
    assert!(closed.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    for _ in 0..3 {
        let waker = Arc::clone(&dropped).into();
        assert!(pin!(stream.next()).poll(&mut Context::from_waker(&waker)).is_pending());
        assert!(pin!(stream.closed()).poll(&mut Context::from_waker(&waker)).is_pending());
    }
    assert_eq!((Arc::strong_count(&dropped), Arc::strong_count(&waiting)), (1, 3));
    stream.close(None);
    assert_eq!(Arc::strong_count(&waiting), 2, "the waker was woken and is no longer registered");
    assert!(closed.await.is_stream_closed());
}
