//! Tests of the judge: for each invariant, it reports a history that violates it, and accepts a
//! similar history that does not.

mod streams;

use std::time::Duration;

use bytes::Bytes;
use psrpc_engine::proto::{
    Any, ClaimRequest, ClaimResponse, ErrorCode, ErrorResponse, Frame, Metadata, Request, Response, Stream,
    StreamBody, Text,
};
use psrpc_engine::{Evidence, Failure, Reason, Reply, Time, WallTime};
use psrpc_simulation::NodeId;
use psrpc_simulation::judge::fact::{
    CallParameters, Fact, HandlerStart, Operation, OperationKind, Server, TableSize,
};
use psrpc_simulation::judge::model::Model;
use psrpc_simulation::judge::selection_rules::SelectionRules;
use psrpc_simulation::judge::violation::{Checked, Invariant};

const CLIENT: NodeId = NodeId::Client(0);
const SERVER: NodeId = NodeId::Server(1);

const EXPIRY: WallTime = WallTime::from_unix_nanos(100);
const FIRST: SelectionRules = SelectionRules {
    minimum: 0.0,
    maximum: 0.0,
    accept_first: true,
    affinity_timeout: Duration::ZERO,
    short_circuit: Duration::ZERO,
    ask: false,
    limit: 9,
};
const BEST: SelectionRules =
    SelectionRules { accept_first: false, affinity_timeout: Duration::from_nanos(30), ..FIRST };

const SINGLE: CallParameters =
    CallParameters { queue: true, rules: None, began: at(0), deadline: at(100), expiry: EXPIRY };
const QUEUE: CallParameters = CallParameters { rules: Some(FIRST), ..SINGLE };
const AFFINITY: CallParameters = CallParameters { queue: false, ..QUEUE };

const ALLOWANCE: Duration = Duration::from_nanos(50);

const fn at(nanos: u64) -> Time {
    Time::from_nanos(nanos)
}

/// Returns the server with an id, which ends with the number of its incarnation.
fn server(id: &Text) -> Server<'_> {
    let incarnation = id.as_str().rsplit('_').next().and_then(|incarnation| incarnation.parse().ok());
    Server { id, incarnation: incarnation.expect("the id ends with a number") }
}

/// A history whose first call, `REQ_0`, is due at 100 by every clock, and the verdict of the judge.
struct History {
    model: Model,
    verdict: Checked,
}

impl History {
    fn new() -> Self {
        Self { model: Model::new(), verdict: Ok(()) }
    }

    fn of(called: CallParameters) -> Self {
        Self::new().call(called, false)
    }

    fn call(self, called: CallParameters, must_succeed: bool) -> Self {
        self.starts(CLIENT, OperationKind::Call(called), must_succeed).publishes_request()
    }

    /// Returns the history of a multi call.
    fn multi(expected: Option<usize>, fresh: Option<usize>) -> Self {
        let kind = OperationKind::Multi {
            deadline: at(100),
            expiry: EXPIRY,
            expected,
            servers: fresh.unwrap_or_default(),
        };
        Self::new().starts(CLIENT, kind, fresh.is_some()).publishes_request()
    }

    /// Returns the history of a stream that is open on both sides and has the number 0.
    fn stream(fresh: bool) -> Self {
        let history = if fresh { Self::new().note(Fact::Calm) } else { Self::new() };
        let history = history.opening(fresh).run("SRV_1").ack("REQ_0", 99);
        history.note(Fact::Ended { number: Some(0), outcome: Ok(()) })
    }

    fn opening(self, fresh: bool) -> Self {
        let called = CallParameters { queue: false, ..SINGLE };
        let mut metadata = Metadata::new();
        metadata.insert("call", "call 0");
        let open = StreamBody::Open { node_id: "CLI_0".into(), metadata };
        self.starts(CLIENT, OperationKind::Stream(called), fresh).publishes_on_stream(CLIENT, open)
    }

    /// Returns the history of an update that must reach the client.
    fn update(queue: bool, fresh: bool) -> Self {
        Self::new().starts(SERVER, OperationKind::Update { subscribers: vec![CLIENT], queue }, fresh)
    }

    fn starts(self, node: NodeId, kind: OperationKind, must_succeed: bool) -> Self {
        self.note(Fact::Started(Operation {
            node,
            kind,
            deadline: at(100),
            grace: Duration::ZERO,
            must_succeed,
        }))
    }

    /// Publishes the request of the last operation.
    fn publishes_request(self) -> Self {
        let number = self.model.operations() - 1;
        let (request_id, payload) = (format!("REQ_{number}").into(), format!("call {number}").into());
        self.publishes(CLIENT, &Frame::Request(Request { request_id, payload, ..Request::default() })).step()
    }

