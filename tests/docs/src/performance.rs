//! The chart and the sentence about performance, both made from the table in `docs/performance.md`.

use crate::svg::{Anchor, BLUE, Svg};

/// The buses by their names in the table, and as readers know them.
const BUSES: [(&str, &str); 3] = [("local", "In process"), ("redis", "Redis"), ("nats", "NATS")];
const WORKS: [(&str, &str); 6] = [
    ("queue", "queue call"),
    ("affinity", "affinity call"),
    ("single", "single-server call"),
    ("multi", "multi call"),
    ("stream", "stream message"),
    ("subscription", "update"),
];
/// The number of worker threads in the rows that are shown.
const THREADS: u32 = 2;
/// The number of calls in flight in the rows that the chart shows.
const IN_FLIGHT: u32 = 128;

const FLOOR_FILL: &str = "#c4ccd4";
const NAMES_WIDTH: f64 = 140.0;
const BARS_WIDTH: f64 = 180.0;
const PANEL_WIDTH: f64 = 260.0;
const BAR_HEIGHT: f64 = 11.0;
const ROW_HEIGHT: f64 = 38.0;
const TOP: f64 = 88.0;

/// One row of the table, as far as it is used here.
struct Row {
    bus: String,
    work: String,
    threads: u32,
    in_flight: u32,
    calls_per_second: f64,
    p50_us: f64,
    floor_per_second: f64,
    /// The median latency compared with that of the bare client library.
    library_ratio: f64,
}

/// The rows of the table that have a floor.
pub(crate) struct Table(Vec<Row>);

impl Table {
    /// Reads the first table of a document that the bench printed.
    pub(crate) fn read(document: &str) -> Self {
        let lines = document.lines().skip_while(|line| !line.starts_with("medians of"));
        Self(lines.take_while(|line| !line.starts_with("```")).filter_map(Row::read).collect())
    }

    fn row(&self, bus: &str, work: &str, in_flight: u32) -> &Row {
        let is_it = |row: &&Row| {
            (row.bus.as_str(), row.work.as_str(), row.threads, row.in_flight)
                == (bus, work, THREADS, in_flight)
        };
        let found = self.0.iter().find(is_it);
        found.unwrap_or_else(|| {
            panic!("docs/performance.md: no row for {bus} {work} with {THREADS} threads and {in_flight} in flight")
        })
    }

    /// Draws calls a second beside those of the floor, one panel for each bus, as an SVG.
    pub(crate) fn draw(&self) -> String {
        let width = NAMES_WIDTH + BUSES.len() as f64 * PANEL_WIDTH;
        let mut svg = Svg::new(width, TOP + WORKS.len() as f64 * ROW_HEIGHT + 8.0);
        let title = format!("Per second, with {IN_FLIGHT} in flight (longer is better)");
        svg.styled_text((20.0, 28.0), Anchor::Start, "font-size=\"15\"", &title);
        for (x, fill, label) in [
            (430.0, BLUE, "psrpc"),
            (510.0, FLOOR_FILL, "the same messages on tokio channels or the bare client"),
        ] {
            svg.bar((x, 18.0), (12.0, 12.0), fill);
            svg.text((x + 18.0, 28.0), Anchor::Start, label);
        }
        for (index, (_, name)) in WORKS.iter().enumerate() {
            let y = TOP + index as f64 * ROW_HEIGHT + BAR_HEIGHT + 4.0;
            svg.text((NAMES_WIDTH - 12.0, y), Anchor::End, name);
        }
        for (panel, (bus, name)) in BUSES.iter().enumerate() {
            self.draw_panel(&mut svg, NAMES_WIDTH + panel as f64 * PANEL_WIDTH, bus, name);
        }
        svg.finish()
    }

