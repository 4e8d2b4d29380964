//! What a bus must do for itself.

use std::time::Duration;

use psrpc::SubscriptionKind::{Plain, Queue};
use psrpc::bus::Delivery;
use psrpc::proto::{Any, Channel, Frame, Request, Text};

use super::case_list;
use crate::case::{Case, Verdict, check, check_eq};
use crate::env::Env;
use crate::foreign::{Ear, next_of};

pub(super) const CASES: &[Case] = case_list! {
    "bus/live-when-resolved", "I13", "a frame published after subscribe has resolved reaches the subscriber", live;
    "bus/plain/everybody", "section 2", "every plain subscriber gets every frame", everybody;
    "bus/queue/one", "section 11", "of the queue subscribers of a channel one gets each frame", one;
    "bus/queue/turns", "section 11", "queue subscribers of one bus take turns", turns;
    "bus/queue/beside-plain", "section 11", "queue and plain subscribers of different channels do not disturb each other", beside;
    "bus/order", "section 5", "frames of one publisher on a channel arrive in order", order;
    "bus/channels-apart", "section 2", "frames reach the subscribers of their channel and nobody else", apart;
    "bus/unsubscribe/ends", "design: the bus", "after an unsubscribe nothing more comes, and the end is told", ends;
    "bus/unsubscribe/others-go-on", "I12", "the end of one subscription is no matter to another", others_go_on;
    "bus/slow-subscriber", "I12", "a subscriber that does not read loses its own newest frames, counted, and delays nobody", slow;
    "bus/frames/unchanged", "section 1", "every field of a frame arrives as it was sent", unchanged;
    "bus/frames/large", "section 1", "a frame of 512 KiB arrives", large;
    "bus/frames/raw", "I11", "bytes that are no frame are delivered, or dropped, without harm", raw;
};

fn channel(topic: &str) -> Channel {
    Channel::request("Shop", "Bus", &[topic], false)
}

fn queue_channel(topic: &str) -> Channel {
    Channel::request("Shop", "Bus", &[topic], true)
}

/// A frame of this moment: a bus may take an identical one for a duplicate, also of an earlier
/// case.
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

async fn number(ear: &mut Ear) -> Result<u32, String> {
    let request = ear.request().await?;
    let id = request.request_id.as_str().strip_prefix("REQ_").unwrap_or_default();
    id.parse().map_err(|_| format!("an unexpected frame {request:?}"))
}

async fn live(env: Env) -> Verdict {
    let foreign = env.foreign().await?;
    for round in 0..50 {
        let topic = format!("t{round}");
        let mut ear = env.foreign().await?.listen(&channel(&topic), Plain).await?;
        foreign.send(&channel(&topic), frame(&env, round)).await?;
        check_eq!(number(&mut ear).await?, round, "the frame of round {round}");
    }
    Ok(())
}

async fn everybody(env: Env) -> Verdict {
    let channel = channel("t");
    let mut ears = Vec::new();
    for _ in 0..5 {
        ears.push(env.foreign().await?.listen(&channel, Plain).await?);
    }
    for round in 0..20 {
        env.foreign().await?.send(&channel, frame(&env, round)).await?;
        for ear in &mut ears {
            check_eq!(number(ear).await?, round, "the frame of round {round}");
        }
    }
    Ok(())
}

/// Publishes frames with numbers, and gives those that each ear has heard once all have arrived
/// somewhere.
async fn spread(
    env: &Env,
    channel: &Channel,
    ears: &mut [Ear],
    frames: u32,
) -> Result<Vec<Vec<u32>>, String> {
    let foreign = env.foreign().await?;
    for round in 0..frames {
        foreign.send(channel, frame(env, round)).await?;
    }
    let mut heard = vec![Vec::new(); ears.len()];
    let arrive = async {
        for _ in 0..frames {
            let (ear, delivery) = next_of(ears).await;
            let Some(Delivery::Frame(Frame::Request(request))) = delivery else {
                return Err(format!("an unexpected delivery {delivery:?}"));
            };
            heard[ear].push(request.request_id.as_str()["REQ_".len()..].parse().unwrap_or(u32::MAX));
        }
        Ok(())
    };
    let arrived = env.within(Duration::from_secs(2), arrive).await;
    arrived.map_err(|_| format!("of {frames} frames arrived {heard:?}"))??;
    // Nothing is delivered twice in this time.
    env.sleep(Duration::from_millis(50)).await;
    for (ear, heard) in ears.iter_mut().zip(&mut heard) {
        heard.extend(ear.waiting().iter().map(|_| u32::MAX));
    }
    Ok(heard)
}

async fn one(env: Env) -> Verdict {
    let channel = queue_channel("t");
    let mut ears = Vec::new();
    for _ in 0..3 {
        ears.push(env.foreign().await?.listen(&channel, Queue).await?);
    }
    let mut all: Vec<_> = spread(&env, &channel, &mut ears, 60).await?.concat();
    all.sort_unstable();
    check_eq!(all, (0..60).collect::<Vec<_>>(), "each frame once");
    Ok(())
}

async fn turns(env: Env) -> Verdict {
    let channel = queue_channel("t");
    let foreign = env.foreign().await?;
    let mut ears = Vec::new();
    for _ in 0..3 {
        ears.push(foreign.listen(&channel, Queue).await?);
    }
    let heard = spread(&env, &channel, &mut ears, 30).await?;
    for ear in &heard {
        check_eq!(ear.len(), 10, "an equal share, of {heard:?}");
    }
    Ok(())
}

