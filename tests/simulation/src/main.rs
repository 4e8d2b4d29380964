//! The command: runs seeds and summarizes them, replays one seed and prints its trace, or runs
//! every schedule of small scenarios. In the copy of the tree that contains defects it also plants
//! them.

mod command;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[cfg(psrpc_planted)]
use command::Planted;
use command::{Exhaustive, Replay, Run, Speed};

/// Simulates clients and servers on a faulty bus and checks the invariants.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(Run),
    Replay(Replay),
    #[cfg(psrpc_planted)]
    Planted(Planted),
    Exhaustive(Exhaustive),
    Speed(Speed),
}

fn main() -> ExitCode {
    let passed = match Args::parse().command {
        Command::Run(run) => run.run(),
        Command::Replay(replay) => replay.run(),
        #[cfg(psrpc_planted)]
        Command::Planted(planted) => planted.run(),
        Command::Exhaustive(exhaustive) => exhaustive.run(),
        Command::Speed(speed) => speed.run(),
    };
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
