//! Runs a command while a server is there: `psrpc-servers redis COMMAND... URL ...`, where `URL`
//! stands for the server's.

use std::process::{Command, ExitCode};

use psrpc_servers::Server;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let server = match arguments.next().as_deref() {
        Some("redis") => Server::redis(&[]),
        Some("nats") => Server::nats(&[]),
        other => {
            eprintln!("there is no server {other:?}; there are redis and nats");
            return ExitCode::FAILURE;
        }
    };
    let url = server.url();
    let command: Vec<_> = arguments.map(|word| if word == "URL" { url.clone() } else { word }).collect();
    let [program, arguments @ ..] = &command[..] else {
        eprintln!("no command to run");
        return ExitCode::FAILURE;
    };
    match Command::new(program).args(arguments).status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{program}: {error}");
            ExitCode::FAILURE
        }
    }
}
