//! Tests of publishing, subscribing, queues and refusals.

use psrpc::SubscriptionKind::{Plain, Queue};
use psrpc::bus::{Bus, Delivery, Offer, ReplyTo, WakeList};
use psrpc::proto::{Channel, Compression, Frame};
use psrpc_bus_nats::{NatsBus, NatsOptions};

use crate::support::{
    SECOND, Subscriber, frame, next_of, number, offer, plain, publish, queue, runtime, sized, watch, within,
};
use psrpc_servers::Server;

#[tokio::test]
async fn channels_that_share_a_subject_get_their_own_frames() {
    let server = Server::nats(&[]);
    let (bus, other) = (
        NatsBus::connect(&server.url(), runtime()).await.unwrap(),
        NatsBus::connect(&server.url(), runtime()).await.unwrap(),
    );
    let (make, mend) = (plain("Make"), plain("Mend"));
    assert_eq!(make.server(), mend.server());
    let mut subscribers = Vec::new();
    for channel in [&make, &mend, &make] {
        subscribers.push(Subscriber::live(&bus, channel, Plain).await);
    }
    for round in 0..100 {
        publish(&other, &make, frame(2 * round)).await.unwrap();
        publish(&other, &mend, frame(2 * round + 1)).await.unwrap();
    }
    for round in 0..100 {
        assert_eq!(subscribers[0].number().await, 2 * round);
        assert_eq!(subscribers[1].number().await, 2 * round + 1);
        assert_eq!(subscribers[2].number().await, 2 * round);
    }
    // The bus ignores a frame for a channel that it has no listener for.
    publish(&other, &plain("Lend"), frame(7)).await.unwrap();
    assert!(subscribers.iter_mut().all(|subscriber| subscriber.waiting().is_empty()));
}

#[tokio::test]
async fn a_queue_delivers_each_frame_once_and_its_members_take_turns() {
    let server = Server::nats(&[]);
    let bus = NatsBus::connect(&server.url(), runtime()).await.unwrap();
    let mut subscribers = Vec::new();
    for _ in 0..3 {
        subscribers.push(Subscriber::live(&bus, &queue("Make"), Queue).await);
    }
    for round in 0..300 {
        publish(&bus, &queue("Make"), frame(round)).await.unwrap();
    }
    for round in 0..100 {
        for (place, subscriber) in subscribers.iter_mut().enumerate() {
            assert_eq!(subscriber.number().await, 3 * round + place as u32);
        }
    }
}

#[tokio::test]
async fn a_frame_that_fits_only_when_compressed_is_delivered_to_every_bus() {
    let server = Server::nats(&["max_payload: 65536"]);
    let plain_bus = NatsBus::connect(&server.url(), runtime()).await.unwrap();
    let options = NatsOptions::new().compression(Compression::DEFAULT);
    let compressing = NatsBus::connect_with(&server.url(), runtime(), options).await.unwrap();
    let (make, large) = (plain("Make"), sized(1, 100 * 1024));
    let mut subscribers = Vec::new();
    for bus in [&plain_bus, &compressing] {
        subscribers.push(Subscriber::live(bus, &make, Plain).await);
    }
    publish(&plain_bus, &make, large.clone()).await.unwrap_err();
    publish(&compressing, &make, large.clone()).await.unwrap();
    for subscriber in &mut subscribers {
        let delivery = subscriber.next().await;
        assert!(matches!(&delivery, Delivery::Frame(frame) if *frame == large));
    }
}

#[tokio::test]
async fn a_queue_spreads_over_buses() {
    let server = Server::nats(&[]);
    let mut subscribers = Vec::new();
    for _ in 0..3 {
        let bus = NatsBus::connect(&server.url(), runtime()).await.unwrap();
        subscribers.push(Subscriber::live(&bus, &queue("Make"), Queue).await);
    }
    let bus = NatsBus::connect(&server.url(), runtime()).await.unwrap();
    for number in 0..900 {
        publish(&bus, &queue("Make"), frame(number)).await.unwrap();
    }
    let mut taken_by = [const { Vec::new() }; 3];
    within(10 * SECOND, "all frames have arrived", async {
        for _ in 0..900 {
            let (subscriber, delivery) = next_of(&mut subscribers).await;
            taken_by[subscriber].push(taken(&delivery));
        }
    })
    .await;
    assert!(
        subscribers.iter_mut().all(|subscriber| subscriber.waiting().is_empty()),
        "each frame arrives once"
    );
    assert!(taken_by.iter().all(|numbers| numbers.len() > 100), "{taken_by:?}");
    let mut got = taken_by.concat();
    got.sort_unstable();
    assert_eq!(got, (0..900).collect::<Vec<_>>(), "each frame arrives once");
}

