//! The sequence chart: draws a run as a message sequence chart.
//!
//! Each event has its own row, so that texts do not overlap. A frame is an arrow from the row in
//! which it is published to the row in which it arrives. The texts of clients are to their left,
//! and the texts of servers to their right, which leaves the middle to the arrows.

mod short_names;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use self::short_names::ShortNames;
use crate::judge::violation::Violation;
use crate::trace::{Line, LineKind};

/// The maximum number of rows. Of a longer run only the end is drawn.
const ROWS: usize = 120;

/// The maximum number of letters of a text. The tooltip has the full text.
const LETTERS: usize = 74;

const LETTER: f64 = 6.7;
const ROW: f64 = 18.0;
/// The first row, below the heads of the lifelines.
const TOP: f64 = 96.0;
const TIME: f64 = 84.0;
const MARGIN: f64 = LETTERS as f64 * LETTER + 16.0;
const COLUMN: f64 = 120.0;
/// The distance between the clients and the servers.
const GAP: f64 = 260.0;

const BLACK: &str = "#222";
const GREY: &str = "#888";
const BLUE: &str = "#05a";
const ORANGE: &str = "#c60";
const RED: &str = "#c00";

/// Draws the lines of a trace as an SVG.
pub fn sequence_chart(seed: u64, lines: &[Line], violation: Option<&Violation>) -> String {
    let shown: Vec<_> = lines.iter().filter(|line| line.kind != LineKind::Detail).collect();
    let skipped = shown.len().saturating_sub(ROWS);
    let mut chart = SequenceChart::new(&shown, skipped);
    chart.lifelines();
    for (row, line) in shown.iter().enumerate().skip(skipped) {
        chart.arrow(row, line);
    }
    // Texts come after the arrows, so that they are on top.
    for (row, line) in shown.iter().enumerate() {
        let what = chart.names.replace_ids(&line.text);
        if let Some(id) = line.text.strip_prefix("starts as ") {
            chart.names.name(id, &line.source);
        }
        let label = match &line.kind {
            LineKind::Publish(_, label) | LineKind::Arrival(_, _, label) => chart.names.replace_ids(label),
            _ => what.clone(),
        };
        if row >= skipped {
            chart.time(
                row,
                row.checked_sub(1).filter(|before| *before >= skipped).map(|row| shown[row]),
                line,
            );
            chart.row(row, line, &label, &what);
        }
    }
    chart.finish(seed, violation)
}

struct SequenceChart {
    /// The lifelines of the nodes and their positions, from left to right.
    columns: Vec<(String, f64)>,
    names: ShortNames,
    width: f64,
    rows: usize,
    skipped: usize,
    /// The publisher and the row of each frame.
    published: BTreeMap<u64, (String, usize)>,
    drawn: String,
}

impl SequenceChart {
    fn new(shown: &[&Line], skipped: usize) -> Self {
        let published = shown.iter().enumerate().filter_map(|(row, line)| match line.kind {
            LineKind::Publish(number, _) => Some((number, (line.source.clone(), row))),
            _ => None,
        });
        let published: BTreeMap<_, _> = published.collect();
        let mut nodes = BTreeSet::new();
        for line in &shown[skipped..] {
            nodes.insert(line.source.clone());
            match line.kind {
                LineKind::Loss(number, to, _) => {
                    nodes.insert(to.to_string());
                    nodes.extend(published.get(&number).map(|(from, _)| from.clone()));
                }
                LineKind::Arrival(number, ..) => {
                    nodes.extend(published.get(&number).map(|(from, _)| from.clone()));
                }
                _ => {}
            }
        }
        // Clients come before servers, and node 2 before node 10.
        let mut nodes: Vec<_> = nodes.into_iter().filter(|node| node.contains('-')).collect();
        nodes.sort_by_key(|node| (is_server(node), node.len(), node.clone()));
        let mut columns = Vec::new();
        let mut x = TIME + MARGIN;
        for (index, node) in nodes.iter().enumerate() {
            if index > 0 {
                x += if is_server(node) == is_server(&nodes[index - 1]) { COLUMN } else { GAP };
            }
            columns.push((node.clone(), x));
        }
        let (rows, names, drawn) = (shown.len() - skipped, ShortNames::default(), String::new());
        Self { columns, names, width: x + MARGIN, rows, skipped, published, drawn }
    }

