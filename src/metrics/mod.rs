//! Every instrument in one catalogue. Call sites use verbs; names, units and labels stand here alone.
//!
//! Instruments are OpenTelemetry's, exported for Prometheus from a registry of this server's own. What is recorded for
//! each request costs little: operations are counted in a table of atomics that the exporter reads ([`requests`]), and
//! [`histograms`] are bound to their labels once. No label ever carries a key, a raw path or a client's text.

mod alarms;
mod connections;
mod cores;
mod gauges;
mod histograms;
mod labels;
mod operation;
mod process;
mod requests;

pub use self::{
    alarms::ALARMS,
    connections::{Door, OpenConnection, Turned},
    gauges::State,
    labels::{code_label, method_label},
    operation::{Operation, Protocol},
    process::resident_bytes,
    requests::StreamTimer,
};

use std::{fmt, sync::Arc};

use opentelemetry::metrics::MeterProvider as _;
use opentelemetry_sdk::{Resource, metrics::SdkMeterProvider};
use prometheus::{Encoder as _, Registry, TextEncoder};

use self::{
    alarms::Raised,
    connections::Connections,
    cores::Cores,
    gauges::Gauges,
    histograms::Histograms,
    requests::{Operations, Rejected, SlowRequests, Streams},
};

struct Inner {
    enabled: bool,
    registry: Registry,
    /// Its readers live as long as it does.
    _provider: SdkMeterProvider,
    operations: Arc<Operations>,
    slow_requests: Arc<SlowRequests>,
    rejected: Arc<Rejected>,
    streams: Arc<Streams>,
    connections: Arc<Connections>,
    cores: Cores,
    alarms: Arc<Raised>,
    gauges: Arc<Gauges>,
    histograms: Histograms,
}

/// The instruments. Cheap to clone.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

impl fmt::Debug for Metrics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Metrics").field("enabled", &self.0.enabled).finish_non_exhaustive()
    }
}

/// The exporter refused its set-up, or a scrape could not be written.
#[derive(Debug)]
pub struct MetricsError(String);

impl fmt::Display for MetricsError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "metrics: {}", self.0)
    }
}

impl std::error::Error for MetricsError {}

impl Metrics {
    /// All instruments, in a registry of their own. With `enabled` false the verbs of requests do nothing.
    pub fn new(enabled: bool) -> Result<Self, MetricsError> {
        let registry = Registry::new();
        let exporter = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .scope_info_enabled(false)
            .without_target_info()
            .build()
            .map_err(|error| MetricsError(error.to_string()))?;
        let provider =
            SdkMeterProvider::builder().with_reader(exporter).with_resource(Resource::builder_empty().build()).build();
        let meter = provider.meter("tandem");
        let operations = Arc::new(Operations::default());
        let slow_requests = Arc::new(SlowRequests::default());
        let rejected = Arc::new(Rejected::default());
        let (streams, connections, cores, alarms) = (Arc::default(), Arc::default(), Cores::default(), Arc::default());
        let gauges = Arc::new(Gauges::default());
        requests::observe_operations(&meter, &operations);
        requests::observe_slow_requests(&meter, &slow_requests);
        requests::observe_rejected(&meter, &rejected);
        requests::observe_streams(&meter, &streams);
        connections::observe(&meter, &connections);
        cores::observe(&meter, &cores);
        alarms::observe(&meter, &alarms);
        gauges::observe(&meter, &gauges);
        process::observe(&meter);
        let inner = Inner {
            enabled,
            registry,
            operations,
            slow_requests,
            rejected,
            streams,
            connections,
            cores,
            alarms,
            gauges,
            histograms: Histograms::new(&meter),
            _provider: provider,
        };
        Ok(Self(Arc::new(inner)))
    }

    /// Everything in Prometheus' text format, with its content type.
    pub fn render(&self) -> Result<(String, Vec<u8>), MetricsError> {
        let encoder = TextEncoder::new();
        let mut text = Vec::with_capacity(16 * 1024);
        encoder.encode(&self.0.registry.gather(), &mut text).map_err(|error| MetricsError(error.to_string()))?;
        Ok((encoder.format_type().to_owned(), text))
    }
}

#[cfg(test)]
mod tests;
