//! The protobuf encoding, as far as the protocol's own messages need it.
//!
//! Each message is described once for writing ([`Encode`]: run against a counter for the length, against a buffer
//! for the bytes) and once for reading ([`Decode`]: the message, or a draft of it, takes field after field).

use alloc::vec::Vec;
use core::ops::Range;

use bytes::Bytes;

use crate::error::{DecodeError, DecodeErrorKind};
use crate::{FrameLimits, Text};

/// How deep groups of unknown fields may nest.
const MAX_GROUP_DEPTH: usize = 100;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum WireType {
    Varint = 0,
    Fixed64 = 1,
    Bytes = 2,
    StartGroup = 3,
    EndGroup = 4,
    Fixed32 = 5,
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

    #[inline]
    fn tag(&mut self, field: u32, wire: WireType) {
        self.varint(u64::from(field << 3 | wire as u32));
    }

    /// A length-delimited field, left out when empty.
    #[inline]
    fn bytes(&mut self, field: u32, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.delimited(field, bytes);
        }
    }

    /// A length-delimited field, written even when empty.
    #[inline]
    fn delimited(&mut self, field: u32, bytes: &[u8]) {
        self.tag(field, WireType::Bytes);
        self.varint(bytes.len() as u64);
        self.raw(bytes);
    }

    /// A string field, left out when empty.
    #[inline]
    fn text(&mut self, field: u32, text: &Text) {
        self.bytes(field, text.as_bytes());
    }

    /// An int64 field, left out when 0.
    #[inline]
    fn int64(&mut self, field: u32, value: i64) {
        if value != 0 {
            self.tag(field, WireType::Varint);
            self.varint(value as u64);
        }
    }

    /// A bool field, left out when false.
    #[inline]
    fn bool(&mut self, field: u32, value: bool) {
        if value {
            self.tag(field, WireType::Varint);
            self.varint(1);
        }
    }

    /// A float field, left out when it is (positive) 0.
    #[inline]
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

    #[inline]
    fn varint(&mut self, value: u64) {
        let mut rest = value;
        // A time, most likely: the first eight bytes at once, and one is left.
        if rest >> 56 != 0 {
            self.extend_from_slice(&(spread(rest) | CONTINUED).to_le_bytes());
            rest >>= 56;
        }
        while rest >= 0x80 {
            self.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.push(rest as u8);
    }
}

/// How many bytes `value` takes as a varint.
#[inline]
pub(crate) fn varint_len(value: u64) -> usize {
    // 7 bits a byte, and one byte for 0. Multiplied by 9/64 in place of a division by 7: the same up to 64 bits.
    let bits = 64 - (value | 1).leading_zeros() as usize;
    (bits * 9 + 64) / 64
}

// --- eight bytes of a varint at once -----------------------------------------------------------------------------

/// The bit of each of eight bytes that says that another follows.
const CONTINUED: u64 = 0x8080_8080_8080_8080;

/// The low 56 bits of `value`, seven to a byte: halves go to 4 bytes each, quarters to 2 each, eighths to 1 each.
#[inline]
fn spread(value: u64) -> u64 {
    let value = value & 0x0000_0000_0fff_ffff | (value & 0x00ff_ffff_f000_0000) << 4;
    let value = value & 0x0000_3fff_0000_3fff | (value & 0x0fff_c000_0fff_c000) << 2;
    value & 0x007f_007f_007f_007f | (value & 0x3f80_3f80_3f80_3f80) << 1
}

/// The way back: the low seven bits of each byte, next to each other.
#[inline]
fn gather(bytes: u64) -> u64 {
    let value = bytes & 0x007f_007f_007f_007f | (bytes & 0x7f00_7f00_7f00_7f00) >> 1;
    let value = value & 0x0000_3fff_0000_3fff | (value & 0x3fff_0000_3fff_0000) >> 2;
    value & 0x0000_0000_0fff_ffff | (value & 0x0fff_ffff_0000_0000) >> 4
}

// --- reading -----------------------------------------------------------------------------------------------------

/// A message that can be read, or the draft of one: it takes the fields as they come, in any order and repeatedly.
pub(crate) trait Decode: Default {
    const NAME: &'static str;

    /// Takes one field, or skips it when it is unknown.
    fn field(&mut self, field: u32, wire: WireType, reader: &mut Reader<'_>) -> Result<(), Fault>;
}

/// What is wrong with a field. Small, since it goes through every step of reading; the place is added at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Truncated,
    Varint,
    Tag,
    WireType,
    NotUtf8,
    Group,
    LongId,
    ManyEntries,
    LongMetadata,
    ManyDetails,
}

