//! The user of a client: keeps calls of every kind in flight, and checks what comes back.

use std::sync::Arc;
use std::time::Duration;

use psrpc::bus::Bus;
use psrpc::{Call, Client, ClientOptions, Error, Selection, Subscription};
use psrpc_simulation::hats::{Ask, HatsClient, Manner, Reply};
use psrpc_simulation::judge::services::user_call::{CallKind, CallSpec, Expected};
use psrpc_simulation::judge::violation::Invariant;

use super::crew::Crew;
use super::gossip::GOSSIP;
use super::{ANNOUNCE, OWNER, SERVERS, STEP, STREAM_IDLE_TIMEOUT, Tables};
use crate::progress::Goal;
use crate::updates::UpdateKind;

/// The timeout of calls under faults.
const TIMEOUT: Duration = Duration::from_secs(1);

/// The timeout of calls that find out whether the service is back.
const SHORT_TIMEOUT: Duration = Duration::from_millis(400);

/// The timeout of calls that must succeed.
const LONG_TIMEOUT: Duration = Duration::from_secs(3);

/// How many fresh calls of each kind must succeed in a row.
const CALM_CALLS: usize = 3;

/// The pause between two calls that find out whether the service is back.
const SHORT_STEP: Duration = Duration::from_millis(10);

/// The longest time that a handler takes.
const LONGEST_WORK: u64 = 8;

/// A kind of act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ActKind {
    Call(CallKind),
    Stream,
    /// A send on a stream that stays open all the time.
    LongStream,
}

/// A client and its user.
#[derive(Clone)]
pub(super) struct ClientUser {
    pub(super) number: usize,
    pub(super) node: usize,
    pub(super) client: HatsClient,
    gossip: Client,
    pub(super) crew: Crew,
}

/// The goal of receiving an update by queue from a server, whichever client receives it.
pub(super) fn gossip_goal(server: usize) -> Goal {
    format!("gossip of server {server}")
}

/// Selects the first bid. Bids may come late, since the machine may be busy.
pub(super) fn first_bid(timeout: Duration) -> Selection {
    Selection::new().affinity_timeout(timeout)
}

/// Selects the server with the highest affinity, or another if it does not bid.
pub(super) fn best_bid(timeout: Duration) -> Selection {
    first_bid(timeout).maximum_affinity(1.0)
}

impl ActKind {
    const REPEATED: [ActKind; 6] = [
        Self::Call(CallKind::Fit),
        Self::Call(CallKind::AnnouncedFit),
        Self::Call(CallKind::Pick),
        Self::Call(CallKind::OwnFit),
        Self::Call(CallKind::Census),
        Self::Stream,
    ];
}

impl ClientUser {
    /// Starts a client on a bus of its own.
    pub(super) async fn start(
        bus: impl Bus + Clone,
        node: usize,
        number: usize,
        crew: &Crew,
    ) -> Result<Self, Error> {
        let runtime = &crew.runtime;
        let options = ClientOptions::new().stream_idle_timeout(STREAM_IDLE_TIMEOUT);
        let client = HatsClient::with_runtime(bus.clone(), Arc::clone(runtime), options).await?;
        let gossip = Client::new(bus, Arc::clone(runtime), &GOSSIP, ClientOptions::new()).await?;
        assert_eq!(crew.ledger.new_client(), number, "clients are numbered in order");
        let user = Self { number, node, client, gossip, crew: crew.clone() };
        let news = user.client.subscribe_news().await?;
        let rumours = user.gossip.subscribe(&GOSSIP.methods[0], &[]).await?;
        user.listen(UpdateKind::News, news);
        user.listen(UpdateKind::Gossip, rumours);
        Ok(user)
    }

    pub(super) fn goal(&self, kind: ActKind) -> Goal {
        format!("{kind:?} of client {}", self.number)
    }

    fn news_goal(&self, server: usize) -> Goal {
        format!("news of server {server} at client {}", self.number)
    }

    /// Returns everything that must work for this client.
    pub(super) fn goals(&self) -> Vec<Goal> {
        let acts = ActKind::REPEATED.into_iter().chain([ActKind::LongStream]).map(|kind| self.goal(kind));
        acts.chain((0..SERVERS).map(|server| self.news_goal(server))).collect()
    }

    /// Repeats all kinds of acts until the fleet stops.
    pub(super) fn work(&self) {
        for kind in ActKind::REPEATED {
            let own = self.clone();
            self.crew.tasks.spawn(self.goal(kind), async move {
                while !own.crew.is_stopped() {
                    own.act(kind, TIMEOUT, Expected::Anything).await;
                    own.crew.sleep(STEP).await;
                }
            });
        }
        let own = self.clone();
        self.crew.tasks.spawn(self.goal(ActKind::LongStream), async move { own.keep_stream().await });
    }

    /// Repeats each kind of act until one has succeeded.
    pub(super) fn recover(&self) {
        for kind in ActKind::REPEATED {
            let (own, goal) = (self.clone(), self.goal(kind));
            self.crew.tasks.spawn(format!("fresh {goal}"), async move {
                while own.crew.progress.misses(&goal) && !own.crew.is_stopped() {
                    own.act(kind, SHORT_TIMEOUT, Expected::Anything).await;
                    own.crew.sleep(SHORT_STEP).await;
                }
            });
        }
    }

