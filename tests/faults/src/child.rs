//! Cases in processes of their own, so that the peak memory and the panics of a case are its own.

use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use psrpc_simulation::judge::services::ledger::Totals;

use crate::case::{Case, Measured};

/// The limit for a case. The limits within a case are shorter, and their errors name the step or
/// the task that hung.
pub const CASE_LIMIT: Duration = Duration::from_secs(240);

/// The prefix of the line with the figures in the output of a case.
const FIGURES: &str = "figures: ";

/// Runs a case in a process of its own, which is this program with the command `case`. Returns its
/// measurements, if the process printed them, and an error if a check failed.
pub fn run(case: &Case) -> (Option<Measured>, Result<(), String>) {
    let program = std::env::current_exe().expect("a running program has a path");
    let mut command = Command::new(program);
    command.args(["case", case.set_up.as_str(), case.fault.name, case.runtime.as_str()]);
    let mut child = match command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn()
    {
        Ok(child) => child,
        Err(error) => return (None, Err(format!("the process of the case cannot be started: {error}"))),
    };
    let mut stdout = child.stdout.take().expect("the output is piped");
    let (sender, output) = mpsc::channel();
    thread::spawn(move || {
        let mut text = String::new();
        let _ = stdout.read_to_string(&mut text);
        drop(sender.send(text));
    });
    let output = output.recv_timeout(CASE_LIMIT);
    if output.is_err() {
        let _ = child.kill();
    }
    let status = child.wait();
    let Ok(output) = output else { return (None, Err(format!("the process hung for {CASE_LIMIT:?}"))) };
    let measured = output.lines().find_map(|line| parse(line.strip_prefix(FIGURES)?));
    let problem: Vec<_> = output.lines().filter(|line| !line.starts_with(FIGURES)).collect();
    let checked = match status {
        Ok(status) if status.success() && measured.is_some() => Ok(()),
        Ok(status) if problem.is_empty() => Err(format!("the process ended: {status}")),
        _ => Err(problem.join("\n")),
    };
    (measured, checked)
}

/// Writes the figures as one line.
pub fn write(measured: &Measured) -> String {
    let Measured { totals, recovery, longest_stall, memory } = measured;
    let Totals { made, answered, failed, pending, announced_twice } = totals;
    let (recovery, longest_stall) = (recovery.as_millis(), longest_stall.as_millis());
    format!(
        "{FIGURES}{made} {answered} {failed} {pending} {announced_twice} {recovery} {longest_stall} {memory}"
    )
}

fn parse(figures: &str) -> Option<Measured> {
    let figures: Vec<u64> = figures.split(' ').map(|figure| figure.parse().ok()).collect::<Option<_>>()?;
    let [made, answered, failed, pending, announced_twice, recovery, longest_stall, memory] = figures[..]
    else {
        return None;
    };
    Some(Measured {
        totals: Totals { made, answered, failed, pending, announced_twice },
        recovery: Duration::from_millis(recovery),
        longest_stall: Duration::from_millis(longest_stall),
        memory,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_as_they_were_written() {
        let measured = Measured {
            totals: Totals { made: 1, answered: 2, failed: 3, pending: 4, announced_twice: 5 },
            recovery: Duration::from_millis(6),
            longest_stall: Duration::from_millis(7),
            memory: 8,
        };
        assert_eq!(parse(write(&measured).strip_prefix(FIGURES).unwrap()), Some(measured));
    }
}
