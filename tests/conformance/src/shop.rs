//! The server side of the shop: a handler that does what the request says, and keeps a book of what it did.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use psrpc::{Error, ErrorCode, Request, Runtime};

use crate::proto::{Ask, Reply, Shop};

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

    /// The texts of the requests whose handling was dropped on the way.
    pub(crate) fn dropped(&self) -> Vec<String> {
        self.look(|book| book.dropped.clone())
    }

    fn look<T>(&self, look: impl FnOnce(&mut Book) -> T) -> T {
        look(&mut self.book.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn handle(&self, request: Request<Ask>) -> Result<Reply, Error> {
        let metadata = request.metadata().iter().map(|(name, value)| (name.to_string(), value.to_string()));
        let entry = Entry {
            text: request.text.clone(),
            method: request.method().to_owned(),
            topic: request.topic().iter().map(ToString::to_string).collect(),
            client_id: request.client_id().to_owned(),
            request_id: request.request_id().to_owned(),
            metadata: metadata.collect(),
            remaining: request.remaining(),
        };
        self.look(|book| book.started.push(entry));
        let mut on_the_way = OnTheWay { hatter: self, text: Some(request.text.clone()) };
        if request.sleep_ms > 0 {
            let duration = Duration::from_millis(request.sleep_ms.into());
            self.runtime.sleep_until(self.runtime.now().time + duration).await;
        }
        assert!(!request.panic, "as the request asked");
        let text = on_the_way.text.take().unwrap_or_default();
        self.look(|book| book.finished.push(text.clone()));
        if !request.fail_code.is_empty() {
            return Err(Error::new(ErrorCode::from(request.fail_code.as_str()), &request.fail_text));
        }
        Ok(Reply { text, server: self.label.clone() })
    }

    fn bid(&self, request: &Request<Ask>) -> f32 {
        assert!(!request.affinity_panic, "as the request asked");
        self.affinity
    }
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
}

/// A request whose answer repeats `text`.
pub(crate) fn ask(text: &str) -> Ask {
    Ask { text: text.to_owned(), ..Ask::default() }
}

/// A request whose handler takes so long.
pub(crate) fn slow(text: &str, sleep_ms: u32) -> Ask {
    Ask { sleep_ms, ..ask(text) }
}
