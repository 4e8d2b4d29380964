//! Any .proto either compiles, or is rejected with the place, the reason and a fix.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use prost::Message;
use psrpc_build::{Config, Error};

use crate::{PROTOS, generate, plugin, refusal, refusal_of_file, request};

/// Generates code for `s.proto` with other files beside it, and returns it by file.
fn files(
    source: &str,
    others: &[(&str, &str)],
    configure: impl FnOnce(&mut Config),
) -> BTreeMap<String, String> {
    let dir = tempfile::tempdir().unwrap();
    for (name, source) in others.iter().chain(&[("s.proto", source)]) {
        fs::write(dir.path().join(name), source).unwrap();
    }
    generate(&dir.path().join("s.proto"), dir.path(), configure).unwrap()
}

/// Returns the code of package `p`.
fn code(source: &str, configure: impl FnOnce(&mut Config)) -> String {
    files(source, &[], configure).remove("p.rs").unwrap()
}

/// Returns the error for `s.proto` with other files beside it.
fn refusal_beside(source: &str, others: &[(&str, &str)]) -> String {
    let dir = tempfile::tempdir().unwrap();
    for (name, source) in others.iter().chain(&[("s.proto", source)]) {
        fs::write(dir.path().join(name), source).unwrap();
    }
    let error = generate(&dir.path().join("s.proto"), dir.path(), |_| {}).unwrap_err().to_string();
    error.replace(&format!("{}{}", dir.path().display(), std::path::MAIN_SEPARATOR), "")
}

#[test]
fn well_known_types_are_those_of_prost_types_in_every_position() {
    let file = Path::new(PROTOS).join("well_known.proto");
    let files = generate(&file, Path::new(PROTOS), |_| {}).unwrap();
    assert_eq!(files.keys().collect::<Vec<_>>(), ["well_known.rs"]);
    insta::with_settings!({ snapshot_path => "../golden", prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!("well_known.rs", files["well_known.rs"]);
    });
    assert_eq!(plugin(&request(&file, Path::new(PROTOS))), Ok(files));
}

#[test]
fn well_known_types_may_be_generated_too() {
    let file = Path::new(PROTOS).join("well_known.proto");
    let files = generate(&file, Path::new(PROTOS), |config| {
        config.prost().compile_well_known_types();
    });
    let files = files.unwrap();
    assert_eq!(files.keys().collect::<Vec<_>>(), ["google.protobuf.rs", "well_known.rs"]);
    assert!(files["google.protobuf.rs"].contains("pub struct Timestamp"));
}

#[test]
fn a_type_of_google_that_prost_types_lacks_is_refused() {
    let source = "syntax = \"proto3\"; package p; import \"google/protobuf/descriptor.proto\";\n\
                  message M {\n  map<string, google.protobuf.FeatureSet> f = 1;\n}";
    assert_eq!(
        refusal_of_file(source, |_| {}),
        "s.proto:3:3: the crate prost-types does not provide google.protobuf.FeatureSet; generate the type elsewhere and \
         pass its Rust path to `config.prost().extern_path(\".google.protobuf.FeatureSet\", ...)`"
    );
    let code = code(source, |config| {
        config.prost().extern_path(".google.protobuf.FeatureSet", "crate::FeatureSet");
    });
    assert!(code.contains("crate::FeatureSet"));
}

#[test]
fn a_message_of_another_package_is_known_to_the_plugin() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.proto"), "syntax = \"proto3\"; package a; message A { int32 x = 1; }")
        .unwrap();
    let file = dir.path().join("b.proto");
    fs::write(&file, "syntax = \"proto3\"; package b; import \"a.proto\"; message B { a.A a = 1; }").unwrap();
    let files = plugin(&request(&file, dir.path())).unwrap();
    assert_eq!(files.keys().collect::<Vec<_>>(), ["b.rs"]);
    assert!(files["b.rs"].contains("super::a::A"));
}

