//! The protobuf encoding of the protocol's own messages.
//!
//! Each message is described once for writing and once for reading. [`Encode`] runs against a
//! counter for the length and against a buffer for the bytes. [`Decode`] fills a draft of the
//! message field by field.

use alloc::vec::Vec;

use bytes::Bytes;

use crate::error::{DecodeError, DecodeErrorKind};
use crate::text::Utf8;
use crate::{FrameLimits, Text};

/// The deepest nesting of groups in unknown fields.
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

// --- writing -------------------------------------------------------------------------------------

/// A message that can be encoded.
pub(crate) trait Encode {
    fn encode(&self, out: &mut impl Sink);

    fn encoded_len(&self) -> usize {
        let mut count = Count(0);
        self.encode(&mut count);
        count.0
    }
}

/// A destination for bytes: a buffer that stores them, or a counter of their length.
pub(crate) trait Sink {
    fn raw(&mut self, bytes: &[u8]);
    fn varint(&mut self, value: u64);

    #[inline]
    fn tag(&mut self, field: u32, wire: WireType) {
        self.varint(u64::from(tag(field, wire)));
    }

    /// Writes a varint field.
    #[inline]
    fn number(&mut self, field: u32, value: u64) {
        self.tag(field, WireType::Varint);
        self.varint(value);
    }

    /// Writes a length-delimited field, unless it is empty.
    #[inline]
    fn bytes(&mut self, field: u32, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.delimited(field, bytes);
        }
    }

    /// Writes a length-delimited field, even if it is empty.
    #[inline]
    fn delimited(&mut self, field: u32, bytes: &[u8]) {
        self.tag_and_len(field, bytes.len());
        self.raw(bytes);
    }

    /// Writes the tag and length of a length-delimited field.
    #[inline]
    fn tag_and_len(&mut self, field: u32, len: usize) {
        self.tag(field, WireType::Bytes);
        self.varint(len as u64);
    }

    /// Writes a string field, unless it is empty.
    #[inline]
    fn text(&mut self, field: u32, text: &Text) {
        match text.as_inline() {
            Some((_, 0)) => {}
            Some((bytes, len)) => {
                self.tag_and_len(field, len);
                self.inline_text(len, bytes);
            }
            None => self.bytes(field, text.as_bytes()),
        }
    }

    /// Writes the first `len` bytes of an inline text.
    #[inline]
    fn inline_text(&mut self, len: usize, bytes: &[u8; Text::INLINE]) {
        self.raw(&bytes[..len]);
    }

    /// Writes an int64 field, unless it is 0.
    #[inline]
    fn int64(&mut self, field: u32, value: i64) {
        if value != 0 {
            self.number(field, value as u64);
        }
    }

    /// Writes a bool field, unless it is `false`.
    #[inline]
    fn bool(&mut self, field: u32, value: bool) {
        if value {
            self.number(field, 1);
        }
    }

    /// Writes a float field, unless it is positive 0.
    #[inline]
    fn float(&mut self, field: u32, value: f32) {
        if value.to_bits() != 0 {
            self.tag(field, WireType::Fixed32);
            self.raw(&value.to_le_bytes());
        }
    }

    /// Writes an embedded message, even if it is empty.
    fn message(&mut self, field: u32, message: &impl Encode)
    where
        Self: Sized,
    {
        self.tag_and_len(field, message.encoded_len());
        message.encode(self);
    }
}

struct Count(usize);

impl Sink for Count {
    #[inline]
    fn raw(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }

    #[inline]
    fn varint(&mut self, value: u64) {
        self.0 += varint_len(value);
    }
}

