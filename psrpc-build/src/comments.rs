//! Comments: what a .proto says in plain text or Markdown, made safe to stand in a Rust doc
//! comment. Nothing in it becomes a doctest, an HTML tag or a link to a Rust item, so rustdoc
//! neither runs it nor warns about it.

use prost_types::FileDescriptorSet;

/// Rewrites the comments of all files.
pub(crate) fn rewrite(files: &mut FileDescriptorSet) {
    let infos = files.file.iter_mut().filter_map(|file| file.source_code_info.as_mut());
    for location in infos.flat_map(|info| &mut info.location) {
        for comment in location.leading_comments.iter_mut().chain(&mut location.trailing_comments) {
            *comment = for_rustdoc(comment);
        }
        // Those become comments that rustdoc does not read.
        for comment in &mut location.leading_detached_comments {
            *comment = printable(comment);
        }
    }
}

/// A comment without the characters that rustc refuses in one.
fn printable(comment: &str) -> String {
    // Rust takes a carriage return as the end of a line only where a newline follows.
    let lines = comment.replace("\r\n", "\n").replace('\r', "\n");
    let changes_direction = |c: char| matches!(c, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}');
    lines.chars().filter(|&c| matches!(c, '\n' | '\t') || !(c.is_control() || changes_direction(c))).collect()
}

/// How far a line of text may be indented: one more, which prost adds, is still less than a code
/// block takes.
const MAX_INDENT: usize = 2;

/// The indentation that makes a code block.
const CODE_INDENT: usize = 4;

/// A fence that opens a code block whose content is not Rust.
const FENCE: &str = " ```text";

fn for_rustdoc(comment: &str) -> String {
    let comment = printable(comment).replace('\t', "    ");
    let lines: Vec<&str> = comment.lines().map(str::trim_end).collect();
    let indent_of = |line: &str| line.len() - line.trim_start_matches(' ').len();
    let margin = lines.iter().filter(|line| !line.is_empty()).map(|line| indent_of(line)).min().unwrap_or(0);
    // A line begins with one space at least, as most do.
    let margin = margin.max(1);
    let mut out: Vec<String> = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        let line = lines[at];
        let indent = indent_of(line).saturating_sub(margin);
        let text = line.trim_start();
        let after_blank = at == 0 || lines[at - 1].is_empty();
        if let Some(fence) = fence(text) {
            let block = &lines[at + 1..];
            let end = block.iter().position(|line| closes(line.trim(), fence)).unwrap_or(block.len());
            out.push(FENCE.to_owned());
            out.extend(block[..end].iter().map(|line| verbatim(line, margin)));
            out.push(" ```".to_owned());
            at += end + 2;
        } else if indent >= CODE_INDENT && after_blank && !is_list_item(text) {
            let rest = &lines[at..];
            let is_code = |line: &&str| line.is_empty() || indent_of(line) >= margin + CODE_INDENT;
            let mut end = rest.iter().position(|line| !is_code(line)).unwrap_or(rest.len());
            while rest[end - 1].is_empty() {
                end -= 1;
            }
            out.push(FENCE.to_owned());
            out.extend(rest[..end].iter().map(|line| verbatim(line, margin + CODE_INDENT)));
            out.push(" ```".to_owned());
            at += end;
        } else {
            out.push(match text {
                "" => String::new(),
                text => format!(" {}{}", " ".repeat(indent.min(MAX_INDENT)), escaped(text)),
            });
            at += 1;
        }
    }
    out.iter().map(|line| format!("{line}\n")).collect()
}

/// The fence that a line opens a code block with.
fn fence(text: &str) -> Option<&str> {
    let marker = text.chars().next().filter(|&c| matches!(c, '`' | '~'))?;
    let length = text.len() - text.trim_start_matches(marker).len();
    // A line with a backtick behind the fence is inline code.
    (length >= 3 && !(marker == '`' && text[length..].contains('`'))).then(|| &text[..length])
}

fn closes(text: &str, fence: &str) -> bool {
    text.len() >= fence.len() && text.trim_start_matches(&fence[..1]).is_empty()
}

/// A line of a code block. The fence in it would end the block.
fn verbatim(line: &str, margin: usize) -> String {
    let text = line.trim_start_matches(' ');
    let indent = (line.len() - text.len()).saturating_sub(margin);
    match text {
        "" => String::new(),
        text => format!(" {}{}", " ".repeat(indent), text.replace("```", "'''")),
    }
}

fn is_list_item(text: &str) -> bool {
    let behind = text.strip_prefix(['-', '*', '+']).or_else(|| {
        let number = text.trim_start_matches(|c: char| c.is_ascii_digit());
        number.strip_prefix(['.', ')']).filter(|_| number.len() < text.len())
    });
    behind.is_some_and(|rest| rest.starts_with(' '))
}

