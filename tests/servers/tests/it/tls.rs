//! Servers with TLS, and the certificates that they show.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;

use psrpc_servers::{Certificates, Identity, PemFile, RedisClient, Server, ServerTls};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, Stream};

/// Connects with TLS, sends a line and returns the first line of the response. A server that speaks
/// before the handshake, as NATS does, is listened to first.
pub fn ask(
    port: u16,
    speaks_first: bool,
    authority: &PemFile,
    client: Option<&Identity>,
    line: &str,
) -> Result<String, String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority.path()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match client {
        None => config.with_no_client_auth(),
        Some(client) => {
            let certificate = CertificateDer::from_pem_file(client.certificate().path()).unwrap();
            let key = PrivateKeyDer::from_pem_file(client.key().path()).unwrap();
            config.with_client_auth_cert(vec![certificate], key).unwrap()
        }
    };
    let name = ServerName::try_from("localhost").unwrap();
    let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    if speaks_first {
        assert!(read_line(&mut socket).unwrap().starts_with("INFO "));
    }
    let mut stream = Stream::new(&mut connection, &mut socket);
    let written = stream.write_all(line.as_bytes());
    written.and_then(|()| read_line(&mut stream)).map_err(|error| error.to_string())
}

fn read_line(stream: &mut impl Read) -> std::io::Result<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    while byte[0] != b'\n' {
        stream.read_exact(&mut byte)?;
        line.push(byte[0]);
    }
    Ok(String::from_utf8(line).unwrap().trim_end().to_owned())
}

pub const CONNECT: &str = "CONNECT {\"verbose\":false}\r\nPING\r\n";

#[test]
fn redis_answers_over_tls_and_no_longer_in_plain() {
    let certificates = Certificates::new();
    let tls = ServerTls::new(&certificates);
    let server = Server::redis_tls(&tls, &[]);
    assert_eq!(server.url(), format!("rediss://127.0.0.1:{}", server.port()));
    assert_eq!(ask(server.port(), false, certificates.authority(), None, "PING\r\n").unwrap(), "+PONG");
    let mut client = RedisClient::connect(server.port(), Some(&tls), None).unwrap();
    assert_eq!(client.command(&["ECHO", "hats"]).unwrap().to_string(), "hats");
    let mut plain = RedisClient::connect(server.port(), None, None).unwrap();
    assert!(plain.command(&["PING"]).is_err());
}

#[test]
fn redis_refuses_clients_without_a_certificate_of_its_authority() {
    let certificates = Certificates::new();
    let server = Server::redis_tls(&ServerTls::new(&certificates).require_client_certificate(), &[]);
    let ask = |client| ask(server.port(), false, certificates.authority(), client, "PING\r\n");
    assert_eq!(ask(Some(certificates.client())).unwrap(), "+PONG");
    assert!(ask(None).is_err());
    assert!(ask(Some(certificates.unrelated_client())).is_err());
}

#[test]
fn each_wrong_certificate_is_wrong_in_its_own_way() {
    let certificates = Certificates::new();
    let error = |identity: &Identity| {
        let server = Server::redis_tls(&ServerTls::new(&certificates).show(identity), &[]);
        ask(server.port(), false, certificates.authority(), None, "PING\r\n").unwrap_err()
    };
    let expired = error(certificates.expired_server());
    assert!(expired.contains("expired"), "{expired}");
    let name = error(certificates.wrong_name_server());
    assert!(name.contains("elsewhere.example"), "{name}");
    let unrelated = error(certificates.unrelated_server());
    assert!(unrelated.contains("UnknownIssuer"), "{unrelated}");
}

#[test]
fn nats_answers_over_tls() {
    let certificates = Certificates::new();
    let server = Server::nats_tls(&ServerTls::new(&certificates), &[]);
    assert_eq!(server.url(), format!("tls://127.0.0.1:{}", server.port()));
    let answer = ask(server.port(), true, certificates.authority(), None, CONNECT);
    assert_eq!(answer.unwrap(), "PONG");
    assert!(ask(server.port(), true, certificates.unrelated_authority(), None, CONNECT).is_err());
}

#[test]
fn nats_refuses_clients_without_a_certificate_of_its_authority() {
    let certificates = Certificates::new();
    let server = Server::nats_tls(&ServerTls::new(&certificates).require_client_certificate(), &[]);
    let ask = |client| ask(server.port(), true, certificates.authority(), client, CONNECT);
    assert_eq!(ask(Some(certificates.client())).unwrap(), "PONG");
    assert!(ask(None).is_err());
    assert!(ask(Some(certificates.unrelated_client())).is_err());
}

#[test]
fn nats_restarts_with_tls_and_without() {
    let certificates = Certificates::new();
    let mut server = Server::nats(&[]);
    server.stop();
    server.configure_tls(Some(&ServerTls::new(&certificates)));
    server.start();
    let answer = ask(server.port(), true, certificates.authority(), None, CONNECT);
    assert_eq!(answer.unwrap(), "PONG");
    server.stop();
    server.configure_tls(None);
    server.start();
    assert_eq!(server.url(), format!("nats://127.0.0.1:{}", server.port()));
    assert!(ask(server.port(), true, certificates.authority(), None, CONNECT).is_err());
}
