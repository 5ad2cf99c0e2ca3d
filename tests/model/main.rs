//! The store against the plainest model there is, an ordered map: random requests through both doors of a real server,
//! with clean restarts and `kill -9` between, each answer compared.
//!
//! `TANDEM_MODEL_CASES` sets the number of cases.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

#[path = "../support/asks.rs"]
mod asks;
#[path = "../support/doors/mod.rs"]
mod doors;
mod map;
#[path = "../support/reference.rs"]
mod reference;
mod steps;
#[path = "../support/mod.rs"]
mod support;
mod world;

use proptest::test_runner::{Config, TestRunner};

use self::world::World;

#[test]
fn the_store_is_an_ordered_map_through_restarts_and_crashes() {
    let cases = std::env::var("TANDEM_MODEL_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(6);
    // Each trial of a shrink starts a server: few, so that a failure is told before the patience ends.
    let config = Config { cases, max_shrink_iters: 60, failure_persistence: None, ..Config::default() };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let run = |steps| {
        runtime.block_on(async {
            let mut world = World::start().await;
            for (step, over_rest) in steps {
                world.take(step, over_rest).await;
            }
            world.end().await;
        });
        Ok(())
    };
    if let Err(failure) = TestRunner::new(config).run(&steps::steps(), run) {
        panic!("{failure}");
    }
}
