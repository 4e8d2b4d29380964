//! A chat room over streams. Each guest opens a stream to the room's server, which forwards every
//! line to the other guests.
//!
//! `cargo run --example chat` runs everything in one process. To use Redis or NATS, run each line
//! in its own terminal:
//!
//! ```text
//! cargo run --example chat -- --bus redis://127.0.0.1:6379 host lobby           # until Ctrl-D
//! cargo run --example chat -- --bus redis://127.0.0.1:6379 enter lobby ann      # type; until Ctrl-D
//! cargo run --example chat -- --bus redis://127.0.0.1:6379 enter lobby bob
//! ```

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::{Parser, Subcommand};
use psrpc::bus::Bus;
use psrpc::{ClientStream, Error, ErrorCode, SendHalf, ServerStream};
use psrpc_examples::{BusArgument, stdin_lines, wait_for_eof};

use chat::{Chat, ChatClient, ChatServer, Line};

mod chat {
    psrpc::include_proto!("chat.v1");
}

/// The guests by name, each with the sending half of its stream.
type Guests = BTreeMap<String, Arc<SendHalf<Line>>>;

/// A chat room.
#[derive(Default)]
struct Room {
    guests: Mutex<Guests>,
}

impl Chat for Room {
    // The stream ends when the handler returns, with the handler's error if there is one. A
    // shutdown waits for the handler. To return early and keep the stream, call `stream.hijack()`.
    async fn enter(&self, stream: ServerStream<Line, Line>) -> Result<(), Error> {
        let nameless = || Error::new(ErrorCode::InvalidArgument, "missing metadata: name");
        let name = stream.metadata().get("name").ok_or_else(nameless)?.to_string();
        // This handler receives the guest's lines. The other guests' handlers send their lines to
        // it.
        let (sender, receiver) = stream.split();
        self.admit(&name, Arc::new(sender)).await?;
        while let Some(line) = receiver.next().await {
            let mut others = self.guests.lock().unwrap().clone();
            others.remove(&name);
            broadcast(&others, &name, &line.text).await;
        }
        let others = {
            let mut guests = self.guests.lock().unwrap();
            guests.remove(&name);
            guests.clone()
        };
        match receiver.cause() {
            // The server is shutting down, which every guest sees.
            Some(cause) if cause.is_eof() => {}
            cause => {
                let reason = cause.filter(|cause| !cause.is_stream_closed());
                let reason = reason.map_or_else(String::new, |cause| format!(": {}", cause.text()));
                broadcast(&others, "room", &format!("{name} has left{reason}")).await;
            }
        }
        Ok(())
    }
}

impl Room {
    /// Opens a room with this name.
    async fn open(bus: Arc<dyn Bus>, name: &str) -> Result<ChatServer, Error> {
        let server = ChatServer::new(bus, Room::default()).await?;
        server.register_enter_topic(name).await?;
        println!("the {name} is open");
        Ok(server)
    }

    async fn admit(&self, name: &str, guest: Arc<SendHalf<Line>>) -> Result<(), Error> {
        let others = {
            let mut guests = self.guests.lock().unwrap();
            if guests.contains_key(name) {
                return Err(Error::new(
                    ErrorCode::AlreadyExists,
                    format!("the name {name} is already in use"),
                ));
            }
            let others = guests.clone();
            guests.insert(name.to_owned(), Arc::clone(&guest));
            others
        };
        let text = format!("welcome, {name}; others here: {}", others.len());
        guest.send(Line { from: "room".to_owned(), text }).await?;
        // Guests who entered since then already count this guest in their welcome.
        broadcast(&others, "room", &format!("{name} has entered")).await;
        Ok(())
    }
}

/// Sends a line to these guests.
async fn broadcast(guests: &Guests, from: &str, text: &str) {
    for guest in guests.values() {
        let line = Line { from: from.to_owned(), text: text.to_owned() };
        // A send resolves once the guest has room for the line. A guest without room would block
        // the others and is removed.
        if let Err(error) = guest.send(line).timeout(Duration::from_secs(1)).await {
            guest.close(error);
        }
    }
}

async fn enter(client: &ChatClient, room: &str, name: &str) -> Result<ClientStream<Line, Line>, Error> {
    client.enter(room).metadata("name", name).await
}

/// Sends a line as a guest.
async fn send_line(stream: &ClientStream<Line, Line>, text: &str) -> Result<(), Error> {
    stream.send(Line { text: text.to_owned(), ..Line::default() }).await
}

/// Prints the next line, or the reason that the stream ended.
async fn print_next(name: &str, stream: &ClientStream<Line, Line>) {
    match stream.next().await {
        Some(line) => println!("{name} receives from {}: {}", line.from, line.text),
        None => println!("{name}: the stream ended: {}", stream.closed().await.text()),
    }
}

/// Runs a room and its guests in one process.
async fn run_all(bus: Arc<dyn Bus>) -> Result<(), Error> {
    let server = Room::open(bus.clone(), "lobby").await?;
    let client = ChatClient::new(bus).await?;

    let ann = enter(&client, "lobby", "ann").await?;
    print_next("ann", &ann).await;
    let bob = enter(&client, "lobby", "bob").await?;
    print_next("bob", &bob).await;
    print_next("ann", &ann).await;
    send_line(&ann, "hello!").await?;
    print_next("bob", &bob).await;
    send_line(&bob, "hi ann").await?;
    print_next("ann", &ann).await;

    // The handler's error ends the stream.
    let second_bob = enter(&client, "lobby", "bob").await?;
    print_next("the second bob", &second_bob).await;

    // Either side can close a stream with a reason.
    bob.close(Error::new(ErrorCode::Canceled, "my train is leaving"));
    print_next("ann", &ann).await;

    // A shutdown ends every stream of the server with EOF.
    server.shutdown().await;
    print_next("ann", &ann).await;
    println!("the lobby is closed");
    Ok(())
}

/// Runs a guest who sends the lines of stdin, until stdin ends or the room closes.
async fn visit(bus: Arc<dyn Bus>, room: &str, name: &str) -> Result<(), Error> {
    let client = ChatClient::new(bus).await?;
    let stream = enter(&client, room, name).await?;
    let mut lines = stdin_lines();
    loop {
        tokio::select! {
            line = stream.next() => match line {
                Some(line) => println!("{}: {}", line.from, line.text),
                None => break,
            },
            typed = lines.recv() => match typed {
                Some(text) => send_line(&stream, &text).await?,
                None => break,
            },
        }
    }
    stream.close(None);
    println!("{name}: the stream ended: {}", stream.closed().await.text());
    // Ensures that the close is published before the process exits.
    client.shutdown().await;
    Ok(())
}

/// A chat room. Runs everything in one process without a subcommand.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    bus: BusArgument,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the server of a room until stdin ends.
    Host { room: String },
    /// Runs a guest who sends the lines of stdin.
    Enter { room: String, name: String },
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let Arguments { bus, command } = Arguments::parse();
    let bus = bus.connect().await?;
    match command {
        None => run_all(bus).await,
        Some(Command::Host { room }) => {
            let server = Room::open(bus, &room).await?;
            wait_for_eof().await;
            server.shutdown().await;
            println!("the {room} is closed");
            Ok(())
        }
        Some(Command::Enter { room, name }) => visit(bus, &room, &name).await,
    }
}