    fn publishes(self, node: NodeId, frame: &Frame) -> Self {
        self.note(Fact::Published { node, frame, now: at(10), last_blocked: None })
    }

    /// Publishes a frame of the stream.
    fn publishes_on_stream(self, node: NodeId, body: StreamBody) -> Self {
        let (stream_id, request_id) = ("STR_0".into(), "REQ_0".into());
        self.publishes(
            node,
            &Frame::Stream(Stream { stream_id, request_id, body: Some(body), ..Stream::default() }),
        )
    }

    /// Starts a send on the stream, with the next number.
    fn starts_send(self, node: NodeId) -> Self {
        self.starts(node, OperationKind::Send { stream: 0, deadline: at(100) }, false)
    }

    /// Publishes the message of a send, and delivers its ack at this time.
    fn acknowledged(self, node: NodeId, message: usize, nanos: u64) -> Self {
        let (stream_id, request_id) = ("STR_0".into(), format!("REQ_{message}").into());
        let body = Some(StreamBody::Message { payload: format!("call {message}").into() });
        let sent = Frame::Stream(Stream { stream_id, request_id, body, ..Stream::default() });
        self.publishes(node, &sent).ack(&format!("REQ_{message}"), nanos)
    }

    /// Delivers an ack of the stream to the client.
    fn ack(self, request_id: &str, nanos: u64) -> Self {
        let (stream_id, request_id) = ("STR_0".into(), request_id.into());
        let ack = Stream { stream_id, request_id, body: Some(StreamBody::Ack), ..Stream::default() };
        self.note(Fact::ClientReceived(CLIENT, &Frame::Stream(ack), at(nanos)))
    }

    fn receives(self, at: NodeId, message: usize) -> Self {
        self.note(Fact::MessageReceived { at, stream: 0, payload: &format!("call {message}").into() })
    }

    fn accepts(self, at: NodeId, message: usize) -> Self {
        self.note(Fact::Accepted { at, message })
    }

    fn send_succeeds(self, message: usize) -> Self {
        self.note(Fact::Ended { number: Some(message), outcome: Ok(()) })
    }

    /// Closes the stream on one side, with a cause.
    fn closes(self, node: NodeId, text: &str) -> Self {
        self.publishes_on_stream(node, StreamBody::Close { code: ErrorCode::Aborted, text: text.into() })
    }

    fn stream_ends(self, at: NodeId, reason: Reason, text: &str) -> Self {
        let cause = failure(reason, ErrorResponse::new(ErrorCode::Aborted, text));
        self.note(Fact::StreamEnded { at, stream: 0, cause: &cause })
    }

    fn receives_update(self, at: NodeId) -> Self {
        self.note(Fact::UpdateReceived { at, payload: &"call 0".into() })
    }

    /// Passes a fact to the judge, unless it has found a violation.
    fn note(mut self, fact: Fact<'_>) -> Self {
        self.verdict = self.verdict.and_then(|()| self.model.note(fact));
        self
    }

    fn step(self) -> Self {
        self.note(Fact::StepEnded)
    }

    fn time(self, nanos: u64) -> Self {
        self.note(Fact::TimeAdvanced(at(nanos)))
    }

    fn ends(mut self) -> Self {
        self.verdict = self.verdict.and_then(|()| self.model.finish());
        self
    }

    fn reaches(self, id: &str) -> Self {
        let request = Frame::Request(Request { request_id: "REQ_0".into(), ..Request::default() });
        self.note(Fact::ServerReceived(server(&id.into()), &request, at(10)))
    }

    /// Delivers a bid to the client.
    fn bid(self, server: &str) -> Self {
        self.note(Fact::ClientReceived(CLIENT, &claim(server, false), at(10)))
    }

    /// Makes a server skip the claim, and delivers its announcement.
    fn announcement(self, id: &str) -> Self {
        let who = id.into();
        let skipped = Fact::SkippedClaim { server: server(&who), request: &"REQ_0".into() };
        self.note(skipped).note(Fact::ClientReceived(CLIENT, &claim(id, true), at(10)))
    }

    fn grant(self, server: &str) -> Self {
        let grant = ClaimResponse { request_id: "REQ_0".into(), server_id: server.into() };
        self.publishes(CLIENT, &Frame::ClaimResponse(grant))
    }

    fn run(self, server: &str) -> Self {
        self.run_at(server, 10)
    }

