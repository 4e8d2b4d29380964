//! A chat room over streams: whoever enters opens a stream to the room's server, which passes on
//! what each says to all the others.
//!
//! `cargo run --example chat` plays it through in one process. Over Redis or NATS, each line in a
//! terminal of its own:
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
use psrpc_examples::{BusArgument, input, input_ends};

use chat::{Chat, ChatClient, ChatServer, Line};

mod chat {
    psrpc::include_proto!("chat.v1");
}

/// Guests by name, with the half of the stream that sends to them.
type Guests = BTreeMap<String, Arc<SendHalf<Line>>>;

/// Who is in a room.
#[derive(Default)]
struct Room {
    guests: Mutex<Guests>,
}

impl Chat for Room {
    // The handler stays for as long as its guest does: when it returns, the stream ends, with its
    // error if it has one. So a shutdown waits for it. A handler that wants to return at once and
    // keep the stream calls `stream.hijack()`.
    async fn enter(&self, stream: ServerStream<Line, Line>) -> Result<(), Error> {
        let nameless = || Error::new(ErrorCode::InvalidArgument, "who are you?");
        let name = stream.metadata().get("name").ok_or_else(nameless)?.to_string();
        // What the guest says is received here, and what the others say is sent from their
        // handlers.
        let (sender, receiver) = stream.split();
        self.admit(&name, Arc::new(sender)).await?;
        while let Some(line) = receiver.next().await {
            let mut others = self.guests.lock().unwrap().clone();
            others.remove(&name);
            tell(&others, &name, &line.text).await;
        }
        let others = {
            let mut guests = self.guests.lock().unwrap();
            guests.remove(&name);
            guests.clone()
        };
        match receiver.cause() {
            // The server shuts down, and everybody sees it.
            Some(cause) if cause.is_eof() => {}
            cause => {
                let why = cause.filter(|cause| !cause.is_stream_closed());
                let why = why.map_or_else(String::new, |cause| format!(": {}", cause.text()));
                tell(&others, "room", &format!("{name} has left{why}")).await;
            }
        }
        Ok(())
    }
}

impl Room {
    /// Opens a room that has this name.
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
                return Err(Error::new(ErrorCode::AlreadyExists, format!("there is a {name} here already")));
            }
            let others = guests.clone();
            guests.insert(name.to_owned(), Arc::clone(&guest));
            others
        };
        let text = format!("welcome, {name}; others here: {}", others.len());
        guest.send(Line { from: "room".to_owned(), text }).await?;
        // Whoever has entered since then was told of this guest by the number of others.
        tell(&others, "room", &format!("{name} has entered")).await;
        Ok(())
    }
}

/// Sends a line to each of these guests.
async fn tell(guests: &Guests, from: &str, text: &str) {
    for guest in guests.values() {
        let line = Line { from: from.to_owned(), text: text.to_owned() };
        // A send resolves when the other side has taken the line. Who does not, holds up the room,
        // and has to leave.
        if let Err(error) = guest.send(line).timeout(Duration::from_secs(1)).await {
            guest.close(error);
        }
    }
}

async fn enter(client: &ChatClient, room: &str, name: &str) -> Result<ClientStream<Line, Line>, Error> {
    client.enter(room).metadata("name", name).await
}

/// Says something, as a guest.
async fn say(stream: &ClientStream<Line, Line>, text: &str) -> Result<(), Error> {
    stream.send(Line { text: text.to_owned(), ..Line::default() }).await
}

/// Hears one line, or why there are no more.
async fn hear(name: &str, stream: &ClientStream<Line, Line>) {
    match stream.next().await {
        Some(line) => println!("{name} hears {}: {}", line.from, line.text),
        None => println!("{name} hears no more: {}", stream.closed().await.text()),
    }
}

/// Plays it through in one process.
async fn play(bus: Arc<dyn Bus>) -> Result<(), Error> {
    let server = Room::open(bus.clone(), "lobby").await?;
    let client = ChatClient::new(bus).await?;

    let ann = enter(&client, "lobby", "ann").await?;
    hear("ann", &ann).await;
    let bob = enter(&client, "lobby", "bob").await?;
    hear("bob", &bob).await;
    hear("ann", &ann).await;
    say(&ann, "hello!").await?;
    hear("bob", &bob).await;
    say(&bob, "hi ann").await?;
    hear("ann", &ann).await;

    // The handler's error is why the stream ends.
    let second_bob = enter(&client, "lobby", "bob").await?;
    hear("the second bob", &second_bob).await;

    // Whoever closes a stream can say why.
    bob.close(Error::new(ErrorCode::Canceled, "my train is leaving"));
    hear("ann", &ann).await;

    // Every stream of a server that shuts down ends with EOF.
    server.shutdown().await;
    hear("ann", &ann).await;
    println!("the lobby is closed");
    Ok(())
}

/// A guest who says what is typed in, until that ends or the room is closed.
async fn visit(bus: Arc<dyn Bus>, room: &str, name: &str) -> Result<(), Error> {
    let client = ChatClient::new(bus).await?;
    let stream = enter(&client, room, name).await?;
    let mut input = input();
    loop {
        tokio::select! {
            line = stream.next() => match line {
                Some(line) => println!("{}: {}", line.from, line.text),
                None => break,
            },
            typed = input.recv() => match typed {
                Some(text) => say(&stream, &text).await?,
                None => break,
            },
        }
    }
    stream.close(None);
    println!("{name} hears no more: {}", stream.closed().await.text());
    // The program ends here: not before the room can know.
    client.shutdown().await;
    Ok(())
}

/// A chat room, played through in one process unless it is told which part to be.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    bus: BusArgument,
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Subcommand)]
enum Part {
    /// The server of a room, until its input ends.
    Host { room: String },
    /// A guest of a room, who says what is typed in.
    Enter { room: String, name: String },
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let Arguments { bus, part } = Arguments::parse();
    let bus = bus.connect().await?;
    match part {
        None => play(bus).await,
        Some(Part::Host { room }) => {
            let server = Room::open(bus, &room).await?;
            input_ends().await;
            server.shutdown().await;
            println!("the {room} is closed");
            Ok(())
        }
        Some(Part::Enter { room, name }) => visit(bus, &room, &name).await,
    }
}
