//! A message of any type, under its type's name.

use bytes::Bytes;

use crate::wire::{Decode, Encode, Reader, Sink, WireType};
use crate::{DecodeError, Text};

/// A message of some type and its name (`google.protobuf.Any`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Any {
    /// `type.googleapis.com/` and the full protobuf name of the message.
    pub type_url: Text,
    /// The message, encoded.
    pub value: Bytes,
}

impl Encode for Any {
    fn encode(&self, out: &mut impl Sink) {
        out.text(1, &self.type_url);
        out.bytes(2, &self.value);
    }
}

impl Decode for Any {
    const NAME: &'static str = "google.protobuf.Any";

    fn field(&mut self, field: u32, wire: WireType, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        match field {
            1 => self.type_url = reader.text(wire)?,
            2 => self.value = reader.bytes(wire)?,
            _ => reader.skip(field, wire)?,
        }
        Ok(())
    }
}

/// A payload in one of its two forms: the raw bytes that are sent today, and the Any that was sent before v0.3.0
/// and is read when the raw form is absent.
#[derive(Default)]
pub(crate) struct PayloadDraft {
    raw: Option<Bytes>,
    any: Any,
}

impl PayloadDraft {
    pub(crate) fn raw(&mut self, wire: WireType, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        self.raw = Some(reader.bytes(wire)?);
        Ok(())
    }

    pub(crate) fn any(&mut self, wire: WireType, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        reader.embedded(wire, &mut self.any)
    }

    pub(crate) fn finish(self) -> Bytes {
        self.raw.unwrap_or(self.any.value)
    }
}
