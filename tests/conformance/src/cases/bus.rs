//! Requirements on a bus itself.

use std::time::Duration;

use psrpc::SubscriptionKind::{Plain, Queue};
use psrpc::bus::Delivery;
use psrpc::proto::{Any, Channel, Frame, Request, Text};

use super::case_list;
use crate::case::{Case, Verdict, check, check_eq};
use crate::env::Env;
use crate::foreign::{FrameReceiver, next_of_any};

pub(super) const CASES: &[Case] = case_list! {
    "bus/live-when-resolved", "I13", "a subscriber gets a frame published right after its subscription resolved", live;
    "bus/plain/everybody", "section 2", "every plain subscriber gets every frame", everybody;
    "bus/queue/one", "section 11", "each frame goes to one of a channel's queue subscribers", one;
    "bus/queue/turns", "section 11", "queue subscribers of one bus take turns", turns;
    "bus/queue/beside-plain", "section 11", "queue and plain subscribers of different channels do not interfere", beside;
    "bus/order", "section 5", "frames of one publisher on a channel arrive in order", order;
    "bus/channels-apart", "section 2", "frames reach only the subscribers of their channel", apart;
    "bus/unsubscribe/ends", "design: the bus", "a subscription yields its end, and nothing after it", ends;
    "bus/unsubscribe/others-go-on", "I12", "the end of one subscription does not affect another", others_go_on;
    "bus/slow-subscriber", "I12", "a slow subscriber loses its own newest frames, which are counted, and delays no other", slow;
    "bus/frames/unchanged", "section 1", "every field of a frame arrives unchanged", unchanged;
    "bus/frames/large", "section 1", "a frame of 512 KiB arrives", large;
    "bus/frames/raw", "I11", "bytes that are not a frame are delivered or dropped; later frames still arrive", raw;
};

// Each case has topics of its own: a server of a cluster may deliver a frame after the case that
// published it.

fn channel(topic: &str) -> Channel {
    Channel::request("Shop", "Bus", &[topic], false)
}

fn queue_channel(topic: &str) -> Channel {
    Channel::request("Shop", "Bus", &[topic], true)
}

/// Returns a frame with the current time, since a bus may drop an identical frame as a duplicate,
/// even one of an earlier case.
fn frame(env: &Env, number: u32) -> Frame {
    let now = env.runtime().now().wall;
    Frame::Request(Request {
        request_id: format!("REQ_{number}").as_str().into(),
        client_id: "CLI_bus".into(),
        sent_at: now.as_unix_nanos(),
        expiry: (now + Duration::from_secs(60)).as_unix_nanos(),
        ..Request::default()
    })
}

async fn number(receiver: &mut FrameReceiver) -> Result<u32, String> {
    let request = receiver.request().await?;
    let id = request.request_id.as_str().strip_prefix("REQ_").unwrap_or_default();
    id.parse().map_err(|_| format!("an unexpected frame {request:?}"))
}

async fn live(env: Env) -> Verdict {
    let foreign = env.foreign().await?;
    for round in 0..50 {
        let topic = format!("live{round}");
        let mut receiver = env.foreign().await?.listen(&channel(&topic), Plain).await?;
        foreign.send(&channel(&topic), frame(&env, round)).await?;
        check_eq!(number(&mut receiver).await?, round, "the frame of round {round}");
    }
    Ok(())
}

async fn everybody(env: Env) -> Verdict {
    let channel = channel("everybody");
    let mut receivers = Vec::new();
    for _ in 0..5 {
        receivers.push(env.foreign().await?.listen(&channel, Plain).await?);
    }
    for round in 0..20 {
        env.foreign().await?.send(&channel, frame(&env, round)).await?;
        for receiver in &mut receivers {
            check_eq!(number(receiver).await?, round, "the frame of round {round}");
        }
    }
    Ok(())
}

