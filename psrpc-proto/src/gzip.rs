//! gzip (RFC 1952), for compressed values of envelopes.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use miniz_oxide::deflate::compress_to_vec;
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

/// The first bytes of a gzip member.
const MAGIC: [u8; 2] = [0x1f, 0x8b];

/// The header of written members: magic, deflate, no flags, no time, no extra flags, unknown
/// system.
const HEADER: [u8; 10] = [MAGIC[0], MAGIC[1], DEFLATE, 0, 0, 0, 0, 0, 0, 255];

const DEFLATE: u8 = 8;

/// The length of the trailer: the CRC-32 and the length of the uncompressed data, four bytes each.
const TRAILER: usize = 8;

/// The fastest level, because a peer waits for the frame.
const LEVEL: u8 = 1;

/// The largest initial buffer, as a multiple of the compressed length. If a value states a greater
/// length, the buffer grows only once it is full.
const EXPECTED_RATIO: usize = 16;

/// The smallest buffer after growing.
const MIN_BUFFER: usize = 32;

/// The largest number of members in a value. Known writers write one, and even an empty member
/// costs time.
const MEMBERS: usize = 16;

/// Why a value could not be decompressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GzipFault {
    Damaged,
    OverLimit,
}

/// Compresses a value.
pub(crate) fn compress(value: &[u8]) -> Vec<u8> {
    let deflated = compress_to_vec(value, LEVEL);
    let mut out = Vec::with_capacity(HEADER.len() + deflated.len() + TRAILER);
    out.extend_from_slice(&HEADER);
    out.extend_from_slice(&deflated);
    out.extend_from_slice(&crc32fast::hash(value).to_le_bytes());
    out.extend_from_slice(&length(value).to_le_bytes());
    out
}

/// Decompresses a value, one member after the other, to at most `limit` bytes. The work is linear
/// in the input and the output, whatever length the value states.
pub(crate) fn decompress_within(mut value: &[u8], limit: usize) -> Result<Vec<u8>, GzipFault> {
    if value.is_empty() {
        return Err(GzipFault::Damaged);
    }
    // The stated length may be wrong, for example if the value is truncated.
    let stated = value.last_chunk().map_or(0, |length| u32::from_le_bytes(*length) as usize);
    let mut inflater = Inflater::new(stated.min(EXPECTED_RATIO * value.len()), limit);
    for _ in 0..MEMBERS {
        if value.is_empty() {
            break;
        }
        let (member, rest) = inflater.inflate(after_header(value)?)?;
        let (crc, rest) = rest.split_first_chunk().ok_or(GzipFault::Damaged)?;
        let (len, rest) = rest.split_first_chunk().ok_or(GzipFault::Damaged)?;
        if u32::from_le_bytes(*crc) != crc32fast::hash(member) || u32::from_le_bytes(*len) != length(member) {
            return Err(GzipFault::Damaged);
        }
        value = rest;
    }
    if value.is_empty() { Ok(inflater.finish()) } else { Err(GzipFault::Damaged) }
}

/// Returns a length as in the trailer, modulo 2^32.
fn length(value: &[u8]) -> u32 {
    value.len() as u32
}

/// Returns the bytes after the header of a member.
fn after_header(member: &[u8]) -> Result<&[u8], GzipFault> {
    const CRC: u8 = 1 << 1;
    const EXTRA: u8 = 1 << 2;
    const NAME: u8 = 1 << 3;
    const COMMENT: u8 = 1 << 4;
    const RESERVED: u8 = 0b1110_0000;
    let (header, mut rest) = member.split_first_chunk::<{ HEADER.len() }>().ok_or(GzipFault::Damaged)?;
    let flags = header[3];
    if !header.starts_with(&MAGIC) || header[2] != DEFLATE || flags & RESERVED != 0 {
        return Err(GzipFault::Damaged);
    }
    if flags & EXTRA != 0 {
        let (len, extra) = rest.split_first_chunk().ok_or(GzipFault::Damaged)?;
        rest = extra.get(usize::from(u16::from_le_bytes(*len))..).ok_or(GzipFault::Damaged)?;
    }
    for text in [NAME, COMMENT] {
        if flags & text != 0 {
            let end = rest.iter().position(|byte| *byte == 0).ok_or(GzipFault::Damaged)?;
            rest = &rest[end + 1..];
        }
    }
    if flags & CRC != 0 {
        let before = &member[..member.len() - rest.len()];
        let (crc, after) = rest.split_first_chunk().ok_or(GzipFault::Damaged)?;
        if u16::from_le_bytes(*crc) != crc32fast::hash(before) as u16 {
            return Err(GzipFault::Damaged);
        }
        rest = after;
    }
    Ok(rest)
}