/// Appends to a buffer that has the counted capacity. `Vec` still checks its capacity for each
/// piece, so tag and value are written as one piece where possible.
impl Sink for Vec<u8> {
    #[inline]
    fn raw(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    fn varint(&mut self, value: u64) {
        let mut rest = value;
        while rest >= 0x80 {
            self.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.push(rest as u8);
    }

    #[inline]
    fn number(&mut self, field: u32, value: u64) {
        match (tag(field, WireType::Varint), value) {
            (tag @ 0..0x80, 0..0x80) => self.extend_from_slice(&[tag as u8, value as u8]),
            // Unix times in nanoseconds take nine bytes.
            (tag @ 0..0x80, NINE_BYTES..TEN_BYTES) => {
                let mut bytes = [tag as u8; 10];
                bytes[1..9].copy_from_slice(&(spread(value) | CONTINUED).to_le_bytes());
                bytes[9] = (value >> 56) as u8;
                self.extend_from_slice(&bytes);
            }
            (tag, _) => long_tag_and_value(self, tag, value),
        }
    }

    #[inline]
    fn tag_and_len(&mut self, field: u32, len: usize) {
        match (tag(field, WireType::Bytes), len) {
            (tag @ 0..0x80, 0..0x80) => self.extend_from_slice(&[tag as u8, len as u8]),
            (tag, _) => long_tag_and_value(self, tag, len as u64),
        }
    }

    #[inline]
    fn inline_text(&mut self, len: usize, bytes: &[u8; Text::INLINE]) {
        // Appending the whole array and truncating needs no call to `memcpy`, because the length is
        // constant.
        if self.capacity() - self.len() >= bytes.len() {
            let end = self.len() + len;
            self.extend_from_slice(bytes);
            self.truncate(end);
        } else {
            self.extend_from_slice(&bytes[..len]);
        }
    }
}

/// Writes a tag and a varint of any length.
#[inline(never)]
fn long_tag_and_value(out: &mut Vec<u8>, tag: u32, value: u64) {
    out.varint(u64::from(tag));
    out.varint(value);
}

#[inline]
fn tag(field: u32, wire: WireType) -> u32 {
    field << 3 | wire as u32
}

/// Returns the length of `value` as a varint, in bytes.
#[inline]
pub(crate) fn varint_len(value: u64) -> usize {
    // Seven bits per byte, and one byte for 0. Multiplying by 9/64 gives the same result as
    // dividing by 7, up to 64 bits.
    let bits = 64 - (value | 1).leading_zeros() as usize;
    (bits * 9 + 64) / 64
}

// --- eight bytes of a varint at once -------------------------------------------------------------

/// The smallest values that take nine and ten bytes as a varint.
const NINE_BYTES: u64 = 1 << 56;
const TEN_BYTES: u64 = 1 << 63;

/// The continuation bit of each of eight bytes.
const CONTINUED: u64 = 0x8080_8080_8080_8080;

/// Spreads the low 56 bits of `value` over eight bytes, seven bits each: halves go to four bytes
/// each, quarters to two, eighths to one.
#[inline]
fn spread(value: u64) -> u64 {
    let value = value & 0x0000_0000_0fff_ffff | (value & 0x00ff_ffff_f000_0000) << 4;
    let value = value & 0x0000_3fff_0000_3fff | (value & 0x0fff_c000_0fff_c000) << 2;
    value & 0x007f_007f_007f_007f | (value & 0x3f80_3f80_3f80_3f80) << 1
}

/// Reverses [`spread`]: joins the low seven bits of each byte.
#[inline]
fn gather(bytes: u64) -> u64 {
    let value = bytes & 0x007f_007f_007f_007f | (bytes & 0x7f00_7f00_7f00_7f00) >> 1;
    let value = value & 0x0000_3fff_0000_3fff | (value & 0x3fff_0000_3fff_0000) >> 2;
    value & 0x0000_0000_0fff_ffff | (value & 0x0fff_ffff_0000_0000) >> 4
}

// --- reading -------------------------------------------------------------------------------------

/// The draft of a message, which takes its fields in any order and repeatedly.
///
/// The texts and bytes of singular fields stay slices of the frame until [`finish`](Self::finish)
/// copies or shares them, so a value that a later one replaces is never copied.
pub(crate) trait Decode<'a>: Default {
    const NAME: &'static str;

    /// The finished message.
    type Message;

    /// Reads one field, or skips it if it is unknown.
    fn field(&mut self, field: u32, wire: WireType, reader: &mut Reader<'a>) -> Result<(), WireFault>;

    /// Returns the message, with slices of `frame`. Leaves the draft empty instead of consuming it,
    /// because a draft is large to move.
    fn finish(&mut self, frame: &Bytes) -> Self::Message;
}

/// What is wrong with a field. Small, because every step of reading returns it; the location is
/// added at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WireFault {
    Truncated,
    Varint,
    Tag,
    WireType,
    NotUtf8,
    Group,
    IdTooLong,
    TooManyEntries,
    MetadataTooLong,
    TooManyDetails,
}

impl WireFault {
    fn kind(self, limits: &FrameLimits) -> DecodeErrorKind {
        let over = |limit, unit| DecodeErrorKind::OverLimit { limit, unit };
        match self {
            WireFault::Truncated => DecodeErrorKind::Truncated,
            WireFault::Varint => DecodeErrorKind::Varint,
            WireFault::Tag => DecodeErrorKind::Tag,
            WireFault::WireType => DecodeErrorKind::WireType,
            WireFault::NotUtf8 => DecodeErrorKind::NotUtf8,
            WireFault::Group => DecodeErrorKind::Group,
            WireFault::IdTooLong => over(limits.id_bytes, "bytes of an id"),
            WireFault::TooManyEntries => over(limits.metadata_entries, "entries of metadata"),
            WireFault::MetadataTooLong => over(limits.metadata_bytes, "bytes of metadata"),
            WireFault::TooManyDetails => over(limits.error_details, "error details"),
        }
    }
}

/// Reads a message from `part` of a frame.
#[inline]
pub(crate) fn read<'a, M: Decode<'a>>(
    frame: &'a Bytes,
    part: &'a [u8],
    limits: &'a FrameLimits,
) -> Result<M::Message, DecodeError> {
    let mut draft = M::default();
    match read_fields(frame, part, limits, &mut draft) {
        Ok(()) => Ok(draft.finish(frame)),
        Err(fault) => Err(fault.error(limits)),
    }
}

/// Reads the fields of a message from `part` of a frame, and merges them into `draft`.
#[inline]
fn read_fields<'a, M: Decode<'a>>(
    frame: &'a Bytes,
    part: &'a [u8],
    limits: &'a FrameLimits,
    draft: &mut M,
) -> Result<(), FieldFault> {
    let mut reader = Reader { frame, rest: part, limits, location: (M::NAME, 0) };
    while !reader.rest.is_empty() {
        reader.field(draft).map_err(|fault| FieldFault { location: reader.location, fault })?;
    }
    Ok(())
}

/// What is wrong with a message, and where.
struct FieldFault {
    location: (&'static str, u32),
    fault: WireFault,
}

impl FieldFault {
    #[cold]
    fn error(self, limits: &FrameLimits) -> DecodeError {
        let Self { location: (message, field), fault } = self;
        DecodeError { message, field, kind: fault.kind(limits) }
    }
}

/// A reader of the fields of one message in a frame.
///
/// Cold functions take a copy of the reader, or of the unread bytes, and return the rest. A reader
/// that is never borrowed elsewhere stays in registers.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    frame: &'a Bytes,
    /// The unread part of the message.
    rest: &'a [u8],
    limits: &'a FrameLimits,
    /// The current location, for errors: the message and the number of the field.
    location: (&'static str, u32),
}

impl<'a> Reader<'a> {
    #[inline]
    pub(crate) fn frame(&self) -> &'a Bytes {
        self.frame
    }

