//! Generates the services that the cases use, and services with unusual names, to check that
//! generated code compiles.

fn main() -> Result<(), psrpc_build::Error> {
    generate("proto", "shop.proto", |config| {
        config.unimplemented(true);
    })?;
    generate("../vectors/proto", "names.proto", |config| {
        config.rename("names.v1.Methods.mixed_caseName", "mixed_case_name_2");
    })?;
    generate("../../psrpc-build/tests/protos", "hats.proto", |_| {})?;
    generate("../../psrpc-build/tests/protos", "odd.proto", |_| {})
}

fn generate(
    include: &str,
    file: &str,
    configure: impl FnOnce(&mut psrpc_build::Config),
) -> Result<(), psrpc_build::Error> {
    let mut config = psrpc_build::Config::new();
    config.default_runtime(false);
    configure(&mut config);
    config.compile(&[format!("{include}/{file}")], &[include])
}
