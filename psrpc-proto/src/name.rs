//! Names: from the proto name of a service or method to its name on the wire.

use alloc::string::String;

/// The name on the wire of a service or method (PROTOCOL section 2).
///
/// Each word begins with an upper-case letter, where a word starts after an underscore or a digit.
/// The underscore goes, unless something else than a lower-case letter follows it; a leading one
/// becomes an `X`.
///
/// ```
/// # use psrpc_proto::wire_name;
/// assert_eq!(wire_name("make_2hats_v2"), "Make_2HatsV2");
/// ```
pub fn wire_name(proto_name: &str) -> String {
    let mut name = String::with_capacity(proto_name.len());
    let mut letters = proto_name.chars().peekable();
    let mut in_word = false;
    while let Some(letter) = letters.next() {
        match letter {
            '_' if name.is_empty() => name.push('X'),
            '_' if letters.peek().is_some_and(char::is_ascii_lowercase) => {}
            _ if in_word => name.push(letter),
            _ => name.push(letter.to_ascii_uppercase()),
        }
        in_word = letter.is_ascii_alphabetic();
    }
    name
}
