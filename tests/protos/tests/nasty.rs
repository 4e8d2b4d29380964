//! Random .proto files with names that are special in Rust, unusual labels and defaults, and
//! comments with unusual characters. Each file must be rejected with a place, or compile without
//! warnings.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use psrpc_protos::batch::Batch;

/// The number of random files. Most have an import.
const FILES: usize = 300;

/// Names that are special in Rust, prost or generated code, and names that differ only in spelling.
const NAMES: &[&str] = &[
    "type",
    "Type",
    "self",
    "Self",
    "super",
    "crate",
    "extern",
    "async",
    "gen",
    "dyn",
    "try",
    "union",
    "fn",
    "impl",
    "Box",
    "Vec",
    "String",
    "Option",
    "Some",
    "None",
    "Result",
    "Ok",
    "Err",
    "Default",
    "Clone",
    "Debug",
    "Send",
    "Sync",
    "Sized",
    "Copy",
    "Eq",
    "Hash",
    "Iterator",
    "Future",
    "Error",
    "Client",
    "Server",
    "Request",
    "Message",
    "Name",
    "Enumeration",
    "Oneof",
    "bool",
    "str",
    "i32",
    "u8",
    "f64",
    "core",
    "std",
    "prost",
    "psrpc",
    "google",
    "Empty",
    "Timestamp",
    "fooBar",
    "foo_bar",
    "FooBar",
    "FOO_BAR",
    "foo_Bar",
    "Foo",
    "FOO",
    "foo",
    "_foo",
    "foo_",
    "Foo1",
    "foo_1",
    "a",
    "A",
    "b",
    "B",
    "encoded_len",
    "clear",
    "decode",
    "merge",
    "encode",
    "full_name",
    "default",
    "new",
    "close",
    "clone",
    "value",
    "key",
    "get_a",
    "set_a",
    "push_a",
    "insert_a",
    "XMLHttp",
    "xml_http",
    "A1B",
    "_1",
];

/// Lines of comments.
const COMMENTS: &[&str] = &[
    "",
    " A comment.",
    " ```",
    " ```rust",
    "     let x = y;",
    "\tlet x;",
    " <b>bold",
    " </p>",
    " [link]",
    " [a][b]",
    " [a](b)",
    " `code",
    " ``a`b``",
    " - item",
    "  - item",
    "     - deep",
    " 1. one",
    " # Title",
    " > quote",
    " >     code",
    " http://a.b/<c>",
    " <http://a.b>",
    " [x](http://a.b)",
    " \\",
    " \\[",
    " */ \" \\n {}",
    " \u{202E}turned",
    " \u{0}",
    " é 😀",
    " ===",
    " ~~~",
    " | a | b |",
    " &amp; <!-- x",
    " [^1]: note",
    " ***",
    "no space",
    " https://a.b/[c]`",
    " {@link Foo}",
    " -     x",
    " `<x>` `[y]`",
];

const SCALARS: &[&str] = &[
    "double", "float", "int32", "int64", "uint32", "uint64", "sint32", "sint64", "fixed32", "fixed64",
    "sfixed32", "sfixed64", "bool", "string", "bytes",
];

const WELL_KNOWN: &[&str] =
    &["Timestamp", "Duration", "Any", "Struct", "Value", "Empty", "StringValue", "BoolValue", "FieldMask"];

/// A random file, before its field types are chosen.
#[derive(Clone, Debug)]
struct File {
    proto3: bool,
    package: Vec<String>,
    messages: Vec<Message>,
    enums: Vec<Enum>,
    rpcs: Vec<Rpc>,
    service: String,
    comment: Vec<&'static str>,
}

#[derive(Clone, Debug)]
struct Message {
    name: String,
    fields: Vec<Field>,
    nested: Vec<Message>,
    enums: Vec<Enum>,
    comment: Vec<&'static str>,
}

#[derive(Clone, Debug)]
struct Enum {
    name: String,
    values: Vec<(String, bool)>,
    alias: bool,
    comment: Vec<&'static str>,
}

#[derive(Clone, Debug)]
struct Field {
    name: String,
    shape: u8,
    kind: Kind,
    default: Index,
    deprecated: bool,
    json: bool,
    comment: Vec<&'static str>,
}

