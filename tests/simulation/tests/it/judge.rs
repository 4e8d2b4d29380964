//! The judge itself: for each invariant a history that violates it is reported, and its innocent twin is not.

use std::time::Duration;

use psrpc_engine::proto::{
    ClaimRequest, ClaimResponse, ErrorCode, ErrorResponse, Frame, MethodProperties, Request, Routing, Text,
};
use psrpc_engine::{Evidence, Failure, Reason, Reply, Time, WallTime};
use psrpc_simulation::check::{Called, Checked, Fact, Invariant, Model, Run};

const QUEUE: MethodProperties = MethodProperties { routing: Routing::Queue, require_claim: true };
const AFFINITY: MethodProperties = MethodProperties { routing: Routing::Affinity, require_claim: true };
const SINGLE: MethodProperties = MethodProperties { routing: Routing::Queue, require_claim: false };

const ALLOWANCE: Duration = Duration::from_nanos(50);

fn at(nanos: u64) -> Time {
    Time::from_nanos(nanos)
}

/// A history of one call, `REQ_0`, which is due at 100 by every clock, and what the judge says to it.
struct History {
    model: Model,
    verdict: Checked,
}

impl History {
    fn of(properties: MethodProperties) -> Self {
        Self { model: Model::new(), verdict: Ok(()) }.call(properties, false)
    }

    fn call(self, properties: MethodProperties, must_succeed: bool) -> Self {
        let number = self.model.calls();
        let expiry = WallTime::from_unix_nanos(100);
        let called = Called { client: 0, properties, deadline: at(100), expiry, must_succeed };
        let request_id = format!("REQ_{number}").into();
        let payload = format!("call {number}").into();
        let request = Frame::Request(Request { request_id, payload, ..Request::default() });
        self.note(Fact::Called(called)).note(Fact::Published(&request)).step()
    }

    /// Tells the judge, unless it has heard enough.
    fn note(mut self, fact: Fact<'_>) -> Self {
        self.verdict = self.verdict.and_then(|()| self.model.note(fact));
        self
    }

    fn step(self) -> Self {
        self.note(Fact::StepEnded)
    }

    fn time(self, nanos: u64) -> Self {
        self.note(Fact::TimeIs(at(nanos)))
    }

    fn reaches(self, server: &str) -> Self {
        let request = Frame::Request(Request { request_id: "REQ_0".into(), ..Request::default() });
        self.note(Fact::ServerHeard(&server.into(), &request))
    }

    /// A bid is heard.
    fn bid(self, server: &str) -> Self {
        self.note(Fact::ClientHeard(&claim(server, false)))
    }

    /// A server elects to run the request, and its announcement is heard.
    fn announcement(self, server: &str) -> Self {
        let elected = Fact::Elected { server: &server.into(), request: &"REQ_0".into() };
        self.note(elected).note(Fact::ClientHeard(&claim(server, true)))
    }

    fn grant(self, server: &str) -> Self {
        let grant = ClaimResponse { request_id: "REQ_0".into(), server_id: server.into() };
        self.note(Fact::Published(&Frame::ClaimResponse(grant)))
    }

    fn run(self, server: &str) -> Self {
        self.run_at(server, 10)
    }

    fn run_at(self, server: &str, wall: i64) -> Self {
        let (server, request) = (&server.into(), &"REQ_0".into());
        self.note(Fact::Ran(Run {
            server,
            request,
            wall: WallTime::from_unix_nanos(wall),
            allowance: ALLOWANCE,
        }))
    }

    fn answer(self, server: &str, result: Result<&'static str, ErrorResponse>) -> Self {
        let result = result.map(Into::into);
        self.note(Fact::Answered { server: &server.into(), request: &"REQ_0".into(), result })
    }

    fn cancel(self, in_company: bool) -> Self {
        self.note(Fact::Canceled { call: 0, in_company })
    }

    fn reply(self, server: &str, payload: &'static str) -> Self {
        let reply = Reply { server_id: server.into(), payload: payload.into() };
        self.note(Fact::Resolved { call: Some(0), outcome: &Ok(reply) })
    }

    fn failure(self, reason: Reason) -> Self {
        self.note(Fact::Resolved { call: Some(0), outcome: &Err(failure(reason, error("no"))) })
    }

    /// The call fails with what a server answered.
    fn error(self, text: &str) -> Self {
        self.note(Fact::Resolved { call: Some(0), outcome: &Err(failure(Reason::Answered, error(text))) })
    }

    #[track_caller]
    fn passes(self) {
        assert_eq!(self.verdict, Ok(()));
    }

