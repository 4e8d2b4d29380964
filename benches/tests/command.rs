//! The command: every work on every bus, for a moment, and what it says to arguments that cannot
//! be.

use std::process::{Command, Output};

use serde_json::Value;

/// What each cell has, and tools rely on.
const OURS: [&str; 13] = [
    "bus",
    "work",
    "concurrency",
    "size",
    "threads",
    "calls_per_s",
    "p50_us",
    "p99_us",
    "p999_us",
    "cpu_us_per_call",
    "allocs_per_call",
    "server_cpu_us_per_call",
    "errors",
];

/// And what one has that has a floor; any other has nothing there.
const FLOOR: [&str; 7] = [
    "floor_calls_per_s",
    "floor_p50_us",
    "floor_p99_us",
    "latency_ratio",
    "library_p50_us",
    "floor_cpu_us_per_call",
    "cpu_ratio",
];

fn bench(arguments: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_psrpc-bench"));
    command.args(arguments.split_whitespace()).output().expect("the command runs")
}

/// The cells that the last line tells of.
fn cells(arguments: &str) -> Vec<Value> {
    let output = bench(arguments);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let last = said.lines().last().expect("it says something");
    let json: Value = serde_json::from_str(last).expect("the last line is JSON");
    json["cells"].as_array().expect("there are cells").clone()
}

fn number(cell: &Value, key: &str) -> f64 {
    cell[key].as_f64().unwrap_or_else(|| panic!("{key} is no number: {cell}"))
}

/// Checks that a cell has all that it should, whatever the figures are.
fn check(cell: &Value) {
    let mut keys: Vec<_> =
        cell.as_object().expect("a cell is an object").keys().map(String::as_str).collect();
    let mut wanted = [&OURS[..], &FLOOR].concat();
    keys.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(keys, wanted);
    assert_eq!(cell["errors"], 0, "{cell}");
    for key in ["calls_per_s", "p50_us", "cpu_us_per_call"] {
        assert!(number(cell, key) > 0.0, "{key} is nothing: {cell}");
    }
    assert!(number(cell, "p50_us") <= number(cell, "p99_us"), "{cell}");
    assert!(number(cell, "p99_us") <= number(cell, "p999_us"), "{cell}");
    for key in FLOOR {
        if cell["work"] == "engine" {
            assert!(cell[key].is_null(), "{key}: {cell}");
        } else {
            assert!(number(cell, key) > 0.0, "{key} is nothing: {cell}");
        }
    }
}

#[test]
fn every_work_on_every_bus_goes_without_errors_and_has_a_floor() {
    let cells = cells("--concurrency 1,4 --seconds 0.2 --json");
    cells.iter().for_each(check);
    let names = |key| cells.iter().map(|cell| cell[key].as_str().unwrap_or_default()).collect::<Vec<_>>();
    let (buses, work) = (names("bus"), names("work"));
    for bus in ["local", "redis", "nats"] {
        for work_wanted in ["queue", "affinity", "single", "multi", "stream", "subscription"] {
            let count = buses.iter().zip(&work).filter(|cell| *cell == (&bus, &work_wanted)).count();
            assert_eq!(count, 2, "{bus} {work_wanted}");
        }
    }
    assert_eq!(cells.len(), 2 * 3 * 6 + 1, "and the engine");
}

#[test]
fn one_thread_and_large_messages_go_as_well() {
    let cells =
        cells("--bus local --work queue,stream --threads 1 --concurrency 3 --size 9000 --seconds 0.2 --json");
    cells.iter().for_each(check);
    assert_eq!(cells.len(), 2);
    for cell in cells {
        assert_eq!((&cell["threads"], &cell["size"]), (&1.into(), &9000.into()));
    }
}

