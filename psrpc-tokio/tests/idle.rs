//! A client that had nothing to wait for when its last deadline passed, and then waits again.

mod hats;

use std::time::Duration;

use hats::{client, fit};
use psrpc_bus_local::LocalBus;
use psrpc_tokio::*;
use tokio::time::{sleep, timeout};

#[tokio::test(start_paused = true)]
async fn a_call_after_an_idle_time_ends_by_its_deadline() {
    let client = client(&LocalBus::new(), ClientOptions::new()).await;
    // It is dropped, so that nothing is in flight when its deadline passes.
    timeout(Duration::from_millis(1), fit(&client, "fez")).await.unwrap_err();
    sleep(Duration::from_secs(60)).await;
    // On this bus nothing comes in when nobody serves: time alone can end the call.
    let ended = timeout(Duration::from_secs(60), fit(&client, "fez")).await;
    let error = ended.expect("it ends by its deadline").unwrap_err();
    assert_eq!(error.reason(), Some(Reason::NoResponse));
}
