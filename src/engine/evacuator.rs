//! Gives memory back after deletes: takes the store's [steps of evacuation](crate::store), with pauses between them, so
//! that readers and the applier hardly meet it.

use std::{sync::Arc, time::Duration};

use super::{Core, background::Background};

/// How often it looks when there is nothing to do.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// It pauses this many times as long as a step took: a quarter of one core at most.
const PAUSE_FACTOR: u32 = 3;

/// Starts the thread.
pub fn start(core: Arc<Core>) -> std::io::Result<Background> {
    Background::start("tandem-evacuator", move |stop| {
        while !stop.requested() {
            let steps = core.store.evacuate(|elapsed| {
                core.shared.metrics.evacuated(elapsed);
                stop.pause(elapsed * PAUSE_FACTOR);
            });
            core.shared.metrics.allocated(core.store.totals().allocated_bytes);
            if steps == 0 {
                stop.pause(LOOK_EVERY);
            }
        }
    })
}
