//! A client that is idle for a while and then used again.

mod hats;

use std::time::Duration;

use hats::{FIT, client, fit, unresponsive};
use psrpc_bus_local::LocalBus;
use psrpc_tokio::*;
use tokio::time::{sleep, timeout};

#[tokio::test(start_paused = true)]
async fn a_call_after_an_idle_time_ends_by_its_deadline() {
    let bus = LocalBus::new();
    let _unresponsive = unresponsive(&bus, FIT).await;
    let client = client(&bus, ClientOptions::new()).await;
    // Drop the call, so that nothing is in flight when its deadline passes.
    timeout(Duration::from_millis(1), fit(&client, "fez")).await.unwrap_err();
    sleep(Duration::from_secs(60)).await;
    // Nothing arrives for the client on this bus, so only the deadline can end the call.
    let ended = timeout(Duration::from_secs(60), fit(&client, "fez")).await;
    let error = ended.expect("the deadline must end the call").unwrap_err();
    assert_eq!(error.reason(), Some(Reason::NoResponse));
}