    fn run_at(self, id: &str, wall: i64) -> Self {
        let (id, request, wall) = (&id.into(), &"REQ_0".into(), WallTime::from_unix_nanos(wall));
        self.note(Fact::HandlerStarted(HandlerStart {
            server: server(id),
            request,
            wall,
            allowance: ALLOWANCE,
        }))
    }

    fn answer(self, id: &str, result: Result<&'static str, ErrorResponse>) -> Self {
        let result: Result<Bytes, _> = result.map(Into::into);
        let (id, request): (&Text, &Text) = (&id.into(), &"REQ_0".into());
        let answered = Fact::Responded { server: server(id), request, result: result.clone() };
        self.note(answered).response(id.as_str(), result, 10)
    }

    /// Delivers a response to the client.
    fn response(self, id: &str, result: Result<Bytes, ErrorResponse>, nanos: u64) -> Self {
        let (request_id, server_id) = ("REQ_0".into(), id.into());
        let response = Frame::Response(Response { request_id, server_id, sent_at: 0, result });
        self.note(Fact::ClientReceived(CLIENT, &response, at(nanos)))
    }

    fn cancel(self, may_have_ended: bool) -> Self {
        self.note(Fact::Canceled { call: 0, may_have_ended })
    }

    fn reply(self, server: &str, payload: &'static str) -> Self {
        let reply = Reply { server_id: server.into(), payload: payload.into() };
        self.note(Fact::Resolved { call: Some(0), outcome: &Ok(reply) })
    }

    /// Reports a response to a multi call.
    fn reports_response(self, server: &str, payload: &'static str) -> Self {
        self.note(Fact::MultiResponse {
            call: Some(0),
            server_id: &server.into(),
            result: &Ok(payload.into()),
        })
    }

    fn multi_call_ends(self) -> Self {
        self.note(Fact::Ended { number: Some(0), outcome: Ok(()) })
    }

    fn failure(self, reason: Reason) -> Self {
        self.note(Fact::Resolved { call: Some(0), outcome: &Err(failure(reason, error("no"))) })
    }

    /// Resolves the call with the error of a server.
    fn error(self, text: &str) -> Self {
        self.note(Fact::Resolved { call: Some(0), outcome: &Err(failure(Reason::Answered, error(text))) })
    }

    #[track_caller]
    fn passes(self) {
        assert_eq!(self.verdict, Ok(()));
    }

    #[track_caller]
    fn violates(self, invariant: Invariant) {
        let violation = self.verdict.expect_err("the judge reports a violation");
        assert_eq!(violation.invariant, invariant, "{violation}");
    }
}

fn claim(server: &str, handling: bool) -> Frame {
    let (request_id, server_id) = ("REQ_0".into(), server.into());
    Frame::ClaimRequest(ClaimRequest { request_id, server_id, affinity: 1.0, handling })
}

fn error(text: &str) -> ErrorResponse {
    ErrorResponse::new(ErrorCode::Internal, text)
}

fn failure(reason: Reason, error: ErrorResponse) -> Box<Failure> {
    let ErrorResponse { code, text, details } = error;
    Box::new(Failure { reason, code, text, details, evidence: Evidence::default(), source: None })
}

/// Returns the history of a call that was granted to `SRV_1`, which runs it.
fn running() -> History {
    History::of(QUEUE).reaches("SRV_1").bid("SRV_1").grant("SRV_1").run("SRV_1")
}

#[test]
fn a_successful_call_passes() {
    running().answer("SRV_1", Ok("done")).time(100).reply("SRV_1", "done").step().time(200).passes();
}

#[test]
fn a_call_that_resolves_late_twice_or_never_violates_i1() {
    running().time(100).passes();
    running().time(101).violates(Invariant::I1);
    running().failure(Reason::TimedOut).failure(Reason::TimedOut).violates(Invariant::I1);
    let unknown = Fact::Resolved { call: None, outcome: &Err(failure(Reason::TimedOut, error("no"))) };
    running().note(unknown).violates(Invariant::I1);
}

