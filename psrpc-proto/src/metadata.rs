//! Metadata: names and values that a caller sends with a request.

use alloc::vec::Vec;

use bytes::Bytes;

use crate::Text;
use crate::text::Utf8;
use crate::wire::{Decode, Encode, Reader, Sink, WireFault, WireType};

/// Names and values that travel with a request (PROTOCOL section 1, `Request.metadata`).
///
/// On the wire this is a protobuf map, so every name occurs once. The order of the entries is kept
/// here, but peers may not keep it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata(Vec<(Text, Text)>);

impl Metadata {
    /// Creates empty metadata without allocating.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Creates metadata from `entries`. A later entry replaces an earlier one of the same name.
    fn of(entries: Vec<(Text, Text)>) -> Self {
        let repeated = |(place, (name, _)): (usize, &(Text, Text))| {
            entries[..place].iter().any(|(earlier, _)| earlier == name)
        };
        if entries.iter().enumerate().any(repeated) {
            return entries.into_iter().collect();
        }
        Self(entries)
    }

    /// Returns the value of `name`.
    pub fn get(&self, name: &str) -> Option<&Text> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// Sets `name` to `value`, and returns the old value.
    pub fn insert(&mut self, name: impl Into<Text>, value: impl Into<Text>) -> Option<Text> {
        let (name, value) = (name.into(), value.into());
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => Some(core::mem::replace(old, value)),
            None => {
                self.0.push((name, value));
                None
            }
        }
    }

    /// Returns the entries, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Text, &Text)> {
        self.0.iter().map(|(name, value)| (name, value))
    }

    /// Returns the number of entries.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns `true` if there are no entries.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the length of all names and values together, in bytes.
    pub fn bytes(&self) -> usize {
        self.0.iter().map(|(name, value)| name.len() + value.len()).sum()
    }

    #[inline]
    pub(crate) fn encode(&self, field: u32, out: &mut impl Sink) {
        // Most requests have none.
        if !self.is_empty() {
            self.encode_entries(field, out);
        }
    }

    fn encode_entries(&self, field: u32, out: &mut impl Sink) {
        for (name, value) in &self.0 {
            out.message(field, &Entry { name, value });
        }
    }
}

/// Partially read metadata. Every entry counts against the limits, even one that a later entry
/// replaces.
#[derive(Default)]
pub(crate) struct MetadataDraft {
    entries: Vec<(Text, Text)>,
    bytes: usize,
}

impl MetadataDraft {
    /// Reads one more entry.
    #[inline]
    pub(crate) fn entry(&mut self, wire: WireType, reader: &mut Reader<'_>) -> Result<(), WireFault> {
        if self.entries.len() >= reader.limits().metadata_entries {
            return Err(WireFault::TooManyEntries);
        }
        let mut entry = EntryDraft::default();
        reader.embedded(wire, &mut entry)?;
        self.bytes += entry.name.len() + entry.value.len();
        if self.bytes > reader.limits().metadata_bytes {
            return Err(WireFault::MetadataTooLong);
        }
        self.entries.push(entry.finish(reader.frame()));
        Ok(())
    }

    #[inline]
    pub(crate) fn finish(&mut self) -> Metadata {
        let entries = core::mem::take(&mut self.entries);
        match entries.len() {
            0 | 1 => Metadata(entries),
            _ => Metadata::of(entries),
        }
    }
}

impl<N: Into<Text>, V: Into<Text>> FromIterator<(N, V)> for Metadata {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(entries: I) -> Self {
        let mut metadata = Self::new();
        for (name, value) in entries {
            metadata.insert(name, value);
        }
        metadata
    }
}

struct Entry<'a> {
    name: &'a Text,
    value: &'a Text,
}

impl Encode for Entry<'_> {
    fn encode(&self, out: &mut impl Sink) {
        // As Go writes a map: both fields, even when empty.
        out.delimited(1, self.name.as_bytes());
        out.delimited(2, self.value.as_bytes());
    }
}

#[derive(Default)]
struct EntryDraft<'a> {
    name: Utf8<'a>,
    value: Utf8<'a>,
}

impl<'a> Decode<'a> for EntryDraft<'a> {
    const NAME: &'static str = "metadata entry";
    type Message = (Text, Text);

    fn field(&mut self, field: u32, wire: WireType, reader: &mut Reader<'a>) -> Result<(), WireFault> {
        match field {
            1 => self.name = reader.text(wire)?,
            2 => self.value = reader.text(wire)?,
            _ => reader.skip(field, wire)?,
        }
        Ok(())
    }

    #[inline]
    fn finish(&mut self, frame: &Bytes) -> (Text, Text) {
        (Text::slice(frame, self.name), Text::slice(frame, self.value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_occurs_once_and_keeps_its_place() {
        let mut metadata: Metadata = [("a", "1"), ("b", "2")].into_iter().collect();
        assert_eq!(metadata.insert("a", "3"), Some(Text::from("1")));
        let entries: Vec<_> = metadata.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(entries, [("a", "3"), ("b", "2")]);
        assert_eq!(metadata.bytes(), 4);
    }
}
