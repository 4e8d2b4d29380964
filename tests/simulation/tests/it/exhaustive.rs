//! Every schedule of a scenario: their number is correct, all pass, and on a defective bus some
//! fail.

use psrpc_engine::proto::{ErrorCode, ErrorResponse, Frame, Stream, StreamBody};
use psrpc_simulation::exhaustive::outcome::Outcome;
use psrpc_simulation::exhaustive::scenario::{Kind, Scenario, Spoil};
use psrpc_simulation::exhaustive::search::exhaustive;
use psrpc_simulation::judge::violation::Invariant;

/// Returns the invariant that the shortest failing schedule violates.
fn violated(scenario: &Scenario) -> Option<Invariant> {
    let Outcome { failed, failure, .. } = exhaustive(scenario);
    assert_eq!(failed > 0, failure.is_some());
    failure.map(|failure| failure.violation.invariant)
}

/// Returns the invariant that is violated on a bus that alters frames, without other faults.
fn violated_on(kind: Kind, spoil: Spoil) -> Option<Invariant> {
    assert_eq!(violated(&Scenario::new(kind, 0)), None, "the scenario passes without the spoiling");
    violated(&Scenario::new(kind, 0).spoiled(spoil))
}

/// After the call (C), the request may arrive at the server (R), which starts the handler; the
/// handler may finish (H), the response arrive (A), and the timers of the client (c) and the server
/// (s) fire, both at the same moment. The server has a timer from R on, since it remembers the
/// request. The client has one until the call has ended.
///
/// ```text
/// c R            the request has expired when it arrives, and is not remembered
/// R H A s        R H c A s      R H c s A      R H s c A
/// R H s A c      the response arrives at the deadline, and is ignored
/// R c H s        R c s H        both past the expiry, so that there is no response
/// R s H c        R s c H
/// ```
#[test]
fn a_tiny_scenario_has_the_number_of_schedules_counted_by_hand() {
    let outcome = exhaustive(&Scenario::new(Kind::SingleServer, 0));
    assert_eq!((outcome.schedules, outcome.longest), (vec![10], 6));
}

/// With one fault, in the same letters:
///
/// * The request is lost, 1: c. The response is lost when the handler finishes, 2: R H c s and R H
///   s c.
/// * The response arrives twice, 8: the second time before or after s in R H A and R H c A, before
///   or after c in R H s A, and last in the other two.
/// * The request arrives twice, 41: c R R; and after any R except in the first row, at each of the
///   places in the rest of its row, 4 + 5 + 5 + 5 + 5 + 4 * 4 of them.
/// * The server crashes (X), 20: before the call, 1; before R, 2: X c and c X; and then R X c, R H
///   X A, R H X c A, R H A X, R H c X A, R H c A X, R H c s X A, R H s X A c, R H s X c A, R H s A
///   X c, R H s c X A, R c X, R c H X, R c s X, R s X c, R s H X c, R s c X.
/// * The other server, which serves nothing, crashes, 52: before each step of the ten.
#[test]
fn a_tiny_scenario_with_a_fault_has_the_number_of_schedules_counted_by_hand() {
    let outcome = exhaustive(&Scenario::new(Kind::SingleServer, 1));
    assert_eq!(outcome.schedules, vec![10, 1 + 2 + 8 + 41 + 20 + 52]);
}

/// Allows no faults on streams and one elsewhere. The command checks the rest.
#[test]
fn every_schedule_passes() {
    for scenario in Scenario::all() {
        let is_stream = matches!(scenario.kind, Kind::Stream | Kind::Upload | Kind::Download);
        let outcome = exhaustive(&Scenario { faults: u8::from(!is_stream), ..scenario });
        assert!(outcome.failure.is_none(), "{}: {:?}", outcome.scenario, outcome.failure);
        assert!(outcome.schedules.iter().all(|schedules| *schedules > 0), "{outcome:?}");
    }
}