    fn y(&self, row: usize) -> f64 {
        TOP + ROW * row.saturating_sub(self.skipped) as f64
    }

    fn x(&self, node: &str) -> Option<f64> {
        self.columns.iter().find(|(known, _)| known == node).map(|(_, x)| *x)
    }

    fn lifelines(&mut self) {
        let (top, bottom) = (TOP - 2.0 * ROW, self.y(self.skipped + self.rows));
        for (node, x) in &self.columns {
            line(&mut self.drawn, (*x, top), (*x, bottom), GREY, false);
            let width = LETTER * node.len() as f64 + 16.0;
            let left = x - width / 2.0;
            let _ = writeln!(
                self.drawn,
                r##"<rect x="{left:.1}" y="{:.1}" width="{width:.1}" height="20" rx="4" fill="#eee" stroke="{GREY}"/>"##,
                top - 20.0,
            );
            text(&mut self.drawn, (*x, top - 6.0), "middle", BLACK, node, node);
        }
    }

    /// Draws the arrow of a frame that arrives or is lost.
    fn arrow(&mut self, row: usize, shown: &Line) {
        let (number, to, fault) = match shown.kind {
            LineKind::Arrival(number, fault, _) => (number, shown.source.clone(), fault),
            LineKind::Loss(number, to, fault) => (number, to.to_string(), Some(fault)),
            _ => return,
        };
        let Some((from, published)) = self.published.get(&number) else { return };
        let (Some(from), Some(to)) = (self.x(from), self.x(&to)) else { return };
        let (start, end) = ((from, self.y(*published)), (to, self.y(row)));
        let color = if fault.is_some() { ORANGE } else { BLACK };
        if matches!(shown.kind, LineKind::Loss(..)) {
            let lost = ((from + to) / 2.0, end.1);
            line(&mut self.drawn, start, lost, color, true);
            let (x, y) = lost;
            line(&mut self.drawn, (x - 5.0, y - 5.0), (x + 5.0, y + 5.0), RED, false);
            line(&mut self.drawn, (x - 5.0, y + 5.0), (x + 5.0, y - 5.0), RED, false);
        } else {
            line(&mut self.drawn, start, end, color, fault.is_some());
            head(&mut self.drawn, start, end, color);
        }
    }

    fn time(&mut self, row: usize, before: Option<&Line>, shown: &Line) {
        if before.is_none_or(|before| before.at != shown.at) {
            let micros = shown.at.as_nanos() / 1000;
            let time = format!("{}.{:03}", micros / 1000, micros % 1000);
            let at = (TIME - 8.0, self.y(row) + 4.0);
            text(&mut self.drawn, at, "end", GREY, &time, &format!("{time} ms"));
        }
    }