    #[inline]
    pub(crate) fn limits(&self) -> &'a FrameLimits {
        self.limits
    }

    #[inline]
    fn field<M: Decode<'a>>(&mut self, draft: &mut M) -> Result<(), WireFault> {
        self.location.1 = 0;
        let (field, wire) = self.tag()?;
        self.location.1 = field;
        draft.field(field, wire, self)
    }

    #[inline]
    fn tag(&mut self) -> Result<(u32, WireType), WireFault> {
        let tag = match self.rest {
            [byte @ 0..0x80, rest @ ..] => {
                self.rest = rest;
                u32::from(*byte)
            }
            rest => {
                let (tag, rest) = long_tag(rest)?;
                self.rest = rest;
                tag
            }
        };
        let wire = match tag & 7 {
            0 => WireType::Varint,
            1 => WireType::Fixed64,
            2 => WireType::Bytes,
            3 => WireType::StartGroup,
            4 => WireType::EndGroup,
            5 => WireType::Fixed32,
            _ => return Err(WireFault::Tag),
        };
        let field = tag >> 3;
        if field == 0 { Err(WireFault::Tag) } else { Ok((field, wire)) }
    }

    #[inline]
    fn raw_varint(&mut self) -> Result<u64, WireFault> {
        // Lengths and flags nearly always take one byte.
        match self.rest {
            [byte @ 0..0x80, rest @ ..] => {
                self.rest = rest;
                Ok(u64::from(*byte))
            }
            rest => {
                let (value, rest) = long_varint(rest)?;
                self.rest = rest;
                Ok(value)
            }
        }
    }

    #[inline]
    fn take(&mut self, len: u64) -> Result<&'a [u8], WireFault> {
        let taken = usize::try_from(len).ok().and_then(|len| self.rest.split_at_checked(len));
        let (taken, rest) = taken.ok_or(WireFault::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    fn expect(&self, wire: WireType, expected: WireType) -> Result<(), WireFault> {
        if wire == expected { Ok(()) } else { Err(WireFault::WireType) }
    }

    /// Reads the contents of a length-delimited field.
    #[inline]
    pub(crate) fn slice(&mut self, wire: WireType) -> Result<&'a [u8], WireFault> {
        self.expect(wire, WireType::Bytes)?;
        let len = self.raw_varint()?;
        self.take(len)
    }

    #[inline]
    pub(crate) fn text(&mut self, wire: WireType) -> Result<Utf8<'a>, WireFault> {
        Utf8::new(self.slice(wire)?).ok_or(WireFault::NotUtf8)
    }

    /// Reads an id and checks its length. The caller must copy the id out of the frame, whatever
    /// its length: ids outlive their frame, and must not keep it alive.
    #[inline]
    pub(crate) fn id(&mut self, wire: WireType) -> Result<Utf8<'a>, WireFault> {
        let id = self.slice(wire)?;
        if id.len() > self.limits.id_bytes {
            return Err(WireFault::IdTooLong);
        }
        Utf8::new(id).ok_or(WireFault::NotUtf8)
    }

    #[inline]
    pub(crate) fn int64(&mut self, wire: WireType) -> Result<i64, WireFault> {
        self.expect(wire, WireType::Varint)?;
        Ok(self.raw_varint()? as i64)
    }

    #[inline]
    pub(crate) fn bool(&mut self, wire: WireType) -> Result<bool, WireFault> {
        Ok(self.int64(wire)? != 0)
    }

    #[inline]
    pub(crate) fn float(&mut self, wire: WireType) -> Result<f32, WireFault> {
        self.expect(wire, WireType::Fixed32)?;
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(WireFault::Truncated)?;
        self.rest = rest;
        Ok(f32::from_le_bytes(*bytes))
    }

    /// Reads an embedded message, and merges it into `message`, which may hold an earlier
    /// occurrence.
    #[inline]
    pub(crate) fn embedded<M: Decode<'a>>(
        &mut self,
        wire: WireType,
        message: &mut M,
    ) -> Result<(), WireFault> {
        let part = self.slice(wire)?;
        read_fields(self.frame, part, self.limits, message).map_err(|fault| {
            self.location = fault.location;
            fault.fault
        })
    }

    /// Skips an unknown field.
    #[inline]
    pub(crate) fn skip(&mut self, field: u32, wire: WireType) -> Result<(), WireFault> {
        self.rest = self.after_unknown(field, wire)?;
        Ok(())
    }

    /// Returns the bytes after an unknown field.
    #[cold]
    fn after_unknown(mut self, field: u32, wire: WireType) -> Result<&'a [u8], WireFault> {
        let mut groups = Vec::new();
        let (mut field, mut wire) = (field, wire);
        loop {
            match wire {
                WireType::Varint => _ = self.raw_varint()?,
                WireType::Fixed64 => _ = self.take(8)?,
                WireType::Fixed32 => _ = self.take(4)?,
                WireType::Bytes => _ = self.slice(wire)?,
                WireType::StartGroup if groups.len() < MAX_GROUP_DEPTH => groups.push(field),
                WireType::EndGroup if groups.pop() == Some(field) => {}
                WireType::StartGroup | WireType::EndGroup => return Err(WireFault::Group),
            }
            if groups.is_empty() {
                return Ok(self.rest);
            }
            (field, wire) = self.tag()?;
        }
    }
}

