//! Makes the comments of a .proto, plain text or Markdown, safe as Rust doc comments. Nothing in
//! them becomes a doctest, an HTML tag or a link to a Rust item, so rustdoc neither runs nor warns
//! about them.

use prost_types::FileDescriptorSet;

/// Rewrites the comments in all files.
pub(crate) fn rewrite(files: &mut FileDescriptorSet) {
    let infos = files.file.iter_mut().filter_map(|file| file.source_code_info.as_mut());
    for location in infos.flat_map(|info| &mut info.location) {
        for comment in location.leading_comments.iter_mut().chain(&mut location.trailing_comments) {
            *comment = for_rustdoc(comment);
        }
        // Detached comments become plain comments, which rustdoc does not read.
        for comment in &mut location.leading_detached_comments {
            *comment = printable(comment);
        }
    }
}

/// Removes the characters that rustc rejects in comments.
fn printable(comment: &str) -> String {
    // Rust accepts a carriage return only before a newline.
    let lines = comment.replace("\r\n", "\n").replace('\r', "\n");
    let changes_direction = |c: char| matches!(c, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}');
    lines.chars().filter(|&c| matches!(c, '\n' | '\t') || !(c.is_control() || changes_direction(c))).collect()
}

/// The maximum indentation of a line of text. prost adds one space; the sum must stay below the
/// indentation of a code block.
const MAX_INDENT: usize = 2;

/// The indentation that starts a code block in Markdown.
const CODE_INDENT: usize = 4;

/// The opening line of a code block whose content is not Rust.
const FENCE: &str = " ```text";

fn for_rustdoc(comment: &str) -> String {
    let comment = printable(comment).replace('\t', "    ");
    let lines: Vec<&str> = comment.lines().map(str::trim_end).collect();
    let indent_of = |line: &str| line.len() - line.trim_start_matches(' ').len();
    let margin = lines.iter().filter(|line| !line.is_empty()).map(|line| indent_of(line)).min().unwrap_or(0);
    // Most comments have one space after the slashes, which is not indentation.
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

/// Returns the fence of a line that opens a code block.
fn fence(text: &str) -> Option<&str> {
    let marker = text.chars().next().filter(|&c| matches!(c, '`' | '~'))?;
    let length = text.len() - text.trim_start_matches(marker).len();
    // Backticks after the fence make the line inline code.
    (length >= 3 && !(marker == '`' && text[length..].contains('`'))).then(|| &text[..length])
}

fn closes(text: &str, fence: &str) -> bool {
    text.len() >= fence.len() && text.trim_start_matches(&fence[..1]).is_empty()
}

/// Returns a line of a code block, with its fences replaced, since a fence would end the block.
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

/// Escapes the parts of a line that Markdown would read as a block, a tag or a link. Inline code
/// stays as it is.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    // A block quote could contain a code block.
    if rest.starts_with('>') {
        out.push('\\');
    }
    while let Some(c) = rest.chars().next() {
        let mut consumed = c.len_utf8();
        match c {
            '`' => {
                let run = rest.len() - rest.trim_start_matches('`').len();
                match inline_code(rest, run) {
                    Some(code) => {
                        out.push_str(code);
                        consumed = code.len();
                    }
                    None => {
                        out.push_str(&"\\`".repeat(run));
                        consumed = run;
                    }
                }
            }
            '~' if rest.starts_with("~~~") => out.push_str("\\~"),
            '<' if web_address(&rest[1..]).is_some() => {
                // prost adds the brackets itself.
                let address = web_address(&rest[1..]).unwrap_or_default();
                out.push_str(address);
                consumed = 1 + address.len();
                if rest[consumed..].starts_with('>') {
                    consumed += 1;
                }
            }
            '<' => out.push_str("&lt;"),
            '[' => match link(rest) {
                Some(link) => {
                    out.push_str(link);
                    consumed = link.len();
                }
                None => out.push_str("\\["),
            },
            ']' => out.push_str("\\]"),
            // Already escaped in the .proto.
            '\\' if rest[1..].starts_with(['[', ']', '`', '\\']) => {
                out.push_str(&rest[..2]);
                consumed = 2;
            }
            // Several spaces after a list marker would start a code block.
            ' ' => {
                consumed = rest.len() - rest.trim_start_matches(' ').len();
                out.push(' ');
            }
            c => out.push(c),
        }
        rest = &rest[consumed..];
    }
    out
}

/// Returns the inline code at the start of `text`, enclosed in `run` backticks.
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

/// Returns the web address at the start of `text`.
fn web_address(text: &str) -> Option<&str> {
    let is_address = text.starts_with("http://") || text.starts_with("https://");
    let end = text.find(|c: char| c.is_whitespace() || "<>()[]`\\".contains(c)).unwrap_or(text.len());
    is_address.then(|| &text[..end])
}

/// Returns the link to a web page at the start of `text`. Other links would refer to Rust items.
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
