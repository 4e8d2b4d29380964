//! Wire names of services and methods.

use alloc::string::String;

/// Converts the proto name of a service or method to its name on the wire (PROTOCOL section 2).
///
/// A word starts at the beginning and after an underscore or a digit, and its first letter becomes
/// upper case. An underscore is removed if a lower-case letter follows it, and kept otherwise; a
/// leading underscore becomes `X`.
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