    fn draw_panel(&self, svg: &mut Svg, x: f64, bus: &str, name: &str) {
        svg.styled_text((x, TOP - 14.0), Anchor::Start, "font-weight=\"bold\"", name);
        let rows = WORKS.map(|(work, _)| self.row(bus, work, IN_FLIGHT));
        let most = rows.iter().map(|row| row.calls_per_second.max(row.floor_per_second)).fold(0.0, f64::max);
        for (index, row) in rows.iter().enumerate() {
            let top = TOP + index as f64 * ROW_HEIGHT;
            for (y, value, fill) in [
                (top, row.calls_per_second, BLUE),
                (top + BAR_HEIGHT + 1.0, row.floor_per_second, FLOOR_FILL),
            ] {
                let length = (value / most * BARS_WIDTH).round().max(1.0);
                svg.bar((x, y), (length, BAR_HEIGHT), fill);
                let at = (x + length + 5.0, y + BAR_HEIGHT - 1.0);
                svg.styled_text(at, Anchor::Start, "font-size=\"11\" fill=\"#555\"", &thousands(value));
            }
        }
    }

    /// Returns the sentence that the README has.
    pub(crate) fn sentence(&self) -> String {
        let [local, redis, nats] = BUSES.map(|(bus, _)| self.row(bus, "queue", 1));
        let [local_rate, redis_rate, nats_rate] =
            BUSES.map(|(bus, _)| thousands(self.row(bus, "queue", IN_FLIGHT).calls_per_second));
        format!(
            "With one call at a time, the median of a claimed call (routed by queue) is {:.0} µs in process, {:.0} µs over\n\
             Redis ({:.1} times the bare client library) and {:.0} µs over NATS ({:.1} times). With {IN_FLIGHT} calls in \
             flight, two\ncores that run client, server and bus carry {local_rate}, {redis_rate} and {nats_rate} calls a \
             second.\n",
            local.p50_us, redis.p50_us, redis.library_ratio, nats.p50_us, nats.library_ratio,
        )
    }
}

impl Row {
    /// Reads a row. Returns `None` if the line is not a row, or if the row has no floor.
    fn read(line: &str) -> Option<Self> {
        let mut parts = line.split('|').map(|part| part.split_whitespace().collect::<Vec<_>>());
        let (cell, ours, floor) = (parts.next()?, parts.next()?, parts.next()?);
        let number = |text: &str| text.trim_end_matches('x').parse::<f64>().ok();
        Some(Self {
            bus: (*cell.first()?).to_owned(),
            work: (*cell.get(1)?).to_owned(),
            threads: cell.get(2)?.parse().ok()?,
            in_flight: cell.get(3)?.parse().ok()?,
            calls_per_second: number(ours.first()?)?,
            p50_us: number(ours.get(1)?)?,
            floor_per_second: number(floor.first()?)?,
            library_ratio: number(floor.get(4)?)?,
        })
    }
}

/// Returns a number rounded to thousands, with a comma between groups of digits.
fn thousands(number: f64) -> String {
    let rounded = (number / 1000.0).round() as u64;
    match rounded {
        0..1000 => format!("{rounded},000"),
        _ => format!("{},{:03},000", rounded / 1000, rounded % 1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_read_by_its_columns() {
        let text = "medians of 3 runs\nbus work\n\
            redis queue  2  1 |  1762 472.32 4435.97 4640.77 390.67 101.3 247.42 0 | 2404 279.81 1.68x 361.21 1.31x\n\
            none  engine 1  1 | 370513 2.48 3.55 39.07 2.69 0.0 0.00 0 |\n```\n";
        let table = Table::read(text);
        assert_eq!(table.0.len(), 1);
        let row = table.row("redis", "queue", 1);
        assert_eq!((row.calls_per_second, row.p50_us, row.floor_per_second), (1762.0, 472.32, 2404.0));
        assert_eq!(row.library_ratio, 1.31);
    }

    #[test]
    fn thousands_are_grouped() {
        assert_eq!([26_528.0, 1_507_777.0].map(thousands), ["27,000", "1,508,000"]);
    }
}