impl Fault {
    fn kind(self, limits: &FrameLimits) -> DecodeErrorKind {
        let over = |limit, unit| DecodeErrorKind::OverLimit { limit, unit };
        match self {
            Fault::Truncated => DecodeErrorKind::Truncated,
            Fault::Varint => DecodeErrorKind::Varint,
            Fault::Tag => DecodeErrorKind::Tag,
            Fault::WireType => DecodeErrorKind::WireType,
            Fault::NotUtf8 => DecodeErrorKind::NotUtf8,
            Fault::Group => DecodeErrorKind::Group,
            Fault::LongId => over(limits.id_bytes, "bytes of an id"),
            Fault::ManyEntries => over(limits.metadata_entries, "entries of metadata"),
            Fault::LongMetadata => over(limits.metadata_bytes, "bytes of metadata"),
            Fault::ManyDetails => over(limits.error_details, "error details"),
        }
    }
}

/// Reads the fields of one message, which is a range of a frame.
pub(crate) struct Reader<'a> {
    frame: &'a Bytes,
    position: usize,
    end: usize,
    limits: &'a FrameLimits,
    /// Where it is, to tell where a fault is: the message, and the number of the field.
    place: (&'static str, u32),
}

impl<'a> Reader<'a> {
    #[inline]
    pub(crate) fn new(frame: &'a Bytes, range: Range<usize>, limits: &'a FrameLimits) -> Self {
        Self { frame, position: range.start, end: range.end, limits, place: ("", 0) }
    }

    pub(crate) fn limits(&self) -> &FrameLimits {
        self.limits
    }

    /// Reads a whole message.
    #[inline]
    pub(crate) fn message<M: Decode>(mut self) -> Result<M, DecodeError> {
        let mut message = M::default();
        match self.fields(&mut message) {
            Ok(()) => Ok(message),
            Err(fault) => {
                let (message, field) = self.place;
                Err(DecodeError { message, field, kind: fault.kind(self.limits) })
            }
        }
    }

    #[inline]
    fn fields<M: Decode>(&mut self, message: &mut M) -> Result<(), Fault> {
        self.place.0 = M::NAME;
        while self.position < self.end {
            self.place.1 = 0;
            let (field, wire) = self.tag()?;
            self.place.1 = field;
            message.field(field, wire, self)?;
        }
        Ok(())
    }

    #[inline]
    fn tag(&mut self) -> Result<(u32, WireType), Fault> {
        let tag = self.raw_varint()?;
        let wire = match tag & 7 {
            0 => WireType::Varint,
            1 => WireType::Fixed64,
            2 => WireType::Bytes,
            3 => WireType::StartGroup,
            4 => WireType::EndGroup,
            5 => WireType::Fixed32,
            _ => return Err(Fault::Tag),
        };
        match u32::try_from(tag) {
            Ok(tag) if tag >> 3 != 0 => Ok((tag >> 3, wire)),
            _ => Err(Fault::Tag),
        }
    }

    #[inline]
    fn raw_varint(&mut self) -> Result<u64, Fault> {
        // Tags, lengths and flags nearly always take one byte.
        match self.frame[self.position..self.end].first() {
            Some(byte) if *byte < 0x80 => {
                self.position += 1;
                Ok(u64::from(*byte))
            }
            _ => self.long_varint(),
        }
    }

    #[inline(never)]
    fn long_varint(&mut self) -> Result<u64, Fault> {
        let bytes = &self.frame[self.position..self.end];
        let (mut value, mut read) = (0, 0);
        // A time, most likely: the first eight bytes at once, and one is left.
        if let Some(eight) = bytes.first_chunk().map(|eight| u64::from_le_bytes(*eight)) {
            if eight & CONTINUED == CONTINUED {
                (value, read) = (gather(eight), 8);
            }
        }
        while let Some(byte) = bytes.get(read) {
            value |= u64::from(byte & 0x7f) << (7 * read);
            read += 1;
            if *byte < 0x80 {
                // The tenth byte holds the last bit of 64.
                if read == 10 && *byte > 1 {
                    break;
                }
                self.position += read;
                return Ok(value);
            }
            if read == 10 {
                break;
            }
        }
        Err(if self.end - self.position < 10 { Fault::Truncated } else { Fault::Varint })
    }

    #[inline]
    fn take(&mut self, len: u64) -> Result<Range<usize>, Fault> {
        match usize::try_from(len) {
            Ok(len) if len <= self.end - self.position => {
                let start = self.position;
                self.position += len;
                Ok(start..self.position)
            }
            _ => Err(Fault::Truncated),
        }
    }

