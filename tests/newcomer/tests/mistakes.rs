//! Compiler errors for common first mistakes name the fix. A misspelled option in a .proto is
//! tested in psrpc-build.

use std::fs;
use std::path::Path;
use std::process::Command;

/// The compiler version that wrote `mistakes/*.stderr`. The errors of other versions differ.
const COMPILER: &str = "rustc 1.95.0";

/// The parts that each error must contain.
const FIXES: [(&str, &[&str]); 4] = [
    ("missing_method", &["missing `fit` in implementation", "fn fit(&self, _: "]),
    ("wrong_message", &["expected `HatAsk`, found `HatReply`", "pub fn fit(&self, request: HatAsk)"]),
    (
        "forgotten_await",
        &["a call does nothing until it is awaited", "a message is not sent until it is awaited"],
    ),
    ("handler_not_send", &["has type `Rc<String>` which is not `Send`", "bound in `Hats::fit"]),
];

#[test]
fn the_errors_for_first_mistakes_are_those_reviewed_if_this_is_their_compiler() {
    let version = Command::new("rustc").arg("--version").output().expect("rustc runs");
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    if !version.starts_with(COMPILER) {
        println!("skipped: the reviewed errors are those of {COMPILER}, this is {version}");
        return;
    }
    trybuild::TestCases::new().compile_fail("tests/mistakes/*.rs");
}

#[test]
fn the_reviewed_errors_name_the_fix() {
    for (mistake, fixes) in FIXES {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/mistakes/{mistake}.stderr"));
        let error = fs::read_to_string(path).unwrap();
        for fix in fixes {
            assert!(error.contains(fix), "{mistake}: the error does not contain {fix:?}:\n{error}");
        }
    }
}