#[derive(Clone, Debug)]
enum Kind {
    Scalar(&'static str),
    WellKnown(&'static str),
    Declared(Index),
}

#[derive(Clone, Debug)]
struct Rpc {
    name: String,
    request: Index,
    response: Index,
    options: &'static str,
    comment: Vec<&'static str>,
}

fn name() -> impl Strategy<Value = String> {
    select(NAMES).prop_map(str::to_owned)
}

fn comment() -> impl Strategy<Value = Vec<&'static str>> {
    prop_oneof![2 => Just(Vec::new()), 1 => vec(select(COMMENTS), 1..6)]
}

fn field() -> impl Strategy<Value = Field> {
    let kind = prop_oneof![
        select(SCALARS).prop_map(Kind::Scalar),
        select(WELL_KNOWN).prop_map(Kind::WellKnown),
        any::<Index>().prop_map(Kind::Declared),
    ];
    (name(), 0..8_u8, kind, any::<Index>(), prop::bool::weighted(0.1), any::<bool>(), comment()).prop_map(
        |(name, shape, kind, default, deprecated, json, comment)| Field {
            name,
            shape,
            kind,
            default,
            deprecated,
            json,
            comment,
        },
    )
}

fn enumeration() -> impl Strategy<Value = Enum> {
    (name(), vec((name(), prop::bool::weighted(0.1)), 1..4), prop::bool::weighted(0.2), comment())
        .prop_map(|(name, values, alias, comment)| Enum { name, values, alias, comment })
}

fn message() -> impl Strategy<Value = Message> {
    let leaf = (name(), vec(field(), 0..4), vec(enumeration(), 0..2), comment()).prop_map(
        |(name, fields, enums, comment)| Message { name, fields, nested: Vec::new(), enums, comment },
    );
    leaf.prop_recursive(2, 6, 2, |inner| {
        (name(), vec(field(), 0..4), vec(inner, 0..2), vec(enumeration(), 0..2), comment()).prop_map(
            |(name, fields, nested, enums, comment)| Message { name, fields, nested, enums, comment },
        )
    })
}

fn rpc() -> impl Strategy<Value = Rpc> {
    const OPTIONS: &[&str] = &[
        "",
        "type: AFFINITY",
        "type: MULTI",
        "stream: true",
        "subscription: true",
        "topics: true",
        "topics: true topic_params: { names: [\"type\", \"request\"] typed: true group: \"fn\" }",
        "topics: true topic_params: { names: [\"foo_bar\"] typed: true }",
        "topic_params: { single_server: true }",
    ];
    (name(), any::<Index>(), any::<Index>(), select(OPTIONS), comment()).prop_map(
        |(name, request, response, options, comment)| Rpc { name, request, response, options, comment },
    )
}

fn file() -> impl Strategy<Value = File> {
    (
        any::<bool>(),
        vec(name(), 0..3),
        vec(message(), 1..4),
        vec(enumeration(), 0..2),
        vec(rpc(), 0..3),
        name(),
        comment(),
    )
        .prop_map(|(proto3, package, messages, enums, rpcs, service, comment)| File {
            proto3,
            package,
            messages,
            enums,
            rpcs,
            service,
            comment,
        })
}

impl File {
    /// Makes names unique where protobuf requires it.
    fn make_names_unique(&mut self) {
        let mut names = BTreeSet::from([self.package.first().cloned().unwrap_or_default()]);
        make_unique(&mut names, &mut self.service);
        make_all_unique(&mut names, &mut self.messages, &mut self.enums);
        let mut names = BTreeSet::new();
        self.rpcs.iter_mut().for_each(|rpc| make_unique(&mut names, &mut rpc.name));
    }
}

fn make_all_unique(names: &mut BTreeSet<String>, messages: &mut [Message], enums: &mut [Enum]) {
    for item in enums {
        make_unique(names, &mut item.name);
        // Enum values share the scope of their enum.
        item.values.iter_mut().for_each(|(value, _)| make_unique(names, value));
    }
    for message in messages {
        make_unique(names, &mut message.name);
        let mut names = BTreeSet::new();
        message.fields.iter_mut().for_each(|field| make_unique(&mut names, &mut field.name));
        make_all_unique(&mut names, &mut message.nested, &mut message.enums);
    }
}

fn make_unique(names: &mut BTreeSet<String>, name: &mut String) {
    while !names.insert(name.clone()) {
        name.push('x');
    }
}

/// Writes files. Field types are chosen from the types declared so far, including the imported
/// ones.
struct Writer {
    text: String,
    proto3: bool,
    /// The full names of messages; those of enums, with their values.
    messages: Vec<String>,
    enums: Vec<(String, Vec<String>)>,
}

impl Writer {
    fn line(&mut self, text: &str) {
        self.text += text;
        self.text.push('\n');
    }

