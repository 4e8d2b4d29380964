//! Tests of the generated code and of the errors.

mod any_proto;
mod warnings;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use prost::Message;
use psrpc_build::{Config, Error, run_plugin};

const PROTOS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/protos");
const RECORDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors/proto");

/// Generates code from a .proto and returns the files by name.
fn generate(
    file: &Path,
    include: &Path,
    configure: impl FnOnce(&mut Config),
) -> Result<BTreeMap<String, String>, Error> {
    let out = tempfile::tempdir()?;
    let mut config = Config::new();
    config.out_dir(out.path());
    configure(&mut config);
    config.compile(&[file], &[include])?;
    let entries = fs::read_dir(out.path())?;
    let file = |entry: fs::DirEntry| Ok((name(&entry), fs::read_to_string(entry.path())?));
    entries.map(|entry| file(entry?)).collect()
}

fn name(entry: &fs::DirEntry) -> String {
    entry.file_name().into_string().expect("names are UTF-8")
}

/// The request that protoc sends to a plugin.
#[derive(Clone, PartialEq, Message)]
struct Request {
    #[prost(string, repeated, tag = "1")]
    file_to_generate: Vec<String>,
    #[prost(string, optional, tag = "2")]
    parameter: Option<String>,
    #[prost(bytes = "vec", repeated, tag = "15")]
    proto_file: Vec<Vec<u8>>,
}

/// Returns protoc's request to generate `file`, which is in `include`.
fn request(file: &Path, include: &Path) -> Request {
    let options = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/proto"));
    let mut compiler = protox::Compiler::new([include, options]).unwrap();
    compiler.include_imports(true).include_source_info(true).open_file(file).unwrap();
    let pool = compiler.descriptor_pool();
    // Encoded one by one, so that each keeps its options.
    let proto_file = compiler.files().map(|file| pool.get_file_by_name(file.name()).unwrap().encode_to_vec());
    Request {
        file_to_generate: vec![file.strip_prefix(include).unwrap().to_str().unwrap().to_owned()],
        parameter: None,
        proto_file: proto_file.collect(),
    }
}

/// Runs the plugin and returns its response: the files by name, or the error.
fn plugin(request: &Request) -> Result<BTreeMap<String, String>, String> {
    let response = run_plugin(&request.encode_to_vec()).unwrap();
    let response = prost_types::compiler::CodeGeneratorResponse::decode(&response[..]).unwrap();
    match response.error {
        Some(error) => Err(error),
        None => {
            Ok(response.file.into_iter().map(|file| (file.name.unwrap(), file.content.unwrap())).collect())
        }
    }
}

/// Returns the error for a service with this body. The body starts at line 4.
fn refusal(body: &str) -> String {
    let head = "syntax = \"proto3\"; package p; import \"options.proto\"; message M {}\n\nservice S {\n";
    refusal_of_file(&format!("{head}{body}\n}}\n"), |_| {})
}

fn refusal_of_file(source: &str, configure: impl FnOnce(&mut Config)) -> String {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("s.proto");
    fs::write(&file, source).unwrap();
    let error = generate(&file, dir.path(), configure).expect_err("code was generated").to_string();
    error.replace(&format!("{}{}", dir.path().display(), std::path::MAIN_SEPARATOR), "")
}

#[test]
fn the_code_of_every_kind_of_method_reads_as_reviewed() {
    let file = Path::new(PROTOS).join("hats.proto");
    let files = generate(&file, Path::new(PROTOS), |_| {}).unwrap();
    assert_eq!(files.keys().collect::<Vec<_>>(), ["hats.parts.rs", "hats.v1.rs"]);
    insta::with_settings!({ snapshot_path => "../golden", prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!("hats.v1.rs", files["hats.v1.rs"]);
    });
}

#[test]
fn the_code_of_each_kind_of_method_alone_reads_as_reviewed() {
    for kind in ["unary", "multi", "stream", "subscription"] {
        let file = Path::new(PROTOS).join(format!("{kind}.proto"));
        let name = format!("{kind}.rs");
        let files = generate(&file, Path::new(PROTOS), |_| {}).unwrap();
        insta::with_settings!({ snapshot_path => "../golden", prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!(name.as_str(), files[&name]);
        });
    }
}

#[test]
fn generating_twice_gives_the_same() {
    let file = Path::new(PROTOS).join("hats.proto");
    let generate = || generate(&file, Path::new(PROTOS), |_| {}).unwrap();
    assert_eq!(generate(), generate());
}

