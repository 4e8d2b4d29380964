//! Finds the texts in a source file.

use std::collections::BTreeSet;

use proc_macro2::{Group, TokenStream, TokenTree};

use crate::source::{Attribute, Callee, attributes, callee, ident, is_punct, item_length, string, trees};
use crate::text::{Kind, Text};

const LOGS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];
const PANICS: [&str; 3] = ["panic", "unreachable", "compile_error"];
const ASSERTS: [&str; 6] =
    ["assert", "assert_eq", "assert_ne", "debug_assert", "debug_assert_eq", "debug_assert_ne"];
const PRINTS: [&str; 4] = ["print", "println", "eprint", "eprintln"];
/// Macros of the conformance suite that return an error.
const CHECKS: [&str; 2] = ["check", "check_eq"];
/// Functions whose literals are errors.
const ERRORS: [&str; 4] = ["Err", "ok_or", "ok_or_else", "map_err"];
/// Attributes whose literals users can see, besides `error` and those of clap.
const LINTS: [&str; 2] = ["must_use", "deprecated"];
/// Attributes of clap.
const HELP: [&str; 4] = ["command", "arg", "value", "clap"];

/// Returns the texts in the source code, and the names of the modules that are tests in files of
/// their own.
pub(crate) fn scan(tokens: TokenStream) -> (BTreeSet<Text>, Vec<String>) {
    let mut scanner = Scanner { texts: BTreeSet::new(), tests: Vec::new() };
    let tokens: Vec<_> = tokens.into_iter().collect();
    scanner.tokens(&tokens, &Context { kind: Kind::Other, is_forced: false, is_clap: false });
    (scanner.texts, scanner.tests)
}

struct Scanner {
    texts: BTreeSet<Text>,
    tests: Vec<String>,
}

/// Where a literal stands.
#[derive(Clone)]
struct Context {
    kind: Kind,
    /// Whether every literal is a text, or only those of two words.
    is_forced: bool,
    /// Whether clap turns doc comments into help.
    is_clap: bool,
}

impl Context {
    fn of(kind: Kind, is_forced: bool) -> Self {
        Self { kind, is_forced, is_clap: false }
    }

    /// Returns the context inside of a call. Literals in calls of functions with no special
    /// meaning keep the kind of the outer context.
    fn inside(&self, callee: &Callee) -> Self {
        let is_one_of = |names: &[&str], name: &str| names.contains(&name);
        match callee {
            Callee::Macro(name) if is_one_of(&PANICS, name) => Self::of(Kind::Panic, true),
            Callee::Macro(name) if is_one_of(&ASSERTS, name) => Self::of(Kind::Panic, false),
            Callee::Macro(name) if is_one_of(&PRINTS, name) => Self::of(Kind::Print, true),
            Callee::Macro(name) if is_one_of(&CHECKS, name) => Self::of(Kind::Error, false),
            Callee::Macro(name) if name == "format" || name == "format_args" => self.clone(),
            Callee::Function { name, path: None } if name == "expect" => Self::of(Kind::Panic, true),
            Callee::Function { name, path }
                if is_one_of(&ERRORS, name)
                    || name.ends_with("Error")
                    || path.as_ref().is_some_and(|path| path.ends_with("Error")) =>
            {
                Self::of(Kind::Error, true)
            }
            _ => Self { is_forced: false, ..self.clone() },
        }
    }
}

impl Scanner {
    fn tokens(&mut self, tokens: &[TokenTree], context: &Context) {
        let mut at = 0;
        // Whether the item that is being read derives a trait of clap.
        let mut is_clap = false;
        while let Some(token) = tokens.get(at) {
            let (attributes, length) = attributes(&tokens[at..]);
            if length > 0 {
                at += length;
                if attributes.iter().any(Attribute::is_test) {
                    let item = &tokens[at..at + item_length(&tokens[at..])];
                    self.test_module(item);
                    at += item.len();
                    continue;
                }
                is_clap = attributes.iter().any(Attribute::is_clap);
                self.attributes(&attributes, context.is_clap || is_clap);
                continue;
            }
            match token {
                TokenTree::Literal(_) => self.literal(token, context),
                TokenTree::Group(group) => {
                    let context = Context { is_clap: context.is_clap || is_clap, ..context.clone() };
                    self.group(&tokens[..at], group, &context);
                }
                _ => {}
            }
            at += 1;
        }
    }

    fn group(&mut self, before: &[TokenTree], group: &Group, context: &Context) {
        let callee = callee(before, group);
        match &callee {
            Some(Callee::Macro(name)) if LOGS.contains(&name.as_str()) => self.log(name, group),
            Some(callee) => self.tokens(&trees(group), &context.inside(callee)),
            None => self.tokens(&trees(group), context),
        }
    }

    /// Remembers the name of a module of tests in a file of its own.
    fn test_module(&mut self, item: &[TokenTree]) {
        if let [.., keyword, TokenTree::Ident(name), end] = item
            && ident(keyword).is_some_and(|keyword| keyword == "mod")
            && is_punct(end, ';')
        {
            self.tests.push(name.to_string());
        }
    }

