//! Ids: generation and validation.

use chacha20::ChaCha12Rng;
use chacha20::rand_core::{Rng, SeedableRng};

use crate::Text;
use crate::text::Utf8;

/// The 256-bit seed of an [`IdGenerator`]. Anyone who knows the seed can predict every id. Draw it
/// from the operating system or, in a simulation, derive it from the seed of the run.
pub type Seed = [u8; 32];

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const RANDOM_LEN: usize = 12;

/// Draws ids (PROTOCOL section 4). An id is a prefix that names its kind, and 12 random letters and
/// digits.
///
/// The same seed gives the same ids. The generator is a ChaCha12 stream, so ids that a peer has
/// seen do not reveal later ones.
#[derive(Debug)]
pub struct IdGenerator(ChaCha12Rng);

impl IdGenerator {
    /// Creates a generator from `seed`.
    pub fn new(seed: Seed) -> Self {
        Self(ChaCha12Rng::from_seed(seed))
    }

    /// Draws an id for a request or a stream frame: `REQ_...`.
    pub fn request(&mut self) -> Text {
        self.draw(*b"REQ_")
    }

    /// Draws an id for a stream: `STR_...`.
    pub fn stream(&mut self) -> Text {
        self.draw(*b"STR_")
    }

    /// Draws an id for a client: `CLI_...`.
    pub fn client(&mut self) -> Text {
        self.draw(*b"CLI_")
    }

    /// Draws an id for a server: `SRV_...`.
    pub fn server(&mut self) -> Text {
        self.draw(*b"SRV_")
    }

    /// Draws 64 random bits from the same stream.
    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    fn draw(&mut self, prefix: [u8; 4]) -> Text {
        let mut id = [0; 4 + RANDOM_LEN];
        id[..4].copy_from_slice(&prefix);
        for half in id[4..].chunks_exact_mut(RANDOM_LEN / 2) {
            // Treats 64 random bits as a fraction of 1. The integer part of 62 times the fraction
            // selects a letter, and the rest is the fraction for the next letter. Each choice of
            // six letters covers 2^64 / 62^6 fractions, give or take one, which is as good as
            // uniform.
            let mut fraction = self.0.next_u64();
            for letter in half {
                let product = u128::from(fraction) * ALPHABET.len() as u128;
                *letter = ALPHABET[(product >> 64) as usize];
                fraction = product as u64;
            }
        }
        Text::copy(Utf8::new(&id).expect("ids are ASCII"))
    }
}

/// The reason why an id is invalid: at least one bus cannot carry it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidId {
    /// The id is empty.
    #[error("must not be empty")]
    Empty,
    /// The id is longer than the limit.
    #[error("must not be longer than {limit} bytes")]
    TooLong {
        /// The limit, in bytes.
        limit: usize,
    },
    /// The id contains a character that would change the meaning of a NATS subject.
    #[error("must not contain {0:?}, which would change the NATS subject")]
    Character(char),
}

/// Checks that every bus can carry `id` (PROTOCOL section 2).
///
/// # Errors
///
/// Returns an error if the id is empty, longer than `limit` bytes, or contains a dot, a `*`, a `>`,
/// white space or a control character.
pub fn check_id(id: &str, limit: usize) -> Result<(), InvalidId> {
    if id.is_empty() {
        return Err(InvalidId::Empty);
    }
    if id.len() > limit {
        return Err(InvalidId::TooLong { limit });
    }
    let is_invalid = |c: &char| matches!(c, '.' | '*' | '>') || c.is_whitespace() || c.is_control();
    match id.chars().find(is_invalid) {
        Some(character) => Err(InvalidId::Character(character)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_a_prefix_and_twelve_letters_or_digits() {
        let mut ids = IdGenerator::new([7; 32]);
        for (id, prefix) in
            [(ids.request(), "REQ_"), (ids.stream(), "STR_"), (ids.client(), "CLI_"), (ids.server(), "SRV_")]
        {
            let rest = id.as_str().strip_prefix(prefix).unwrap();
            assert!(rest.len() == 12 && rest.bytes().all(|b| b.is_ascii_alphanumeric()), "{id}");
        }
    }

    #[test]
    fn the_same_seed_draws_the_same_ids_and_another_seed_others() {
        let draw = |seed| IdGenerator::new([seed; 32]).request();
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn every_letter_is_drawn_about_equally_often() {
        let mut ids = IdGenerator::new([1; 32]);
        let mut counts = [0u32; 128];
        for _ in 0..62_000 {
            for letter in &ids.request().as_bytes()[4..] {
                counts[usize::from(*letter)] += 1;
            }
        }
        for letter in ALPHABET {
            let count = counts[usize::from(*letter)];
            assert!((11_000..13_000).contains(&count), "{}: {count}", char::from(*letter));
        }
    }

    #[test]
    fn an_id_that_would_change_a_subject_is_refused_and_the_character_named() {
        assert_eq!(check_id("node_1", 256), Ok(()));
        assert_eq!(check_id("", 256), Err(InvalidId::Empty));
        assert_eq!(check_id("abc", 2), Err(InvalidId::TooLong { limit: 2 }));
        for character in ['.', '*', '>', ' ', '\n', '\u{a0}', '\u{7f}'] {
            let id = alloc::format!("a{character}b");
            assert_eq!(check_id(&id, 256), Err(InvalidId::Character(character)));
        }
    }
}
