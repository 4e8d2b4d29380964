//! The lock of a queued frame. The process that acquires it takes the frame, as in the Go bus.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use redis::Cmd;
use sha2::{Digest, Sha256};

/// The lifetime of a lock in seconds. An identical frame within that time is not taken again.
const SECONDS: u32 = 5;

/// Returns the lock key of a frame: the digest of its bytes, so it is the same in every process.
pub(crate) fn key(frame: &[u8]) -> String {
    STANDARD.encode(Sha256::digest(frame))
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
        assert_eq!(key(b""), "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
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
