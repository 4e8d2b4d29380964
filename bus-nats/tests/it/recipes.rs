//! The permissions that docs/operations.md gives to users of NATS are sufficient, and allow nothing
//! else.

#[path = "../../../bus-redis/tests/common/recipe.rs"]
mod recipe;

use psrpc_bus_nats::{NatsBus, NatsOptions};
use psrpc_servers::Server;

use self::recipe::{
    assert_reaches, block, call_refused, other_client_refused, other_server_refused, publish_refused, serve,
    serving_refused,
};
use crate::support::{SECOND, runtime};

const PERMISSIONS: &str = "Permissions for a service";
const ACCOUNTS: &str = "Accounts";

async fn connect(server: &Server, user: &str, inbox: &str) -> NatsBus {
    let options = NatsOptions::new().inbox_prefix(inbox);
    NatsBus::connect_with(&server.url_with(&format!("{user}@")), runtime(), options).await.unwrap()
}

async fn as_server(server: &Server) -> NatsBus {
    connect(server, "hats-server:change-me-1", "_INBOX_hats_server").await
}

async fn as_client(server: &Server) -> NatsBus {
    connect(server, "hats-client:change-me-2", "_INBOX_hats_client").await
}

fn assert_refuses(error: &str, subject: &str) {
    assert!(error.contains(&format!("refused the subscription to \"{subject}")), "{error}");
    assert!(error.contains("Permissions Violation for Subscription to"), "{error}");
}

#[tokio::test]
async fn the_users_of_a_service_can_do_everything_in_it_and_nothing_elsewhere() {
    let nats = Server::nats(&[&block(PERMISSIONS)]);
    let (first, second) = (as_server(&nats).await, as_server(&nats).await);
    let client = as_client(&nats).await;
    assert_reaches([first.clone(), second], client.clone()).await;
    assert_refuses(&other_server_refused(first.clone()).await, "SRV.Caps");
    for bus in [&first, &client] {
        let error = publish_refused(bus).await;
        assert!(error.contains("refused the publish on \"SRV.Caps.Q\": Permissions Violation"), "{error}");
    }
    assert_refuses(&other_client_refused(client.clone()).await, "CLI.Caps.CLI_");
    assert_refuses(&serving_refused(client).await, "SRV.Hats.Q");
    assert_refuses(&call_refused(first).await, "CLI.Hats.CLI_");
}

#[tokio::test]
async fn the_permissions_do_not_allow_the_inbox_of_another_user() {
    let nats = Server::nats(&[&block(PERMISSIONS)]);
    let options = NatsOptions::new().connection_timeout(SECOND / 2);
    let url = nats.url_with("hats-server:change-me-1@");
    let error = NatsBus::connect_with(&url, runtime(), options).await.unwrap_err().to_string();
    let expected = format!(
        "no message from {} on the inbox of the bus: \
         allow the user to publish and subscribe to `_INBOX.>`",
        nats.url()
    );
    assert_eq!(error, expected);
}

#[tokio::test]
async fn accounts_separate_fleets() {
    let nats = Server::nats(&[&block(ACCOUNTS)]);
    let hats = connect(&nats, "hats:change-me-1", "_INBOX").await;
    let caps = connect(&nats, "caps:change-me-2", "_INBOX").await;
    assert_reaches([hats.clone(), hats.clone()], hats.clone()).await;
    let _server = serve(hats, "elm").await;
    let error = call_refused(caps).await;
    assert!(error.contains("no response from servers"), "{error}");
}