    #[track_caller]
    fn violates(self, invariant: Invariant) {
        let violation = self.verdict.expect_err("the judge must see it");
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

/// A call that was granted to `SRV_1`, which runs it.
fn running() -> History {
    History::of(QUEUE).reaches("SRV_1").bid("SRV_1").grant("SRV_1").run("SRV_1")
}

#[test]
fn a_call_that_goes_well_passes() {
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
fn a_claimed_request_that_runs_on_two_servers_violates_i2() {
    running().run("SRV_2").violates(Invariant::I2);
    running().bid("SRV_2").grant("SRV_2").violates(Invariant::I2);
    History::of(QUEUE).bid("SRV_1").run("SRV_1").violates(Invariant::I2);
    running().announcement("SRV_2").run("SRV_2").violates(Invariant::I2);
}

#[test]
fn only_what_a_queue_brought_to_two_servers_may_run_on_both_and_announced() {
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
    // The grant was on its way out when the announcement came, since the bus was full.
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
fn a_run_of_what_nobody_called_violates_i2() {
    let (server, request, wall) = (&"SRV_1".into(), &"REQ_7".into(), WallTime::default());
    let run = Fact::Ran(Run { server, request, wall, allowance: ALLOWANCE });
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
    // A server that runs it of its own accord cannot know.
    canceled().announcement("SRV_1").run("SRV_1").passes();
    // What was granted before may run.
    let granted = History::of(QUEUE).bid("SRV_1").grant("SRV_1").cancel(false).failure(Reason::Canceled);
    granted.step().run("SRV_1").passes();
}

#[test]
fn a_canceled_call_whose_caller_does_not_see_it_violates_i4() {
    running().cancel(false).step().violates(Invariant::I4);
    running().cancel(false).failure(Reason::TimedOut).step().violates(Invariant::I4);
    running().cancel(true).step().violates(Invariant::I4);
    // Something else in the same step has ended it before.
    running().cancel(true).failure(Reason::PublishFailed).step().passes();
}

#[test]
fn a_reply_of_another_server_or_with_another_payload_violates_i5() {
    let answered = || running().answer("SRV_1", Ok("done")).answer("SRV_2", Ok("done too"));
    answered().reply("SRV_2", "done too").violates(Invariant::I5);
    answered().reply("SRV_1", "done too").violates(Invariant::I5);
    running().reply("SRV_1", "done").violates(Invariant::I5);
    History::of(SINGLE).run("SRV_1").reply("SRV_2", "done").violates(Invariant::I5);
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
    History::of(AFFINITY).note(Fact::ClientHeard(&bid)).grant("SRV_1").violates(Invariant::I5);
}

#[test]
fn an_error_that_comes_out_as_success_or_a_success_as_error_violates_i6() {
    running().answer("SRV_1", Err(error("no"))).error("no").passes();
    running().answer("SRV_1", Err(error("no"))).reply("SRV_1", "").violates(Invariant::I6);
    running().answer("SRV_1", Ok("done")).error("done").violates(Invariant::I6);
    History::of(SINGLE).run("SRV_1").answer("SRV_1", Ok("done")).error("done").violates(Invariant::I6);
}

#[test]
fn an_error_may_be_filled_in_but_not_changed() {
    let empty = ErrorResponse::new(ErrorCode::Other(Text::EMPTY), "");
    let came = |code: &str, text: &str| failure(Reason::Answered, ErrorResponse::new(code.into(), text));
    let comes_as = |outcome| {
        let answered = running().answer("SRV_1", Err(empty.clone()));
        answered.note(Fact::Resolved { call: Some(0), outcome: &Err(outcome) })
    };
    comes_as(came("unknown", "unknown")).passes();
    comes_as(came("internal", "internal")).violates(Invariant::I5);
    comes_as(came("unknown", "changed")).violates(Invariant::I5);
}

#[test]
fn anything_left_over_violates_i9() {
    let left = |in_flight, remembered, timer| Fact::Left { in_flight, remembered, timer };
    running().note(left(0, 0, None)).passes();
    running().note(left(1, 0, None)).violates(Invariant::I9);
    running().note(left(0, 1, None)).violates(Invariant::I9);
    running().note(left(0, 0, Some(at(7)))).violates(Invariant::I9);
}

#[test]
fn a_closed_client_with_a_pending_call_violates_i15() {
    let close = |history: History| history.note(Fact::Closed { client: 0 });
    close(running()).failure(Reason::ClientClosed).step().passes();
    close(running()).step().violates(Invariant::I15);
    close(running().call(QUEUE, false)).failure(Reason::ClientClosed).step().violates(Invariant::I15);
    running().note(Fact::Closed { client: 1 }).step().passes();
}

#[test]
fn a_fresh_call_that_fails_without_faults_violates_i16() {
    let fresh = || History { model: Model::new(), verdict: Ok(()) }.call(SINGLE, true).run("SRV_1");
    fresh().answer("SRV_1", Ok("done")).reply("SRV_1", "done").passes();
    fresh().failure(Reason::TimedOut).violates(Invariant::I16);
}

#[test]
fn a_timeout_that_is_due_after_it_was_handled_violates_i18() {
    let ticked = |next| running().note(Fact::Ticked { at: at(7), next });
    ticked(None).passes();
    ticked(Some(at(8))).passes();
    ticked(Some(at(7))).violates(Invariant::I18);
}
