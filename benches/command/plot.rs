//! A chart of the results: for each cell, bars for latency and CPU time, with marks for the floor.

use std::fmt::Write;

use crate::row::Row;

const ROW: f64 = 20.0;
const TOP: f64 = 64.0;
const LABELS: f64 = 250.0;
const PANEL: f64 = 380.0;
const APART: f64 = 90.0;

const BLACK: &str = "#222";
const GREY: &str = "#ccc";
const BLUE: &str = "#05a";
const ORANGE: &str = "#c60";

/// Draws the chart as SVG.
pub(crate) fn chart(cells: &[Row]) -> String {
    let bar = |cell: &Row, value, most, floor| {
        let figure = |name| cell.figure(name).unwrap_or_default();
        Bar { value: figure(value), most: figure(most), floor: cell.figure(floor) }
    };
    let latencies = |cell: &Row| bar(cell, "p50_us", "p99_us", "floor_p50_us");
    let cpu = |cell: &Row| bar(cell, "cpu_us_per_call", "cpu_us_per_call", "floor_cpu_us_per_call");
    let height = TOP + ROW * cells.len() as f64 + 12.0;
    let width = LABELS + 2.0 * (PANEL + APART);
    let mut drawn = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    text(&mut drawn, 12.0, 22.0, "Bars: calls. Ticks: their floor, the same hops without the protocol.");
    for (row, cell) in cells.iter().enumerate() {
        let Row { bus, work, concurrency, threads, .. } = cell;
        text(
            &mut drawn,
            12.0,
            y(row) + 13.0,
            &format!("{bus} {work}, {concurrency} at a time, {threads} threads"),
        );
    }
    let bars: Vec<_> = cells.iter().map(latencies).collect();
    panel(&mut drawn, LABELS, "median latency, line to the 99th percentile, us", &bars);
    let bars: Vec<_> = cells.iter().map(cpu).collect();
    panel(&mut drawn, LABELS + PANEL + APART, "CPU time of this process per call, us", &bars);
    drawn + "</svg>\n"
}

struct Bar {
    value: f64,
    /// The end of the line.
    most: f64,
    floor: Option<f64>,
}

fn y(row: usize) -> f64 {
    TOP + ROW * row as f64
}

/// Draws a column of bars. The scale is logarithmic, since buses differ by orders of magnitude.
fn panel(drawn: &mut String, left: f64, title: &str, bars: &[Bar]) {
    let values = || bars.iter().flat_map(|bar| [Some(bar.value), Some(bar.most), bar.floor]).flatten();
    let (least, most) = values()
        .filter(|value| *value > 0.0)
        .fold((f64::MAX, 0.0_f64), |(least, most), value| (least.min(value), most.max(value)));
    let (first, last) = (least.log10().floor(), most.log10().ceil());
    let x = |value: f64| left + PANEL * ((value.max(least).log10() - first) / (last - first).max(1.0));
    text(drawn, left, 42.0, title);
    let bottom = y(bars.len());
    for decade in first as i32..=last as i32 {
        let at = 10_f64.powi(decade);
        line(drawn, (x(at), TOP - 4.0), (x(at), bottom), GREY, 1.0);
        text(drawn, x(at), TOP - 8.0, &at.to_string());
    }
    for (row, bar) in bars.iter().enumerate() {
        let (top, middle, end) = (y(row) + 4.0, y(row) + ROW / 2.0, x(bar.value));
        put(
            drawn,
            format_args!(
                "<rect x=\"{left:.1}\" y=\"{top}\" width=\"{:.1}\" height=\"12\" fill=\"{BLUE}\"/>",
                end - left
            ),
        );
        line(drawn, (end, middle), (x(bar.most), middle), BLUE, 1.5);
        if let Some(floor) = bar.floor {
            line(drawn, (x(floor), top - 2.0), (x(floor), top + 14.0), ORANGE, 3.0);
        }
        text(drawn, x(bar.most) + 6.0, y(row) + 14.0, &format!("{:.1}", bar.value));
    }
}

fn line(drawn: &mut String, from: (f64, f64), to: (f64, f64), color: &str, width: f64) {
    let ((x1, y1), (x2, y2)) = (from, to);
    put(
        drawn,
        format_args!(
            "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{color}\" stroke-width=\"{width}\"/>"
        ),
    );
}

fn text(drawn: &mut String, x: f64, y: f64, words: &str) {
    put(drawn, format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" fill=\"{BLACK}\">{words}</text>"));
}

fn put(drawn: &mut String, element: std::fmt::Arguments<'_>) {
    writeln!(drawn, "{element}").expect("writing to a string succeeds");
}
