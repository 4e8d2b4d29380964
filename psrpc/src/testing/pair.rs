//! Two ends of a stream without anything between them.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use prost::Message;
use psrpc_engine::proto::{ErrorResponse, Metadata, MethodProperties, Routing, Text};
use psrpc_engine::{Evidence, Failure, Reason, Route, SendError};

use crate::error::Error;
use crate::info::Side;
use crate::interceptor::SendOptions;
use crate::message::AnyMessage;
use crate::request::RequestContext;
use crate::runtime::Runtime;
use crate::stream::{Awaited, Codec, Port, Shared};
use crate::stream::{ClientStream, ServerStream};
use crate::sync::{Mutex, MutexGuard};
use crate::waiting;
use crate::waiting::Place;

/// A stream's two ends, for unit tests of code that has one of them: what the client sends the server receives, and the other way
/// round. There is no bus: a send resolves at once, and nothing bounds how much waits to be received.
///
/// ```
/// # use psrpc::{Error, OpenStream, Runtime};
/// # async fn example(runtime: impl Runtime) -> Result<(), Error> {
/// let (client, server) = psrpc::testing::stream_pair::<String, u64>(runtime);
/// let opening = OpenStream::fake(Ok(client)); // what a fake of a client gives
///
/// let stream = opening.await?;
/// stream.send("how many hats?".to_owned()).await?;
/// assert_eq!(server.next().await.unwrap(), "how many hats?");
/// server.send(7).await?;
/// assert_eq!(stream.next().await, Some(7));
/// # Ok(())
/// # }
/// ```
pub fn stream_pair<S, R>(runtime: impl Runtime) -> (ClientStream<S, R>, ServerStream<R, S>)
where
    S: Message + Default + 'static,
    R: Message + Default + 'static,
{
    let properties = MethodProperties { routing: Routing::Queue, require_claim: false };
    let route = Route::stream::<&str>("Fake", "Stream", properties, &[]).expect("names that can be carried");
    let client = Arc::new(Codec::new::<S, R>(route.clone().into(), Side::Client));
    let server = Arc::new(Codec::new::<R, S>(route.clone().into(), Side::Server));
    let pipe = Arc::new(Pipe {
        ends: Mutex::default(),
        codecs: [Arc::clone(&client), Arc::clone(&server)],
        runtime: Arc::new(runtime),
    });
    let end = |own| Box::new(End { pipe: Arc::clone(&pipe), own });
    let context = RequestContext {
        route,
        client_id: Text::from_static("CLI_fake"),
        request_id: Text::from_static("REQ_fake"),
        metadata: Metadata::new(),
        sent_at: pipe.runtime.now().wall,
        deadline: pipe.runtime.now().time,
        runtime: Arc::clone(&pipe.runtime),
    };
    (
        ClientStream::new(Shared::new(end(0), client)),
        ServerStream::at_server(Shared::new(end(1), server), context),
    )
}

/// What is between the two ends, of which the client's is the first.
struct Pipe {
    ends: Mutex<[Received; 2]>,
    codecs: [Arc<Codec>; 2],
    runtime: Arc<dyn Runtime>,
}

/// What one end has received.
#[derive(Default)]
struct Received {
    messages: VecDeque<AnyMessage>,
    cause: Option<Box<Failure>>,
    waiting: Vec<Waker>,
}

struct End {
    pipe: Arc<Pipe>,
    own: usize,
}

impl End {
    fn ends(&self) -> MutexGuard<'_, [Received; 2]> {
        self.pipe.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what an end has received, and wakes who waits there.
    fn change(&self, end: usize, change: impl FnOnce(&mut Received)) {
        let woken = {
            let received = &mut self.ends()[end];
            change(received);
            std::mem::take(&mut received.waiting)
        };
        woken.into_iter().for_each(Waker::wake);
    }

    fn end(&self, cause: ErrorResponse) {
        for (end, reason) in [(self.own, Reason::Closed), (1 - self.own, Reason::ClosedByPeer)] {
            let ErrorResponse { code, text, details } = cause.clone();
            let (evidence, source) = (Evidence::default(), None);
            let failure = Failure { reason, code, text, details, evidence, source };
            self.change(end, |received| {
                received.cause.get_or_insert_with(|| Box::new(failure));
            });
        }
    }
}

impl Port for End {
    fn runtime(&self) -> &Arc<dyn Runtime> {
        &self.pipe.runtime
    }

    fn send(&self, payload: Bytes, _: SendOptions) -> Result<usize, SendError> {
        if self.cause().is_some() {
            return Err(SendError::Ended);
        }
        let other = 1 - self.own;
        if let Ok(message) = self.pipe.codecs[other].receive(payload) {
            self.change(other, |received| received.messages.push_back(message));
        }
        Ok(0)
    }

    fn poll_sent(&self, _: usize, _: &Context<'_>) -> Poll<Result<(), Box<Failure>>> {
        Poll::Ready(Ok(()))
    }

    fn cancel_send(&self, _: usize) {}

    fn poll_message(&self, _: &mut Place, cx: &Context<'_>) -> Poll<Option<AnyMessage>> {
        let received = &mut self.ends()[self.own];
        match received.messages.pop_front() {
            Some(message) => Poll::Ready(Some(message)),
            None if received.cause.is_some() => Poll::Ready(None),
            None => {
                waiting::wait(&mut received.waiting, cx);
                Poll::Pending
            }
        }
    }

    fn poll_ended(&self, _: &mut Place, cx: &Context<'_>) -> Poll<Box<Failure>> {
        let received = &mut self.ends()[self.own];
        match &received.cause {
            Some(cause) => Poll::Ready(cause.clone()),
            None => {
                waiting::wait(&mut received.waiting, cx);
                Poll::Pending
            }
        }
    }

    fn leave_place(&self, _: Awaited, _: &mut Place) {}

    fn cause(&self) -> Option<Box<Failure>> {
        self.ends()[self.own].cause.clone()
    }

    fn close(&self, cause: Option<ErrorResponse>) {
        self.end(cause.unwrap_or_else(|| Error::stream_closed().into_response()));
    }

    fn hijack(&self) {}
}

impl Drop for End {
    fn drop(&mut self) {
        self.close(None);
    }
}
