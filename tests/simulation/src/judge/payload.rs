//! The payloads that the users of a run send to each other. Each contains the number of its
//! operation.

use bytes::Bytes;
use psrpc_engine::proto::{Metadata, Text};

/// The metadata key of an opening.
const OPENING: &str = "call";

/// The prefix of a request that its server cannot decode.
const BROKEN: &str = "broken call ";

/// The prefix of a request that its server can decode.
const SOUND: &str = "call ";

/// Returns the payload of the request of call `number`. A server can decode it only if it is
/// `sound`.
pub(crate) fn request(number: usize, sound: bool) -> Bytes {
    Bytes::from(format!("{}{number}", if sound { SOUND } else { BROKEN }))
}

/// Returns `true` if a server can decode the request.
pub(crate) fn is_sound(request: &Bytes) -> bool {
    request.starts_with(SOUND.as_bytes())
}

/// Returns the payload of a message or an update with this number.
pub(crate) fn message(number: usize) -> Bytes {
    request(number, true)
}

/// Returns the number in a payload.
pub(crate) fn number(payload: &Bytes) -> Option<usize> {
    let digits = payload.strip_prefix(SOUND.as_bytes()).or(payload.strip_prefix(BROKEN.as_bytes()))?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Returns the metadata of the opening of the stream with this number.
pub(crate) fn opening(number: usize, sound: bool) -> Metadata {
    let mut metadata = Metadata::new();
    metadata.insert(OPENING, request(number, sound).escape_ascii().to_string());
    metadata
}

/// Returns the number in the metadata of an opening.
pub(crate) fn number_of_opening(metadata: &Metadata) -> Option<usize> {
    number(&payload_of_opening(metadata)?)
}

/// Returns the payload in the metadata of an opening.
pub(crate) fn payload_of_opening(metadata: &Metadata) -> Option<Bytes> {
    let payload = metadata.get(OPENING)?;
    Some(Bytes::copy_from_slice(payload.as_bytes()))
}

/// Returns the response of a server to a request. No other response is equal.
pub(crate) fn response(request_id: &Text, server_id: &Text) -> String {
    format!("{server_id} on {request_id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_says_which_call_it_is_and_whether_it_is_sound() {
        for sound in [true, false] {
            let request = request(17, sound);
            assert_eq!((number(&request), is_sound(&request)), (Some(17), sound));
        }
        assert_eq!(number(&Bytes::from_static(b"call of nature")), None);
    }
}
