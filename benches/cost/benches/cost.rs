//! Instructions and allocations of the engine's operations, of calls through the driver, and of
//! each message on the wire.
//!
//! Counted by valgrind. With the same compiler, the counts vary by a few per mille, because of
//! memory alignment. `cargo run --release -p psrpc-cost --bin limits` compares them with
//! limits.txt. `cargo bench -p psrpc-cost --bench cost` prints more of valgrind's counters; it
//! needs `cargo install gungraun-runner --version 0.20.0`.

#![allow(missing_docs, reason = "the harness is generated")]

use std::hint::black_box;

use bytes::Bytes;
use gungraun::Dhat;
use gungraun::prelude::*;
use psrpc_cost::messages::{
    claim_request, claim_response, error_response, request, response, stream_ack, stream_close, stream_open,
    update,
};
use psrpc_cost::{Bids, BusQueue, Driven, IdleClient, IdleServer, Pair, Streams, messages};
use psrpc_engine::proto::{DecodeError, Frame, FrameLimits, MethodProperties, Routing, Text};

const CLAIMED: MethodProperties = MethodProperties { routing: Routing::Queue, require_claim: true };
const SINGLE_SERVER: MethodProperties = MethodProperties { routing: Routing::Queue, require_claim: false };

/// Leaks a value. A bench that takes it by reference neither moves nor drops it.
fn leak<T>(value: T) -> &'static mut T {
    Box::leak(Box::new(value))
}

fn leak_first<T, F>((value, frames): (T, F)) -> (&'static mut T, F) {
    (leak(value), frames)
}

// A call of a claimed method: request, bid, grant and response, through a client and a server,
// without encoding.
#[library_benchmark]
#[bench::warm(leak(Pair::new(CLAIMED)))]
fn claimed_call(pair: &'static mut Pair) {
    pair.call();
}

// A call of a single_server method: request and response.
#[library_benchmark]
#[bench::warm(leak(Pair::new(SINGLE_SERVER)))]
fn single_server_call(pair: &'static mut Pair) {
    pair.call();
}

// A call of a claimed method through both drivers, on the in-process bus, on one thread.
#[library_benchmark]
#[bench::warm(leak(Driven::new()))]
fn driver_call(driven: &'static mut Driven) {
    driven.call();
}

// A message of a stream with its ack, through both drivers.
#[library_benchmark]
#[bench::warm(leak(Driven::new()))]
fn driver_stream_message(driven: &'static mut Driven) {
    driven.message();
}

// A turn of a queue of the in-process bus.
#[library_benchmark]
#[bench::of_10(leak_first((BusQueue::new(10), request())))]
#[bench::of_10_000(leak_first((BusQueue::new(10_000), request())))]
fn bus_queue_turn((queue, frame): (&'static mut BusQueue, Frame)) {
    queue.publish(frame);
}

// A message of a stream with its ack, through a client and a server, with other streams on the same
// channel.
#[library_benchmark]
#[bench::of_10(leak(Streams::new(10)))]
#[bench::of_10_000(leak(Streams::new(10_000)))]
fn stream_message(streams: &'static mut Streams) {
    streams.message();
}

// A bid at a client that has received others.
#[library_benchmark]
#[bench::of_10(leak_first(Bids::new(10)))]
#[bench::of_1_000(leak_first(Bids::new(1_000)))]
fn one_more_bid((bids, another): (&'static mut Bids, Frame)) {
    bids.receive(another);
}

// A request at a server that bids for it and loses to another server.
#[library_benchmark]
#[bench::warm(leak_first(IdleServer::new()))]
fn losing_bid((server, frames): (&'static mut IdleServer, [Frame; 2])) {
    server.lose(frames);
}

// A request that has expired on arrival.
#[library_benchmark]
#[bench::warm(leak_first(IdleServer::with_expired()))]
fn expired_request((server, request): (&'static mut IdleServer, Frame)) {
    server.drop_expired(request);
}

// The grant of an unknown request.
#[library_benchmark]
#[bench::warm(leak_first(IdleServer::with_grant()))]
fn foreign_grant((server, grant): (&'static mut IdleServer, Frame)) {
    server.receive_grant(grant);
}

// The response to an unknown call.
#[library_benchmark]
#[bench::warm(leak_first(IdleClient::new()))]
fn foreign_response((client, response): (&'static mut IdleClient, Frame)) {
    client.receive(response);
}

fn encoded_before(frame: Frame) -> &'static mut Frame {
    // Makes a buffer of this size available. The cost of finding the first one would depend on
    // earlier frees.
    drop(black_box(frame.encode("Fit.REQ")));
    leak(frame)
}

// Encodes a message in its envelope.
#[library_benchmark(setup = encoded_before)]
#[bench::request(request())]
#[bench::claim_request(claim_request())]
#[bench::claim_response(claim_response())]
#[bench::response(response())]
#[bench::error_response(error_response())]
#[bench::stream_open(stream_open())]
#[bench::stream_message(messages::stream_message())]
#[bench::stream_ack(stream_ack())]
#[bench::stream_close(stream_close())]
#[bench::update(update())]
fn encode(frame: &'static mut Frame) -> Bytes {
    black_box(frame).encode("Fit.REQ")
}

fn encoded(frame: Frame) -> &'static Bytes {
    // Shared, as on a network bus.
    let encoded = frame.encode("Fit.REQ");
    let _shared = encoded.clone();
    assert_eq!(Frame::decode(&encoded, &FrameLimits::DEFAULT), Ok((frame, "Fit.REQ".into())));
    leak(encoded)
}

// Decodes a message from its envelope.
#[library_benchmark(setup = encoded)]
#[bench::request(request())]
#[bench::claim_request(claim_request())]
#[bench::claim_response(claim_response())]
#[bench::response(response())]
#[bench::error_response(error_response())]
#[bench::stream_open(stream_open())]
#[bench::stream_message(messages::stream_message())]
#[bench::stream_ack(stream_ack())]
#[bench::stream_close(stream_close())]
#[bench::update(update())]
fn decode(bytes: &'static Bytes) -> Result<(Frame, Text), DecodeError> {
    Frame::decode(black_box(bytes), &FrameLimits::DEFAULT)
}

// A claimed call next to others whose handlers run. Allocations are not counted, since that takes
// long.
#[library_benchmark(config = LibraryBenchmarkConfig::default().tool(Dhat::default().enable(false)))]
#[bench::of_100(leak(Pair::crowded(CLAIMED, 100)))]
#[bench::of_100_000(leak(Pair::crowded(CLAIMED, 100_000)))]
fn call_in_a_crowd(pair: &'static mut Pair) {
    pair.call();
}

library_benchmark_group!(
    name = engine,
    benchmarks = [
        claimed_call,
        single_server_call,
        stream_message,
        one_more_bid,
        losing_bid,
        expired_request,
        foreign_grant,
        foreign_response,
        call_in_a_crowd
    ]
);

library_benchmark_group!(name = driver, benchmarks = [driver_call, driver_stream_message, bus_queue_turn]);

library_benchmark_group!(name = wire, benchmarks = [encode, decode]);

main!(
    config = LibraryBenchmarkConfig::default().tool(Dhat::default()),
    library_benchmark_groups = [engine, driver, wire]
);