/// Inflates members one after the other into one buffer.
struct Inflater {
    state: Box<DecompressorOxide>,
    /// The inflated data, followed by zeros. It never shrinks, so no byte is zeroed twice.
    buffer: Vec<u8>,
    /// The length of the inflated data.
    end: usize,
    limit: usize,
}

impl Inflater {
    fn new(buffer: usize, limit: usize) -> Self {
        Inflater { state: Box::default(), buffer: vec![0; buffer.min(limit)], end: 0, limit }
    }

    /// Inflates the member at the start of `deflated`. Returns its data and the bytes after it.
    fn inflate<'a>(&mut self, mut deflated: &'a [u8]) -> Result<(&[u8], &'a [u8]), GzipFault> {
        self.state.init();
        let start = self.end;
        loop {
            // A member does not refer to data before itself.
            let (buffer, at) = (&mut self.buffer[start..], self.end - start);
            let flags = TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
            let (status, read, written) = decompress(&mut self.state, deflated, buffer, at, flags);
            deflated = &deflated[read..];
            self.end += written;
            match status {
                TINFLStatus::Done => return Ok((&self.buffer[start..self.end], deflated)),
                TINFLStatus::HasMoreOutput if self.end < self.limit => self.grow(),
                TINFLStatus::HasMoreOutput => return Err(GzipFault::OverLimit),
                _ => return Err(GzipFault::Damaged),
            }
        }
    }

    /// Doubles the full buffer, up to the limit.
    fn grow(&mut self) {
        self.buffer.resize((2 * self.buffer.len()).max(MIN_BUFFER).min(self.limit), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.buffer.truncate(self.end);
        self.buffer
    }
}

#[cfg(test)]
mod tests {
    use std::format;
    use std::io::Write;
    use std::prelude::rust_2024::*;

    use flate2::GzBuilder;
    use proptest::prelude::*;

    use super::*;

    extern crate std;

    /// The shortest possible empty member.
    const EMPTY: [u8; 20] = [0x1f, 0x8b, DEFLATE, 0, 0, 0, 0, 0, 0, 255, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0];

    fn text(lines: usize) -> Vec<u8> {
        (0..lines).flat_map(|line| format!("hat {line} is {} inches\n", line % 7).into_bytes()).collect()
    }

    /// Compresses with another implementation.
    fn foreign(builder: GzBuilder, value: &[u8]) -> Vec<u8> {
        let mut writer = builder.write(Vec::new(), flate2::Compression::best());
        writer.write_all(value).unwrap();
        writer.finish().unwrap()
    }

