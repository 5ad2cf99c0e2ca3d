//! How long the hot paths take, each alone.
//!
//!     cargo bench --bench micro [-- PART-OF-A-NAME]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod paths;

use criterion::Criterion;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for (name, set_up) in paths::PATHS {
        let mut path = None;
        criterion.bench_function(name, |bencher| {
            // Only what is chosen is set up, and once.
            let path = path.get_or_insert_with(set_up);
            bencher.iter(path);
        });
    }
    criterion.final_summary();
}
