//! Runs the benches: gungraun runs them under valgrind and prints the counts as lines of JSON.

use std::env;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::Stop;
use crate::limits::{Cost, Costs};

/// Returns the compiler version and the host.
pub fn compiler(root: &Path) -> Result<String, String> {
    let version = run(Command::new("rustc").arg("-V").current_dir(root))?;
    let more = run(Command::new("rustc").arg("-vV").current_dir(root))?;
    let host =
        more.lines().find_map(|line| line.strip_prefix("host: ")).ok_or("rustc -vV printed no host")?;
    Ok(format!("{} on {host}", version.trim()))
}

/// Returns the cost of each bench, by name.
pub fn count(root: &Path) -> Result<Costs, Stop> {
    if run(Command::new("valgrind").arg("--version")).is_err() {
        return Err(Stop::Skipped("valgrind is not installed".to_owned()));
    }
    let target = root.join(env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()));
    let tools = target.join("tools");
    let path = env::var("PATH").unwrap_or_default();
    let path = format!("{}/bin:{path}", tools.display());
    let result = install_runner(root, &tools, &path);
    result.map_err(|reason| Stop::Skipped(format!("failed to install gungraun-runner: {reason}")))?;
    let mut bench = cargo(root);
    bench.args(["bench", "--quiet", "--locked", "--package", "psrpc-cost", "--bench", "cost"]);
    bench.env("PATH", path).env("GUNGRAUN_OUTPUT_FORMAT", "json").env("GUNGRAUN_PARALLEL", "auto");
    let mut costs = Costs::new();
    for line in run(&mut bench)?.lines() {
        let summary = serde_json::from_str(line).map_err(|error| error.to_string())?;
        let (bench, cost) = read(&summary).ok_or_else(|| format!("no counts in {line}"))?;
        costs.insert(bench, cost);
    }
    Ok(costs)
}

/// Installs gungraun-runner in the version of gungraun, unless it is installed.
fn install_runner(root: &Path, tools: &Path, path: &str) -> Result<(), String> {
    let package = run(cargo(root).args(["pkgid", "--locked", "gungraun"]))?;
    let version = package.trim().rsplit(['@', '#']).next().unwrap_or_default();
    let installed = run(Command::new("gungraun-runner").arg("--version").env("PATH", path));
    if installed.is_ok_and(|output| output.trim() == format!("gungraun-runner {version}")) {
        return Ok(());
    }
    let mut install = cargo(root);
    // Unoptimised, since compiling it takes longer than running it.
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
    run(&mut install).map(drop)
}

fn cargo(root: &Path) -> Command {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(root);
    cargo
}

/// Runs a command and returns its stdout. Its stderr is passed through.
fn run(command: &mut Command) -> Result<String, String> {
    let output =
        command.stderr(Stdio::inherit()).output().map_err(|error| format!("{command:?}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{command:?}: {}", output.status));
    }
    String::from_utf8(output.stdout).map_err(|error| error.to_string())
}

/// Parses the name and the cost in the summary of a bench.
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
