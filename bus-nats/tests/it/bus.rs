//! What a bus does: publish, subscribe, queue, and refuse.

use psrpc::SubscriptionKind::{Plain, Queue};
use psrpc::bus::{Bus, Delivery, Offer, ReplyTo, WakeList};
use psrpc::proto::{Channel, Compression, Frame};
use psrpc_bus_nats::{NatsBus, NatsOptions};

use crate::support::{
    Ear, SECOND, frame, next_of, number, offer, plain, publish, queue, runtime, sized, watch, within,
};
use psrpc_servers::Server;

#[tokio::test]
async fn channels_share_a_subject_and_frames_find_theirs() {
    let server = Server::nats(&[]);
    let (bus, other) = (
        NatsBus::connect(&server.url(), runtime()).await.unwrap(),
        NatsBus::connect(&server.url(), runtime()).await.unwrap(),
    );
    let (make, mend) = (plain("Make"), plain("Mend"));
    assert_eq!(make.server(), mend.server());
    let mut ears = Vec::new();
    for channel in [&make, &mend, &make] {
        ears.push(Ear::live(&bus, channel, Plain).await);
    }
    for round in 0..100 {
        publish(&other, &make, frame(2 * round)).await.unwrap();
        publish(&other, &mend, frame(2 * round + 1)).await.unwrap();
    }
    for round in 0..100 {
        assert_eq!(ears[0].number().await, 2 * round);
        assert_eq!(ears[1].number().await, 2 * round + 1);
        assert_eq!(ears[2].number().await, 2 * round);
    }
    // A frame for a channel that nobody here listens to is for others.
    publish(&other, &plain("Lend"), frame(7)).await.unwrap();
    assert!(ears.iter_mut().all(|ear| ear.waiting().is_empty()));
}

#[tokio::test]
async fn a_queue_hands_out_each_frame_once_and_members_take_turns() {
    let server = Server::nats(&[]);
    let bus = NatsBus::connect(&server.url(), runtime()).await.unwrap();
    let mut ears = Vec::new();
    for _ in 0..3 {
        ears.push(Ear::live(&bus, &queue("Make"), Queue).await);
    }
    for round in 0..300 {
        publish(&bus, &queue("Make"), frame(round)).await.unwrap();
    }
    for round in 0..100 {
        for (place, ear) in ears.iter_mut().enumerate() {
            assert_eq!(ear.number().await, 3 * round + place as u32);
        }
    }
}

#[tokio::test]
async fn what_fits_only_when_compressed_reaches_whoever_compresses_or_not() {
    let server = Server::nats(&["max_payload: 65536"]);
    let plain_bus = NatsBus::connect(&server.url(), runtime()).await.unwrap();
    let options = NatsOptions::new().compression(Compression::DEFAULT);
    let compressing = NatsBus::connect_with(&server.url(), runtime(), options).await.unwrap();
    let (make, large) = (plain("Make"), sized(1, 100 * 1024));
    let mut ears = Vec::new();
    for bus in [&plain_bus, &compressing] {
        ears.push(Ear::live(bus, &make, Plain).await);
    }
    publish(&plain_bus, &make, large.clone()).await.unwrap_err();
    publish(&compressing, &make, large.clone()).await.unwrap();
    for ear in &mut ears {
        let heard = ear.next().await;
        assert!(matches!(&heard, Delivery::Frame(heard) if *heard == large));
    }
}

#[tokio::test]
async fn a_queue_spreads_over_buses() {
    let server = Server::nats(&[]);
    let mut ears = Vec::new();
    for _ in 0..3 {
        let bus = NatsBus::connect(&server.url(), runtime()).await.unwrap();
        ears.push(Ear::live(&bus, &queue("Make"), Queue).await);
    }
    let bus = NatsBus::connect(&server.url(), runtime()).await.unwrap();
    for number in 0..900 {
        publish(&bus, &queue("Make"), frame(number)).await.unwrap();
    }
    let mut taken_by = [const { Vec::new() }; 3];
    within(10 * SECOND, "all frames have come", async {
        for _ in 0..900 {
            let (ear, delivery) = next_of(&mut ears).await;
            taken_by[ear].push(taken(&delivery));
        }
    })
    .await;
    assert!(ears.iter_mut().all(|ear| ear.waiting().is_empty()), "each once");
    assert!(taken_by.iter().all(|numbers| numbers.len() > 100), "{taken_by:?}");
    let mut got = taken_by.concat();
    got.sort_unstable();
    assert_eq!(got, (0..900).collect::<Vec<_>>(), "each once");
}

