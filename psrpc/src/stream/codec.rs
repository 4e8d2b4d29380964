//! The way of a stream's messages between bytes and types, through what is around the stream.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use prost::Message;
use psrpc_engine::Failure;
use psrpc_engine::proto::ErrorCode;

use crate::interceptor::{StreamInterceptor, StreamLayer};
use crate::middleware::Side;
use crate::{AnyMessage, CallInfo, Error, guard};

/// What is around the messages of one stream.
pub(crate) struct Codec {
    info: CallInfo,
    side: Side,
    interceptors: Vec<Arc<dyn StreamInterceptor>>,
    layers: OnceLock<Vec<Box<dyn StreamLayer>>>,
    decode: fn(Bytes) -> Result<AnyMessage, Error>,
}

/// Why a message is not taken.
pub(crate) enum NotTaken {
    /// It does not decode, which ends the stream.
    Malformed(Error),
    /// Something around the stream does not want it.
    Refused,
}

impl Codec {
    /// What is around a stream of which messages of type `M` come in.
    pub(crate) fn new<M: Message + Default + 'static>(
        info: CallInfo,
        side: Side,
        interceptors: Vec<Arc<dyn StreamInterceptor>>,
    ) -> Self {
        Self { info, side, interceptors, layers: OnceLock::new(), decode: decode::<M> }
    }

    pub(crate) fn info(&self) -> &CallInfo {
        &self.info
    }

    /// The stream is open: what is around it comes to be. User code, and so not to be run under a lock.
    pub(crate) fn opened(&self) {
        let open = |interceptor: &Arc<dyn StreamInterceptor>| interceptor.open(&self.info, self.side);
        // An interceptor that panics is not around this stream.
        let layers = self.interceptors.iter().filter_map(|interceptor| guard::catch(|| open(interceptor)));
        let _ = self.layers.set(layers.collect());
    }

    /// What is around the stream, the outermost first.
    pub(crate) fn layers(&self) -> &[Box<dyn StreamLayer>] {
        self.layers.get().map(Vec::as_slice).unwrap_or_default()
    }

    /// Decodes a message, and passes it through what is around the stream.
    pub(crate) fn receive(&self, payload: Bytes) -> Result<AnyMessage, NotTaken> {
        let pass = || {
            let message = (self.decode)(payload).map_err(NotTaken::Malformed)?;
            self.layers()
                .iter()
                .try_fold(message, |message, layer| layer.receive(message).map_err(|_| NotTaken::Refused))
        };
        guard::catch(pass).unwrap_or(Err(NotTaken::Refused))
    }

    /// The stream has ended.
    pub(crate) fn ended(&self, cause: &Failure) {
        if self.layers().is_empty() {
            return;
        }
        let cause = Error::from(cause.clone());
        for layer in self.layers() {
            guard::catch(|| layer.closed(&cause));
        }
    }
}

fn decode<M: Message + Default + 'static>(payload: Bytes) -> Result<AnyMessage, Error> {
    M::decode(payload)
        .map(AnyMessage::new)
        .map_err(|error| Error::from_source(ErrorCode::MalformedRequest, error))
}