#[test]
fn the_plugin_gives_the_same_as_the_build_script() {
    let file = Path::new(PROTOS).join("hats.proto");
    let mut request = request(&file, Path::new(PROTOS));
    request.parameter = Some("root=::other,default_runtime=false".into());
    let configured = generate(&file, Path::new(PROTOS), |config| {
        config.root("::other").default_runtime(false);
    });
    let mut configured = configured.unwrap();
    assert!(
        configured.remove("hats.parts.rs").is_some(),
        "the build script also generates imported packages; the plugin does not"
    );
    assert_eq!(plugin(&request), Ok(configured));

    request.parameter = Some("rot=::other".into());
    assert!(plugin(&request).unwrap_err().starts_with("unknown parameter \"rot=::other\""));
    assert!(run_plugin(b"\xff").is_err());
}

#[test]
fn every_recorded_name_is_the_name_on_the_wire() {
    let file = Path::new(RECORDED).join("names.proto");
    let files = generate(&file, Path::new(RECORDED), |config| {
        config.rename("names.v1.Methods.mixed_caseName", "mixed_case_name_2");
    })
    .unwrap();
    let code = &files["names.v1.rs"];
    let rows = psrpc_vectors::wire_names();
    assert_eq!(rows.len(), 32);
    for row in rows {
        assert!(code.contains(&format!("{:?},", row.wire)), "{} is {} on the wire", row.proto, row.wire);
    }
}

#[test]
fn prost_can_be_configured() {
    let file = Path::new(PROTOS).join("hats.proto");
    let files = generate(&file, Path::new(PROTOS), |config| {
        config.prost().type_attribute("HatAsk", "#[derive(Eq2)]").extern_path(".hats.parts", "::parts");
    });
    let files = files.unwrap();
    assert_eq!(files.len(), 1);
    assert!(files["hats.v1.rs"].contains("#[derive(Eq2)]"));
    assert!(files["hats.v1.rs"].contains("request: ::parts::Brim"));
}

#[test]
fn a_file_without_a_package_is_generated_too() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("s.proto");
    fs::write(&file, "syntax = \"proto3\"; message M {} service S { rpc A(M) returns (M); }").unwrap();
    let files = generate(&file, dir.path(), |_| {}).unwrap();
    assert!(files["_.rs"].contains("pub struct SClient"));
}

#[test]
fn a_package_named_by_keywords_is_there_under_its_own_name() {
    let file = Path::new(PROTOS).join("odd.proto");
    let files = generate(&file, Path::new(PROTOS), |_| {}).unwrap();
    assert_eq!(files.keys().collect::<Vec<_>>(), ["async.type.rs", "r#async.r#type.rs"]);
    assert_eq!(files["async.type.rs"], files["r#async.r#type.rs"]);
}

#[test]
fn kinds_that_exclude_each_other_are_refused_by_name_and_place() {
    for (options, problem) in [
        (
            "{ stream: true subscription: true }",
            "cannot be both a stream and a subscription; remove one of the two options",
        ),
        (
            "{ stream: true type: MULTI }",
            "cannot be both a stream and MULTI, since one server handles a stream; remove one of the two options",
        ),
        (
            "{ stream: true multi: false }",
            "cannot be both a stream and MULTI, since one server handles a stream; remove one of the two options",
        ),
    ] {
        let rpc = format!(
            "  rpc Fine(M) returns (M);\n  rpc Parade(M) returns (M) {{ option (psrpc.options) = {options}; }}"
        );
        assert_eq!(refusal(&rpc), format!("s.proto:5:3: rpc Parade {problem}"));
    }
}

#[test]
fn handlers_may_be_left_out_where_that_is_allowed() {
    let file = Path::new(PROTOS).join("hats.proto");
    let required = &generate(&file, Path::new(PROTOS), |_| {}).unwrap()["hats.v1.rs"];
    let optional = generate(&file, Path::new(PROTOS), |config| {
        config.unimplemented(true);
    });
    let optional = &optional.unwrap()["hats.v1.rs"];
    let handlers = 10;
    assert_eq!(required.matches("::psrpc::Error::unimplemented()").count(), 0);
    assert_eq!(optional.matches("::psrpc::Error::unimplemented()").count(), handlers);
}

#[test]
fn streaming_keywords_are_refused() {
    for rpc in ["rpc Up(stream M) returns (M);", "rpc Down(M) returns (stream M);"] {
        let error = refusal(&format!("  {rpc}"));
        assert!(
            error.starts_with("s.proto:4:3: rpc ") && error.contains("is not supported; remove it"),
            "{error}"
        );
    }
}

