//! Connections of each door: how many are open, were taken, and were turned away.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use opentelemetry::{KeyValue, metrics::Meter};

use super::Metrics;

/// A listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// REST.
    Http,
    /// gRPC.
    Grpc,
    /// Probes, metrics and administration.
    Ops,
}

/// Why a connection was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turned {
    /// The listener has as many as it may: `limits.connections`.
    Limit,
    /// The operating system gave none, for want of file descriptors most likely.
    Accept,
}

impl Door {
    const ALL: [Self; 3] = [Self::Http, Self::Grpc, Self::Ops];

    fn label(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
            Self::Ops => "ops",
        }
    }
}

impl Turned {
    const ALL: [Self; 2] = [Self::Limit, Self::Accept];

    fn label(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::Accept => "accept",
        }
    }
}

/// The counters.
#[derive(Debug, Default)]
pub(super) struct Connections {
    open: [AtomicU64; Door::ALL.len()],
    accepted: [AtomicU64; Door::ALL.len()],
    turned: [[AtomicU64; Turned::ALL.len()]; Door::ALL.len()],
}

/// A connection, open until dropped.
#[derive(Debug)]
pub struct OpenConnection {
    connections: Arc<Connections>,
    door: Door,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.connections.open[self.door as usize].fetch_sub(1, Ordering::Relaxed);
    }
}

impl Metrics {
    /// A connection was accepted: it is open until this is dropped.
    pub fn connected(&self, door: Door) -> OpenConnection {
        let connections = Arc::clone(&self.0.connections);
        connections.accepted[door as usize].fetch_add(1, Ordering::Relaxed);
        connections.open[door as usize].fetch_add(1, Ordering::Relaxed);
        OpenConnection { connections, door }
    }

    /// A connection was turned away.
    pub fn turned_away(&self, door: Door, turned: Turned) {
        self.0.connections.turned[door as usize][turned as usize].fetch_add(1, Ordering::Relaxed);
    }
}

/// Shows them.
pub(super) fn observe(meter: &Meter, connections: &Arc<Connections>) {
    let open = Arc::clone(connections);
    meter
        .u64_observable_gauge("tandem.connections")
        .with_unit("{connection}")
        .with_description("Connections that are open, by door.")
        .with_callback(move |observer| {
            for (door, count) in Door::ALL.into_iter().zip(&open.open) {
                observer.observe(count.load(Ordering::Relaxed), &[KeyValue::new("door", door.label())]);
            }
        })
        .build();
    let accepted = Arc::clone(connections);
    meter
        .u64_observable_counter("tandem.connections.accepted")
        .with_unit("{connection}")
        .with_description("Connections that were accepted, by door.")
        .with_callback(move |observer| {
            for (door, count) in Door::ALL.into_iter().zip(&accepted.accepted) {
                observer.observe(count.load(Ordering::Relaxed), &[KeyValue::new("door", door.label())]);
            }
        })
        .build();
    let turned = Arc::clone(connections);
    meter
        .u64_observable_counter("tandem.connections.refused")
        .with_unit("{connection}")
        .with_description(
            "Connections turned away, by door and why: limit (limits.connections), accept (no descriptors).",
        )
        .with_callback(move |observer| {
            for (door, reasons) in Door::ALL.into_iter().zip(&turned.turned) {
                for (why, count) in Turned::ALL.into_iter().zip(reasons) {
                    let labels = [KeyValue::new("door", door.label()), KeyValue::new("reason", why.label())];
                    observer.observe(count.load(Ordering::Relaxed), &labels);
                }
            }
        })
        .build();
}