async fn beside(env: Env) -> Verdict {
    let (queue, plain) = (queue_channel("t"), Channel::claim_response("Shop", "Bus", &["t"]));
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
    for ear in &mut at_plain {
        check_eq!(number(ear).await?, 7, "the frame on the plain channel");
    }
    let heard = spread(&env, &queue, &mut at_queue, 10).await?;
    check_eq!(heard.concat().len(), 10, "the frames on the queue channel");
    Ok(())
}

async fn order(env: Env) -> Verdict {
    let channel = channel("t");
    let mut ear = env.foreign().await?.listen_with(&channel, Plain, 2000).await?;
    let foreign = env.foreign().await?;
    for round in 0..1000 {
        foreign.send(&channel, frame(&env, round)).await?;
    }
    for round in 0..1000 {
        check_eq!(number(&mut ear).await?, round, "the frame at place {round}");
    }
    Ok(())
}

async fn apart(env: Env) -> Verdict {
    let topics = ["a", "b", "ab", "a b", "a.b", "é"];
    let mut ears = Vec::new();
    for topic in topics {
        ears.push(env.foreign().await?.listen(&channel(topic), Plain).await?);
    }
    for (round, topic) in topics.iter().enumerate() {
        env.foreign().await?.send(&channel(topic), frame(&env, round as u32)).await?;
        check_eq!(number(&mut ears[round]).await?, round as u32, "the frame for topic {topic:?}");
    }
    for (ear, topic) in ears.iter_mut().zip(topics) {
        check!(ear.waiting().is_empty(), "topic {topic:?} heard a frame of another");
    }
    Ok(())
}

async fn ends(env: Env) -> Verdict {
    let channel = channel("t");
    let foreign = env.foreign().await?;
    let mut ear = foreign.listen(&channel, Plain).await?;
    foreign.send(&channel, frame(&env, 1)).await?;
    check_eq!(number(&mut ear).await?, 1, "the frame before the end");
    ear.unsubscribe();
    match ear.next().await {
        Some(Delivery::Ended(None)) => {}
        other => return Err(format!("the end was expected, and {other:?} came")),
    }
    foreign.send(&channel, frame(&env, 2)).await?;
    check!(ear.next().await.is_none(), "a frame came after the end");
    Ok(())
}

async fn others_go_on(env: Env) -> Verdict {
    let channel = channel("t");
    let foreign = env.foreign().await?;
    let (mut leaves, mut stays) =
        (foreign.listen(&channel, Plain).await?, foreign.listen(&channel, Plain).await?);
    leaves.unsubscribe();
    check!(matches!(leaves.next().await, Some(Delivery::Ended(None))), "the end was expected");
    foreign.send(&channel, frame(&env, 1)).await?;
    check_eq!(number(&mut stays).await?, 1, "the frame for who stays");
    Ok(())
}

async fn slow(env: Env) -> Verdict {
    let channel = channel("t");
    let bus = env.foreign().await?;
    let mut slow = bus.listen_with(&channel, Plain, 10).await?;
    // Over the same connection: what has come in for one has come in for the other.
    let mut beside = bus.listen_with(&channel, Plain, 1000).await?;
    let mut quick = env.foreign().await?.listen_with(&channel, Plain, 1000).await?;
    let foreign = env.foreign().await?;
    for round in 0..100 {
        foreign.send(&channel, frame(&env, round)).await?;
    }
    for round in 0..100 {
        check_eq!(number(&mut quick).await?, round, "the frame for who reads");
        check_eq!(number(&mut beside).await?, round, "the frame for who reads on the same connection");
    }
    for round in 0..10 {
        check_eq!(number(&mut slow).await?, round, "the frames that it had room for");
    }
    match slow.next().await {
        Some(Delivery::Gap(lost)) => check_eq!(lost, Some(90), "the frames lost"),
        other => return Err(format!("a gap was expected, and {other:?} came")),
    }
    foreign.send(&channel, frame(&env, 100)).await?;
    check_eq!(number(&mut slow).await?, 100, "the next frame, now that there is room");
    Ok(())
}

async fn unchanged(env: Env) -> Verdict {
    let channel = channel("t");
    let foreign = env.foreign().await?;
    let mut ear = foreign.listen(&channel, Plain).await?;
    let request = Frame::Request(Request {
        request_id: "REQ_".into(),
        client_id: "a client whose id is longer than is kept inline".into(),
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
        check_eq!(ear.frame().await?, frame, "what arrived");
    }
    Ok(())
}

async fn large(env: Env) -> Verdict {
    let channel = channel("t");
    let foreign = env.foreign().await?;
    let mut ear = foreign.listen(&channel, Plain).await?;
    let payload: Vec<u8> = (0..512 * 1024).map(|place| (place % 251) as u8).collect();
    let request = Request { payload: payload.clone().into(), ..Request::default() };
    foreign.send(&channel, Frame::Request(request)).await?;
    check!(ear.request().await?.payload == payload, "the payload has changed");
    Ok(())
}

async fn raw(env: Env) -> Verdict {
    let channel = channel("t");
    let foreign = env.foreign().await?;
    let mut ear = foreign.listen(&channel, Plain).await?;
    foreign.send(&channel, Frame::Raw(vec![0xff; 64].into())).await?;
    foreign.send(&channel, frame(&env, 1)).await?;
    // A bus that routes by the envelope has nobody to deliver it to.
    loop {
        match ear.frame().await {
            Ok(Frame::Request(request)) => {
                check_eq!(request.request_id.as_str(), "REQ_1", "the frame after it");
                return Ok(());
            }
            Ok(other) => return Err(format!("an unexpected {}", other.kind())),
            Err(_) => {}
        }
    }
}
