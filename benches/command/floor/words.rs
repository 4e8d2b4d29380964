//! What is said to Redis and to NATS, and what they say, to the byte.

use crate::place::Kind;

/// A key as long as those of the bus.
pub(super) fn lock_key(name: &str, number: u64) -> String {
    format!("{name}{number:0>width$}", width = 44_usize.saturating_sub(name.len()))
}

/// What is said to publish a message, and how long that is that the subscriber hears.
pub(super) fn of_message(kind: Kind, name: &str, size: usize) -> (Vec<u8>, usize) {
    let message = vec![b'x'; size];
    if kind == Kind::Nats {
        let said = [format!("PUB {name} {size}\r\n").as_bytes(), &message, b"\r\n"].concat();
        return (said, format!("MSG {name} 1 {size}\r\n").len() + size + 2);
    }
    let heard = redis_command(&[b"message", name.as_bytes(), &message]).len();
    (redis_command(&[b"PUBLISH", name.as_bytes(), &message]), heard)
}

pub(super) fn redis_command(words: &[&[u8]]) -> Vec<u8> {
    let mut command = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        command.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        command.extend_from_slice(word);
        command.extend_from_slice(b"\r\n");
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_said_and_heard_as_the_servers_have_it() {
        let (said, heard) = of_message(Kind::Redis, "there", 2);
        assert_eq!(said, b"*3\r\n$7\r\nPUBLISH\r\n$5\r\nthere\r\n$2\r\nxx\r\n");
        assert_eq!(heard, b"*3\r\n$7\r\nmessage\r\n$5\r\nthere\r\n$2\r\nxx\r\n".len());
        let (said, heard) = of_message(Kind::Nats, "there", 2);
        assert_eq!(said, b"PUB there 2\r\nxx\r\n");
        assert_eq!(heard, b"MSG there 1 2\r\nxx\r\n".len());
    }

    #[test]
    fn a_key_is_as_long_as_those_of_the_bus() {
        assert_eq!(lock_key("bench.1.0.there", 7).len(), 44);
        assert_ne!(lock_key("bench.1.0.there", 7), lock_key("bench.1.0.there", 8));
    }
}