#[tokio::test]
async fn a_queue_frame_without_a_local_channel_goes_to_one_listener_as_misrouted() {
    let server = Server::nats(&[]);
    let bus = NatsBus::connect(&server.url(), runtime()).await.unwrap();
    let mut subscribers = [
        Subscriber::live(&bus, &queue("Make"), Queue).await,
        Subscriber::live(&bus, &queue("Mend"), Queue).await,
        Subscriber::live(&bus, &plain("Make"), Plain).await,
    ];
    publish(&bus, &queue("Lend"), frame(1)).await.unwrap();
    publish(&bus, &queue("Make"), frame(2)).await.unwrap();
    publish(&bus, &queue("Mend"), frame(3)).await.unwrap();
    let mut misrouted = 0;
    for (subscriber, own) in subscribers[..2].iter_mut().zip([2, 3]) {
        let mut delivery = subscriber.next().await;
        if let Delivery::Misrouted(frame) = &delivery {
            assert_eq!(number(frame), 1);
            misrouted += 1;
            delivery = subscriber.next().await;
        }
        assert!(matches!(&delivery, Delivery::Frame(frame) if number(frame) == own), "{delivery:?}");
    }
    assert_eq!(misrouted, 1);
    assert!(subscribers[2].waiting().is_empty());
}

/// Servers of one method and subscribers to the updates of another share a queue group, unless the
/// updates have their own.
#[tokio::test]
async fn updates_may_have_a_queue_group_of_their_own() {
    let server = Server::nats(&[]);
    let (make, updates) = (queue("Make"), queue("Updates"));
    for separate in [false, true] {
        let options = match separate {
            true => NatsOptions::new().separate_updates("Hats", "Updates"),
            false => NatsOptions::new(),
        };
        let connect =
            async || NatsBus::connect_with(&server.url(), runtime(), options.clone()).await.unwrap();
        let (serving, subscribing) = (connect().await, connect().await);
        let events = [&serving, &subscribing].map(watch);
        let mut subscribers = [
            Subscriber::live(&serving, &make, Queue).await,
            Subscriber::live(&subscribing, &updates, Queue).await,
        ];
        for number in 0..100 {
            publish(&serving, &make, frame(number)).await.unwrap();
            publish(&serving, &updates, frame(100 + number)).await.unwrap();
        }
        let (mut taken, mut misrouted) = (0, 0);
        within(10 * SECOND, "all frames have arrived", async {
            for _ in 0..200 {
                match next_of(&mut subscribers).await.1 {
                    Delivery::Frame(_) => taken += 1,
                    Delivery::Misrouted(_) => misrouted += 1,
                    other => panic!("{other:?}"),
                }
            }
        })
        .await;
        assert!(
            subscribers.iter_mut().all(|subscriber| subscriber.waiting().is_empty()),
            "each frame arrives once"
        );
        assert_eq!(misrouted == 0, separate, "{misrouted} of 200 frames were misrouted");
        let mut reported = 0;
        for mut events in events {
            let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
            while let std::task::Poll::Ready(Some(event)) =
                futures_core::Stream::poll_next(std::pin::Pin::new(&mut events), &mut cx)
            {
                match event {
                    psrpc::bus::BusEvent::Misrouted { count, .. } => reported += count,
                    other => panic!("{other:?}"),
                }
            }
        }
        assert_eq!(reported, misrouted);
    }
}

/// As in Go, a request without a channel name in its envelope reaches no method
/// (nats-channel-request-without-local).
#[tokio::test]
async fn a_frame_without_a_channel_name_reaches_no_method() {
    let server = Server::nats(&[]);
    let bus = NatsBus::connect(&server.url(), runtime()).await.unwrap();
    let mut subscribers = [
        Subscriber::live(&bus, &queue("Make"), Queue).await,
        Subscriber::live(&bus, &plain("Make"), Plain).await,
    ];
    for (subscriber, channel) in subscribers.iter_mut().zip([queue("Make"), plain("Make")]) {
        publish(&bus, &channel, Frame::Raw(frame(1).encode(""))).await.unwrap();
        publish(&bus, &channel, frame(2)).await.unwrap();
        let mut delivery = subscriber.next().await;
        // One listener of a queue gets it as misrouted.
        if let Delivery::Misrouted(frame) = &delivery {
            assert_eq!(number(frame), 1);
            delivery = subscriber.next().await;
        }
        assert!(matches!(&delivery, Delivery::Frame(frame) if number(frame) == 2), "{delivery:?}");
    }
}

