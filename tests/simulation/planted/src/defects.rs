//! The defects of tests/simulation/defects.txt, and the changed files that contain them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use psrpc_features::change::Change;

/// The start of a condition.
const CONDITION: &str = "planted!(";

/// A bug that can be planted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Defect {
    /// The name in camel case.
    pub(crate) name: String,
    /// A sentence that describes the bug.
    pub(crate) what: String,
}

/// All defects, in the order of the file, and the changes that plant them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Defects {
    pub(crate) defects: Vec<Defect>,
    pub(crate) changes: Vec<Change>,
}

impl Defects {
    /// Parses defects from a text of blocks, separated by empty lines:
    ///
    /// ```text
    /// NAME: A sentence that describes the bug.
    /// @ FILE
    /// - a line to replace, or several
    /// + the lines that replace them, with the condition `planted!(NAME)`
    /// ```
    ///
    /// A block may contain several changes. Defects that change the same lines share a block, which
    /// names each of them.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut all = Self { defects: Vec::new(), changes: Vec::new() };
        let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        for block in lines.split(|line| line.is_empty()).filter(|block| !block.is_empty()) {
            all.parse_block(block).ok_or_else(|| format!("cannot parse a defect:\n{}", block.join("\n")))?;
        }
        all.check()?;
        Ok(all)
    }

    fn parse_block(&mut self, block: &[&str]) -> Option<()> {
        let heads = block.iter().take_while(|line| !line.starts_with('@')).count();
        let (heads, changes) = block.split_at(heads);
        for head in heads {
            let (name, what) = head.split_once(": ")?;
            self.defects.push(Defect { name: name.to_owned(), what: what.to_owned() });
        }
        if changes.is_empty() {
            return None;
        }
        for change in changes.chunk_by(|_, line| !line.starts_with('@')) {
            let (file, lines) = (change[0].strip_prefix("@ ")?, &change[1..]);
            let is_known = lines.iter().all(|line| line.starts_with(['-', '+']));
            self.changes.push(Change::parse(file, lines).filter(|_| is_known)?);
        }
        Some(())
    }

    /// Checks that every defect has a unique name and a condition, and that every condition belongs
    /// to a defect.
    fn check(&self) -> Result<(), String> {
        let mut names = BTreeSet::new();
        for Defect { name, .. } in &self.defects {
            if !names.insert(name.as_str()) {
                return Err(format!("duplicate defect {name}"));
            }
        }
        let texts = self.changes.iter().flat_map(|change| change.replace.split(CONDITION).skip(1));
        let planted: BTreeSet<_> = texts.filter_map(|text| Some(text.split_once(')')?.0)).collect();
        if let Some(name) = names.difference(&planted).next() {
            return Err(format!("no change contains planted!({name})"));
        }
        match planted.difference(&names).next() {
            Some(name) => Err(format!("planted!({name}) has no defect: add a line `{name}: DESCRIPTION`")),
            None => Ok(()),
        }
    }

    /// Returns the text of each changed file, by its path.
    ///
    /// Fails unless the lines of each change occur exactly once in the file.
    pub(crate) fn apply(&self, root: &Path) -> Result<BTreeMap<String, String>, String> {
        let mut by_file = BTreeMap::<_, Vec<_>>::new();
        for change in &self.changes {
            by_file.entry(&change.file).or_default().push(change);
        }
        let apply = |(file, changes): (&String, Vec<&Change>)| {
            let text = fs::read_to_string(root.join(file))
                .map_err(|error| format!("cannot read {file}: {error}"))?;
            Ok((file.clone(), apply_all(text, &changes)?))
        };
        by_file.into_iter().map(apply).collect()
    }

    /// Returns the macro call that declares the defects in the module `planted`.
    pub(crate) fn declaration(&self) -> String {
        let one = |Defect { name, what }: &Defect| format!("    /// {what}\n    {name}\n");
        format!("defects! {{\n{}}}\n", self.defects.iter().map(one).collect::<String>())
    }
}

/// Applies changes to one text. They must not overlap.
fn apply_all(mut text: String, changes: &[&Change]) -> Result<String, String> {
    let ranges = changes.iter().map(|change| Ok((change.range(&text)?, *change)));
    let mut ranges: Vec<_> = ranges.collect::<Result<_, String>>()?;
    ranges.sort_by_key(|(range, _)| range.start);
    for pair in ranges.windows(2) {
        let [(first, change), (second, _)] = pair else { continue };
        if first.end > second.start {
            return Err(format!("{}: another change touches these lines:\n{}", change.file, change.find));
        }
    }
    for (range, change) in ranges.into_iter().rev() {
        text.replace_range(range, &change.replace);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "\
# A comment.

LateByOne: It ends too late.
Twice: It ends twice.
@ a.rs
- if now >= end {
+ if now > end && planted!(LateByOne) || planted!(Twice) {
@ b.rs
- end();
+ end();
+ if planted!(Twice) {
+     end();
+ }
";

    #[test]
    fn defects_that_share_lines_are_planted_together() {
        let defects = Defects::parse(TWO).unwrap();
        assert_eq!(
            defects.declaration(),
            "defects! {\n    /// It ends too late.\n    LateByOne\n    /// It ends twice.\n    Twice\n}\n"
        );
        let tree = tempfile::tempdir().unwrap();
        fs::write(tree.path().join("a.rs"), "start();\nif now >= end {\n}\n").unwrap();
        fs::write(tree.path().join("b.rs"), "end();\n").unwrap();
        let planted = defects.apply(tree.path()).unwrap();
        assert_eq!(
            planted["a.rs"],
            "start();\nif now > end && planted!(LateByOne) || planted!(Twice) {\n}\n"
        );
        assert_eq!(planted["b.rs"], "end();\nif planted!(Twice) {\n    end();\n}\n");
    }

    #[test]
    fn a_change_whose_lines_are_missing_or_ambiguous_is_refused() {
        let change = |find: &str| Change::parse("a.rs", &[&format!("- {find}"), "+ x"]).unwrap();
        let apply = |changes: &[&Change]| apply_all("one\ntwo\ntwo\n".to_owned(), changes);
        assert_eq!(apply(&[&change("one")]).unwrap(), "x\ntwo\ntwo\n");
        assert!(
            apply(&[&change("two")])
                .unwrap_err()
                .starts_with("a.rs: expected one occurrence of these lines, found 2")
        );
        assert!(
            apply(&[&change("three")])
                .unwrap_err()
                .starts_with("a.rs: expected one occurrence of these lines, found 0")
        );
        let overlap = apply(&[&change("one"), &change("ne")]).unwrap_err();
        assert!(overlap.starts_with("a.rs: another change touches these lines"), "{overlap}");
    }

    #[test]
    fn a_defect_without_a_condition_and_a_condition_without_a_defect_are_refused() {
        let refused = |from, to| Defects::parse(&TWO.replace(from, to)).unwrap_err();
        assert_eq!(refused("planted!(LateByOne)", "late"), "no change contains planted!(LateByOne)");
        assert_eq!(
            refused("LateByOne: It ends too late.\n", ""),
            "planted!(LateByOne) has no defect: add a line `LateByOne: DESCRIPTION`"
        );
        assert_eq!(refused("LateByOne:", "Twice:"), "duplicate defect Twice");
        assert!(refused("- end();\n", "").starts_with("cannot parse a defect:\n"));
    }
}