#[test]
fn rpcs_whose_rust_names_collide_are_refused_naming_both() {
    let both = "  rpc mixed_caseName(M) returns (M);\n  rpc mixed_Case_Name(M) returns (M);";
    assert_eq!(
        refusal(both),
        "s.proto:5:3: rpcs mixed_caseName and mixed_Case_Name would both become the Rust function `mixed_case_name`; give \
         one of them another name with `rename`"
    );
    let affinity = "  rpc Pick(M) returns (M) { option (psrpc.options).type = AFFINITY; }\n  rpc PickAffinity(M) returns (M);";
    assert!(
        refusal(affinity)
            .contains("Pick and PickAffinity would both become the Rust function `pick_affinity`")
    );
    for (rpc, function) in [("Close", "close"), ("Clone", "clone")] {
        assert_eq!(
            refusal(&format!("  rpc {rpc}(M) returns (M);")),
            format!(
                "s.proto:4:3: rpc {rpc} would become the Rust function `{function}`, which every client already has; \
                 give it another name with `rename`"
            )
        );
    }
    let wire = "  rpc make_hat(M) returns (M);\n  rpc MakeHat(M) returns (M);";
    assert!(refusal(wire).contains("make_hat"), "{}", refusal(wire));
}

#[test]
fn a_service_whose_types_are_taken_is_refused() {
    let source = "syntax = \"proto3\"; package p; message M {} message HatsClient {}\nservice Hats { rpc A(M) returns (M); }";
    assert_eq!(
        refusal_of_file(source, |_| {}),
        "s.proto:2:1: service Hats and HatsClient would both become the Rust type `HatsClient`; rename one of them, or move \
         the service to a package of its own"
    );
}

#[test]
fn a_service_that_would_be_a_keyword_is_refused() {
    let source = "syntax = \"proto3\"; message M {}\nservice self { rpc A(M) returns (M); }";
    assert_eq!(
        refusal_of_file(source, |_| {}),
        "s.proto:2:1: service self: `Self` is not a valid name for the Rust trait; rename the service"
    );
}

#[test]
fn a_rename_of_nothing_is_refused() {
    let source = "syntax = \"proto3\"; package p; message M {} service S { rpc A(M) returns (M); }";
    let error = refusal_of_file(source, |config| {
        config.rename("p.S.B", "b2");
    });
    assert_eq!(error, "rename p.S.B: no such rpc");
}

#[test]
fn a_rename_to_what_is_no_name_is_refused() {
    let source = "syntax = \"proto3\"; message M {}\nservice S { rpc A(M) returns (M); }";
    for name in ["r#type", "r#fit", "fit ", " fit", "fit/**/", "", "1st", "größe", "a-b", "Self"] {
        let error = refusal_of_file(source, |config| {
            config.rename("S.A", name);
        });
        assert_eq!(
            error,
            format!(
                "s.proto:2:13: rpc A: `{name}` is not a valid name for the Rust function; pass another one to `rename`, of \
                 letters, digits and `_`, without `r#`"
            )
        );
    }
}

#[test]
fn a_rename_to_a_keyword_is_written_as_a_raw_name() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("s.proto");
    let head = "syntax = \"proto3\"; import \"options.proto\"; message M {}";
    let options = "type: AFFINITY topics: true";
    let rpc = format!("rpc A(M) returns (M) {{ option (psrpc.options) = {{ {options} }}; }}");
    fs::write(&file, format!("{head} service S {{ {rpc} }}")).unwrap();
    let files = generate(&file, dir.path(), |config| {
        config.rename("S.A", "type");
    });
    let code = &files.unwrap()["_.rs"];
    for function in ["fn r#type(", "fn type_affinity(", "fn register_type_topic("] {
        assert!(code.contains(function), "{function}");
    }
}

#[test]
fn renames_that_are_one_name_as_they_are_written_are_refused() {
    let source =
        "syntax = \"proto3\"; message M {} service S { rpc self(M) returns (M); rpc A(M) returns (M); }";
    let error = refusal_of_file(source, |config| {
        config.rename("S.A", "self_");
    });
    assert!(error.contains("rpcs self and A would both become the Rust function `self_`"), "{error}");
}

