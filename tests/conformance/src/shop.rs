//! The server side of the shop: a handler that does what the request says, and keeps a book of what
//! it did.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use psrpc::{Error, ErrorCode, Metadata, Method, Request, Runtime, ServerStream, Text};

use crate::proto::{Ask, Gossip, Reply, SHOP_SERVICE, Shop};

/// Somebody who handles the requests of one server. Clones share one book.
#[derive(Clone)]
pub(crate) struct Hatter {
    label: String,
    affinity: f32,
    runtime: Arc<dyn Runtime>,
    book: Arc<Mutex<Book>>,
}

/// What a hatter did.
#[derive(Default)]
struct Book {
    started: Vec<Entry>,
    finished: Vec<String>,
    dropped: Vec<String>,
    streams: Vec<Opening>,
    heard: Vec<String>,
    causes: Vec<Arc<Error>>,
}

/// A stream that a hatter began to handle.
#[derive(Clone, Debug)]
pub(crate) struct Opening {
    pub(crate) topic: Vec<String>,
    pub(crate) client_id: String,
    pub(crate) metadata: Vec<(String, String)>,
}

/// A request that a hatter began to handle.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) text: String,
    pub(crate) method: String,
    pub(crate) topic: Vec<String>,
    pub(crate) client_id: String,
    pub(crate) request_id: String,
    pub(crate) metadata: Vec<(String, String)>,
    pub(crate) remaining: Duration,
}

impl Hatter {
    pub(crate) fn new(label: &str, affinity: f32, runtime: Arc<dyn Runtime>) -> Self {
        Self { label: label.to_owned(), affinity, runtime, book: Arc::default() }
    }

    /// The requests whose handling has begun.
    pub(crate) fn started(&self) -> Vec<Entry> {
        self.look(|book| book.started.clone())
    }

    /// The texts of the requests whose handling has come to its end.
    pub(crate) fn finished(&self) -> Vec<String> {
        self.look(|book| book.finished.clone())
    }

    /// The texts of the requests whose handling was dropped on the way; for a stream, the name of
    /// its method.
    pub(crate) fn dropped(&self) -> Vec<String> {
        self.look(|book| book.dropped.clone())
    }

    /// The streams whose handling has begun.
    pub(crate) fn streams(&self) -> Vec<Opening> {
        self.look(|book| book.streams.clone())
    }

    /// The texts of the messages of all streams, in the order in which they came.
    pub(crate) fn heard(&self) -> Vec<String> {
        self.look(|book| book.heard.clone())
    }

    /// Why streams ended while their handlers waited for messages.
    pub(crate) fn causes(&self) -> Vec<Arc<Error>> {
        self.look(|book| book.causes.clone())
    }

