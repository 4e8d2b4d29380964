//! Checks that `docs/operations.md` lists everything that an operator may meet: every event, metric
//! and reason of the public API.

/// Where the names are, and the line before the first of them.
pub(crate) const LISTED: [(&str, &str); 9] = [
    ("psrpc-engine/src/reason.rs", "reasons! {"),
    ("psrpc-engine/src/event.rs", "pub enum ClientEvent {"),
    ("psrpc-engine/src/event.rs", "pub enum ServerEvent {"),
    ("psrpc-engine/src/stream/event.rs", "pub enum StreamEvent {"),
    ("psrpc/src/bus/event.rs", "pub enum BusEvent {"),
    ("psrpc/src/bus/monitor.rs", "pub enum Status {"),
    ("psrpc/src/middleware/observer.rs", "pub enum Observation {"),
    ("psrpc/src/middleware/observer.rs", "pub enum BidOutcome {"),
    ("psrpc/src/middleware/metrics/mod.rs", "pub trait MetricsObserver"),
];

/// Returns a problem for each name of a source that the document does not have in a code span.
pub(crate) fn missing(document: &str, path: &str, begin: &str, source: &str) -> Vec<String> {
    let names = names(source, begin);
    if names.is_empty() {
        return vec![format!("{path} has no names after \"{begin}\"")];
    }
    let is_missing = |name: &&str| !document.contains(&format!("`{name}`"));
    names
        .into_iter()
        .filter(is_missing)
        .map(|name| format!("docs/operations.md lacks `{name}` of {path}"))
        .collect()
}

/// Returns the variants of an enum, or the functions of a trait: what its lines at the first level
/// of indentation begin with.
fn names<'a>(source: &'a str, begin: &str) -> Vec<&'a str> {
    let lines = source.lines().skip_while(|line| !line.starts_with(begin)).skip(1);
    let inside = lines.take_while(|line| *line != "}");
    let declared = inside.filter_map(|line| line.strip_prefix("    "));
    let named = declared.filter_map(|line| {
        let name = line.strip_prefix("fn ").unwrap_or(line);
        let end = name.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(name.len());
        let is_variant = name.starts_with(|c: char| c.is_ascii_uppercase());
        (is_variant || name.len() < line.len()).then(|| &name[..end])
    });
    named.filter(|name| !name.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "\
pub enum Other {
    No,
}
pub enum Event {
    /// Lost.
    Lost {
        /// Why.
        cause: String,
    },
    Found(u8),
    Kept = \"kept\";
}
pub trait Observer: Send {
    /// Called.
    fn lost(&self) {
        Call();
    }
}
";

    #[test]
    fn the_names_are_variants_and_functions() {
        assert_eq!(names(SOURCE, "pub enum Event {"), ["Lost", "Found", "Kept"]);
        assert_eq!(names(SOURCE, "pub trait Observer"), ["lost"]);
    }

    #[test]
    fn a_name_that_is_not_listed_is_reported() {
        let problems = missing("`Lost` and `Found`", "event.rs", "pub enum Event {", SOURCE);
        assert_eq!(problems, ["docs/operations.md lacks `Kept` of event.rs"]);
        let problems = missing("", "event.rs", "pub enum Gone {", SOURCE);
        assert_eq!(problems, ["event.rs has no names after \"pub enum Gone {\""]);
    }
}
