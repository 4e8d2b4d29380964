//! Handles of entries in flight, and a slab that detects stale handles.

use slab::Slab;

use crate::core::budget::{Budget, Step};

/// The index of an entry in its slab, and the generation that distinguishes it from other entries
/// at that index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RawHandle {
    index: u32,
    generation: u32,
}

macro_rules! handles {
    ($($(#[$doc:meta])* $name:ident)*) => {
        $(
            $(#[$doc])*
            ///
            /// A handle is stale once its entry is gone, and never becomes valid again. A command
            /// with a stale handle has no effect.
            #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
            pub struct $name(pub(crate) RawHandle);

            impl $name {
                /// Returns a small number that is unique among the live handles of this type in an
                /// engine, and reused by later ones. Use it as an index into your own tables.
                pub fn index(self) -> usize {
                    self.0.index as usize
                }
            }

            impl From<RawHandle> for $name {
                fn from(handle: RawHandle) -> Self {
                    Self(handle)
                }
            }

            impl From<$name> for RawHandle {
                fn from(handle: $name) -> Self {
                    handle.0
                }
            }
        )*
    };
}

handles! {
    /// A call in flight at a [`Client`](crate::Client).
    CallHandle
    /// A multi call in flight at a [`Client`](crate::Client).
    MultiHandle
    /// A stream of a [`Client`](crate::Client) or a [`Server`](crate::Server).
    StreamHandle
    /// The send of a message on a stream.
    SendHandle
    /// A request in flight at a [`Server`](crate::Server).
    RequestHandle
    /// An update that a [`Server`](crate::Server) publishes.
    UpdateHandle
    /// The methods that a [`Server`](crate::Server) has registered together.
    RegistrationHandle
    /// A subscription of a [`Client`](crate::Client) or a [`Server`](crate::Server).
    SubscriptionHandle
}

/// A slab whose handles distinguish an entry from its successors at the same index.
pub(crate) struct Handles<T> {
    slab: Slab<(u32, T)>,
    generation: u32,
}

impl<T> Handles<T> {
    pub(crate) const fn new() -> Self {
        Self { slab: Slab::new(), generation: 0 }
    }

    /// Returns the handle that the next inserted entry will get.
    pub(crate) fn next(&self) -> RawHandle {
        let index = u32::try_from(self.slab.vacant_key()).expect("limits keep slabs far below 2^32");
        RawHandle { index, generation: self.generation }
    }

    pub(crate) fn insert(&mut self, value: T) -> RawHandle {
        let handle = self.next();
        self.slab.insert((self.generation, value));
        self.generation = self.generation.wrapping_add(1);
        handle
    }

    pub(crate) fn get(&self, handle: impl Into<RawHandle>) -> Option<&T> {
        let RawHandle { index, generation } = handle.into();
        let (current, value) = self.slab.get(index as usize)?;
        (*current == generation).then_some(value)
    }

    pub(crate) fn get_mut(&mut self, handle: impl Into<RawHandle>) -> Option<&mut T> {
        let RawHandle { index, generation } = handle.into();
        let (current, value) = self.slab.get_mut(index as usize)?;
        (*current == generation).then_some(value)
    }

    #[inline]
    pub(crate) fn remove(&mut self, handle: impl Into<RawHandle>) -> Option<T> {
        let handle = handle.into();
        self.get(handle)?;
        Some(self.slab.remove(handle.index as usize).1)
    }

    pub(crate) fn len(&self) -> usize {
        self.slab.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }

    /// Returns the next entry from `cursor` on, and advances `cursor`. The order is by index, so
    /// the same history gives the same order. Each index visited costs one.
    pub(crate) fn walk(&self, cursor: &mut usize, budget: &mut Budget) -> Step<RawHandle> {
        while *cursor < self.slab.capacity() {
            if budget.is_spent() {
                return Step::Spent;
            }
            budget.spend(1);
            let index = *cursor;
            *cursor += 1;
            if let Some((generation, _)) = self.slab.get(index) {
                return Step::Next(RawHandle { index: index as u32, generation: *generation });
            }
        }
        Step::Done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_handle_finds_nothing() {
        let mut things = Handles::new();
        let first = things.insert("first");
        assert_eq!(things.remove(first), Some("first"));
        let second = things.insert("second");
        assert_eq!(second.index, first.index);
        assert_eq!(things.get(first), None);
        assert_eq!(things.remove(first), None);
        assert_eq!(things.get(second), Some(&"second"));
    }
}
