//! Tests of the command: every kind of work on every bus, briefly, and the errors for invalid
//! arguments.

use std::process::{Command, Output};

use serde_json::Value;

/// The keys of every cell, which tools rely on.
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

/// The keys of the floor; null for cells without a floor.
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

/// Runs the command and returns the cells of its JSON summary.
fn cells(arguments: &str) -> Vec<Value> {
    let output = bench(arguments);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let last = text.lines().last().expect("there is output");
    let json: Value = serde_json::from_str(last).expect("the last line is JSON");
    json["cells"].as_array().expect("there are cells").clone()
}

fn number(cell: &Value, key: &str) -> f64 {
    cell[key].as_f64().unwrap_or_else(|| panic!("{key} is not a number: {cell}"))
}

/// Checks the keys of a cell and the plausibility of its figures.
fn check(cell: &Value) {
    let mut keys: Vec<_> =
        cell.as_object().expect("a cell is an object").keys().map(String::as_str).collect();
    let mut expected = [&OURS[..], &FLOOR].concat();
    keys.sort_unstable();
    expected.sort_unstable();
    assert_eq!(keys, expected);
    assert_eq!(cell["errors"], 0, "{cell}");
    for key in ["calls_per_s", "p50_us", "cpu_us_per_call"] {
        assert!(number(cell, key) > 0.0, "{key} is zero: {cell}");
    }
    assert!(number(cell, "p50_us") <= number(cell, "p99_us"), "{cell}");
    assert!(number(cell, "p99_us") <= number(cell, "p999_us"), "{cell}");
    for key in FLOOR {
        if cell["work"] == "engine" {
            assert!(cell[key].is_null(), "{key}: {cell}");
        } else {
            assert!(number(cell, key) > 0.0, "{key} is zero: {cell}");
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
        for expected_work in ["queue", "affinity", "single", "multi", "stream", "subscription"] {
            let count = buses.iter().zip(&work).filter(|cell| *cell == (&bus, &expected_work)).count();
            assert_eq!(count, 2, "{bus} {expected_work}");
        }
    }
    assert_eq!(cells.len(), 2 * 3 * 6 + 1, "3 buses, 6 kinds of work, 2 concurrencies, and the engine");
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
    std::fs::remove_file(&file).expect("the file can be removed");
    assert_eq!(drawn.len(), 1);
    assert!(chart.starts_with("<svg") && chart.trim_end().ends_with("</svg>"), "{chart}");
    assert!(chart.contains("none engine, 1 at a time"), "{chart}");
}

#[test]
fn a_build_against_itself_has_a_ratio_for_each_cell() {
    let options = "--threads 1,2 --concurrency 3 --runs 2 --seconds 0.1 --json";
    let cells = cells(&format!("--against {} {options}", env!("CARGO_BIN_EXE_psrpc-bench")));
    let named = |cell: &Value| (cell["work"].as_str().map(str::to_owned), cell["threads"].as_u64());
    let expected = [(1, "queue"), (1, "affinity"), (2, "queue"), (2, "affinity")];
    assert_eq!(
        cells.iter().map(named).collect::<Vec<_>>(),
        expected.map(|(threads, work)| (Some(work.to_owned()), Some(threads)))
    );
    for cell in &cells {
        assert_eq!((&cell["bus"], &cell["concurrency"]), (&"local".into(), &3.into()));
        for figure in ["cpu_us_per_call", "calls_per_s"] {
            let compared = &cell[figure];
            let [this, other, smallest, ratio, largest] =
                ["this", "other", "smallest_ratio", "ratio", "largest_ratio"]
                    .map(|key| number(compared, key));
            assert!(this > 0.0 && other > 0.0, "{figure} is zero: {cell}");
            assert!(0.0 < smallest && smallest <= ratio && ratio <= largest, "{cell}");
        }
    }
}

#[test]
fn the_engine_and_a_bus_with_a_server_are_compared_as_well() {
    let options = "--bus redis --work single,engine --threads 2 --runs 1 --seconds 0.1";
    let output = bench(&format!("--against {} {options}", env!("CARGO_BIN_EXE_psrpc-bench")));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 5, "{text}");
    for (line, cell) in [(lines[2], ["redis", "single", "2", "16"]), (lines[3], ["none", "engine", "1", "1"])]
    {
        assert_eq!(line.split_whitespace().take(4).collect::<Vec<_>>(), cell, "{text}");
        assert_eq!(line.matches("x ").count(), 2, "expected two ratios, of CPU time and calls: {text}");
    }
}

#[test]
fn a_binary_that_is_no_build_of_the_command_is_named_with_what_is_wrong() {
    let refused = |binary: &str, reason: &str| {
        let output = bench(&format!("--against {binary} --seconds 0.1"));
        let text = String::from_utf8_lossy(&output.stderr);
        let is_named = text.starts_with("psrpc-bench: ") && text.contains(binary);
        assert!(!output.status.success() && is_named && text.contains(reason), "{binary}: {text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    };
    refused("no/such/psrpc-bench", "failed to run no/such/psrpc-bench: No such file");
    refused("Cargo.toml", "failed to run Cargo.toml: Permission denied");
    refused("/bin/echo", "expected a JSON summary of the cell in the last line, got: --json");
    refused("/bin/sh", "failed with exit status: ");
}

#[test]
fn what_cannot_be_is_refused_with_a_reason() {
    let refused = |arguments: &str, reason: &str| {
        let output = bench(arguments);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains(reason), "{arguments}: {text}");
    };
    refused("--bus kafka", "expected local, redis, nats");
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