    fn attributes(&mut self, attributes: &[Attribute], is_clap: bool) {
        if is_clap {
            let lines: Vec<_> = attributes.iter().filter_map(Attribute::doc).collect();
            let text = lines.join(" ").trim().to_owned();
            if !text.is_empty() {
                self.texts.insert(Text { kind: Kind::Help, text });
            }
        }
        for Attribute { name, tokens } in attributes {
            let context = match name.as_str() {
                "error" => Context::of(Kind::Error, true),
                name if LINTS.contains(&name) => Context::of(Kind::Lint, true),
                name if HELP.contains(&name) => Context::of(Kind::Help, false),
                _ => continue,
            };
            self.tokens(tokens, &context);
        }
    }

    fn literal(&mut self, literal: &TokenTree, context: &Context) {
        let Some(text) = string(literal) else { return };
        let is_text = if context.is_forced { has_letters(&text) } else { has_words(&text) };
        if is_text {
            self.texts.insert(Text { kind: context.kind.clone(), text });
        }
    }

    /// Reads the arguments of a log macro: `target: "...", field, ?field, field = value, "..."`.
    fn log(&mut self, level: &str, group: &Group) {
        let tokens = trees(group);
        let mut target = String::new();
        let mut fields = Vec::new();
        for argument in tokens.split(|token| is_punct(token, ',')) {
            match argument {
                [TokenTree::Ident(name), colon, value] if name == "target" && is_punct(colon, ':') => {
                    target = string(value).unwrap_or_default();
                }
                [literal @ TokenTree::Literal(_)] => {
                    let kind = Kind::Log { level: level.to_owned(), target, fields };
                    self.texts.insert(Text { kind, text: string(literal).unwrap_or_default() });
                    return;
                }
                argument => {
                    let name = argument.iter().take_while(|token| !is_punct(token, '=')).find_map(ident);
                    fields.extend(name.map(ToString::to_string));
                }
            }
        }
    }
}

/// Returns `true` if the text has a letter outside of its placeholders.
fn has_letters(text: &str) -> bool {
    let mut depth = 0_usize;
    text.chars().any(|c| {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0 && c.is_alphabetic()
    })
}

/// Returns `true` if the text has at least two words, of which one may be a placeholder.
fn has_words(text: &str) -> bool {
    has_letters(text) && text.split_whitespace().count() > 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(source: &str) -> Vec<String> {
        let (texts, _) = scan(source.parse().expect("the source has tokens"));
        texts.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn errors_are_found_in_attributes_and_calls() {
        let source = r#"
            enum Refused {
                /// No text.
                #[error("taken: {0}")]
                Taken(u8),
            }
            fn open() -> Result<(), Error> {
                Err(format!("closed {x}"))?;
                value.ok_or("gone")?;
                Err(BusError::new("lost", map.get("key")))
            }
        "#;
        assert_eq!(
            lines(source),
            [r#"error "closed {x}""#, r#"error "gone""#, r#"error "lost""#, r#"error "taken: {0}""#]
        );
    }

    #[test]
    fn log_messages_have_their_level_target_and_fields() {
        let source = r#"fn f() {
            tracing::warn!(target: "hats", ?id, %error.cause, count = list.len(), "hat {x} lost", x);
            debug!("found");
        }"#;
        assert_eq!(
            lines(source),
            [r#"log debug [] "found""#, r#"log warn hats[id error count] "hat {x} lost""#]
        );
    }

    #[test]
    fn doc_comments_are_texts_where_clap_reads_them() {
        let source = r#"
            /// Sells hats,
            /// cheap ones.
            #[derive(Debug, clap::Args)]
            struct Sell {
                /// How many.
                #[arg(long, help = "the number")]
                number: u8,
            }
            /// A shop.
            struct Shop {
                /// Its address.
                address: String,
            }
        "#;
        assert_eq!(
            lines(source),
            [r#"help "How many.""#, r#"help "Sells hats, cheap ones.""#, r#"help "the number""#]
        );
    }

    #[test]
    fn any_literal_of_two_words_is_a_text_even_in_the_tokens_of_a_macro() {
        let source = r#"reasons! { /// A doc comment.
            Lost = "the hat is lost"; Key = "hat"; Place = "{} {}"; }"#;
        assert_eq!(lines(source), [r#"text "the hat is lost""#]);
    }

    #[test]
    fn panics_prints_and_lints_are_told_apart() {
        let source = r#"
            #[must_use = "wear it"]
            fn f() {
                hat.expect("worn");
                assert!(hat.is("red"), "not a red hat");
                println!("sold");
            }
        "#;
        assert_eq!(
            lines(source),
            [r#"lint "wear it""#, r#"panic "not a red hat""#, r#"panic "worn""#, r#"print "sold""#]
        );
    }

    #[test]
    fn tests_have_no_texts() {
        let source = r#"
            #[cfg(test)]
            mod cases;
            struct Hat { #[cfg(test)] seen: Vec<u8>, size: u8 }
            #[cfg(test)]
            #[allow(dead_code)]
            fn f() { panic!("in a test") }
            #[cfg(test)]
            mod tests { fn f() { panic!("in a test") } }
            fn g() { panic!("in the product") }
        "#;
        let (texts, tests) = scan(source.parse().expect("the source has tokens"));
        assert_eq!(texts.len(), 1);
        assert_eq!(tests, ["cases"]);
    }
}
