//! The lock of a queue's frame: the member of the fleet that sets it takes the frame, as in Go's
//! bus.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use redis::Cmd;
use sha2::{Digest, Sha256};

/// How long a frame stays locked, in seconds. Nobody takes a second, identical frame within that
/// time.
const SECONDS: u32 = 5;

/// Returns the key of a frame's lock: the same for all members of the fleet, which got the same
/// bytes.
pub(crate) fn key(frame: &[u8]) -> String {
    STANDARD.encode(Sha256::digest(frame))
}

/// Returns the command that takes a lock. The server answers `OK` to the member that got it.
pub(crate) fn take(key: &str) -> Cmd {
    let mut command = redis::cmd("SET");
    // Nobody reads the value, which in Go is a number.
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
        let command = take("key");
        assert_eq!(
            command.get_packed_command(),
            b"*6\r\n$3\r\nSET\r\n$3\r\nkey\r\n$1\r\n1\r\n$2\r\nEX\r\n$1\r\n5\r\n$2\r\nNX\r\n"
        );
    }
}
