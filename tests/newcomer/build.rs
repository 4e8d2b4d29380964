//! Generates the service that the examples use.

fn main() -> Result<(), psrpc_build::Error> {
    psrpc_build::Config::new().default_runtime(false).compile(&["proto/hats.proto"], &["proto"])
}
