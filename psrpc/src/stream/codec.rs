//! The way of a stream's messages between bytes and types, through what is around the stream.

use std::mem;
use std::sync::{Arc, OnceLock, PoisonError};

use bytes::Bytes;
use prost::Message;
use psrpc_engine::Failure;
use psrpc_engine::proto::ErrorCode;

use crate::error::Error;
use crate::guard;
use crate::info::{CallInfo, Side};
use crate::interceptor::{InterceptedStream, OpeningStream, StreamInterceptor};
use crate::log;
use crate::log::Label;
use crate::message::AnyMessage;
use crate::sync::{Mutex, MutexGuard, Once};

/// What is around the messages of one stream.
pub(crate) struct Codec {
    info: CallInfo,
    side: Side,
    intercepted: OnceLock<Vec<Box<dyn InterceptedStream>>>,
    opened: Once,
    lifecycle: Mutex<Lifecycle>,
    /// Fails for what is not a message that goes out.
    check: fn(&AnyMessage) -> Result<(), Error>,
    decode: fn(Bytes) -> Result<AnyMessage, Error>,
    /// Fails for what is not a message that comes in.
    check_received: fn(&AnyMessage) -> Result<(), Error>,
}

/// What the layers of a stream know of it. Its end may come while interceptors or layers still hear of its opening, on another
/// thread or from their own doing; it is told after that.
enum Lifecycle {
    /// Not yet that it is open, at least not all of them.
    Opening,
    Open,
    /// As `Nothing`, and it has ended, which is told next.
    EndedWhileOpening(Box<Failure>),
    Closed,
}

/// Why a message is not taken.
pub(crate) enum RejectedMessage {
    /// It does not decode, which ends the stream.
    Malformed(Error),
    /// Something around the stream does not want it.
    Refused,
}

impl Codec {
    /// The codec of a stream on which messages of type `S` go out and messages of type `R` come in.
    pub(crate) fn new<S: 'static, R: Message + Default + 'static>(info: CallInfo, side: Side) -> Self {
        let (check, check_received) = (AnyMessage::expect::<S>, AnyMessage::expect::<R>);
        let (intercepted, opened, lifecycle) = (OnceLock::new(), Once::new(), Mutex::new(Lifecycle::Opening));
        Self { info, side, intercepted, opened, lifecycle, check, decode: decode::<R>, check_received }
    }

    pub(crate) fn info(&self) -> &CallInfo {
        &self.info
    }

    /// Asks interceptors, once, for what is around the stream. Those before one that refuses are
    /// around it all the same, so that they hear of its end.
    pub(crate) fn intercept(
        &self,
        interceptors: &[Arc<dyn StreamInterceptor>],
        opening: &mut OpeningStream,
    ) -> Result<(), Error> {
        let mut refused = Ok(());
        let open = |interceptor: &Arc<dyn StreamInterceptor>| {
            interceptor.open(opening).map_err(|error| refused = Err(error)).ok()
        };
        let _ = self.intercepted.set(interceptors.iter().map_while(open).collect());
        refused
    }

    /// What is around the stream, the outermost first.
    pub(crate) fn intercepted(&self) -> &[Box<dyn InterceptedStream>] {
        self.intercepted.get().map(Vec::as_slice).unwrap_or_default()
    }

    /// The stream is open, which is told once, and then its end if that came meanwhile; whoever
    /// comes second waits until it was.
    pub(crate) fn opened(&self) {
        if !self.intercepted().is_empty() {
            self.opened.call_once(|| {
                self.notify(InterceptedStream::opened);
                let lifecycle = mem::replace(&mut *self.lock_lifecycle(), Lifecycle::Open);
                if let Lifecycle::EndedWhileOpening(cause) = lifecycle {
                    self.ended(cause);
                }
            });
        }
    }

    /// The stream has ended. Layers that do not know that it is open hear of it once they do.
    pub(crate) fn ended(&self, cause: Box<Failure>) {
        let mut lifecycle = self.lock_lifecycle();
        match *lifecycle {
            Lifecycle::Opening => *lifecycle = Lifecycle::EndedWhileOpening(cause),
            Lifecycle::Open => {
                drop(lifecycle);
                self.closed(&(*cause).into());
            }
            Lifecycle::EndedWhileOpening(_) | Lifecycle::Closed => {}
        }
    }

    /// The stream has ended, or does not come to be open, which is told once.
    pub(crate) fn closed(&self, cause: &Error) {
        let lifecycle = mem::replace(&mut *self.lock_lifecycle(), Lifecycle::Closed);
        if !matches!(lifecycle, Lifecycle::Closed) {
            self.notify(|stream| stream.closed(cause));
        }
    }

    fn lock_lifecycle(&self) -> MutexGuard<'_, Lifecycle> {
        self.lifecycle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn notify(&self, notify: impl Fn(&dyn InterceptedStream)) {
        for stream in self.intercepted() {
            self.catch(|| notify(&**stream));
        }
    }

    /// Whether a message has the type of those that go out.
    pub(crate) fn check(&self, message: &AnyMessage) -> Result<(), Error> {
        (self.check)(message)
    }

    /// Decodes a message, and passes it through what is around the stream.
    pub(crate) fn receive(&self, payload: Bytes) -> Result<AnyMessage, RejectedMessage> {
        let message = self.catch(|| (self.decode)(payload));
        let message = message.ok_or(RejectedMessage::Refused)?.map_err(RejectedMessage::Malformed)?;
        if self.intercepted().is_empty() {
            return Ok(message);
        }
        let pass = || -> Result<AnyMessage, Error> {
            let message =
                self.intercepted().iter().try_fold(message, |message, stream| stream.receive(message))?;
            (self.check_received)(&message).map(|()| message)
        };
        // The error of a layer is dropped where a panic of it does no harm.
        self.catch(|| pass().ok()).flatten().ok_or(RejectedMessage::Refused)
    }

    /// Runs user code.
    fn catch<T>(&self, run: impl FnOnce() -> T) -> Option<T> {
        guard::catch(run)
            .inspect_err(|panicked| {
                let label = Label::of_stream(&self.info);
                log::panicked(self.side, "what is around a stream", Some(&label), panicked);
            })
            .ok()
    }
}

impl Drop for Codec {
    fn drop(&mut self) {
        for stream in self.intercepted.take().unwrap_or_default() {
            self.catch(|| drop(stream));
        }
    }
}

fn decode<M: Message + Default + 'static>(payload: Bytes) -> Result<AnyMessage, Error> {
    M::decode(payload)
        .map(AnyMessage::new)
        .map_err(|error| Error::from_source(ErrorCode::MalformedRequest, error))
}
