//! See `src/compiler.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| psrpc_fuzz::compiler::run(input));
