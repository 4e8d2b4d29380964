//! The ledger: records the events that users of the driver see, and checks them.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prost::Message;
use psrpc::proto::Frame;
use psrpc::{Error, Reason, Time};

use super::run_context::RunContext;
use super::stream_messages::{Direction, StreamMessages};
use super::user_call::{CallSpec, Expected, HandlerEnd, UserCall};
use crate::fault::Fault;
use crate::judge::violation::{Checked, Invariant, Violation};
use crate::services::hats::{Ask, Reply};

/// The limit for a shutdown. The bus confirms within 3 s, then the last accepted call expires, by a
/// clock that may be wrong, and then streams end within a second.
const LONGEST_SHUTDOWN: Duration = Duration::from_secs(10);

/// The record of a run, shared by everything that takes part. It keeps the first violation.
#[derive(Clone)]
pub struct Ledger {
    context: Arc<dyn RunContext>,
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
    outcomes: BTreeMap<&'static str, u64>,
    calm: bool,
    violation: Option<Violation>,
}

/// How the calls of a run have ended so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// The calls that were made.
    pub made: u64,
    /// The calls that a server has answered.
    pub answered: u64,
    /// The calls that failed or were dropped.
    pub failed: u64,
    /// The calls that have not ended.
    pub pending: u64,
    /// The announced calls that ran on two servers, since the bus delivered them twice.
    pub announced_twice: u64,
}

/// An incarnation of a server.
struct Server {
    node: usize,
    id: String,
    /// Whether it crashed or was killed, so that its handlers are dropped.
    is_dead: bool,
    running: usize,
}

