//! Streams, multi calls and subscriptions that are dropped, ended and asked at the worst of times.

mod hats;
mod shop;

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use hats::{HandBus, Log, settle};
use psrpc_bus_local::LocalBus;
use psrpc_tokio::*;
use shop::{BULLETIN, Parade, RUMOUR, all, census, client, echo, opening, parade, server, text};

/// Polls once, whatever comes of it.
async fn poll_once<F: Future + ?Sized>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
}

/// A waker that uses its client when it is woken and when it is dropped, which nobody may do under
/// the client's lock.
struct Nosy(Client);

impl Nosy {
    fn waker(client: &Client) -> Waker {
        Arc::new(Self(client.clone())).into()
    }
}

impl Wake for Nosy {
    fn wake(self: Arc<Self>) {
        self.0.in_flight();
    }
}

impl Drop for Nosy {
    fn drop(&mut self) {
        self.0.streams();
    }
}

/// Polls with wakers that replace each other.
fn poll_nosily<F: Future + ?Sized>(client: &Client, future: Pin<&mut F>) {
    let mut future = future;
    for _ in 0..2 {
        let waker = Nosy::waker(client);
        assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
}

#[tokio::test(start_paused = true)]
async fn wakers_may_use_the_client_that_they_wait_for() {
    let bus = LocalBus::new();
    let server = server(&bus, "elm", ServerOptions::new(), echo).await;
    let client = client(&bus).await;
    let stream = parade(&client).await;
    let mut rumours: Subscription<String> = client.subscribe(RUMOUR, &[]).await.unwrap();
    let mut answers = census(&client, "who").timeout(Duration::from_millis(10)).await.unwrap();
    let mut subscribing = pin!(client.subscribe::<String>(BULLETIN, &["hill"]).into_future());
    let mut opening = pin!(opening(&client).into_future());
    poll_nosily(&client, subscribing.as_mut());
    poll_nosily(&client, opening.as_mut());
    poll_nosily(&client, pin!(stream.send(text("a")).into_future()));
    poll_nosily(&client, pin!(stream.next()));
    poll_nosily(&client, pin!(stream.closed()));
    poll_nosily(&client, pin!(answers.next()));
    poll_nosily(&client, pin!(rumours.next()));
    // Each is woken by the last of its wakers.
    settle().await;
    assert_eq!(stream.next().await.unwrap(), "echo a");
    assert_eq!(answers.next().await.unwrap().unwrap().as_str(), "elm");
    server.publish(RUMOUR, &[], &text("psst")).await.unwrap();
    assert_eq!(rumours.next().await.unwrap().unwrap(), "psst");
    poll_nosily(&client, pin!(stream.next()));
    poll_nosily(&client, pin!(answers.next()));
    poll_nosily(&client, pin!(rumours.next()));
    drop((stream, answers, rumours));
    assert!(subscribing.await.is_ok() && opening.await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn tasks_that_wait_on_one_stream_share_its_messages_and_all_see_the_end() {
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
    let given_up = waiting(true);
    let tasks = [waiting(false), waiting(true), waiting(true)];
    settle().await;
    // The message finds a task that is gone among those that wait.
    stream.send(text("1")).await.unwrap();
    given_up.abort();
    settle().await;
    for number in 2..6 {
        stream.send(number.to_string()).await.unwrap();
    }
    settle().await;
    let mut heard = log.take();
    heard.sort();
    assert_eq!(heard, ["echo 1", "echo 2", "echo 3", "echo 4", "echo 5"]);
    stream.close(None);
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(log.take(), ["end", "end"]);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_being_decoded_comes_before_the_end() {
    struct Look(Arc<OnceLock<Parade>>, Log);

    impl InterceptedStream for Look {
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
    let (client, log, known) = (client(&bus).await, Log::default(), Arc::new(OnceLock::new()));
    let (noted, looked) = (log.clone(), Arc::clone(&known));
    let stream = opening(&client)
        .interceptor(move |_: &mut OpeningStream| {
            Ok(Box::new(Look(Arc::clone(&looked), noted.clone())) as Box<dyn InterceptedStream>)
        })
        .await
        .unwrap();
    known.set(stream).unwrap();
    let stream = known.get().unwrap();
    stream.send(text("go")).await.unwrap();
    assert!(stream.closed().await.is_stream_closed());
    assert_eq!(log.take(), ["Pending, ended: true", "Ready(Some(\"last\")), ended: true"]);
    assert_eq!(stream.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_before_it_is_fetched_is_there_all_the_same() {
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
async fn an_opening_that_is_dropped_when_it_is_done_closes_the_stream() {
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
async fn streams_that_end_in_every_way_leave_nothing_behind() {
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
    let kept = parade(&client).await;
    kept.send(text("stay")).await.unwrap();
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
        // Half of them live on until another has their place.
        if round % 2 == 0 {
            settle().await;
        }
    }
    kept.send(text("a")).await.unwrap();
    assert_eq!(kept.next().await.unwrap(), "echo a");
    drop(kept);
    settle().await;
    assert_eq!((client.streams(), client.in_flight(), server.streams(), server.in_flight()), (0, 0, 0, 0));
}

/// Logs when it is dropped, and uses its server then, which nobody may do under the server's lock.
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

/// A server whose streams have a layer that uses it.
async fn watched<F, Fut>(name: &'static str, log: &Log, handler: F) -> (LocalBus, Server)
where
    F: Fn(ServerStream<String, String>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), Error>> + Send + 'static,
{
    let (bus, known, noted) = (LocalBus::new(), Arc::new(OnceLock::new()), log.clone());
    let layered = Arc::clone(&known);
    let options = ServerOptions::new().stream_interceptor(move |_: &mut OpeningStream| {
        Ok(Box::new(OnDrop(Arc::clone(&layered), noted.clone())) as Box<dyn InterceptedStream>)
    });
    let server = server(&bus, name, options, handler).await;
    known.set(server.clone()).unwrap();
    (bus, server)
}

#[tokio::test(start_paused = true)]
async fn a_layer_that_is_dropped_may_use_its_server() {
    let log = Log::default();
    let (bus, server) = watched("elm", &log, |stream| async move {
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

/// A message that runs what it was given when it is dropped.
#[derive(Default)]
struct Parcel(Option<Box<dyn FnOnce() + Send + Sync>>);

impl Drop for Parcel {
    fn drop(&mut self) {
        self.0.take().into_iter().for_each(|run| run());
    }
}

impl std::fmt::Debug for Parcel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Parcel")
    }
}

/// It carries nothing.
impl prost::Message for Parcel {
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

/// Gives parcels in place of the messages of a stream, which it drops meanwhile.
struct Courier(Arc<Mutex<Option<ClientStream<String, Parcel>>>>, Client, Log);

impl InterceptedStream for Courier {
    fn receive(&self, _: AnyMessage) -> Result<AnyMessage, Error> {
        self.0.lock().unwrap().take();
        let (client, log) = (self.1.clone(), self.2.clone());
        Ok(AnyMessage::new(Parcel(Some(Box::new(move || {
            log.add(format!("dropped, {} streams", client.streams()));
            panic!("a message that panics when it is dropped");
        })))))
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_that_nobody_wants_any_more_may_use_its_client_and_panic_when_it_is_dropped() {
    let bus = LocalBus::new();
    let server = server(&bus, "elm", ServerOptions::new(), |stream| async move {
        settle().await;
        stream.send(text("a")).await
    })
    .await;
    let (client, log, kept) = (client(&bus).await, Log::default(), Arc::default());
    let (ours, noted, held) = (client.clone(), log.clone(), Arc::clone(&kept));
    let stream: ClientStream<String, Parcel> = client
        .open_stream(shop::PARADE, &[])
        .interceptor(move |_: &mut OpeningStream| {
            let courier = Courier(Arc::clone(&held), ours.clone(), noted.clone());
            Ok(Box::new(courier) as Box<dyn InterceptedStream>)
        })
        .await
        .unwrap();
    *kept.lock().unwrap() = Some(stream);
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(log.take(), ["dropped, 0 streams"]);
    assert_eq!(all(census(&client, "who").answers(1).await.unwrap()).await, ["elm"]);
    assert_eq!(server.streams(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_was_stopped_before_it_started_leaves_no_stream() {
    let log = Log::default();
    let (bus, server) = watched("doomed", &log, |_| async { panic!("it does not start") }).await;
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
    let noted = log.clone();
    let server = server(&bus, "elm", ServerOptions::new(), move |stream| {
        let guard = Guard(stream, noted.clone());
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
async fn streams_answers_and_subscriptions_keep_their_client_alive() {
    let bus = LocalBus::new();
    let server = server(&bus, "elm", ServerOptions::new(), echo).await;
    let client = client(&bus).await;
    let (send, receive) = parade(&client).await.split();
    let answers = census(&client, "who").answers(1).await.unwrap();
    let mut bulletins: Subscription<String> = client.subscribe(BULLETIN, &["hill"]).await.unwrap();
    drop(client);
    assert_eq!(all(answers).await, ["elm"]);
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
    let client = client(&HandBus::default()).await;
    let mut rumours: Subscription<String> = client.subscribe(RUMOUR, &[]).await.unwrap();
    client.close();
    assert!(tokio::time::timeout(Duration::from_secs(60), rumours.next()).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_handler_may_drop_its_stream_and_go_on() {
    let bus = LocalBus::new();
    let (told, ended) = tokio::sync::oneshot::channel();
    let told = Mutex::new(Some(told));
    let server = server(&bus, "elm", ServerOptions::new(), move |stream| {
        drop(stream);
        let told = told.lock().unwrap().take().unwrap();
        async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            told.send(()).unwrap();
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
async fn a_task_that_gives_up_waiting_is_forgotten() {
    struct Quiet;

    impl Wake for Quiet {
        fn wake(self: Arc<Self>) {}
    }

    let bus = LocalBus::new();
    let _server = server(&bus, "elm", ServerOptions::new(), echo).await;
    let client = client(&bus).await;
    let stream = parade(&client).await;
    let (gives_up, stays) = (Arc::new(Quiet), Arc::new(Quiet));
    let mut staying = pin!(stream.closed());
    let waker = Arc::clone(&stays).into();
    assert!(staying.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    for _ in 0..3 {
        let waker = Arc::clone(&gives_up).into();
        assert!(pin!(stream.next()).poll(&mut Context::from_waker(&waker)).is_pending());
        assert!(pin!(stream.closed()).poll(&mut Context::from_waker(&waker)).is_pending());
    }
    assert_eq!((Arc::strong_count(&gives_up), Arc::strong_count(&stays)), (1, 3));
    stream.close(None);
    assert_eq!(Arc::strong_count(&stays), 2, "it was woken, and is with its task alone");
    assert!(staying.await.is_stream_closed());
}