/// Code for `options.proto` is generated only if a field has a type that this file defines.
#[test]
fn the_options_are_generated_where_a_message_uses_them() {
    let source =
        "syntax = \"proto3\"; package p; import \"options.proto\"; message M { psrpc.Routing r = 1; }";
    let files = files(source, &[], |_| {});
    assert_eq!(files.keys().collect::<Vec<_>>(), ["p.rs", "psrpc.rs"]);
}

const IMPORTED: (&str, &str) = (
    "other.proto",
    "syntax = \"proto3\"; package other; message O {} service Other { rpc Up(stream O) returns (O); rpc B(O) returns (O); }",
);

#[test]
fn places_are_right_beside_a_service_that_is_imported() {
    let source = "syntax = \"proto3\"; package p; import \"other.proto\"; message M { other.O o = 1; }\n\
                  service A { rpc One(M) returns (M); }\nservice B {\n  rpc Two(M) returns (M);\n  rpc New(M) returns (M);\n}";
    assert_eq!(
        refusal_beside(source, &[IMPORTED]),
        "s.proto:5:3: rpc New would become the Rust function `new`, which every client already has; give it \
         another name with `rename`"
    );
}

#[test]
fn services_are_generated_of_the_files_that_were_asked_for_and_messages_of_all() {
    let source = "syntax = \"proto3\"; package p; import \"other.proto\"; service A { rpc One(other.O) returns (other.O); }";
    let generated = files(source, &[IMPORTED], |_| {});
    assert!(generated["p.rs"].contains("pub struct AClient"));
    assert!(generated["other.rs"].contains("pub struct O") && !generated["other.rs"].contains("Client"));

    // Also if the import is in the same package.
    let beside = (
        "other.proto",
        "syntax = \"proto3\"; package p; message O {} service Other { rpc Up(stream O) returns (O); }",
    );
    let source =
        "syntax = \"proto3\"; package p; import \"other.proto\"; service A { rpc One(O) returns (O); }";
    let generated = files(source, &[beside], |_| {});
    assert!(generated["p.rs"].contains("pub struct AClient") && !generated["p.rs"].contains("OtherClient"));

    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(beside.0), beside.1).unwrap();
    fs::write(dir.path().join("s.proto"), source).unwrap();
    let request = request(&dir.path().join("s.proto"), dir.path());
    assert_eq!(plugin(&request), Ok(generated));
}

#[test]
fn names_that_are_one_name_in_rust_are_refused_naming_both_places() {
    for (rest, error) in [
        (
            "message FooBar {}\nmessage Foo_Bar {}",
            "3:1: message Foo_Bar and message FooBar (s.proto:2:1) would both become the Rust type or module `FooBar`; \
             rename one of them",
        ),
        (
            "message Foo {}\nenum FOO { A = 0; }",
            "3:1: enum FOO and message Foo (s.proto:2:1) would both become the Rust type or module `Foo`; rename one of \
             them",
        ),
        (
            "enum Status {\n  STATUS_OK = 0;\n  OK = 1; }",
            "4:3: enum value OK and enum value STATUS_OK (s.proto:3:3) would both become the Rust variant `Ok`; rename one \
             of them, or keep the prefix `Status` of all enum values with `config.prost().retain_enum_prefix()`",
        ),
        (
            "enum E {\n  E_A_B = 0;\n  E_AB_ = 1;\n  E_a_b = 2; }",
            "5:3: enum value E_a_b and enum value E_A_B (s.proto:3:3) would both become the Rust variant `AB`; rename one \
             of them",
        ),
        (
            "message M {\n  message N {}\n  message n {}\n}",
            "4:3: message n and message N (s.proto:3:3) would both become the Rust type or module `N`; rename one of them",
        ),
        (
            "message FooB { enum E { A = 0; } }\nmessage foo_b_ { enum E { A = 0; } }",
            "3:1: message foo_b_ and message FooB (s.proto:2:1) would both become the Rust type or module `FooB`; rename one \
             of them",
        ),
        (
            "message M {\n  oneof one { int32 a = 1; }\n  oneof One { int32 b = 2; }\n}",
            "4:3: oneof One and oneof one (s.proto:3:3) would both become the Rust field `one`; rename one of them",
        ),
        (
            "message M {\n  optional E e = 1;\n  optional int32 set_e = 2;\n}\nenum E { A = 0; }",
            "4:3: field set_e and field e (s.proto:3:3) would both become the Rust function `set_e`; rename one of them",
        ),
        (
            "message Str { message N {} }",
            "2:1: the types in message Str would become the Rust module `str`, which shadows the type `str`; rename the \
             message",
        ),
    ] {
        let source = format!("syntax = \"proto3\"; package p;\n{rest}");
        assert_eq!(refusal_of_file(&source, |_| {}), format!("s.proto:{error}"), "{rest}");
    }
    // In proto3, the compiler itself rejects these.
    for (fields, error) in [
        (
            "  optional int32 a_b = 1 [json_name = \"x\"];\n  optional int32 aB = 2;",
            "4:3: field aB and field a_b (s.proto:3:3) would both become the Rust function `a_b`; rename one of them",
        ),
        (
            "  oneof one { int32 a_b = 1 [json_name = \"x\"];\n  int32 aB = 2; }",
            "4:3: field aB and field a_b (s.proto:3:15) would both become the Rust variant `AB`; rename one of them",
        ),
    ] {
        let source = format!("syntax = \"proto2\"; package p;\nmessage M {{\n{fields}\n}}");
        assert_eq!(refusal_of_file(&source, |_| {}), format!("s.proto:{error}"));
    }
}