    fn comment(&mut self, lines: &[&str]) {
        for line in lines {
            self.line(&format!("//{line}"));
        }
    }

    fn declare(&mut self, message: &Message, scope: &str) {
        let name = format!("{scope}.{}", message.name);
        for nested in &message.nested {
            self.declare(nested, &name);
        }
        for item in &message.enums {
            self.declare_enum(item, &name);
        }
        self.messages.push(name);
    }

    fn declare_enum(&mut self, item: &Enum, scope: &str) {
        let values = item.values.iter().map(|(value, _)| value.clone()).collect();
        self.enums.push((format!("{scope}.{}", item.name), values));
    }

    fn file(&mut self, file: &File, import: Option<&str>) {
        self.line(if file.proto3 { "syntax = \"proto3\";" } else { "syntax = \"proto2\";" });
        let package = file.package.join(".");
        if !package.is_empty() {
            self.line(&format!("package {package};"));
        }
        for google in ["any", "duration", "empty", "field_mask", "struct", "timestamp", "wrappers"] {
            self.line(&format!("import \"google/protobuf/{google}.proto\";"));
        }
        self.line("import \"options.proto\";");
        if let Some(import) = import {
            self.line(&format!("import \"{import}\";"));
        }
        for item in &file.enums {
            self.enumeration(item);
        }
        for message in &file.messages {
            self.message(message);
        }
        self.comment(&file.comment);
        self.line(&format!("service {} {{", file.service));
        for rpc in &file.rpcs {
            self.comment(&rpc.comment);
            let (request, response) = (rpc.request.get(&self.messages), rpc.response.get(&self.messages));
            let options = rpc.options;
            let line = format!(
                "  rpc {}({request}) returns ({response}) {{ option (psrpc.options) = {{ {options} }}; }}",
                rpc.name
            );
            self.line(&line);
        }
        self.line("}");
    }

    fn enumeration(&mut self, item: &Enum) {
        self.comment(&item.comment);
        self.line(&format!("enum {} {{", item.name));
        if item.alias {
            self.line("option allow_alias = true;");
            self.line(&format!("{}_ALIASED = 0;", item.name));
        }
        for (index, (value, deprecated)) in item.values.iter().enumerate() {
            let option = if *deprecated { " [deprecated = true]" } else { "" };
            self.line(&format!("  {value} = {index}{option};"));
        }
        self.line("}");
    }

    fn message(&mut self, message: &Message) {
        self.comment(&message.comment);
        self.line(&format!("message {} {{", message.name));
        message.enums.iter().for_each(|item| self.enumeration(item));
        message.nested.iter().for_each(|nested| self.message(nested));
        for (index, field) in message.fields.iter().enumerate() {
            self.field(field, index + 1);
        }
        self.line("}");
    }

    fn field(&mut self, field: &Field, number: usize) {
        let mut default = String::new();
        let kind = match &field.kind {
            Kind::Scalar(scalar) => {
                default = scalar_default(scalar, &field.default).to_owned();
                (*scalar).to_owned()
            }
            Kind::WellKnown(name) => format!(".google.protobuf.{name}"),
            Kind::Declared(index) => {
                let chosen = index.index(self.messages.len() + self.enums.len());
                match self.messages.get(chosen) {
                    Some(message) => message.clone(),
                    None => {
                        let (name, values) = &self.enums[chosen - self.messages.len()];
                        default = field.default.get(values).clone();
                        name.clone()
                    }
                }
            }
        };
        self.comment(&field.comment);
        let name = &field.name;
        let mut options = Vec::new();
        if field.deprecated {
            options.push("deprecated = true".to_owned());
        }
        if field.json {
            options.push(format!("json_name = \"j{number}\""));
        }
        let label = if self.proto3 { "optional" } else { "required" };
        let plain = if self.proto3 { "" } else { "optional" };
        let with_default = !self.proto3 && !default.is_empty() && field.shape < 4;
        if with_default {
            options.push(format!("default = {default}"));
        }
        let options = match options.is_empty() {
            true => String::new(),
            false => format!(" [{}]", options.join(", ")),
        };
        let line = match field.shape {
            0 | 1 => format!("  {label} {kind} {name} = {number}{options};"),
            2 | 3 => format!("  {plain} {kind} {name} = {number}{options};"),
            4 => format!("  repeated {kind} {name} = {number}{options};"),
            5 => format!("  map<string, {kind}> {name} = {number}{options};"),
            6 if !self.proto3 => {
                format!("  {plain} group G{name} = {number} {{ optional {kind} {name} = 1; }}")
            }
            _ => format!(
                "  oneof o_{name} {{ {kind} {name} = {number}{options}; bool x_{name} = 1{number}; }}"
            ),
        };
        self.line(&line);
    }
}

fn scalar_default(scalar: &str, index: &Index) -> &'static str {
    let choices: &[&str] = match scalar {
        "double" | "float" => &["inf", "-inf", "nan", "1e10", "-0.0", "0.1", "3"],
        "int32" | "sint32" | "sfixed32" => &["-2147483648", "2147483647", "0x10", "017"],
        "int64" | "sint64" | "sfixed64" => &["-9223372036854775808", "9223372036854775807", "-0x1"],
        "uint32" | "fixed32" => &["4294967295", "0"],
        "uint64" | "fixed64" => &["18446744073709551615", "0xFFFFFFFFFFFFFFFF"],
        "bool" => &["true", "false"],
        "string" => &["\"\"", "'a \"b\" \\n \\\\ {}'", "'é😀'", "\"\\001\\x7f\""],
        "bytes" => &["\"\\000\\377\\\"\"", "'\\'\\\\'", "\"plain\""],
        _ => &[""],
    };
    choices[index.index(choices.len())]
}

