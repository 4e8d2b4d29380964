//! Replays every recorded selection of Go through the engine, in virtual time.

use psrpc_engine::proto::{ErrorCode, ErrorResponse, Text};
use psrpc_engine::{Bid, Call, Client, ClientEvent, Selection};
use psrpc_vectors::{SelectionEvent, SelectionRow};

use crate::fixture::{AFFINITY, Driven, ms, route};

/// The rows where we deviate from Go on purpose (PROTOCOL section 6), with our outcome.
const DEVIATIONS: &[(&str, Outcome)] = &[
    // A non-finite affinity is dropped.
    ("+Inf reaches any maximum", Outcome::Server("C", 40)),
    ("NaN alone cannot win", Outcome::Error("unavailable", "no response from servers", 60)),
    ("-Inf cannot win", Outcome::Error("unavailable", "no response from servers", 60)),
    // A server counts once.
    (
        "the same server bids twice: both count",
        Outcome::Error("unavailable", "no servers available (received 1 responses)", 60),
    ),
    ("drawn 7", Outcome::Error("not_found", "the function had no claims", 50)),
    ("drawn 25", Outcome::Error("unavailable", "no servers available (received 2 responses)", 65)),
    // An empty server id is dropped.
    (
        "an empty server id cannot be told from no winner",
        Outcome::Error("unavailable", "no response from servers", 60),
    ),
    (
        "function answers with nothing and no error",
        Outcome::Error("unavailable", "no servers available (received 1 responses)", 60),
    ),
    // An error response with a code but no text is an error.
    ("an error response with an empty text is no error", Outcome::Error("internal", "", 60)),
    // No grant at the deadline: the request has expired by then.
    ("drawn 19", Outcome::BestAtDeadline("S1", 60)),
    ("drawn 23", Outcome::BestAtDeadline("S4", 120)),
];

/// The outcome of a selection, and its time in milliseconds.
#[derive(Clone, Debug, PartialEq)]
enum Outcome<T = &'static str> {
    Server(T, u64),
    Error(T, T, u64),
    /// The call timed out while this server's bid was the best.
    BestAtDeadline(T, u64),
}

#[test]
fn every_selection_ends_as_recorded_or_as_listed() {
    let rows = psrpc_vectors::selections();
    assert_eq!(rows.len(), 68);
    let mut deviations = 0;
    for row in &rows {
        let (outcome, shown) = select(row);
        let deviation = DEVIATIONS.iter().find(|(name, _)| *name == row.what);
        deviations += usize::from(deviation.is_some());
        assert_eq!(shown.is_some(), row.result.selection_func_asked, "{}", row.what);
        match deviation {
            Some((name, expected)) => assert_eq!(outcome, owned(expected), "{name}"),
            None => {
                check(row, &outcome);
                if let Some(bids) = shown {
                    let seen = row.result.selection_func_saw.iter();
                    let seen: Vec<_> = seen
                        .map(|saw| Bid { server_id: saw.server.as_str().into(), affinity: saw.affinity })
                        .collect();
                    assert_eq!(bids, seen, "{}", row.what);
                }
            }
        }
    }
    assert_eq!(deviations, DEVIATIONS.len(), "every deviation has its row");
}

fn owned(outcome: &Outcome) -> Outcome<String> {
    match *outcome {
        Outcome::Server(server, at) => Outcome::Server(server.to_owned(), at),
        Outcome::Error(code, text, at) => Outcome::Error(code.to_owned(), text.to_owned(), at),
        Outcome::BestAtDeadline(server, at) => Outcome::BestAtDeadline(server.to_owned(), at),
    }
}

fn check(row: &SelectionRow, outcome: &Outcome<String>) {
    let result = &row.result;
    let at = match outcome {
        Outcome::Server(server, at) => {
            assert_eq!(Some(server), result.server.as_ref(), "{}", row.what);
            at
        }
        Outcome::Error(code, text, at) => {
            let recorded = (result.error_code.as_deref(), result.error.as_deref());
            assert_eq!((Some(code.as_str()), Some(text.as_str())), recorded, "{}", row.what);
            at
        }
        Outcome::BestAtDeadline(..) => panic!("{}: no recording has this outcome", row.what),
    };
    // Go's timers are a millisecond or two late, but never early.
    assert!(
        result.took_ms.iter().all(|took| (*at..at + 4).contains(took)),
        "{}: at {at} ms, Go took {:?}",
        row.what,
        result.took_ms
    );
}

