//! The protobuf encoding, as far as the protocol's own messages need it.
//!
//! Each message is described once for writing ([`Encode`]: run against a counter for the length,
//! against a buffer for the bytes) and once for reading ([`Decode`]: a draft of the message takes
//! field after field).

use alloc::vec::Vec;

use bytes::Bytes;

use crate::error::{DecodeError, DecodeErrorKind};
use crate::text::Utf8;
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

// --- writing -------------------------------------------------------------------------------------

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
        self.varint(u64::from(tag(field, wire)));
    }

    /// A varint field.
    #[inline]
    fn number(&mut self, field: u32, value: u64) {
        self.tag(field, WireType::Varint);
        self.varint(value);
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
        self.head(field, bytes.len());
        self.raw(bytes);
    }

    /// What stands before the `len` bytes of a length-delimited field.
    #[inline]
    fn head(&mut self, field: u32, len: usize) {
        self.tag(field, WireType::Bytes);
        self.varint(len as u64);
    }

    /// A string field, left out when empty.
    #[inline]
    fn text(&mut self, field: u32, text: &Text) {
        match text.as_inline() {
            Some((_, 0)) => {}
            Some((bytes, len)) => {
                self.head(field, len);
                self.first(len, bytes);
            }
            None => self.bytes(field, text.as_bytes()),
        }
    }

    /// The first `len` of a few bytes.
    #[inline]
    fn first(&mut self, len: usize, bytes: &[u8; Text::INLINE]) {
        self.raw(&bytes[..len]);
    }

    /// An int64 field, left out when 0.
    #[inline]
    fn int64(&mut self, field: u32, value: i64) {
        if value != 0 {
            self.number(field, value as u64);
        }
    }

    /// A bool field, left out when false.
    #[inline]
    fn bool(&mut self, field: u32, value: bool) {
        if value {
            self.number(field, 1);
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
        self.head(field, message.encoded_len());
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

/// Adds to what is written, which has the room that counting found to be needed. Room is checked
/// for all the same, once for each piece: so what a field begins with, or is, is one.
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
            // A time takes nine bytes.
            (tag @ 0..0x80, NINE_BYTES..TEN_BYTES) => {
                let mut bytes = [tag as u8; 10];
                bytes[1..9].copy_from_slice(&(spread(value) | CONTINUED).to_le_bytes());
                bytes[9] = (value >> 56) as u8;
                self.extend_from_slice(&bytes);
            }
            (tag, _) => long_head(self, tag, value),
        }
    }

    #[inline]
    fn head(&mut self, field: u32, len: usize) {
        match (tag(field, WireType::Bytes), len) {
            (tag @ 0..0x80, 0..0x80) => self.extend_from_slice(&[tag as u8, len as u8]),
            (tag, _) => long_head(self, tag, len as u64),
        }
    }

    #[inline]
    fn first(&mut self, len: usize, bytes: &[u8; Text::INLINE]) {
        // To add them all and then go back, whatever the length, takes no call.
        if self.capacity() - self.len() >= bytes.len() {
            let end = self.len() + len;
            self.extend_from_slice(bytes);
            self.truncate(end);
        } else {
            self.extend_from_slice(&bytes[..len]);
        }
    }
}

/// A tag and what follows it, of any length.
#[inline(never)]
fn long_head(out: &mut Vec<u8>, tag: u32, value: u64) {
    out.varint(u64::from(tag));
    out.varint(value);
}

#[inline]
fn tag(field: u32, wire: WireType) -> u32 {
    field << 3 | wire as u32
}

/// How many bytes `value` takes as a varint.
#[inline]
pub(crate) fn varint_len(value: u64) -> usize {
    // 7 bits a byte, and one byte for 0. Multiplied by 9/64 in place of a division by 7: the same
    // up to 64 bits.
    let bits = 64 - (value | 1).leading_zeros() as usize;
    (bits * 9 + 64) / 64
}

// --- eight bytes of a varint at once -------------------------------------------------------------

/// From here on a varint takes nine bytes, and ten.
const NINE_BYTES: u64 = 1 << 56;
const TEN_BYTES: u64 = 1 << 63;

/// The bit of each of eight bytes that says that another follows.
const CONTINUED: u64 = 0x8080_8080_8080_8080;

/// The low 56 bits of `value`, seven to a byte: halves go to 4 bytes each, quarters to 2 each,
/// eighths to 1 each.
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

// --- reading -------------------------------------------------------------------------------------

/// The draft of a message that is read: it takes the fields as they come, in any order and
/// repeatedly.
///
/// Texts and bytes are parts of the frame in it, checked. What is left of them once all is read is
/// copied or shared then.
pub(crate) trait Decode<'a>: Default {
    const NAME: &'static str;

    /// The message.
    type Message;

    /// Takes one field, or skips it when it is unknown.
    fn field(&mut self, field: u32, wire: WireType, reader: &mut Reader<'a>) -> Result<(), WireFault>;

    /// The message that was read, from `frame`. Takes it out of the draft, which is large to move.
    fn finish(&mut self, frame: &Bytes) -> Self::Message;
}