#[test]
fn the_chart_has_a_row_for_each_cell() {
    let file = std::env::temp_dir().join(format!("psrpc-bench-{}.svg", std::process::id()));
    let drawn = cells(&format!("--work engine --seconds 0.1 --json --plot {}", file.display()));
    let chart = std::fs::read_to_string(&file).expect("there is a chart");
    std::fs::remove_file(&file).expect("it can be removed");
    assert_eq!(drawn.len(), 1);
    assert!(chart.starts_with("<svg") && chart.trim_end().ends_with("</svg>"), "{chart}");
    assert!(chart.contains("none engine, 1 at a time"), "{chart}");
}

#[test]
fn a_build_against_itself_has_a_ratio_for_each_cell() {
    let options = "--threads 1,2 --concurrency 3 --runs 2 --seconds 0.1 --json";
    let cells = cells(&format!("--against {} {options}", env!("CARGO_BIN_EXE_psrpc-bench")));
    let named = |cell: &Value| (cell["work"].as_str().map(str::to_owned), cell["threads"].as_u64());
    let wanted = [(1, "queue"), (1, "affinity"), (2, "queue"), (2, "affinity")];
    assert_eq!(
        cells.iter().map(named).collect::<Vec<_>>(),
        wanted.map(|(threads, work)| (Some(work.to_owned()), Some(threads)))
    );
    for cell in &cells {
        assert_eq!((&cell["bus"], &cell["concurrency"]), (&"local".into(), &3.into()));
        for figure in ["cpu_us_per_call", "calls_per_s"] {
            let compared = &cell[figure];
            let [this, other, smallest, ratio, largest] =
                ["this", "other", "smallest_ratio", "ratio", "largest_ratio"]
                    .map(|key| number(compared, key));
            assert!(this > 0.0 && other > 0.0, "{figure} is nothing: {cell}");
            assert!(0.0 < smallest && smallest <= ratio && ratio <= largest, "{cell}");
        }
    }
}

#[test]
fn the_engine_and_a_bus_with_a_server_are_compared_as_well() {
    let options = "--bus redis --work single,engine --threads 2 --runs 1 --seconds 0.1";
    let output = bench(&format!("--against {} {options}", env!("CARGO_BIN_EXE_psrpc-bench")));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.len(), 5, "{said}");
    for (line, cell) in [(lines[2], ["redis", "single", "2", "16"]), (lines[3], ["none", "engine", "1", "1"])]
    {
        assert_eq!(line.split_whitespace().take(4).collect::<Vec<_>>(), cell, "{said}");
        assert_eq!(line.matches("x ").count(), 2, "a ratio of the CPU time, and one of the calls: {said}");
    }
}

#[test]
fn a_binary_that_is_no_build_of_the_command_is_named_with_what_is_wrong() {
    let refused = |binary: &str, reason: &str| {
        let output = bench(&format!("--against {binary} --seconds 0.1"));
        let said = String::from_utf8_lossy(&output.stderr);
        let is_named = said.starts_with("psrpc-bench: ") && said.contains(binary);
        assert!(!output.status.success() && is_named && said.contains(reason), "{binary}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    };
    refused("no/such/psrpc-bench", "cannot run no/such/psrpc-bench: No such file");
    refused("Cargo.toml", "cannot run Cargo.toml: Permission denied");
    refused("/bin/echo", "did not print a JSON summary of this cell in its last line, but: --json");
    refused("/bin/sh", "failed with exit status: ");
}

#[test]
fn what_cannot_be_is_refused_with_a_reason() {
    let refused = |arguments: &str, reason: &str| {
        let output = bench(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(reason), "{arguments}: {said}");
    };
    refused("--bus kafka", "there are local, redis, nats");
    refused("--concurrency 0", "0 is not in 1..=4096");
    refused("--work nothing", "possible values: queue, affinity");
    refused("--seconds 0", "a number above 0");
    refused("--size many", "a number of bytes");
    refused("--threads 0", "0 is not in 1..=64");
    refused("--bus redis://127.0.0.1:1 --work queue", "unavailable: redis at 127.0.0.1:1");
    refused("soak", "--minutes");
    refused("--against other --plot chart.svg", "cannot be used with");
    refused("--against other scale", "cannot be used with");
}
