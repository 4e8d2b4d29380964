//! A message of any type, under its type's name.

use bytes::Bytes;

use crate::Text;
use crate::wire::{Decode, Encode, Fault, Reader, Sink, WireType};

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

    fn field(&mut self, field: u32, wire: WireType, reader: &mut Reader<'_>) -> Result<(), Fault> {
        match field {
            1 => self.type_url = reader.text(wire)?,
            2 => self.value = reader.bytes(wire)?,
            _ => reader.skip(field, wire)?,
        }
        Ok(())
    }
}

/// A payload in one of its two forms: the raw bytes that are sent today, or the Any that was sent before v0.3.0 and
/// counts when the raw form is absent.
#[derive(Default)]
pub(crate) enum PayloadDraft {
    #[default]
    Absent,
    Any(Bytes),
    Raw(Bytes),
}

impl PayloadDraft {
    pub(crate) fn raw(&mut self, wire: WireType, reader: &mut Reader<'_>) -> Result<(), Fault> {
        *self = Self::Raw(reader.bytes(wire)?);
        Ok(())
    }

    pub(crate) fn any(&mut self, wire: WireType, reader: &mut Reader<'_>) -> Result<(), Fault> {
        let value = match self {
            Self::Any(value) => core::mem::take(value),
            Self::Absent | Self::Raw(_) => Bytes::new(),
        };
        let mut any = Any { type_url: Text::EMPTY, value };
        reader.embedded(wire, &mut any)?;
        if !matches!(self, Self::Raw(_)) {
            *self = Self::Any(any.value);
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> Bytes {
        match self {
            Self::Absent => Bytes::new(),
            Self::Any(payload) | Self::Raw(payload) => payload,
        }
    }
}
