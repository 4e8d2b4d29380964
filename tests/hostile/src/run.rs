//! Runs one attack with honest calls in between, and checks the outcome.

use std::time::Duration;

use psrpc_tokio::bus::{Bus, Delivery, Sink, Subscription, WakeList, publish};
use psrpc_tokio::proto::{Channel, Frame};
use psrpc_tokio::{
    Counters, Error, ErrorCode, Reason, ServerLimits, ServerOptions, SubscriptionKind, Text, default_runtime,
};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::attack::{Attack, Pressure, Victim};
use crate::forge::Forger;
use crate::log::Log;
use crate::memory::Memory;
use crate::site::{Held, Site};

/// How many frames the peer publishes before it waits until the victim has read them.
const BURST: usize = 1000;
/// The same for [`Pressure::Overrun`]: twice the capacity of a subscription's queue.
const OVERRUN: usize = 2 * 8192;
/// The horizon of the server: shorter than the default, so that the attacks that wait for it end
/// soon.
const HORIZON: Duration = Duration::from_secs(10);
/// The limit on remembered requests in the attacks that fill the table. It is low, so that a slow
/// machine can reach it within the horizon.
const FILLED: usize = 100_000;
/// The reasons by which a side counts the calls and streams that the honest user ends.
const OWN_ENDS: [Reason; 3] = [Reason::Closed, Reason::ClosedByPeer, Reason::Canceled];
/// How long an honest call may take, and how long the victim may take to read a burst.
const PATIENCE: Duration = Duration::from_secs(60);

/// The outcome of an attack.
pub(crate) struct Outcome {
    pub(crate) frames: usize,
    /// The counted frames by reason.
    pub(crate) counted: Vec<(Reason, u64)>,
    /// The frames that did not fit into the victim's queue.
    pub(crate) lost: u64,
    /// The rounds of honest calls, and those that were refused because a table was full.
    pub(crate) rounds: usize,
    pub(crate) refused: usize,
    pub(crate) slowest: Duration,
    /// How long calls were refused after the last forged frame.
    pub(crate) recovered: Duration,
    /// The calls that were refused in that time.
    probes: usize,
    pub(crate) memory: Memory,
    pub(crate) after: u64,
    pub(crate) took: Duration,
}

/// Runs an attack with this many frames, or the attack's share of them.
///
/// # Errors
///
/// Returns the problem if an honest call fails, a frame is not counted, a table is not empty at the
/// end, or the memory exceeds the bound.
pub(crate) async fn run(attack: &Attack, frames: usize) -> Result<Outcome, String> {
    let frames = frames / attack.share;
    let log = attack.checks_log.then(Log::install).transpose()?;
    let site = Site::new(options(attack, frames))
        .await
        .map_err(|error| format!("cannot start the client and the server: {error}"))?;
    let runtime = default_runtime().map_err(|error| error.to_string())?;
    let client = site.client.id().to_owned();
    let (call, held) = hold(&site, attack.held).await;
    let mut forger = Forger { runtime, client, call, large: None };
    // Some attacks make one frame and publish it repeatedly. Make it now, so that its memory is not
    // counted.
    drop((attack.forge)(&mut forger, 0));
    site.honest_calls().await.map_err(|error| format!("an honest call failed before the attack: {error}"))?;

    let counters = || match attack.victim {
        Victim::Client => site.client.counters(),
        Victim::Server => site.server.counters(),
    };
    let before = counters();
    let mut outcome = Outcome {
        frames,
        counted: Vec::new(),
        lost: 0,
        rounds: 0,
        refused: 0,
        slowest: Duration::ZERO,
        recovered: Duration::ZERO,
        probes: 0,
        memory: Memory::start()?,
        after: 0,
        took: Duration::ZERO,
    };
    let started = Instant::now();
    let burst = if attack.pressure == Pressure::Overrun { OVERRUN } else { (BURST / attack.share).max(1) };
    let mut published = 0;
    while published < frames {
        let next = frames.min(published + burst);
        for number in published..next {
            let (channel, frame) = (attack.forge)(&mut forger, number);
            let receivers = publish(&site.bus, channel, frame).await;
            if receivers.as_ref().ok() != Some(&Some(1)) {
                return Err(format!("a forged frame reached {receivers:?} subscribers"));
            }
        }
        published = next;
        if attack.pressure == Pressure::Overrun {
            wait_until_read(&counters, &before, published).await?;
        }
        // The frames of the peer are queued before those of the honest calls.
        outcome.honest_calls(&site, attack).await?;
        outcome.memory.sample()?;
        wait_until_read(&counters, &before, published).await?;
    }
    outcome.took = started.elapsed();
    if outcome.refused > 0 {
        outcome.wait_until_served(&site).await?;
    }
    held.abort();
    site.close_stream();
    wait_until_empty(&site).await?;
    let call = site.call().await;
    call.map_err(|error| format!("a call failed after the attack: {error}"))?;
    outcome.after = outcome.memory.sample()?;
    outcome.count(&before, &counters());
    outcome.check(attack, log.as_ref())?;
    Ok(outcome)
}

