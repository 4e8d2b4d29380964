//! The proxies between a client and a server.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use psrpc_servers::{Certificates, Proxy, RedisClient, Server, ServerTls, TlsProxy};

use crate::tls::{CONNECT, ask};

fn ping(client: &mut RedisClient) -> Result<String, ErrorKind> {
    client.command(&["PING"]).map(|reply| reply.to_string()).map_err(|error| error.kind())
}

#[test]
fn a_proxy_forwards_until_it_is_cut_and_then_again() {
    let server = Server::redis(&[]);
    let proxy = Proxy::new(server.port());
    let mut clients = [(); 2].map(|()| RedisClient::connect(proxy.port(), None, None).unwrap());
    assert!(clients.iter_mut().all(|client| ping(client).as_deref() == Ok("PONG")));
    let large = "x".repeat(1_000_000);
    assert_eq!(clients[0].command(&["ECHO", &large]).unwrap().to_string(), large);
    proxy.cut();
    assert!(clients.iter_mut().all(|client| ping(client).is_err()));
    let mut client = RedisClient::connect(proxy.port(), None, None).unwrap();
    assert_eq!(ping(&mut client).unwrap(), "PONG");
}

#[test]
fn a_proxy_refuses_until_it_forwards() {
    let server = Server::redis(&[]);
    let proxy = Proxy::new(server.port());
    let mut before = RedisClient::connect(proxy.port(), None, None).unwrap();
    assert_eq!(ping(&mut before).unwrap(), "PONG");
    proxy.refuse();
    assert!(ping(&mut before).is_err());
    let refused = RedisClient::connect(proxy.port(), None, None);
    assert!(refused.and_then(|mut client| client.command(&["PING"])).is_err());
    proxy.forward();
    let mut client = RedisClient::connect(proxy.port(), None, None).unwrap();
    assert_eq!(ping(&mut client).unwrap(), "PONG");
}

#[test]
fn a_held_connection_hears_nothing_until_the_proxy_forwards() {
    let server = Server::redis(&[]);
    let proxy = Proxy::new(server.port());
    let connect = || TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).unwrap();
    let before = connect();
    before.set_nodelay(true).unwrap();
    (&before).write_all(b"PING\r\n").unwrap();
    let mut answer = [0; 7];
    (&before).read_exact(&mut answer).unwrap();
    proxy.hold();
    let (put, answers) = mpsc::channel();
    for mut client in [before, connect()] {
        client.write_all(b"PING\r\n").unwrap();
        let put = put.clone();
        thread::spawn(move || {
            let mut answer = [0; 7];
            put.send(client.read_exact(&mut answer).map(|()| answer)).unwrap();
        });
    }
    assert!(answers.recv_timeout(Duration::from_millis(300)).is_err());
    proxy.forward();
    for _ in 0..2 {
        assert_eq!(&answers.recv_timeout(Duration::from_secs(20)).unwrap().unwrap(), b"+PONG\r\n");
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a real proxy lives in real time")]
fn held_replies_arrive_later_though_the_server_has_received_the_commands() {
    let server = Server::redis(&[]);
    let proxy = Proxy::new(server.port());
    let mut client = RedisClient::connect(proxy.port(), None, None).unwrap();
    assert_eq!(ping(&mut client).unwrap(), "PONG");
    proxy.hold_replies();
    let asked = thread::spawn(move || client.command(&["SET", "hat", "fez"]));
    let mut other = RedisClient::connect(server.port(), None, None).unwrap();
    let begun = Instant::now();
    while other.command(&["GET", "hat"]).unwrap().to_string() != "fez" {
        assert!(begun.elapsed() < Duration::from_secs(20), "the command must arrive");
    }
    assert!(!asked.is_finished(), "the reply is held");
    proxy.forward();
    assert_eq!(asked.join().unwrap().unwrap().to_string(), "OK");
}

#[test]
fn a_truncated_connection_ends_after_some_bytes_of_the_server() {
    let server = Server::redis(&[]);
    let proxy = Proxy::new(server.port());
    proxy.truncate(3);
    for _ in 0..2 {
        let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        client.write_all(b"PING\r\n").unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, b"+PO");
    }
    proxy.forward();
    let mut client = RedisClient::connect(proxy.port(), None, None).unwrap();
    assert_eq!(ping(&mut client).unwrap(), "PONG");
}

#[test]
fn a_held_connection_can_be_cut() {
    let server = Server::redis(&[]);
    let proxy = Proxy::new(server.port());
    let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    client.write_all(b"PING\r\n").unwrap();
    client.read_exact(&mut [0; 7]).unwrap();
    proxy.hold();
    client.write_all(b"PING\r\n").unwrap();
    proxy.cut();
    match client.read(&mut [0]) {
        Ok(length) => assert_eq!(length, 0),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a real proxy lives in real time")]
fn a_delay_is_one_each_way() {
    let server = Server::redis(&[]);
    let proxy = Proxy::new(server.port());
    proxy.delay(Duration::from_millis(100));
    let mut client = RedisClient::connect(proxy.port(), None, None).unwrap();
    let begun = Instant::now();
    assert_eq!(ping(&mut client).unwrap(), "PONG");
    assert!(begun.elapsed() >= Duration::from_millis(200));
}

#[test]
fn nats_behind_a_tls_proxy_begins_with_the_handshake() {
    let certificates = Certificates::new();
    let tls = ServerTls::new(&certificates).require_client_certificate();
    let server = Server::nats(&[]);
    let proxy = TlsProxy::new(&tls, server.port());
    let ask = |client| ask(proxy.port(), false, certificates.authority(), client, CONNECT);
    assert!(ask(Some(certificates.client())).unwrap().starts_with("INFO "));
    assert!(ask(None).is_err());
    assert!(ask(Some(certificates.unrelated_client())).is_err());
}

#[test]
fn a_tls_proxy_forwards_large_messages_both_ways_until_it_is_cut() {
    let tls = ServerTls::new(&Certificates::new());
    let server = Server::redis(&[]);
    let proxy = TlsProxy::new(&tls, server.port());
    let mut client = RedisClient::connect(proxy.port(), Some(&tls), None).unwrap();
    let large = "x".repeat(1_000_000);
    assert_eq!(client.command(&["ECHO", &large]).unwrap().to_string(), large);
    proxy.cut();
    assert!(ping(&mut client).is_err());
}