#[test]
fn a_response_bid_or_ack_accepted_at_the_deadline_violates_i1() {
    let done = || Ok::<Bytes, ErrorResponse>("done".into());
    let ran = || {
        let result = done();
        let (id, request): (&Text, &Text) = (&"SRV_1".into(), &"REQ_0".into());
        running().note(Fact::Responded { server: server(id), request, result })
    };
    ran().response("SRV_1", done(), 99).reply("SRV_1", "done").passes();
    ran().response("SRV_1", done(), 100).reply("SRV_1", "done").violates(Invariant::I1);

    let bid = |nanos| Fact::ClientReceived(CLIENT, &*Box::leak(Box::new(claim("SRV_1", false))), at(nanos));
    History::of(QUEUE).note(bid(99)).grant("SRV_1").passes();
    History::of(QUEUE).note(bid(100)).grant("SRV_1").violates(Invariant::I5);
    let granted_at = |nanos, last_blocked| {
        let rules = SelectionRules { accept_first: false, affinity_timeout: Duration::ZERO, ..FIRST };
        SelectingCall::by(rules).bid("SRV_1", 1.0, 10).grant_after_block("SRV_1", nanos, last_blocked)
    };
    granted_at(100, None).violates(Invariant::I1);
    granted_at(150, Some(120)).passes();

    let answered = |nanos| History::multi(None, None).run("SRV_1").response("SRV_1", done(), nanos);
    answered(100).reports_response("SRV_1", "done").violates(Invariant::I1);

    let opened = |nanos| {
        let history = History::new().opening(false).run("SRV_1").ack("REQ_0", nanos);
        history.note(Fact::Ended { number: Some(0), outcome: Ok(()) })
    };
    opened(99).passes();
    opened(100).violates(Invariant::I1);

    let sent = |nanos| {
        let sent = History::stream(false).starts_send(CLIENT).receives(SERVER, 1).accepts(SERVER, 1);
        sent.acknowledged(CLIENT, 1, nanos).send_succeeds(1)
    };
    sent(99).passes();
    sent(100).violates(Invariant::I1);
}

#[test]
fn a_server_that_skips_the_claim_and_responds_without_an_announcement_violates_i2() {
    let response = |id: &str| {
        let (request_id, server_id) = ("REQ_0".into(), id.into());
        Frame::Response(Response { request_id, server_id, sent_at: 1, result: Ok("done".into()) })
    };
    let skipped = || {
        let (id, request): (&Text, &Text) = (&"SRV_1".into(), &"REQ_0".into());
        History::of(QUEUE).note(Fact::SkippedClaim { server: server(id), request }).run("SRV_1")
    };
    skipped().publishes(SERVER, &claim("SRV_1", true)).publishes(SERVER, &response("SRV_1")).passes();
    skipped().publishes(SERVER, &response("SRV_1")).violates(Invariant::I2);
}

#[test]
fn a_selection_that_ends_without_asking_its_caller_violates_i5() {
    let asking = SelectionRules { ask: true, accept_first: false, ..FIRST };
    let ended = |asked, reason| {
        let mut failure = failure(reason, error("no"));
        failure.evidence.asked = asked;
        let call = History::of(CallParameters { rules: Some(asking), ..AFFINITY });
        call.note(Fact::Resolved { call: Some(0), outcome: &Err(failure) })
    };
    ended(true, Reason::NoResponse).passes();
    ended(false, Reason::Canceled).passes();
    for reason in [Reason::TimedOut, Reason::NoResponse, Reason::NotAcceptable, Reason::Answered] {
        ended(false, reason).violates(Invariant::I5);
    }
}

#[test]
fn a_call_that_ends_as_if_nobody_had_received_its_request_violates_i5_if_a_server_has() {
    History::of(QUEUE).failure(Reason::NobodySubscribed).passes();
    History::of(QUEUE).reaches("SRV_1").failure(Reason::NobodySubscribed).violates(Invariant::I5);
}

#[test]
fn a_claimed_request_that_runs_on_two_servers_violates_i2() {
    running().run("SRV_2").violates(Invariant::I2);
    running().bid("SRV_2").grant("SRV_2").violates(Invariant::I2);
    History::of(QUEUE).bid("SRV_1").run("SRV_1").violates(Invariant::I2);
    running().announcement("SRV_2").run("SRV_2").violates(Invariant::I2);
}

#[test]
fn only_a_queue_request_that_two_servers_received_may_run_on_both() {
    let both = |properties| History::of(properties).reaches("SRV_1").reaches("SRV_2");
    let announced = |history: History, server| history.announcement(server).run(server);
    announced(announced(both(QUEUE), "SRV_1"), "SRV_2").passes();
    announced(both(QUEUE).bid("SRV_1").grant("SRV_1").run("SRV_1"), "SRV_2").passes();
    announced(both(AFFINITY), "SRV_1").violates(Invariant::I2);
}

#[test]
fn a_grant_after_an_announcement_violates_i2_unless_they_could_cross() {
    let announced = || History::of(QUEUE).reaches("SRV_1").announcement("SRV_1").bid("SRV_2");
    announced().grant("SRV_2").violates(Invariant::I2);
    // The announcement arrived while the grant waited for room on the bus.
    let crossed = || announced().reaches("SRV_2").grant("SRV_2").run("SRV_1").run("SRV_2");
    crossed().answer("SRV_2", Ok("done")).reply("SRV_2", "done").passes();
    crossed().bid("SRV_1").grant("SRV_1").violates(Invariant::I2);
}