#[tokio::test]
async fn what_no_channel_of_a_queue_takes_goes_to_one_of_them() {
    let server = Server::nats(&[]);
    let bus = NatsBus::connect(&server.url(), runtime()).await.unwrap();
    let mut ears = [
        Ear::live(&bus, &queue("Make"), Queue).await,
        Ear::live(&bus, &queue("Mend"), Queue).await,
        Ear::live(&bus, &plain("Make"), Plain).await,
    ];
    publish(&bus, &queue("Lend"), frame(1)).await.unwrap();
    publish(&bus, &queue("Make"), frame(2)).await.unwrap();
    publish(&bus, &queue("Mend"), frame(3)).await.unwrap();
    let mut misrouted = 0;
    for (ear, own) in ears[..2].iter_mut().zip([2, 3]) {
        let mut delivery = ear.next().await;
        if let Delivery::Misrouted(frame) = &delivery {
            assert_eq!(number(frame), 1);
            misrouted += 1;
            delivery = ear.next().await;
        }
        assert!(matches!(&delivery, Delivery::Frame(frame) if number(frame) == own), "{delivery:?}");
    }
    assert_eq!(misrouted, 1);
    assert!(ears[2].waiting().is_empty());
}

/// Servers of one method and subscribers to the updates of another share a queue group, unless
/// these have one of their own.
#[tokio::test]
async fn updates_may_have_a_queue_group_of_their_own() {
    let server = Server::nats(&[]);
    let (make, told) = (queue("Make"), queue("Told"));
    for separate in [false, true] {
        let options = match separate {
            true => NatsOptions::new().separate_updates("Hats", "Told"),
            false => NatsOptions::new(),
        };
        let connect =
            async || NatsBus::connect_with(&server.url(), runtime(), options.clone()).await.unwrap();
        let (serving, subscribing) = (connect().await, connect().await);
        let events = [&serving, &subscribing].map(watch);
        let mut ears = [Ear::live(&serving, &make, Queue).await, Ear::live(&subscribing, &told, Queue).await];
        for number in 0..100 {
            publish(&serving, &make, frame(number)).await.unwrap();
            publish(&serving, &told, frame(100 + number)).await.unwrap();
        }
        let (mut taken, mut misrouted) = (0, 0);
        within(10 * SECOND, "everything has come", async {
            for _ in 0..200 {
                match next_of(&mut ears).await.1 {
                    Delivery::Frame(_) => taken += 1,
                    Delivery::Misrouted(_) => misrouted += 1,
                    other => panic!("{other:?}"),
                }
            }
        })
        .await;
        assert!(ears.iter_mut().all(|ear| ear.waiting().is_empty()), "each once");
        assert_eq!(misrouted == 0, separate, "{misrouted} of 200 have come where nobody takes them");
        let mut told = 0;
        for mut events in events {
            let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
            while let std::task::Poll::Ready(Some(event)) =
                futures_core::Stream::poll_next(std::pin::Pin::new(&mut events), &mut cx)
            {
                match event {
                    psrpc::bus::BusEvent::Misrouted { count, .. } => told += count,
                    other => panic!("{other:?}"),
                }
            }
        }
        assert_eq!(told, misrouted);
    }
}

/// As Go's: a request whose envelope names no channel reaches no method
/// (nats-channel-request-without-local).
#[tokio::test]
async fn a_frame_that_names_no_channel_is_for_nobody() {
    let server = Server::nats(&[]);
    let bus = NatsBus::connect(&server.url(), runtime()).await.unwrap();
    let mut ears =
        [Ear::live(&bus, &queue("Make"), Queue).await, Ear::live(&bus, &plain("Make"), Plain).await];
    for (ear, channel) in ears.iter_mut().zip([queue("Make"), plain("Make")]) {
        publish(&bus, &channel, Frame::Raw(frame(1).encode(""))).await.unwrap();
        publish(&bus, &channel, frame(2)).await.unwrap();
        let mut delivery = ear.next().await;
        // One of a queue is told.
        if let Delivery::Misrouted(frame) = &delivery {
            assert_eq!(number(frame), 1);
            delivery = ear.next().await;
        }
        assert!(matches!(&delivery, Delivery::Frame(frame) if number(frame) == 2), "{delivery:?}");
    }
}