#[test]
fn an_enum_keeps_its_prefix_where_it_is_told_to() {
    let source = "syntax = \"proto3\"; package p; enum Status { STATUS_OK = 0; OK = 1; }";
    let code = code(source, |config| {
        config.prost().retain_enum_prefix();
    });
    assert!(code.contains("StatusOk = 0") && code.contains("Ok = 1"));
}

#[test]
fn a_message_beside_a_package_of_its_name_is_refused() {
    let source = "syntax = \"proto3\"; package foo; import \"bar.proto\";\nmessage Bar { enum E { A = 0; } foo.bar.X x = 1; }";
    let bar = ("bar.proto", "syntax = \"proto3\"; package foo.bar; message X {}");
    assert_eq!(
        refusal_beside(source, &[bar]),
        "s.proto:2:1: the types in message Bar would become the Rust module `bar`, which package foo.bar also needs; \
         rename the message or the package, or generate one of them elsewhere and pass its Rust path to \
         `config.prost().extern_path(...)`"
    );
    // Without nested types, the message has no module.
    let source = "syntax = \"proto3\"; package foo; import \"bar.proto\"; message Bar { foo.bar.X x = 1; }";
    assert_eq!(files(source, &[bar], |_| {}).len(), 2);
}

#[test]
fn a_package_is_written_twice_only_if_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, source: &str| fs::write(dir.path().join(name), source).unwrap();
    write("a.proto", "syntax = \"proto3\"; package p; message A {} service S { rpc One(A) returns (A); }");
    write(
        "b.proto",
        "syntax = \"proto3\"; package p; import \"a.proto\"; message B {} service T { rpc One(A) returns (A); }",
    );
    write("c.proto", "syntax = \"proto3\"; package q; message C {}");
    let compile = |out: &Path, files: &[&str], client: bool| {
        let files: Vec<_> = files.iter().map(|file| dir.path().join(file)).collect();
        Config::new().client(client).out_dir(out).compile(&files, &[dir.path()])
    };
    let out = tempfile::tempdir().unwrap();
    // Output of an earlier build may be overwritten.
    fs::write(out.path().join("p.rs"), "struct Old;").unwrap();
    compile(out.path(), &["a.proto"], true).unwrap();
    compile(out.path(), &["a.proto"], true).unwrap();
    compile(out.path(), &["c.proto"], true).unwrap();
    compile(out.path(), &["a.proto", "c.proto"], true).unwrap();
    let shown = |name: &str| dir.path().join(name).display().to_string();
    let error = compile(out.path(), &["b.proto"], true).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "package p: code generated from {a}, {b} would overwrite the code generated earlier from {a}; pass all \
             files of the package to one call, or set a different `out_dir` for each call",
            a = shown("a.proto"),
            b = shown("b.proto")
        )
    );
    assert!(matches!(compile(out.path(), &["a.proto"], false), Err(Error::Overwritten { .. })));
    compile(out.path(), &["a.proto", "b.proto"], true).unwrap();
    compile(tempfile::tempdir().unwrap().path(), &["b.proto"], true).unwrap();
    // A file may change between calls.
    write("c.proto", "syntax = \"proto3\"; package q; message D {}");
    compile(out.path(), &["c.proto"], true).unwrap();
}