#[test]
fn a_request_that_runs_twice_on_one_server_violates_i2() {
    History::of(SINGLE).run("SRV_1").run("SRV_2").passes();
    History::of(SINGLE).run("SRV_1").run("SRV_1").violates(Invariant::I2);
    History::of(QUEUE).announcement("SRV_1").run("SRV_1").run("SRV_1").violates(Invariant::I2);
}

#[test]
fn a_run_of_an_unknown_request_violates_i2() {
    let (server, request, wall) = (&"SRV_1".into(), &"REQ_7".into(), WallTime::default());
    let run = Fact::HandlerStarted(HandlerStart {
        server: self::server(server),
        request,
        wall,
        allowance: ALLOWANCE,
    });
    History::of(SINGLE).note(run).violates(Invariant::I2);
}

#[test]
fn a_handler_that_starts_at_the_expiry_plus_the_allowance_violates_i3() {
    History::of(SINGLE).run_at("SRV_1", 149).passes();
    History::of(SINGLE).run_at("SRV_1", 150).violates(Invariant::I3);
}

#[test]
fn a_canceled_call_that_is_granted_or_runs_violates_i4() {
    let canceled = || History::of(QUEUE).bid("SRV_1").cancel(false).failure(Reason::Canceled).step();
    canceled().passes();
    canceled().grant("SRV_1").violates(Invariant::I4);
    canceled().run("SRV_1").violates(Invariant::I4);
    // A server that skips the claim does not know about the cancellation.
    canceled().announcement("SRV_1").run("SRV_1").passes();
    // A call that was granted before may run.
    let granted = History::of(QUEUE).bid("SRV_1").grant("SRV_1").cancel(false).failure(Reason::Canceled);
    granted.step().run("SRV_1").passes();
}

#[test]
fn a_canceled_call_whose_caller_does_not_see_it_violates_i4() {
    running().cancel(false).step().violates(Invariant::I4);
    running().cancel(false).failure(Reason::TimedOut).step().violates(Invariant::I4);
    running().cancel(true).step().violates(Invariant::I4);
    // Another input in the same step has ended it first.
    running().cancel(true).failure(Reason::PublishFailed).step().passes();
}

#[test]
fn a_reply_of_another_server_or_with_another_payload_violates_i5() {
    let answered = || running().answer("SRV_1", Ok("done")).answer("SRV_2", Ok("done too"));
    answered().reply("SRV_2", "done too").violates(Invariant::I5);
    answered().reply("SRV_1", "done too").violates(Invariant::I5);
    running().response("SRV_1", Ok("done".into()), 10).reply("SRV_1", "done").violates(Invariant::I5);
    let single = History::of(SINGLE).run("SRV_1").response("SRV_2", Ok("done".into()), 10);
    single.reply("SRV_2", "done").violates(Invariant::I5);
    let announced = History::of(QUEUE).announcement("SRV_1").run("SRV_1").announcement("SRV_2");
    announced.answer("SRV_2", Ok("done too")).reply("SRV_2", "done too").violates(Invariant::I5);
}

#[test]
fn an_error_of_a_server_that_was_not_selected_violates_i5() {
    let rejected = |history: History| history.answer("SRV_2", Err(error("cannot decode")));
    rejected(History::of(AFFINITY)).error("cannot decode").passes();
    rejected(running()).error("cannot decode").violates(Invariant::I5);
    rejected(History::of(AFFINITY)).error("something else").violates(Invariant::I5);
}

#[test]
fn a_grant_to_a_server_without_a_finite_bid_violates_i5() {
    History::of(AFFINITY).grant("SRV_1").violates(Invariant::I5);
    let (request_id, server_id): (Text, Text) = ("REQ_0".into(), "SRV_1".into());
    let affinity = f32::INFINITY;
    let bid = Frame::ClaimRequest(ClaimRequest { request_id, server_id, affinity, handling: false });
    History::of(AFFINITY)
        .note(Fact::ClientReceived(CLIENT, &bid, at(10)))
        .grant("SRV_1")
        .violates(Invariant::I5);
}

#[test]
fn an_error_decoded_as_success_or_a_success_as_error_violates_i6() {
    running().answer("SRV_1", Err(error("no"))).error("no").passes();
    running().answer("SRV_1", Err(error("no"))).reply("SRV_1", "").violates(Invariant::I6);
    running().answer("SRV_1", Ok("done")).error("done").violates(Invariant::I6);
    History::of(SINGLE).run("SRV_1").answer("SRV_1", Ok("done")).error("done").violates(Invariant::I6);
}

