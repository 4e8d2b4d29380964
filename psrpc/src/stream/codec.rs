//! The way of a stream's messages between bytes and types, through what is around the stream.

use std::sync::{Arc, Once, OnceLock};

use bytes::Bytes;
use prost::Message;
use psrpc_engine::Failure;
use psrpc_engine::proto::ErrorCode;

use crate::interceptor::{OpeningStream, StreamInterceptor, StreamLayer};
use crate::middleware::Side;
use crate::{AnyMessage, CallInfo, Error, guard, log};

/// What is around the messages of one stream.
pub(crate) struct Codec {
    info: CallInfo,
    side: Side,
    layers: OnceLock<Vec<Box<dyn StreamLayer>>>,
    opened: Once,
    /// Fails for what is not a message that goes out.
    check: fn(&AnyMessage) -> Result<(), Error>,
    decode: fn(Bytes) -> Result<AnyMessage, Error>,
    /// Fails for what is not a message that comes in.
    check_received: fn(&AnyMessage) -> Result<(), Error>,
}

/// Why a message is not taken.
pub(crate) enum NotTaken {
    /// It does not decode, which ends the stream.
    Malformed(Error),
    /// Something around the stream does not want it.
    Refused,
}

impl Codec {
    /// The codec of a stream on which messages of type `S` go out and messages of type `R` come in.
    pub(crate) fn new<S: 'static, R: Message + Default + 'static>(info: CallInfo, side: Side) -> Self {
        let (check, check_received) = (AnyMessage::expect::<S>, AnyMessage::expect::<R>);
        let (layers, opened) = (OnceLock::new(), Once::new());
        Self { info, side, layers, opened, check, decode: decode::<R>, check_received }
    }

    pub(crate) fn info(&self) -> &CallInfo {
        &self.info
    }

    /// Asks interceptors, once, for what is around the stream. Those before one that refuses are around it all the same, so that
    /// they hear of its end.
    pub(crate) fn surround(
        &self,
        interceptors: &[Arc<dyn StreamInterceptor>],
        opening: &mut OpeningStream,
    ) -> Result<(), Error> {
        let mut refused = Ok(());
        let open = |interceptor: &Arc<dyn StreamInterceptor>| {
            interceptor.open(opening).map_err(|error| refused = Err(error)).ok()
        };
        let _ = self.layers.set(interceptors.iter().map_while(open).collect());
        refused
    }

    /// What is around the stream, the outermost first.
    pub(crate) fn layers(&self) -> &[Box<dyn StreamLayer>] {
        self.layers.get().map(Vec::as_slice).unwrap_or_default()
    }

    /// The stream is open, which is told once; whoever comes second waits until it was.
    pub(crate) fn opened(&self) {
        if !self.layers().is_empty() {
            self.opened.call_once(|| self.tell(StreamLayer::opened));
        }
    }

    /// The stream has ended.
    pub(crate) fn ended(&self, cause: Failure) {
        if !self.layers().is_empty() {
            self.closed(&cause.into());
        }
    }

    /// The stream has ended, or does not come to be open.
    pub(crate) fn closed(&self, cause: &Error) {
        self.tell(|layer| layer.closed(cause));
    }

    fn tell(&self, tell: impl Fn(&dyn StreamLayer)) {
        for layer in self.layers() {
            self.catch(|| tell(&**layer));
        }
    }

    /// Whether a message has the type of those that go out.
    pub(crate) fn check(&self, message: &AnyMessage) -> Result<(), Error> {
        (self.check)(message)
    }

    /// Decodes a message, and passes it through what is around the stream.
    pub(crate) fn receive(&self, payload: Bytes) -> Result<AnyMessage, NotTaken> {
        let message = self.catch(|| (self.decode)(payload));
        let message = message.ok_or(NotTaken::Refused)?.map_err(NotTaken::Malformed)?;
        if self.layers().is_empty() {
            return Ok(message);
        }
        let pass = || -> Result<AnyMessage, Error> {
            let message = self.layers().iter().try_fold(message, |message, layer| layer.receive(message))?;
            (self.check_received)(&message).map(|()| message)
        };
        // The error of a layer is dropped where a panic of it does no harm.
        self.catch(|| pass().ok()).flatten().ok_or(NotTaken::Refused)
    }

    /// Runs user code.
    fn catch<T>(&self, run: impl FnOnce() -> T) -> Option<T> {
        let ran = guard::catch(run);
        if ran.is_none() {
            log::panicked(self.side, "what is around a stream", Some(self.info.method()));
        }
        ran
    }
}

impl Drop for Codec {
    fn drop(&mut self) {
        for layer in self.layers.take().unwrap_or_default() {
            self.catch(|| drop(layer));
        }
    }
}

fn decode<M: Message + Default + 'static>(payload: Bytes) -> Result<AnyMessage, Error> {
    M::decode(payload)
        .map(AnyMessage::new)
        .map_err(|error| Error::from_source(ErrorCode::MalformedRequest, error))
}
