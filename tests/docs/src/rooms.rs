//! The picture of the crates that users depend on: each on the row above the last that it needs.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value;

const BOX: (f64, f64) = (150.0, 40.0);
const GAP: (f64, f64) = (26.0, 56.0);
const MARGIN: f64 = 20.0;

/// Draws the published crates of the workspace and what each needs of the others, as an SVG.
pub(crate) fn draw(metadata: &Value) -> String {
    let rooms = rooms(metadata);
    let rows = rows(&rooms);
    let widest = rows.iter().map(Vec::len).max().unwrap_or_default() as f64;
    let width = 2.0 * MARGIN + widest * (BOX.0 + GAP.0) - GAP.0;
    let height = 2.0 * MARGIN + rows.len() as f64 * (BOX.1 + GAP.1) - GAP.1;
    let mut places = BTreeMap::new();
    for (row, names) in rows.iter().rev().enumerate() {
        let inset = (width - names.len() as f64 * (BOX.0 + GAP.0) + GAP.0) / 2.0;
        for (column, name) in names.iter().enumerate() {
            let x = inset + column as f64 * (BOX.0 + GAP.0);
            places.insert(*name, (x, MARGIN + row as f64 * (BOX.1 + GAP.1)));
        }
    }
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (name, needs) in &rooms {
        let (x, y) = places[name.as_str()];
        for needed in direct(&rooms, needs) {
            let (to_x, to_y) = places[needed];
            let (from, to) = (x + BOX.0 / 2.0, to_x + BOX.0 / 2.0);
            let bottom = y + BOX.1;
            let _ = writeln!(
                svg,
                "<path d=\"M{from} {bottom} C{from} {} {to} {} {to} {to_y}\" fill=\"none\" stroke=\"#888\"/>",
                bottom + GAP.1 / 2.0,
                to_y - GAP.1 / 2.0,
            );
        }
    }
    for (name, (x, y)) in &places {
        let (middle, baseline) = (x + BOX.0 / 2.0, y + BOX.1 / 2.0 + 5.0);
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{}\" height=\"{}\" rx=\"6\" fill=\"#eef4fa\" stroke=\"#05a\"/>\n\
             <text x=\"{middle}\" y=\"{baseline}\" text-anchor=\"middle\">{name}</text>",
            BOX.0, BOX.1
        );
    }
    svg + "</svg>\n"
}

/// The published crates, each with those of them that it needs.
type Rooms = BTreeMap<String, Vec<String>>;

fn rooms(metadata: &Value) -> Rooms {
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let published = packages.filter(|package| package["publish"].is_null());
    let mut rooms = Rooms::new();
    for package in published {
        let dependencies = package["dependencies"].as_array().into_iter().flatten();
        // Those of tests and of build scripts are no part of the picture.
        let normal = dependencies.filter(|dependency| dependency["kind"].is_null());
        let names = normal.filter_map(|dependency| dependency["name"].as_str()).map(str::to_owned);
        rooms.insert(package["name"].as_str().unwrap_or_default().to_owned(), names.collect());
    }
    let known: Vec<_> = rooms.keys().cloned().collect();
    rooms.values_mut().for_each(|needs| needs.retain(|name| known.contains(name)));
    rooms
}

/// Sorts the crates into rows, so that each needs only crates of earlier rows.
fn rows(rooms: &Rooms) -> Vec<Vec<&str>> {
    let mut rows: Vec<Vec<&str>> = Vec::new();
    let mut placed: Vec<&str> = Vec::new();
    while placed.len() < rooms.len() {
        let is_next = |(name, needs): &(&String, &Vec<String>)| {
            !placed.contains(&name.as_str()) && needs.iter().all(|need| placed.contains(&need.as_str()))
        };
        let row: Vec<_> = rooms.iter().filter(is_next).map(|(name, _)| name.as_str()).collect();
        assert!(!row.is_empty(), "crates need each other in a circle");
        placed.extend(&row);
        rows.push(row);
    }
    rows
}

/// Leaves out what is needed by way of another as well.
fn direct<'a>(rooms: &'a Rooms, needs: &'a [String]) -> impl Iterator<Item = &'a str> {
    let is_indirect = |name: &String| needs.iter().any(|other| other != name && reaches(rooms, other, name));
    needs.iter().filter(move |name| !is_indirect(name)).map(String::as_str)
}

fn reaches(rooms: &Rooms, from: &str, to: &str) -> bool {
    rooms[from].iter().any(|need| need == to || reaches(rooms, need, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(rooms: &[(&str, &[&str])]) -> Rooms {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        rooms.iter().map(|(name, needs)| ((*name).to_owned(), owned(needs))).collect()
    }

    #[test]
    fn a_crate_stands_above_all_that_it_needs() {
        let rooms = of(&[("a", &["b", "c"]), ("b", &["c"]), ("c", &[]), ("d", &["c"])]);
        assert_eq!(rows(&rooms), [vec!["c"], vec!["b", "d"], vec!["a"]]);
    }

    #[test]
    fn what_is_needed_by_way_of_another_has_no_line_of_its_own() {
        let rooms = of(&[("a", &["b", "c"]), ("b", &["c"]), ("c", &[])]);
        assert_eq!(direct(&rooms, &rooms["a"]).collect::<Vec<_>>(), ["b"]);
    }
}