#[test]
fn an_error_may_be_filled_in_but_not_changed() {
    let empty = ErrorResponse::new(ErrorCode::Other(Text::EMPTY), "");
    let failure_of =
        |code: &str, text: &str| failure(Reason::Answered, ErrorResponse::new(code.into(), text));
    let resolves_with = |outcome| {
        let answered = running().answer("SRV_1", Err(empty.clone()));
        answered.note(Fact::Resolved { call: Some(0), outcome: &Err(outcome) })
    };
    resolves_with(failure_of("unknown", "unknown")).passes();
    resolves_with(failure_of("internal", "internal")).violates(Invariant::I5);
    resolves_with(failure_of("unknown", "changed")).violates(Invariant::I5);
}

#[test]
fn a_table_or_timer_that_is_left_over_violates_i9() {
    let tables = |count| {
        [TableSize { table: "calls", count: 0, limit: 9 }, TableSize { table: "streams", count, limit: 9 }]
    };
    let left = |count, timer| running().note(Fact::Leftovers { tables: &tables(count), timer });
    left(0, None).passes();
    left(1, None).violates(Invariant::I9);
    left(0, Some(at(7))).violates(Invariant::I9);
}

#[test]
fn a_table_over_its_limit_violates_i10() {
    let holds = |count| running().note(Fact::TableSizes(&[TableSize { table: "streams", count, limit: 9 }]));
    holds(9).passes();
    holds(10).violates(Invariant::I10);
}

#[test]
fn a_closed_client_with_a_pending_call_violates_i15() {
    let close = |history: History| history.note(Fact::Closed { client: CLIENT });
    close(running()).failure(Reason::ClientClosed).step().passes();
    close(running()).step().violates(Invariant::I15);
    close(running().call(QUEUE, false)).failure(Reason::ClientClosed).step().violates(Invariant::I15);
    running().note(Fact::Closed { client: NodeId::Client(1) }).step().passes();
}

#[test]
fn a_fresh_call_that_fails_without_faults_violates_i16() {
    let fresh = || History::new().call(SINGLE, true).run("SRV_1");
    fresh().answer("SRV_1", Ok("done")).reply("SRV_1", "done").passes();
    fresh().failure(Reason::TimedOut).violates(Invariant::I16);
}

#[test]
fn a_timeout_that_is_due_after_it_was_handled_violates_i18() {
    let ticked = |next| running().note(Fact::TimeoutHandled { at: at(7), next });
    ticked(None).passes();
    ticked(Some(at(8))).passes();
    ticked(Some(at(7))).violates(Invariant::I18);
}

#[test]
fn an_operation_that_was_abandoned_crashed_or_paused_is_not_overdue() {
    History::of(SINGLE).note(Fact::Abandoned { number: 0 }).time(101).passes();
    History::of(SINGLE).note(Fact::Abandoned { number: 0 }).failure(Reason::TimedOut).violates(Invariant::I1);
    History::of(SINGLE).note(Fact::Crashed(CLIENT)).time(101).passes();
    History::of(SINGLE).note(Fact::Crashed(SERVER)).time(101).violates(Invariant::I1);
    let paused = || History::of(SINGLE).note(Fact::Paused { node: CLIENT, until: at(300) });
    paused().time(300).failure(Reason::TimedOut).passes();
    paused().time(301).violates(Invariant::I1);
}

#[test]
fn a_restarted_server_with_the_same_id_may_run_the_request_too() {
    let (id, request) = (Text::from_static("SRV_1"), Text::from_static("REQ_0"));
    let one = |incarnation| HandlerStart {
        server: Server { id: &id, incarnation },
        request: &request,
        wall: WallTime::from_unix_nanos(10),
        allowance: ALLOWANCE,
    };
    History::of(QUEUE)
        .bid("SRV_1")
        .grant("SRV_1")
        .note(Fact::HandlerStarted(one(1)))
        .note(Fact::HandlerStarted(one(2)))
        .passes();
    History::of(QUEUE)
        .bid("SRV_1")
        .grant("SRV_1")
        .note(Fact::HandlerStarted(one(1)))
        .note(Fact::HandlerStarted(one(1)))
        .violates(Invariant::I2);
}

