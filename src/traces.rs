//! Spans of sampled requests, sent to a collector by OTLP over gRPC.
//!
//! A span is made once its request is answered, from times that were taken anyway: who is not sampled pays for one
//! comparison. Spans wait in a bounded queue for a thread of their own; what does not fit is dropped, and a collector that
//! is away or slow is counted and told of in the log, but holds up no request. No span carries a key, a value or a path.

use std::{
    borrow::Cow,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use opentelemetry::{
    InstrumentationScope, KeyValue,
    trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState},
};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanEvents, SpanLinks, SpanProcessor as _},
};
use parking_lot::Mutex;
use tokio::runtime::Runtime;

use crate::limits::{TRACE_BATCH_SPANS_MAX, TRACE_EXPORT_MAX, TRACE_FLUSH_MAX, TRACE_QUEUE_SPANS_MAX};

/// Spans wait this long for others to be sent with.
const BATCH_EVERY: Duration = Duration::from_secs(1);
/// A collector that stays away is told of in the log this often.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// Where spans go; nowhere, unless a collector was named. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Traces(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    /// A random trace id whose lower half, halved, is below this is sampled.
    sampled_below: u64,
    processor: BatchSpanProcessor,
    scope: InstrumentationScope,
    /// Where the connection to the collector lives; `None` once it is shut down.
    runtime: Mutex<Option<Runtime>>,
}

/// How many spans were sent, or could not be.
pub type Report = Box<dyn Fn(usize, bool) + Send + Sync>;

/// A span of a request, or of a part of one.
#[derive(Clone, Debug)]
pub struct Span {
    /// The trace that it belongs to.
    pub trace_id: u128,
    /// Its own id.
    pub id: u64,
    /// The span within which it happened; 0: none.
    pub parent_id: u64,
    /// The request itself, whose parent is another process's; otherwise a part of it.
    pub is_request: bool,
    /// What happened.
    pub name: Cow<'static, str>,
    /// When it began.
    pub begun: SystemTime,
    /// When it ended.
    pub ended: SystemTime,
    /// What is to be known of it.
    pub attributes: Vec<KeyValue>,
    /// The server failed at it.
    pub failed: bool,
}

impl Traces {
    /// Traces nothing.
    pub fn off() -> Self {
        Self(None)
    }

    /// Traces to the collector at `endpoint`, such as `http://127.0.0.1:4317`, which need not be there yet. Of requests
    /// whose callers do not say, so many millionths are sampled.
    pub fn to(endpoint: &str, sample_millionths: u32, report: Report) -> Result<Self, TracesError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("tandem-traces")
            .enable_all()
            .build()
            .map_err(|error| TracesError(error.to_string()))?;
        let exporter = {
            // The connection belongs to the runtime within which it is made.
            let _within = runtime.enter();
            SpanExporter::builder().with_tonic().with_endpoint(endpoint).with_timeout(TRACE_EXPORT_MAX).build()?
        };
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(TRACE_QUEUE_SPANS_MAX)
            .with_max_export_batch_size(TRACE_BATCH_SPANS_MAX)
            .with_scheduled_delay(BATCH_EVERY)
            .build();
        let reported = Reported { exporter, report, complained: Mutex::new(None), failing: AtomicBool::new(false) };
        let mut processor = BatchSpanProcessor::new(reported, batches);
        processor.set_resource(&resource());
        Ok(Self(Some(Arc::new(Inner {
            // Of 63 bits: a ratio of one takes all.
            sampled_below: ((u128::from(sample_millionths) << 63) / 1_000_000) as u64,
            processor,
            scope: InstrumentationScope::builder("tandem").with_version(env!("CARGO_PKG_VERSION")).build(),
            runtime: Mutex::new(Some(runtime)),
        }))))
    }

    /// Whether a request of this trace is to be traced: as its caller decided, otherwise one of so many.
    pub fn samples(&self, trace_id: u128, caller_sampled: Option<bool>) -> bool {
        let Some(inner) = &self.0 else { return false };
        caller_sampled.unwrap_or_else(|| (trace_id as u64) >> 1 < inner.sampled_below)
    }

    /// Sends a span, in a while.
    pub fn send(&self, span: Span) {
        let Some(inner) = &self.0 else { return };
        let context = |id: u64| {
            let (trace, id) = (TraceId::from(span.trace_id), SpanId::from(id));
            SpanContext::new(trace, id, TraceFlags::SAMPLED, false, TraceState::NONE)
        };
        inner.processor.on_end(SpanData {
            span_context: context(span.id),
            parent_span_id: SpanId::from(span.parent_id),
            parent_span_is_remote: span.is_request && span.parent_id != 0,
            span_kind: if span.is_request { SpanKind::Server } else { SpanKind::Internal },
            name: span.name,
            start_time: span.begun,
            end_time: span.ended,
            attributes: span.attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: if span.failed { Status::error("") } else { Status::Unset },
            instrumentation_scope: inner.scope.clone(),
        });
    }

    /// Sends what waits, within a bounded time, and ends.
    pub fn shut_down(&self) {
        let Some(inner) = &self.0 else { return };
        if let Err(error) = inner.processor.shutdown_with_timeout(TRACE_FLUSH_MAX) {
            tracing::warn!(%error, "the last traces could not be sent");
        }
        if let Some(runtime) = inner.runtime.lock().take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The last owner may be a task, where a runtime must not be dropped.
        if let Some(runtime) = self.runtime.lock().take() {
            runtime.shutdown_background();
        }
    }
}

