//! The codec of a stream: encodes and decodes its messages, and passes them through the
//! interceptors.

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

/// The message types of one stream, and the interceptors around it.
pub(crate) struct Codec {
    info: CallInfo,
    side: Side,
    intercepted: OnceLock<Vec<Box<dyn InterceptedStream>>>,
    opened: Once,
    lifecycle: Mutex<Lifecycle>,
    /// Checks the type of an outgoing message.
    check: fn(&AnyMessage) -> Result<(), Error>,
    decode: fn(Bytes) -> Result<AnyMessage, Error>,
    /// Checks the type of an incoming message.
    check_received: fn(&AnyMessage) -> Result<(), Error>,
}

/// The notifications that the interceptors of a stream have received.
///
/// The stream may end while the interceptors are still being notified of its opening, for example
/// because one of them ends it. They are then notified of the end after the opening.
enum Lifecycle {
    /// Not all interceptors have been notified of the opening.
    Opening,
    Open,
    /// As `Opening`, but the stream has ended. The interceptors are notified of the end next.
    EndedWhileOpening(Box<Failure>),
    Closed,
}

/// Why a message is not delivered.
pub(crate) enum RejectedMessage {
    /// The message does not decode, which ends the stream.
    Malformed(Error),
    /// An interceptor refused the message or replaced it with one of another type, or user code
    /// panicked.
    Refused,
}

impl Codec {
    /// Returns the codec of a stream that sends messages of type `S` and receives messages of type
    /// `R`.
    pub(crate) fn new<S: 'static, R: Message + Default + 'static>(info: CallInfo, side: Side) -> Self {
        let (check, check_received) = (AnyMessage::expect::<S>, AnyMessage::expect::<R>);
        let (intercepted, opened, lifecycle) = (OnceLock::new(), Once::new(), Mutex::new(Lifecycle::Opening));
        Self { info, side, intercepted, opened, lifecycle, check, decode: decode::<R>, check_received }
    }

    pub(crate) fn info(&self) -> &CallInfo {
        &self.info
    }

    /// Calls the interceptors, once. If one refuses the stream, those before it stay in place, and
    /// are notified of the end.
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

    /// Returns the intercepted streams, starting with the outermost.
    pub(crate) fn intercepted(&self) -> &[Box<dyn InterceptedStream>] {
        self.intercepted.get().map(Vec::as_slice).unwrap_or_default()
    }

    /// Notifies the interceptors that the stream is open, and of its end if it ended in the
    /// meantime. Later calls do nothing; a concurrent call blocks until the first has finished.
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

    /// Notifies the interceptors that the stream has ended, or defers that until they know of its
    /// opening.
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

    /// Notifies the interceptors that the stream has ended or could not be opened. Later calls do
    /// nothing.
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

    /// Checks the type of an outgoing message.
    pub(crate) fn check(&self, message: &AnyMessage) -> Result<(), Error> {
        (self.check)(message)
    }

    /// Decodes a message, and passes it through the interceptors.
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
        // The error is dropped inside `catch`, since its destructor may panic.
        self.catch(|| pass().ok()).flatten().ok_or(RejectedMessage::Refused)
    }

    /// Runs user code, and logs a panic.
    fn catch<T>(&self, run: impl FnOnce() -> T) -> Option<T> {
        guard::catch(run)
            .inspect_err(|panicked| {
                let label = Label::of_stream(&self.info);
                log::panicked(self.side, "a stream interceptor", Some(&label), panicked);
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
