//! A type-erased message, for interceptors and hooks.

use std::any::{Any, type_name};
use std::fmt;
use std::sync::Arc;

use prost::Message;
use psrpc_engine::proto::ErrorCode;

use crate::error::Error;

/// A protobuf message of any type, for interceptors and hooks. Cheap to clone; all clones share one
/// message.
///
/// ```
/// use psrpc::AnyMessage;
///
/// let message = AnyMessage::new("a hat".to_owned());
/// assert_eq!(message.downcast_ref::<String>().unwrap(), "a hat");
/// assert!(!message.is::<u32>());
/// ```
#[derive(Clone)]
pub struct AnyMessage(Arc<dyn Erased>);

trait Erased: Any + Send + Sync {
    fn type_name(&self) -> &'static str;
    fn encoded_len(&self) -> usize;
    fn encode_to_vec(&self) -> Vec<u8>;
}

impl<M: Message + 'static> Erased for M {
    fn type_name(&self) -> &'static str {
        type_name::<M>()
    }

    fn encoded_len(&self) -> usize {
        Message::encoded_len(self)
    }

    fn encode_to_vec(&self) -> Vec<u8> {
        Message::encode_to_vec(self)
    }
}

impl AnyMessage {
    /// Wraps a message.
    pub fn new(message: impl Message + 'static) -> Self {
        Self(Arc::new(message))
    }

    /// Returns `true` if the message is a `T`.
    pub fn is<T: 'static>(&self) -> bool {
        self.as_any().is::<T>()
    }

    /// Returns a reference to the message if it is a `T`.
    pub fn downcast_ref<T: 'static>(&self) -> Option<&T> {
        self.as_any().downcast_ref()
    }

    /// Returns the message by value. If there are other clones, copies it by encoding and decoding.
    ///
    /// # Errors
    ///
    /// Returns `internal` if the message is not a `T`.
    pub fn into_message<T: Message + Default + 'static>(self) -> Result<T, Error> {
        self.expect::<T>()?;
        let message: Arc<dyn Any + Send + Sync> = self.0;
        let message = message.downcast::<T>().expect("the type was checked");
        Arc::try_unwrap(message).or_else(|shared| {
            T::decode(&*Message::encode_to_vec(&*shared))
                .map_err(|error| Error::from_source(ErrorCode::Internal, error))
        })
    }

    /// Returns the length of the encoded message, in bytes.
    pub fn encoded_len(&self) -> usize {
        self.0.encoded_len()
    }

    /// Encodes the message.
    pub fn encode_to_vec(&self) -> Vec<u8> {
        self.0.encode_to_vec()
    }

    /// Returns the name of the Rust type, for diagnostics.
    pub fn type_name(&self) -> &'static str {
        // Dereferences explicitly, since `Arc<dyn Erased>` is not a message itself.
        (*self.0).type_name()
    }

    /// Returns an `internal` error unless the message is a `T`.
    pub(crate) fn expect<T: 'static>(&self) -> Result<(), Error> {
        if self.is::<T>() {
            return Ok(());
        }
        let text = format!("the message is of the type {}, not {}", self.type_name(), type_name::<T>());
        Err(Error::new(ErrorCode::Internal, text))
    }

    fn as_any(&self) -> &dyn Any {
        &*self.0
    }
}

impl fmt::Debug for AnyMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AnyMessage({}, {} bytes)", self.type_name(), self.encoded_len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_comes_back_whether_it_is_shared_or_not() {
        let message = AnyMessage::new("a hat".to_owned());
        assert_eq!(message.encoded_len(), message.encode_to_vec().len());
        let shared = message.clone();
        assert_eq!(message.into_message::<String>().unwrap(), "a hat");
        let place = shared.downcast_ref::<String>().unwrap().as_ptr();
        let moved = shared.into_message::<String>().unwrap();
        assert_eq!((moved.as_str(), moved.as_ptr()), ("a hat", place));
    }

    #[test]
    fn a_message_is_no_other_than_it_is() {
        let message = AnyMessage::new(7_u32);
        assert!(message.is::<u32>() && !message.is::<String>() && message.downcast_ref::<String>().is_none());
        assert_eq!(format!("{message:?}"), "AnyMessage(u32, 2 bytes)");
        let error = message.into_message::<String>().unwrap_err();
        assert_eq!(error.code(), &ErrorCode::Internal);
        assert_eq!(error.text(), "the message is of the type u32, not alloc::string::String");
    }
}