#[test]
fn a_second_or_altered_response_to_a_multi_call_violates_i5() {
    let answered = || {
        History::multi(None, None).run("SRV_1").answer("SRV_1", Ok("one")).reports_response("SRV_1", "one")
    };
    answered().time(100).multi_call_ends().passes();
    answered().reports_response("SRV_1", "one").violates(Invariant::I5);
    answered()
        .response("SRV_2", Ok("one".into()), 10)
        .reports_response("SRV_2", "one")
        .violates(Invariant::I5);
    answered().answer("SRV_2", Err(error("no"))).reports_response("SRV_2", "one").violates(Invariant::I6);
}

#[test]
fn a_multi_call_that_ends_early_violates_i1_unless_it_has_the_expected_responses() {
    let answered = |expected| {
        History::multi(expected, None)
            .run("SRV_1")
            .answer("SRV_1", Ok("one"))
            .reports_response("SRV_1", "one")
    };
    answered(Some(1)).multi_call_ends().passes();
    answered(Some(2)).multi_call_ends().violates(Invariant::I1);
    answered(None).multi_call_ends().violates(Invariant::I1);
}

#[test]
fn a_fresh_multi_call_without_a_response_of_each_server_violates_i16() {
    let answered = |servers| {
        let called = History::multi(None, Some(servers)).run("SRV_1").answer("SRV_1", Ok("one"));
        called.reports_response("SRV_1", "one").time(100).multi_call_ends()
    };
    answered(1).passes();
    answered(2).violates(Invariant::I16);
}

#[test]
fn a_fresh_update_that_is_lost_violates_i13_and_one_that_arrives_twice_i5() {
    History::update(false, true).ends().violates(Invariant::I13);
    History::update(false, false).ends().passes();
    let received = |queue| History::update(queue, true).receives_update(CLIENT);
    received(false).ends().passes();
    received(false).receives_update(CLIENT).violates(Invariant::I5);
    received(false).receives_update(NodeId::Client(1)).ends().passes();
    received(true).receives_update(NodeId::Client(1)).violates(Invariant::I5);
}

#[test]
fn a_refusal_by_the_server_itself_and_a_forged_response_are_accepted() {
    let refuses = |code: ErrorCode| {
        let (request_id, server_id) = ("REQ_0".into(), "SRV_1".into());
        let result = Err(ErrorResponse::new(code.clone(), "full"));
        let refusal = Frame::Response(Response { request_id, server_id, sent_at: 1, result });
        let outcome = Err(failure(Reason::Answered, ErrorResponse::new(code, "full")));
        let called = History::of(SINGLE).publishes(SERVER, &refusal);
        let called = called.note(Fact::ClientReceived(CLIENT, &refusal, at(10)));
        called.note(Fact::Resolved { call: Some(0), outcome: &outcome })
    };
    refuses(ErrorCode::ResourceExhausted).passes();
    refuses(ErrorCode::Internal).violates(Invariant::I5);
    let received = |server_id: &str| {
        let (request_id, server_id) = ("REQ_0".into(), server_id.into());
        let answer = Response { request_id, server_id, sent_at: 1, result: Ok("forged".into()) };
        History::of(SINGLE).note(Fact::ClientReceived(CLIENT, &Frame::Response(answer), at(10)))
    };
    received("SRV_stranger_3").reply("SRV_stranger_3", "forged").passes();
    received("SRV_3").reply("SRV_3", "forged").violates(Invariant::I5);
}

/// A call that selects the best bid at 30, or as the rules say.
struct SelectingCall(History);

impl SelectingCall {
    fn by(rules: SelectionRules) -> Self {
        Self(History::of(CallParameters { rules: Some(rules), ..AFFINITY }))
    }

    fn bid(self, server: &str, affinity: f32, nanos: u64) -> Self {
        let (request_id, server_id) = ("REQ_0".into(), server.into());
        let bid = ClaimRequest { request_id, server_id, affinity, handling: false };
        Self(self.0.note(Fact::ClientReceived(CLIENT, &Frame::ClaimRequest(bid), at(nanos))))
    }

    fn grant(self, server: &str, nanos: u64) -> History {
        self.grant_after_block(server, nanos, None)
    }

    fn grant_after_block(self, server: &str, nanos: u64, last_blocked: Option<u64>) -> History {
        let grant = ClaimResponse { request_id: "REQ_0".into(), server_id: server.into() };
        let (frame, last_blocked) = (Frame::ClaimResponse(grant), last_blocked.map(at));
        self.0.note(Fact::Published { node: CLIENT, frame: &frame, now: at(nanos), last_blocked })
    }
}