#[tokio::test]
async fn bytes_that_are_no_frame_are_delivered_to_one_listener() {
    let server = Server::nats(&[]);
    let bus = NatsBus::connect(&server.url(), runtime()).await.unwrap();
    let mut subscribers = [
        Subscriber::live(&bus, &plain("Make"), Plain).await,
        Subscriber::live(&bus, &plain("Mend"), Plain).await,
    ];
    for bytes in [&[0xff_u8; 64][..], &[], b"\x0a\x05ab", b"\x12\x02\x1f\x8b\x20\x01"] {
        publish(&bus, &plain("Make"), Frame::Raw(bytes.to_vec().into())).await.unwrap();
    }
    publish(&bus, &plain("Mend"), frame(1)).await.unwrap();
    assert_eq!(subscribers[1].number().await, 1);
    let waiting = subscribers[0].waiting();
    assert_eq!(waiting.len(), 3, "an empty envelope is a frame: {waiting:?}");
    assert!(waiting.iter().all(|delivery| matches!(delivery, Delivery::Frame(Frame::Raw(_)))), "{waiting:?}");
}

#[tokio::test]
async fn a_channel_that_is_not_a_valid_subject_is_refused() {
    let server = Server::nats(&[]);
    let bus = NatsBus::connect(&server.url(), runtime()).await.unwrap();
    for id in ["", "a..b", ".", "a b", "*", ">", "x\r\nPUB SRV.Hats 0\r\n\r\n", "\u{7f}", &"x".repeat(5000)] {
        let channel = Channel::response("Hats", id);
        let error = publish(&bus, &channel, frame(1)).await.unwrap_err().to_string();
        assert!(error.starts_with("invalid NATS subject ") && error.contains(": it "), "{error}");
        match Subscriber::new(&bus, &channel, Plain, 1).next().await {
            Delivery::Ended(Some(error)) => {
                assert!(error.to_string().starts_with("invalid NATS subject "), "{error}");
            }
            other => panic!("{other:?}"),
        }
    }
    // The longest accepted subject does not break the connection.
    let channel = Channel::response("Hats", &"x".repeat(3840 - "CLI.Hats..RES".len()));
    let mut subscriber = Subscriber::live(&bus, &channel, Plain).await;
    publish(&bus, &channel, frame(1)).await.unwrap();
    assert_eq!(subscriber.number().await, 1);
    assert!(subscriber.waiting().is_empty());
}

#[tokio::test]
async fn a_frame_may_be_as_large_as_the_server_allows() {
    let server = Server::nats(&["max_payload: 10000"]);
    let bus = NatsBus::connect(&server.url(), runtime()).await.unwrap();
    let channel = plain("Make");
    let mut subscriber = Subscriber::live(&bus, &channel, Plain).await;
    let overhead = sized(1, 9000).encode(channel.local()).len() - 9000;
    publish(&bus, &channel, sized(1, 10_000 - overhead)).await.unwrap();
    assert_eq!(subscriber.number().await, 1);
    let error = publish(&bus, &channel, sized(2, 10_001 - overhead)).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "frame too large for \"SRV.Hats\": 10001 bytes, but the NATS server accepts 10000 (max_payload)"
    );
    publish(&bus, &channel, sized(3, 1)).await.unwrap();
    assert_eq!(subscriber.number().await, 3);
}

#[tokio::test]
async fn frames_keep_their_order_when_the_queue_is_full() {
    let server = Server::nats(&[]);
    let bus = NatsBus::connect_with(&server.url(), runtime(), NatsOptions::new().queue_bytes(10_000))
        .await
        .unwrap();
    let other = NatsBus::connect(&server.url(), runtime()).await.unwrap();
    let mut subscriber = Subscriber::live(&other, &plain("Make"), Plain).await;
    // Fill the queue once, while the bus is writing.
    let mut accepted = 0;
    let publish = |number| {
        let offer = Offer::new(plain("Make"), sized(number, 1000), ReplyTo::new(drop));
        bus.publish(offer, &mut WakeList::new())
    };
    while publish(accepted).is_ok() {
        accepted += 1;
    }
    assert!(accepted >= 8, "{accepted} frames of 1,000 bytes");
    let (mut results, all) = (Vec::new(), accepted + 2000);
    for number in accepted..all {
        results.push(offer(&bus, &plain("Make"), sized(number, 1000)).await);
    }
    for result in results {
        assert_eq!(result.await.unwrap().unwrap(), None);
    }
    for number in 0..all {
        assert_eq!(subscriber.number().await, number);
    }
}