#[tokio::test]
async fn what_is_no_frame_is_counted_by_one() {
    let server = Server::nats(&[]);
    let bus = NatsBus::connect(&server.url(), runtime()).await.unwrap();
    let mut ears =
        [Ear::live(&bus, &plain("Make"), Plain).await, Ear::live(&bus, &plain("Mend"), Plain).await];
    for bytes in [&[0xff_u8; 64][..], &[], b"\x0a\x05ab", b"\x12\x02\x1f\x8b\x20\x01"] {
        publish(&bus, &plain("Make"), Frame::Raw(bytes.to_vec().into())).await.unwrap();
    }
    publish(&bus, &plain("Mend"), frame(1)).await.unwrap();
    assert_eq!(ears[1].number().await, 1);
    let waiting = ears[0].waiting();
    assert_eq!(waiting.len(), 3, "an empty envelope is a frame: {waiting:?}");
    assert!(waiting.iter().all(|delivery| matches!(delivery, Delivery::Frame(Frame::Raw(_)))), "{waiting:?}");
}

#[tokio::test]
async fn a_channel_that_is_no_subject_is_refused() {
    let server = Server::nats(&[]);
    let bus = NatsBus::connect(&server.url(), runtime()).await.unwrap();
    for id in ["", "a..b", ".", "a b", "*", ">", "x\r\nPUB SRV.Hats 0\r\n\r\n", "\u{7f}", &"x".repeat(5000)] {
        let channel = Channel::response("Hats", id);
        let error = publish(&bus, &channel, frame(1)).await.unwrap_err().to_string();
        assert!(error.contains("cannot be a NATS subject: it "), "{error}");
        match Ear::new(&bus, &channel, Plain, 1).next().await {
            Delivery::Ended(Some(error)) => {
                assert!(error.to_string().contains("cannot be a NATS subject"), "{error}");
            }
            other => panic!("{other:?}"),
        }
    }
    // The longest subject that is accepted does the connection no harm.
    let channel = Channel::response("Hats", &"x".repeat(3840 - "CLI.Hats..RES".len()));
    let mut ear = Ear::live(&bus, &channel, Plain).await;
    publish(&bus, &channel, frame(1)).await.unwrap();
    assert_eq!(ear.number().await, 1);
    assert!(ear.waiting().is_empty());
}

#[tokio::test]
async fn a_frame_may_be_as_large_as_the_server_allows() {
    let server = Server::nats(&["max_payload: 10000"]);
    let bus = NatsBus::connect(&server.url(), runtime()).await.unwrap();
    let channel = plain("Make");
    let mut ear = Ear::live(&bus, &channel, Plain).await;
    let around = sized(1, 9000).encode(channel.local()).len() - 9000;
    publish(&bus, &channel, sized(1, 10_000 - around)).await.unwrap();
    assert_eq!(ear.number().await, 1);
    let error = publish(&bus, &channel, sized(2, 10_001 - around)).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "a frame of 10001 bytes on \"SRV.Hats\" is over the limit of 10000 bytes of the NATS server (max_payload)"
    );
    publish(&bus, &channel, sized(3, 1)).await.unwrap();
    assert_eq!(ear.number().await, 3);
}

