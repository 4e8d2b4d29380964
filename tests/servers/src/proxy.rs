//! A TCP proxy that simulates network failures while the server keeps running.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use crate::listener::{Listener, Sockets};

/// Forwards the connections of a port of its own to another port of 127.0.0.1. Dropping it closes
/// them.
pub struct Proxy {
    listener: Listener,
    network: Arc<Network>,
}

/// The state of the network between both sides.
struct Network {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    mode: Mode,
    delay: Duration,
    /// How often the connections were cut. A connection that is older than the last cut ends.
    cuts: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Forward,
    Hold,
    HoldReplies,
    Truncate(usize),
    Refuse,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    ToServer,
    ToClient,
}

impl Proxy {
    /// Forwards to this port of 127.0.0.1, which need not be open yet.
    ///
    /// # Panics
    ///
    /// Panics if there is no free port.
    pub fn new(target: u16) -> Self {
        let state = State { mode: Mode::Forward, delay: Duration::ZERO, cuts: 0 };
        let network = Arc::new(Network { state: Mutex::new(state), changed: Condvar::new() });
        let listener = Listener::new({
            let network = Arc::clone(&network);
            move |stream, sockets| network.connect(&stream, target, sockets)
        });
        Self { listener, network }
    }

    /// Returns the port of the proxy.
    pub fn port(&self) -> u16 {
        self.listener.port()
    }

    /// Forwards bytes again, first those that were held.
    pub fn forward(&self) {
        self.network.set_mode(Mode::Forward);
    }

    /// Forwards nothing from now on, like a network that lost its route: connections stay open, new
    /// ones are accepted, and no bytes arrive. Bytes are held until [`forward`](Self::forward).
    pub fn hold(&self) {
        self.network.set_mode(Mode::Hold);
    }

    /// Forwards what clients send, and holds what the server sends until
    /// [`forward`](Self::forward).
    pub fn hold_replies(&self) {
        self.network.set_mode(Mode::HoldReplies);
    }

    /// Ends each connection, old or new, within the next bytes from the server: it forwards this
    /// many of them.
    pub fn truncate(&self, length: usize) {
        self.network.set_mode(Mode::Truncate(length));
    }

    /// Closes all connections, and each new one at once.
    pub fn refuse(&self) {
        self.network.set_mode(Mode::Refuse);
        self.cut();
    }

    /// Closes all connections. New ones are forwarded, unless they are held or refused. A
    /// connection that the proxy has not accepted yet counts as new.
    pub fn cut(&self) {
        self.network.lock().cuts += 1;
        self.network.changed.notify_all();
        self.listener.cut();
    }

    /// Delays bytes that arrive from now on by at least this much. The default is zero.
    pub fn delay(&self, delay: Duration) {
        self.network.lock().delay = delay;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.refuse();
    }
}

impl Network {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics with the lock")
    }

    fn set_mode(&self, mode: Mode) {
        self.lock().mode = mode;
        self.changed.notify_all();
    }

    /// Forwards one connection until it ends.
    fn connect(&self, client: &TcpStream, target: u16, sockets: &Sockets) {
        let cuts = self.lock().cuts;
        if self.wait(cuts, Direction::ToServer).is_none() {
            return;
        }
        let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)) else { return };
        let _tracked = sockets.track(&server);
        // It may have been cut before it was tracked.
        if self.wait(cuts, Direction::ToServer).is_none() {
            return;
        }
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        thread::scope(|scope| {
            scope.spawn(|| self.pump(client, &server, cuts, Direction::ToServer));
            self.pump(&server, client, cuts, Direction::ToClient);
        });
    }

    fn pump(&self, mut from: &TcpStream, mut to: &TcpStream, cuts: u64, direction: Direction) {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            let delay = self.lock().delay;
            thread::sleep(delay);
            match self.wait(cuts, direction) {
                Some(Mode::Truncate(limit)) if direction == Direction::ToClient => {
                    let _ = to.write_all(&buffer[..length.min(limit)]);
                    let _ = (to.shutdown(Shutdown::Both), from.shutdown(Shutdown::Both));
                    return;
                }
                Some(_) if to.write_all(&buffer[..length]).is_ok() => {}
                _ => break,
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    }

    /// Waits while the network holds what goes in this direction. Returns the mode, or `None` if
    /// the network refuses connections, or has been cut since `cuts` was read.
    fn wait(&self, cuts: u64, direction: Direction) -> Option<Mode> {
        let is_held = |mode: Mode| match mode {
            Mode::Hold => true,
            Mode::HoldReplies => direction == Direction::ToClient,
            Mode::Forward | Mode::Truncate(_) | Mode::Refuse => false,
        };
        let held = |state: &mut State| is_held(state.mode) && state.cuts == cuts;
        let state = self.changed.wait_while(self.lock(), held).expect("no thread panics with the lock");
        (state.mode != Mode::Refuse && state.cuts == cuts).then_some(state.mode)
    }
}