    fn row(&mut self, row: usize, shown: &Line, label: &str, full: &str) {
        let y = self.y(row);
        let (x, anchor, color, label) = match (&shown.kind, self.x(&shown.source)) {
            (LineKind::Loss(number, to, fault), _) => {
                let x = self.halfway(*number, &to.to_string()).unwrap_or(self.width / 2.0);
                (x + 10.0, "start", RED, fault.name().to_owned())
            }
            (_, None) if shown.source == "run" => {
                line(&mut self.drawn, (TIME, y), (self.width - 8.0, y), GREY, true);
                (self.width / 2.0, "middle", GREY, label.to_owned())
            }
            (_, None) => (self.width / 2.0, "middle", ORANGE, label.to_owned()),
            (kind, Some(x)) => {
                let (color, label) = match kind {
                    LineKind::Arrival(_, Some(fault), _) => (ORANGE, format!("{label} ({})", fault.name())),
                    LineKind::Publish(..) | LineKind::Arrival(..) => (BLACK, label.to_owned()),
                    _ => (BLUE, label.to_owned()),
                };
                let _ = writeln!(self.drawn, r#"<circle cx="{x:.1}" cy="{y:.1}" r="2.5" fill="{color}"/>"#);
                let (x, anchor) =
                    if is_server(&shown.source) { (x + 9.0, "start") } else { (x - 9.0, "end") };
                (x, anchor, color, label)
            }
        };
        text(&mut self.drawn, (x, y + 4.0), anchor, color, &cut(&label), full);
    }

    fn halfway(&self, number: u64, to: &str) -> Option<f64> {
        let (from, _) = self.published.get(&number)?;
        Some((self.x(from)? + self.x(to)?) / 2.0)
    }

    fn finish(mut self, seed: u64, violation: Option<&Violation>) -> String {
        let mut y = self.y(self.skipped + self.rows) + ROW;
        if let Some(violation) = violation {
            let what = self.names.replace_ids(&violation.to_string());
            let letters: Vec<_> = what.chars().collect();
            for part in letters.chunks(((self.width - 2.0 * TIME) / LETTER) as usize) {
                let part: String = part.iter().collect();
                text(&mut self.drawn, (TIME, y + 4.0), "start", RED, &part, &part);
                y += ROW;
            }
        }
        let mut title = format!("seed {seed}; time in ms");
        if self.skipped > 0 {
            let _ = write!(
                title,
                "; the first {} rows of {} are left out",
                self.skipped,
                self.skipped + self.rows
            );
        }
        text(&mut self.drawn, (8.0, 20.0), "start", BLACK, &title, &title);
        let key = "dashed: delayed, changed or added by a fault; cross: lost";
        text(&mut self.drawn, (8.0, 38.0), "start", GREY, key, key);
        let (width, height) = (self.width, y + ROW);
        format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0}" height="{height:.0}" viewBox="0 0 {width:.0} {height:.0}" font-family="monospace" font-size="11">
<rect width="100%" height="100%" fill="white"/>
{}</svg>
"#,
            self.drawn,
        )
    }
}

fn is_server(node: &str) -> bool {
    node.starts_with("server")
}

type Point = (f64, f64);

