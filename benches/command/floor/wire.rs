//! The bytes of messages in the protocols of Redis and NATS.

use crate::place::Kind;

/// Returns a key with the length of the bus's keys.
pub(super) fn lock_key(name: &str, number: u64) -> String {
    format!("{name}{number:0>width$}", width = 44_usize.saturating_sub(name.len()))
}

/// Returns the bytes that publish a message, and the number of bytes that a subscriber receives.
pub(super) fn message(kind: Kind, name: &str, size: usize) -> (Vec<u8>, usize) {
    let payload = vec![b'x'; size];
    if kind == Kind::Nats {
        let sent = [format!("PUB {name} {size}\r\n").as_bytes(), &payload, b"\r\n"].concat();
        return (sent, format!("MSG {name} 1 {size}\r\n").len() + size + 2);
    }
    let received = redis_command(&[b"message", name.as_bytes(), &payload]).len();
    (redis_command(&[b"PUBLISH", name.as_bytes(), &payload]), received)
}

pub(super) fn redis_command(arguments: &[&[u8]]) -> Vec<u8> {
    let mut command = format!("*{}\r\n", arguments.len()).into_bytes();
    for argument in arguments {
        command.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        command.extend_from_slice(argument);
        command.extend_from_slice(b"\r\n");
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_sent_and_received_as_the_servers_have_it() {
        let (sent, received) = message(Kind::Redis, "there", 2);
        assert_eq!(sent, b"*3\r\n$7\r\nPUBLISH\r\n$5\r\nthere\r\n$2\r\nxx\r\n");
        assert_eq!(received, b"*3\r\n$7\r\nmessage\r\n$5\r\nthere\r\n$2\r\nxx\r\n".len());
        let (sent, received) = message(Kind::Nats, "there", 2);
        assert_eq!(sent, b"PUB there 2\r\nxx\r\n");
        assert_eq!(received, b"MSG there 1 2\r\nxx\r\n".len());
    }

    #[test]
    fn a_key_is_as_long_as_those_of_the_bus() {
        assert_eq!(lock_key("bench.1.0.there", 7).len(), 44);
        assert_ne!(lock_key("bench.1.0.there", 7), lock_key("bench.1.0.there", 8));
    }
}
