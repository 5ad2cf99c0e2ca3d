//! Requests in numbers: operations by how they were answered, slow ones, those that reached no operation, and streams.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use opentelemetry::{KeyValue, metrics::Meter};

use super::{Metrics, Operation, Protocol};
use crate::error::Reason;

/// Reasons are few and small: one place each, `OK` at 0.
const REASONS: usize = 64;

/// Answers of operations.
pub(super) struct Operations([[[AtomicU64; REASONS]; Protocol::ALL.len()]; Operation::ALL.len()]);

/// The last place: what is none of the store's operations.
#[derive(Default)]
pub(super) struct SlowRequests([[AtomicU64; Protocol::ALL.len()]; Operation::ALL.len() + 1]);

/// Of requests that reached no operation.
pub(super) struct Rejected([[AtomicU64; REASONS]; Protocol::ALL.len()]);

/// Streams that are open.
pub(super) type Streams = [AtomicU64; Protocol::ALL.len()];

impl Default for Operations {
    fn default() -> Self {
        Self(std::array::from_fn(|_| std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(0)))))
    }
}

impl Default for Rejected {
    fn default() -> Self {
        Self(std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(0))))
    }
}

/// The time of a stream, until dropped.
#[derive(Debug)]
pub struct StreamTimer {
    metrics: Metrics,
    operation: Option<Operation>,
    protocol: Protocol,
    started: Instant,
}

impl Drop for StreamTimer {
    fn drop(&mut self) {
        self.metrics.0.streams[self.protocol as usize].fetch_sub(1, Ordering::Relaxed);
        if !self.metrics.0.enabled {
            return;
        }
        let labels = (Operation::label_of(self.operation), self.protocol.label());
        self.metrics.0.histograms.stream.record(labels, self.started.elapsed(), || {
            vec![KeyValue::new("operation", labels.0), KeyValue::new("protocol", labels.1)]
        });
    }
}

impl Metrics {
    /// An operation was answered; no reason: it went well.
    pub fn answered(&self, operation: Operation, protocol: Protocol, reason: Option<Reason>) {
        let place = reason.map_or(0, |reason| reason as usize);
        let counters = &self.0.operations.0[operation as usize][protocol as usize];
        if let Some(counter) = counters.get(place) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A request took long.
    pub fn slow_request(&self, operation: Option<Operation>, protocol: Protocol) {
        let place = operation.map_or(Operation::ALL.len(), |operation| operation as usize);
        self.0.slow_requests.0[place][protocol as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// A request was refused before it reached an operation.
    pub fn rejected(&self, protocol: Protocol, reason: Reason) {
        if let Some(counter) = self.0.rejected.0[protocol as usize].get(reason as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A stream begins; its time is recorded when this is dropped, whoever ends it. No operation: none of the store's.
    pub fn stream_begins(&self, operation: Option<Operation>, protocol: Protocol) -> StreamTimer {
        self.0.streams[protocol as usize].fetch_add(1, Ordering::Relaxed);
        StreamTimer { metrics: self.clone(), operation, protocol, started: Instant::now() }
    }
}

/// The reason that is counted at this place.
fn reason_at(place: usize) -> Option<Reason> {
    Reason::try_from(i32::try_from(place).ok()?).ok()
}

/// Shows them.
pub(super) fn observe_operations(meter: &Meter, operations: &Arc<Operations>) {
    let operations = Arc::clone(operations);
    meter
        .u64_observable_counter("tandem.operations")
        .with_unit("{operation}")
        .with_description("Operations answered, by operation, protocol and reason; OK: it went well.")
        .with_callback(move |observer| {
            for operation in Operation::ALL {
                for protocol in Protocol::ALL {
                    let counters = &operations.0[operation as usize][protocol as usize];
                    for (place, counter) in counters.iter().enumerate() {
                        let count = counter.load(Ordering::Relaxed);
                        let reason = match place {
                            0 => Some("OK"),
                            _ if count == 0 => None,
                            place => reason_at(place).map(Reason::name),
                        };
                        if let Some(reason) = reason {
                            let labels = [
                                KeyValue::new("operation", operation.label()),
                                KeyValue::new("protocol", protocol.label()),
                                KeyValue::new("reason", reason),
                            ];
                            observer.observe(count, &labels);
                        }
                    }
                }
            }
        })
        .build();
}

/// Shows them.
pub(super) fn observe_slow_requests(meter: &Meter, slow_requests: &Arc<SlowRequests>) {
    let slow_requests = Arc::clone(slow_requests);
    meter
        .u64_observable_counter("tandem.slow_requests")
        .with_unit("{request}")
        .with_description("Requests that took as long as telemetry.slow_request_threshold, by operation and protocol.")
        .with_callback(move |observer| {
            let operations = Operation::ALL.into_iter().map(Some).chain([None]);
            for (operation, counters) in operations.zip(&slow_requests.0) {
                for (protocol, counter) in Protocol::ALL.into_iter().zip(counters) {
                    let labels = [
                        KeyValue::new("operation", Operation::label_of(operation)),
                        KeyValue::new("protocol", protocol.label()),
                    ];
                    observer.observe(counter.load(Ordering::Relaxed), &labels);
                }
            }
        })
        .build();
}

/// Shows them.
pub(super) fn observe_rejected(meter: &Meter, rejected: &Arc<Rejected>) {
    let rejected = Arc::clone(rejected);
    meter
        .u64_observable_counter("tandem.rejected_requests")
        .with_unit("{request}")
        .with_description("Requests refused before they reached an operation, by protocol and reason.")
        .with_callback(move |observer| {
            for (protocol, counters) in Protocol::ALL.into_iter().zip(&rejected.0) {
                for (place, counter) in counters.iter().enumerate() {
                    let count = counter.load(Ordering::Relaxed);
                    // One that is there from the first scrape; the others come with their first.
                    let Some(reason) = reason_at(place).filter(|reason| count > 0 || *reason == Reason::RouteNotFound)
                    else {
                        continue;
                    };
                    let labels = [KeyValue::new("protocol", protocol.label()), KeyValue::new("reason", reason.name())];
                    observer.observe(count, &labels);
                }
            }
        })
        .build();
}

/// Shows them.
pub(super) fn observe_streams(meter: &Meter, streams: &Arc<Streams>) {
    let streams = Arc::clone(streams);
    meter
        .u64_observable_gauge("tandem.streams")
        .with_unit("{stream}")
        .with_description("Streams that are open: scans, watches, and health's, by protocol.")
        .with_callback(move |observer| {
            for (protocol, count) in Protocol::ALL.into_iter().zip(streams.iter()) {
                observer.observe(count.load(Ordering::Relaxed), &[KeyValue::new("protocol", protocol.label())]);
            }
        })
        .build();
}
