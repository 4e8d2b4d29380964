//! Messages that are larger than the `max_payload` of the server: the caller or the sender gets an
//! error at once, which names both sizes.

use std::sync::Arc;
use std::time::Instant;

use psrpc_servers::Server as NatsServer;
use psrpc_tokio::*;

use crate::hats::{CENSUS, FIT, PARADE, RUMOUR, client, large, server};
use crate::support::{SECOND, within};

/// Half the size of [`large`] messages.
const LIMIT: usize = 4096;

fn start() -> NatsServer {
    NatsServer::nats(&[&format!("max_payload: {LIMIT}")])
}

/// Checks that an error names the subject, the size of the message, which is a little larger than
/// its text, and the limit.
fn assert_names_both_sizes(text: &str, prefix: &str, subject: &str) {
    let expected = format!("{prefix}frame too large for {subject:?}: ");
    let rest = text.strip_prefix(&expected).unwrap_or_else(|| panic!("{text}, not {expected}"));
    let (size, rest) = rest.split_once(' ').unwrap();
    let size: usize = size.parse().unwrap();
    assert!((2 * LIMIT..3 * LIMIT).contains(&size), "{text}");
    assert_eq!(rest, format!("bytes, but the NATS server accepts {LIMIT} (max_payload)"));
}

#[tokio::test]
async fn a_response_that_is_too_large_is_an_error_response_at_once() {
    let nats = start();
    let _server = server(&nats.url(), "elm", Arc::default()).await;
    let client = client(&nats.url()).await;
    for _ in 0..2 {
        let start = Instant::now();
        let call: Call<String, String> = client.call(FIT, &[], "large".to_owned());
        let error = call.timeout(30 * SECOND).await.unwrap_err();
        assert!(start.elapsed() < 10 * SECOND, "{:?}", start.elapsed());
        assert_eq!((error.code(), error.reason()), (&ErrorCode::ResourceExhausted, Some(Reason::Answered)));
        assert_names_both_sizes(error.text(), "the bus cannot carry the response: ", "CLI.Hats.CLI_a.RES");
        // A response within the limit is delivered.
        let call: Call<String, String> = client.call(FIT, &[], "fez".to_owned());
        assert_eq!(call.timeout(30 * SECOND).await.unwrap(), "fez");
    }
}

#[tokio::test]
async fn each_response_of_a_multi_call_that_is_too_large_is_an_error_response_at_once() {
    let nats = start();
    let _servers =
        (server(&nats.url(), "elm", Arc::default()).await, server(&nats.url(), "oak", Arc::default()).await);
    let client = client(&nats.url()).await;
    let start = Instant::now();
    let call: MultiCall<String, String> = client.multi_call(CENSUS, &[], "large".to_owned());
    let mut responses = call.timeout(30 * SECOND).responses(2).await.unwrap();
    let mut ids = Vec::new();
    while let Some(response) = responses.next().await {
        let error = response.unwrap_err();
        assert_eq!(error.code(), &ErrorCode::ResourceExhausted);
        assert_names_both_sizes(error.text(), "the bus cannot carry the response: ", "CLI.Hats.CLI_a.RES");
        ids.push(error.server_id().unwrap().to_owned());
    }
    ids.sort();
    assert_eq!(ids, ["elm", "oak"]);
    assert!(start.elapsed() < 10 * SECOND, "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_request_that_is_too_large_fails_at_once() {
    let nats = start();
    let _server = server(&nats.url(), "elm", Arc::default()).await;
    let client = client(&nats.url()).await;
    let call: Call<String, String> = client.call(FIT, &[], large());
    let error =
        within(10 * SECOND, "the call fails", call.timeout(30 * SECOND).into_future()).await.unwrap_err();
    assert_eq!((error.code(), error.may_have_run()), (&ErrorCode::InvalidArgument, false));
    assert_names_both_sizes(error.text(), "publish failed: ", "SRV.Hats.Q");
    let call: MultiCall<String, String> = client.multi_call(CENSUS, &[], large());
    let mut responses = call.timeout(30 * SECOND).await.unwrap();
    let next = within(10 * SECOND, "the multi call fails", responses.next()).await;
    assert_names_both_sizes(next.unwrap().unwrap_err().text(), "publish failed: ", "SRV.Hats");
}

#[tokio::test]
async fn a_message_of_a_stream_that_is_too_large_fails_at_once_and_the_stream_goes_on() {
    let nats = start();
    let _server = server(&nats.url(), "elm", Arc::default()).await;
    let client = client(&nats.url()).await;
    let stream: ClientStream<String, String> = client.open_stream(PARADE, &[]).await.unwrap();
    let error =
        within(10 * SECOND, "the client learns of it", stream.send(large()).into_future()).await.unwrap_err();
    assert_names_both_sizes(error.text(), "publish failed: ", "SRV.Hats");
    stream.send("large".to_owned()).await.unwrap();
    let told = within(10 * SECOND, "the server learns of it", stream.next()).await.unwrap();
    assert_names_both_sizes(&told, "invalid_argument: publish failed: ", "CLI.Hats.CLI_a.STR");
    stream.send("fez".to_owned()).await.unwrap();
    assert_eq!(within(10 * SECOND, "the stream goes on", stream.next()).await.unwrap(), "fez");
}

#[tokio::test]
async fn an_update_that_is_too_large_fails_at_once() {
    let nats = start();
    let server = server(&nats.url(), "elm", Arc::default()).await;
    let client = client(&nats.url()).await;
    let mut rumours: Subscription<String> = client.subscribe(RUMOUR, &[]).await.unwrap();
    let publish = server.publish(RUMOUR, &[], &large());
    let error = within(10 * SECOND, "the server learns of it", publish.into_future()).await.unwrap_err();
    assert_names_both_sizes(error.text(), "publish failed: ", "SRV.Hats");
    server.publish(RUMOUR, &[], &"psst".to_owned()).await.unwrap();
    let next = within(10 * SECOND, "the next update arrives", rumours.next()).await;
    assert_eq!(next.unwrap().unwrap(), "psst");
}
