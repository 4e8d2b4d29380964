//! The table of the published crates in the README.

use std::collections::BTreeSet;
use std::fmt::Write;

use serde_json::Value;

/// The order of the rows: the crates that a user adds first come first. Other published crates
/// follow.
const ORDER: [&str; 13] = [
    "psrpc-tokio",
    "psrpc-smol",
    "psrpc-build",
    "psrpc-bus-local",
    "psrpc-bus-redis",
    "psrpc-bus-nats",
    "psrpc-bus-url",
    "psrpc-testing",
    "psrpc",
    "psrpc-bus-net",
    "psrpc-engine",
    "psrpc-proto",
    "psrpc-conformance",
];

/// Makes the table from `cargo metadata` and `cargo tree`.
pub(crate) fn make(metadata: &Value) -> String {
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let mut published: Vec<_> = packages.filter(|package| package["publish"].is_null()).collect();
    let place = |package: &&Value| {
        let name = package["name"].as_str().unwrap_or_default();
        ORDER.iter().position(|known| *known == name).unwrap_or(ORDER.len())
    };
    published.sort_by_key(place);
    let mut table =
        "| crate | what it is | features | MSRV | dependencies |\n|---|---|---|---|---|\n".to_owned();
    for package in published {
        let text = |key: &str| package[key].as_str().unwrap_or_default();
        let count = dependencies(text("name"));
        let features = features(package);
        let _ = writeln!(
            table,
            "| `{}` | {} | {features} | {} | {count} |",
            text("name"),
            text("description"),
            text("rust_version"),
        );
    }
    table
}

/// Lists the cargo features of a crate, those that are on by default in bold.
fn features(package: &Value) -> String {
    let Some(features) = package["features"].as_object() else { return String::new() };
    let defaults = features.get("default").and_then(Value::as_array).into_iter().flatten();
    let defaults: BTreeSet<_> = defaults.filter_map(Value::as_str).collect();
    let names = features.keys().filter(|name| *name != "default");
    let shown = names.map(|name| match defaults.contains(name.as_str()) {
        true => format!("**`{name}`**"),
        false => format!("`{name}`"),
    });
    shown.collect::<Vec<_>>().join(", ")
}

/// Counts the dependencies of a crate with its default features, those of its build scripts and
/// proc-macros included. The count is for one target, so that it is the same on every machine.
fn dependencies(name: &str) -> usize {
    let tree = crate::cargo(&[
        "tree",
        "--package",
        name,
        "--edges",
        "no-dev",
        "--prefix",
        "none",
        "--no-dedupe",
        "--format",
        "{p}",
        "--target",
        "x86_64-unknown-linux-gnu",
        "--locked",
    ]);
    let crates: BTreeSet<_> = tree.lines().filter(|line| !line.is_empty()).collect();
    crates.len() - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_that_are_on_by_default_are_bold() {
        let package = serde_json::json!({ "features": { "default": ["tokio"], "smol": [], "tokio": [] } });
        assert_eq!(features(&package), "`smol`, **`tokio`**");
        assert_eq!(features(&serde_json::json!({ "features": {} })), "");
    }
}