/// Publishes numbered frames. Returns the numbers that each receiver got, once all have arrived.
async fn spread(
    env: &Env,
    channel: &Channel,
    receivers: &mut [FrameReceiver],
    frames: u32,
) -> Result<Vec<Vec<u32>>, String> {
    let foreign = env.foreign().await?;
    for round in 0..frames {
        foreign.send(channel, frame(env, round)).await?;
    }
    let mut received = vec![Vec::new(); receivers.len()];
    let arrive = async {
        for _ in 0..frames {
            let (receiver, delivery) = next_of_any(receivers).await;
            let Some(Delivery::Frame(Frame::Request(request))) = delivery else {
                return Err(format!("an unexpected delivery {delivery:?}"));
            };
            received[receiver].push(request.request_id.as_str()["REQ_".len()..].parse().unwrap_or(u32::MAX));
        }
        Ok(())
    };
    let arrived = env.within(Duration::from_secs(2), arrive).await;
    arrived.map_err(|_| format!("expected {frames} frames, got {received:?}"))??;
    // Duplicates would arrive within this time.
    env.sleep(Duration::from_millis(50)).await;
    for (receiver, received) in receivers.iter_mut().zip(&mut received) {
        received.extend(receiver.waiting().iter().map(|_| u32::MAX));
    }
    Ok(received)
}

async fn one(env: Env) -> Verdict {
    let channel = queue_channel("one");
    let mut receivers = Vec::new();
    for _ in 0..3 {
        receivers.push(env.foreign().await?.listen(&channel, Queue).await?);
    }
    let mut all: Vec<_> = spread(&env, &channel, &mut receivers, 60).await?.concat();
    all.sort_unstable();
    check_eq!(all, (0..60).collect::<Vec<_>>(), "each frame once");
    Ok(())
}

async fn turns(env: Env) -> Verdict {
    let channel = queue_channel("turns");
    let foreign = env.foreign().await?;
    let mut receivers = Vec::new();
    for _ in 0..3 {
        receivers.push(foreign.listen(&channel, Queue).await?);
    }
    let received = spread(&env, &channel, &mut receivers, 30).await?;
    for receiver in &received {
        check_eq!(receiver.len(), 10, "the frames of one subscriber, out of {received:?}");
    }
    Ok(())
}

async fn beside(env: Env) -> Verdict {
    let (queue, plain) = (queue_channel("beside"), Channel::claim_response("Shop", "Bus", &["beside"]));
    let mut at_queue = [
        env.foreign().await?.listen(&queue, Queue).await?,
        env.foreign().await?.listen(&queue, Queue).await?,
    ];
    let mut at_plain = [
        env.foreign().await?.listen(&plain, Plain).await?,
        env.foreign().await?.listen(&plain, Plain).await?,
    ];
    let foreign = env.foreign().await?;
    foreign.send(&plain, frame(&env, 7)).await?;
    for receiver in &mut at_plain {
        check_eq!(number(receiver).await?, 7, "the frame on the plain channel");
    }
    let received = spread(&env, &queue, &mut at_queue, 10).await?;
    check_eq!(received.concat().len(), 10, "the frames on the queue channel");
    Ok(())
}

async fn order(env: Env) -> Verdict {
    let channel = channel("order");
    let mut receiver = env.foreign().await?.listen_with(&channel, Plain, 2000).await?;
    let foreign = env.foreign().await?;
    for round in 0..1000 {
        foreign.send(&channel, frame(&env, round)).await?;
    }
    for round in 0..1000 {
        check_eq!(number(&mut receiver).await?, round, "frame {round}");
    }
    Ok(())
}

async fn apart(env: Env) -> Verdict {
    let topics = ["a", "b", "ab", "a b", "a.b", "é"];
    let mut receivers = Vec::new();
    for topic in topics {
        receivers.push(env.foreign().await?.listen(&channel(topic), Plain).await?);
    }
    for (round, topic) in topics.iter().enumerate() {
        env.foreign().await?.send(&channel(topic), frame(&env, round as u32)).await?;
        check_eq!(number(&mut receivers[round]).await?, round as u32, "the frame for topic {topic:?}");
    }
    for (receiver, topic) in receivers.iter_mut().zip(topics) {
        check!(receiver.waiting().is_empty(), "topic {topic:?} received a frame of another");
    }
    Ok(())
}

async fn ends(env: Env) -> Verdict {
    let channel = channel("ends");
    let foreign = env.foreign().await?;
    let mut receiver = foreign.listen(&channel, Plain).await?;
    foreign.send(&channel, frame(&env, 1)).await?;
    check_eq!(number(&mut receiver).await?, 1, "the frame before the end");
    receiver.unsubscribe();
    match receiver.next().await {
        Some(Delivery::Ended(None)) => {}
        other => return Err(format!("expected the end, got {other:?}")),
    }
    foreign.send(&channel, frame(&env, 2)).await?;
    check!(receiver.next().await.is_none(), "there is a frame after the end");
    Ok(())
}

