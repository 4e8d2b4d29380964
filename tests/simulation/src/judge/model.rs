//! The model: checks the invariants of engines in a run, independently of the engines, from the
//! facts of the run.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use psrpc_engine::proto::{ErrorCode, Frame, Stream, StreamBody, Text};
use psrpc_engine::{Failure, Reason, Time};

use super::call_history::CallHistory;
use super::fact::{Fact, HandlerStart, Operation, OperationKind, Server};
use super::multi_history::MultiHistory;
use super::operations::Operations;
use super::payload;
use super::responses::Responses;
use super::stream_history::StreamHistory;
use super::update_history::UpdateHistory;
use super::violation::{Checked, Invariant};
use crate::frame_forger;
use crate::node_id::NodeId;

/// The time within which the other side of a stream must see its end, if the stream was opened
/// after the faults stopped.
const HANDSHAKE: Duration = Duration::from_millis(250);

/// Records all operations of a run, and reports the first fact that violates an invariant.
///
/// It knows only the inputs and outputs of the engines, and shares no code with them except the
/// wire format.
#[derive(Default)]
pub struct Model {
    now: Time,
    operations: Operations,
    histories: Vec<History>,
    /// The operations by their request and stream ids on the wire.
    requests: BTreeMap<Text, usize>,
    /// The sends of each node by their ids on the wire.
    sends: BTreeMap<(NodeId, Text), usize>,
    /// The times by which both sides of a watched stream must have seen its end.
    closing: BTreeSet<(Time, usize)>,
    /// The calls canceled in this step, and whether another input may have ended them first.
    canceled: Vec<(usize, bool)>,
    /// The clients closed in this step.
    closed: Vec<NodeId>,
    /// The operations that resolved as canceled in this step.
    resolved_canceled: Vec<usize>,
    /// The operations whose frames the bus rejected, as reported in this step.
    publish_failures: Vec<usize>,
    calm: bool,
    calls: usize,
    fresh_calls: usize,
}

enum History {
    Call(CallHistory),
    Stream(CallHistory, StreamHistory),
    Multi(MultiHistory),
    Send(Send),
    Update(UpdateHistory),
}

/// A send on a stream.
struct Send {
    stream: usize,
    /// The deadline by the sender's monotonic clock.
    deadline: Time,
    /// Whether the sender received an ack before the deadline.
    is_acked: bool,
}

impl Model {
    /// Creates the model of a run.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the number of operations so far, which is the number of the next operation.
    pub fn operations(&self) -> usize {
        self.operations.len()
    }

    /// Returns the number of calls: unary calls, multi calls and openings of streams.
    pub fn calls(&self) -> usize {
        self.calls
    }

    /// Returns the number of calls that had to succeed.
    pub fn fresh_calls(&self) -> usize {
        self.fresh_calls
    }

    /// Returns `true` if an operation must succeed.
    pub(crate) fn is_fresh(&self, number: usize) -> bool {
        match &self.histories[number] {
            History::Call(call) | History::Stream(call, _) => call.must_succeed,
            History::Multi(multi) => multi.must_succeed,
            History::Update(update) => update.must_succeed,
            History::Send(_) => false,
        }
    }

    /// Returns the number of calls of a node that have not ended.
    pub(crate) fn open_calls(&self, node: NodeId) -> usize {
        let is_call =
            |number: &usize| !matches!(self.histories[*number], History::Send(_) | History::Update(_));
        self.operations.open_on(node).into_iter().filter(is_call).count()
    }

    /// Returns the operation that a request or a stream belongs to.
    pub(crate) fn number_of(&self, id: &Text) -> Option<usize> {
        self.requests.get(id).copied()
    }

