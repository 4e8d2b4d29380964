//! A message of any type, with the name of its type.

use bytes::Bytes;

use crate::Text;
use crate::text::Utf8;
use crate::wire::{Decode, Encode, Reader, Sink, WireFault, WireType};

/// A message of any type, with the name of its type (`google.protobuf.Any`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Any {
    /// `type.googleapis.com/` and the full protobuf name of the message.
    pub type_url: Text,
    /// The encoded message.
    pub value: Bytes,
}

impl Encode for Any {
    fn encode(&self, out: &mut impl Sink) {
        out.text(1, &self.type_url);
        out.bytes(2, &self.value);
    }
}

#[derive(Default)]
pub(crate) struct AnyDraft<'a> {
    type_url: Utf8<'a>,
    value: &'a [u8],
}

impl<'a> Decode<'a> for AnyDraft<'a> {
    const NAME: &'static str = "google.protobuf.Any";
    type Message = Any;

    fn field(&mut self, field: u32, wire: WireType, reader: &mut Reader<'a>) -> Result<(), WireFault> {
        match field {
            1 => self.type_url = reader.text(wire)?,
            2 => self.value = reader.slice(wire)?,
            _ => reader.skip(field, wire)?,
        }
        Ok(())
    }

    #[inline]
    fn finish(&mut self, frame: &Bytes) -> Any {
        Any { type_url: Text::slice(frame, self.type_url), value: frame.slice_ref(self.value) }
    }
}

/// A payload in one of its two forms: raw bytes, or the `Any` that peers sent before v0.3.0. The
/// raw form takes precedence.
#[derive(Default)]
pub(crate) enum PayloadDraft<'a> {
    #[default]
    Absent,
    Any(&'a [u8]),
    Raw(&'a [u8]),
}

impl<'a> PayloadDraft<'a> {
    #[inline]
    pub(crate) fn raw(&mut self, wire: WireType, reader: &mut Reader<'a>) -> Result<(), WireFault> {
        *self = Self::Raw(reader.slice(wire)?);
        Ok(())
    }

    #[inline]
    pub(crate) fn any(&mut self, wire: WireType, reader: &mut Reader<'a>) -> Result<(), WireFault> {
        let value = match *self {
            Self::Any(value) => value,
            Self::Absent | Self::Raw(_) => &[],
        };
        let mut any = AnyDraft { value, ..AnyDraft::default() };
        reader.embedded(wire, &mut any)?;
        if !matches!(self, Self::Raw(_)) {
            *self = Self::Any(any.value);
        }
        Ok(())
    }

    /// Returns the payload as a slice of `frame`.
    #[inline]
    pub(crate) fn finish(&self, frame: &Bytes) -> Bytes {
        match *self {
            Self::Absent => Bytes::new(),
            Self::Any(payload) | Self::Raw(payload) => frame.slice_ref(payload),
        }
    }
}