#[test]
fn an_unknown_option_is_refused_by_name_and_place_and_told_what_it_may_have_meant() {
    let of = |option: &str| refusal(&format!("  rpc A(M) returns (M) {{ option {option}; }}"));
    assert_eq!(
        of("(psrpc.options).streem = true"),
        "s.proto:4:26: option field '(psrpc.options).streem' is not defined; did you mean `stream`? valid names: \
         subscription, topics, topic_params, stream, multi, affinity_func, queue, type"
    );
    assert_eq!(
        of("(psrpc.options).topic_params.grup = \"x\""),
        "s.proto:4:26: option field '(psrpc.options).topic_params.grup' is not defined; did you mean `group`? valid names: \
         group, names, typed, single_server"
    );
    let unlike = of("(psrpc.options).x = true");
    assert!(unlike.ends_with("is not defined; valid names: subscription, topics, topic_params, stream, multi, affinity_func, queue, type"), "{unlike}");
    let value = of("(psrpc.options).type = AFFINTY");
    assert!(
        value.ends_with("but found 'AFFINTY'; did you mean `AFFINITY`? valid names: QUEUE, AFFINITY, MULTI"),
        "{value}"
    );
    let text = of("(psrpc.options) = { streem: true }");
    assert!(text.ends_with("for option '(psrpc.options)'; valid names: subscription, topics, topic_params, stream, multi, affinity_func, queue, type"), "{text}");
    let extension = of("(psrpc.optons).stream = true");
    assert!(extension.ends_with("which is not defined; did you mean `psrpc.options`?"), "{extension}");
}

#[test]
fn a_file_that_does_not_compile_is_refused_by_place() {
    let error = refusal("  rpc A(M) returns (Missing);");
    assert!(error.contains("Missing") && error.contains("s.proto:4:"), "{error}");
    let error = refusal("  rpc A(M) returns");
    assert!(error.contains("s.proto:5:"), "{error}");
    let error = refusal_of_file("syntax = \"proto3\"; message M {", |_| {});
    assert!(error.starts_with("s.proto:") && error.contains("end of file"), "{error}");
    let error = refusal_of_file("syntax = \"proto3\"; import \"hats.proto\";", |_| {});
    assert_eq!(error, "s.proto:1:20: import 'hats.proto' not found");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let missing = generate(Path::new("nowhere/x.proto"), Path::new("nowhere"), |_| {}).unwrap_err();
    assert_eq!(missing.to_string(), "nowhere/x.proto: no such file");
}

#[test]
fn options_without_their_import_are_told_what_to_import() {
    let source = "syntax = \"proto3\"; message M {} service S { rpc A(M) returns (M) { option (psrpc.options).topics = true; } }";
    let error = refusal_of_file(source, |_| {});
    assert!(
        error.ends_with("'psrpc.options' is not defined; `import \"options.proto\";` defines it"),
        "{error}"
    );
}

/// Places are paths as given, so that editors and terminals can follow them.
#[test]
fn places_are_named_as_the_files_were_given() {
    let dir = tempfile::tempdir().unwrap();
    for (source, place) in [
        ("syntax = \"proto3\"; message M { Missing m = 1; }", "1:32"),
        ("syntax = \"proto3\"; message M {}\nservice S { rpc A(stream M) returns (M); }", "2:13"),
    ] {
        let file = dir.path().join("s.proto");
        fs::write(&file, source).unwrap();
        let error = generate(&file, dir.path(), |_| {}).unwrap_err();
        assert!(error.to_string().starts_with(&format!("{}:{place}: ", file.display())), "{error}");
        assert_eq!(format!("{error:?}"), error.to_string(), "build scripts print the debug form");
    }
}

#[test]
fn methods_of_a_group_have_one_topic() {
    let topic = |names: &str| {
        format!(
            "{{ option (psrpc.options) = {{ topics: true topic_params: {{ group: \"rack\" names: [{names}] }} }}; }}"
        )
    };
    let error = refusal(&format!(
        "  rpc A(M) returns (M) {}\n  rpc B(M) returns (M) {}",
        topic("\"a\""),
        topic("\"a\", \"b\"")
    ));
    assert_eq!(
        error,
        "s.proto:5:3: rpcs A and B are both in the group \"rack\", but have different topic parameters"
    );
}

#[test]
fn a_comment_may_have_any_ends_of_lines() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("s.proto");
    let code = |end: &str| {
        let comment = format!("// one{end}// two\rthree{end}");
        let source = format!(
            "syntax = \"proto3\";{end}package p;{end}{comment}message M {{}}{end}{comment}service S {{{end}{comment}\
             rpc Fit(M) returns (M);{end}}}"
        );
        fs::write(&file, source).unwrap();
        generate(&file, dir.path(), |_| {}).unwrap().remove("p.rs").unwrap()
    };
    assert!(code("\n").contains("/// one\n/// two\n/// three\n"));
    assert_eq!(code("\n"), code("\r\n"));
}

