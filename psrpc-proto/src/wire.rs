//! The protobuf encoding, as far as the protocol's own messages need it.
//!
//! Each message is described once for writing ([`Encode`]: run against a counter for the length, against a buffer
//! for the bytes) and once for reading ([`Decode`]: the message, or a draft of it, takes field after field).

use alloc::vec::Vec;
use core::ops::Range;

use bytes::Bytes;

use crate::{DecodeError, DecodeErrorKind, FrameLimits, Text};

/// How deep groups of unknown fields may nest.
const MAX_GROUP_DEPTH: usize = 100;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum WireType {
    Varint,
    Fixed64,
    Bytes,
    StartGroup,
    EndGroup,
    Fixed32,
}

// --- writing -----------------------------------------------------------------------------------------------------

/// A message that can be written.
pub(crate) trait Encode {
    fn encode(&self, out: &mut impl Sink);

    fn encoded_len(&self) -> usize {
        let mut count = Count(0);
        self.encode(&mut count);
        count.0
    }
}

/// Takes bytes: a buffer keeps them, a counter counts them.
pub(crate) trait Sink {
    fn raw(&mut self, bytes: &[u8]);
    fn varint(&mut self, value: u64);

    fn tag(&mut self, field: u32, wire: WireType) {
        let wire = match wire {
            WireType::Varint => 0,
            WireType::Fixed64 => 1,
            WireType::Bytes => 2,
            WireType::StartGroup => 3,
            WireType::EndGroup => 4,
            WireType::Fixed32 => 5,
        };
        self.varint(u64::from(field << 3 | wire));
    }

    /// A length-delimited field, left out when empty.
    fn bytes(&mut self, field: u32, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.delimited(field, bytes);
        }
    }

    /// A length-delimited field, written even when empty.
    fn delimited(&mut self, field: u32, bytes: &[u8]) {
        self.tag(field, WireType::Bytes);
        self.varint(bytes.len() as u64);
        self.raw(bytes);
    }

    /// A string field, left out when empty.
    fn text(&mut self, field: u32, text: &Text) {
        self.bytes(field, text.as_bytes());
    }

    /// An int64 field, left out when 0.
    fn int64(&mut self, field: u32, value: i64) {
        if value != 0 {
            self.tag(field, WireType::Varint);
            self.varint(value as u64);
        }
    }

    /// A bool field, left out when false.
    fn bool(&mut self, field: u32, value: bool) {
        if value {
            self.tag(field, WireType::Varint);
            self.varint(1);
        }
    }

    /// A float field, left out when it is (positive) 0.
    fn float(&mut self, field: u32, value: f32) {
        if value.to_bits() != 0 {
            self.tag(field, WireType::Fixed32);
            self.raw(&value.to_le_bytes());
        }
    }

    /// An embedded message, written even when empty.
    fn message(&mut self, field: u32, message: &impl Encode)
    where
        Self: Sized,
    {
        self.tag(field, WireType::Bytes);
        self.varint(message.encoded_len() as u64);
        message.encode(self);
    }
}

struct Count(usize);

impl Sink for Count {
    fn raw(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }

    fn varint(&mut self, value: u64) {
        self.0 += varint_len(value);
    }
}

impl Sink for Vec<u8> {
    fn raw(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.push(value as u8);
    }
}

/// How many bytes `value` takes as a varint.
pub(crate) fn varint_len(value: u64) -> usize {
    // 7 bits a byte, and one byte for 0.
    ((64 - (value | 1).leading_zeros()) as usize).div_ceil(7)
}

// --- reading -----------------------------------------------------------------------------------------------------

/// A message that can be read, or the draft of one: it takes the fields as they come, in any order and repeatedly.
pub(crate) trait Decode: Default {
    const NAME: &'static str;

    /// Takes one field, or skips it when it is unknown.
    fn field(&mut self, field: u32, wire: WireType, reader: &mut Reader<'_>) -> Result<(), DecodeError>;
}

/// Reads the fields of one message, which is a range of a frame.
pub(crate) struct Reader<'a> {
    frame: &'a Bytes,
    position: usize,
    end: usize,
    limits: &'a FrameLimits,
    message: &'static str,
    field: u32,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(frame: &'a Bytes, range: Range<usize>, limits: &'a FrameLimits) -> Self {
        Self { frame, position: range.start, end: range.end, limits, message: "", field: 0 }
    }

    pub(crate) fn limits(&self) -> &FrameLimits {
        self.limits
    }

    /// The error `kind`, at the field that is being read.
    pub(crate) fn error(&self, kind: DecodeErrorKind) -> DecodeError {
        DecodeError { message: self.message, field: self.field, kind }
    }

    pub(crate) fn over_limit(&self, limit: usize, unit: &'static str) -> DecodeError {
        self.error(DecodeErrorKind::OverLimit { limit, unit })
    }

    /// Reads a whole message.
    pub(crate) fn message<M: Decode>(mut self) -> Result<M, DecodeError> {
        let mut message = M::default();
        self.fields(&mut message)?;
        Ok(message)
    }

    fn fields<M: Decode>(&mut self, message: &mut M) -> Result<(), DecodeError> {
        self.message = M::NAME;
        while self.position < self.end {
            self.field = 0;
            let (field, wire) = self.tag()?;
            self.field = field;
            message.field(field, wire, self)?;
        }
        Ok(())
    }

