//! Every name that the Go module exports has its counterpart in docs/from-go.md.

/// The exported names, a package's behind a line that names it; functions of a type as `func (x T)
/// Name`.
const EXPORTED: &str = include_str!("../data/exported-names-go-v0.8.2.txt");

const GUIDE: &str = include_str!("../../../docs/from-go.md");

/// The name in a line: its last word, or that of the function of a type.
fn name(line: &str) -> Option<&str> {
    if line.starts_with("package ") { None } else { line.split(' ').next_back() }
}

#[test]
fn every_exported_name_is_in_the_guide() {
    let words: Vec<_> = GUIDE.split(|letter: char| !letter.is_alphanumeric() && letter != '_').collect();
    let names: Vec<_> = EXPORTED.lines().filter_map(name).collect();
    assert_eq!(names.len(), 160);
    let missing: Vec<_> = names.into_iter().filter(|name| !words.contains(name)).collect();
    assert!(missing.is_empty(), "not in docs/from-go.md: {missing:?}");
}