    /// Performs each kind of act a few times. All must succeed.
    pub(super) async fn check_calm(&self) {
        for kind in ActKind::REPEATED {
            for _ in 0..CALM_CALLS {
                if !self.act(kind, LONG_TIMEOUT, Expected::Answer).await {
                    let goal = self.goal(kind);
                    self.crew.ledger.judge(Invariant::I16.violated(format!("a fresh {goal} failed")));
                }
            }
        }
    }

    /// Returns `true` if the act succeeded.
    async fn act(&self, kind: ActKind, timeout: Duration, expected: Expected) -> bool {
        let start = self.crew.now();
        let succeeded = match kind {
            ActKind::Call(CallKind::Census) => self.census(timeout, expected).await,
            ActKind::Call(kind) => self.call(kind, timeout, expected).await,
            ActKind::Stream | ActKind::LongStream => self.short_stream(timeout).await,
        };
        if succeeded {
            self.crew.progress.succeeded(&self.goal(kind), start, self.crew.now());
        }
        succeeded
    }

    // --- calls -----------------------------------------------------------------------------------

    fn ask(&self, kind: CallKind, timeout: Duration, expected: Expected) -> Ask {
        let start = self.crew.now();
        let number = self.crew.ledger.call_made(CallSpec {
            kind,
            client: self.number,
            node: self.node,
            start,
            due: start + timeout,
            retried: false,
            only_if_not_run: true,
            expected,
        }) as u64;
        let fails = expected == Expected::Anything && number.is_multiple_of(16);
        let manner = if fails { Manner::Fail } else { Manner::Answer };
        let micros = 1000 * (number % LONGEST_WORK);
        Ask { number, micros: micros as u32, manner: manner.into() }
    }

    async fn call(&self, kind: CallKind, timeout: Duration, expected: Expected) -> bool {
        let ask = self.ask(kind, timeout, expected);
        let number = ask.number as usize;
        let result = self.make(kind, ask, timeout).timeout(timeout).await;
        self.crew.ledger.call_resolved(number, &result);
        result.is_ok()
    }

    fn make(&self, kind: CallKind, ask: Ask, timeout: Duration) -> Call<Ask, Reply> {
        match kind {
            CallKind::AnnouncedFit => {
                self.client.fit(ask).metadata(ANNOUNCE, "yes").selection(first_bid(timeout))
            }
            CallKind::Pick => self.client.pick(ask).selection(best_bid(timeout)),
            CallKind::OwnFit => self.client.own_fit(OWNER, ask),
            CallKind::Fit | CallKind::Census => self.client.fit(ask).selection(first_bid(timeout)),
        }
    }

    /// Makes a multi call. Returns `true` if every server answered.
    async fn census(&self, timeout: Duration, expected: Expected) -> bool {
        let ask = self.ask(CallKind::Census, timeout, expected);
        let (number, ledger) = (ask.number as usize, &self.crew.ledger);
        let mut answered = 0;
        if let Ok(mut answers) = self.client.census(ask).timeout(timeout).responses(SERVERS).await {
            while let Some(answer) = answers.next().await {
                answered += usize::from(answer.is_ok());
                match &answer {
                    Ok(answer) => ledger.response_received(number, Some(answer.server_id()), Ok(answer)),
                    Err(error) => ledger.response_received(number, error.server_id(), Err(error)),
                }
            }
        }
        ledger.call_ended(number);
        answered == SERVERS
    }

    // --- updates ---------------------------------------------------------------------------------

    fn listen(&self, kind: UpdateKind, mut updates: Subscription<Reply>) {
        let own = self.clone();
        self.crew.listeners.spawn(format!("{kind:?} at client {}", self.number), async move {
            while let Some(update) = updates.next().await {
                match update {
                    Ok(update) => own.received(kind, &update),
                    Err(_) if kind == UpdateKind::News => own.crew.updates.gap(own.number),
                    Err(_) => {}
                }
            }
        });
    }

    fn received(&self, kind: UpdateKind, update: &Reply) {
        let server = update.server as usize;
        let Some(start) = self.crew.updates.received(kind, self.number, server, update.number) else {
            return;
        };
        let goal = match kind {
            UpdateKind::News => self.news_goal(server),
            UpdateKind::Gossip => gossip_goal(server),
        };
        self.crew.progress.succeeded(&goal, start, self.crew.now());
    }

    // --- the end ---------------------------------------------------------------------------------

    /// Returns the sizes of the tables of its clients.
    pub(super) fn tables(&self) -> [Tables; 2] {
        [self.client.client(), &self.gossip].map(|client| Tables {
            calls: client.in_flight(),
            streams: client.streams(),
            remembered: client.remembered(),
        })
    }

    /// Closes the client.
    pub(super) async fn shut_down(self) {
        self.crew.ledger.client_closed(self.number);
        self.client.shutdown().await;
        self.gossip.shutdown().await;
    }
}