#[tokio::test]
async fn frames_keep_their_order_when_the_queue_is_full() {
    let server = Server::nats(&[]);
    let bus = NatsBus::connect_with(&server.url(), runtime(), NatsOptions::new().queue_bytes(10_000))
        .await
        .unwrap();
    let other = NatsBus::connect(&server.url(), runtime()).await.unwrap();
    let mut ear = Ear::live(&other, &plain("Make"), Plain).await;
    // Until it is full for once: the bus's own thread writes meanwhile.
    let mut accepted = 0;
    let publish = |number| {
        let offer = Offer::new(plain("Make"), sized(number, 1000), ReplyTo::new(drop));
        bus.publish(offer, &mut WakeList::new())
    };
    while publish(accepted).is_ok() {
        accepted += 1;
    }
    assert!(accepted >= 8, "{accepted} frames of 1,000 bytes");
    let (mut told, all) = (Vec::new(), accepted + 2000);
    for number in accepted..all {
        told.push(offer(&bus, &plain("Make"), sized(number, 1000)).await);
    }
    for told in told {
        assert_eq!(told.await.unwrap().unwrap(), None);
    }
    for number in 0..all {
        assert_eq!(ear.number().await, number);
    }
}

#[tokio::test]
async fn everybody_who_waits_for_room_is_woken() {
    let server = Server::nats(&[]);
    let bus =
        NatsBus::connect_with(&server.url(), runtime(), NatsOptions::new().queue_bytes(1)).await.unwrap();
    let mut ear = Ear::live(&bus, &plain("Make"), Plain).await;
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
        numbers.push(ear.number().await);
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (0..50).collect::<Vec<_>>());
}

/// Subscriptions leave a queue while frames stream in, and lose none of those that they were
/// handed. `keeps` has what comes for nobody.
async fn leave(bus: &NatsBus, others: &NatsBus, mut keeps: Option<Ear>) {
    const FRAMES: u32 = 50_000;
    let mut stays = Ear::live(others, &queue("Make"), Queue).await;
    let publisher = others.clone();
    let mut publishing = tokio::spawn(async move {
        for number in 0..FRAMES {
            drop(offer(&publisher, &queue("Make"), frame(number)).await);
        }
    });
    let (mut all, mut published) = (Vec::new(), false);
    while !published {
        let mut leaves = Ear::live(bus, &queue("Make"), Queue).await;
        within(SECOND, "a frame comes", async {
            tokio::select! {
                delivery = leaves.next() => all.push(taken(&delivery)),
                result = &mut publishing => {
                    result.unwrap();
                    published = true;
                }
            }
        })
        .await;
        all.extend(leaves.rest().await);
    }
    let left = all.len();
    let mut ears: Vec<_> = [Some(&mut stays), keeps.as_mut()].into_iter().flatten().collect();
    within(10 * SECOND, "all frames have come", async {
        while all.len() < FRAMES as usize {
            let (_, delivery) = next_of(ears.iter_mut().map(|ear| &mut **ear)).await;
            all.push(taken(&delivery));
        }
    })
    .await;
    all.extend(ears.iter_mut().flat_map(|ear| ear.waiting()).map(|delivery| taken(&delivery)));
    all.sort_unstable();
    assert!(all.iter().copied().eq(0..FRAMES), "{} of {FRAMES}", all.len());
    assert!(left > 100, "{left} were handed to those who left");
}

fn taken(delivery: &Delivery) -> u32 {
    match delivery {
        Delivery::Frame(frame) | Delivery::Misrouted(frame) => number(frame),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_a_queue_gets_what_it_was_handed() {
    let server = Server::nats(&[]);
    let bus = NatsBus::connect(&server.url(), runtime()).await.unwrap();
    let others = NatsBus::connect(&server.url(), runtime()).await.unwrap();
    leave(&bus, &others, None).await;
    // Again where another channel keeps the subject.
    let keeps = Ear::live(&bus, &queue("Mend"), Queue).await;
    leave(&bus, &others, Some(keeps)).await;
}

#[tokio::test]
async fn a_subscription_that_is_hardly_live_ends_too() {
    let server = Server::nats(&[]);
    let bus = NatsBus::connect(&server.url(), runtime()).await.unwrap();
    let mut ears: Vec<_> =
        (0..200).map(|n| Ear::new(&bus, &crate::support::topic(&n.to_string()), Plain, 1)).collect();
    ears.iter_mut().for_each(|ear| ear.subscription = None);
    for ear in &mut ears {
        let mut delivery = ear.next().await;
        if matches!(delivery, Delivery::Live) {
            delivery = ear.next().await;
        }
        assert!(matches!(delivery, Delivery::Ended(None)), "{delivery:?}");
    }
}