#[test]
fn what_would_have_no_rust_name_is_refused_and_named() {
    let refusal = |rest: &str| refusal_of_file(&format!("syntax = \"proto3\";\n{rest}"), |_| {});
    for (source, place, item) in [
        ("message _ {}", "2:1", "message `_`"),
        ("message M { message __ {} }", "2:13", "message `__`"),
        ("message M { string _ = 1; }", "2:13", "field `_`"),
        ("message M { oneof _ { string a = 1; } }", "2:13", "oneof `_`"),
        ("enum _ { A = 0; }", "2:1", "enum `_`"),
        ("message M { enum E { _ = 0; } }", "2:22", "enum value `_`"),
        ("package a._;", "2:1", "part of a package `_`"),
    ] {
        assert_eq!(
            refusal(source),
            format!(
                "s.proto:{place}: the {item} would have no name in Rust, since underscores are dropped; rename it"
            )
        );
    }
}

#[test]
fn a_group_that_cannot_be_part_of_a_rust_name_is_refused_and_named() {
    let rpc = |group: &str| {
        let options = format!("{{ topics: true topic_params: {{ group: {group:?} }} }}");
        format!("  rpc A(M) returns (M) {{ option (psrpc.options) = {options}; }}")
    };
    for group in ["½", "a²", "-"] {
        assert_eq!(
            refusal(&rpc(group)),
            format!("s.proto:4:3: rpc A: the group {group:?} cannot be part of a Rust name; rename it")
        );
    }
}

#[test]
fn groups_whose_rust_names_collide_are_refused_naming_both() {
    let rpc = |name: &str, group: &str| {
        let options = format!("{{ topics: true topic_params: {{ group: {group:?} }} }}");
        format!("  rpc {name}(M) returns (M) {{ option (psrpc.options) = {options}; }}\n")
    };
    let rpcs = [rpc("A", "Foo Bar"), rpc("B", "Foo Bar"), rpc("C", "foo_bar")];
    assert_eq!(
        refusal(&rpcs.concat()),
        "s.proto:6:3: rpcs A and C are in the groups \"Foo Bar\" and \"foo_bar\", which would both become `foo_bar` in Rust; \
         rename one of them"
    );
}

/// Same as in Go; the recorded case is `ParamsNoTopics`.
#[test]
fn parameters_of_topics_without_topics_are_ignored_but_for_the_single_server() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("s.proto");
    let code = |params: &str| {
        let head = "syntax = \"proto3\"; import \"options.proto\"; message M {}";
        let rpc = format!(
            "rpc A(M) returns (M) {{ option (psrpc.options) = {{ topic_params: {{ {params} }} }}; }}"
        );
        fs::write(&file, format!("{head} service S {{ {rpc} }}")).unwrap();
        generate(&file, dir.path(), |_| {}).unwrap().remove("_.rs").unwrap()
    };
    assert_eq!(code("names: [\"a\", \"a\"] typed: true group: \"rack\""), code(""));
    assert!(code("").contains("require_claim: true"));
    assert!(code("single_server: true").contains("require_claim: false"));
}

#[test]
fn topic_parameters_whose_rust_names_collide_are_refused_naming_both() {
    let refusal_of = |names: &str| {
        refusal(&format!(
            "  rpc A(M) returns (M) {{ option (psrpc.options) = {{ topics: true topic_params: {{ names: [{names}] }} }}; }}"
        ))
    };
    for (one, other, both) in [
        ("a", "a", "a"),
        ("shopName", "shop_name", "shop_name"),
        ("request", "request_topic", "request_topic"),
        ("update_topic", "update", "update_topic"),
    ] {
        assert_eq!(
            refusal_of(&format!("{one:?}, {other:?}")),
            format!(
                "s.proto:4:3: rpc A: the topic parameters {one:?} and {other:?} would both become the Rust parameter `{both}`; rename one of them"
            )
        );
    }
    for name in ["", "1st", "a²"] {
        assert_eq!(
            refusal_of(&format!("{name:?}")),
            format!("s.proto:4:3: rpc A: the topic parameter {name:?} is not a valid Rust name; rename it")
        );
    }
}

/// Generated code shares a module with the messages, which may be named `Sized`.
#[test]
fn bounds_are_named_by_paths_that_no_message_can_take() {
    let file = Path::new(PROTOS).join("odd.proto");
    let code = &generate(&file, Path::new(PROTOS), |_| {}).unwrap()["async.type.rs"];
    assert!(code.contains("pub struct Sized {}") && code.contains("?::core::marker::Sized"));
    assert!(!code.contains("?Sized"));
}
