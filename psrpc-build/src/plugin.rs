//! The protoc plugin, which generates the same code as a build script.

use std::collections::BTreeSet;

use prost::Message;
use prost_reflect::DescriptorPool;
use prost_types::FileDescriptorSet;

use crate::compile::for_rust;
use crate::{Config, Error};

/// `google.protobuf.compiler.CodeGeneratorRequest` with its files left encoded. Decoding them as
/// prost's own descriptors would lose the options.
#[derive(Clone, PartialEq, Message)]
struct Request {
    #[prost(string, repeated, tag = "1")]
    file_to_generate: Vec<String>,
    #[prost(string, optional, tag = "2")]
    parameter: Option<String>,
    #[prost(bytes = "vec", repeated, tag = "15")]
    proto_file: Vec<Vec<u8>>,
}

/// `google.protobuf.FileDescriptorSet`, with its files left encoded.
#[derive(Clone, PartialEq, Message)]
struct EncodedFiles {
    #[prost(bytes = "vec", repeated, tag = "1")]
    file: Vec<Vec<u8>>,
}

/// Processes an encoded request from protoc and returns the encoded response.
///
/// Errors in the .proto become part of the response, as protoc expects.
///
/// # Errors
///
/// Returns an error if `request` is not a `CodeGeneratorRequest`, or a file cannot be read or
/// written.
pub fn run_plugin(request: &[u8]) -> Result<Vec<u8>, Error> {
    use prost_types::compiler::CodeGeneratorResponse;
    // FEATURE_PROTO3_OPTIONAL: protoc rejects proto3 optional fields unless the plugin declares it.
    let supported_features = Some(1);
    let response = match answer(request) {
        Ok(file) => CodeGeneratorResponse { file, supported_features, ..CodeGeneratorResponse::default() },
        Err(error @ (Error::Io(_) | Error::Request(_))) => return Err(error),
        Err(error) => CodeGeneratorResponse {
            error: Some(error.to_string()),
            supported_features,
            ..CodeGeneratorResponse::default()
        },
    };
    Ok(response.encode_to_vec())
}

fn answer(request: &[u8]) -> Result<Vec<prost_types::compiler::code_generator_response::File>, Error> {
    let decode = |error: &dyn std::fmt::Display| Error::Request(error.to_string());
    let request = Request::decode(request).map_err(|error| decode(&error))?;
    let encoded = EncodedFiles { file: request.proto_file }.encode_to_vec();
    let files = FileDescriptorSet::decode(&encoded[..]).map_err(|error| decode(&error))?;
    if let Some(file) = files.file.iter().find(|file| file.syntax() == "editions") {
        return Err(Error::Proto(format!("{}: {}", file.name(), crate::hint::NO_EDITIONS)));
    }
    let requested: BTreeSet<String> = request.file_to_generate.into_iter().collect();
    let names: Vec<_> = requested.iter().map(String::as_str).collect();
    // The output has one file for each package, built from all known files of the package. prost
    // also generates the other packages, whose types it looks up; their files are left out of the
    // response.
    let packages: BTreeSet<String> = files
        .file
        .iter()
        .filter(|file| requested.contains(file.name()))
        .map(|file| file.package().to_owned())
        .collect();
    let pool = DescriptorPool::decode(&encoded[..]).map_err(|error| decode(&error))?;
    let mut config = Config::new();
    for parameter in request.parameter.iter().flat_map(|all| all.split(',')).filter(|one| !one.is_empty()) {
        set(&mut config, parameter)?;
    }
    let out = tempfile::tempdir()?;
    config.out_dir(out.path());
    let files = for_rust(files, &requested);
    let warnings = crate::without_panics(&names.join(", "), || config.generate(&pool, files))?;
    for warning in warnings {
        eprintln!("warning: {warning}");
    }
    let file_names: BTreeSet<String> =
        packages.iter().flat_map(|package| config.file_names(package)).collect();
    let mut generated = Vec::new();
    for entry in std::fs::read_dir(out.path())? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if file_names.contains(&name) {
            generated.push(prost_types::compiler::code_generator_response::File {
                name: Some(name),
                content: Some(std::fs::read_to_string(entry.path())?),
                ..Default::default()
            });
        }
    }
    generated.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(generated)
}

fn set(config: &mut Config, parameter: &str) -> Result<(), Error> {
    let unknown = || Error::Parameter(parameter.to_owned());
    match parameter.split_once('=').ok_or_else(unknown)? {
        ("root", path) => config.root(path),
        ("unimplemented", on) => config.unimplemented(on.parse().map_err(|_| unknown())?),
        ("client", on) => config.client(on.parse().map_err(|_| unknown())?),
        ("server", on) => config.server(on.parse().map_err(|_| unknown())?),
        ("default_runtime", on) => config.default_runtime(on.parse().map_err(|_| unknown())?),
        ("rename", rename) => {
            let (rpc, name) = rename.split_once(':').ok_or_else(unknown)?;
            config.rename(rpc, name)
        }
        _ => return Err(unknown()),
    };
    Ok(())
}
