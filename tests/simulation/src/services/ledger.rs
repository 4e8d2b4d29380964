//! The ledger: records what users of the driver see, and judges it.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prost::Message;
use psrpc::proto::Frame;
use psrpc::{Error, Reason, Time};

use super::executor::Shared;
use super::hats::{Ask, Reply};
use super::stream_messages::{StreamMessages, Way};
use super::user_call::{Expected, Made, Said, UserCall};
use crate::fault::Fault;
use crate::judge::violation::{Checked, Invariant, Violation};

/// How long a shutdown may take: until the bus confirms, or 3 s, then until the last call that was
/// accepted expires, by a clock that is off, and then until streams have had their second.
const LONGEST_SHUTDOWN: Duration = Duration::from_secs(10);

/// What happened in a run, for everybody who takes part to write into. The first thing that cannot
/// be is kept.
#[derive(Clone)]
pub(super) struct Ledger {
    shared: Arc<Shared>,
    entries: Arc<Mutex<Entries>>,
}

#[derive(Default)]
struct Entries {
    calls: Vec<UserCall>,
    /// The calls that requests were published for.
    requests: BTreeMap<String, usize>,
    streams: Vec<StreamMessages>,
    clients: Vec<Option<Time>>,
    servers: Vec<Server>,
    stalls: BTreeMap<usize, Stall>,
    outcomes: BTreeMap<&'static str, u64>,
    calm: bool,
    violation: Option<Violation>,
}

/// An incarnation of a server.
struct Server {
    node: usize,
    id: String,
    /// It crashed or was killed: its handlers are dropped.
    dead: bool,
    running: usize,
}

/// How far a node may be behind.
#[derive(Clone, Copy, Default)]
struct Stall {
    until: Time,
    step: Duration,
}

