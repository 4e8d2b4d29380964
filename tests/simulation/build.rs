//! Generates the service of the runs of the driver.

fn main() -> Result<(), psrpc_build::Error> {
    psrpc_build::Config::new().default_runtime(false).compile(&["proto/hats.proto"], &["proto"])
}
