//! A round-robin list of the members of a queue.

use slab::Slab;

/// The members of a queue, which take turns. Adding and removing a member and taking a turn take
/// constant time.
#[derive(Debug)]
pub struct RoundRobin<T> {
    members: Slab<Member<T>>,
    /// The key of the member whose turn it is. Meaningless if there is none.
    turn: usize,
}

#[derive(Debug)]
struct Member<T> {
    value: T,
    /// The keys of the previous and the next member.
    before: usize,
    after: usize,
}

impl<T> RoundRobin<T> {
    /// Returns a queue without members.
    pub const fn new() -> Self {
        Self { members: Slab::new(), turn: 0 }
    }

    /// Returns `true` if there are no members.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Adds a member, whose turn comes last, and returns its key.
    pub fn insert(&mut self, value: T) -> usize {
        let key = self.members.vacant_key();
        let after = if self.members.is_empty() { key } else { self.turn };
        let before = self.members.get(after).map_or(key, |member| member.before);
        self.members.insert(Member { value, before, after });
        self.members[before].after = key;
        self.members[after].before = key;
        self.turn = after;
        key
    }

    /// Removes and returns a member, or returns `None` if the key is unknown.
    pub fn remove(&mut self, key: usize) -> Option<T> {
        let Member { value, before, after } = self.members.try_remove(key)?;
        if before != key {
            self.members[before].after = after;
            self.members[after].before = before;
        }
        if self.turn == key {
            self.turn = after;
        }
        Some(value)
    }

    /// Returns the member whose turn it is, and advances to the next one.
    pub fn next_turn(&mut self) -> Option<&T> {
        let Member { value, after, .. } = self.members.get(self.turn)?;
        self.turn = *after;
        Some(value)
    }

    /// Returns an iterator over all members, in arbitrary order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.members.iter().map(|(_, member)| &member.value)
    }

    /// Removes all members, in arbitrary order.
    pub fn drain(&mut self) -> impl Iterator<Item = T> {
        self.members.drain().map(|member| member.value)
    }
}

impl<T> Default for RoundRobin<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the members in the order of their turns, once around.
    fn turns(queue: &mut RoundRobin<char>) -> String {
        (0..queue.members.len()).map(|_| *queue.next_turn().unwrap()).collect()
    }

    #[test]
    fn members_of_a_queue_take_turns_whoever_joins_and_leaves() {
        let mut queue = RoundRobin::new();
        assert!(queue.next_turn().is_none());
        let [a, b, c] = ['a', 'b', 'c'].map(|name| queue.insert(name));
        assert_eq!(turns(&mut queue), "abc");
        assert_eq!(queue.next_turn(), Some(&'a'));
        let d = queue.insert('d');
        assert_eq!(turns(&mut queue), "bcad");
        assert_eq!((queue.remove(c), queue.remove(c)), (Some('c'), None));
        assert_eq!(queue.remove(b), Some('b'), "it was its turn");
        assert_eq!(turns(&mut queue), "ad");
        assert_eq!((queue.remove(a), queue.remove(d)), (Some('a'), Some('d')));
        assert!(queue.next_turn().is_none() && queue.is_empty());
        queue.insert('e');
        assert_eq!(turns(&mut queue), "e");
    }
}
