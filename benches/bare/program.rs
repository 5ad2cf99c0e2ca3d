//! The ceiling that `benches/compare` measures Tandem against: a bare tonic and a bare axum server of the same shape, which
//! give one preset answer with nothing behind them. Same schema, same sizes and headers of answers, same allocator, same
//! sockets and windows, one runtime for each core as in `src/app/cores.rs`. What is missing is what Tandem does.
//!
//!     cargo run --release --features measuring --bin bare -- serve
//!     cargo run --release --features measuring --bin bare -- fill ADDRESS KEYS
//!
//! `serve` prints its two addresses and serves until its standard input ends. `fill` writes keys to a Tandem.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod fill;
mod grpc;
mod rest;
mod serving;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Of every value.
const VALUE: [u8; 256] = [b'x'; 256];
/// What a store says that has written for a while.
const REVISION: u64 = 1_234_567;

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve"] => serving::serve(rest::routes(), grpc::routes()),
        ["fill", address, keys] => fill::fill(address, keys.parse().expect("a number of keys")),
        _ => panic!("say what to do: serve, or fill ADDRESS KEYS"),
    }
}
