//! The server side of the shop: a service implementation that does what the request says, and
//! records what it did.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use psrpc::{Error, ErrorCode, Metadata, Method, Request, Runtime, ServerStream, Text};

use crate::proto::{Ask, Gossip, Reply, SHOP_SERVICE, Shop};

/// The implementation of the service on one server. Clones share one record.
#[derive(Clone)]
pub(crate) struct Hatter {
    label: String,
    affinity: f32,
    runtime: Arc<dyn Runtime>,
    activity: Arc<Mutex<Activity>>,
}

/// A record of what a hatter did.
#[derive(Default)]
struct Activity {
    started: Vec<HandledRequest>,
    finished: Vec<String>,
    dropped: Vec<String>,
    streams: Vec<HandledStream>,
    received: Vec<String>,
    causes: Vec<Arc<Error>>,
}

/// A stream whose handler was started.
#[derive(Clone, Debug)]
pub(crate) struct HandledStream {
    pub(crate) topic: Vec<String>,
    pub(crate) client_id: String,
    pub(crate) metadata: Vec<(String, String)>,
}

/// A request whose handler was started.
#[derive(Clone, Debug)]
pub(crate) struct HandledRequest {
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
        Self { label: label.to_owned(), affinity, runtime, activity: Arc::default() }
    }

    /// Returns the requests whose handlers were started.
    pub(crate) fn started(&self) -> Vec<HandledRequest> {
        self.with_activity(|activity| activity.started.clone())
    }

    /// Returns the texts of the requests whose handlers finished.
    pub(crate) fn finished(&self) -> Vec<String> {
        self.with_activity(|activity| activity.finished.clone())
    }

    /// Returns the texts of the requests whose handlers were dropped before they finished; for a
    /// stream, the name of its method.
    pub(crate) fn dropped(&self) -> Vec<String> {
        self.with_activity(|activity| activity.dropped.clone())
    }

    /// Returns the streams whose handlers were started.
    pub(crate) fn streams(&self) -> Vec<HandledStream> {
        self.with_activity(|activity| activity.streams.clone())
    }

    /// Returns the texts of the messages of all streams, in the order of arrival.
    pub(crate) fn received(&self) -> Vec<String> {
        self.with_activity(|activity| activity.received.clone())
    }

    /// Returns the causes of streams that ended while their handlers waited for messages.
    pub(crate) fn causes(&self) -> Vec<Arc<Error>> {
        self.with_activity(|activity| activity.causes.clone())
    }

    fn with_activity<T>(&self, f: impl FnOnce(&mut Activity) -> T) -> T {
        f(&mut self.activity.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn handle(&self, request: Request<Ask>) -> Result<Reply, Error> {
        let handled = HandledRequest {
            text: request.text.clone(),
            method: request.method().to_owned(),
            topic: texts(request.topic()),
            client_id: request.client_id().to_owned(),
            request_id: request.request_id().to_owned(),
            metadata: entries(request.metadata()),
            remaining: request.remaining(),
        };
        self.with_activity(|activity| activity.started.push(handled));
        let mut recorder = DropRecorder { hatter: self, text: Some(request.text.clone()) };
        self.sleep_or_panic(&request).await;
        let text = recorder.text.take().unwrap_or_default();
        self.with_activity(|activity| activity.finished.push(text.clone()));
        self.respond(&request)
    }

    /// Sleeps and panics as the request says.
    async fn sleep_or_panic(&self, ask: &Ask) {
        if ask.sleep_ms > 0 {
            let duration = Duration::from_millis(ask.sleep_ms.into());
            self.runtime.sleep_until(self.runtime.now().time + duration).await;
        }
        assert!(!ask.panic, "requested by the test");
    }

    fn respond(&self, ask: &Ask) -> Result<Reply, Error> {
        if !ask.fail_code.is_empty() {
            return Err(Error::new(ErrorCode::from(ask.fail_code.as_str()), &ask.fail_text));
        }
        Ok(Reply { text: ask.text.clone(), server: self.label.clone() })
    }

    /// Replies to every message of a stream, until one says to leave or to fail.
    async fn handle_stream(&self, stream: ServerStream<Reply, Ask>) -> Result<(), Error> {
        let handled = HandledStream {
            topic: texts(stream.topic()),
            client_id: stream.client_id().to_owned(),
            metadata: entries(stream.metadata()),
        };
        self.with_activity(|activity| activity.streams.push(handled));
        let mut recorder = DropRecorder { hatter: self, text: Some(stream.info().method().to_owned()) };
        while let Some(ask) = stream.next().await {
            self.with_activity(|activity| activity.received.push(ask.text.clone()));
            self.sleep_or_panic(&ask).await;
            if ask.leave {
                break;
            }
            match self.respond(&ask) {
                // If the sender closed the stream meanwhile, the next receive shows it.
                Ok(reply) => drop(stream.send(reply).await),
                Err(error) => {
                    recorder.text = None;
                    return Err(error);
                }
            }
        }
        recorder.text = None;
        self.with_activity(|activity| activity.causes.extend(stream.cause().map(Arc::new)));
        Ok(())
    }

    fn affinity_for(&self, request: &Request<Ask>) -> f32 {
        assert!(!request.affinity_panic, "requested by the test");
        self.affinity
    }
}

fn texts(topic: &[Text]) -> Vec<String> {
    topic.iter().map(ToString::to_string).collect()
}

fn entries(metadata: &Metadata) -> Vec<(String, String)> {
    metadata.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

/// Records a handler that is dropped before it finishes.
struct DropRecorder<'a> {
    hatter: &'a Hatter,
    text: Option<String>,
}

impl Drop for DropRecorder<'_> {
    fn drop(&mut self) {
        if let Some(text) = self.text.take() {
            self.hatter.with_activity(|activity| activity.dropped.push(text));
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
        self.affinity_for(request)
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
        self.affinity_for(request)
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
        self.handle_stream(stream).await
    }

    async fn owner_parade(&self, stream: ServerStream<Reply, Ask>) -> Result<(), Error> {
        self.handle_stream(stream).await
    }

    async fn pick_parade(&self, stream: ServerStream<Reply, Ask>) -> Result<(), Error> {
        self.handle_stream(stream).await
    }

    fn pick_parade_affinity(&self, _: &Request<()>) -> f32 {
        self.affinity
    }
}

impl Gossip for Hatter {}

/// Returns a request whose response repeats `text`.
pub(crate) fn ask(text: &str) -> Ask {
    Ask { text: text.to_owned(), ..Ask::default() }
}

/// Returns a request whose handler fails.
pub(crate) fn failing(code: &str, text: &str) -> Ask {
    Ask { fail_code: code.to_owned(), fail_text: text.to_owned(), ..ask("top") }
}

/// Returns a request whose handler takes `sleep_ms`.
pub(crate) fn slow(text: &str, sleep_ms: u32) -> Ask {
    Ask { sleep_ms, ..ask(text) }
}

/// Returns the method of the shop with this name on the wire.
pub(crate) fn method(name: &str) -> &'static Method {
    SHOP_SERVICE.methods.iter().find(|method| method.name == name).expect("a method of the shop")
}