#[tokio::test]
async fn every_task_waiting_for_room_is_woken() {
    let server = Server::nats(&[]);
    let bus =
        NatsBus::connect_with(&server.url(), runtime(), NatsOptions::new().queue_bytes(1)).await.unwrap();
    let mut subscriber = Subscriber::live(&bus, &plain("Make"), Plain).await;
    let tasks: Vec<_> = (0..50)
        .map(|number| {
            let bus = bus.clone();
            tokio::spawn(async move { publish(&bus, &plain("Make"), frame(number)).await.unwrap() })
        })
        .collect();
    for task in tasks {
        tokio::time::timeout(10 * SECOND, task).await.unwrap().unwrap();
    }
    let mut numbers = Vec::new();
    for _ in 0..50 {
        numbers.push(subscriber.number().await);
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (0..50).collect::<Vec<_>>());
}

/// Unsubscribes queue members while frames arrive, and checks that no frame is lost.
/// `other_channel` receives the misrouted frames.
async fn unsubscribe_under_load(bus: &NatsBus, others: &NatsBus, mut other_channel: Option<Subscriber>) {
    const FRAMES: u32 = 50_000;
    let mut permanent = Subscriber::live(others, &queue("Make"), Queue).await;
    let publisher = others.clone();
    let mut publishing = tokio::spawn(async move {
        for number in 0..FRAMES {
            drop(offer(&publisher, &queue("Make"), frame(number)).await);
        }
    });
    let (mut all, mut published) = (Vec::new(), false);
    while !published {
        let mut temporary = Subscriber::live(bus, &queue("Make"), Queue).await;
        within(10 * SECOND, "a frame arrives", async {
            tokio::select! {
                delivery = temporary.next() => all.push(taken(&delivery)),
                result = &mut publishing => {
                    result.unwrap();
                    published = true;
                }
            }
        })
        .await;
        all.extend(temporary.rest().await);
    }
    let to_temporary = all.len();
    let mut subscribers: Vec<_> =
        [Some(&mut permanent), other_channel.as_mut()].into_iter().flatten().collect();
    within(10 * SECOND, "all frames have arrived", async {
        while all.len() < FRAMES as usize {
            let (_, delivery) = next_of(subscribers.iter_mut().map(|subscriber| &mut **subscriber)).await;
            all.push(taken(&delivery));
        }
    })
    .await;
    all.extend(
        subscribers.iter_mut().flat_map(|subscriber| subscriber.waiting()).map(|delivery| taken(&delivery)),
    );
    all.sort_unstable();
    assert!(all.iter().copied().eq(0..FRAMES), "{} of {FRAMES}", all.len());
    assert!(to_temporary > 100, "{to_temporary} frames went to temporary members");
}

fn taken(delivery: &Delivery) -> u32 {
    match delivery {
        Delivery::Frame(frame) | Delivery::Misrouted(frame) => number(frame),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_leaves_a_queue_gets_every_frame_assigned_to_it() {
    let server = Server::nats(&[]);
    let bus = NatsBus::connect(&server.url(), runtime()).await.unwrap();
    let others = NatsBus::connect(&server.url(), runtime()).await.unwrap();
    unsubscribe_under_load(&bus, &others, None).await;
    // Again while another channel has the same subject.
    let other_channel = Subscriber::live(&bus, &queue("Mend"), Queue).await;
    unsubscribe_under_load(&bus, &others, Some(other_channel)).await;
}

#[tokio::test]
async fn a_subscription_can_be_dropped_before_it_is_live() {
    let server = Server::nats(&[]);
    let bus = NatsBus::connect(&server.url(), runtime()).await.unwrap();
    let mut subscribers: Vec<_> =
        (0..200).map(|n| Subscriber::new(&bus, &crate::support::topic(&n.to_string()), Plain, 1)).collect();
    subscribers.iter_mut().for_each(|subscriber| subscriber.subscription = None);
    for subscriber in &mut subscribers {
        let mut delivery = subscriber.next().await;
        if matches!(delivery, Delivery::Live) {
            delivery = subscriber.next().await;
        }
        assert!(matches!(delivery, Delivery::Ended(None)), "{delivery:?}");
    }
}
