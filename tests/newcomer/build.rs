//! Generates the service that the mistakes are made with.

fn main() -> Result<(), psrpc_build::Error> {
    psrpc_build::Config::new().default_runtime(false).compile(&["proto/hats.proto"], &["proto"])
}
