//! Reads settings from prost's configuration. prost has setters but no getters for them, so they
//! are parsed from its `Debug` form.

use std::path::PathBuf;

/// The prost settings that affect names, types and descriptor sets.
#[derive(Debug)]
pub(crate) struct ProstConfig {
    /// True if the types of `google.protobuf` come from the crate prost-types.
    pub(crate) prost_types: bool,
    /// True if the name of an enum is removed from the names of its values.
    pub(crate) strip_enum_prefix: bool,
    /// The protobuf paths with a Rust path given by the user, each with a leading dot.
    pub(crate) extern_paths: Vec<String>,
    /// The name of the file for definitions without a package, without `.rs`.
    pub(crate) default_file: String,
    /// The path to write the compiled descriptors to.
    pub(crate) descriptor_set: Option<PathBuf>,
}

impl ProstConfig {
    pub(crate) fn of(config: &prost_build::Config) -> Self {
        let text = format!("{config:?}");
        let fields = top_level_fields(&text);
        let value = |name: &str| {
            let mut pairs = fields.iter().filter_map(|field| field.split_once(": "));
            pairs.find(|(key, _)| *key == name).map_or("", |(_, value)| value)
        };
        Self {
            prost_types: value("prost_types") != "false",
            strip_enum_prefix: value("strip_enum_prefix") != "false",
            // Each protobuf path is followed by its Rust path.
            extern_paths: strings(value("extern_paths")).into_iter().step_by(2).collect(),
            default_file: strings(value("default_package_filename")).pop().unwrap_or_else(|| "_".to_owned()),
            descriptor_set: strings(value("file_descriptor_set_path")).pop().map(PathBuf::from),
        }
    }

    /// Returns `true` if the user gave a Rust path for the message or enum.
    pub(crate) fn is_external(&self, full_name: &str) -> bool {
        let covers = |path: &String| {
            let path = path.strip_prefix('.').unwrap_or(path);
            full_name.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        self.extern_paths.iter().any(covers)
    }

    /// Returns `true` if prost generates no code for the message or enum.
    pub(crate) fn is_left_out(&self, full_name: &str) -> bool {
        self.is_external(full_name) || (self.prost_types && full_name.starts_with("google.protobuf."))
    }
}

/// Splits the `Debug` form of a struct into its fields.
fn top_level_fields(text: &str) -> Vec<&str> {
    let Some((_, inside)) = text.split_once(" { ") else { return Vec::new() };
    let mut fields = Vec::new();
    let (mut depth, mut start, mut quoted, mut escaped) = (0_usize, 0, false, false);
    for (at, c) in inside.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            _ if quoted => {}
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                fields.push(inside[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    fields.push(inside[start..].trim());
    fields
}

/// Returns the string literals in a `Debug` form.
fn strings(text: &str) -> Vec<String> {
    let mut strings = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find('"') {
        let mut escaped = false;
        let end = rest[start + 1..].find(|c| {
            let closes = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            closes
        });
        let Some(end) = end else { break };
        let literal = &rest[start..start + end + 2];
        strings.extend(syn::parse_str::<syn::LitStr>(literal).map(|literal| literal.value()));
        rest = &rest[start + end + 2..];
    }
    strings
}

#[cfg(test)]
mod tests {
    use super::ProstConfig;

    #[test]
    fn the_settings_of_prost_are_read_from_its_debug_form() {
        let mut config = prost_build::Config::new();
        let read = ProstConfig::of(&config);
        assert!(read.prost_types && read.strip_enum_prefix);
        assert!(read.extern_paths.is_empty() && read.descriptor_set.is_none());

        config
            .type_attribute(".", "#[odd(\"prost_types: true, \\\" } ]\", extern_paths)]")
            .retain_enum_prefix()
            .compile_well_known_types()
            .extern_path(".a.b", "::a::b")
            .extern_path(".c.D", "crate::D")
            .default_package_filename("root")
            .file_descriptor_set_path("a \"dir\"/set.bin");
        let read = ProstConfig::of(&config);
        assert!(!read.prost_types && !read.strip_enum_prefix);
        assert_eq!(read.extern_paths, [".a.b", ".c.D"]);
        assert_eq!(read.default_file, "root");
        assert_eq!(read.descriptor_set.as_deref(), Some("a \"dir\"/set.bin".as_ref()));
        assert!(read.is_external("a.b") && read.is_external("a.b.C") && read.is_external("c.D"));
        assert!(!read.is_external("a.bc") && !read.is_external("a"));
    }
}
