//! The command that runs another while servers are there.

use std::process::{Command, Output};

fn run(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_psrpc-servers")).args(words).output().unwrap()
}

fn echo(kind: &str) -> String {
    let output = run(&[kind, "echo", "URL"]);
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn each_kind_has_its_url() {
    assert!(echo("redis").starts_with("redis://127.0.0.1:"));
    assert!(echo("nats").starts_with("nats://127.0.0.1:"));
    assert!(echo("redis-unix").starts_with("redis+unix:///"));
    assert!(echo("redis-tls").starts_with("rediss://127.0.0.1:"));
    assert!(echo("nats-tls").starts_with("tls://127.0.0.1:"));
    let sentinel = echo("redis-sentinel");
    assert!(sentinel.starts_with("redis+sentinel://127.0.0.1:") && sentinel.ends_with("/hats"), "{sentinel}");
    let cluster = echo("redis-cluster");
    assert!(cluster.starts_with("redis+cluster://127.0.0.1:"), "{cluster}");
    assert_eq!(cluster.split(',').count(), 3);
    assert_eq!(echo("nats-cluster").split(",nats://127.0.0.1:").count(), 3);
}

#[test]
fn with_tls_the_command_finds_the_certificates() {
    let output = run(&["redis-tls", "cat", "CA", "CERT", "KEY"]);
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.matches("BEGIN CERTIFICATE").count(), 2);
    assert_eq!(text.matches("BEGIN PRIVATE KEY").count(), 1);
}

#[test]
fn a_wrong_use_and_a_failing_command_are_failures() {
    let unknown = run(&["hats", "true"]);
    assert!(!unknown.status.success());
    let said = String::from_utf8(unknown.stderr).unwrap();
    assert!(said.contains("\"hats\"") && said.contains("redis-sentinel"), "{said}");
    assert!(!run(&["nats"]).status.success());
    assert!(!run(&["nats", "false"]).status.success());
    assert!(run(&["nats", "true"]).status.success());
}
