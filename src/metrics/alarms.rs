//! Alarms, by the names that `/readyz?verbose` gives them: 1 while there is something for a person to do.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use opentelemetry::{KeyValue, metrics::Meter};

use super::Metrics;

/// What may be wrong with a server that runs.
pub const ALARMS: [&str; 5] = ["log", "disk", "memory", "snapshot", "queue"];

/// Which of [`ALARMS`] are raised.
pub(super) type Raised = [AtomicBool; ALARMS.len()];

impl Metrics {
    /// Raises or clears an alarm; any other name is none.
    pub fn alarm(&self, name: &str, raised: bool) {
        if let Some(place) = ALARMS.iter().position(|alarm| *alarm == name) {
            self.0.alarms[place].store(raised, Ordering::Relaxed);
        }
    }
}

/// Shows them.
pub(super) fn observe(meter: &Meter, raised: &Arc<Raised>) {
    let raised = Arc::clone(raised);
    meter
        .u64_observable_gauge("tandem.alarms")
        .with_unit("{alarm}")
        .with_description("1 while the alarm is raised, else 0; /readyz?verbose says more of it.")
        .with_callback(move |observer| {
            for (alarm, raised) in ALARMS.into_iter().zip(raised.iter()) {
                observer.observe(u64::from(raised.load(Ordering::Relaxed)), &[KeyValue::new("alarm", alarm)]);
            }
        })
        .build();
}