fn options(attack: &Attack, frames: usize) -> ServerOptions {
    let options = ServerOptions::new().horizon(HORIZON);
    match attack.pressure {
        Pressure::FillTable => {
            let requests = ServerLimits::DEFAULT.requests.min(frames / 4);
            let remembered = FILLED.min(frames / 2);
            options.limits(ServerLimits { requests, remembered, ..ServerLimits::DEFAULT })
        }
        Pressure::Paced | Pressure::Overrun => options,
    }
}

/// Starts the operation that the client holds during the attack. Learns the id of its call from the
/// bus, as any peer can.
async fn hold(site: &Site, held: Held) -> (Text, tokio::task::JoinHandle<()>) {
    let method = match held {
        Held::Call => "Pick",
        Held::Multi => "Poll",
        Held::Nothing | Held::Subscription => {
            let task = site.hold(held);
            // The subscription is live once the client waits for its updates.
            tokio::task::yield_now().await;
            return (Text::EMPTY, task);
        }
    };
    let (sender, id) = oneshot::channel();
    let _tap = tap(site, method, sender);
    let task = site.hold(held);
    (id.await.expect("the client sends its request"), task)
}

/// Passes on the id of the first request of a method.
fn tap(site: &Site, method: &str, sender: oneshot::Sender<Text>) -> Subscription {
    let channel = Channel::request::<&str>("Hats", method, &[], false);
    let sender = std::sync::Mutex::new(Some(sender));
    let sink = Sink::new(move |delivery, _| {
        if let Delivery::Frame(Frame::Request(request)) = delivery
            && let Some(sender) = sender.lock().ok().and_then(|mut sender| sender.take())
        {
            let _ = sender.send(request.request_id);
        }
    });
    site.bus.subscribe(&channel, SubscriptionKind::Plain, sink, &mut WakeList::new())
}

/// Waits until the victim has read, or lost, as many frames as were published.
async fn wait_until_read(
    counters: &impl Fn() -> Counters,
    before: &Counters,
    published: usize,
) -> Result<(), String> {
    let started = Instant::now();
    loop {
        let now = counters();
        // An update without room is counted as read and as lost.
        let slow = now.get(Reason::SlowConsumer) - before.get(Reason::SlowConsumer);
        let read = now.frames - before.frames + now.lost - before.lost - slow;
        if read >= published as u64 {
            return Ok(());
        }
        if started.elapsed() > PATIENCE {
            return Err(format!("the victim read {read} of {published} frames in {PATIENCE:?}"));
        }
        tokio::task::yield_now().await;
    }
}

