//! Credentials of every kind, wrong credentials, and credentials that change while the bus runs.

use std::sync::{Arc, Mutex};

use psrpc::SubscriptionKind::Plain;
use psrpc::bus::{BusEvent, Delivery};
use psrpc_bus_nats::{Credentials, NatsBus, NatsOptions};
use psrpc_servers::Server;

use crate::support::{SECOND, Subscriber, event, frame, plain, publish, runtime, until, watch};

fn options(credentials: &Credentials) -> NatsOptions {
    let credentials = credentials.clone();
    NatsOptions::new().credentials(move || Ok::<_, String>(credentials.clone()))
}

async fn connect(server: &Server, credentials: &Credentials) -> NatsBus {
    NatsBus::connect_with(&server.url(), runtime(), options(credentials)).await.unwrap()
}

/// Returns the cause of the connection error, without the URL.
async fn cause(server: &Server, options: NatsOptions) -> String {
    let error = NatsBus::connect_with(&server.url(), runtime(), options).await.unwrap_err();
    let text = error.to_string();
    assert!(!text.contains("s3cret"), "{text}");
    let cause = text.strip_prefix(&format!("cannot connect to {}: ", server.url()));
    cause.unwrap_or_else(|| panic!("the server is not named: {text}")).to_owned()
}

async fn assert_works(bus: &NatsBus) {
    let mut subscriber = Subscriber::live(bus, &plain("Make"), Plain).await;
    publish(bus, &plain("Make"), frame(1)).await.unwrap();
    assert_eq!(subscriber.number().await, 1);
}

const VIOLATION: &str = "authorization violation";

#[tokio::test]
async fn a_token_of_the_options_wins_over_the_url() {
    let server = Server::nats(&["authorization { token: \"s3cret\" }"]);
    let right = options(&Credentials::token("s3cret"));
    let bus = NatsBus::connect_with(&server.url_with("wrong@"), runtime(), right).await.unwrap();
    assert_works(&bus).await;
    assert_eq!(cause(&server, options(&Credentials::token("wrong-s3cret"))).await, VIOLATION);
    assert_eq!(cause(&server, NatsOptions::new()).await, VIOLATION);
}

#[tokio::test]
async fn a_user_is_checked_by_name_and_password() {
    let server = Server::nats(&["authorization { users = [{ user: me, password: s3cret }] }"]);
    assert_works(&connect(&server, &Credentials::user("me", "s3cret")).await).await;
    for (name, password) in [("me", "wrong-s3cret"), ("you", "s3cret")] {
        assert_eq!(cause(&server, options(&Credentials::user(name, password))).await, VIOLATION);
    }
}

#[tokio::test]
async fn an_error_or_a_panic_of_the_function_is_the_cause() {
    let server = Server::nats(&[]);
    let options = NatsOptions::new().credentials(|| Err::<Credentials, _>("the vault is sealed"));
    assert_eq!(cause(&server, options).await, "no credentials: the vault is sealed");
    let options =
        NatsOptions::new().credentials(|| -> Result<Credentials, String> { panic!("the vault is empty") });
    assert_eq!(cause(&server, options).await, "connecting panicked: the vault is empty");
}

/// The server is reconfigured to require another token, and closes the connection. The bus reports
/// the server's error, tries again, and continues once the function returns the new token.
#[tokio::test]
async fn a_token_that_is_replaced_while_the_bus_runs_is_used() {
    let configuration = |token: &str| format!("authorization {{ token: \"{token}\" }}");
    let mut server = Server::nats(&[&configuration("first-s3cret")]);
    let token = Arc::new(Mutex::new("first-s3cret"));
    let provider = Arc::clone(&token);
    let options = NatsOptions::new()
        .credentials(move || Ok::<_, String>(Credentials::token(*provider.lock().unwrap())));
    let bus = NatsBus::connect_with(&server.url(), runtime(), options).await.unwrap();
    let mut subscriber = Subscriber::live(&bus, &plain("Make"), Plain).await;
    let mut events = watch(&bus);
    server.configure(&[&configuration("second-s3cret")]);
    server.reload();
    assert_lost(&mut events, &server, VIOLATION).await;
    assert_lost(&mut events, &server, VIOLATION).await;
    until(10 * SECOND, "the new attempts are refused", async || {
        let error = publish(&bus, &plain("Make"), frame(0)).await.unwrap_err().to_string();
        assert!(!error.contains("s3cret"), "{error}");
        error == format!("not connected to {}: {VIOLATION}", server.url())
    })
    .await;
    *token.lock().unwrap() = "second-s3cret";
    assert_healed(&bus, &mut subscriber, &mut events).await;
}

