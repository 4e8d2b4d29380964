//! Conversations of Go v0.8.2 for which there is a description and no recording. Each test has the
//! name of its conversation, and notes where we deviate.

use bytes::Bytes;
use psrpc_engine::proto::{ErrorCode, ErrorResponse, Frame, Request, StreamBody};
use psrpc_engine::{Call, ClientEvent, Engine, Reason, Route, Selection, ServerConfig, ServerEvent};

use crate::fixture::{AFFINITY, Driven, QUEUE, RequestEvent, ms, route};

fn queue_call() -> Call {
    Call::new(route("Fit", QUEUE), "hat")
}

fn affinity_call() -> Call {
    Call::new(route("Pick", AFFINITY), "hat")
}

#[test]
fn skip_claim_response_without_announcement() {
    let mut client = Driven::client();
    let (_, request) = client.request(queue_call());
    client.response(&request, "SRV_A", Ok("fits"));
    assert_eq!(client.outcome().unwrap().unwrap().server_id, "SRV_A");
    assert!(client.granted().is_empty());
}

/// Go accepts the first response from any server; we accept only the granted server's.
#[test]
fn skip_claim_announcement_of_another_after_grant() {
    let mut client = Driven::client();
    let (_, request) = client.request(queue_call());
    client.bid(&request, "SRV_A", 1.0);
    assert_eq!(client.granted(), ["SRV_A"]);
    client.announce(&request, "SRV_B");
    client.response(&request, "SRV_B", Ok("from another"));
    assert_eq!(client.dropped(), [Reason::Late, Reason::NotSelected]);
    client.response(&request, "SRV_A", Ok("granted"));
    assert_eq!(client.outcome().unwrap().unwrap().server_id, "SRV_A");
}

/// Go accepts a response from a server that made no bid; we do not.
#[test]
fn unary_affinity_response_without_bid() {
    let mut client = Driven::client();
    let (_, request) = client.request(affinity_call());
    client.response(&request, "SRV_A", Ok("no bid"));
    assert_eq!(client.dropped(), [Reason::NotSelected]);
    client.advance_to(ms(1000));
    assert_eq!(client.failure().text, "no response from servers");
}

/// Go still publishes the request; we publish nothing.
#[test]
fn unary_context_already_expired() {
    let mut client = Driven::client();
    client.call(Call { deadline: Some(client.now.time), ..queue_call() });
    assert!(client.frames().is_empty());
    assert_eq!(client.failure().code, ErrorCode::DeadlineExceeded);
}

#[test]
fn unary_client_closed_during_selection_with_bid() {
    let mut client = Driven::client();
    let (_, request) = client.request(affinity_call());
    client.bid(&request, "SRV_A", 0.5);
    client.advance_to(ms(150));
    client.engine.close(client.now);
    client.drain();
    assert_eq!(client.failure().to_string(), "canceled: client is closed");
    client.advance_to(ms(3000));
    assert!(client.frames().is_empty(), "no frame is published, not even a grant");
}

/// Returns a server that has announced a request, and the request's handle.
fn announcing() -> (Driven<psrpc_engine::Server>, psrpc_engine::RequestHandle) {
    let mut server = Driven::server(&[route("Fit", QUEUE)]);
    let request = Request { skip_claim: true, ..server.new_request("REQ_1", ms(3000)) };
    server.frame("Hats|Fit|REQ", Frame::Request(request));
    let received = server.received();
    let request = received[0].request;
    server.engine.skip_claim(server.now, request);
    server.drain();
    (server, request)
}

#[test]
fn request_field_10_from_recorder() {
    let (mut server, request) = announcing();
    let [(_, Frame::ClaimRequest(bid))] = &server.frames()[..] else { panic!("an announcement") };
    assert!(bid.handling && bid.affinity == 1.0);
    assert_eq!(server.request_events(), [RequestEvent::Run]);
    server.respond(request);
    assert!(matches!(server.frames()[..], [(_, Frame::Response(_))]));
}

#[test]
fn skip_claim_elected_stray_grants() {
    let (mut server, request) = announcing();
    assert_eq!(server.request_events(), [RequestEvent::Run]);
    for granted in ["SRV_other", "SRV_1", "SRV_1"] {
        server.grant("Fit", "REQ_1", granted);
    }
    assert!(!server.request_events().contains(&RequestEvent::Run), "it runs once");
    server.frames();
    server.respond(request);
    assert!(matches!(server.frames()[..], [(_, Frame::Response(_))]), "it runs to the end");
}

#[test]
fn handler_deadline_server_timeout() {
    let config = ServerConfig { timeout: ms(200), ..ServerConfig::new("Hats") };
    let mut server = Driven::server_with(config, &[route("Fit", QUEUE)]);
    server.receive("Fit", "REQ_1", ms(1000));
    let received = server.received();
    assert_eq!(
        received[0].deadline,
        server.now.time + ms(1000),
        "the server's own timeout does not shorten it"
    );
}

#[test]
fn stream_server_error_plain() {
    let parade = Route::stream::<&str>("Hats", "Parade", QUEUE, &[]).unwrap();
    let mut server = Driven::server(&[parade]);
    let open = psrpc_engine::proto::Stream {
        stream_id: "STR_1".into(),
        request_id: "REQ_1".into(),
        sent_at: server.now.wall.as_unix_nanos(),
        expiry: (server.now.wall + ms(3000)).as_unix_nanos(),
        body: Some(StreamBody::Open { node_id: "CLI_1".into(), metadata: Default::default() }),
    };
    server.frame("Hats|Parade|STR", Frame::Stream(open));
    let received = server.received();
    server.bid(received[0].request, 1.0);
    server.grant("Parade", "REQ_1", "SRV_1");
    let accepted = server.events().into_iter().find_map(|event| match event {
        ServerEvent::Accepted { stream, .. } => Some(stream),
        _ => None,
    });
    server.frames();
    let error = ErrorResponse::new(ErrorCode::Unknown, "the felt is torn");
    server.engine.finish_stream(server.now, accepted.unwrap(), Err(error));
    server.drain();
    let [(_, Frame::Stream(close))] = &server.frames()[..] else { panic!("a close") };
    let expected = StreamBody::Close { code: ErrorCode::Unknown, text: "the felt is torn".into() };
    assert_eq!(close.body, Some(expected));
}

/// Go drops it silently. Our engine passes it to the typed client, which yields an error instead.
#[test]
fn subscription_undecodable_update() {
    let mut client = Driven::client();
    let route = Route::new::<&str>(
        "Hats",
        "Made",
        psrpc_engine::proto::MethodProperties {
            routing: psrpc_engine::proto::Routing::Multi,
            require_claim: false,
        },
        &[],
    )
    .unwrap();
    let subscription = client.engine.subscribe(&route, "hats.v1.Hat").unwrap();
    client.drain();
    client.events();
    let any = psrpc_engine::proto::Any {
        type_url: "type.googleapis.com/hats.v1.Hat".into(),
        value: Bytes::from_static(b"\xff\xff"),
    };
    client.deliver(subscription, Frame::Other(any));
    assert!(matches!(client.events()[..], [ClientEvent::Update { .. }]));
}

/// Go accepts empty selection options on a queue.
#[test]
fn selection_options_none_on_a_queue_still_take_an_early_response() {
    let mut client = Driven::client();
    let (_, request) = client.request(Call { selection: Selection::none(), ..queue_call() });
    client.bid(&request, "SRV_A", 1.0);
    client.response(&request, "SRV_A", Ok("fits"));
    assert_eq!(client.outcome().unwrap().unwrap().server_id, "SRV_A");
}
