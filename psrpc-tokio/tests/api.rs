//! `Send` and `Sync` of the public types.

use std::error::Error as StdError;

use psrpc_tokio::*;

fn send_and_sync<T: Send + Sync>() {}
fn send<T: Send>() {}

#[test]
fn public_types_can_be_sent_to_other_threads() {
    send_and_sync::<Client>();
    send_and_sync::<Server>();
    send_and_sync::<Error>();
    send_and_sync::<AnyMessage>();
    send_and_sync::<CallOptions>();
    send_and_sync::<ClientOptions>();
    send_and_sync::<ServerOptions>();
    send_and_sync::<Request<String>>();
    send_and_sync::<ClientStream<String, String>>();
    send_and_sync::<ServerStream<String, String>>();
    send_and_sync::<SendHalf<String>>();
    send_and_sync::<RecvHalf<String>>();
    send::<Call<String, String>>();
    send::<MultiCall<String, String>>();
    send::<Responses<String>>();
    send::<OpenStream<String, String>>();
    send::<Subscription<String>>();
    send::<SendSink<String>>();
}

#[test]
fn errors_implement_the_standard_error_trait() {
    fn error<T: StdError + Send + Sync + 'static>() {}
    error::<Error>();
    error::<BusError>();
}