    #[test]
    fn values_of_other_writers_are_read_with_any_header() {
        let value = text(1000);
        for (extra, name, comment) in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1)] {
            let mut builder = GzBuilder::new().mtime(77).operating_system(3);
            if extra == 1 {
                builder = builder.extra(vec![0; 300]);
            }
            if name == 1 {
                builder = builder.filename("hats.txt");
            }
            if comment == 1 {
                builder = builder.comment("of wool");
            }
            let gzip = foreign(builder, &value);
            assert_eq!(decompress_within(&gzip, value.len()).as_ref(), Ok(&value));
        }
    }

    #[test]
    fn the_crc_of_a_header_is_checked() {
        let mut gzip = compress(b"hat");
        gzip[3] |= 1 << 1;
        let crc = crc32fast::hash(&gzip[..HEADER.len()]) as u16;
        gzip.splice(HEADER.len()..HEADER.len(), crc.to_le_bytes());
        assert_eq!(decompress_within(&gzip, 3).unwrap(), b"hat");
        gzip[HEADER.len()] ^= 1;
        assert_eq!(decompress_within(&gzip, 3), Err(GzipFault::Damaged));
    }

    #[test]
    fn members_follow_each_other_and_nothing_else_does() {
        let mut gzip = [compress(b"one "), foreign(GzBuilder::new(), b"two "), compress(b"")].concat();
        assert_eq!(decompress_within(&gzip, 8).unwrap(), b"one two ");
        assert_eq!(decompress_within(&gzip, 7), Err(GzipFault::OverLimit));
        gzip.push(0);
        assert_eq!(decompress_within(&gzip, 8), Err(GzipFault::Damaged));
    }

    #[test]
    fn a_limit_is_exact() {
        for len in [0, 1, 31, 32, 33, 64, 65, 4096, 100_000] {
            for value in [vec![7; len], text(10_000)[..len].to_vec()] {
                let gzip = compress(&value);
                assert_eq!(decompress_within(&gzip, len).as_ref(), Ok(&value), "{len}");
                assert_eq!(decompress_within(&gzip, len + 1).as_ref(), Ok(&value), "{len}");
                if len > 0 {
                    assert_eq!(decompress_within(&gzip, len - 1), Err(GzipFault::OverLimit), "{len}");
                }
            }
        }
    }

    #[test]
    fn a_false_length_allocates_nothing() {
        let mut gzip = compress(&text(1000));
        let len = gzip.len();
        gzip[len - 4..].copy_from_slice(&1_000_000_000_u32.to_le_bytes());
        assert_eq!(decompress_within(&gzip, usize::MAX), Err(GzipFault::Damaged));
    }

    #[test]
    fn the_number_of_members_is_limited() {
        let members = |n| compress(b"hat").repeat(n);
        assert_eq!(decompress_within(&members(MEMBERS), 1000).unwrap(), b"hat".repeat(MEMBERS));
        assert_eq!(decompress_within(&members(MEMBERS + 1), 1000), Err(GzipFault::Damaged));
    }

    #[test]
    fn many_empty_members_before_a_false_length_are_refused() {
        let limit = 16 << 20;
        let lie = [vec![0; 1 << 20], vec![255; 4]].concat();
        let empty = EMPTY.repeat((limit - lie.len()) / EMPTY.len());
        assert_eq!(decompress_within(&[empty, lie].concat(), limit), Err(GzipFault::Damaged));
    }

    #[test]
    fn members_share_a_buffer_that_grows_only_when_full() {
        let limit = 100_000;
        for first in [0, 1, 1000, limit, usize::MAX] {
            let mut inflater = Inflater::new(first, limit);
            let value = text(100);
            let mut before = first.min(limit);
            assert_eq!(inflater.buffer.len(), before);
            for deflated in [&[3, 0][..], &compress_to_vec(&value, LEVEL)].repeat(20) {
                inflater.inflate(deflated).unwrap();
                let buffer = inflater.buffer.len();
                assert!(buffer >= before, "{buffer} after {before}: freed space would be zeroed again");
                assert!(buffer == before || buffer <= (2 * inflater.end).max(MIN_BUFFER), "{buffer}");
                before = buffer;
            }
            assert_eq!(inflater.finish(), value.repeat(20));
        }
    }

    #[test]
    fn the_buffer_stops_at_the_limit() {
        let mut inflater = Inflater::new(0, 1000);
        assert_eq!(inflater.inflate(&compress_to_vec(&text(1000), LEVEL)), Err(GzipFault::OverLimit));
        assert_eq!(inflater.buffer.len(), 1000);
        assert!(inflater.buffer.capacity() <= 2000);
    }

    #[test]
    fn truncated_values_are_refused() {
        let gzip = compress(&text(20));
        for len in 0..gzip.len() {
            let read = decompress_within(&gzip[..len], usize::MAX);
            assert!(read.is_err(), "{len}: {read:?}");
        }
    }

    proptest! {
        #[test]
        fn compressed_values_are_read_here_and_by_flate2(value in proptest::collection::vec(0..4_u8, 0..5_000)) {
            let gzip = compress(&value);
            prop_assert_eq!(decompress_within(&gzip, value.len()), Ok(value.clone()));
            let mut read = Vec::new();
            std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&gzip[..]), &mut read).unwrap();
            prop_assert_eq!(read, value);
        }

        #[test]
        fn random_bytes_never_panic_nor_go_over_the_limit(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            header in any::<bool>(),
        ) {
            let start = if header { &HEADER[..] } else { &MAGIC };
            if let Ok(out) = decompress_within(&[start, &bytes].concat(), 100) {
                prop_assert!(out.len() <= 100);
            }
        }
    }

    #[test]
    fn one_damaged_byte_never_changes_a_value() {
        let value = text(20);
        let gzip = compress(&value);
        let deflated = HEADER.len()..gzip.len() - TRAILER;
        for at in 0..gzip.len() {
            for damage in 1..=u8::MAX {
                let mut damaged = gzip.clone();
                damaged[at] ^= damage;
                let read = decompress_within(&damaged, 10_000);
                // Some header bytes have no effect, and the same value can be deflated in more than
                // one way.
                let allowed = match &read {
                    Ok(read) => *read == value && (3..deflated.end).contains(&at),
                    Err(_) => !(4..deflated.start).contains(&at),
                };
                assert!(allowed, "{damage:#x} at {at}: {read:?}");
            }
        }
    }
}