    /// Records a fact.
    ///
    /// # Errors
    ///
    /// Fails if the fact violates an invariant.
    pub fn note(&mut self, fact: Fact<'_>) -> Checked {
        match fact {
            Fact::TimeAdvanced(now) => self.time_advanced(now),
            Fact::Started(operation) => {
                self.start_operation(operation);
                Ok(())
            }
            Fact::Published { node, frame, now, last_blocked } => {
                self.published(node, frame, now, last_blocked)
            }
            Fact::PublishFailed { node, frame } => {
                self.publish_failed(node, frame);
                Ok(())
            }
            Fact::ServerReceived(server, frame, now) => {
                self.server_received(server, frame);
                self.ack_received(NodeId::Server(server.incarnation), frame, now);
                Ok(())
            }
            Fact::ClientReceived(client, frame, now) => {
                self.client_received(frame, now);
                self.ack_received(client, frame, now);
                Ok(())
            }
            Fact::Calm => {
                self.calm = true;
                Ok(())
            }
            Fact::SkippedClaim { server, request } => {
                if let Some(call) = self.call_of(request) {
                    call.skipped_claim(server.id);
                }
                Ok(())
            }
            Fact::HandlerStarted(run) => self.ran(run),
            Fact::Responded { server, request, result } => {
                if let Some(responses) = self.responses_of(request) {
                    responses.add(server.id, result);
                }
                Ok(())
            }
            Fact::Canceled { call, may_have_ended } => {
                if self.operations.is_open(call) {
                    if let History::Call(call) | History::Stream(call, _) = &mut self.histories[call] {
                        call.canceled();
                    }
                    self.canceled.push((call, may_have_ended));
                }
                Ok(())
            }
            Fact::Abandoned { number } => {
                self.operations.abandon(number);
                Ok(())
            }
            Fact::Closed { client } => {
                self.closed.push(client);
                Ok(())
            }
            Fact::Crashed(node) => {
                self.operations.crash(node);
                Ok(())
            }
            Fact::Paused { node, until } => {
                self.operations.pause(node, until);
                Ok(())
            }
            Fact::Resolved { call, outcome } => {
                let outcome = outcome.as_ref().map_err(Box::as_ref);
                self.ended(call, outcome.err(), |history| match history {
                    History::Call(call) => call.resolved(outcome),
                    _ => Invariant::I1.violated("the operation is not a unary call"),
                })
            }
            Fact::MultiResponse { call, server_id, result } => self.judge(call, |history| match history {
                History::Multi(multi) => multi.response(server_id, result),
                _ => Invariant::I1.violated("the operation is not a multi call"),
            }),
            Fact::Ended { number, outcome } => self.operation_ended(number, outcome),
            Fact::MessageReceived { at, stream, payload } => self.message(at, stream, payload),
            Fact::Accepted { at, message } => {
                if let Some(stream) = self.stream_of_send(message) {
                    self.stream(stream).accepted(at, message);
                }
                Ok(())
            }
            Fact::StreamEnded { at, stream, cause } => {
                let ended = self.stream(stream).ended(at, cause);
                ended.map_err(|violation| violation.at(format_args!("stream {stream}")))
            }
            Fact::UpdateReceived { at, payload } => {
                let number = payload::number(payload).filter(|number| *number < self.histories.len());
                let Some(number) = number else {
                    return Invariant::I5
                        .violated(format!("{payload:?} was reported at {at}, but never published"));
                };
                self.judge(Some(number), |history| match history {
                    History::Update(update) => update.received(at),
                    _ => Invariant::I5.violated("the operation is not an update"),
                })
            }
            Fact::StepEnded => self.step_ended(),
            Fact::TimeoutHandled { at, next } => match next {
                Some(next) if next <= at => {
                    Invariant::I18.violated(format!("handled {at:?}, but the next timeout is {next:?}"))
                }
                _ => Ok(()),
            },
            Fact::TableSizes(tables) => match tables.iter().find(|size| size.count > size.limit) {
                Some(size) => Invariant::I10.violated(format!("{size:?}")),
                None => Ok(()),
            },
            Fact::Leftovers { tables, timer } => match tables.iter().find(|size| size.count > 0) {
                Some(size) => Invariant::I9.violated(format!("{} {} left over", size.count, size.table)),
                None if timer.is_some() => Invariant::I9.violated(format!("timer {timer:?} left over")),
                None => Ok(()),
            },
        }
    }

    /// Checks the invariants that can be checked only at the end of a run.
    ///
    /// # Errors
    ///
    /// Fails if an update did not reach its subscribers.
    pub fn finish(&self) -> Checked {
        for (number, history) in self.histories.iter().enumerate() {
            if let History::Update(update) = history {
                update.check().map_err(|violation| violation.at(format_args!("update {number}")))?;
            }
        }
        Ok(())
    }

    fn start_operation(&mut self, operation: Operation) {
        // A slow clock shows one reading for several nanoseconds, so a deadline of now converts to
        // an earlier virtual time.
        let operation = Operation { deadline: operation.deadline.max(self.now), ..operation };
        self.operations.start(&operation);
        let Operation { kind, must_succeed, .. } = operation;
        let is_call =
            matches!(kind, OperationKind::Call(_) | OperationKind::Stream(_) | OperationKind::Multi { .. });
        self.calls += usize::from(is_call);
        self.fresh_calls += usize::from(is_call && must_succeed);
        self.histories.push(match kind {
            OperationKind::Call(called) => History::Call(CallHistory::new(called, must_succeed)),
            OperationKind::Stream(called) => {
                let stream = StreamHistory::new(must_succeed, self.calm);
                History::Stream(CallHistory::new(called, must_succeed), stream)
            }
            OperationKind::Multi { deadline, expiry, expected, servers } => {
                History::Multi(MultiHistory::new(deadline, expiry, expected, servers, must_succeed))
            }
            OperationKind::Send { stream, deadline } => {
                History::Send(Send { stream, deadline, is_acked: false })
            }
            OperationKind::Update { subscribers, queue } => {
                History::Update(UpdateHistory::new(subscribers, queue, must_succeed))
            }
        });
    }