/// What is wrong with a field. Small, since it goes through every step of reading; the place is
/// added at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WireFault {
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
            WireFault::LongId => over(limits.id_bytes, "bytes of an id"),
            WireFault::ManyEntries => over(limits.metadata_entries, "entries of metadata"),
            WireFault::LongMetadata => over(limits.metadata_bytes, "bytes of metadata"),
            WireFault::ManyDetails => over(limits.error_details, "error details"),
        }
    }
}

/// Reads the message that `part` of a frame is.
#[inline]
pub(crate) fn read<'a, M: Decode<'a>>(
    frame: &'a Bytes,
    part: &'a [u8],
    limits: &'a FrameLimits,
) -> Result<M::Message, DecodeError> {
    let mut draft = M::default();
    match fields(frame, part, limits, &mut draft) {
        Ok(()) => Ok(draft.finish(frame)),
        Err(refusal) => Err(refusal.error(limits)),
    }
}

/// Reads the fields of the message that `part` of a frame is, on top of what is in `draft`.
#[inline]
fn fields<'a, M: Decode<'a>>(
    frame: &'a Bytes,
    part: &'a [u8],
    limits: &'a FrameLimits,
    draft: &mut M,
) -> Result<(), Refusal> {
    let mut reader = Reader { frame, rest: part, limits, place: (M::NAME, 0) };
    while !reader.rest.is_empty() {
        reader.field(draft).map_err(|fault| Refusal { place: reader.place, fault })?;
    }
    Ok(())
}

/// What is wrong with a message, and where: the message, and the number of the field.
struct Refusal {
    place: (&'static str, u32),
    fault: WireFault,
}

impl Refusal {
    #[cold]
    fn error(self, limits: &FrameLimits) -> DecodeError {
        let Self { place: (message, field), fault } = self;
        DecodeError { message, field, kind: fault.kind(limits) }
    }
}

/// Reads the fields of one message, which is a part of a frame.
///
/// What is rarely called is called with a copy of it, or of what is left to read, and gives back
/// what it leaves over: a reader that nobody else has a reference to stays in registers.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    frame: &'a Bytes,
    /// What of the message is not read yet.
    rest: &'a [u8],
    limits: &'a FrameLimits,
    /// Where it is, to tell where a fault is: the message, and the number of the field.
    place: (&'static str, u32),
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
        self.place.1 = 0;
        let (field, wire) = self.tag()?;
        self.place.1 = field;
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

    /// What a length-delimited field holds.
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

    /// A text that must keep to the limit on ids. To be copied off the frame, however long: ids are
    /// remembered long after their frame is done with, and must not keep it alive.
    #[inline]
    pub(crate) fn id(&mut self, wire: WireType) -> Result<Utf8<'a>, WireFault> {
        let id = self.slice(wire)?;
        if id.len() > self.limits.id_bytes {
            return Err(WireFault::LongId);
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

    /// Reads an embedded message into `message`, on top of what an earlier occurrence left there.
    #[inline]
    pub(crate) fn embedded<M: Decode<'a>>(
        &mut self,
        wire: WireType,
        message: &mut M,
    ) -> Result<(), WireFault> {
        let part = self.slice(wire)?;
        fields(self.frame, part, self.limits, message).map_err(|refusal| {
            self.place = refusal.place;
            refusal.fault
        })
    }

    /// Skips a field that is not known.
    #[inline]
    pub(crate) fn skip(&mut self, field: u32, wire: WireType) -> Result<(), WireFault> {
        self.rest = self.behind(field, wire)?;
        Ok(())
    }

    /// What follows a field that is not known.
    #[cold]
    fn behind(mut self, field: u32, wire: WireType) -> Result<&'a [u8], WireFault> {
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

/// Reads a tag of any length, and gives what follows it.
#[cold]
fn long_tag(bytes: &[u8]) -> Result<(u32, &[u8]), WireFault> {
    let (tag, rest) = long_varint(bytes)?;
    Ok((u32::try_from(tag).map_err(|_| WireFault::Tag)?, rest))
}

/// Reads a varint of any length, and gives what follows it.
#[inline(never)]
fn long_varint(bytes: &[u8]) -> Result<(u64, &[u8]), WireFault> {
    // A time takes nine bytes.
    if let Some(([eight @ .., last @ 0..0x80], rest)) = bytes.split_first_chunk::<9>() {
        let eight = u64::from_le_bytes(*eight);
        if eight & CONTINUED == CONTINUED {
            return Ok((gather(eight) | u64::from(*last) << 56, rest));
        }
    }
    let (mut value, mut shift, mut rest) = (0, 0, bytes);
    while let Some((byte, behind)) = rest.split_first() {
        // The tenth byte holds the last bit of 64.
        if shift == 63 && *byte > 1 {
            return Err(WireFault::Varint);
        }
        value |= u64::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            return Ok((value, behind));
        }
        (shift, rest) = (shift + 7, behind);
    }
    Err(WireFault::Truncated)
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
                out.number(1, value);
                assert_eq!(out.len(), 1 + varint_len(value), "{value}");
            }
        }
    }

    #[test]
    fn a_varint_of_any_length_is_read_as_it_was_written_wherever_its_frame_ends() {
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
        Reader { frame, rest: frame, limits, place: ("", 0) }
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
