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
            Ok(reply) => match redis::from_redis_value::<(String, u16)>(reply) {
                Ok((host, port)) => return Ok(ConnectionAddr::Tcp(host, port)),
                Err(error) => format!("the sentinel sent an unexpected reply: {error}"),
            },
            Err(error) if is_unknown_command(&error) => {
                "the server is no sentinel: use `redis://` for a single server".into()
            }
            Err(error) => cause::of(&error, None),
        };
        Err(ConnectError::Server { server: session.server, cause })
    }
}

fn is_unknown_command(error: &redis::RedisError) -> bool {
    error.code() == Some("ERR") && error.detail().is_some_and(|text| text.starts_with("unknown command"))
}