/// Writes a file and its import, if it has one.
fn write(directory: &Path, number: usize, file: &File, import: Option<&File>) -> PathBuf {
    let mut writer = Writer { text: String::new(), proto3: true, messages: Vec::new(), enums: Vec::new() };
    let mut imported = None;
    for (at, file) in import.into_iter().chain([file]).enumerate() {
        writer.text.clear();
        writer.proto3 = file.proto3;
        let scope = file.package.iter().fold(String::new(), |scope, part| format!("{scope}.{part}"));
        // A proto3 file may use messages of a proto2 file but not its enums; that error must have a
        // place, too.
        file.enums.iter().for_each(|item| writer.declare_enum(item, &scope));
        file.messages.iter().for_each(|message| writer.declare(message, &scope));
        writer.file(file, imported.as_deref());
        let name = format!("n{number}_{at}.proto");
        fs::write(directory.join(&name), &writer.text).expect("the file can be written");
        imported = Some(name);
    }
    directory.join(imported.expect("at least one file was written"))
}

/// Creates a runner from a seed that is printed. `NASTY_SEED` sets the seed.
fn runner() -> TestRunner {
    let seed = std::env::var("NASTY_SEED").ok().and_then(|seed| seed.parse().ok());
    let day = || std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_secs() / 86_400);
    let seed: u64 = seed.unwrap_or_else(day);
    println!("NASTY_SEED={seed}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}

#[test]
fn nasty_files_are_refused_with_a_place_or_compile() {
    let directory = psrpc_protos::work_directory().join("nasty-files");
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).expect("the directory can be created");
    let mut runner = runner();
    let strategy = (file(), prop::option::weighted(0.6, file()));
    let mut batch = Batch::new("nasty").expect("the batch can be created");
    let mut failures = Vec::new();
    let mut rejected = 0;
    for number in 0..FILES {
        let (mut file, mut import) =
            strategy.new_tree(&mut runner).expect("a file can be generated").current();
        import.iter_mut().chain([&mut file]).for_each(File::make_names_unique);
        let path = write(&directory, number, &file, import.as_ref());
        if let Err(error) = batch.add(&format!("n{number}"), &[path], std::slice::from_ref(&directory)) {
            rejected += 1;
            let error = error.to_string();
            if std::env::var_os("NASTY_SHOW").is_some() {
                println!("{error}");
            }
            let place = error.split_once(".proto:").map_or("", |(_, rest)| rest);
            if !place.starts_with(|c: char| c.is_ascii_digit()) {
                failures.push(error);
            }
        }
    }
    println!("{rejected} files rejected, {} files to compile", batch.len());
    assert!(batch.len() > FILES / 20, "too few files to compile: {rejected} of {FILES} were rejected");
    for command in [["check"].as_slice(), &["doc", "--no-deps"]] {
        let errors = batch.cargo(command).expect("cargo runs");
        for (unit, lines) in errors {
            failures.push(format!("{unit}: {}", lines.join("\n    ")));
        }
    }
    assert!(failures.is_empty(), "{} in {}:\n{}", failures.len(), directory.display(), failures.join("\n"));
}
