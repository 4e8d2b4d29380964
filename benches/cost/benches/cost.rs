//! Instructions and allocations of what the engine does, at its edge, of calls through the driver,
//! and of each message on the wire.
//!
//! Counted by valgrind, so they are the same each time for one compiler, but for how memory happens
//! to be aligned: a few in a thousand. `cargo run --release -p psrpc-cost --bin limits` holds them
//! to limits.txt; to see more of what valgrind counts, `cargo bench -p psrpc-cost --bench cost`,
//! which needs `cargo install gungraun-runner --version 0.20.0`.

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

/// What is measured by reference costs neither moves nor a drop.
fn kept<T>(value: T) -> &'static mut T {
    Box::leak(Box::new(value))
}

fn kept_beside<T, F>((value, frames): (T, F)) -> (&'static mut T, F) {
    (kept(value), frames)
}

// A call of a claimed method: request, bid, grant and response, through a client and a server,
// without encoding.
#[library_benchmark]
#[bench::warm(kept(Pair::new(CLAIMED)))]
fn claimed_call(pair: &'static mut Pair) {
    pair.call();
}

// A call of a single_server method: request and response.
#[library_benchmark]
#[bench::warm(kept(Pair::new(SINGLE_SERVER)))]
fn single_server_call(pair: &'static mut Pair) {
    pair.call();
}

// A call of a claimed method as a user makes it: through both drivers, on the in-process bus, on
// one thread.
#[library_benchmark]
#[bench::warm(kept(Driven::new()))]
fn driver_call(driven: &'static mut Driven) {
    driven.call();
}

// A message of a stream with its ack, in the same way.
#[library_benchmark]
#[bench::warm(kept(Driven::new()))]
fn driver_stream_message(driven: &'static mut Driven) {
    driven.message();
}

// A turn of a queue of the in-process bus, with so many members.
#[library_benchmark]
#[bench::of_10(kept_beside((BusQueue::new(10), request())))]
#[bench::of_10_000(kept_beside((BusQueue::new(10_000), request())))]
fn bus_queue_turn((queue, frame): (&'static mut BusQueue, Frame)) {
    queue.publish(frame);
}

// A message of a stream with its ack, through a client and a server, however many streams share the
// channel.
#[library_benchmark]
#[bench::of_10(kept(Streams::new(10)))]
#[bench::of_10_000(kept(Streams::new(10_000)))]
fn stream_message(streams: &'static mut Streams) {
    streams.message();
}

// A bid that is one more, at a client that has so many.
#[library_benchmark]
#[bench::of_10(kept_beside(Bids::new(10)))]
#[bench::of_1_000(kept_beside(Bids::new(1_000)))]
fn one_more_bid((bids, another): (&'static mut Bids, Frame)) {
    bids.hear(another);
}

// A request at a server that bids for it, and that hears another granted it.
#[library_benchmark]
#[bench::warm(kept_beside(IdleServer::new()))]
fn losing_bid((server, frames): (&'static mut IdleServer, [Frame; 2])) {
    server.lose(frames);
}

// A request that has expired when it comes.
#[library_benchmark]
#[bench::warm(kept_beside(IdleServer::with_expired()))]
fn expired_request((server, request): (&'static mut IdleServer, Frame)) {
    server.drop_expired(request);
}

// The grant of a request that this server did not see.
#[library_benchmark]
#[bench::warm(kept_beside(IdleServer::with_grant()))]
fn foreign_grant((server, grant): (&'static mut IdleServer, Frame)) {
    server.pass_by(grant);
}

// The response to a call that this client did not make.
#[library_benchmark]
#[bench::warm(kept_beside(IdleClient::new()))]
fn foreign_response((client, answer): (&'static mut IdleClient, Frame)) {
    client.hear(answer);
}

fn encoded_before(frame: Frame) -> &'static mut Frame {
    // A buffer of that size is there to be had again; to find the first one costs more or less by
    // what was freed before `main`.
    drop(black_box(frame.encode("Fit.REQ")));
    kept(frame)
}

// A message into its envelope.
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
    // As a network bus has it: shared already.
    let encoded = frame.encode("Fit.REQ");
    let _shared = encoded.clone();
    assert_eq!(Frame::decode(&encoded, &FrameLimits::DEFAULT), Ok((frame, "Fit.REQ".into())));
    kept(encoded)
}

// The same back from its envelope.
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

// A claimed call beside so many others whose handlers run. Without the allocations, which take long
// to count.
#[library_benchmark(config = LibraryBenchmarkConfig::default().tool(Dhat::default().enable(false)))]
#[bench::of_100(kept(Pair::crowded(CLAIMED, 100)))]
#[bench::of_100_000(kept(Pair::crowded(CLAIMED, 100_000)))]
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