impl Ledger {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, entries: Arc::default() }
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> Time {
        self.shared.lock().scene.now()
    }

    /// Nothing stands in the way of success any more.
    pub(super) fn is_calm_now(&self) {
        self.entries().calm = true;
    }

    pub(super) fn is_calm(&self) -> bool {
        self.entries().calm
    }

    pub(super) fn count(&self, fault: Fault) {
        self.shared.lock().scene.faults.count(fault);
    }

    /// Shows what somebody does.
    fn log(&self, who: impl Display, what: impl Display) {
        self.shared.lock().scene.log(who, what);
    }

    /// Keeps what a check gives, if nothing was wrong before.
    pub(super) fn judge(&self, checked: Checked) {
        if let Err(violation) = checked {
            self.log("judge", &violation);
            self.entries().violation.get_or_insert(violation);
        }
    }

    pub(super) fn violation(&self) -> Option<Violation> {
        self.entries().violation.clone()
    }

    /// How many calls were made, and how many of them had to succeed.
    pub(super) fn calls(&self) -> (u64, u64) {
        let entries = self.entries();
        let fresh = entries.calls.iter().filter(|call| call.made.expected != Expected::Anything).count();
        (entries.calls.len() as u64, fresh as u64)
    }

    pub(super) fn outcomes(&self) -> BTreeMap<&'static str, u64> {
        self.entries().outcomes.clone()
    }

    // --- nodes -----------------------------------------------------------------------------------

    /// A node does nothing until some time.
    pub(super) fn stalled(&self, node: usize, until: Time) {
        let stall = &mut *self.entries();
        let stall = stall.stalls.entry(node).or_default();
        stall.until = stall.until.max(until);
    }

    /// Each step of a node's tasks takes so long from here on.
    pub(super) fn slowed(&self, node: usize, step: Duration) {
        let now = self.now();
        let stall = &mut *self.entries();
        let stall = stall.stalls.entry(node).or_default();
        // What it was behind by it may still be behind by for a while.
        stall.until = stall.until.max(now + 4 * stall.step);
        stall.step = step;
    }

    /// How late something that was due at some time may be seen on a node.
    pub(super) fn allowed(&self, node: usize, due: Time) -> Time {
        self.entries().allowed(node, due)
    }

    pub(super) fn new_client(&self) -> usize {
        let mut entries = self.entries();
        entries.clients.push(None);
        entries.clients.len() - 1
    }

    pub(super) fn client_closed(&self, client: usize) {
        let now = self.now();
        self.entries().clients[client].get_or_insert(now);
    }

    /// A server is about to be started, with the id of one that crashed or with its own.
    pub(super) fn new_server(&self, node: usize, id: Option<String>) -> (usize, String) {
        let mut entries = self.entries();
        let number = entries.servers.len();
        let id = id.unwrap_or_else(|| format!("SRV_{number}"));
        entries.servers.push(Server { node, id: id.clone(), dead: false, running: 0 });
        (number, id)
    }

    pub(super) fn server_died(&self, server: usize) {
        self.entries().servers[server].dead = true;
    }

    /// All servers of a node are about to crash.
    pub(super) fn crashes(&self, node: usize) {
        let mut entries = self.entries();
        entries.servers.iter_mut().filter(|server| server.node == node).for_each(|server| server.dead = true);
    }

    /// The shutdown of a server whose runtime has shut down has come to its end (I1).
    pub(super) fn shut_down_at_once(&self, server: usize, node: usize, began: Time) {
        let (now, allowed) = (self.now(), self.entries().allowed(node, began));
        if now > allowed {
            self.judge(
                Invariant::I1.violated(format!("server {server} is shut down {:?} late", now.since(allowed))),
            );
        }
    }

    /// A shutdown has come to its end (I14).
    pub(super) fn shut_down(&self, server: usize, node: usize, began: Time, ended: Time) {
        let entries = self.entries();
        let Server { dead, running, .. } = entries.servers[server];
        let end = entries.allowed(node, began + LONGEST_SHUTDOWN);
        drop(entries);
        if running > 0 && !dead {
            let what = format!("server {server} is shut down, and {running} handlers run");
            self.judge(Invariant::I14.violated(what));
        }
        if ended > end {
            let took = ended.since(began);
            self.judge(Invariant::I14.violated(format!("server {server} took {took:?} to shut down")));
        }
    }

    // --- calls -----------------------------------------------------------------------------------

    pub(super) fn made(&self, made: Made) -> usize {
        let mut entries = self.entries();
        let (number, takes) = (entries.calls.len(), made.due.since(made.began));
        self.log("caller", format_args!("makes call {number}, a {:?}, for {takes:?}", made.kind));
        entries.calls.push(UserCall::new(made));
        entries.calls.len() - 1
    }

    /// The future of a call is dropped.
    pub(super) fn dropped(&self, call: usize) {
        self.log("caller", format_args!("drops call {call}"));
        self.count(Fault::Cancel);
        let mut entries = self.entries();
        entries.calls[call].dropped = true;
        *entries.outcomes.entry("dropped").or_default() += 1;
    }

    /// A call is over, in whichever way (I1, I15).
    pub(super) fn over(&self, call: usize) {
        let now = self.now();
        let checked = {
            let entries = self.entries();
            let Made { client, node, began, due, kind, retried, .. } = entries.calls[call].made;
            let closed = entries.end_of_client(client, node, began).filter(|_| !retried);
            if now > entries.allowed(node, due) {
                let late = now.since(due);
                Invariant::I1
                    .violated(format!("call {call}, a {kind:?}, resolved {late:?} past its deadline"))
            } else if closed.is_some_and(|closed| now > closed) {
                Invariant::I15.violated(format!("call {call} outlived its client"))
            } else {
                Ok(())
            }
        };
        self.judge(checked);
    }

    /// Something else that a client gave has resolved, for which somebody has waited since some
    /// time (I15).
    pub(super) fn waited(&self, client: usize, node: usize, since: Time, what: &str) {
        let closed = self.entries().end_of_client(client, node, since);
        if closed.is_some_and(|closed| self.now() > closed) {
            self.judge(Invariant::I15.violated(format!("{what} outlived its client")));
        }
    }

    /// A call of one server has resolved.
    pub(super) fn resolved(&self, call: usize, result: &Result<Reply, Error>) {
        self.over(call);
        self.log("caller", format_args!("has the result of call {call}: {result:?}"));
        let checked = {
            let mut entries = self.entries();
            let outcome = match result {
                Ok(_) => "answered",
                Err(error) => error.reason().map_or("refused", Reason::as_str),
            };
            *entries.outcomes.entry(outcome).or_default() += 1;
            entries.calls[call].check(call, result)
        };
        self.judge(checked.map_err(|violation| violation.at(format_args!("call {call}"))));
    }

    /// A server has answered a multi call, or an error came without one.
    pub(super) fn heard(&self, call: usize, server_id: Option<&str>, result: Result<&Reply, &Error>) {
        let checked = {
            let mut entries = self.entries();
            entries.calls[call].heard(call, server_id, result)
        };
        self.judge(checked.map_err(|violation| violation.at(format_args!("call {call}"))));
    }

    // --- handlers --------------------------------------------------------------------------------

    /// A handler starts (I2).
    pub(super) fn started(&self, server: usize, call: usize, request: &str) {
        let may_lie = self.shared.lock().scene.faults.counts().of(Fault::FalsePublishError) > 0;
        let checked = {
            let entries = &mut *self.entries();
            entries.servers[server].running += 1;
            let id = &entries.servers[server].id;
            // A grant for one that crashed is one for the next of the same id.
            let is_other = |known: usize| entries.servers[known].id != *id;
            match entries.calls.get_mut(call) {
                Some(call) => call.started(server, is_other, request, may_lie),
                None => Invariant::I2.violated("a handler runs that nobody called"),
            }
        };
        self.judge(checked.map_err(|violation| violation.at(format_args!("call {call}"))));
    }

    /// A handler has come to its end, and is about to say so.
    pub(super) fn said(&self, server: usize, call: usize, said: Said) {
        let mut entries = self.entries();
        entries.servers[server].running -= 1;
        if let Some(call) = entries.calls.get_mut(call) {
            call.said.push((server, said));
        }
    }

    /// A handler was dropped, in time or not (I14).
    pub(super) fn cut_short(&self, server: usize, call: usize, in_time: bool) {
        let mut entries = self.entries();
        let server_state = &mut entries.servers[server];
        server_state.running -= 1;
        let dead = server_state.dead;
        drop(entries);
        if in_time {
            self.count(Fault::Overrun);
        }
        if !in_time && !dead {
            let what = format!("server {server} dropped the handler of call {call} before its deadline");
            self.judge(Invariant::I14.violated(what));
        }
    }

    // --- frames ----------------------------------------------------------------------------------

    /// A frame is published (I4).
    pub(super) fn published(&self, frame: &Frame) {
        match frame {
            Frame::Request(request) => {
                if let Ok(ask) = Ask::decode(request.payload.clone()) {
                    let id = request.request_id.as_str().to_owned();
                    self.entries().requests.insert(id, ask.number as usize);
                }
            }
            Frame::ClaimResponse(grant) => {
                let entries = self.entries();
                let call = entries.requests.get(grant.request_id.as_str()).copied();
                let dropped = call.filter(|call| entries.calls[*call].dropped);
                drop(entries);
                if let Some(call) = dropped {
                    self.judge(
                        Invariant::I4.violated(format!("call {call} is granted after it was dropped")),
                    );
                }
            }
            _ => {}
        }
    }

    // --- streams ---------------------------------------------------------------------------------

    pub(super) fn new_stream(&self) -> usize {
        let mut entries = self.entries();
        entries.streams.push(StreamMessages::default());
        entries.streams.len() - 1
    }

    /// A message is about to be sent; gives its number.
    pub(super) fn sending(&self, stream: usize, way: Way) -> u64 {
        let mut entries = self.entries();
        let messages = entries.streams[stream].messages(way);
        messages.sent.push(false);
        messages.sent.len() as u64 - 1
    }

    /// A send that began at some time has resolved well (I7).
    pub(super) fn sent(&self, stream: usize, way: Way, number: u64, began: Time) {
        let mut entries = self.entries();
        let messages = entries.streams[stream].messages(way);
        messages.sent[number as usize] = true;
        let gone = messages.gone.is_some_and(|gone| gone < began);
        drop(entries);
        if gone {
            let what = format!(
                "message {number} of stream {stream} {way:?} was taken by nobody, and its send resolved"
            );
            self.judge(Invariant::I7.violated(what));
        }
    }

    /// A message is received (I7).
    pub(super) fn received(&self, stream: usize, way: Way, number: u64) {
        let checked = {
            let mut entries = self.entries();
            let messages = entries.streams[stream].messages(way);
            let checked = messages.may_come(number);
            messages.received.push(number);
            checked
        };
        self.judge(checked.map_err(|violation| violation.at(format_args!("stream {stream} {way:?}"))));
    }

    /// A receiver has taken all until the end.
    pub(super) fn to_the_end(&self, stream: usize, way: Way) {
        self.entries().streams[stream].messages(way).to_the_end = true;
    }

    /// A receiver has let go of the stream.
    pub(super) fn let_go(&self, stream: usize, way: Way) {
        let now = self.now();
        self.entries().streams[stream].messages(way).gone.get_or_insert(now);
    }

    /// The handler of a stream runs, or not any more.
    pub(super) fn handling(&self, stream: usize, handled: bool) {
        self.entries().streams[stream].handled = handled;
    }

    /// Whether the handler of a stream runs.
    pub(super) fn is_handled(&self, stream: usize) -> bool {
        self.entries().streams[stream].handled
    }

    /// What can be told in the end alone: that what was sent well was received by whoever took all
    /// (I7).
    pub(super) fn check_streams(&self) {
        let checked = self.entries().streams.iter().enumerate().try_for_each(|(number, stream)| {
            [&stream.to_server, &stream.to_client].into_iter().try_for_each(|messages| {
                messages.check_end().map_err(|violation| violation.at(format_args!("stream {number}")))
            })
        });
        self.judge(checked);
    }
}

impl Entries {
    /// When what a client has given since some time must have resolved, if the client is closed.
    fn end_of_client(&self, client: usize, node: usize, since: Time) -> Option<Time> {
        Some(self.allowed(node, self.clients[client]?.max(since)))
    }

    /// How late something that was due at some time may be seen on a node.
    fn allowed(&self, node: usize, due: Time) -> Time {
        let Stall { until, step } = self.stalls.get(&node).copied().unwrap_or_default();
        due.max(until) + 4 * step
    }
}