/// Runs a selection. Returns its outcome, and the bids passed to the selection function if it was
/// called.
fn select(row: &SelectionRow) -> (Outcome<String>, Option<Vec<Bid>>) {
    let options = &row.options;
    let selection = Selection {
        minimum_affinity: Some(options.minimum),
        maximum_affinity: Some(options.maximum),
        accept_first_available: Some(options.accept_first),
        affinity_timeout: Some(ms(options.affinity_timeout_ms)),
        short_circuit_timeout: Some(ms(options.short_circuit_ms)),
        ask: !options.selection_func.is_empty(),
    };
    let mut client = Driven::client();
    let timeout = Some(ms(row.deadline_ms));
    let (call, request) =
        client.request(Call { timeout, selection, ..Call::new(route("Pick", AFFINITY), "") });
    let mut shown = None;
    let mut ended = None;
    let mut events = row.events.iter().peekable();
    for at in 0..=row.deadline_ms {
        client.advance_to(ms(at));
        handle_events(&mut client, at, &mut shown, &mut ended, call, &options.selection_func);
        while let Some(event) = events.next_if(|event| event.at_ms == at) {
            match event {
                SelectionEvent { server: Some(server), affinity: Some(affinity), .. } => {
                    client.bid(&request, server, number(affinity));
                }
                SelectionEvent { success: true, .. } => client.response(&request, "X", Ok("fine")),
                SelectionEvent { error, error_code, .. } => {
                    let error = ErrorResponse::new(
                        ErrorCode::from(error_code.as_deref().unwrap_or_default()),
                        error.as_deref().unwrap_or_default(),
                    );
                    client.response(&request, "X", Err(error));
                }
            }
            handle_events(&mut client, at, &mut shown, &mut ended, call, &options.selection_func);
        }
    }
    (ended.unwrap_or_else(|| panic!("{} ends by its deadline", row.what)), shown)
}

/// Handles the engine's events at millisecond `at`, and makes the selection function's choice.
fn handle_events(
    client: &mut Driven<Client>,
    at: u64,
    shown: &mut Option<Vec<Bid>>,
    ended: &mut Option<Outcome<String>>,
    call: psrpc_engine::CallHandle,
    function: &str,
) {
    for event in client.events() {
        match event {
            ClientEvent::Select { bids, .. } => {
                assert!(shown.is_none(), "called once");
                client.engine.select(client.now, call, choose(function, &bids));
                *shown = Some(bids);
                client.drain();
                return handle_events(client, at, shown, ended, call, function);
            }
            ClientEvent::Resolved { outcome, .. } if ended.is_none() => {
                let failure = outcome.expect_err("no server responds");
                *ended = Some(match failure.evidence.best {
                    Some(best) if failure.code == ErrorCode::DeadlineExceeded => {
                        Outcome::BestAtDeadline(best.server_id.to_string(), at)
                    }
                    _ => Outcome::Error(failure.code.to_string(), failure.text.to_string(), at),
                });
            }
            _ => {}
        }
    }
    for server in client.granted() {
        assert!(ended.is_none(), "granted once");
        *ended = Some(Outcome::Server(server.to_string(), at));
    }
}

fn choose(function: &str, bids: &[Bid]) -> Result<Option<Text>, ErrorResponse> {
    let lowest = || bids.iter().min_by(|a, b| a.affinity.total_cmp(&b.affinity));
    let chosen = match function {
        "lowest" => lowest(),
        "first" => bids.first(),
        "last" => bids.last(),
        "nothing" => return Ok(None),
        "fail" => {
            return Err(ErrorResponse::new(ErrorCode::ResourceExhausted, "the function said no"));
        }
        other => panic!("unknown function {other}"),
    };
    match chosen {
        Some(claim) => Ok(Some(claim.server_id.clone())),
        None => Err(ErrorResponse::new(ErrorCode::NotFound, "the function had no claims")),
    }
}

fn number(affinity: &serde_json::Value) -> f32 {
    match affinity.as_str() {
        Some("NaN") => f32::NAN,
        Some("+Inf") => f32::INFINITY,
        Some("-Inf") => f32::NEG_INFINITY,
        Some(other) => panic!("no number: {other}"),
        None => affinity.as_f64().expect("a number") as f32,
    }
}
