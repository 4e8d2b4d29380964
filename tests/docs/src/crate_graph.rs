//! The picture of the published crates. Each is on a row above all crates that it depends on.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::svg::{GREY, Svg};

const BOX: (f64, f64) = (150.0, 40.0);
const GAP: (f64, f64) = (26.0, 56.0);
const MARGIN: f64 = 20.0;

/// Draws the published crates of the workspace and their dependencies on each other, as an SVG.
pub(crate) fn draw(metadata: &Value) -> String {
    let graph = graph(metadata);
    let rows = rows(&graph);
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
    let mut svg = Svg::new(width, height);
    for (name, dependencies) in &graph {
        let (x, y) = places[name.as_str()];
        for dependency in direct(&graph, dependencies) {
            let (to_x, to_y) = places[dependency];
            let (from, to) = (x + BOX.0 / 2.0, to_x + BOX.0 / 2.0);
            let bottom = y + BOX.1;
            svg.raw(&format!(
                "<path d=\"M{from} {bottom} C{from} {} {to} {} {to} {to_y}\" fill=\"none\" stroke=\"{GREY}\"/>",
                bottom + GAP.1 / 2.0,
                to_y - GAP.1 / 2.0,
            ));
        }
    }
    for (name, place) in &places {
        svg.labelled_box(*place, BOX, name);
    }
    svg.finish()
}

/// The published crates, each with its dependencies among them.
type Graph = BTreeMap<String, Vec<String>>;

fn graph(metadata: &Value) -> Graph {
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let published = packages.filter(|package| package["publish"].is_null());
    let mut graph = Graph::new();
    for package in published {
        let dependencies = package["dependencies"].as_array().into_iter().flatten();
        // The picture leaves out the dependencies of tests and build scripts.
        let normal = dependencies.filter(|dependency| dependency["kind"].is_null());
        let names = normal.filter_map(|dependency| dependency["name"].as_str()).map(str::to_owned);
        graph.insert(package["name"].as_str().unwrap_or_default().to_owned(), names.collect());
    }
    let known: Vec<_> = graph.keys().cloned().collect();
    graph.values_mut().for_each(|dependencies| dependencies.retain(|name| known.contains(name)));
    graph
}

/// Sorts the crates into rows, so that each depends only on crates of earlier rows.
fn rows(graph: &Graph) -> Vec<Vec<&str>> {
    let mut rows: Vec<Vec<&str>> = Vec::new();
    let mut placed: Vec<&str> = Vec::new();
    while placed.len() < graph.len() {
        let is_next = |(name, dependencies): &(&String, &Vec<String>)| {
            !placed.contains(&name.as_str())
                && dependencies.iter().all(|need| placed.contains(&need.as_str()))
        };
        let row: Vec<_> = graph.iter().filter(is_next).map(|(name, _)| name.as_str()).collect();
        assert!(!row.is_empty(), "the dependencies of the crates form a cycle");
        placed.extend(&row);
        rows.push(row);
    }
    rows
}

/// Leaves out dependencies that another dependency has too.
fn direct<'a>(graph: &'a Graph, dependencies: &'a [String]) -> impl Iterator<Item = &'a str> {
    let is_indirect =
        |name: &String| dependencies.iter().any(|other| other != name && reaches(graph, other, name));
    dependencies.iter().filter(move |name| !is_indirect(name)).map(String::as_str)
}

fn reaches(graph: &Graph, from: &str, to: &str) -> bool {
    graph[from].iter().any(|need| need == to || reaches(graph, need, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(graph: &[(&str, &[&str])]) -> Graph {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        graph.iter().map(|(name, dependencies)| ((*name).to_owned(), owned(dependencies))).collect()
    }

    #[test]
    fn a_crate_is_above_all_its_dependencies() {
        let graph = of(&[("a", &["b", "c"]), ("b", &["c"]), ("c", &[]), ("d", &["c"])]);
        assert_eq!(rows(&graph), [vec!["c"], vec!["b", "d"], vec!["a"]]);
    }

    #[test]
    fn an_indirect_dependency_has_no_line() {
        let graph = of(&[("a", &["b", "c"]), ("b", &["c"]), ("c", &[])]);
        assert_eq!(direct(&graph, &graph["a"]).collect::<Vec<_>>(), ["b"]);
    }
}
