//! The slots of a cluster and the nodes that serve them.

use redis::{RedisResult, Value};

use crate::dial::Session;

const SLOTS: u16 = 16384;

/// The nodes that serve each slot, as reported by one node.
#[derive(Default)]
pub(crate) struct Slots {
    ranges: Vec<Range>,
}

struct Range {
    first: u16,
    last: u16,
    /// The master, then its replicas.
    nodes: Vec<Node>,
}

/// The host and the port of a node.
pub(crate) type Node = (String, u16);

impl Slots {
    /// Asks a node for the slots. Returns `None` if it does not report them, for example because
    /// the user lacks the right.
    ///
    /// # Errors
    ///
    /// Returns an error if the node does not reply.
    pub(crate) async fn ask(session: &mut Session) -> RedisResult<Option<Self>> {
        let mut command = redis::cmd("CLUSTER");
        command.arg("SLOTS");
        let reply = session.connection.send_packed_command(&command).await?;
        let host = session.server.rsplit_once(':').map_or("", |(host, _)| host);
        Ok(Self::parse(reply, host))
    }

    /// Parses the reply to `CLUSTER SLOTS` of the node at `host`.
    fn parse(reply: Value, host: &str) -> Option<Self> {
        let Value::Array(ranges) = reply else { return None };
        let ranges: Option<Vec<_>> = ranges.into_iter().map(|range| Range::parse(range, host)).collect();
        Some(Self { ranges: ranges? })
    }

    /// Returns the master of a slot, if there is one.
    pub(crate) fn master(&self, slot: u16) -> Option<&Node> {
        let range = self.ranges.iter().find(|range| (range.first..=range.last).contains(&slot))?;
        range.nodes.first()
    }

    /// Returns every node that serves slots.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = (&str, u16)> {
        self.ranges.iter().flat_map(|range| &range.nodes).map(|(host, port)| (host.as_str(), *port))
    }
}

impl Range {
    fn parse(range: Value, host: &str) -> Option<Self> {
        let Value::Array(fields) = range else { return None };
        let mut fields = fields.into_iter();
        let mut slot = || redis::from_redis_value::<u16>(fields.next()?).ok();
        let (first, last) = (slot()?, slot()?);
        let nodes: Option<Vec<_>> = fields.map(|node| parse_node(node, host)).collect();
        Some(Self { first, last, nodes: nodes? })
    }
}

/// A node that does not know its own address leaves it out.
fn parse_node(node: Value, asked: &str) -> Option<Node> {
    let Value::Array(fields) = node else { return None };
    let mut fields = fields.into_iter();
    let host: Option<String> = redis::from_redis_value(fields.next()?).ok()?;
    let port = redis::from_redis_value(fields.next()?).ok()?;
    Some((host.filter(|host| !host.is_empty()).unwrap_or_else(|| asked.to_owned()), port))
}

/// Returns the slot of a key: the CRC-16 (XMODEM) of the key, or of the first text in braces if
/// that is not empty.
pub(crate) fn of_key(key: &str) -> u16 {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
    let hashed = tag.filter(|tag| !tag.is_empty()).unwrap_or(key);
    let crc = hashed.bytes().fold(0_u16, |crc, byte| {
        let shifted = crc ^ (u16::from(byte) << 8);
        (0..8).fold(shifted, |crc, _| (crc << 1) ^ if crc & 0x8000 == 0 { 0 } else { 0x1021 })
    });
    crc % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slot_of_a_key_is_that_of_the_specification() {
        assert_eq!(of_key("123456789"), 0x31C3);
        assert_eq!(of_key("foo"), 12182);
        assert_eq!(of_key(""), 0);
        assert_eq!(of_key("a{foo}b{c}"), of_key("foo"));
        assert!(![of_key("{}foo"), of_key("{foo")].contains(&of_key("foo")));
    }

    #[test]
    fn ranges_name_the_master_first_and_a_node_without_an_address_is_the_one_that_was_asked() {
        let text = |text: &str| Value::BulkString(text.into());
        let node =
            |host, port| Value::Array(vec![host, Value::Int(port), text("id"), Value::Array(Vec::new())]);
        let range = |first, last, nodes: Vec<Value>| {
            Value::Array([vec![Value::Int(first), Value::Int(last)], nodes].concat())
        };
        let reply = Value::Array(vec![
            range(0, 5460, vec![node(text("a"), 1), node(text("b"), 2)]),
            range(5461, 16383, vec![node(Value::Nil, 3)]),
        ]);
        let slots = Slots::parse(reply, "asked").unwrap();
        assert_eq!(slots.master(5460), Some(&("a".into(), 1)));
        assert_eq!(slots.master(5461), Some(&("asked".into(), 3)));
        assert_eq!(slots.nodes().collect::<Vec<_>>(), [("a", 1), ("b", 2), ("asked", 3)]);
        assert!(Slots::default().master(0).is_none());
        assert!(Slots::parse(Value::Array(vec![Value::Nil]), "asked").is_none());
    }
}
