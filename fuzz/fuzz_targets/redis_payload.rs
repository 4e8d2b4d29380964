//! See `src/redis_payload.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| psrpc_fuzz::redis_payload::run(input));