async fn others_go_on(env: Env) -> Verdict {
    let channel = channel("others_go_on");
    let foreign = env.foreign().await?;
    let (mut closing, mut remaining) =
        (foreign.listen(&channel, Plain).await?, foreign.listen(&channel, Plain).await?);
    closing.unsubscribe();
    check!(matches!(closing.next().await, Some(Delivery::Ended(None))), "expected the end");
    foreign.send(&channel, frame(&env, 1)).await?;
    check_eq!(number(&mut remaining).await?, 1, "the frame of the remaining subscriber");
    Ok(())
}

async fn slow(env: Env) -> Verdict {
    let channel = channel("slow");
    let bus = env.foreign().await?;
    let mut slow = bus.listen_with(&channel, Plain, 10).await?;
    // On the same connection as the slow one: they receive frames at the same time.
    let mut beside = bus.listen_with(&channel, Plain, 1000).await?;
    let mut quick = env.foreign().await?.listen_with(&channel, Plain, 1000).await?;
    let foreign = env.foreign().await?;
    for round in 0..100 {
        foreign.send(&channel, frame(&env, round)).await?;
    }
    for round in 0..100 {
        check_eq!(number(&mut quick).await?, round, "the frame of the quick subscriber");
        check_eq!(
            number(&mut beside).await?,
            round,
            "the frame of the quick subscriber on the same connection"
        );
    }
    for round in 0..10 {
        check_eq!(number(&mut slow).await?, round, "the frames within its capacity");
    }
    match slow.next().await {
        Some(Delivery::Gap(lost)) => check_eq!(lost, Some(90), "the frames lost"),
        other => return Err(format!("expected a gap, got {other:?}")),
    }
    foreign.send(&channel, frame(&env, 100)).await?;
    check_eq!(number(&mut slow).await?, 100, "the frame after the gap");
    Ok(())
}

async fn unchanged(env: Env) -> Verdict {
    let channel = channel("unchanged");
    let foreign = env.foreign().await?;
    let mut receiver = foreign.listen(&channel, Plain).await?;
    let request = Frame::Request(Request {
        request_id: "REQ_".into(),
        client_id: "a client whose id is too long to be stored inline".into(),
        sent_at: -1,
        expiry: i64::MAX,
        multi: true,
        metadata: [("näme", "välue"), ("", "")].into_iter().collect(),
        payload: (0..=255).collect::<Vec<u8>>().into(),
        skip_claim: true,
    });
    let type_url = Text::from("type.googleapis.com/conformance.v1.Reply");
    let update = Frame::Other(Any { type_url, value: vec![0x0a, 1, b'x'].into() });
    for frame in [request, update] {
        foreign.send(&channel, frame.clone()).await?;
        check_eq!(receiver.frame().await?, frame, "the frame");
    }
    Ok(())
}

async fn large(env: Env) -> Verdict {
    let channel = channel("large");
    let foreign = env.foreign().await?;
    let mut receiver = foreign.listen(&channel, Plain).await?;
    let payload: Vec<u8> = (0..512 * 1024).map(|place| (place % 251) as u8).collect();
    let request = Request { payload: payload.clone().into(), ..Request::default() };
    foreign.send(&channel, Frame::Request(request)).await?;
    check!(receiver.request().await?.payload == payload, "the payload has changed");
    Ok(())
}

async fn raw(env: Env) -> Verdict {
    let channel = channel("raw");
    let foreign = env.foreign().await?;
    let mut receiver = foreign.listen(&channel, Plain).await?;
    foreign.send(&channel, Frame::Raw(vec![0xff; 64].into())).await?;
    foreign.send(&channel, frame(&env, 1)).await?;
    // A bus that routes by the envelope cannot deliver it.
    loop {
        match receiver.frame().await {
            Ok(Frame::Request(request)) => {
                check_eq!(request.request_id.as_str(), "REQ_1", "the frame after the invalid one");
                return Ok(());
            }
            Ok(other) => return Err(format!("an unexpected {}", other.kind())),
            Err(_) => {}
        }
    }
}
