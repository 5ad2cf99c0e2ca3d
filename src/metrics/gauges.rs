//! Gauges, and counters of what happens seldom: set by whoever knows, shown when a scrape asks.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use opentelemetry::metrics::Meter;

use super::Metrics;

/// What the store holds, as of the last group.
#[derive(Clone, Copy, Debug, Default)]
pub struct State {
    /// Entries.
    pub keys: u64,
    /// Bytes of keys and values.
    pub data_bytes: u64,
    /// Bytes that entries and indexes use.
    pub used_bytes: u64,
    /// Bytes that the store holds for them.
    pub allocated_bytes: u64,
    /// Revision of the last applied record.
    pub revision: u64,
    /// How far back the retry window reaches.
    pub request_window: Duration,
}

/// What is set as it changes, and read by a scrape.
#[derive(Debug, Default)]
pub(super) struct Gauges {
    pub(super) ready: AtomicU64,
    pub(super) queue_depth: AtomicU64,
    pub(super) written_bytes: AtomicU64,
    pub(super) keys: AtomicU64,
    pub(super) data_bytes: AtomicU64,
    pub(super) used_bytes: AtomicU64,
    pub(super) allocated_bytes: AtomicU64,
    pub(super) memory_limit_bytes: AtomicU64,
    pub(super) expired_keys: AtomicU64,
    pub(super) expiry_lag_ms: AtomicU64,
    pub(super) evicted_keys: AtomicU64,
    pub(super) disk_free_bytes: AtomicU64,
    pub(super) disk_reserve_bytes: AtomicU64,
    pub(super) revision: AtomicU64,
    pub(super) request_window_ms: AtomicU64,
    pub(super) recovery_us: AtomicU64,
    pub(super) recovery_cut_bytes: AtomicU64,
    pub(super) watchers: AtomicU64,
    pub(super) watch_events: AtomicU64,
    pub(super) watch_dropped: AtomicU64,
    pub(super) watch_history_events: AtomicU64,
    pub(super) watch_history_bytes: AtomicU64,
    pub(super) spans_sent: AtomicU64,
    pub(super) spans_failed: AtomicU64,
    pub(super) snapshot_written_bytes: AtomicU64,
    pub(super) snapshot_failures: AtomicU64,
    pub(super) snapshot_last_bytes: AtomicU64,
    pub(super) snapshot_last_index: AtomicU64,
    pub(super) snapshot_last_ms: AtomicU64,
}

