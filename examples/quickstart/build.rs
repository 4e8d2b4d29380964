//! Generates the service of the quickstart: messages, client, trait and server.

fn main() -> Result<(), psrpc_build::Error> {
    psrpc_build::compile(&["../proto/studio.proto"], &["../proto"])
}