#[test]
fn comments_become_docs_that_are_text() {
    let comment =
        "// Do:\n//\n// ```\n// run <x>\n// ```\n//\n//     fit [Hat] <b>\n//\n// A <tag> of [Hat].\n";
    let source = format!(
        "syntax = \"proto3\"; package p;\n{comment}message M {{\n{comment}string a = 1; }}\n{comment}service S {{\n{comment}rpc A(M) returns (M); }}"
    );
    let code = code(&source, |_| {});
    assert_eq!(code.matches("/// ```text\n").count(), 2 * 8 + 1, "{code}");
    assert_eq!(code.matches("/// A &lt;tag> of \\[Hat\\].\n").count(), 8);
    assert_eq!(code.matches("/// ```\n").count(), 2 * 8 + 1);
}

#[test]
fn a_byte_order_mark_is_passed_over() {
    let source = "\u{FEFF}syntax = \"proto3\"; package p; message M {}";
    assert!(code(source, |_| {}).contains("pub struct M"));
    assert_eq!(
        refusal_of_file("\u{FEFF}syntax = \"proto3\"; message _ {}", |_| {}),
        "s.proto:1:20: the message `_` would have no name in Rust, since underscores are dropped; rename it"
    );
}

#[test]
fn a_file_of_google_that_is_too_new_is_replaced_by_that_of_the_compiler() {
    let dir = tempfile::tempdir().unwrap();
    let google = dir.path().join("google/protobuf");
    fs::create_dir_all(&google).unwrap();
    let too_new = "syntax = \"proto2\"; package google.protobuf; message FeatureSet { extensions 1000 [declaration = { number: 1000 }]; }";
    fs::write(google.join("descriptor.proto"), too_new).unwrap();
    let file = dir.path().join("s.proto");
    let source = "syntax = \"proto3\"; package p; import \"google/protobuf/descriptor.proto\"; message M { google.protobuf.FileOptions o = 1; }";
    fs::write(&file, source).unwrap();
    let files = generate(&file, dir.path(), |_| {}).unwrap();
    assert!(files["p.rs"].contains("::prost_types::FileOptions"));
}

#[test]
fn editions_are_told_not_to_be_supported() {
    let error = refusal_of_file("// A file.\nedition = \"2023\";\npackage p;\n", |_| {});
    assert_eq!(
        error,
        "s.proto:2:1: editions are not supported yet; write `syntax = \"proto3\";` or `syntax = \"proto2\";` instead"
    );
    let file = prost_types::FileDescriptorProto {
        name: Some("e.proto".into()),
        syntax: Some("editions".into()),
        ..Default::default()
    };
    let request = crate::Request {
        file_to_generate: vec!["e.proto".into()],
        parameter: None,
        proto_file: vec![file.encode_to_vec()],
    };
    assert!(plugin(&request).unwrap_err().starts_with("e.proto: editions are not supported yet"));
}

#[test]
fn the_descriptors_are_written_where_prost_is_told_to() {
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("set \"1\".bin");
    let source = "syntax = \"proto3\"; package p; import \"options.proto\"; message M {}";
    code(source, |config| {
        config.prost().file_descriptor_set_path(&path);
    });
    let set = prost_types::FileDescriptorSet::decode(&fs::read(&path).unwrap()[..]).unwrap();
    let names: Vec<_> = set.file.iter().map(prost_types::FileDescriptorProto::name).collect();
    assert_eq!(names, ["google/protobuf/descriptor.proto", "options.proto", "s.proto"]);
}

