//! TLS, and what goes wrong with it.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::time::Instant;

use psrpc::SubscriptionKind::Plain;
use psrpc::bus::{BusEvent, Delivery};
use psrpc_bus_nats::{NatsBus, NatsOptions, TlsOptions};
use psrpc_servers::{Certificates, Identity, Server, ServerTls, TlsProxy};

use crate::support::{SECOND, Subscriber, event, frame, plain, publish, runtime, watch};

/// Returns options that trust the authority and show a certificate.
fn options(certificates: &Certificates, identity: Option<&Identity>) -> NatsOptions {
    let mut tls = TlsOptions::new().ca(certificates.authority().pem());
    if let Some(identity) = identity {
        tls = tls.client_certificate(identity.certificate().pem(), identity.key().pem());
    }
    with_tls(tls)
}

fn with_tls(tls: TlsOptions) -> NatsOptions {
    NatsOptions::new().connection_timeout(2 * SECOND).tls(move || Ok::<_, String>(tls.clone()))
}

/// Returns the cause of the connection error, without the URL. Checks that it comes in time.
async fn cause(url: &str, options: NatsOptions) -> String {
    let start = Instant::now();
    let error = NatsBus::connect_with(&url.replace("//", "//me:s3cret@"), runtime(), options).await;
    let text = error.expect_err("the bus must not connect").to_string();
    assert!(start.elapsed() < 10 * SECOND, "{text} took {:?}", start.elapsed());
    assert!(!text.contains("s3cret") && !text.contains("PRIVATE"), "{text}");
    let cause = text.strip_prefix(&format!("cannot connect to {url}: "));
    cause.unwrap_or_else(|| panic!("the server is not named: {text}")).to_owned()
}

async fn assert_works(bus: &NatsBus) {
    let mut subscriber = Subscriber::live(bus, &plain("Make"), Plain).await;
    publish(bus, &plain("Make"), frame(1)).await.unwrap();
    assert_eq!(subscriber.number().await, 1);
}

#[tokio::test]
async fn frames_pass_over_tls() {
    let certificates = Certificates::new();
    let server = Server::nats_tls(&ServerTls::new(&certificates), &[]);
    let bus = NatsBus::connect_with(&server.url(), runtime(), options(&certificates, None)).await.unwrap();
    assert_works(&bus).await;
    assert!(format!("{bus:?}").contains(&server.url()));
}

#[tokio::test]
async fn a_client_certificate_is_shown_where_one_is_required() {
    let certificates = Certificates::new();
    let server = Server::nats_tls(&ServerTls::new(&certificates).require_client_certificate(), &[]);
    let with = |identity| options(&certificates, identity);
    let bus =
        NatsBus::connect_with(&server.url(), runtime(), with(Some(certificates.client()))).await.unwrap();
    assert_works(&bus).await;
    for identity in [None, Some(certificates.unrelated_client())] {
        let cause = cause(&server.url(), with(identity)).await;
        // The server ends the connection after its alert, which may not be read in time.
        let alert = cause.starts_with("TLS: received fatal alert: ");
        assert!(alert || cause.contains("perhaps because it requires a client certificate"), "{cause}");
    }
}

#[tokio::test]
async fn a_wrong_certificate_of_the_server_is_named() {
    let certificates = Certificates::new();
    let tls = ServerTls::new(&certificates);
    for (identity, expected) in [
        (certificates.expired_server(), "TLS: invalid peer certificate: certificate expired"),
        (
            certificates.wrong_name_server(),
            "TLS: invalid peer certificate: certificate not valid for name \"127.0.0.1\"",
        ),
        (certificates.unrelated_server(), "TLS: invalid peer certificate: UnknownIssuer"),
    ] {
        let server = Server::nats_tls(&tls.clone().show(identity), &[]);
        let cause = cause(&server.url(), options(&certificates, None)).await;
        assert!(cause.starts_with(expected), "{cause}");
    }
    let server = Server::nats_tls(&tls.clone().show(certificates.wrong_name_server()), &[]);
    let named = |name: &str| with_tls(TlsOptions::new().ca(certificates.authority().pem()).server_name(name));
    let named_right = named("elsewhere.example");
    assert_works(&NatsBus::connect_with(&server.url(), runtime(), named_right).await.unwrap()).await;
    let expected = "TLS: invalid peer certificate: certificate not valid for name \"127.0.0.2\"";
    assert!(cause(&server.url(), named("127.0.0.2")).await.starts_with(expected));
    let expected = "TLS: `not a name` is neither a host name nor an IP address";
    assert_eq!(cause(&server.url(), named("not a name")).await, expected);
    // The authority is not one of the system's.
    let server = Server::nats_tls(&tls, &[]);
    let cause = cause(&server.url(), NatsOptions::new()).await;
    let expected = ["invalid peer certificate: UnknownIssuer", "the system has no root certificates"];
    assert!(expected.iter().any(|expected| cause.contains(expected)), "{cause}");
}

