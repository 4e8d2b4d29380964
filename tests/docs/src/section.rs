//! Sections of a document that a command makes, between two comments.

/// Replaces the content of the section `name`, or returns why its markers cannot be found.
///
/// The section begins after a line that starts with `<!-- NAME:`, and ends before the line
/// `<!-- end of NAME -->`.
pub(crate) fn replace(document: &str, name: &str, content: &str) -> Result<String, String> {
    let (before, _, after) = split(document, name)?;
    Ok([before, content, after].concat())
}

/// Returns the content of the section `name`, or why its markers cannot be found.
pub(crate) fn find<'a>(document: &'a str, name: &str) -> Result<&'a str, String> {
    split(document, name).map(|(_, content, _)| content)
}

/// Splits a document into the text up to the first marker, the content, and the text from the
/// second marker on.
fn split<'a>(document: &'a str, name: &str) -> Result<(&'a str, &'a str, &'a str), String> {
    let (start, end) = (format!("<!-- {name}:"), format!("<!-- end of {name} -->"));
    let at = document.find(&start).ok_or_else(|| format!("there is no line that starts with `{start}`"))?;
    let content = document[at..].find('\n').map_or(document.len(), |length| at + length + 1);
    let length = document[content..].find(&end).ok_or_else(|| format!("there is no line `{end}`"))?;
    let (before, rest) = document.split_at(content);
    let (content, after) = rest.split_at(length);
    Ok((before, content, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_replaced_between_its_markers() {
        let document = "a\n<!-- table: made -->\nold\n<!-- end of table -->\nb\n";
        let replaced = replace(document, "table", "new\n").unwrap();
        assert_eq!(replaced, "a\n<!-- table: made -->\nnew\n<!-- end of table -->\nb\n");
        assert_eq!(
            replace("a", "table", ""),
            Err("there is no line that starts with `<!-- table:`".to_owned())
        );
    }
}