#[test]
fn what_is_deprecated_is_so_for_clients() {
    let source = |service: &str, rpc: &str| {
        format!(
            "syntax = \"proto3\"; package p; import \"options.proto\"; message M {{}} service S {{ {service}\n\
             rpc A(M) returns (M) {{ {rpc} }}\nrpc B(M) returns (M) {{ option (psrpc.options).subscription = true; }} }}"
        )
    };
    let count =
        |service: &str, rpc: &str| code(&source(service, rpc), |_| {}).matches("#[deprecated]").count();
    let deprecated = "option deprecated = true;";
    // Twice for a call, in the trait and in the client; subscriptions also have it on `publish`.
    assert_eq!([count("", ""), count("", deprecated), count(deprecated, "")], [0, 2, 5]);
    assert!(code(&source("", deprecated), |_| {}).contains("#[deprecated]\n    pub fn a(&self, request: M)"));
}

#[test]
fn clients_and_servers_are_generated_alone() {
    let source = "syntax = \"proto3\"; package p; message M {} service S { rpc A(M) returns (M); }";
    let client = code(source, |config| {
        config.server(false);
    });
    let server = code(source, |config| {
        config.client(false);
    });
    for (code, present, absent) in [
        (&client, ["pub trait SApi", "pub struct SClient"], ["pub trait S:", "SServer"]),
        (&server, ["pub trait S:", "pub struct SServer"], ["SApi", "SClient"]),
    ] {
        assert!(code.contains("pub static S_SERVICE"));
        assert!(present.iter().all(|name| code.contains(name)), "{code}");
        assert!(!absent.iter().any(|name| code.contains(name)), "{code}");
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("s.proto");
    fs::write(&file, source).unwrap();
    let mut request = request(&file, dir.path());
    request.parameter = Some("client=false".into());
    assert_eq!(plugin(&request).unwrap()["p.rs"], server);
    request.parameter = Some("server=false".into());
    assert_eq!(plugin(&request).unwrap()["p.rs"], client);
}

#[test]
fn a_panic_is_an_error_that_names_the_file() {
    let source = "syntax = \"proto3\"; package p; message M {}";
    let error = refusal_of_file(source, |config| {
        config.prost().type_attribute(".", "#[");
    });
    assert!(error.starts_with("s.proto: code generation panicked: "), "{error}");
    assert!(error.ends_with("this is a bug in psrpc-build: please report it with the file"), "{error}");
}

#[test]
fn an_alias_as_the_default_is_the_variant_that_is_there() {
    let source = "syntax = \"proto2\"; package p; enum E { option allow_alias = true; A = 0; B = 1; C = 1; }\n\
                  message M { optional E e = 1 [default = C]; }";
    assert!(code(source, |_| {}).contains("default = \"B\""));
}

#[test]
fn a_group_that_contains_itself_is_boxed() {
    let source = "syntax = \"proto2\"; package p;\nmessage M { optional group G = 1 { optional M m = 1; } optional group H = 2 {} }";
    let code = code(source, |_| {});
    assert!(code.contains("group, optional, boxed") && code.matches("boxed").count() == 2, "{code}");
}

/// rustc's errors about handlers do not say how to write one.
#[test]
fn the_trait_to_implement_says_how() {
    let code =
        code("syntax = \"proto3\"; package p; message M {} service S { rpc A(M) returns (M); }", |_| {});
    for line in [
        "///     async fn a(&self, request: ::psrpc::Request<M>) -> Result<M, ::psrpc::Error> {",
        "shared by reference, and must be `Send`, `Sync` and `'static`",
    ] {
        assert!(code.contains(line), "{line}");
    }
    assert_eq!(refusal("  rpc A(stream M) returns (M);").matches("is not supported; remove it").count(), 1);
}
