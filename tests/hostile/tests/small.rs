//! Runs every attack with a few thousand frames. `./test hostile` runs them with a million. Only
//! Linux reports the memory of a process.

#![cfg(target_os = "linux")]

use std::process::Command;

#[test]
fn honest_calls_survive_every_attack() {
    let program = Command::new(env!("CARGO_BIN_EXE_psrpc-hostile"))
        .args(["--frames", "10000", "--jobs", "8"])
        .output()
        .expect("the program starts");
    let output = String::from_utf8_lossy(&program.stdout);
    assert!(program.status.success(), "{output}");
}