impl Metrics {
    /// Bytes were written to the log.
    pub fn written(&self, bytes: u64) {
        self.0.gauges.written_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// So many bytes are allocated for the store.
    pub fn allocated(&self, bytes: u64) {
        self.0.gauges.allocated_bytes.store(bytes, Ordering::Relaxed);
    }

    /// So many writes wait for the log.
    pub fn queued(&self, depth: u64) {
        self.0.gauges.queue_depth.store(depth, Ordering::Relaxed);
    }

    /// What the store holds now.
    pub fn state(&self, state: State) {
        let gauges = &self.0.gauges;
        gauges.keys.store(state.keys, Ordering::Relaxed);
        gauges.data_bytes.store(state.data_bytes, Ordering::Relaxed);
        gauges.used_bytes.store(state.used_bytes, Ordering::Relaxed);
        self.allocated(state.allocated_bytes);
        gauges.revision.store(state.revision, Ordering::Relaxed);
        let window_ms = u64::try_from(state.request_window.as_millis()).unwrap_or(u64::MAX);
        gauges.request_window_ms.store(window_ms, Ordering::Relaxed);
    }

    /// So many entries were removed because their time had come.
    pub fn expired(&self, keys: u64) {
        self.0.gauges.expired_keys.fetch_add(keys, Ordering::Relaxed);
    }

    /// The oldest entry whose time has come and that is still there is late by so much.
    pub fn expiry_lag(&self, lag: Duration) {
        let lag_ms = u64::try_from(lag.as_millis()).unwrap_or(u64::MAX);
        self.0.gauges.expiry_lag_ms.store(lag_ms, Ordering::Relaxed);
    }

    /// So many entries were removed to make room.
    pub fn evicted(&self, keys: u64) {
        self.0.gauges.evicted_keys.fetch_add(keys, Ordering::Relaxed);
    }

    /// The disk has so much room, of which so much is kept free.
    pub fn disk(&self, free_bytes: u64, reserve_bytes: u64) {
        self.0.gauges.disk_free_bytes.store(free_bytes, Ordering::Relaxed);
        self.0.gauges.disk_reserve_bytes.store(reserve_bytes, Ordering::Relaxed);
    }

    /// The store may use so much.
    pub fn memory_limit(&self, bytes: u64) {
        self.0.gauges.memory_limit_bytes.store(bytes, Ordering::Relaxed);
    }

    /// So many watchers are there.
    pub fn watchers(&self, count: u64) {
        self.0.gauges.watchers.store(count, Ordering::Relaxed);
    }

    /// A watcher was sent events.
    pub fn watch_events(&self, count: u64) {
        self.0.gauges.watch_events.fetch_add(count, Ordering::Relaxed);
    }

    /// A watcher was ended because it read too slowly.
    pub fn watcher_dropped(&self) {
        self.0.gauges.watch_dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// What the watch history holds now.
    pub fn watch_history(&self, events: u64, bytes: u64) {
        self.0.gauges.watch_history_events.store(events, Ordering::Relaxed);
        self.0.gauges.watch_history_bytes.store(bytes, Ordering::Relaxed);
    }

    /// The start's recovery took this long, and cut so many torn bytes off the log.
    pub fn recovered(&self, elapsed: Duration, cut_bytes: u64) {
        let recovery_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        self.0.gauges.recovery_us.store(recovery_us, Ordering::Relaxed);
        self.0.gauges.recovery_cut_bytes.store(cut_bytes, Ordering::Relaxed);
    }

    /// This is the last snapshot: it ends at this record, whose time is `time_ms`.
    pub fn snapshot_there(&self, index: u64, bytes: u64, time_ms: u64) {
        let gauges = &self.0.gauges;
        gauges.snapshot_last_index.store(index, Ordering::Relaxed);
        gauges.snapshot_last_bytes.store(bytes, Ordering::Relaxed);
        gauges.snapshot_last_ms.store(time_ms, Ordering::Relaxed);
    }

    /// A snapshot failed.
    pub fn snapshot_failed(&self) {
        self.0.gauges.snapshot_failures.fetch_add(1, Ordering::Relaxed);
    }

    /// So many spans were sent to the collector, or could not be.
    pub fn spans(&self, count: u64, sent: bool) {
        let counter = if sent { &self.0.gauges.spans_sent } else { &self.0.gauges.spans_failed };
        counter.fetch_add(count, Ordering::Relaxed);
    }

    /// Whether requests may be sent here.
    pub fn ready(&self, ready: bool) {
        self.0.gauges.ready.store(u64::from(ready), Ordering::Relaxed);
    }
}

/// Shows them.
pub(super) fn observe(meter: &Meter, gauges: &Arc<Gauges>) {
    observe_levels(meter, gauges);
    observe_overhead(meter, gauges);
    observe_seconds(meter, gauges);
    observe_counters(meter, gauges);
}

fn observe_levels(meter: &Meter, gauges: &Arc<Gauges>) {
    let gauge = |name: &'static str, unit: &'static str, help: &'static str, read: fn(&Gauges) -> &AtomicU64| {
        let gauges = Arc::clone(gauges);
        meter
            .u64_observable_gauge(name)
            .with_unit(unit)
            .with_description(help)
            .with_callback(move |observer| observer.observe(read(&gauges).load(Ordering::Relaxed), &[]))
            .build();
    };
    gauge("tandem.ready", "", "1 where requests may be sent here, as /readyz says; else 0.", |gauges| &gauges.ready);
    gauge("tandem.recovery.cut", "By", "Torn bytes that the start cut off the log.", |gauges| {
        &gauges.recovery_cut_bytes
    });
    gauge("tandem.commit.queue.depth", "{write}", "Writes that wait for the log.", |gauges| &gauges.queue_depth);
    gauge("tandem.keys", "{key}", "Entries in the store.", |gauges| &gauges.keys);
    gauge("tandem.data", "By", "Bytes of the keys and values in the store.", |gauges| &gauges.data_bytes);
    gauge("tandem.snapshot.last", "By", "Bytes of the last snapshot.", |gauges| &gauges.snapshot_last_bytes);
    gauge("tandem.snapshot.last.index", "{record}", "Last record that the last snapshot contains.", |gauges| {
        &gauges.snapshot_last_index
    });
    gauge("tandem.revision", "{revision}", "Revision of the last applied record.", |gauges| &gauges.revision);
    gauge("tandem.watchers", "{watcher}", "Watchers connected.", |gauges| &gauges.watchers);
    gauge("tandem.watch.history.events", "{event}", "Events kept for watchers that begin in the past.", |gauges| {
        &gauges.watch_history_events
    });
    gauge("tandem.watch.history", "By", "Bytes that the events kept for watchers take.", |gauges| {
        &gauges.watch_history_bytes
    });
    gauge("tandem.memory.used", "By", "Bytes that entries and indexes use.", |gauges| &gauges.used_bytes);
    gauge("tandem.memory.allocated", "By", "Bytes that the store holds for entries and indexes.", |gauges| {
        &gauges.allocated_bytes
    });
    gauge("tandem.memory.limit", "By", "Bytes that entries and indexes may use.", |gauges| &gauges.memory_limit_bytes);
    gauge("tandem.disk.free", "By", "Bytes that are free on the disk of the data directory.", |gauges| {
        &gauges.disk_free_bytes
    });
    gauge("tandem.disk.reserve", "By", "Bytes of that disk below which growth is refused.", |gauges| {
        &gauges.disk_reserve_bytes
    });
}

fn observe_overhead(meter: &Meter, gauges: &Arc<Gauges>) {
    let overhead = Arc::clone(gauges);
    meter
        .u64_observable_gauge("tandem.memory.overhead")
        .with_unit("By")
        .with_description("What the store holds beyond the keys and values themselves.")
        .with_callback(move |observer| {
            let allocated = overhead.allocated_bytes.load(Ordering::Relaxed);
            observer.observe(allocated.saturating_sub(overhead.data_bytes.load(Ordering::Relaxed)), &[]);
        })
        .build();
}

fn observe_seconds(meter: &Meter, gauges: &Arc<Gauges>) {
    let seconds = |name: &'static str, help: &'static str, read: fn(&Gauges) -> f64| {
        let gauges = Arc::clone(gauges);
        meter
            .f64_observable_gauge(name)
            .with_unit("s")
            .with_description(help)
            .with_callback(move |observer| observer.observe(read(&gauges), &[]))
            .build();
    };
    seconds("tandem.request.window", "How far back answers to request ids are remembered.", |gauges| {
        gauges.request_window_ms.load(Ordering::Relaxed) as f64 / 1e3
    });
    seconds("tandem.expiry.lag", "How long ago the time came of the oldest entry that is not removed yet.", |gauges| {
        gauges.expiry_lag_ms.load(Ordering::Relaxed) as f64 / 1e3
    });
    seconds("tandem.recovery.duration", "Time that the start's recovery took.", |gauges| {
        gauges.recovery_us.load(Ordering::Relaxed) as f64 / 1e6
    });
    seconds(
        "tandem.snapshot.last.time",
        "Time of the last snapshot's state, in seconds since 1970 UTC; 0: none.",
        |gauges| gauges.snapshot_last_ms.load(Ordering::Relaxed) as f64 / 1e3,
    );
}

fn observe_counters(meter: &Meter, gauges: &Arc<Gauges>) {
    let counter = |name: &'static str, unit: &'static str, help: &'static str, read: fn(&Gauges) -> &AtomicU64| {
        let gauges = Arc::clone(gauges);
        meter
            .u64_observable_counter(name)
            .with_unit(unit)
            .with_description(help)
            .with_callback(move |observer| observer.observe(read(&gauges).load(Ordering::Relaxed), &[]))
            .build();
    };
    counter("tandem.wal.written", "By", "Bytes written to the write-ahead log.", |gauges| &gauges.written_bytes);
    counter("tandem.expirations", "{key}", "Entries removed because their time had come.", |gauges| {
        &gauges.expired_keys
    });
    counter("tandem.evictions", "{key}", "Entries removed to make room.", |gauges| &gauges.evicted_keys);
    counter("tandem.watch.events", "{event}", "Events sent to watchers.", |gauges| &gauges.watch_events);
    counter("tandem.watch.dropped", "{watcher}", "Watchers ended because they read too slowly.", |gauges| {
        &gauges.watch_dropped
    });
    counter("tandem.trace.spans.sent", "{span}", "Spans sent to the collector.", |gauges| &gauges.spans_sent);
    counter("tandem.trace.spans.failed", "{span}", "Spans that the collector did not take.", |gauges| {
        &gauges.spans_failed
    });
    counter("tandem.snapshot.written", "By", "Bytes of the snapshots that were written.", |gauges| {
        &gauges.snapshot_written_bytes
    });
    counter("tandem.snapshot.failures", "{failure}", "Snapshots that failed.", |gauges| &gauges.snapshot_failures);
}
