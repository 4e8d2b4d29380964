//! The compiler: any .proto is either rejected or becomes valid Rust.

use std::fs;

use arbitrary::{Arbitrary, Unstructured};
use psrpc_build::Config;
use tempfile::TempDir;

thread_local! {
    static DIR: TempDir = tempfile::tempdir().expect("a temporary directory can be created");
}

/// Compiles the input: as a .proto, or, if it begins with a zero, as the seed of a generated
/// service.
pub fn run(input: &[u8]) {
    match input {
        [0, rest @ ..] => {
            if let Ok(service) = Service::arbitrary_take_rest(Unstructured::new(rest)) {
                compile(&service.proto(), service.rename);
            }
        }
        text => compile(&String::from_utf8_lossy(text), None),
    }
}

fn compile(source: &str, rename: Option<(Name<'_>, Name<'_>)>) {
    // Generated services are not visible in the input.
    if std::env::var_os("SHOW").is_some() {
        println!("{source}");
    }
    DIR.with(|dir| {
        let (file, out) = (dir.path().join("s.proto"), dir.path().join("out"));
        fs::write(&file, source).expect("the file can be written");
        fs::create_dir(&out).expect("the directory can be created");
        let mut config = Config::new();
        config.out_dir(&out);
        if let Some((rpc, name)) = rename {
            config.unimplemented(true).rename(format!("p.S.{}", rpc.text()), name.text());
        }
        match config.compile(&[&file], &[dir.path()]) {
            Ok(()) => {
                for entry in fs::read_dir(&out).expect("the directory can be read") {
                    let path = entry.expect("the directory can be read").path();
                    let code = fs::read_to_string(&path).expect("generated code is UTF-8");
                    if let Err(error) = syn::parse_file(&code) {
                        panic!("{}: {error}", path.display());
                    }
                }
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
        fs::remove_dir_all(&out).expect("the directory can be removed");
    });
}

/// A generated service. Its options are valid more often than those of a randomly mutated text.
#[derive(Debug, Arbitrary)]
struct Service<'a> {
    name: Name<'a>,
    rpcs: Vec<Rpc<'a>>,
    messages: [Name<'a>; 2],
    rename: Option<(Name<'a>, Name<'a>)>,
}

#[derive(Debug, Arbitrary)]
struct Rpc<'a> {
    name: Name<'a>,
    comment: Option<&'a str>,
    request: bool,
    response: bool,
    stream: bool,
    subscription: bool,
    topics: bool,
    typed: bool,
    single_server: bool,
    routing: u8,
    group: Option<Name<'a>>,
    names: Vec<Name<'a>>,
}

/// A name: one with a special meaning, or any.
#[derive(Clone, Copy, Debug, Arbitrary)]
enum Name<'a> {
    Odd(u8),
    Any(&'a str),
}

impl<'a> Name<'a> {
    const ODD: &'static [&'static str] = &[
        "S",
        "s",
        "Fit",
        "fit",
        "FitHat",
        "fit_hat",
        "self",
        "Self",
        "super",
        "crate",
        "_",
        "__",
        "_1",
        "type",
        "async",
        "gen",
        "r#fn",
        "new",
        "client",
        "with_options",
        "Topic",
        "topic",
        "request",
        "update",
        "Option",
        "Result",
        "Send",
        "Vec",
        "String",
        "Box",
        "SApi",
        "SClient",
        "SServer",
        "S_SERVICE",
        "register_fit_topic",
        "subscribe_fit",
        "fit_affinity",
        "publish_fit",
        "shutdown",
        "clone",
        "all",
        "é",
        "",
    ];

    fn text(self) -> &'a str {
        match self {
            Name::Odd(index) => Self::ODD[usize::from(index) % Self::ODD.len()],
            Name::Any(text) => text,
        }
    }
}

impl Service<'_> {
    fn proto(&self) -> String {
        let [one, other] = self.messages.map(Name::text);
        let mut text = format!(
            "syntax = \"proto3\";\npackage p;\nimport \"options.proto\";\nmessage {one} {{}}\nmessage {other} {{}}\n"
        );
        text += &format!("service {} {{\n", self.name.text());
        for rpc in &self.rpcs {
            let message = |first| if first { one } else { other };
            if let Some(comment) = rpc.comment {
                comment.lines().for_each(|line| text += &format!("  // {line}\n"));
            }
            let (name, request, response) = (rpc.name.text(), message(rpc.request), message(rpc.response));
            text += &format!("  rpc {name}({request}) returns ({response}) {{\n");
            let flags = [("stream", rpc.stream), ("subscription", rpc.subscription), ("topics", rpc.topics)];
            for (flag, _) in flags.into_iter().filter(|(_, set)| *set) {
                text += &format!("    option (psrpc.options).{flag} = true;\n");
            }
            let routing =
                ["type = QUEUE", "type = AFFINITY", "type = MULTI", "affinity_func = true", "multi = false"];
            text += &format!(
                "    option (psrpc.options).{};\n",
                routing[usize::from(rpc.routing) % routing.len()]
            );
            text += &format!(
                "    option (psrpc.options).topic_params = {{ typed: {} single_server: {}",
                rpc.typed, rpc.single_server
            );
            for (field, name) in rpc
                .group
                .iter()
                .map(|group| ("group", group))
                .chain(rpc.names.iter().map(|name| ("names", name)))
            {
                text += &format!(" {field}: \"{}\"", name.text().escape_default());
            }
            text += " };\n  }\n";
        }
        text + "}\n"
    }
}
