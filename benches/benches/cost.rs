//! Instructions and allocations of one call at the engine's edge, and of one request on the wire.
//!
//! Counted by valgrind, so they are the same each time for one compiler. Needs valgrind and
//! `cargo install gungraun-runner --version 0.20.0`; then `cargo bench -p psrpc-bench --bench cost`.

#![allow(missing_docs, reason = "the harness is generated")]

use std::hint::black_box;

use gungraun::Dhat;
use gungraun::prelude::*;
use psrpc_bench::{Pair, Streams, request};
use psrpc_engine::proto::{Frame, FrameLimits, MethodProperties, Routing};

fn queue() -> Pair {
    Pair::new(MethodProperties { routing: Routing::Queue, require_claim: true })
}

fn single_server() -> Pair {
    Pair::new(MethodProperties { routing: Routing::Queue, require_claim: false })
}

// A call of a claimed method: request, bid, grant and response, through a client and a server, without encoding.
#[library_benchmark]
#[bench::warm(setup = queue, args = [])]
fn claimed_call(mut pair: Pair) -> Pair {
    pair.call();
    pair
}

// A call of a single_server method: request and response.
#[library_benchmark]
#[bench::warm(setup = single_server, args = [])]
fn single_server_call(mut pair: Pair) -> Pair {
    pair.call();
    pair
}

// A message of a stream with its ack, through a client and a server, however many streams share the channel.
#[library_benchmark]
#[bench::of_10(setup = Streams::new, args = [10])]
#[bench::of_10_000(setup = Streams::new, args = [10_000])]
fn stream_message(mut streams: Streams) -> Streams {
    streams.message();
    streams
}

fn frame() -> Frame {
    Frame::Request(request())
}

// A request with a payload of 64 bytes into its envelope.
#[library_benchmark]
#[bench::of_64_bytes(setup = frame, args = [])]
fn encode_request(frame: Frame) -> (Frame, bytes::Bytes) {
    let encoded = black_box(&frame).encode("Fit.REQ");
    (frame, encoded)
}

fn encoded() -> bytes::Bytes {
    // As a network bus has it: shared already.
    let encoded = frame().encode("Fit.REQ");
    let _shared = encoded.clone();
    encoded
}

// The same back from its envelope.
#[library_benchmark]
#[bench::of_64_bytes(setup = encoded, args = [])]
fn decode_request(bytes: bytes::Bytes) -> (bytes::Bytes, Frame) {
    let (frame, _) = Frame::decode(black_box(&bytes), &FrameLimits::DEFAULT).expect("a frame");
    (bytes, frame)
}

library_benchmark_group!(
    name = cost,
    benchmarks = [claimed_call, single_server_call, stream_message, encode_request, decode_request]
);

main!(config = LibraryBenchmarkConfig::default().tool(Dhat::default()), library_benchmark_groups = cost);
