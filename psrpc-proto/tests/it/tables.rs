//! Names, properties and codes, compared row by row with Go's.

use psrpc_proto::{Channel, ErrorCode, GrpcCode, MethodProperties, Routing, RoutingOptions, wire_name};

fn names(channel: &Channel) -> (&str, &str, &str) {
    (channel.legacy(), channel.server(), channel.local())
}

#[test]
fn every_channel_has_the_names_that_go_gives_it() {
    let rows = psrpc_vectors::channel_names();
    assert_eq!(rows.len(), 55);
    for row in rows {
        let (service, method, topic) = (&row.service, &row.method, &row.topic);
        let channels = [
            ("request", Channel::request(service, method, topic, row.queue)),
            ("claim_response", Channel::claim_response(service, method, topic)),
            ("stream_to_server", Channel::stream_to_server(service, method, topic)),
            ("claim_request", Channel::claim_request(service, &row.id)),
            ("response", Channel::response(service, &row.id)),
            ("stream_to_client", Channel::stream_to_client(service, &row.id)),
        ];
        for (kind, channel) in channels {
            assert_eq!(names(&channel), row.names(kind), "{kind} of {service:?} {method:?} {topic:?}");
        }
    }
}

#[test]
fn every_proto_name_becomes_the_name_that_go_gives_it() {
    let rows = psrpc_vectors::wire_names();
    assert_eq!(rows.len(), 32);
    for row in rows {
        assert_eq!(wire_name(&row.proto), row.wire, "{}", row.proto);
    }
}

/// Returns the options of a method in vectors.proto.
fn options_of(method: &str) -> RoutingOptions {
    let options = RoutingOptions::default();
    match method {
        "Pick" => RoutingOptions { routing: Routing::Affinity, ..options },
        "Census" | "ShelfCensus" | "RackCensus" | "Bulletin" => {
            RoutingOptions { routing: Routing::Multi, ..options }
        }
        "OwnerFit" | "OwnerParade" | "ParamsNoTopics" => RoutingOptions { single_server: true, ..options },
        "MultiTrue" | "MultiFalse" => RoutingOptions { deprecated: Some(Routing::Multi), ..options },
        "AffinityFalse" => RoutingOptions { deprecated: Some(Routing::Affinity), ..options },
        "QueueFalse" => RoutingOptions { deprecated: Some(Routing::Queue), ..options },
        "AffinityTypeMultiFalse" => {
            RoutingOptions { routing: Routing::Affinity, deprecated: Some(Routing::Multi), ..options }
        }
        "MultiTypeQueueFalse" => {
            RoutingOptions { routing: Routing::Multi, deprecated: Some(Routing::Queue), ..options }
        }
        _ => options,
    }
}

#[test]
fn every_method_has_the_properties_that_go_generates() {
    let rows = psrpc_vectors::method_flags();
    assert_eq!(rows.len(), 23);
    for row in rows {
        let method = MethodProperties::from_options(options_of(&row.proto));
        assert_eq!(
            (method.affinity(), method.multi(), method.require_claim, method.queue()),
            (row.affinity, row.multi, row.require_claim, row.queue),
            "{}.{}",
            row.service,
            row.proto
        );
        assert_eq!(wire_name(&row.proto), row.wire);
    }
}

#[test]
fn every_code_maps_to_http_grpc_and_twirp_as_in_go() {
    // In Go the empty code is success; we have no such code.
    let rows: Vec<_> = psrpc_vectors::error_codes().into_iter().filter(|row| !row.code.is_empty()).collect();
    assert_eq!(rows.len(), 23);
    for row in &rows {
        let code = ErrorCode::from(row.code.as_str());
        assert_eq!(code.as_str(), row.code);
        assert_eq!(
            (code.http_status(), code.grpc().number(), code.twirp(), code.is_retryable()),
            (row.http, row.grpc_number, row.twirp.as_str(), row.retried_by_default),
            "{code}"
        );
    }
    let defined: Vec<_> = ErrorCode::ALL.iter().map(ErrorCode::as_str).collect();
    let recorded: Vec<_> = rows.iter().map(|row| row.code.as_str()).collect();
    assert_eq!(defined, recorded[..22], "and no other code is defined");
}

#[test]
fn every_grpc_status_maps_to_a_code_as_in_go() {
    // Ok is no error.
    for row in psrpc_vectors::error_codes_from_grpc().into_iter().filter(|row| row.grpc_number != 0) {
        let code = ErrorCode::from(GrpcCode::from_number(row.grpc_number));
        assert_eq!(code.as_str(), row.code, "{}", row.grpc_number);
    }
}
