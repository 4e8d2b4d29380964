//! The lock of a queued frame. The process that acquires it takes the frame, as in the Go bus.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use redis::Cmd;
use sha2::{Digest, Sha256};

/// The lifetime of a lock in seconds. An identical frame within that time is not taken again.
const SECONDS: u32 = 5;

/// Returns the lock key of a frame: a prefix and the digest of the frame's bytes, so it is the same
/// in every process.
pub(crate) fn key(prefix: &str, frame: &[u8]) -> String {
    let mut key = prefix.to_owned();
    STANDARD.encode_string(Sha256::digest(frame), &mut key);
    key
}

/// Returns the command that acquires a lock. The server replies `OK` if it was free.
pub(crate) fn acquire(key: &str) -> Cmd {
    let mut command = redis::cmd("SET");
    // The value is never read. Go sets a number, too.
    command.arg(key).arg(1).arg("EX").arg(SECONDS).arg("NX");
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_the_digest_in_base_64_with_padding() {
        let digest = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
        assert_eq!(key("", b""), digest);
        assert_eq!(key("ours:", b""), format!("ours:{digest}"));
    }

    #[test]
    fn the_command_is_what_go_sends() {
        let command = acquire("key");
        assert_eq!(
            command.get_packed_command(),
            b"*6\r\n$3\r\nSET\r\n$3\r\nkey\r\n$1\r\n1\r\n$2\r\nEX\r\n$1\r\n5\r\n$2\r\nNX\r\n"
        );
    }
}
