//! Generates the services that the cases use.

fn main() -> Result<(), psrpc_build::Error> {
    let mut config = psrpc_build::Config::new();
    config.default_runtime(false);
    config.compile(&["proto/shop.proto"], &["proto"])
}