/// Waits until all tables are empty. The server forgets each request at its expiry, so this ends
/// no later than the last expiry.
async fn wait_until_empty(site: &Site) -> Result<(), String> {
    // The longest-lived entries belong to the honest calls, and to requests that live until
    // `HORIZON`. Without the hostile peer, nothing makes new ones.
    let deadline = Instant::now() + 2 * HORIZON + PATIENCE;
    loop {
        let entries = site.entries();
        if entries.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("tables are not empty: {entries:?}"));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl Outcome {
    /// Waits until the server takes calls again, at the latest when the forged requests are
    /// forgotten.
    async fn wait_until_served(&mut self, site: &Site) -> Result<(), String> {
        let started = Instant::now();
        while let Err(error) = site.call().await {
            if !is_full(&error) || started.elapsed() > HORIZON + PATIENCE {
                return Err(format!("a call failed after the attack: {error}"));
            }
            self.probes += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.recovered = started.elapsed();
        Ok(())
    }

    async fn honest_calls(&mut self, site: &Site, attack: &Attack) -> Result<(), String> {
        let calls = tokio::time::timeout(PATIENCE, site.honest_calls());
        let result = calls.await.map_err(|_| format!("an honest call took longer than {PATIENCE:?}"))?;
        self.rounds += 1;
        match result {
            Ok(slowest) => self.slowest = self.slowest.max(slowest),
            Err(error) if attack.pressure == Pressure::FillTable && is_full(&error) => self.refused += 1,
            Err(error) => return Err(format!("an honest call failed: {error}")),
        }
        Ok(())
    }

    fn count(&mut self, before: &Counters, after: &Counters) {
        let delta = |reason: &Reason| (*reason, after.get(*reason) - before.get(*reason));
        // An update without room is counted by its reason, and as lost.
        self.lost = after.lost - before.lost - delta(&Reason::SlowConsumer).1;
        let forged = Reason::ALL.iter().filter(|reason| !OWN_ENDS.contains(reason));
        self.counted = forged.map(delta).filter(|(_, count)| *count > 0).collect();
    }

    fn check(&self, attack: &Attack, log: Option<&Log>) -> Result<(), String> {
        let Self { frames, counted, lost, refused, probes, .. } = self;
        if let Some((reason, count)) = counted.iter().find(|(reason, _)| !attack.reasons.contains(reason)) {
            return Err(format!("counted {count} frames as \"{reason}\": {counted:?}"));
        }
        let first = attack.reasons[0];
        if !counted.iter().any(|(reason, _)| *reason == first || *reason == Reason::Expired) {
            return Err(format!("counted no frame as \"{first}\": {counted:?}"));
        }
        let sum = counted.iter().map(|(_, count)| count).sum::<u64>() + lost;
        // An honest call that is refused is counted, too.
        let (least, most) =
            ((frames - attack.accepted.min(*frames)) as u64, (frames + refused + probes) as u64);
        if !(least..=most).contains(&sum) {
            return Err(format!("{sum} of {frames} frames are counted: {counted:?}, {lost} lost"));
        }
        if attack.pressure == Pressure::Overrun && *lost == 0 {
            return Err("the victim lost no frame, so it was not overrun".to_owned());
        }
        let (grown, bound) = (self.memory.peak - self.memory.before, attack.bound.1);
        if grown > bound {
            return Err(format!("the memory grew by {grown} bytes; the limits allow {bound}"));
        }
        match log {
            Some(log) if log.lines() < *frames as u64 => {
                Err(format!("{} lines of log for {frames} frames", log.lines()))
            }
            Some(log) if log.unescaped() > 0 => {
                Err(format!("{} lines of log have control characters", log.unescaped()))
            }
            _ => Ok(()),
        }
    }
}

/// Returns `true` if the error is one of a server that can remember no more requests. Such a server
/// responds to a call with an error, and not at all to a multi call.
fn is_full(error: &Error) -> bool {
    *error.code() == ErrorCode::ResourceExhausted || error.is_timed_out()
}
