//! Writes the initial corpus, made from the recordings of Go peers, to `fuzz/corpus/` or to the
//! directory given as the argument.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use psrpc_vectors::{Bus, Conversation, Event, RECORDINGS};

/// The root of the repository.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// The separator between the parts of an input of the target `channel`.
const SEPARATOR: &str = "\u{1f}";

fn main() -> Result<(), Box<dyn Error>> {
    let (redis, nats) = (frames(Bus::Redis), frames(Bus::Nats));
    let frames = [redis.clone(), nats.clone()].concat();
    write("frame", frames.iter().cloned())?;
    // On Redis: two plain subscribers, and a queue subscriber whose lock is free. On NATS: seven
    // queue subscribers.
    write("redis_payload", redis.iter().map(|frame| [&[0b0000_0110, 0], &frame[..]].concat()))?;
    write("nats_payload", nats.iter().map(|frame| [&[0b1111_1111, 0], &frame[..]].concat()))?;
    // Two gaps of the maximum size on each subscription, and a published frame with the maximum
    // number of receivers.
    let gaps = (0..4)
        .flat_map(|at| [[&[3, at, 1][..], &[0xff; 8]].concat(), [&[3, at, 1][..], &[0xff; 8]].concat()]);
    let published = [&[0, 0, 3][..], &[0xff; 8]].concat();
    write("bus", [gaps.flatten().collect(), published])?;
    write("channel", channels())?;
    // Any bytes are the seed of a service, so frames work as well.
    let services = frames.iter().step_by(20).map(|frame| [&[0], &frame[..]].concat());
    write("compiler", protos()?.into_iter().chain(services))?;
    let conversations = || RECORDINGS.iter().flat_map(|recording| recording.conversations());
    write("client", conversations().map(|conversation| steps(&conversation)))?;
    write("server", conversations().map(|conversation| steps(&conversation)))
}

/// Returns all frames recorded on a bus.
fn frames(bus: Bus) -> Vec<Vec<u8>> {
    let recordings = RECORDINGS.iter().filter(|recording| recording.bus == bus);
    let conversations = recordings.flat_map(|recording| recording.conversations());
    conversations.flat_map(|conversation| published(&conversation)).collect()
}

fn published(conversation: &Conversation) -> Vec<Vec<u8>> {
    let published = conversation.frames.iter().filter_map(|event| match event {
        Event::Publish(publish) => Some(publish.bytes()),
        Event::Lock(_) => None,
    });
    published.collect()
}

/// Returns the frames of a conversation as input of an engine with the default options: each is
/// delivered to one subscription after the other, which is step 0 of both engine targets.
fn steps(conversation: &Conversation) -> Vec<u8> {
    let mut steps = vec![0; 6];
    for (subscription, frame) in (0..).zip(published(conversation)) {
        let length = u16::try_from(frame.len()).unwrap_or(u16::MAX).to_le_bytes();
        steps.extend([0, subscription, length[0], length[1]]);
        steps.extend(frame);
    }
    steps
}

/// Returns inputs made from the recorded channel names.
fn channels() -> impl Iterator<Item = Vec<u8>> {
    psrpc_vectors::channel_names().into_iter().map(|row| {
        let routing = if row.queue { "Q" } else { "A" };
        let parts = [row.service, row.method, row.id, routing.to_owned()].into_iter().chain(row.topic);
        parts.collect::<Vec<_>>().join(SEPARATOR).into_bytes()
    })
}

/// Returns the recorded .proto files and those of tests.
fn protos() -> Result<Vec<Vec<u8>>, Box<dyn Error>> {
    let mut protos = Vec::new();
    for dir in ["tests/vectors/proto", "psrpc-build/tests/protos", "psrpc-build/proto"] {
        for entry in fs::read_dir(Path::new(ROOT).join(dir))? {
            protos.push(fs::read(entry?.path())?);
        }
    }
    Ok(protos)
}

/// Writes the seeds of a target, replacing earlier ones.
fn write(target: &str, seeds: impl IntoIterator<Item = Vec<u8>>) -> Result<(), Box<dyn Error>> {
    let corpus =
        std::env::args_os().nth(1).map_or_else(|| Path::new(ROOT).join("fuzz/corpus"), PathBuf::from);
    let dir = corpus.join(target);
    fs::create_dir_all(&dir)?;
    let mut count = 0;
    for seed in seeds {
        fs::write(dir.join(format!("seed-{count:05}")), seed)?;
        count += 1;
    }
    println!("{target}: {count} seeds");
    Ok(())
}
