//! Payloads: what the users of a run send to each other. Each names the call that it belongs to.

use bytes::Bytes;
use psrpc_engine::proto::{Metadata, Text};

/// The key of what an opening says.
const OPENING: &str = "call";

/// How a request begins that its server cannot decode.
const BROKEN: &str = "broken call ";
const SOUND: &str = "call ";

/// What the caller of call `number` sends; `sound` unless the server is to be unable to decode it.
pub(crate) fn question(number: usize, sound: bool) -> Bytes {
    Bytes::from(format!("{}{number}", if sound { SOUND } else { BROKEN }))
}

/// Whether a server can decode it.
pub(crate) fn is_sound(question: &Bytes) -> bool {
    question.starts_with(SOUND.as_bytes())
}

/// What is said on a stream by the message of this number, or to subscribers by the update of this
/// number.
pub(crate) fn news(number: usize) -> Bytes {
    question(number, true)
}

/// The number that it says.
pub(crate) fn number(said: &Bytes) -> Option<usize> {
    let digits = said.strip_prefix(SOUND.as_bytes()).or(said.strip_prefix(BROKEN.as_bytes()))?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// What is sent along with the opening of the stream of this number.
pub(crate) fn opening(number: usize, sound: bool) -> Metadata {
    let mut metadata = Metadata::new();
    metadata.insert(OPENING, question(number, sound).escape_ascii().to_string());
    metadata
}

/// The number that an opening says.
pub(crate) fn number_of_opening(metadata: &Metadata) -> Option<usize> {
    number(&said_along(metadata)?)
}

/// What an opening says.
pub(crate) fn said_along(metadata: &Metadata) -> Option<Bytes> {
    let said = metadata.get(OPENING)?;
    Some(Bytes::copy_from_slice(said.as_bytes()))
}

/// What a server answers to a request, and nobody to any other.
pub(crate) fn answer(request_id: &Text, server_id: &Text) -> String {
    format!("{server_id} on {request_id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_says_which_call_it_is_and_whether_it_is_sound() {
        for sound in [true, false] {
            let question = question(17, sound);
            assert_eq!((number(&question), is_sound(&question)), (Some(17), sound));
        }
        assert_eq!(number(&Bytes::from_static(b"call of nature")), None);
    }
}