impl Ledger {
    /// Returns an empty ledger for a run.
    pub fn new(context: Arc<dyn RunContext>) -> Self {
        Self { context, entries: Arc::default() }
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the time of the run.
    pub fn now(&self) -> Time {
        self.context.now()
    }

    /// Notes that the faults have stopped, so that fresh calls must succeed.
    pub fn faults_stopped(&self) {
        self.entries().calm = true;
    }

    /// Returns `true` if the faults have stopped.
    pub fn is_calm(&self) -> bool {
        self.entries().calm
    }

    /// Counts a fault.
    pub fn count(&self, fault: Fault) {
        self.context.count(fault);
    }

    /// Logs a line of the trace.
    fn log(&self, source: &str, text: impl Display) {
        self.context.log(source, &text);
    }

    /// Records the result of a check. The first violation is kept.
    pub fn judge(&self, checked: Checked) {
        if let Err(violation) = checked {
            self.log("judge", &violation);
            self.entries().violation.get_or_insert(violation);
        }
    }

    /// Returns the first violation, if there was one.
    pub fn violation(&self) -> Option<Violation> {
        self.entries().violation.clone()
    }

    /// Returns the number of calls, and the number of those that had to succeed.
    pub fn calls(&self) -> (u64, u64) {
        let entries = self.entries();
        let fresh = entries.calls.iter().filter(|call| call.spec.expected != Expected::Anything).count();
        (entries.calls.len() as u64, fresh as u64)
    }

    /// Returns how the calls have ended so far.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for call in &self.entries().calls {
            totals.made += 1;
            let outcome = match (call.ended, call.answered) {
                (false, _) => &mut totals.pending,
                (true, true) => &mut totals.answered,
                (true, false) => &mut totals.failed,
            };
            *outcome += 1;
            totals.announced_twice += u64::from(call.ran_twice());
        }
        totals
    }

    /// Describes the calls that have not ended though their deadlines have passed.
    pub fn overdue(&self) -> Vec<String> {
        let now = self.now();
        let calls: Vec<_> = self.entries().calls.iter().map(|call| (call.ended, call.spec)).collect();
        let is_overdue = |(_, (ended, spec)): &(usize, (bool, CallSpec))| {
            !ended && now > self.latest_allowed(spec.node, spec.due)
        };
        let describe = |(number, (_, spec)): (usize, (bool, CallSpec))| {
            let (kind, late) = (spec.kind, now.since(spec.due));
            format!("call {number} of client {}, a {kind:?}, is {late:?} past its deadline", spec.client)
        };
        calls.into_iter().enumerate().filter(is_overdue).map(describe).collect()
    }

    /// Returns how many calls ended in each way.
    pub fn outcomes(&self) -> BTreeMap<&'static str, u64> {
        self.entries().outcomes.clone()
    }

    // --- nodes -----------------------------------------------------------------------------------

    /// Returns the latest time at which a node may observe something that was due at `due`.
    pub fn latest_allowed(&self, node: usize, due: Time) -> Time {
        self.context.latest_allowed(node, due)
    }

    /// Adds a client. Returns its number.
    pub fn new_client(&self) -> usize {
        let mut entries = self.entries();
        entries.clients.push(None);
        entries.clients.len() - 1
    }

    /// Notes that a client is closed.
    pub fn client_closed(&self, client: usize) {
        let now = self.now();
        self.entries().clients[client].get_or_insert(now);
    }

    /// Adds a server that is about to start, with the given id or a new one. Returns its number and
    /// id.
    pub fn new_server(&self, node: usize, id: Option<String>) -> (usize, String) {
        let mut entries = self.entries();
        let number = entries.servers.len();
        let id = id.unwrap_or_else(|| format!("SRV_{number}"));
        entries.servers.push(Server { node, id: id.clone(), is_dead: false, running: 0 });
        (number, id)
    }

    /// Notes that a server was killed, so that its handlers are dropped.
    pub fn server_died(&self, server: usize) {
        self.entries().servers[server].is_dead = true;
    }

    /// Notes that a node is about to crash with all its servers.
    pub fn node_crashes(&self, node: usize) {
        let mut entries = self.entries();
        entries
            .servers
            .iter_mut()
            .filter(|server| server.node == node)
            .for_each(|server| server.is_dead = true);
    }

    /// Checks the end of a shutdown of a server whose runtime has shut down: it must end at once
    /// (I1).
    pub fn check_immediate_shutdown(&self, server: usize, node: usize, start: Time) {
        let (now, allowed) = (self.now(), self.latest_allowed(node, start));
        if now > allowed {
            self.judge(
                Invariant::I1.violated(format!("server {server} shut down {:?} late", now.since(allowed))),
            );
        }
    }

    /// Checks the end of a shutdown (I14).
    pub fn check_shutdown(&self, server: usize, node: usize, start: Time, ended: Time) {
        let entries = self.entries();
        let Server { is_dead, running, .. } = entries.servers[server];
        drop(entries);
        let end = self.latest_allowed(node, start + LONGEST_SHUTDOWN);
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

    /// Adds a call that is about to be made. Returns its number.
    pub fn call_made(&self, spec: CallSpec) -> usize {
        let mut entries = self.entries();
        let (number, timeout) = (entries.calls.len(), spec.due.since(spec.start));
        self.log("caller", format_args!("makes call {number}, a {:?}, for {timeout:?}", spec.kind));
        entries.calls.push(UserCall::new(spec));
        entries.calls.len() - 1
    }

    /// Notes that the future of a call is dropped.
    pub fn call_dropped(&self, call: usize) {
        self.log("caller", format_args!("drops call {call}"));
        self.count(Fault::Cancel);
        let mut entries = self.entries();
        entries.calls[call].dropped = true;
        entries.calls[call].ended = true;
        *entries.outcomes.entry("dropped").or_default() += 1;
    }

    /// Checks that a call ended in time (I1, I15).
    pub fn call_ended(&self, call: usize) {
        let now = self.now();
        let CallSpec { client, node, start, due, kind, retried, .. } = self.entries().end_call(call);
        let closed = self.end_of_client(client, node, start).filter(|_| !retried);
        let checked = if now > self.latest_allowed(node, due) {
            let late = now.since(due);
            Invariant::I1.violated(format!("call {call}, a {kind:?}, resolved {late:?} past its deadline"))
        } else if closed.is_some_and(|closed| now > closed) {
            Invariant::I15.violated(format!("call {call} outlived its client"))
        } else {
            Ok(())
        };
        self.judge(checked);
    }

    /// Checks that another future of a client, pending since `since`, resolved in time (I15).
    pub fn check_wait(&self, client: usize, node: usize, since: Time, future: &str) {
        let closed = self.end_of_client(client, node, since);
        if closed.is_some_and(|closed| self.now() > closed) {
            self.judge(Invariant::I15.violated(format!("{future} outlived its client")));
        }
    }

    /// Checks how a unary call resolved.
    pub fn call_resolved(&self, call: usize, result: &Result<Reply, Error>) {
        self.call_ended(call);
        self.log("caller", format_args!("call {call} resolved: {result:?}"));
        let checked = {
            let mut entries = self.entries();
            let outcome = match result {
                Ok(_) => "answered",
                Err(error) => error.reason().map_or("refused", Reason::as_str),
            };
            *entries.outcomes.entry(outcome).or_default() += 1;
            entries.calls[call].answered |= result.is_ok();
            entries.calls[call].check(call, result)
        };
        self.judge(checked.map_err(|violation| violation.at(format_args!("call {call}"))));
    }

    /// Checks a response to a multi call, or an error without a server.
    pub fn response_received(&self, call: usize, server_id: Option<&str>, result: Result<&Reply, &Error>) {
        let checked = {
            let mut entries = self.entries();
            entries.calls[call].response_received(call, server_id, result)
        };
        self.judge(checked.map_err(|violation| violation.at(format_args!("call {call}"))));
    }

    // --- handlers --------------------------------------------------------------------------------

    /// Checks the start of a handler (I2).
    pub fn handler_started(&self, server: usize, call: usize, request: &str) {
        let may_lie = self.context.bus_may_lie();
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
    pub fn handler_ended(&self, server: usize, call: usize, end: HandlerEnd) {
        let mut entries = self.entries();
        entries.servers[server].running -= 1;
        if let Some(call) = entries.calls.get_mut(call) {
            call.handler_ends.push((server, end));
        }
    }

    /// Checks a dropped handler (I14). `overran` is `true` if its deadline had passed.
    pub fn handler_dropped(&self, server: usize, call: usize, overran: bool) {
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
    pub fn frame_published(&self, frame: &Frame) {
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

    /// Adds a stream. Returns its number.
    pub fn new_stream(&self) -> usize {
        let mut entries = self.entries();
        entries.streams.push(StreamMessages::default());
        entries.streams.len() - 1
    }

    /// Adds a message that is about to be sent, and returns its number.
    pub fn add_message(&self, stream: usize, direction: Direction) -> u64 {
        let mut entries = self.entries();
        let messages = entries.streams[stream].messages(direction);
        messages.sent.push(false);
        messages.sent.len() as u64 - 1
    }

    /// Checks a successful send, which began at `start` (I7).
    pub fn message_sent(&self, stream: usize, direction: Direction, number: u64, start: Time) {
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
    pub fn message_received(&self, stream: usize, direction: Direction, number: u64) {
        let checked = {
            let mut entries = self.entries();
            let messages = entries.streams[stream].messages(direction);
            let checked = messages.check_next(number);
            messages.received.push(number);
            checked
        };
        self.judge(checked.map_err(|violation| violation.at(format_args!("stream {stream} {direction:?}"))));
    }

    /// Returns how many messages of a stream were received.
    pub fn received(&self, stream: usize, direction: Direction) -> usize {
        self.entries().streams[stream].messages(direction).received.len()
    }

    /// Notes that the receiver has taken all messages until the end.
    pub fn received_all(&self, stream: usize, direction: Direction) {
        self.entries().streams[stream].messages(direction).received_all = true;
    }

    /// Notes that the receiver has dropped the stream.
    pub fn receiver_dropped(&self, stream: usize, direction: Direction) {
        let now = self.now();
        self.entries().streams[stream].messages(direction).receiver_dropped.get_or_insert(now);
    }

    /// Notes whether the handler of a stream runs.
    pub fn set_handled(&self, stream: usize, handled: bool) {
        self.entries().streams[stream].handled = handled;
    }

    /// Returns `true` if the handler of a stream runs.
    pub fn is_handled(&self, stream: usize) -> bool {
        self.entries().streams[stream].handled
    }

    /// Checks at the end of the run that receivers that took everything received every message
    /// whose send succeeded (I7).
    pub fn check_streams(&self) {
        let checked = self.entries().streams.iter().enumerate().try_for_each(|(number, stream)| {
            [&stream.to_server, &stream.to_client].into_iter().try_for_each(|messages| {
                messages.check_end().map_err(|violation| violation.at(format_args!("stream {number}")))
            })
        });
        self.judge(checked);
    }
}

impl Ledger {
    /// Returns the time by which a future of a closed client that was pending since `since` must
    /// have resolved. Returns `None` if the client is not closed.
    fn end_of_client(&self, client: usize, node: usize, since: Time) -> Option<Time> {
        let closed = self.entries().clients[client]?;
        Some(self.latest_allowed(node, closed.max(since)))
    }
}

impl Entries {
    /// Notes that a call has ended, and returns its parameters.
    fn end_call(&mut self, call: usize) -> CallSpec {
        let call = &mut self.calls[call];
        call.ended = true;
        call.spec
    }
}
