//! Suggestions for misspelled options.

use prost_reflect::{DescriptorPool, MessageDescriptor};

/// The reason to reject a file that declares an edition.
pub(crate) const NO_EDITIONS: &str =
    "editions are not supported yet; write `syntax = \"proto3\";` or `syntax = \"proto2\";` instead";

/// A misspelled name in the psrpc options.
struct Mistake {
    /// The name that the file contains, if the compiler reports it.
    written: Option<String>,
    /// The names that are valid in its place.
    known: Vec<String>,
}

/// Appends a suggestion or the list of valid names to `text`, an error of the compiler.
pub(crate) fn with_hint(text: String, options: &DescriptorPool) -> String {
    if let Some((place, _)) = text.split_once(": expected ").filter(|_| text.ends_with("but found 'edition'"))
    {
        return format!("{place}: {NO_EDITIONS}");
    }
    if text.ends_with("name 'psrpc.options' is not defined") {
        return text + "; `import \"options.proto\";` defines it";
    }
    let Some(Mistake { written, known }) = mistake(&text, options) else { return text };
    let similar = |name: &&String| {
        written
            .as_ref()
            .map_or(0.0, |written| strsim::jaro_winkler(&written.to_lowercase(), &name.to_lowercase()))
    };
    let meant = known
        .iter()
        .filter(|name| similar(name) > 0.8)
        .max_by(|one, other| similar(one).total_cmp(&similar(other)));
    match (meant, &known[..]) {
        (Some(meant), [_]) => format!("{text}; did you mean `{meant}`?"),
        (Some(meant), _) => format!("{text}; did you mean `{meant}`? valid names: {}", known.join(", ")),
        (None, _) => format!("{text}; valid names: {}", known.join(", ")),
    }
}

fn mistake(text: &str, options: &DescriptorPool) -> Option<Mistake> {
    let fields = |message: &str| -> Vec<String> {
        let message = options.get_message_by_name(message);
        message.iter().flat_map(MessageDescriptor::fields).map(|field| field.name().to_owned()).collect()
    };
    if let Some(path) = between(text, "option field '(psrpc.options).", "' is not defined") {
        let (known, written) = match path.strip_prefix("topic_params.") {
            Some(written) => (fields("psrpc.TopicParamOptions"), written),
            None => (fields("psrpc.Options"), path),
        };
        return Some(Mistake { written: Some(written.to_owned()), known });
    }
    if text.contains("value of type 'psrpc.Routing'") {
        let routing = options.get_enum_by_name("psrpc.Routing")?;
        let known = routing.values().map(|value| value.name().to_owned()).collect();
        let written = between(text, "but found '", "'").map(str::to_owned);
        return Some(Mistake { written, known });
    }
    if text.contains("invalid value of type 'psrpc.Options'") {
        return Some(Mistake { written: None, known: fields("psrpc.Options") });
    }
    let written = between(text, "'psrpc.", "' resolves to").map(|name| format!("psrpc.{name}"))?;
    Some(Mistake { written: Some(written), known: vec!["psrpc.options".to_owned()] })
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    rest.split_once(after).map(|(between, _)| between)
}
