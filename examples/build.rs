//! Generates the services of the examples.

fn main() -> Result<(), psrpc_build::Error> {
    let protos = ["workers", "regions", "chat", "exchange"].map(|name| format!("proto/{name}.proto"));
    psrpc_build::compile(&protos, &["proto"])
}
