//! The table of results in docs/testing.md.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::case::{Case, Measured};

/// The lines before and after the table.
const BEGIN: &str = "<!-- faults: written by `faults run --table` -->\n";
const END: &str = "<!-- end of faults -->";

const HEAD: &str = "| fault | set-up | runtime | calls | answered | failed in time | hung | run twice | announced, run twice | back after | peak memory |\n\
                    |---|---|---|---|---|---|---|---|---|---|---|\n";

/// Writes the results of cases that passed into docs/testing.md. Rows of other cases stay.
///
/// # Errors
///
/// Returns an error if the file cannot be read or written, or has no place for the table.
pub fn update(cases: &[Case], results: &[(Case, Measured)]) -> io::Result<()> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/testing.md");
    let text = fs::read_to_string(&path)?;
    let updated = updated(&text, cases, results)
        .ok_or_else(|| io::Error::other(format!("{}: no line {BEGIN:?}", path.display())))?;
    fs::write(path, updated)
}

/// Returns the text with the results in its table, in the order of `cases`.
fn updated(text: &str, cases: &[Case], results: &[(Case, Measured)]) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (table, after) = rest.split_once(END)?;
    let is_row = |line: &&str| line.starts_with("| ") && !HEAD.starts_with(*line);
    let mut rows: BTreeMap<_, _> =
        table.lines().filter(is_row).map(|line| (key(line), line.to_owned())).collect();
    rows.extend(results.iter().map(|(case, measured)| row(case, measured)).map(|row| (key(&row), row)));
    let mut ordered = String::new();
    for case in cases {
        if let Some(row) = rows.get(&cells(case)) {
            ordered += &format!("{row}\n");
        }
    }
    Some(format!("{before}{BEGIN}{HEAD}{ordered}{END}{after}"))
}

/// Returns the cells that name a case.
fn cells(case: &Case) -> [String; 3] {
    [case.fault.name, case.set_up.as_str(), case.runtime.as_str()].map(str::to_owned)
}

/// Returns the cells of a row that name its case.
fn key(row: &str) -> [String; 3] {
    let mut cells = row.split('|').skip(1).map(|cell| cell.trim().to_owned());
    std::array::from_fn(|_| cells.next().unwrap_or_default())
}

/// Returns the row of a case that passed. In such a case no request ran twice, except announced
/// ones. Calls are rounded up to tens and times to 50 ms, since they differ from run to run.
fn row(case: &Case, measured: &Measured) -> String {
    let Measured { totals, recovery, memory, .. } = measured;
    let [fault, set_up, runtime] = cells(case);
    let [made, answered, failed] = [totals.made, totals.answered, totals.failed].map(tens);
    let (hung, twice, back) = (totals.pending, totals.announced_twice, rounded(*recovery));
    format!(
        "| {fault} | {set_up} | {runtime} | {made} | {answered} | {failed} | {hung} | 0 | {twice} | {back} | {memory} MB |"
    )
}

fn tens(calls: u64) -> u64 {
    calls.div_ceil(10) * 10
}

fn rounded(time: Duration) -> String {
    format!("{:.2} s", (time.as_secs_f64() * 20.0).ceil() / 20.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault;
    use crate::runtime::RuntimeName;
    use crate::setup::SetUp;

    #[test]
    fn a_result_replaces_the_row_of_its_case_and_other_rows_stay() {
        let case = |name, set_up| {
            let fault = fault::named(name).expect("it is a fault");
            Case { fault, set_up, runtime: RuntimeName::Tokio }
        };
        let cases = [case("restart", SetUp::Redis), case("kill", SetUp::Redis), case("kill", SetUp::Nats)];
        let text = format!(
            "above\n{BEGIN}{HEAD}| kill | nats | tokio | 1 |\n| kill | redis | tokio | 2 |\n\
             | gone | redis | tokio | 3 |\n{END}\nbelow\n"
        );
        let measured = Measured { recovery: Duration::from_millis(1210), memory: 19, ..Measured::default() };
        let expected = format!(
            "above\n{BEGIN}{HEAD}| kill | redis | tokio | 0 | 0 | 0 | 0 | 0 | 0 | 1.25 s | 19 MB |\n\
             | kill | nats | tokio | 1 |\n{END}\nbelow\n"
        );
        assert_eq!(updated(&text, &cases, &[(cases[1], measured)]), Some(expected));
        assert_eq!(updated("no table", &cases, &[]), None);
    }
}
