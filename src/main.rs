//! The `tandem` program: reads the command line and hands over.

use std::process::ExitCode;

/// Requests are made of many small, short-lived pieces: beside glibc's allocator, on two cores, this one took 8% to 16% off
/// the server's CPU time a request, on both doors; jemalloc is as quick for single requests, takes 14% from `BatchWrite` and
/// 30% more memory. The store's own memory is not its matter: that comes from pages.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    tandem::cli::run(std::env::args_os(), tandem::app::run)
}
