//! What a running server does beside its ordinary requests: figures, not assertions.
//!
//!     cargo bench --bench served -- streams|storage [KEYS]
//!
//! Starts servers of its own in a temporary directory (`TANDEM_BENCH_DIRECTORY` says where), filled with KEYS keys of 32
//! bytes with values of 256, and prints one line a figure. Compare figures of one run only.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod server;
mod storage;
mod streams;

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let keys = |default: u64| arguments.iter().find_map(|argument| argument.parse().ok()).unwrap_or(default);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    match arguments.first().map(String::as_str) {
        Some("streams") => runtime.block_on(streams::run(keys(1_000_000))),
        Some("storage") => storage::run(&runtime, keys(10_000_000)),
        _ => panic!("say which: streams or storage"),
    }
}
