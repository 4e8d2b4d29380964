//! Tests of the warnings.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use prost::Message;

use crate::{generate, request};

/// The environment variable that passes `build_script` its input file.
const FILE: &str = "PSRPC_WARNED";

/// The build script that [`warnings`] runs. Without the environment variable it does nothing.
#[test]
fn build_script() {
    if let Some(file) = std::env::var_os(FILE) {
        let file = Path::new(&file);
        generate(file, file.parent().unwrap(), |_| {}).unwrap();
    }
}

/// Returns the warnings for `source`, which starts at line 3 of its file. The build script and the
/// plugin must print the same.
fn warnings(source: &str) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("s.proto");
    let head = "syntax = \"proto3\"; package p;\nimport \"options.proto\"; message M {}\n";
    fs::write(&file, format!("{head}{source}")).unwrap();

    let mut script = Command::new(std::env::current_exe().unwrap());
    script.args(["--exact", "warnings::build_script", "--nocapture"]).env(FILE, &file).env("TARGET", "any");
    let output = script.output().unwrap();
    assert!(output.status.success());
    let output = String::from_utf8(output.stdout).unwrap();
    let lines = output.lines().filter_map(|line| line.strip_prefix("cargo:warning="));
    let directory = format!("{}{}", dir.path().display(), std::path::MAIN_SEPARATOR);
    let of_build_script: Vec<_> =
        lines.map(|line| line.strip_prefix(&directory).unwrap().to_owned()).collect();

    let mut plugin = Command::new(env!("CARGO_BIN_EXE_protoc-gen-psrpc"));
    plugin.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut plugin = plugin.spawn().unwrap();
    plugin.stdin.take().unwrap().write_all(&request(&file, dir.path()).encode_to_vec()).unwrap();
    let output = String::from_utf8(plugin.wait_with_output().unwrap().stderr).unwrap();
    let of_plugin: Vec<_> = output.lines().map(|line| line.strip_prefix("warning: ").unwrap()).collect();
    assert_eq!(of_plugin, of_build_script);
    of_build_script
}

/// Returns an rpc with these psrpc options.
fn rpc(name: &str, options: &str) -> String {
    format!("  rpc {name}(M) returns (M) {{ option (psrpc.options) = {{ {options} }}; }}\n")
}

/// Returns the warnings for a service `Hats` with these rpcs.
fn warnings_of_hats(rpcs: &[(&str, &str)]) -> Vec<String> {
    let rpcs: String = rpcs.iter().map(|(name, options)| rpc(name, options)).collect();
    warnings(&format!("service Hats {{\n{rpcs}}}\n"))
}

#[test]
fn names_of_topics_without_topics_are_a_warning() {
    assert_eq!(
        warnings_of_hats(&[("A", "topic_params: { names: [\"a\"] }")]),
        [
            "s.proto:4:3: rpc A: `topic_params.names` is ignored because the rpc has no topics; set `topics: true`"
        ]
    );
    assert!(warnings_of_hats(&[("A", "topic_params: { single_server: true }")]).is_empty());
    assert!(warnings_of_hats(&[("A", "topics: true topic_params: { names: [\"a\"] }")]).is_empty());
}

