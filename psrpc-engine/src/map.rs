//! Hash tables that cannot be iterated, keyed from the engine's seed.
//!
//! Iteration would let the order of a hash table leak into the output, and an unkeyed hash would let a peer craft
//! ids that collide.

use core::hash::Hasher;

use hashbrown::HashTable;
use siphasher::{sip::SipHasher13, sip128};

/// The keys of every hash of one engine.
#[derive(Clone, Copy)]
pub(crate) struct HashKeys {
    pub(crate) first: u64,
    pub(crate) second: u64,
}

impl HashKeys {
    /// A hash to find something in a [`Map`] by.
    pub(crate) fn hash(&self, key: &[u8]) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(self.first, self.second);
        hasher.write(key);
        hasher.finish()
    }

    /// A hash that stands for `(first, second)` itself.
    pub(crate) fn identity(&self, first: &[u8], second: &[u8]) -> u128 {
        let mut hasher = sip128::SipHasher13::new_with_keys(self.first, self.second);
        // The length keeps ("ab", "c") from ("a", "bc").
        hasher.write_u64(first.len() as u64);
        hasher.write(first);
        hasher.write(second);
        sip128::Hasher128::finish128(&hasher).as_u128()
    }
}

/// Values found by the hash of their key and a test for the key itself, which is kept elsewhere.
pub(crate) struct Map<V>(HashTable<(u64, V)>);

impl<V> Map<V> {
    pub(crate) const fn new() -> Self {
        Self(HashTable::new())
    }

    pub(crate) fn get(&self, hash: u64, mut is_it: impl FnMut(&V) -> bool) -> Option<&V> {
        self.0.find(hash, |(known, value)| *known == hash && is_it(value)).map(|(_, value)| value)
    }

    pub(crate) fn get_mut(&mut self, hash: u64, mut is_it: impl FnMut(&V) -> bool) -> Option<&mut V> {
        self.0.find_mut(hash, |(known, value)| *known == hash && is_it(value)).map(|(_, value)| value)
    }

    /// Inserts a value whose key is not in the map yet.
    pub(crate) fn insert(&mut self, hash: u64, value: V) {
        self.0.insert_unique(hash, (hash, value), |(hash, _)| *hash);
    }

    pub(crate) fn remove(&mut self, hash: u64, mut is_it: impl FnMut(&V) -> bool) -> Option<V> {
        let entry = self.0.find_entry(hash, |(known, value)| *known == hash && is_it(value)).ok()?;
        Some(entry.remove().0.1)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

/// Identities, each of which is in the set or is not.
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

    /// Gives back room, if most of it is unused.
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

    const KEYS: HashKeys = HashKeys { first: 1, second: 2 };

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
        assert_ne!(KEYS.identity(b"ab", b"c"), KEYS.identity(b"a", b"bc"));
        let others = HashKeys { first: 1, second: 3 };
        assert_ne!(KEYS.identity(b"ab", b"c"), others.identity(b"ab", b"c"));
        assert_ne!(KEYS.hash(b"ab"), others.hash(b"ab"));
    }
}
