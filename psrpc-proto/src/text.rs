//! Text: the UTF-8 strings of the wire, inline when short and a slice of their frame when long.

use alloc::string::String;
use core::{fmt, hash, str};

use bytes::Bytes;

/// The longest text that is kept inline.
const INLINE: usize = 23;

/// UTF-8 text as it travels: an id, an error text, a metadata key or value.
///
/// Up to 23 bytes it is kept inline, so that ids of the usual 16 characters cost neither an allocation nor a
/// reference count. Longer text is shared by clones, and is a slice of the frame it was decoded from, which it keeps
/// alive, unless it is an id.
#[derive(Clone)]
pub struct Text(Repr);

#[derive(Clone)]
enum Repr {
    Inline { len: u8, bytes: [u8; INLINE] },
    Shared(Bytes),
}

impl Text {
    /// The empty text.
    pub const EMPTY: Text = Text(Repr::Inline { len: 0, bytes: [0; INLINE] });

    /// Text that lives as long as the program; never allocates.
    pub const fn from_static(text: &'static str) -> Self {
        Self(Repr::Shared(Bytes::from_static(text.as_bytes())))
    }

    /// The text in `bytes`, which long text goes on sharing.
    ///
    /// # Errors
    ///
    /// When `bytes` is not UTF-8.
    pub fn from_utf8(bytes: Bytes) -> Result<Self, str::Utf8Error> {
        str::from_utf8(&bytes)?;
        Ok(Self::inline(&bytes).unwrap_or(Self(Repr::Shared(bytes))))
    }

    /// The text in `frame[range]`, copied when short and sliced off the frame when long; `None` if it is not UTF-8.
    #[inline]
    pub(crate) fn slice(frame: &Bytes, range: core::ops::Range<usize>) -> Option<Self> {
        let bytes = valid(&frame[range.clone()])?;
        Some(Self::inline(bytes).unwrap_or_else(|| Self(Repr::Shared(frame.slice(range)))))
    }

    /// The text in `bytes`, copied; `None` if it is not UTF-8.
    #[inline]
    pub(crate) fn copy(bytes: &[u8]) -> Option<Self> {
        let bytes = valid(bytes)?;
        Some(Self::inline(bytes).unwrap_or_else(|| Self(Repr::Shared(Bytes::copy_from_slice(bytes)))))
    }

    #[inline]
    fn inline(text: &[u8]) -> Option<Self> {
        let mut bytes = [0; INLINE];
        bytes.get_mut(..text.len())?.copy_from_slice(text);
        Some(Self(Repr::Inline { len: text.len() as u8, bytes }))
    }

    /// The text's bytes.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Repr::Shared(bytes) => bytes,
        }
    }

    /// The text.
    #[inline]
    pub fn as_str(&self) -> &str {
        // Checked again, since forbidding `unsafe` is worth more than the few instructions.
        str::from_utf8(self.as_bytes()).expect("every constructor checks for UTF-8")
    }

    /// Its length in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.as_bytes().len()
    }

    /// Whether it is empty.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Bytes that are UTF-8.
#[inline]
fn valid(bytes: &[u8]) -> Option<&[u8]> {
    // Nearly all of it is ASCII, which is quicker to see.
    (bytes.is_ascii() || str::from_utf8(bytes).is_ok()).then_some(bytes)
}

impl Default for Text {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl From<&str> for Text {
    #[inline]
    fn from(text: &str) -> Self {
        Self::inline(text.as_bytes())
            .unwrap_or_else(|| Self(Repr::Shared(Bytes::copy_from_slice(text.as_bytes()))))
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self::inline(text.as_bytes()).unwrap_or_else(|| Self(Repr::Shared(Bytes::from(text))))
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
        self.as_bytes() == other.as_bytes()
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
        let short = Text::slice(&frame, 0..23).unwrap();
        let long = Text::slice(&frame, 24..48).unwrap();
        assert!(matches!(short.0, Repr::Inline { .. }));
        assert!(matches!(long.0, Repr::Shared(_)));
        assert_eq!(long.as_bytes().as_ptr(), frame[24..].as_ptr());
        assert_eq!(short.to_string() + "|" + long.as_str(), str::from_utf8(&frame).unwrap());
    }

    #[test]
    fn equal_text_is_equal_however_it_is_kept() {
        assert_eq!(Text::from_static("short"), Text::from("short"));
    }

    #[test]
    fn what_is_not_utf8_is_no_text() {
        assert!(Text::from_utf8(Bytes::from_static(b"\xff")).is_err());
        assert!(Text::slice(&Bytes::from_static("é".as_bytes()), 0..1).is_none());
    }
}