#[test]
fn a_grant_to_a_server_other_than_the_best_violates_i5() {
    let bids = || SelectingCall::by(BEST).bid("SRV_1", 0.5, 3).bid("SRV_2", 0.75, 4).bid("SRV_3", 0.75, 5);
    bids().grant("SRV_2", 30).passes();
    bids().grant("SRV_1", 30).violates(Invariant::I5);
    // Of equal bids, the first wins.
    bids().grant("SRV_3", 30).violates(Invariant::I5);
    // A second bid of a server does not count.
    bids().bid("SRV_1", 1.0, 6).grant("SRV_1", 30).violates(Invariant::I5);
    // A bid at the very end of the selection may count or not. A clock may have skipped the
    // nanosecond in which it ends.
    for moment in [30, 31] {
        bids().bid("SRV_4", 1.0, moment).grant("SRV_4", moment).passes();
        bids().bid("SRV_4", 1.0, moment).grant("SRV_2", moment).passes();
    }
    // A later bid does not count.
    bids().bid("SRV_4", 1.0, 32).grant_after_block("SRV_4", 32, Some(29)).violates(Invariant::I1);
}

#[test]
fn a_grant_before_its_time_violates_i5_and_one_after_it_i1() {
    let bids = |rules| SelectingCall::by(rules).bid("SRV_1", 0.5, 3);
    bids(BEST).grant("SRV_1", 29).violates(Invariant::I5);
    bids(BEST).grant("SRV_1", 32).violates(Invariant::I1);
    bids(BEST).grant_after_block("SRV_1", 32, Some(30)).passes();
    let short = SelectionRules { short_circuit: Duration::from_nanos(10), ..BEST };
    bids(short).bid("SRV_2", 0.25, 8).grant("SRV_1", 13).passes();
    bids(short).bid("SRV_2", 0.25, 8).grant("SRV_1", 18).violates(Invariant::I1);
    bids(SelectionRules { affinity_timeout: Duration::ZERO, ..BEST })
        .grant("SRV_1", 99)
        .violates(Invariant::I5);
}

#[test]
fn the_first_bid_that_wins_at_once_by_the_rules_must_win() {
    let bids = |rules| SelectingCall::by(rules).bid("SRV_1", 0.25, 3).bid("SRV_2", 0.5, 4);
    let (minimum, maximum) =
        (SelectionRules { minimum: 0.5, ..FIRST }, SelectionRules { maximum: 0.5, ..BEST });
    bids(FIRST).grant("SRV_1", 3).passes();
    bids(FIRST).grant("SRV_2", 4).violates(Invariant::I5);
    bids(minimum).grant("SRV_2", 4).passes();
    bids(minimum).grant("SRV_1", 4).violates(Invariant::I5);
    bids(maximum).grant("SRV_2", 4).passes();
    bids(maximum).grant("SRV_1", 30).violates(Invariant::I5);
    // The selection function may select any bid that counts.
    bids(SelectionRules { ask: true, ..BEST }).grant("SRV_1", 7).passes();
    bids(SelectionRules { ask: true, minimum: 0.5, ..BEST }).grant("SRV_1", 7).violates(Invariant::I5);
}

#[test]
fn a_failure_that_counts_more_bids_than_there_were_violates_i5() {
    let fails_with = |bids| {
        let evidence = Evidence { bids, ..Evidence::default() };
        let failure = Box::new(Failure { evidence, ..*failure(Reason::NotAcceptable, error("no")) });
        let call = SelectingCall::by(BEST).bid("SRV_1", 0.0, 3);
        call.0.note(Fact::Resolved { call: Some(0), outcome: &Err(failure) })
    };
    fails_with(1).passes();
    fails_with(2).violates(Invariant::I5);
}

#[test]
fn an_operation_whose_frame_the_bus_rejects_fails_at_once() {
    let request = Frame::Request(Request { request_id: "REQ_0".into(), ..Request::default() });
    let publish_failed =
        |history: History| history.note(Fact::PublishFailed { node: CLIENT, frame: &request });
    publish_failed(History::of(QUEUE)).failure(Reason::PublishFailed).step().passes();
    publish_failed(History::of(QUEUE)).step().violates(Invariant::I1);
    // A server that bids has received the request, whatever the bus reports.
    publish_failed(History::of(QUEUE).bid("SRV_1")).step().passes();
    let update = Frame::Other(Any { type_url: "test.News".into(), value: "call 0".into() });
    let update = |outcome: Result<(), Box<Failure>>| {
        let outcome = outcome.as_ref().copied().map_err(|failure| &**failure);
        let failed = History::update(false, false).note(Fact::PublishFailed { node: SERVER, frame: &update });
        failed.note(Fact::Ended { number: Some(0), outcome }).step()
    };
    update(Err(failure(Reason::PublishFailed, error("no")))).passes();
    update(Ok(())).violates(Invariant::I6);
}
