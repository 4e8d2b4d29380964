//! A bounded cache that evicts half of its entries at a time, without a clock or an order to
//! maintain.

use psrpc_proto::Text;

use crate::core::map::{HashKeys, Map};

/// Values by text, in a young and an old half. When the young half is full, it becomes the old
/// half, and the previous old half is evicted. Using an entry of the old half moves it to the young
/// half.
pub(crate) struct Cache<V> {
    young: Map<(Text, V)>,
    old: Map<(Text, V)>,
    half: usize,
    keys: HashKeys,
}

impl<V: Clone> Cache<V> {
    pub(crate) fn new(limit: usize, keys: HashKeys) -> Self {
        Self { young: Map::new(), old: Map::new(), half: limit.div_ceil(2), keys }
    }

    pub(crate) fn get_or_insert_with(&mut self, key: &Text, make: impl FnOnce() -> V) -> V {
        let hash = self.keys.hash(key.as_bytes());
        if let Some((_, value)) = self.young.get(hash, |(known, _)| known == key) {
            return value.clone();
        }
        if self.young.len() >= self.half {
            self.old = core::mem::replace(&mut self.young, Map::new());
        }
        let entry = self.old.remove(hash, |(known, _)| known == key);
        let entry = entry.unwrap_or_else(|| (key.clone(), make()));
        let value = entry.1.clone();
        self.young.insert(hash, entry);
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn used_values_stay_and_the_limit_holds() {
        let mut cache = Cache::new(4, HashKeys::new(1, 2));
        let mut made = 0;
        for round in 0..10 {
            for key in ["used", &alloc::format!("other {round}")] {
                cache.get_or_insert_with(&key.into(), || made += 1);
            }
            assert!(cache.young.len() + cache.old.len() <= 4);
        }
        assert_eq!(made, 1 + 10, "a value in constant use is made once");
    }
}