    fn expect(&self, wire: WireType, expected: WireType) -> Result<(), Fault> {
        if wire == expected { Ok(()) } else { Err(Fault::WireType) }
    }

    /// The range of a length-delimited field.
    #[inline]
    pub(crate) fn range(&mut self, wire: WireType) -> Result<Range<usize>, Fault> {
        self.expect(wire, WireType::Bytes)?;
        let len = self.raw_varint()?;
        self.take(len)
    }

    #[inline]
    pub(crate) fn bytes(&mut self, wire: WireType) -> Result<Bytes, Fault> {
        let range = self.range(wire)?;
        Ok(self.frame.slice(range))
    }

    #[inline]
    pub(crate) fn text(&mut self, wire: WireType) -> Result<Text, Fault> {
        let range = self.range(wire)?;
        Text::slice(self.frame, range).ok_or(Fault::NotUtf8)
    }

    /// A text that must keep to the limit on ids. Copied off the frame, however long: ids are remembered long after
    /// their frame is done with, and must not keep it alive.
    #[inline]
    pub(crate) fn id(&mut self, wire: WireType) -> Result<Text, Fault> {
        let range = self.range(wire)?;
        if range.len() > self.limits.id_bytes {
            return Err(Fault::LongId);
        }
        Text::copy(&self.frame[range]).ok_or(Fault::NotUtf8)
    }

    #[inline]
    pub(crate) fn int64(&mut self, wire: WireType) -> Result<i64, Fault> {
        self.expect(wire, WireType::Varint)?;
        Ok(self.raw_varint()? as i64)
    }

    pub(crate) fn bool(&mut self, wire: WireType) -> Result<bool, Fault> {
        Ok(self.int64(wire)? != 0)
    }

    pub(crate) fn float(&mut self, wire: WireType) -> Result<f32, Fault> {
        self.expect(wire, WireType::Fixed32)?;
        let range = self.take(4)?;
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&self.frame[range]);
        Ok(f32::from_le_bytes(bytes))
    }

    /// Reads an embedded message into `message`, on top of what an earlier occurrence left there.
    pub(crate) fn embedded<M: Decode>(&mut self, wire: WireType, message: &mut M) -> Result<(), Fault> {
        let range = self.range(wire)?;
        let mut embedded = Reader::new(self.frame, range, self.limits);
        embedded.fields(message).inspect_err(|_| self.place = embedded.place)
    }

    /// Skips a field that is not known.
    pub(crate) fn skip(&mut self, field: u32, wire: WireType) -> Result<(), Fault> {
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
                WireType::StartGroup | WireType::EndGroup => return Err(Fault::Group),
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

    #[test]
    fn a_varint_of_any_length_is_read_as_it_was_written_wherever_its_frame_ends() {
        for shift in 0..64 {
            for value in [1u64 << shift, (1 << shift) - 1, u64::MAX >> shift, 0x0123_4567_89ab_cdef >> shift]
            {
                let mut out = vec![];
                out.varint(value);
                let len = out.len();
                for more in 0..10 {
                    let mut bytes = out.clone();
                    bytes.resize(len + more, 0xff);
                    let frame = Bytes::from(bytes);
                    let limits = FrameLimits::DEFAULT;
                    let mut reader = Reader::new(&frame, 0..frame.len(), &limits);
                    assert_eq!((reader.raw_varint(), reader.position), (Ok(value), len), "{value:#x}");
                }
                for cut in 0..len {
                    let frame = Bytes::copy_from_slice(&out[..cut]);
                    let limits = FrameLimits::DEFAULT;
                    let mut reader = Reader::new(&frame, 0..cut, &limits);
                    assert_eq!(reader.raw_varint(), Err(Fault::Truncated), "{value:#x}");
                }
            }
        }
    }

    fn varint(bytes: &'static [u8]) -> Result<u64, Fault> {
        let frame = Bytes::from_static(bytes);
        let limits = FrameLimits::DEFAULT;
        Reader::new(&frame, 0..bytes.len(), &limits).raw_varint()
    }

    #[test]
    fn a_varint_has_at_most_64_bits() {
        assert_eq!(varint(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), Ok(u64::MAX));
        assert_eq!(varint(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"), Err(Fault::Varint));
        assert_eq!(varint(b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01"), Err(Fault::Varint));
        assert_eq!(varint(b"\x80"), Err(Fault::Truncated));
        assert_eq!(varint(b""), Err(Fault::Truncated));
    }
}