#[test]
fn a_grant_to_both_servers_is_found() {
    let both = |to, frame: &Frame| {
        let mut frame = frame.clone();
        if let Frame::ClaimResponse(grant) = &mut frame {
            grant.server_id = format!("SRV_{to}").into();
        }
        vec![frame]
    };
    for kind in [Kind::Queue, Kind::Affinity, Kind::Upload] {
        let found = violated_on(kind, both);
        // On a queue only one server has bid, and the other ignores the grant.
        assert_eq!(found, (kind != Kind::Queue).then_some(Invariant::I2), "{kind:?}");
    }
}

#[test]
fn an_altered_response_is_found() {
    let altered = |_, frame: &Frame| {
        let mut frame = frame.clone();
        if let Frame::Response(response) = &mut frame {
            response.result = response.result.clone().map(|_| "another hat".into());
        }
        vec![frame]
    };
    for kind in [Kind::Queue, Kind::SkipClaim, Kind::Affinity, Kind::SingleServer, Kind::Multi] {
        assert_eq!(violated_on(kind, altered), Some(Invariant::I5), "{kind:?}");
    }
}

#[test]
fn a_response_turned_into_an_error_is_found() {
    let failed = |_, frame: &Frame| {
        let mut frame = frame.clone();
        if let Frame::Response(response) = &mut frame {
            response.result = Err(ErrorResponse::new(ErrorCode::Internal, "no hat"));
        }
        vec![frame]
    };
    assert_eq!(violated_on(Kind::SingleServer, failed), Some(Invariant::I6));
}

#[test]
fn a_request_duplicated_under_another_id_is_found_to_run_twice() {
    let twice = |_, frame: &Frame| {
        let mut again = frame.clone();
        match &mut again {
            Frame::Request(request) => request.request_id = "REQ_2".into(),
            _ => return vec![frame.clone()],
        }
        vec![frame.clone(), again]
    };
    assert_eq!(violated_on(Kind::Multi, twice), Some(Invariant::I2));
}

#[test]
fn a_request_with_an_extended_expiry_is_found_to_run_past_its_expiry() {
    let longer = |_, frame: &Frame| {
        let mut frame = frame.clone();
        if let Frame::Request(request) = &mut frame {
            request.expiry += 1 << 32;
        }
        vec![frame]
    };
    assert_eq!(violated_on(Kind::SingleServer, longer), Some(Invariant::I3));
}

#[test]
fn a_message_duplicated_under_another_id_is_found() {
    let twice = |_, frame: &Frame| match frame {
        Frame::Stream(stream @ Stream { body: Some(StreamBody::Message { .. }), .. }) => {
            let again = Stream { request_id: "REQ_2".into(), ..stream.clone() };
            vec![frame.clone(), Frame::Stream(again)]
        }
        frame => vec![frame.clone()],
    };
    assert_eq!(violated_on(Kind::Upload, twice), Some(Invariant::I7));
}

#[test]
fn a_lost_message_is_found() {
    let lost = |_, frame: &Frame| match frame {
        Frame::Stream(Stream { body: Some(StreamBody::Message { .. }), .. }) => vec![],
        frame => vec![frame.clone()],
    };
    assert_eq!(violated_on(Kind::Upload, lost), Some(Invariant::I16));
}

#[test]
fn a_lost_or_duplicated_update_is_found() {
    assert_eq!(violated_on(Kind::Update, |_, _| vec![]), Some(Invariant::I13));
    assert_eq!(
        violated_on(Kind::Update, |_, frame| vec![frame.clone(), frame.clone()]),
        Some(Invariant::I13)
    );
}

#[test]
fn the_shortest_failing_schedule_is_described_step_by_step() {
    let lost = |_, _: &Frame| vec![];
    let failure =
        exhaustive(&Scenario::new(Kind::Queue, 0).spoiled(lost)).failure.expect("the scenario fails");
    assert_eq!(failure.steps.len(), 2, "{:?}", failure.steps);
    assert!(failure.steps[0].starts_with("at 0.00: the client makes the call; publishes request"));
    assert!(failure.steps[1].contains("the client runs its timer; reports Resolved"));
}