/// A line of text, with what Markdown would make a block, a tag or a link of escaped. Inline code
/// stays as it is.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    // A quote may hold a code block of its own.
    if rest.starts_with('>') {
        out.push('\\');
    }
    while let Some(c) = rest.chars().next() {
        let mut taken = c.len_utf8();
        match c {
            '`' => {
                let run = rest.len() - rest.trim_start_matches('`').len();
                match inline_code(rest, run) {
                    Some(code) => {
                        out.push_str(code);
                        taken = code.len();
                    }
                    None => {
                        out.push_str(&"\\`".repeat(run));
                        taken = run;
                    }
                }
            }
            '~' if rest.starts_with("~~~") => out.push_str("\\~"),
            '<' if web_address(&rest[1..]).is_some() => {
                // prost puts the brackets around it.
                let address = web_address(&rest[1..]).unwrap_or_default();
                out.push_str(address);
                taken = 1 + address.len();
                if rest[taken..].starts_with('>') {
                    taken += 1;
                }
            }
            '<' => out.push_str("&lt;"),
            '[' => match link(rest) {
                Some(link) => {
                    out.push_str(link);
                    taken = link.len();
                }
                None => out.push_str("\\["),
            },
            ']' => out.push_str("\\]"),
            // An escape of its own. Its bracket is not ours to escape again.
            '\\' if rest[1..].starts_with(['[', ']', '`', '\\']) => {
                out.push_str(&rest[..2]);
                taken = 2;
            }
            // Many spaces behind the mark of a list item begin a code block.
            ' ' => {
                taken = rest.len() - rest.trim_start_matches(' ').len();
                out.push(' ');
            }
            c => out.push(c),
        }
        rest = &rest[taken..];
    }
    out
}

/// The inline code that begins with `run` backticks, up to as many.
fn inline_code(text: &str, run: usize) -> Option<&str> {
    let mut from = run;
    loop {
        let start = from + text[from..].find('`')?;
        let length = text[start..].len() - text[start..].trim_start_matches('`').len();
        if length == run {
            return Some(&text[..start + run]);
        }
        from = start + length;
    }
}

/// The web address at the beginning of a text.
fn web_address(text: &str) -> Option<&str> {
    let is_address = text.starts_with("http://") || text.starts_with("https://");
    let end = text.find(|c: char| c.is_whitespace() || "<>()[]`\\".contains(c)).unwrap_or(text.len());
    is_address.then(|| &text[..end])
}

/// The link to a web page at the beginning of a text. Any other link would be one to a Rust item.
fn link(text: &str) -> Option<&str> {
    let (words, target) = text.split_once("](")?;
    let address = web_address(target)?;
    let plain = !words[1..].contains(['[', ']', '`', '<', '\\']);
    (plain && target[address.len()..].starts_with(')')).then(|| &text[..words.len() + 3 + address.len()])
}

#[cfg(test)]
mod tests {
    use super::for_rustdoc;

    #[test]
    fn text_stays_as_it_is() {
        for text in [
            " Fits a hat.\n",
            " - one\n - two\n   more of it\n",
            " `a < b` and ``a ` b``\n",
            " See [the site](https://example.com/x) or https://example.com/y.\n",
        ] {
            assert_eq!(for_rustdoc(text), text);
        }
    }

    #[test]
    fn code_is_fenced_and_is_not_rust() {
        assert_eq!(for_rustdoc(" ```\n let x;\n ```\n"), " ```text\n let x;\n ```\n");
        assert_eq!(for_rustdoc(" ~~~rust\n a ``` b\n"), " ```text\n a ''' b\n ```\n");
        assert_eq!(
            for_rustdoc(" So:\n\n     a {\n       b\n\n     }\n\n And.\n"),
            " So:\n\n ```text\n a {\n   b\n\n }\n ```\n\n And.\n"
        );
        assert_eq!(for_rustdoc(" one\n     two\n"), " one\n   two\n");
        assert_eq!(for_rustdoc(" -     x\n >     y\n"), " - x\n \\> y\n");
    }

    #[test]
    fn tags_links_and_odd_characters_are_escaped() {
        for (text, expected) in [
            (" a <b> c", " a &lt;b> c\n"),
            (" [Foo] [a][b.C] [x](Foo)", " \\[Foo\\] \\[a\\]\\[b.C\\] \\[x\\](Foo)\n"),
            (" a ` b <c>", " a \\` b &lt;c>\n"),
            (" <http://x.y> http://x/<id>", " http://x.y http://x/&lt;id>\n"),
            (" a\u{202E}b\0c", " abc\n"),
            (" \\[x\\]", " \\[x\\]\n"),
            (" - ```rust", " - \\`\\`\\`rust\n"),
        ] {
            assert_eq!(for_rustdoc(text), expected, "{text}");
        }
    }
}
