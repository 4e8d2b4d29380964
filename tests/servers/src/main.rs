//! Runs a command with a server: `psrpc-servers redis COMMAND... URL ...`. `URL` is replaced by the
//! server's URL.

use std::process::{Command, ExitCode};

use psrpc_servers::Server;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let server = match arguments.next().as_deref() {
        Some("redis") => Server::redis(&[]),
        Some("nats") => Server::nats(&[]),
        other => {
            eprintln!("unknown server {other:?}: expected redis or nats");
            return ExitCode::FAILURE;
        }
    };
    let url = server.url();
    let command: Vec<_> = arguments.map(|word| if word == "URL" { url.clone() } else { word }).collect();
    let [program, arguments @ ..] = &command[..] else {
        eprintln!("missing command: usage is psrpc-servers redis|nats COMMAND...");
        return ExitCode::FAILURE;
    };
    match Command::new(program).args(arguments).status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("failed to run {program}: {error}");
            ExitCode::FAILURE
        }
    }
}
