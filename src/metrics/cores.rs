//! The serving cores: how busy they are, and how long what is ready waits for its turn.

use std::time::Duration;

use opentelemetry::KeyValue;
use tokio::runtime::RuntimeMetrics;

use super::Metrics;

impl Metrics {
    /// Shows the core that a runtime serves. Its share of busy time is the rate of what this counts.
    pub fn watch_core(&self, number: usize, runtime: RuntimeMetrics) {
        self.0.cores.lock().push((number, runtime));
    }

    /// Something that was ready waited so long for its turn on a core.
    pub fn core_lagged(&self, lag: Duration) {
        if self.0.enabled {
            self.0.histograms.core_lag.record(lag.as_secs_f64());
        }
    }
}

/// Cores by number, with what tells of them.
pub(super) type Cores = std::sync::Arc<parking_lot::Mutex<Vec<(usize, RuntimeMetrics)>>>;

/// Shows them.
pub(super) fn observe(meter: &opentelemetry::metrics::Meter, cores: &Cores) {
    let cores = Cores::clone(cores);
    meter
        .f64_observable_counter("tandem.core.busy")
        .with_unit("s")
        .with_description("Time that each serving core worked; its rate is the share of the core that is used.")
        .with_callback(move |observer| {
            for (number, runtime) in &*cores.lock() {
                let busy: Duration =
                    (0..runtime.num_workers()).map(|worker| runtime.worker_total_busy_duration(worker)).sum();
                observer.observe(busy.as_secs_f64(), &[KeyValue::new("core", number.to_string())]);
            }
        })
        .build();
}