    fn time_advanced(&mut self, now: Time) -> Checked {
        self.now = now;
        self.operations.check(now)?;
        while let Some((due, number)) = self.closing.first().copied().filter(|(due, _)| *due < now) {
            self.closing.remove(&(due, number));
            let client = self.operations.node(number);
            if self.stream(number).is_half_open(client) {
                return Invariant::I8.violated(format!(
                    "stream {number}: one side has not seen the end {HANDSHAKE:?} after it was sent"
                ));
            }
        }
        Ok(())
    }

    // --- frames ----------------------------------------------------------------------------------

    fn published(&mut self, node: NodeId, frame: &Frame, now: Time, last_blocked: Option<Time>) -> Checked {
        match frame {
            Frame::Request(request) => {
                if let Some(number) = payload::number(&request.payload) {
                    self.requests.insert(request.request_id.clone(), number);
                }
            }
            Frame::Stream(Stream {
                stream_id,
                request_id,
                body: Some(StreamBody::Open { metadata, .. }),
                ..
            }) => {
                if let Some(number) = payload::number_of_opening(metadata) {
                    self.requests.insert(stream_id.clone(), number);
                    self.requests.insert(request_id.clone(), number);
                }
            }
            Frame::Stream(Stream { stream_id, body: Some(StreamBody::Close { code, text }), .. }) => {
                if let Some(number) = self.number_of(stream_id)
                    && let History::Stream(_, stream) = &mut self.histories[number]
                {
                    stream.close_sent(node, code, text);
                    if stream.is_watched {
                        self.closing.insert((self.now + HANDSHAKE, number));
                    }
                }
            }
            Frame::Stream(Stream { request_id, body: Some(StreamBody::Message { payload }), .. }) => {
                if let Some(message) = payload::number(payload)
                    && let Some(stream) = self.stream_of_send(message)
                {
                    self.sends.insert((node, request_id.clone()), message);
                    if !self.operations.is_open(message) {
                        return Invariant::I7
                            .violated(format!("message {message} was published after its send had ended"));
                    }
                    return self.stream(stream).check_published(node, message);
                }
            }
            Frame::ClaimResponse(grant) => {
                let number = self.number_of(&grant.request_id);
                return self.judge_known(number, |history| match history {
                    History::Call(call) | History::Stream(call, _) => {
                        call.granted(&grant.server_id, now, last_blocked)
                    }
                    _ => Invariant::I2.violated("the operation needs no grant"),
                });
            }
            Frame::ClaimRequest(bid) if bid.handling && !frame_forger::is_forged_server(&bid.server_id) => {
                if let Some(call) = self.call_of(&bid.request_id) {
                    call.announced(&bid.server_id);
                }
            }
            // A server may refuse a request without asking its user.
            Frame::Response(response) => {
                if let Some(call) = self.call_of(&response.request_id)
                    && !frame_forger::is_forged_server(&response.server_id)
                {
                    call.check_response(&response.server_id)?;
                }
                if let Err(error) = &response.result
                    && matches!(error.code, ErrorCode::ResourceExhausted | ErrorCode::Unimplemented)
                    && let Some(responses) = self.responses_of(&response.request_id)
                {
                    responses.add(&response.server_id, response.result.clone());
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Notes the operation that must end, since the bus reported that it rejected the frame.
    fn publish_failed(&mut self, node: NodeId, frame: &Frame) {
        let number = match frame {
            Frame::Request(request) => self.number_of(&request.request_id),
            Frame::Stream(Stream { request_id, body: Some(StreamBody::Open { .. }), .. }) => {
                self.number_of(request_id)
            }
            Frame::Stream(Stream { body: Some(StreamBody::Message { payload }), .. }) => {
                payload::number(payload)
            }
            Frame::Other(update) => payload::number(&update.value),
            _ => None,
        };
        if let Some(number) = number
            && self.operations.is_open(number)
            && self.operations.node(number) == node
        {
            self.publish_failures.push(number);
        }
    }

    fn server_received(&mut self, server: Server<'_>, frame: &Frame) {
        let request_id = match frame {
            Frame::Request(request) => &request.request_id,
            Frame::Stream(stream) => &stream.request_id,
            _ => return,
        };
        if let Some(call) = self.call_of(request_id) {
            call.reached(server);
        }
    }

    fn client_received(&mut self, frame: &Frame, now: Time) {
        match frame {
            Frame::ClaimRequest(bid) => {
                if let Some(call) = self.call_of(&bid.request_id) {
                    call.bid_received(bid, now);
                }
            }
            Frame::Response(response) => {
                // To the client, a forged response looks like one of a server.
                if frame_forger::is_forged_server(&response.server_id)
                    && let Some(responses) = self.responses_of(&response.request_id)
                {
                    responses.add(&response.server_id, response.result.clone());
                }
                match self.history_of(&response.request_id) {
                    Some(History::Call(call)) => call.response_received(&response.server_id, now),
                    Some(History::Multi(multi)) => multi.received(&response.server_id, now),
                    _ => {}
                }
            }
            Frame::Stream(stream) => {
                if let Some(History::Stream(call, _)) = self.history_of(&stream.stream_id) {
                    call.stream_received(now);
                }
            }
            _ => {}
        }
    }

    /// Notes that a node received the ack of its message.
    fn ack_received(&mut self, node: NodeId, frame: &Frame, now: Time) {
        if let Frame::Stream(Stream { request_id, body: Some(StreamBody::Ack), .. }) = frame
            && let Some(message) = self.sends.get(&(node, request_id.clone())).copied()
            && let History::Send(send) = &mut self.histories[message]
        {
            send.is_acked |= now < send.deadline;
        }
    }

    // --- handlers and outcomes -------------------------------------------------------------------

    fn ran(&mut self, run: HandlerStart<'_>) -> Checked {
        let Some(number) = self.number_of(run.request) else {
            if frame_forger::is_forged_request(run.request) {
                return Ok(());
            }
            return Invariant::I2.violated(format!("{run:?} for an unknown request"));
        };
        self.judge_known(Some(number), |history| match history {
            History::Call(call) => call.ran(run),
            History::Stream(call, stream) => {
                stream.handled(NodeId::Server(run.server.incarnation))?;
                call.ran(run)
            }
            History::Multi(multi) => multi.ran(run),
            History::Send(_) | History::Update(_) => Invariant::I2.violated("the operation has no handler"),
        })
    }

    fn operation_ended(&mut self, number: Option<usize>, outcome: Result<(), &Failure>) -> Checked {
        let now = self.now;
        let early = number.is_some_and(|number| self.operations.deadline(number) > now);
        let must_not_fail = |failure: &Failure, must_succeed| match must_succeed {
            true => Invariant::I16.violated(format!("a fresh operation failed: {failure}")),
            false => Ok(()),
        };
        let message = number.and_then(|number| Some((number, self.stream_of_send(number)?)));
        if let Some((number, stream)) = message {
            self.ended(Some(number), outcome.err(), |_| Ok(()))?;
            let is_acked = matches!(&self.histories[number], History::Send(send) if send.is_acked);
            let stream = self.stream(stream);
            return match outcome {
                Ok(()) if !is_acked => Invariant::I1
                    .violated(format!("the send of message {number} succeeded without an ack in time")),
                Ok(()) => stream.sent(number),
                Err(failure) => must_not_fail(failure, stream.must_succeed && stream.is_open_on_both_sides()),
            };
        }
        let client = number.map(|number| self.operations.node(number));
        let publish_failures = number.is_some_and(|number| self.publish_failures.contains(&number));
        if let (Some(number), Err(_)) = (number, outcome)
            && let History::Stream(_, stream) = &mut self.histories[number]
        {
            stream.failed = true;
            if stream.is_watched {
                self.closing.insert((self.now + HANDSHAKE, number));
            }
        }
        self.ended(number, outcome.err(), |history| match (history, outcome) {
            (History::Stream(call, stream), Ok(())) => {
                call.resolved = true;
                if stream.handlers.is_empty() {
                    return Invariant::I5.violated("it is open, but no server has accepted it");
                }
                call.check_taken()
            }
            (History::Stream(call, stream), Err(failure)) => {
                call.resolved = true;
                must_not_fail(failure, call.must_succeed)?;
                call.check_choice(failure)?;
                match client {
                    Some(client) if failure.reason == Reason::Answered => stream.check_cause(client, failure),
                    _ => Ok(()),
                }
            }
            (History::Multi(multi), Ok(())) => multi.ended(early),
            (History::Multi(multi), Err(failure)) => must_not_fail(failure, multi.must_succeed),
            (History::Update(_), Ok(())) if publish_failures => {
                Invariant::I6.violated("it succeeded although the bus rejected it")
            }
            (History::Update(update), Err(failure)) => must_not_fail(failure, update.must_succeed),
            (History::Update(_) | History::Send(_), _) => Ok(()),
            (History::Call(_), _) => Invariant::I1.violated("a unary call did not end as one"),
        })
    }

    /// Checks the end of an operation.
    fn ended(
        &mut self,
        number: Option<usize>,
        failure: Option<&Failure>,
        judge: impl FnOnce(&mut History) -> Checked,
    ) -> Checked {
        if let Some(number) = number {
            let ended = self.operations.end(self.now, number);
            ended.map_err(|violation| violation.at(format_args!("number {number}")))?;
            if failure.is_some_and(|failure| failure.reason == Reason::Canceled) {
                self.resolved_canceled.push(number);
            }
        }
        self.judge(number, judge)
    }

    fn message(&mut self, at: NodeId, stream: usize, payload: &bytes::Bytes) -> Checked {
        let message =
            payload::number(payload).filter(|message| self.stream_of_send(*message) == Some(stream));
        let Some(message) = message else {
            return Invariant::I7
                .violated(format!("{payload:?} was reported at {at}, but never sent on {stream}"));
        };
        let from = self.operations.node(message);
        let judged = self.stream(stream).message(at, message, from);
        judged.map_err(|violation| violation.at(format_args!("stream {stream}")))
    }

    fn step_ended(&mut self) -> Checked {
        for (number, may_have_ended) in std::mem::take(&mut self.canceled) {
            let ended_before = may_have_ended && !self.operations.is_open(number);
            if !ended_before && !self.resolved_canceled.contains(&number) {
                return Invariant::I4
                    .violated(format!("call {number} was canceled, but did not resolve as canceled"));
            }
        }
        self.resolved_canceled.clear();
        for number in std::mem::take(&mut self.publish_failures) {
            let has_claim = match &self.histories[number] {
                History::Call(call) | History::Stream(call, _) => call.has_claim(),
                History::Multi(multi) => multi.has_response(),
                History::Send(_) | History::Update(_) => false,
            };
            if !has_claim && self.operations.is_open(number) {
                return Invariant::I1
                    .violated(format!("the bus rejected operation {number}, which is still open"));
            }
        }
        for client in std::mem::take(&mut self.closed) {
            if let Some(pending) = self.operations.open_on(client).first() {
                return Invariant::I15
                    .violated(format!("{client} is closed, but operation {pending} is pending"));
            }
        }
        Ok(())
    }

    // --- histories -------------------------------------------------------------------------------

    /// Returns the operation that a request or a stream belongs to.
    fn history_of(&mut self, id: &Text) -> Option<&mut History> {
        self.histories.get_mut(self.requests.get(id).copied()?)
    }

    fn call_of(&mut self, request: &Text) -> Option<&mut CallHistory> {
        match self.history_of(request)? {
            History::Call(call) | History::Stream(call, _) => Some(call),
            _ => None,
        }
    }

    fn responses_of(&mut self, request: &Text) -> Option<&mut Responses> {
        match self.history_of(request)? {
            History::Call(call) | History::Stream(call, _) => Some(&mut call.responses),
            History::Multi(multi) => Some(&mut multi.responses),
            History::Send(_) | History::Update(_) => None,
        }
    }

    fn stream(&mut self, number: usize) -> &mut StreamHistory {
        match &mut self.histories[number] {
            History::Stream(_, stream) => stream,
            _ => panic!("operation {number} is not a stream"),
        }
    }

    fn stream_of_send(&self, number: usize) -> Option<usize> {
        match self.histories.get(number)? {
            History::Send(send) => Some(send.stream),
            _ => None,
        }
    }

    /// Checks a fact against the history of its operation, which must be known.
    fn judge(&mut self, number: Option<usize>, judge: impl FnOnce(&mut History) -> Checked) -> Checked {
        if number.is_none() {
            return Invariant::I1.violated("an unknown operation ended");
        }
        self.judge_known(number, judge)
    }

    /// Checks a fact against the history of its operation, if that is known.
    fn judge_known(&mut self, number: Option<usize>, judge: impl FnOnce(&mut History) -> Checked) -> Checked {
        let Some(number) = number else { return Ok(()) };
        judge(&mut self.histories[number]).map_err(|violation| violation.at(format_args!("call {number}")))
    }
}
