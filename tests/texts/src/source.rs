//! Token trees, as the scanner reads them: attributes, names before groups, string literals.

use proc_macro2::{Delimiter, Group, Ident, TokenStream, TokenTree};

/// An attribute.
pub(crate) struct Attribute {
    /// The first name in it, such as `error` of `#[error("...")]`.
    pub(crate) name: String,
    pub(crate) tokens: Vec<TokenTree>,
}

impl Attribute {
    /// Returns `true` for `#[cfg(test)]` and `#[cfg(fuzzing)]`, and for conditions that contain
    /// them.
    pub(crate) fn is_test(&self) -> bool {
        self.name == "cfg" && self.mentions(&["test", "fuzzing"]) && !self.mentions(&["not"])
    }

    /// Returns `true` for derives of clap.
    pub(crate) fn is_clap(&self) -> bool {
        self.name == "derive" && self.mentions(&["Parser", "Args", "Subcommand", "ValueEnum"])
    }

    /// Returns the line of a doc comment.
    pub(crate) fn doc(&self) -> Option<String> {
        let literal = self.tokens.last().filter(|_| self.name == "doc")?;
        string(literal).map(|line| line.trim().to_owned())
    }

    fn mentions(&self, names: &[&str]) -> bool {
        mentions(&self.tokens, names)
    }
}

fn mentions(tokens: &[TokenTree], names: &[&str]) -> bool {
    tokens.iter().any(|token| match token {
        TokenTree::Ident(name) => names.iter().any(|wanted| name == wanted),
        TokenTree::Group(group) => mentions(&trees(group), names),
        _ => false,
    })
}

/// Returns the attributes at the start of the tokens, and how many tokens they take.
pub(crate) fn attributes(tokens: &[TokenTree]) -> (Vec<Attribute>, usize) {
    let mut attributes = Vec::new();
    let mut length = 0;
    loop {
        let mut at = length;
        if !tokens.get(at).is_some_and(|token| is_punct(token, '#')) {
            return (attributes, length);
        }
        at += 1;
        if tokens.get(at).is_some_and(|token| is_punct(token, '!')) {
            at += 1;
        }
        let Some(TokenTree::Group(group)) = tokens.get(at) else { return (attributes, length) };
        if group.delimiter() != Delimiter::Bracket {
            return (attributes, length);
        }
        let tokens = trees(group);
        let name = tokens.first().and_then(ident).map(Ident::to_string).unwrap_or_default();
        attributes.push(Attribute { name, tokens });
        length = at + 1;
    }
}

/// The name that stands before a group.
pub(crate) enum Callee {
    /// `name!(...)`
    Macro(String),
    /// `path::name(...)` or `.name(...)`, with the last part of the path if there is one.
    Function { path: Option<String>, name: String },
}

/// Returns the name that stands before a group, for tokens that end where the group begins.
pub(crate) fn callee(before: &[TokenTree], group: &Group) -> Option<Callee> {
    let (last, before) = before.split_last()?;
    if is_punct(last, '!') {
        return before.last().and_then(ident).map(|name| Callee::Macro(name.to_string()));
    }
    let name = ident(last).filter(|_| group.delimiter() == Delimiter::Parenthesis)?.to_string();
    let path = match before {
        [.., TokenTree::Ident(path), first, second] if is_punct(first, ':') && is_punct(second, ':') => {
            Some(path.to_string())
        }
        _ => None,
    };
    Some(Callee::Function { path, name })
}

/// Returns how many tokens the item, field or variant at the start of the tokens has.
pub(crate) fn item_length(tokens: &[TokenTree]) -> usize {
    const ITEMS: [&str; 11] =
        ["pub", "fn", "async", "mod", "impl", "use", "const", "static", "struct", "enum", "trait"];
    let is_item = tokens.first().and_then(ident).is_some_and(|name| ITEMS.iter().any(|item| name == item));
    let is_end = |token: &TokenTree| match token {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        token => is_punct(token, ';') || (!is_item && is_punct(token, ',')),
    };
    tokens.iter().position(is_end).map_or(tokens.len(), |end| end + 1)
}

/// Returns the value of a string literal.
pub(crate) fn string(token: &TokenTree) -> Option<String> {
    let TokenTree::Literal(_) = token else { return None };
    syn::parse2::<syn::LitStr>(TokenStream::from(token.clone())).ok().map(|literal| literal.value())
}

pub(crate) fn trees(group: &Group) -> Vec<TokenTree> {
    group.stream().into_iter().collect()
}

pub(crate) fn ident(token: &TokenTree) -> Option<&Ident> {
    match token {
        TokenTree::Ident(ident) => Some(ident),
        _ => None,
    }
}

pub(crate) fn is_punct(token: &TokenTree, wanted: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == wanted)
}