/// Reads a tag of any length. Returns it and the bytes after it.
#[cold]
fn long_tag(bytes: &[u8]) -> Result<(u32, &[u8]), WireFault> {
    let (tag, rest) = long_varint(bytes)?;
    Ok((u32::try_from(tag).map_err(|_| WireFault::Tag)?, rest))
}

/// Reads a varint of any length. Returns it and the bytes after it.
#[inline(never)]
fn long_varint(bytes: &[u8]) -> Result<(u64, &[u8]), WireFault> {
    // Unix times in nanoseconds take nine bytes.
    if let Some(([eight @ .., last @ 0..0x80], rest)) = bytes.split_first_chunk::<9>() {
        let eight = u64::from_le_bytes(*eight);
        if eight & CONTINUED == CONTINUED {
            return Ok((gather(eight) | u64::from(*last) << 56, rest));
        }
    }
    let (mut value, mut shift, mut rest) = (0, 0, bytes);
    while let Some((byte, tail)) = rest.split_first() {
        // The tenth byte holds the last of the 64 bits.
        if shift == 63 && *byte > 1 {
            return Err(WireFault::Varint);
        }
        value |= u64::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            return Ok((value, tail));
        }
        (shift, rest) = (shift + 7, tail);
    }
    Err(WireFault::Truncated)
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    #[test]
    fn varint_len_is_the_written_length() {
        for shift in 0..64 {
            for value in [1u64 << shift, (1 << shift) - 1, u64::MAX >> shift] {
                let mut out = vec![];
                out.number(1, value);
                assert_eq!(out.len(), 1 + varint_len(value), "{value}");
            }
        }
    }

    #[test]
    fn varints_of_any_length_round_trip_wherever_their_frame_ends() {
        for shift in 0..64 {
            for value in [1u64 << shift, (1 << shift) - 1, u64::MAX >> shift, 0x0123_4567_89ab_cdef >> shift]
            {
                let mut out = vec![];
                out.number(1, value);
                out.remove(0);
                let len = out.len();
                for more in 0..10 {
                    let mut bytes = out.clone();
                    bytes.resize(len + more, 0xff);
                    let frame = Bytes::from(bytes);
                    let limits = FrameLimits::DEFAULT;
                    let mut reader = reader(&frame, &limits);
                    assert_eq!((reader.raw_varint(), reader.rest.len()), (Ok(value), more), "{value:#x}");
                }
                for cut in 0..len {
                    let frame = Bytes::copy_from_slice(&out[..cut]);
                    let limits = FrameLimits::DEFAULT;
                    let mut reader = reader(&frame, &limits);
                    assert_eq!(reader.raw_varint(), Err(WireFault::Truncated), "{value:#x}");
                }
            }
        }
    }

    fn reader<'a>(frame: &'a Bytes, limits: &'a FrameLimits) -> Reader<'a> {
        Reader { frame, rest: frame, limits, location: ("", 0) }
    }

    fn varint(bytes: &'static [u8]) -> Result<u64, WireFault> {
        let frame = Bytes::from_static(bytes);
        let limits = FrameLimits::DEFAULT;
        reader(&frame, &limits).raw_varint()
    }

    #[test]
    fn a_varint_has_at_most_64_bits() {
        assert_eq!(varint(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), Ok(u64::MAX));
        assert_eq!(varint(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"), Err(WireFault::Varint));
        assert_eq!(varint(b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01"), Err(WireFault::Varint));
        assert_eq!(varint(b"\x80"), Err(WireFault::Truncated));
        assert_eq!(varint(b""), Err(WireFault::Truncated));
    }
}
