//! Hash tables without iteration, keyed from the engine's seed.
//!
//! Iteration would leak the order of a hash table into the outputs, and an unkeyed hash would let a
//! peer craft colliding ids.

use core::hash::Hasher;

use foldhash::SharedSeed;
use foldhash::quality::FoldHasher;
use hashbrown::HashTable;
use psrpc_proto::IdGenerator;
use siphasher::sip128::{Hasher128, SipHasher13};

/// The hash keys of one engine.
#[derive(Clone)]
pub(crate) struct HashKeys {
    first: u64,
    second: u64,
    shared: SharedSeed,
}

impl HashKeys {
    pub(crate) fn new(first: u64, second: u64) -> Self {
        Self { first, second, shared: SharedSeed::from_u64(first ^ second.rotate_left(32)) }
    }

    /// Draws secret keys.
    pub(crate) fn draw(bits: &mut IdGenerator) -> Self {
        Self::new(bits.bits(), bits.bits())
    }

    /// Returns a fast hash for a [`Map`], which also compares the keys themselves.
    #[inline]
    pub(crate) fn hash(&self, key: &[u8]) -> u64 {
        let mut hasher = FoldHasher::with_seed(self.first, &self.shared);
        hasher.write(key);
        hasher.finish()
    }

    /// Returns a hash that stands for the pair itself, so peers must not be able to find another
    /// pair with the same hash.
    pub(crate) fn identity(&self, first: &[u8], second: &[u8]) -> u128 {
        let mut hasher = SipHasher13::new_with_keys(self.first, self.second);
        // The length tells ("ab", "c") from ("a", "bc").
        hasher.write_u64(first.len() as u64);
        hasher.write(first);
        hasher.write(second);
        hasher.finish128().as_u128()
    }
}

/// A table of values, found by the hash of their key and a closure that compares the key. The table
/// itself stores no keys.
pub(crate) struct Map<V>(HashTable<(u64, V)>);

impl<V> Map<V> {
    pub(crate) const fn new() -> Self {
        Self(HashTable::new())
    }

    pub(crate) fn get(&self, hash: u64, mut matches: impl FnMut(&V) -> bool) -> Option<&V> {
        self.0.find(hash, |(known, value)| *known == hash && matches(value)).map(|(_, value)| value)
    }

    /// Inserts a value without replacing others with the same hash.
    pub(crate) fn insert(&mut self, hash: u64, value: V) {
        self.0.insert_unique(hash, (hash, value), |(hash, _)| *hash);
    }

    pub(crate) fn remove(&mut self, hash: u64, mut matches: impl FnMut(&V) -> bool) -> Option<V> {
        let entry = self.0.find_entry(hash, |(known, value)| *known == hash && matches(value)).ok()?;
        Some(entry.remove().0.1)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A set of identities.
pub(crate) struct IdentitySet(HashTable<u128>);

impl IdentitySet {
    pub(crate) const fn new() -> Self {
        Self(HashTable::new())
    }

    pub(crate) fn contains(&self, identity: u128) -> bool {
        self.0.find(identity as u64, |known| *known == identity).is_some()
    }

    /// Inserts an identity that is not in the set yet.
    pub(crate) fn insert(&mut self, identity: u128) {
        self.0.insert_unique(identity as u64, identity, |known| *known as u64);
    }

    pub(crate) fn remove(&mut self, identity: u128) {
        if let Ok(entry) = self.0.find_entry(identity as u64, |known| *known == identity) {
            entry.remove();
        }
    }

    /// Shrinks the table if most of its capacity is unused.
    pub(crate) fn shrink(&mut self) {
        if self.0.capacity() > 4 * self.0.len() {
            self.0.shrink_to(2 * self.0.len(), |known| *known as u64);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_hashes_are_told_apart_by_their_keys() {
        let mut map = Map::new();
        map.insert(7, "one");
        map.insert(7, "two");
        assert_eq!(map.get(7, |value| *value == "two"), Some(&"two"));
        assert_eq!(map.remove(7, |value| *value == "one"), Some("one"));
        assert_eq!(map.get(7, |value| *value == "one"), None);
        assert_eq!(map.len(), 1);
    }

    #[test]
    fn an_identity_depends_on_where_its_parts_end_and_on_the_keys() {
        let (keys, others) = (HashKeys::new(1, 2), HashKeys::new(1, 3));
        assert_ne!(keys.identity(b"ab", b"c"), keys.identity(b"a", b"bc"));
        assert_ne!(keys.identity(b"ab", b"c"), others.identity(b"ab", b"c"));
        assert_ne!(keys.hash(b"ab"), others.hash(b"ab"));
    }
}