fn line(drawn: &mut String, from: Point, to: Point, color: &str, dashed: bool) {
    let dashes = if dashed { r#" stroke-dasharray="5 3""# } else { "" };
    let ((x1, y1), (x2, y2)) = (from, to);
    let _ = writeln!(
        drawn,
        r#"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" stroke="{color}"{dashes}/>"#,
    );
}

/// Draws the head of an arrow.
fn head(drawn: &mut String, (x1, y1): Point, (x2, y2): Point, color: &str) {
    let length = (x2 - x1).hypot(y2 - y1).max(1.0);
    let (along, across) = ((9.0 * (x2 - x1) / length, 9.0 * (y2 - y1) / length), 0.4);
    let (back_x, back_y) = (x2 - along.0, y2 - along.1);
    let (side_x, side_y) = (across * along.1, across * along.0);
    let _ = writeln!(
        drawn,
        r#"<polygon points="{x2:.1},{y2:.1} {:.1},{:.1} {:.1},{:.1}" fill="{color}"/>"#,
        back_x + side_x,
        back_y - side_y,
        back_x - side_x,
        back_y + side_y,
    );
}

/// Draws a text on a white background, to keep it readable over lines. The tooltip has the full
/// text.
fn text(drawn: &mut String, (x, y): Point, anchor: &str, color: &str, shown: &str, full: &str) {
    let width = LETTER * shown.chars().count() as f64;
    let left = match anchor {
        "start" => x,
        "end" => x - width,
        _ => x - width / 2.0,
    };
    let _ = writeln!(
        drawn,
        r#"<rect x="{left:.1}" y="{:.1}" width="{width:.1}" height="13" fill="white" fill-opacity="0.85"/>"#,
        y - 10.0,
    );
    let _ = writeln!(
        drawn,
        r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" fill="{color}"><title>{}</title>{}</text>"#,
        escaped(full),
        escaped(shown),
    );
}

/// Cuts a text that is too long.
fn cut(text: &str) -> String {
    match text.char_indices().nth(LETTERS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use psrpc_engine::Time;

    use super::*;
    use crate::fault::Fault;
    use crate::judge::violation::Invariant;
    use crate::node_id::NodeId;

    fn line(millis: u64, source: &str, text: &str, kind: LineKind) -> Line {
        Line {
            at: Time::from_nanos(millis * 1_000_000),
            source: source.to_owned(),
            text: text.to_owned(),
            kind,
        }
    }

    fn call() -> Vec<Line> {
        let label = |text: &str| text.to_owned();
        vec![
            line(0, "client-0", "starts as CLI_ann", LineKind::Note),
            line(0, "client-0", "Subscription(0.0) is live", LineKind::Detail),
            line(1, "client-0", "publishes request REQ_hat", LineKind::Publish(0, label("request REQ_hat"))),
            line(1, "bus", "drop to server-10", LineKind::Loss(0, NodeId::Server(10), Fault::Drop)),
            line(3, "server-2", "gets request REQ_hat", LineKind::Arrival(0, None, label("request REQ_hat"))),
            line(
                4,
                "server-2",
                "gets it",
                LineKind::Arrival(0, Some(Fault::Duplicate), label("request REQ_hat")),
            ),
        ]
    }

    /// Returns the texts of a chart, without their tooltips.
    fn texts(chart: &str) -> Vec<&str> {
        let ends = chart.lines().filter_map(|line| line.strip_suffix("</text>"));
        ends.map(|text| text.rsplit_once("</title>").expect("each text has a tooltip").1).collect()
    }

    #[test]
    fn a_frame_is_an_arrow_to_each_receiver_and_a_cross_where_it_is_lost() {
        let violation =
            Violation { invariant: Invariant::I2, what: "REQ_hat by CLI_ann ran twice".to_owned() };
        let chart = sequence_chart(7, &call(), Some(&violation));
        let expected = [
            // Clients before servers, and server-2 before server-10.
            "client-0",
            "server-2",
            "server-10",
            "0.000",
            "starts as CLI_ann",
            "1.000",
            "request r1",
            "drop",
            "3.000",
            "request r1",
            "4.000",
            "request r1 (duplicate)",
            "I2: r1 by client-0 ran twice",
            "seed 7; time in ms",
            "dashed: delayed, changed or added by a fault; cross: lost",
        ];
        assert_eq!(texts(&chart), expected);
        assert_eq!(chart.matches("<polygon").count(), 2, "the heads of two arrows");
        assert_eq!(
            chart.matches(RED).count(),
            2 + 1 + 1,
            "the two lines and the label of a cross, and the violation"
        );
        assert_eq!(chart.matches("stroke-dasharray").count(), 2, "the lost frame and the duplicate");
    }

    #[test]
    fn only_the_end_of_a_long_run_is_drawn_and_the_chart_says_so() {
        let shown = |number| line(number, "client-0", &format!("does {number}"), LineKind::Note);
        let chart = sequence_chart(7, &(0..ROWS as u64 + 5).map(shown).collect::<Vec<_>>(), None);
        let texts = texts(&chart);
        assert!(texts.contains(&"does 5") && texts.contains(&"does 124") && !texts.contains(&"does 4"));
        assert!(texts.contains(&"seed 7; time in ms; the first 5 rows of 125 are left out"), "{texts:?}");
    }

    #[test]
    fn a_text_is_escaped_and_cut_and_its_tooltip_is_not_cut() {
        let long = format!("a < b & c {}", "z".repeat(LETTERS));
        let chart = sequence_chart(7, &[line(0, "client-0", &long, LineKind::Note)], None);
        let shown = texts(&chart)[2];
        assert!(shown.starts_with("a &lt; b &amp; c zz") && shown.ends_with("z…"), "{shown}");
        assert!(chart.contains(&format!("<title>{}</title>", escaped(&long))));
    }
}
