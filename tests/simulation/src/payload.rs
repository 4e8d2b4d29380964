//! Payloads: what the users of a run say to each other, so that it can be told who said what about which call.

use bytes::Bytes;
use psrpc_engine::proto::Text;

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

/// The number of the call.
pub(crate) fn number(question: &Bytes) -> Option<usize> {
    let digits = question.strip_prefix(SOUND.as_bytes()).or(question.strip_prefix(BROKEN.as_bytes()))?;
    std::str::from_utf8(digits).ok()?.parse().ok()
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