    fn tag(&mut self) -> Result<(u32, WireType), DecodeError> {
        let tag = self.raw_varint()?;
        let wire = match tag & 7 {
            0 => WireType::Varint,
            1 => WireType::Fixed64,
            2 => WireType::Bytes,
            3 => WireType::StartGroup,
            4 => WireType::EndGroup,
            5 => WireType::Fixed32,
            _ => return Err(self.error(DecodeErrorKind::Tag)),
        };
        match u32::try_from(tag) {
            Ok(tag) if tag >> 3 != 0 => Ok((tag >> 3, wire)),
            _ => Err(self.error(DecodeErrorKind::Tag)),
        }
    }

    fn raw_varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0;
        for (index, byte) in self.frame[self.position..self.end].iter().enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                // The tenth byte holds the last bit of 64.
                if index == 9 && *byte > 1 {
                    break;
                }
                self.position += index + 1;
                return Ok(value);
            }
            if index == 9 {
                break;
            }
        }
        Err(self.error(if self.end - self.position < 10 {
            DecodeErrorKind::Truncated
        } else {
            DecodeErrorKind::Varint
        }))
    }

    fn take(&mut self, len: u64) -> Result<Range<usize>, DecodeError> {
        match usize::try_from(len) {
            Ok(len) if len <= self.end - self.position => {
                let start = self.position;
                self.position += len;
                Ok(start..self.position)
            }
            _ => Err(self.error(DecodeErrorKind::Truncated)),
        }
    }

    fn expect(&self, wire: WireType, expected: WireType) -> Result<(), DecodeError> {
        if wire == expected { Ok(()) } else { Err(self.error(DecodeErrorKind::WireType)) }
    }

    /// The range of a length-delimited field.
    pub(crate) fn range(&mut self, wire: WireType) -> Result<Range<usize>, DecodeError> {
        self.expect(wire, WireType::Bytes)?;
        let len = self.raw_varint()?;
        self.take(len)
    }

    pub(crate) fn bytes(&mut self, wire: WireType) -> Result<Bytes, DecodeError> {
        let range = self.range(wire)?;
        Ok(self.frame.slice(range))
    }

    pub(crate) fn text(&mut self, wire: WireType) -> Result<Text, DecodeError> {
        let range = self.range(wire)?;
        Text::slice(self.frame, range).map_err(|_| self.error(DecodeErrorKind::NotUtf8))
    }

    /// A text that must keep to the limit on ids.
    pub(crate) fn id(&mut self, wire: WireType) -> Result<Text, DecodeError> {
        let id = self.text(wire)?;
        match self.limits.id_bytes {
            limit if id.len() > limit => Err(self.over_limit(limit, "bytes of an id")),
            _ => Ok(id),
        }
    }

    pub(crate) fn int64(&mut self, wire: WireType) -> Result<i64, DecodeError> {
        self.expect(wire, WireType::Varint)?;
        Ok(self.raw_varint()? as i64)
    }

    pub(crate) fn bool(&mut self, wire: WireType) -> Result<bool, DecodeError> {
        Ok(self.int64(wire)? != 0)
    }

    pub(crate) fn float(&mut self, wire: WireType) -> Result<f32, DecodeError> {
        self.expect(wire, WireType::Fixed32)?;
        let range = self.take(4)?;
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&self.frame[range]);
        Ok(f32::from_le_bytes(bytes))
    }

    /// Reads an embedded message into `message`, on top of what an earlier occurrence left there.
    pub(crate) fn embedded<M: Decode>(&mut self, wire: WireType, message: &mut M) -> Result<(), DecodeError> {
        let range = self.range(wire)?;
        Reader::new(self.frame, range, self.limits).fields(message)
    }

    /// Skips a field that is not known.
    pub(crate) fn skip(&mut self, field: u32, wire: WireType) -> Result<(), DecodeError> {
        let mut groups = Vec::new();
        let (mut field, mut wire) = (field, wire);
        loop {
            match wire {
                WireType::Varint => _ = self.raw_varint()?,
                WireType::Fixed64 => _ = self.take(8)?,
                WireType::Fixed32 => _ = self.take(4)?,
                WireType::Bytes => _ = self.range(wire)?,
                WireType::StartGroup if groups.len() < MAX_GROUP_DEPTH => groups.push(field),
                WireType::EndGroup if groups.pop() == Some(field) => {}
                WireType::StartGroup | WireType::EndGroup => return Err(self.error(DecodeErrorKind::Group)),
            }
            if groups.is_empty() {
                return Ok(());
            }
            (field, wire) = self.tag()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    #[test]
    fn the_length_of_a_varint_is_what_writing_it_takes() {
        for shift in 0..64 {
            for value in [1u64 << shift, (1 << shift) - 1, u64::MAX >> shift] {
                let mut out = vec![];
                out.varint(value);
                assert_eq!(out.len(), varint_len(value), "{value}");
            }
        }
    }

    fn varint(bytes: &'static [u8]) -> Result<u64, DecodeErrorKind> {
        let frame = Bytes::from_static(bytes);
        let limits = FrameLimits::DEFAULT;
        Reader::new(&frame, 0..bytes.len(), &limits).raw_varint().map_err(|error| error.kind)
    }

    #[test]
    fn a_varint_has_at_most_64_bits() {
        assert_eq!(varint(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), Ok(u64::MAX));
        assert_eq!(varint(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"), Err(DecodeErrorKind::Varint));
        assert_eq!(varint(b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01"), Err(DecodeErrorKind::Varint));
        assert_eq!(varint(b"\x80"), Err(DecodeErrorKind::Truncated));
        assert_eq!(varint(b""), Err(DecodeErrorKind::Truncated));
    }
}