    fn look<T>(&self, look: impl FnOnce(&mut Book) -> T) -> T {
        look(&mut self.book.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn handle(&self, request: Request<Ask>) -> Result<Reply, Error> {
        let entry = Entry {
            text: request.text.clone(),
            method: request.method().to_owned(),
            topic: texts(request.topic()),
            client_id: request.client_id().to_owned(),
            request_id: request.request_id().to_owned(),
            metadata: entries(request.metadata()),
            remaining: request.remaining(),
        };
        self.look(|book| book.started.push(entry));
        let mut on_the_way = OnTheWay { hatter: self, text: Some(request.text.clone()) };
        self.obey(&request).await;
        let text = on_the_way.text.take().unwrap_or_default();
        self.look(|book| book.finished.push(text.clone()));
        self.answer(&request)
    }

    /// Takes the time that an ask says, and panics if it says so.
    async fn obey(&self, ask: &Ask) {
        if ask.sleep_ms > 0 {
            let duration = Duration::from_millis(ask.sleep_ms.into());
            self.runtime.sleep_until(self.runtime.now().time + duration).await;
        }
        assert!(!ask.panic, "as the request asked");
    }

    fn answer(&self, ask: &Ask) -> Result<Reply, Error> {
        if !ask.fail_code.is_empty() {
            return Err(Error::new(ErrorCode::from(ask.fail_code.as_str()), &ask.fail_text));
        }
        Ok(Reply { text: ask.text.clone(), server: self.label.clone() })
    }

    /// Answers every ask of a stream, until one says to leave or to fail.
    async fn march(&self, stream: ServerStream<Reply, Ask>) -> Result<(), Error> {
        let opening = Opening {
            topic: texts(stream.topic()),
            client_id: stream.client_id().to_owned(),
            metadata: entries(stream.metadata()),
        };
        self.look(|book| book.streams.push(opening));
        let mut on_the_way = OnTheWay { hatter: self, text: Some(stream.info().method().to_owned()) };
        while let Some(ask) = stream.next().await {
            self.look(|book| book.heard.push(ask.text.clone()));
            self.obey(&ask).await;
            if ask.leave {
                break;
            }
            match self.answer(&ask) {
                // That its sender has gone meanwhile shows next.
                Ok(reply) => drop(stream.send(reply).await),
                Err(error) => {
                    on_the_way.text = None;
                    return Err(error);
                }
            }
        }
        on_the_way.text = None;
        self.look(|book| book.causes.extend(stream.cause().map(Arc::new)));
        Ok(())
    }

    fn bid(&self, request: &Request<Ask>) -> f32 {
        assert!(!request.affinity_panic, "as the request asked");
        self.affinity
    }
}

fn texts(topic: &[Text]) -> Vec<String> {
    topic.iter().map(ToString::to_string).collect()
}

fn entries(metadata: &Metadata) -> Vec<(String, String)> {
    metadata.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

/// Notes when a handler is dropped before its end.
struct OnTheWay<'a> {
    hatter: &'a Hatter,
    text: Option<String>,
}

impl Drop for OnTheWay<'_> {
    fn drop(&mut self) {
        if let Some(text) = self.text.take() {
            self.hatter.look(|book| book.dropped.push(text));
        }
    }
}

impl Shop for Hatter {
    async fn fit(&self, request: Request<Ask>) -> Result<Reply, Error> {
        self.handle(request).await
    }

    async fn pick(&self, request: Request<Ask>) -> Result<Reply, Error> {
        self.handle(request).await
    }

    fn pick_affinity(&self, request: &Request<Ask>) -> f32 {
        self.bid(request)
    }

    async fn owner_fit(&self, request: Request<Ask>) -> Result<Reply, Error> {
        self.handle(request).await
    }

    async fn rack_fit(&self, request: Request<Ask>) -> Result<Reply, Error> {
        self.handle(request).await
    }

    async fn rack_pick(&self, request: Request<Ask>) -> Result<Reply, Error> {
        self.handle(request).await
    }

    fn rack_pick_affinity(&self, request: &Request<Ask>) -> f32 {
        self.bid(request)
    }

    async fn make_hat_v1(&self, request: Request<Ask>) -> Result<Reply, Error> {
        self.handle(request).await
    }

    async fn census(&self, request: Request<Ask>) -> Result<Reply, Error> {
        self.handle(request).await
    }

    async fn ward_census(&self, request: Request<Ask>) -> Result<Reply, Error> {
        self.handle(request).await
    }

    async fn parade(&self, stream: ServerStream<Reply, Ask>) -> Result<(), Error> {
        self.march(stream).await
    }

    async fn owner_parade(&self, stream: ServerStream<Reply, Ask>) -> Result<(), Error> {
        self.march(stream).await
    }

    async fn pick_parade(&self, stream: ServerStream<Reply, Ask>) -> Result<(), Error> {
        self.march(stream).await
    }

    fn pick_parade_affinity(&self, _: &Request<()>) -> f32 {
        self.affinity
    }
}

/// Whoever handles requests has things to say.
impl Gossip for Hatter {}

/// A request whose answer repeats `text`.
pub(crate) fn ask(text: &str) -> Ask {
    Ask { text: text.to_owned(), ..Ask::default() }
}

/// A request whose handler fails.
pub(crate) fn failing(code: &str, text: &str) -> Ask {
    Ask { fail_code: code.to_owned(), fail_text: text.to_owned(), ..ask("top") }
}

/// A request whose handler takes so long.
pub(crate) fn slow(text: &str, sleep_ms: u32) -> Ask {
    Ask { sleep_ms, ..ask(text) }
}

/// The method of the shop with this name on the wire.
pub(crate) fn method(name: &str) -> &'static Method {
    SHOP_SERVICE.methods.iter().find(|method| method.name == name).expect("a method of the shop")
}
