//! See `src/nats_payload.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| psrpc_fuzz::nats_payload::run(input));