#[test]
fn updates_that_share_a_queue_with_calls_are_a_warning() {
    assert_eq!(
        warnings_of_hats(&[("Fit", ""), ("rumour_v1", "subscription: true")]),
        [
            "s.proto:3:1: service Hats: on NATS, clients that subscribe to rumour_v1 and servers of Fit share a subject \
          and a queue group. NATS hands each update and each request to one member of the group, so about half of them \
          go to a member that cannot use them, and are lost. Put rumour_v1 into a service of its own; give rumour_v1 \
          topics; make it `type: MULTI`, so that every subscriber gets each update; or, if no Go client subscribes to \
          it, set `NatsOptions::separate_updates(\"Hats\", \"RumourV1\")` on every bus"
        ]
    );
    assert_eq!(
        warnings_of_hats(&[
            ("Fit", "topics: true"),
            ("Make", "topics: true topic_params: { single_server: true }"),
            ("Rumour", "subscription: true topics: true"),
            ("Gossip", "subscription: true topics: true queue: true"),
        ]),
        [
            "s.proto:3:1: service Hats: on NATS, clients that subscribe to Rumour and Gossip and servers of Fit and Make \
          share a subject and a queue group for each topic that both use. NATS hands each update and each request to \
          one member of the group, so about half of them go to a member that cannot use them, and are lost. Put Rumour \
          and Gossip into a service of their own; publish Rumour and Gossip on topics that no server of Fit and Make \
          registers; make them `type: MULTI`, so that every subscriber gets each update; or, if no Go client \
          subscribes to them, set `NatsOptions::separate_updates(\"Hats\", \"Rumour\")` and \
          `NatsOptions::separate_updates(\"Hats\", \"Gossip\")` on every bus"
        ]
    );
}

/// The warning does not suggest topics for `Rumour`: with topics, it would share a queue with
/// `Find`.
#[test]
fn a_service_gets_one_warning_for_both_kinds_of_shared_queues() {
    let both = [
        ("Fit", ""),
        ("Rumour", "subscription: true"),
        ("Find", "topics: true"),
        ("Bulletin", "subscription: true topics: true"),
        ("Everywhere", "subscription: true type: MULTI"),
        ("Census", "type: MULTI"),
    ];
    let warning = warnings_of_hats(&both);
    assert_eq!(warning.len(), 1);
    for part in [
        "clients that subscribe to Rumour and servers of Fit share a subject and a queue group, and clients that \
         subscribe to Bulletin and servers of Find share a subject and a queue group for each topic that both use.",
        "Put Rumour and Bulletin into a service of their own; publish Bulletin on topics that no server of Find \
         registers; make them `type: MULTI`",
    ] {
        assert!(warning[0].contains(part), "{}", warning[0]);
    }
    for unconcerned in ["give", "Everywhere", "Census"] {
        assert!(!warning[0].contains(unconcerned), "{}", warning[0]);
    }
}

#[test]
fn updates_that_share_no_queue_are_no_warning() {
    let queue = ("Rumour", "subscription: true");
    for rpcs in [
        &[queue, ("Bulletin", "subscription: true")][..],
        &[queue, ("Find", "topics: true")],
        &[queue, ("Fit", "type: AFFINITY")],
        &[queue, ("Fit", "affinity_func: true")],
        &[queue, ("Census", "type: MULTI")],
        // Servers subscribe to the messages of a stream without a queue.
        &[queue, ("Parade", "stream: true")],
        &[("Rumour", "subscription: true type: MULTI"), ("Fit", "")],
        &[("Rumour", "subscription: true type: AFFINITY"), ("Fit", "")],
        &[("Rumour", "subscription: true topics: true"), ("Fit", "")],
    ] {
        assert_eq!(warnings_of_hats(rpcs), [""; 0], "{rpcs:?}");
    }
    let apart = format!(
        "service Hats {{ {} }}\nservice Gossip {{ {} }}\n",
        rpc("Fit", ""),
        rpc("Rumour", "subscription: true")
    );
    assert_eq!(warnings(&apart), [""; 0]);
}

#[test]
fn each_service_has_a_warning_of_its_own() {
    let rpcs = rpc("Fit", "") + &rpc("Rumour", "subscription: true");
    let warnings = warnings(&format!("service Hats {{\n{rpcs}}}\nservice Caps {{\n{rpcs}}}\n"));
    let places: Vec<_> = warnings.iter().map(|line| line.split_once(": on NATS").unwrap().0).collect();
    assert_eq!(places, ["s.proto:3:1: service Hats", "s.proto:7:1: service Caps"]);
}
