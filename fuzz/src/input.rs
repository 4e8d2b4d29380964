//! Reads values from the input of a target. Past the end, all bytes are zero.

/// The remaining bytes of an input.
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    /// Returns `true` if no bytes remain.
    pub fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads a byte.
    pub fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or_default()
    }

    /// Reads two bytes.
    pub fn number(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// Reads eight bytes.
    pub fn long(&mut self) -> i64 {
        i64::from_le_bytes([0; 8].map(|_: u8| self.byte()))
    }

    /// Reads a byte and returns `true` if it is odd.
    pub fn flag(&mut self) -> bool {
        self.byte() % 2 == 1
    }

    /// Reads a byte and returns `true` for one in `many` values.
    pub fn one_in(&mut self, many: u8) -> bool {
        self.byte().is_multiple_of(many)
    }

    /// Picks one of `things`, or returns `None` if there are none.
    pub fn pick<T: Clone>(&mut self, things: &[T]) -> Option<T> {
        let at = usize::from(self.byte()).checked_rem(things.len())?;
        Some(things[at].clone())
    }

    /// Reads `count` bytes, or all remaining ones.
    pub fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        bytes
    }
}
