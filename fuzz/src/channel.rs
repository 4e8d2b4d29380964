//! Channel names: for any parts, the names are distinct and valid on the buses.

use psrpc_engine::Route;
use psrpc_proto::{Channel, InvalidId, MethodProperties, Routing, check_id, wire_name};
use psrpc_vectors::unescaped;

/// The separator between the parts of an input: service, method, id, routing, and the parts of the
/// topic.
const SEPARATOR: char = '\u{1f}';

const MOST_OF_A_TOPIC: usize = 1024;

/// Builds every name from the parts in the input.
pub fn run(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let mut parts = text.split(SEPARATOR);
    let mut next = || parts.next().unwrap_or_default();
    let (service, method, id, routing) = (next(), next(), next(), next());
    let routing = match routing {
        "A" => Routing::Affinity,
        "M" => Routing::Multi,
        _ => Routing::Queue,
    };
    let topic: Vec<_> = parts.collect();
    of_method(service, method, &topic);
    of_client(service, id);
    route(service, method, &topic, MethodProperties { routing, require_claim: routing != Routing::Multi });
    ids(id);
    assert_eq!(wire_name(service).is_empty(), service.is_empty());
}

fn of_method(service: &str, method: &str, topic: &[&str]) {
    for queue in [false, true] {
        let channels = [
            (Channel::request(service, method, topic, queue), "REQ", queue),
            (Channel::claim_response(service, method, topic), "RCLAIM", false),
            (Channel::stream_to_server(service, method, topic), "STR", false),
        ];
        for (channel, kind, queue) in channels {
            let parts = [service, method].into_iter().chain(topic.iter().copied()).chain([kind]);
            legacy(channel.legacy(), parts);
            let rest = channel.server().strip_prefix("SRV.").unwrap().strip_prefix(service).unwrap();
            assert!(rest.chars().all(|c| c.is_ascii_alphanumeric() || "_+.".contains(c)), "{rest:?}");
            let read: Vec<_> = rest.split('.').skip(1).map(unescaped).collect();
            let queue = queue.then_some("Q");
            assert_eq!(read, topic.iter().copied().filter(not_empty).chain(queue).collect::<Vec<_>>());
            assert_eq!(channel.local(), format!("{method}.{kind}"));
        }
    }
}

fn of_client(service: &str, id: &str) {
    let channels = [
        (Channel::claim_request(service, id), "CLAIM"),
        (Channel::response(service, id), "RES"),
        (Channel::stream_to_client(service, id), "STR"),
    ];
    for (channel, kind) in channels {
        legacy(channel.legacy(), [service, id, kind]);
        assert_eq!(channel.server(), format!("CLI.{service}.{id}.{kind}"));
        assert_eq!(channel.local(), "");
    }
}

/// Checks that the non-empty parts of a legacy name can be recovered from it.
fn legacy<'a>(name: &str, parts: impl IntoIterator<Item = &'a str>) {
    assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || "_+|".contains(c)), "{name:?}");
    let read: Vec<_> = name.split('|').filter(not_empty).map(unescaped).collect();
    assert_eq!(read, parts.into_iter().filter(not_empty).collect::<Vec<_>>(), "{name:?}");
}

fn not_empty(part: &&str) -> bool {
    !part.is_empty()
}

fn route(service: &str, method: &str, topic: &[&str], properties: MethodProperties) {
    let length: usize = topic.iter().map(|part| part.len()).sum();
    let valid = check_id(service, usize::MAX).is_ok() && !method.is_empty() && length <= MOST_OF_A_TOPIC;
    for stream in [false, true] {
        let made = if stream { Route::stream } else { Route::new };
        match made(service, method, properties, topic) {
            Ok(route) => {
                assert!(valid);
                assert_eq!(route.grants(), &Channel::claim_response(service, method, topic));
                let requests = if stream {
                    Channel::stream_to_server(service, method, topic)
                } else {
                    Channel::request(service, method, topic, properties.queue())
                };
                assert_eq!(route.requests(), &requests);
                assert!(route.topic().iter().map(|part| part.as_str()).eq(topic.iter().copied()));
                assert!(!format!("{route:?}").is_empty());
            }
            Err(error) => {
                assert!(!valid, "{error}");
                assert!(error.to_string().len() < 2048, "{error}");
            }
        }
    }
}

fn ids(id: &str) {
    let refused = |c: char| ".*>".contains(c) || c.is_whitespace() || c.is_control();
    let expected = match id.chars().find(|c| refused(*c)) {
        _ if id.is_empty() => Err(InvalidId::Empty),
        _ if id.len() > 256 => Err(InvalidId::TooLong { limit: 256 }),
        Some(character) => Err(InvalidId::Character(character)),
        None => Ok(()),
    };
    assert_eq!(check_id(id, 256), expected);
}
