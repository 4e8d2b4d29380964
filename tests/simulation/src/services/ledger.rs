//! The ledger: records the events that users of the driver see, and checks them.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prost::Message;
use psrpc::proto::Frame;
use psrpc::{Error, Reason, Time};

use super::executor::Shared;
use super::hats::{Ask, Reply};
use super::stream_messages::{Direction, StreamMessages};
use super::user_call::{CallSpec, Expected, HandlerEnd, UserCall};
use crate::fault::Fault;
use crate::judge::violation::{Checked, Invariant, Violation};

/// The limit for a shutdown. The bus confirms within 3 s, then the last accepted call expires, by a
/// clock that may be wrong, and then streams end within a second.
const LONGEST_SHUTDOWN: Duration = Duration::from_secs(10);

/// The record of a run, shared by everything that takes part. It keeps the first violation.
#[derive(Clone)]
pub(super) struct Ledger {
    shared: Arc<Shared>,
    entries: Arc<Mutex<Entries>>,
}

#[derive(Default)]
struct Entries {
    calls: Vec<UserCall>,
    /// The calls by the ids of their published requests.
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
    /// Whether it crashed or was killed, so that its handlers are dropped.
    is_dead: bool,
    running: usize,
}

/// How late a node may be.
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

    /// Notes that the faults have stopped, so that fresh calls must succeed.
    pub(super) fn faults_stopped(&self) {
        self.entries().calm = true;
    }

    pub(super) fn is_calm(&self) -> bool {
        self.entries().calm
    }

    pub(super) fn count(&self, fault: Fault) {
        self.shared.lock().scene.faults.count(fault);
    }

    /// Logs a line of the trace.
    fn log(&self, source: impl Display, text: impl Display) {
        self.shared.lock().scene.log(source, text);
    }

    /// Records the result of a check. The first violation is kept.
    pub(super) fn judge(&self, checked: Checked) {
        if let Err(violation) = checked {
            self.log("judge", &violation);
            self.entries().violation.get_or_insert(violation);
        }
    }

    pub(super) fn violation(&self) -> Option<Violation> {
        self.entries().violation.clone()
    }

    /// Returns the number of calls, and the number of those that had to succeed.
    pub(super) fn calls(&self) -> (u64, u64) {
        let entries = self.entries();
        let fresh = entries.calls.iter().filter(|call| call.spec.expected != Expected::Anything).count();
        (entries.calls.len() as u64, fresh as u64)
    }

    pub(super) fn outcomes(&self) -> BTreeMap<&'static str, u64> {
        self.entries().outcomes.clone()
    }

    // --- nodes -----------------------------------------------------------------------------------

    /// Notes that a node is paused until a time.
    pub(super) fn node_paused(&self, node: usize, until: Time) {
        let stall = &mut *self.entries();
        let stall = stall.stalls.entry(node).or_default();
        stall.until = stall.until.max(until);
    }

    /// Notes how long each step of a node's tasks takes from now on.
    pub(super) fn node_slowed(&self, node: usize, step: Duration) {
        let now = self.now();
        let stall = &mut *self.entries();
        let stall = stall.stalls.entry(node).or_default();
        // Its tasks may stay late by the old step time for a while.
        stall.until = stall.until.max(now + 4 * stall.step);
        stall.step = step;
    }

    /// Returns the latest time at which a node may observe something that was due at `due`.
    pub(super) fn latest_allowed(&self, node: usize, due: Time) -> Time {
        self.entries().latest_allowed(node, due)
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

    /// Adds a server that is about to start, with the given id or a new one. Returns its number and
    /// id.
    pub(super) fn new_server(&self, node: usize, id: Option<String>) -> (usize, String) {
        let mut entries = self.entries();
        let number = entries.servers.len();
        let id = id.unwrap_or_else(|| format!("SRV_{number}"));
        entries.servers.push(Server { node, id: id.clone(), is_dead: false, running: 0 });
        (number, id)
    }

    pub(super) fn server_died(&self, server: usize) {
        self.entries().servers[server].is_dead = true;
    }

    /// Notes that a node is about to crash with all its servers.
    pub(super) fn node_crashes(&self, node: usize) {
        let mut entries = self.entries();
        entries
            .servers
            .iter_mut()
            .filter(|server| server.node == node)
            .for_each(|server| server.is_dead = true);
    }

    /// Checks the end of a shutdown of a server whose runtime has shut down: it must end at once
    /// (I1).
    pub(super) fn check_immediate_shutdown(&self, server: usize, node: usize, start: Time) {
        let (now, allowed) = (self.now(), self.entries().latest_allowed(node, start));
        if now > allowed {
            self.judge(
                Invariant::I1.violated(format!("server {server} shut down {:?} late", now.since(allowed))),
            );
        }
    }

    /// Checks the end of a shutdown (I14).
    pub(super) fn check_shutdown(&self, server: usize, node: usize, start: Time, ended: Time) {
        let entries = self.entries();
        let Server { is_dead, running, .. } = entries.servers[server];
        let end = entries.latest_allowed(node, start + LONGEST_SHUTDOWN);
        drop(entries);
        if running > 0 && !is_dead {
            let what = format!("server {server} has shut down with {running} running handlers");
            self.judge(Invariant::I14.violated(what));
        }
        if ended > end {
            let took = ended.since(start);
            self.judge(Invariant::I14.violated(format!("server {server} took {took:?} to shut down")));
        }
    }

    // --- calls -----------------------------------------------------------------------------------

    pub(super) fn call_made(&self, spec: CallSpec) -> usize {
        let mut entries = self.entries();
        let (number, timeout) = (entries.calls.len(), spec.due.since(spec.start));
        self.log("caller", format_args!("makes call {number}, a {:?}, for {timeout:?}", spec.kind));
        entries.calls.push(UserCall::new(spec));
        entries.calls.len() - 1
    }

    /// Notes that the future of a call is dropped.
    pub(super) fn call_dropped(&self, call: usize) {
        self.log("caller", format_args!("drops call {call}"));
        self.count(Fault::Cancel);
        let mut entries = self.entries();
        entries.calls[call].dropped = true;
        *entries.outcomes.entry("dropped").or_default() += 1;
    }

    /// Checks that a call ended in time (I1, I15).
    pub(super) fn call_ended(&self, call: usize) {
        let now = self.now();
        let checked = {
            let entries = self.entries();
            let CallSpec { client, node, start, due, kind, retried, .. } = entries.calls[call].spec;
            let closed = entries.end_of_client(client, node, start).filter(|_| !retried);
            if now > entries.latest_allowed(node, due) {
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

    /// Checks that another future of a client, pending since `since`, resolved in time (I15).
    pub(super) fn check_wait(&self, client: usize, node: usize, since: Time, future: &str) {
        let closed = self.entries().end_of_client(client, node, since);
        if closed.is_some_and(|closed| self.now() > closed) {
            self.judge(Invariant::I15.violated(format!("{future} outlived its client")));
        }
    }

    /// Checks how a unary call resolved.
    pub(super) fn call_resolved(&self, call: usize, result: &Result<Reply, Error>) {
        self.call_ended(call);
        self.log("caller", format_args!("call {call} resolved: {result:?}"));
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

    /// Checks a response to a multi call, or an error without a server.
    pub(super) fn response_received(
        &self,
        call: usize,
        server_id: Option<&str>,
        result: Result<&Reply, &Error>,
    ) {
        let checked = {
            let mut entries = self.entries();
            entries.calls[call].response_received(call, server_id, result)
        };
        self.judge(checked.map_err(|violation| violation.at(format_args!("call {call}"))));
    }

    // --- handlers --------------------------------------------------------------------------------

    /// Checks the start of a handler (I2).
    pub(super) fn handler_started(&self, server: usize, call: usize, request: &str) {
        let may_lie = self.shared.lock().scene.faults.counts().of(Fault::FalsePublishError) > 0;
        let checked = {
            let entries = &mut *self.entries();
            entries.servers[server].running += 1;
            let id = &entries.servers[server].id;
            // A replacement with the same id may use the grant of the crashed server.
            let is_other = |known: usize| entries.servers[known].id != *id;
            match entries.calls.get_mut(call) {
                Some(call) => call.handler_started(server, is_other, request, may_lie),
                None => Invariant::I2.violated("a handler runs for an unknown call"),
            }
        };
        self.judge(checked.map_err(|violation| violation.at(format_args!("call {call}"))));
    }

    /// Records how a handler ended, just before it returns.
    pub(super) fn handler_ended(&self, server: usize, call: usize, end: HandlerEnd) {
        let mut entries = self.entries();
        entries.servers[server].running -= 1;
        if let Some(call) = entries.calls.get_mut(call) {
            call.handler_ends.push((server, end));
        }
    }

    /// Checks a dropped handler (I14). `overran` is `true` if its deadline had passed.
    pub(super) fn handler_dropped(&self, server: usize, call: usize, overran: bool) {
        let mut entries = self.entries();
        let server_state = &mut entries.servers[server];
        server_state.running -= 1;
        let is_dead = server_state.is_dead;
        drop(entries);
        if overran {
            self.count(Fault::Overrun);
        }
        if !overran && !is_dead {
            let what = format!("server {server} dropped the handler of call {call} before its deadline");
            self.judge(Invariant::I14.violated(what));
        }
    }

    // --- frames ----------------------------------------------------------------------------------

    /// Checks a published frame (I4).
    pub(super) fn frame_published(&self, frame: &Frame) {
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
                        Invariant::I4.violated(format!("call {call} was granted after it was dropped")),
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

    /// Adds a message that is about to be sent, and returns its number.
    pub(super) fn add_message(&self, stream: usize, direction: Direction) -> u64 {
        let mut entries = self.entries();
        let messages = entries.streams[stream].messages(direction);
        messages.sent.push(false);
        messages.sent.len() as u64 - 1
    }

    /// Checks a successful send, which began at `start` (I7).
    pub(super) fn message_sent(&self, stream: usize, direction: Direction, number: u64, start: Time) {
        let mut entries = self.entries();
        let messages = entries.streams[stream].messages(direction);
        messages.sent[number as usize] = true;
        let dropped = messages.receiver_dropped.is_some_and(|dropped| dropped < start);
        drop(entries);
        if dropped {
            let what = format!(
                "message {number} of stream {stream} {direction:?} was not received, but its send succeeded"
            );
            self.judge(Invariant::I7.violated(what));
        }
    }

    /// Checks a received message (I7).
    pub(super) fn message_received(&self, stream: usize, direction: Direction, number: u64) {
        let checked = {
            let mut entries = self.entries();
            let messages = entries.streams[stream].messages(direction);
            let checked = messages.check_next(number);
            messages.received.push(number);
            checked
        };
        self.judge(checked.map_err(|violation| violation.at(format_args!("stream {stream} {direction:?}"))));
    }

    /// Notes that the receiver has taken all messages until the end.
    pub(super) fn received_all(&self, stream: usize, direction: Direction) {
        self.entries().streams[stream].messages(direction).received_all = true;
    }

    /// Notes that the receiver has dropped the stream.
    pub(super) fn receiver_dropped(&self, stream: usize, direction: Direction) {
        let now = self.now();
        self.entries().streams[stream].messages(direction).receiver_dropped.get_or_insert(now);
    }

    /// Notes whether the handler of a stream runs.
    pub(super) fn set_handled(&self, stream: usize, handled: bool) {
        self.entries().streams[stream].handled = handled;
    }

    /// Returns `true` if the handler of a stream runs.
    pub(super) fn is_handled(&self, stream: usize) -> bool {
        self.entries().streams[stream].handled
    }

    /// Checks at the end of the run that receivers that took everything received every message
    /// whose send succeeded (I7).
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
    /// Returns the time by which a future of a closed client that was pending since `since` must
    /// have resolved. Returns `None` if the client is not closed.
    fn end_of_client(&self, client: usize, node: usize, since: Time) -> Option<Time> {
        Some(self.latest_allowed(node, self.clients[client]?.max(since)))
    }

    /// Returns the latest time at which a node may observe something that was due at `due`.
    fn latest_allowed(&self, node: usize, due: Time) -> Time {
        let Stall { until, step } = self.stalls.get(&node).copied().unwrap_or_default();
        due.max(until) + 4 * step
    }
}
