//! Generates the services of the examples: messages, clients, traits and servers.

fn main() -> Result<(), psrpc_build::Error> {
    let protos = ["workers", "regions", "chat", "exchange"].map(|name| format!("proto/{name}.proto"));
    psrpc_build::compile(&protos, &["proto"])
}
