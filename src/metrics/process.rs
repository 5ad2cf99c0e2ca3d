//! The process: its version, age, memory and processor time.

use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry::{KeyValue, metrics::Meter};

/// Memory of the process that is in RAM, if the operating system tells.
pub fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// Shows it.
pub(super) fn observe(meter: &Meter) {
    meter
        .u64_observable_gauge("tandem.build.info")
        .with_description("1, labelled with the server's version.")
        .with_callback(|observer| observer.observe(1, &[KeyValue::new("version", env!("CARGO_PKG_VERSION"))]))
        .build();
    let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    meter
        .f64_observable_gauge("process.start_time")
        .with_unit("s")
        .with_description("When the process started, in seconds since 1970 UTC.")
        .with_callback(move |observer| observer.observe(started, &[]))
        .build();
    meter
        .u64_observable_gauge("process.resident_memory")
        .with_unit("By")
        .with_description("Memory of the process that is in RAM.")
        .with_callback(|observer| {
            if let Some(bytes) = resident_bytes() {
                observer.observe(bytes, &[]);
            }
        })
        .build();
    meter
        .f64_observable_counter("process.cpu")
        .with_unit("s")
        .with_description("Time that the process ran, user and system, all threads.")
        .with_callback(|observer| {
            let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
            // The name of the process may hold anything; behind its closing bracket field 14 and 15 are the 12th and 13th.
            let fields: Vec<_> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
            let ticks = |place: usize| fields.get(place).and_then(|ticks| ticks.parse::<u64>().ok());
            if let (Some(user), Some(system)) = (ticks(11), ticks(12)) {
                observer.observe((user + system) as f64 / rustix::param::clock_ticks_per_second() as f64, &[]);
            }
        })
        .build();
}
