//! A proxy that accepts TLS and forwards plain text.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use rustls::{ServerConfig, ServerConnection};

use crate::listener::{Listener, Sockets};
use crate::tls::ServerTls;

/// Puts TLS in front of a server without TLS. A connection begins with the TLS handshake, before
/// either side sends any other byte. `nats-server` can do so itself since version 2.10
/// (`handshake_first`). Dropping the proxy closes its connections.
pub struct TlsProxy {
    listener: Listener,
}

impl TlsProxy {
    /// Forwards the data that clients send over TLS to this port of 127.0.0.1, in plain text.
    ///
    /// # Panics
    ///
    /// Panics if there is no free port.
    pub fn new(tls: &ServerTls, target: u16) -> Self {
        let config = Arc::new(tls.server_config());
        // Errors are ignored: the client gets them too, and its test fails.
        let handle = move |client, sockets: &Sockets| drop(forward(&client, &config, target, sockets));
        Self { listener: Listener::new(handle) }
    }

    /// Returns the port of the proxy.
    pub fn port(&self) -> u16 {
        self.listener.port()
    }

    /// Closes all connections. New ones are accepted.
    pub fn cut(&self) {
        self.listener.cut();
    }
}

/// A connection. Both directions share one TLS state.
struct Connection<'a> {
    tls: Mutex<ServerConnection>,
    client: &'a TcpStream,
    server: &'a TcpStream,
}

fn forward(
    mut client: &TcpStream,
    config: &Arc<ServerConfig>,
    target: u16,
    sockets: &Sockets,
) -> io::Result<()> {
    let mut tls = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
    tls.complete_io(&mut client)?;
    let server = TcpStream::connect((Ipv4Addr::LOCALHOST, target))?;
    let _tracked = sockets.track(&server);
    let connection = Connection { tls: Mutex::new(tls), client, server: &server };
    thread::scope(|scope| {
        scope.spawn(|| {
            let _ = connection.to_server();
            let _ = server.shutdown(Shutdown::Write);
        });
        let _ = connection.to_client();
        let _ = client.shutdown(Shutdown::Write);
    });
    Ok(())
}

impl Connection<'_> {
    fn lock(&self) -> MutexGuard<'_, ServerConnection> {
        self.tls.lock().expect("no thread panics with the lock")
    }

    fn to_server(&self) -> io::Result<()> {
        let (mut client, mut server) = (self.client, self.server);
        let mut buffer = vec![0; 16 * 1024];
        let mut plain = Vec::new();
        // Plain text may have arrived together with the end of the handshake.
        take_plain(&mut self.lock(), &mut plain)?;
        loop {
            server.write_all(&plain)?;
            plain.clear();
            let length = client.read(&mut buffer)?;
            if length == 0 {
                return Ok(());
            }
            let mut tls = self.lock();
            let mut encrypted = &buffer[..length];
            while !encrypted.is_empty() {
                tls.read_tls(&mut encrypted)?;
                tls.process_new_packets().map_err(io::Error::other)?;
                take_plain(&mut tls, &mut plain)?;
            }
            write_encrypted(&mut tls, client)?;
        }
    }

    fn to_client(&self) -> io::Result<()> {
        let mut server = self.server;
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let length = server.read(&mut buffer)?;
            let mut tls = self.lock();
            if length == 0 {
                tls.send_close_notify();
            }
            tls.writer().write_all(&buffer[..length])?;
            write_encrypted(&mut tls, self.client)?;
            if length == 0 {
                return Ok(());
            }
        }
    }
}

fn take_plain(tls: &mut ServerConnection, plain: &mut Vec<u8>) -> io::Result<()> {
    match tls.reader().read_to_end(plain) {
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        _ => Ok(()),
    }
}

fn write_encrypted(tls: &mut ServerConnection, mut client: &TcpStream) -> io::Result<()> {
    while tls.wants_write() {
        tls.write_tls(&mut client)?;
    }
    Ok(())
}