/// Which server this is; `OTEL_RESOURCE_ATTRIBUTES` may say more.
fn resource() -> Resource {
    let node = rustix::system::uname().nodename().to_string_lossy().into_owned();
    Resource::builder()
        .with_service_name("tandem")
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attribute(KeyValue::new("service.instance.id", node))
        .build()
}

/// An exporter whose failures are counted and told.
struct Reported {
    exporter: SpanExporter,
    report: Report,
    complained: Mutex<Option<Instant>>,
    failing: AtomicBool,
}

impl fmt::Debug for Reported {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.exporter.fmt(formatter)
    }
}

impl opentelemetry_sdk::trace::SpanExporter for Reported {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        let sent = self.exporter.export(batch).await;
        (self.report)(count, sent.is_ok());
        match &sent {
            Ok(()) => {
                if self.failing.swap(false, Ordering::Relaxed) {
                    tracing::info!("traces are sent again");
                }
            }
            Err(error) => {
                self.failing.store(true, Ordering::Relaxed);
                let mut complained = self.complained.lock();
                if complained.is_none_or(|last| last.elapsed() >= COMPLAIN_EVERY) {
                    *complained = Some(Instant::now());
                    tracing::warn!(%error, "traces cannot be sent and are dropped: see telemetry.otlp_endpoint");
                }
            }
        }
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// The exporter refused its set-up.
#[derive(Debug)]
pub struct TracesError(String);

impl fmt::Display for TracesError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "traces: {}", self.0)
    }
}

impl std::error::Error for TracesError {}

impl From<ExporterBuildError> for TracesError {
    fn from(error: ExporterBuildError) -> Self {
        Self(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to_nowhere(ratio: u32) -> Traces {
        Traces::to("http://127.0.0.1:1", ratio, Box::new(|_, _| {})).unwrap()
    }

    #[test]
    fn callers_decide_and_of_the_others_a_part_is_sampled() {
        let (none, some, all) = (to_nowhere(0), to_nowhere(250_000), to_nowhere(1_000_000));
        for traces in [&none, &some, &all] {
            assert!(traces.samples(u128::MAX, Some(true)) && !traces.samples(0, Some(false)));
        }
        let spread: Vec<u128> = (0..1_000).map(|number: u128| number << 54 | 0xfff).collect();
        let sampled = |traces: &Traces| spread.iter().filter(|id| traces.samples(**id, None)).count();
        assert_eq!([sampled(&none), sampled(&some), sampled(&all)], [0, 256, 1_000]);
        assert!(!Traces::off().samples(0, Some(true)), "without a collector nothing is traced");
    }
}