async fn assert_lost(events: &mut psrpc::bus::Watcher, server: &Server, cause: &str) {
    let BusEvent::ConnectionLost { cause: said, .. } = event(events).await else {
        panic!("the connection must be lost")
    };
    let expected = format!("not connected to {}: {cause}", server.url());
    assert_eq!(said.to_string().to_lowercase(), expected.to_lowercase());
}

async fn assert_healed(bus: &NatsBus, subscriber: &mut Subscriber, events: &mut psrpc::bus::Watcher) {
    assert!(matches!(event(events).await, BusEvent::Reconnected { .. }));
    while !matches!(subscriber.next().await, Delivery::Live) {}
    publish(bus, &plain("Make"), frame(1)).await.unwrap();
    assert_eq!(subscriber.number().await, 1);
}

/// The server comes back from an outage with another token, and the function fails. Each outage has
/// one more event, with the first refusal.
#[tokio::test]
async fn a_refusal_during_an_outage_is_reported_once() {
    let configuration = |token: &str| format!("authorization {{ token: \"{token}\" }}");
    let mut server = Server::nats(&[&configuration("first-s3cret")]);
    let token = Arc::new(Mutex::new(Ok("first-s3cret")));
    let provider = Arc::clone(&token);
    let options = NatsOptions::new().credentials(move || provider.lock().unwrap().map(Credentials::token));
    let bus = NatsBus::connect_with(&server.url(), runtime(), options).await.unwrap();
    let mut subscriber = Subscriber::live(&bus, &plain("Make"), Plain).await;
    let mut events = watch(&bus);
    server.kill();
    assert_lost(&mut events, &server, "the connection was lost").await;
    server.configure(&[&configuration("second-s3cret")]);
    server.start();
    assert_lost(&mut events, &server, VIOLATION).await;
    *token.lock().unwrap() = Err("the vault is sealed");
    until(10 * SECOND, "the function fails", async || {
        let error = publish(&bus, &plain("Make"), frame(0)).await.unwrap_err().to_string();
        error.ends_with("no credentials: the vault is sealed")
    })
    .await;
    *token.lock().unwrap() = Ok("second-s3cret");
    assert_healed(&bus, &mut subscriber, &mut events).await;
    *token.lock().unwrap() = Err("the vault is sealed");
    server.stop();
    server.start();
    assert!(matches!(event(&mut events).await, BusEvent::ConnectionLost { .. }));
    assert_lost(&mut events, &server, "no credentials: the vault is sealed").await;
    *token.lock().unwrap() = Ok("second-s3cret");
    assert_healed(&bus, &mut subscriber, &mut events).await;
}

#[cfg(feature = "nkeys")]
mod signed {
    use std::time::{Duration, SystemTime, UNIX_EPOCH};
    use std::{fs, path::Path};

    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use nkeys::KeyPair;

    use super::*;

    #[tokio::test]
    async fn an_nkey_signs_for_its_user_alone() {
        let (user, stranger) = (KeyPair::new_user(), KeyPair::new_user());
        let server =
            Server::nats(&[&format!("authorization {{ users = [{{ nkey: {} }}] }}", user.public_key())]);
        let nkey = |pair: &KeyPair| Credentials::nkey(&pair.seed().unwrap()).unwrap();
        assert_works(&connect(&server, &nkey(&user)).await).await;
        assert_eq!(cause(&server, options(&nkey(&stranger))).await, VIOLATION);
    }

    /// An operator with one account, as `nsc` makes them.
    struct Operator {
        key: KeyPair,
        account: KeyPair,
    }

    impl Operator {
        fn new() -> Self {
            Self { key: KeyPair::new_operator(), account: KeyPair::new_account() }
        }

