//! The common part of both proxies: a listener with a thread for each connection, which closes all
//! connections when it is dropped.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};

/// Accepts connections until it is dropped, which closes them all.
pub(crate) struct Listener {
    port: u16,
    sockets: Arc<Sockets>,
    thread: Option<JoinHandle<()>>,
}

/// The sockets that are open, so that another thread can close them.
#[derive(Default)]
pub(crate) struct Sockets(Mutex<State>);

#[derive(Default)]
struct State {
    open: BTreeMap<u64, TcpStream>,
    last: u64,
    closed: bool,
}

/// Forgets a socket when dropped.
pub(crate) struct Tracked<'a> {
    sockets: &'a Sockets,
    number: u64,
}

impl Listener {
    /// Listens on a free port of 127.0.0.1, and runs the function on a thread for each connection.
    ///
    /// # Panics
    ///
    /// Panics if there is no free port.
    pub(crate) fn new(handle: impl Fn(TcpStream, &Sockets) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let port = listener.local_addr().expect("a listener has an address").port();
        let sockets = Arc::new(Sockets::default());
        let handle = Arc::new(handle);
        let thread = thread::spawn({
            let sockets = Arc::clone(&sockets);
            move || {
                for stream in listener.incoming() {
                    if sockets.lock().closed {
                        return;
                    }
                    let Ok(stream) = stream else { continue };
                    let (handle, sockets) = (Arc::clone(&handle), Arc::clone(&sockets));
                    thread::spawn(move || {
                        let _tracked = sockets.track(&stream);
                        handle(stream, &sockets);
                    });
                }
            }
        });
        Self { port, sockets, thread: Some(thread) }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Closes all connections. New ones are accepted.
    pub(crate) fn cut(&self) {
        self.sockets.lock().shut_down();
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut state = self.sockets.lock();
        state.closed = true;
        state.shut_down();
        drop(state);
        // Wakes the thread, which then checks `closed`.
        let woken = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        if let (Ok(_), Some(thread)) = (woken, self.thread.take()) {
            let _ = thread.join();
        }
    }
}

impl Sockets {
    /// Adds a socket to those that the listener closes. Closes it at once if the listener has been
    /// dropped.
    pub(crate) fn track(&self, socket: &TcpStream) -> Tracked<'_> {
        let mut state = self.lock();
        state.last += 1;
        let number = state.last;
        match socket.try_clone() {
            Ok(clone) if !state.closed => {
                state.open.insert(number, clone);
            }
            _ => {
                let _ = socket.shutdown(Shutdown::Both);
            }
        }
        Tracked { sockets: self, number }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no thread panics with the lock")
    }
}

impl State {
    fn shut_down(&self) {
        for socket in self.open.values() {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Tracked<'_> {
    fn drop(&mut self) {
        self.sockets.lock().open.remove(&self.number);
    }
}
