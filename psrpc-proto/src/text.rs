//! The UTF-8 strings of the wire, inline when short and a slice of their frame when long.

use alloc::string::String;
use core::{fmt, hash, str};

use bytes::Bytes;

/// UTF-8 text on the wire: an id, an error text, a metadata name or value.
///
/// Text of up to 23 bytes is stored inline, so ids of the usual 16 characters cost neither an
/// allocation nor a reference count. Longer text, and text from a static string, is shared between
/// clones. Longer decoded text, unless it is an id, is a slice of its frame and keeps the frame
/// alive.
#[derive(Clone)]
pub struct Text(Repr);

#[derive(Clone)]
enum Repr {
    Inline { len: u8, bytes: [u8; Text::INLINE] },
    Shared(Bytes),
}

impl Text {
    /// The longest text that is stored inline, in bytes.
    pub(crate) const INLINE: usize = 23;

    /// The empty text.
    pub const EMPTY: Text = Text(Repr::Inline { len: 0, bytes: [0; Self::INLINE] });

    /// Creates text from a static string without allocating.
    pub const fn from_static(text: &'static str) -> Self {
        Self(Repr::Shared(Bytes::from_static(text.as_bytes())))
    }

    /// Creates text from `bytes`. Long text shares them.
    ///
    /// # Errors
    ///
    /// Returns an error if `bytes` is not UTF-8.
    pub fn from_utf8(bytes: Bytes) -> Result<Self, str::Utf8Error> {
        str::from_utf8(&bytes)?;
        if bytes.len() > Self::INLINE {
            return Ok(Self(Repr::Shared(bytes)));
        }
        Ok(Self::copy(Utf8(&bytes)))
    }

    /// Creates text from `part` of a frame: copied if short, a slice of the frame if long.
    #[inline]
    pub(crate) fn slice(frame: &Bytes, part: Utf8<'_>) -> Self {
        Self::new(part.0, || frame.slice_ref(part.0))
    }

    /// Creates a copy of `text`.
    #[inline]
    pub(crate) fn copy(text: Utf8<'_>) -> Self {
        Self::new(text.0, || Bytes::copy_from_slice(text.0))
    }

    /// Creates text: an inline copy of `text` if it is short, or the shared bytes that `long`
    /// returns.
    #[inline]
    fn new(text: &[u8], long: impl FnOnce() -> Bytes) -> Self {
        if text.len() > Self::INLINE {
            return Self(Repr::Shared(long()));
        }
        let mut short = Repr::Inline { len: text.len() as u8, bytes: [0; Self::INLINE] };
        if let Repr::Inline { bytes, .. } = &mut short {
            match text.len() {
                16.. => copy_ends::<16>(text, bytes),
                8..16 => copy_ends::<8>(text, bytes),
                4..8 => copy_ends::<4>(text, bytes),
                0..4 => bytes[..text.len()].copy_from_slice(text),
            }
        }
        Self(short)
    }

    /// Returns inline text, padded with zeros, and its length.
    #[inline]
    pub(crate) fn as_inline(&self) -> Option<(&[u8; Self::INLINE], usize)> {
        match &self.0 {
            Repr::Inline { bytes, len } => Some((bytes, usize::from(*len))),
            Repr::Shared(_) => None,
        }
    }

    /// Returns the bytes of the text.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Repr::Shared(bytes) => bytes,
        }
    }

    /// Returns the text as a string slice.
    #[inline]
    pub fn as_str(&self) -> &str {
        // Checked again, because forbidding `unsafe` is worth the few instructions.
        str::from_utf8(self.as_bytes()).expect("every constructor checks for UTF-8")
    }

    /// Returns the length in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.as_bytes().len()
    }

    /// Returns `true` if the text is empty.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Bytes that are UTF-8.
#[derive(Clone, Copy, Default)]
pub(crate) struct Utf8<'a>(&'a [u8]);

impl<'a> Utf8<'a> {
    /// Returns `None` if `bytes` is not UTF-8.
    #[inline]
    pub(crate) fn new(bytes: &'a [u8]) -> Option<Self> {
        // Nearly all text is short and ASCII, which is faster to check.
        let ascii = match bytes.len() {
            16..=32 => ends_are_ascii::<16>(bytes),
            8..16 => ends_are_ascii::<8>(bytes),
            4..8 => ends_are_ascii::<4>(bytes),
            _ => false,
        };
        if ascii { Some(Self(bytes)) } else { Self::check_utf8(bytes) }
    }

    #[cold]
    fn check_utf8(bytes: &'a [u8]) -> Option<Self> {
        str::from_utf8(bytes).is_ok().then_some(Self(bytes))
    }

    #[inline]
    pub(crate) fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    #[inline]
    pub(crate) fn len(self) -> usize {
        self.0.len()
    }
}

// Text of `N` to `2 * N` bytes is two chunks of `N` bytes that may overlap. Handling those needs
// neither a function call nor a loop.

#[inline]
fn ends_are_ascii<const N: usize>(text: &[u8]) -> bool {
    match (text.first_chunk::<N>(), text.last_chunk::<N>()) {
        (Some(first), Some(last)) => first.iter().zip(last).fold(0, |all, (a, b)| all | a | b).is_ascii(),
        _ => false,
    }
}

#[inline]
fn copy_ends<const N: usize>(text: &[u8], into: &mut [u8; Text::INLINE]) {
    if let (Some(first), Some(last)) = (text.first_chunk::<N>(), text.last_chunk::<N>()) {
        into[..N].copy_from_slice(first);
        into[text.len() - N..text.len()].copy_from_slice(last);
    }
}

impl Default for Text {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl From<&str> for Text {
    #[inline]
    fn from(text: &str) -> Self {
        Self::copy(Utf8(text.as_bytes()))
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        if text.len() > Self::INLINE {
            return Self(Repr::Shared(Bytes::from(text)));
        }
        Self::from(text.as_str())
    }
}

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl PartialEq for Text {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        match (self.as_inline(), other.as_inline()) {
            // The padding is zero, so whole arrays can be compared, without a call to `memcmp`.
            (Some(inline), Some(other)) => inline == other,
            _ => self.as_bytes() == other.as_bytes(),
        }
    }
}

impl Eq for Text {}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl PartialOrd for Text {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Text {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl hash::Hash for Text {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn a_text_is_no_larger_than_the_bytes_it_may_share() {
        assert_eq!(size_of::<Text>(), size_of::<Bytes>());
    }

    #[test]
    fn short_text_is_inline_and_long_text_shares_its_frame() {
        let frame = Bytes::from_static(b"an id of 23 characters.|an id of 24 characters..");
        let short = Text::slice(&frame, Utf8::new(&frame[..23]).unwrap());
        let long = Text::slice(&frame, Utf8::new(&frame[24..48]).unwrap());
        assert!(matches!(short.0, Repr::Inline { .. }));
        assert!(matches!(long.0, Repr::Shared(_)));
        assert_eq!(long.as_bytes().as_ptr(), frame[24..].as_ptr());
        assert_eq!(short.to_string() + "|" + long.as_str(), str::from_utf8(&frame).unwrap());
    }

    #[test]
    fn equal_text_is_equal_whether_inline_or_shared() {
        assert_eq!(Text::from_static("short"), Text::from("short"));
        assert_ne!(Text::from("short"), Text::from("short\0"));
    }

    #[test]
    fn invalid_utf8_is_refused() {
        assert!(Text::from_utf8(Bytes::from_static(b"\xff")).is_err());
        assert!(Utf8::new(&"é".as_bytes()[..1]).is_none());
    }
}
