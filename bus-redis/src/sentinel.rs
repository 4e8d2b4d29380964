//! Asks sentinels for the address of their master.

use redis::{ConnectionAddr, Value};

use crate::cause;
use crate::connector::Connector;
use crate::dial::Login;
use crate::error::ConnectError;

impl Connector {
    /// Asks the sentinel at an address for the address of the master of this name.
    pub(crate) async fn ask_sentinel(
        &self,
        sentinel: &ConnectionAddr,
        master: &str,
    ) -> Result<ConnectionAddr, ConnectError> {
        let config = self.config().set_response_timeout(Some(self.options.connection_timeout));
        let mut session = self.dial(sentinel, Login::Sentinel, &config).await?;
        let mut command = redis::cmd("SENTINEL");
        command.arg("GET-MASTER-ADDR-BY-NAME").arg(master);
        let reply = session.connection.send_packed_command(&command).await;
        let cause = match reply.and_then(Value::extract_error) {
            Ok(Value::Nil) => format!("the sentinel knows no master `{master}`"),
            Ok(reply) => match address(reply) {
                Ok(address) => return Ok(address),
                Err(cause) => cause,
            },
            Err(error) if is_unknown_command(&error) => {
                "the server is no sentinel: use `redis://` for a single server".into()
            }
            Err(error) => cause::of(&error, None),
        };
        Err(ConnectError::Server { server: session.server, cause })
    }
}

/// Parses a host and a port.
fn address(reply: Value) -> Result<ConnectionAddr, String> {
    let address = redis::from_redis_value::<(String, u16)>(reply);
    let address = address.map(|(host, port)| ConnectionAddr::Tcp(host, port));
    address.map_err(|error| cause::excerpt(&format!("the sentinel sent an unexpected reply: {error}")))
}

fn is_unknown_command(error: &redis::RedisError) -> bool {
    error.code() == Some("ERR") && error.detail().is_some_and(|text| text.starts_with("unknown command"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_an_address_or_is_shown_in_part() {
        let text = |text: &str| Value::BulkString(text.into());
        let reply = Value::Array(vec![text("h"), text("6379")]);
        assert_eq!(address(reply), Ok(ConnectionAddr::Tcp("h".into(), 6379)));
        let cause = address(Value::Array(vec![text("h"), text(&"x".repeat(10_000))])).unwrap_err();
        assert!(cause.starts_with("the sentinel sent an unexpected reply: "), "{cause}");
        assert!(cause.ends_with("...") && cause.len() < 600, "{cause}");
    }
}
