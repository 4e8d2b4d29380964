//! See `src/bus.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| psrpc_fuzz::bus::run(input));