#[tokio::test]
async fn a_server_without_tls_is_named() {
    let certificates = Certificates::new();
    let server = Server::nats(&[]);
    let url = server.url().replace("nats:", "tls:");
    let expected = "the server does not speak TLS: use a `nats://` URL";
    assert_eq!(cause(&url, options(&certificates, None)).await, expected);
    let expected = "the server does not speak TLS first: unset `tls_first`";
    assert_eq!(cause(&url, options(&certificates, None).tls_first(true)).await, expected);
}

#[tokio::test]
async fn a_server_of_another_protocol_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("tls://127.0.0.1:{}", listener.local_addr().unwrap().port());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.write_all(b"SSH-2.0-OpenSSH\r\n");
        }
    });
    let certificates = Certificates::new();
    let cause = cause(&url, options(&certificates, None)).await;
    assert!(cause.contains("SSH-2.0-OpenSSH"), "{cause}");
}

#[tokio::test]
async fn tls_options_need_a_url_with_tls() {
    let options = [with_tls(TlsOptions::new()), NatsOptions::new().tls_first(true)];
    for options in options {
        let error = NatsBus::connect_with("nats://localhost", runtime(), options).await.unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("invalid URL 1 of a NATS server: the TLS options require"), "{text}");
    }
}

#[tokio::test]
async fn a_connection_can_begin_with_the_handshake() {
    let certificates = Certificates::new();
    let server = Server::nats(&[]);
    let proxy = TlsProxy::new(&ServerTls::new(&certificates), server.port());
    let url = format!("tls://127.0.0.1:{}", proxy.port());
    let first = options(&certificates, None).tls_first(true);
    let bus = NatsBus::connect_with(&url, runtime(), first).await.unwrap();
    assert_works(&bus).await;
    let short = options(&certificates, None).connection_timeout(SECOND / 2);
    let expected = "no response from a NATS server within 500ms; \
                    a server with `handshake_first` requires `NatsOptions::tls_first`";
    assert_eq!(cause(&url, short).await, expected);
}

/// The files of the authority and of the client are replaced while the server is down.
#[tokio::test]
async fn certificates_are_read_again_for_each_connection() {
    let old = Certificates::new();
    let mut server = Server::nats_tls(&ServerTls::new(&old).require_client_certificate(), &[]);
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    let write = |certificates: &Certificates| {
        let client = certificates.client();
        fs::write(file("ca.pem"), certificates.authority().pem()).unwrap();
        fs::write(file("client.pem"), client.certificate().pem()).unwrap();
        fs::write(file("key.pem"), client.key().pem()).unwrap();
    };
    write(&old);
    let files = [file("ca.pem"), file("client.pem"), file("key.pem")];
    let options = NatsOptions::new().tls(move || -> std::io::Result<_> {
        let [ca, certificate, key] = files.each_ref().map(fs::read);
        Ok(TlsOptions::new().ca(ca?).client_certificate(certificate?, key?))
    });
    let bus = NatsBus::connect_with(&server.url(), runtime(), options).await.unwrap();
    let mut subscriber = Subscriber::live(&bus, &plain("Make"), Plain).await;
    let mut events = watch(&bus);
    server.stop();
    fs::remove_file(file("ca.pem")).unwrap();
    let new = Certificates::new();
    server.configure_tls(Some(&ServerTls::new(&new).require_client_certificate()));
    server.start();
    assert!(matches!(event(&mut events).await, BusEvent::ConnectionLost { .. }));
    let BusEvent::ConnectionLost { cause, .. } = event(&mut events).await else { panic!("no refusal") };
    assert!(cause.to_string().contains("no TLS options: No such file"), "{cause}");
    crate::support::until(10 * SECOND, "publishing fails with the reason", async || {
        let error = publish(&bus, &plain("Make"), frame(0)).await.unwrap_err().to_string();
        error.contains("no TLS options: No such file")
    })
    .await;
    write(&new);
    assert!(matches!(event(&mut events).await, BusEvent::Reconnected { .. }));
    while !matches!(subscriber.next().await, Delivery::Live) {}
    publish(&bus, &plain("Make"), frame(1)).await.unwrap();
    assert_eq!(subscriber.number().await, 1);
}
