//! Counting: gungraun runs the benches under valgrind, and tells what it counted as lines of JSON.

use std::env;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::Stop;
use crate::limits::{Cost, Costs};

/// The compiler that builds the benches, and for what.
pub fn compiler(root: &Path) -> Result<String, String> {
    let version = said(Command::new("rustc").arg("-V").current_dir(root))?;
    let more = said(Command::new("rustc").arg("-vV").current_dir(root))?;
    let host = more.lines().find_map(|line| line.strip_prefix("host: ")).ok_or("rustc -vV names no host")?;
    Ok(format!("{} on {host}", version.trim()))
}

/// What each bench costs, by its name.
pub fn count(root: &Path) -> Result<Costs, Stop> {
    if said(Command::new("valgrind").arg("--version")).is_err() {
        return Err(Stop::Skipped("there is no valgrind".to_owned()));
    }
    let target = root.join(env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()));
    let tools = target.join("tools");
    let path = env::var("PATH").unwrap_or_default();
    let path = format!("{}/bin:{path}", tools.display());
    let installed = install_runner(root, &tools, &path);
    installed.map_err(|why| Stop::Skipped(format!("what runs the benches cannot be installed: {why}")))?;
    let mut bench = cargo(root);
    bench.args(["bench", "--quiet", "--locked", "--package", "psrpc-cost", "--bench", "cost"]);
    bench.env("PATH", path).env("GUNGRAUN_OUTPUT_FORMAT", "json").env("GUNGRAUN_PARALLEL", "auto");
    let mut costs = Costs::new();
    for line in said(&mut bench)?.lines() {
        let summary = serde_json::from_str(line).map_err(|error| error.to_string())?;
        let (bench, cost) = read(&summary).ok_or_else(|| format!("there is no count in {line}"))?;
        costs.insert(bench, cost);
    }
    Ok(costs)
}

/// Installs what runs the benches, in the version that they are built for, unless it is there.
fn install_runner(root: &Path, tools: &Path, path: &str) -> Result<(), String> {
    let package = said(cargo(root).args(["pkgid", "--locked", "gungraun"]))?;
    let version = package.trim().rsplit(['@', '#']).next().unwrap_or_default();
    let there = said(Command::new("gungraun-runner").arg("--version").env("PATH", path));
    if there.is_ok_and(|there| there.trim() == format!("gungraun-runner {version}")) {
        return Ok(());
    }
    let mut install = cargo(root);
    // Unoptimised: it is built for longer than it runs.
    install.args([
        "install",
        "--quiet",
        "--locked",
        "--debug",
        "gungraun-runner",
        "--version",
        version,
        "--force",
    ]);
    install.arg("--root").arg(tools).env("CARGO_PROFILE_DEV_DEBUG", "0");
    said(&mut install).map(drop)
}

fn cargo(root: &Path) -> Command {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(root);
    cargo
}

/// What a command prints; its errors are shown as they come.
fn said(command: &mut Command) -> Result<String, String> {
    let output =
        command.stderr(Stdio::inherit()).output().map_err(|error| format!("{command:?}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{command:?}: {}", output.status));
    }
    String::from_utf8(output.stdout).map_err(|error| error.to_string())
}

/// The name and the cost in the summary of one bench.
fn read(summary: &Value) -> Option<(String, Cost)> {
    let name = format!("{}.{}", summary["function_name"].as_str()?, summary["id"].as_str()?);
    let profiles = summary["profiles"].as_array()?;
    let metric = |tool: &str, metric: &str| {
        let profile = profiles.iter().find(|profile| profile["tool"] == tool)?;
        profile["data"]["total"]["metrics"][metric]["values"]["new"].as_u64()
    };
    let instructions = metric("Callgrind", "Ir")?;
    Some((name, Cost { instructions, allocations: metric("DHAT", "TotalBlocks") }))
}
