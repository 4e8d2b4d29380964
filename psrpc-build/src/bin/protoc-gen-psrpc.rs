//! The protoc plugin: `protoc --psrpc_out=DIR --psrpc_opt=root=::psrpc ...`.

use std::io::{Read, Write, stdin, stdout};
use std::process::ExitCode;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("protoc-gen-psrpc: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), psrpc_build::Error> {
    let mut request = Vec::new();
    stdin().read_to_end(&mut request)?;
    stdout().write_all(&psrpc_build::run_plugin(&request)?)?;
    Ok(())
}