        fn server(&self) -> Server {
            let operator = jwt(&self.key, &self.key, r#""type":"operator""#, None);
            let limits = r#""subs":-1,"data":-1,"payload":-1,"imports":-1,"exports":-1,"wildcards":true,"conn":-1,"leaf":-1"#;
            let account =
                jwt(&self.key, &self.account, &format!(r#""type":"account","limits":{{{limits}}}"#), None);
            let preload = format!("resolver_preload: {{ {}: {account} }}", self.account.public_key());
            Server::nats(&[&format!("operator: {operator}"), "resolver: MEMORY", &preload])
        }

        /// Returns the credentials file of a new user.
        fn user(&self, lifetime: Option<Duration>) -> String {
            let user = KeyPair::new_user();
            let claims = r#""type":"user","subs":-1,"data":-1,"payload":-1"#;
            let block = |name, text| format!("-----BEGIN {name}-----\n{text}\n------END {name}------\n\n");
            let jwt = jwt(&self.account, &user, claims, lifetime);
            block("NATS USER JWT", jwt) + &block("USER NKEY SEED", user.seed().unwrap())
        }
    }

    /// Returns a JWT about `subject` that `issuer` has signed.
    fn jwt(issuer: &KeyPair, subject: &KeyPair, nats: &str, lifetime: Option<Duration>) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let expires = lifetime.map(|lifetime| format!(r#""exp":{},"#, (now + lifetime).as_secs()));
        let (issuer_key, subject_key) = (issuer.public_key(), subject.public_key());
        let claims = format!(
            r#"{{"jti":"hats",{}"iat":{},"iss":"{issuer_key}","name":"hats","sub":"{subject_key}","nats":{{{nats},"version":2}}}}"#,
            expires.unwrap_or_default(),
            now.as_secs(),
        );
        let header = URL_SAFE_NO_PAD.encode(r#"{"typ":"JWT","alg":"ed25519-nkey"}"#);
        let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims));
        let signature = issuer.sign(signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn from_file(path: &Path) -> NatsOptions {
        NatsOptions::new().credentials_file(path)
    }

    #[tokio::test]
    async fn a_credentials_file_is_read_and_a_wrong_one_is_named() {
        let operator = Operator::new();
        let server = operator.server();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("user.creds");
        let no_file = cause(&server, from_file(&path)).await;
        assert!(
            no_file.starts_with(&format!("no credentials: {}: No such file", path.display())),
            "{no_file}"
        );
        fs::write(&path, "s3cret").unwrap();
        let invalid = cause(&server, from_file(&path)).await;
        let expected = format!("no credentials: {}: invalid credentials file: expected ", path.display());
        assert!(invalid.starts_with(&expected), "{invalid}");
        fs::write(&path, Operator::new().user(None)).unwrap();
        assert_eq!(cause(&server, from_file(&path)).await, VIOLATION);
        fs::write(&path, operator.user(None)).unwrap();
        let bus = NatsBus::connect_with(&server.url(), runtime(), from_file(&path)).await.unwrap();
        assert_works(&bus).await;
    }

    #[tokio::test]
    async fn a_credentials_file_that_expires_while_the_bus_runs_is_replaced() {
        let operator = Operator::new();
        let server = operator.server();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("user.creds");
        fs::write(&path, operator.user(Some(Duration::from_secs(4)))).unwrap();
        let bus = NatsBus::connect_with(&server.url(), runtime(), from_file(&path)).await.unwrap();
        let mut subscriber = Subscriber::live(&bus, &plain("Make"), Plain).await;
        let mut events = watch(&bus);
        assert_lost(&mut events, &server, "User Authentication Expired").await;
        assert_lost(&mut events, &server, VIOLATION).await;
        until(10 * SECOND, "the new attempts are refused", async || {
            let error = publish(&bus, &plain("Make"), frame(0)).await.unwrap_err().to_string();
            error == format!("not connected to {}: {VIOLATION}", server.url())
        })
        .await;
        fs::write(&path, operator.user(None)).unwrap();
        assert_healed(&bus, &mut subscriber, &mut events).await;
    }
}
