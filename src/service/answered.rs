//! What happens when a request is answered: it is timed, and looked at more closely if it was slow or is traced.

use std::{
    borrow::Cow,
    time::{Duration, Instant, SystemTime},
};

use http::{Method, StatusCode};
use opentelemetry::KeyValue;
use tonic::Code;

use super::{Service, Trace, slow::SlowRequest};
use crate::{
    engine::phases::{self, Phases},
    error::Reason,
    metrics::{Operation, Protocol, code_label, method_label},
    traces::Span,
};

/// A request that a door has answered.
#[derive(Clone, Debug)]
pub struct Answered {
    /// What it asked for; `None`: none of the store's operations.
    pub operation: Option<Operation>,
    /// Its place in a trace.
    pub trace: Trace,
    /// When it came.
    pub started: Instant,
    /// How its door saw it.
    pub seen: Seen,
}

/// A request and its answer, as a door sees them.
#[derive(Clone, Debug)]
pub enum Seen {
    /// The REST door.
    Http {
        /// Its method.
        method: Method,
        /// The template of its route, never its path.
        route: Option<&'static str>,
        /// The answer's status.
        status: StatusCode,
    },
    /// The gRPC door.
    Grpc {
        /// One of the schema's methods, or `_OTHER`.
        method: &'static str,
        /// The answer's code.
        code: Code,
    },
}

impl Service {
    /// To be told of every unary answer, within the poll in which it came; `reason` is asked only of those that are looked
    /// at: slow and traced ones, and what reached no operation.
    pub fn answered(&self, answered: &Answered, reason: impl FnOnce() -> Option<Reason>) {
        let ended = Instant::now();
        let elapsed = ended - answered.started;
        match &answered.seen {
            Seen::Http { method, route, status } => self.metrics().http_request(method, *route, *status, elapsed),
            Seen::Grpc { method, code } => self.metrics().rpc_call(method, *code, elapsed),
        }
        // What lasts as long as files are long is no news.
        let lengthy = answered.operation.is_some_and(Operation::is_lengthy);
        let slow = elapsed >= self.limits().slow_request_threshold && !lengthy;
        if slow || answered.trace.is_sampled() || answered.operation.is_none() {
            self.look_closer(answered, ended, slow, reason());
        }
    }

    #[cold]
    fn look_closer(&self, answered: &Answered, ended: Instant, slow: bool, reason: Option<Reason>) {
        let &Answered { operation, trace, started, .. } = answered;
        let phases = phases::of_request(started, ended);
        let (protocol, total) = (answered.protocol(), ended - started);
        if let (None, Some(reason)) = (operation, reason) {
            self.metrics().rejected(protocol, reason);
        }
        if slow {
            self.metrics().slow_request(operation, protocol);
            let time = SystemTime::now() - total;
            self.inner.slow.add(SlowRequest { time, protocol, operation, trace, total, phases, reason });
        }
        if trace.is_sampled() {
            self.send_spans(answered, total, phases, reason);
        }
    }

    /// A stream, or the answer to a request that was held by `?wait=`, begins: its span is sent when this is dropped.
    /// `None`: nobody wants it.
    pub fn stream_answered(&self, answered: Answered) -> Option<StreamSpan> {
        answered.trace.is_sampled().then(|| StreamSpan { service: self.clone(), answered })
    }

    fn send_spans(&self, answered: &Answered, total: Duration, phases: Option<Phases>, reason: Option<Reason>) {
        let ended = SystemTime::now();
        let request = answered.span(ended - total, ended, reason);
        let mut part_ended = ended;
        for (name, time) in phases.map(Phases::by_name).into_iter().flatten().rev() {
            // One after another, back from the answer: a request of several records shows each phase once.
            let begun = part_ended - time;
            self.inner.traces.send(Span {
                trace_id: request.trace_id,
                id: rand::random_range(1..=u64::MAX),
                parent_id: request.id,
                is_request: false,
                name: name.into(),
                begun,
                ended: part_ended,
                attributes: Vec::new(),
                failed: false,
            });
            part_ended = begun;
        }
        self.inner.traces.send(request);
    }
}

/// A traced stream, until dropped.
#[derive(Debug)]
pub struct StreamSpan {
    service: Service,
    answered: Answered,
}

impl Drop for StreamSpan {
    fn drop(&mut self) {
        self.service.send_spans(&self.answered, self.answered.started.elapsed(), None, None);
    }
}

impl Answered {
    fn protocol(&self) -> Protocol {
        match self.seen {
            Seen::Http { .. } => Protocol::Http,
            Seen::Grpc { .. } => Protocol::Grpc,
        }
    }

    /// The request's own span, named and labelled as OpenTelemetry's conventions say, but for what would hold a key.
    fn span(&self, begun: SystemTime, ended: SystemTime, reason: Option<Reason>) -> Span {
        let (name, mut attributes, failed) = match &self.seen {
            Seen::Http { method, route, status } => of_http(method, *route, *status),
            Seen::Grpc { method, code } => of_grpc(method, *code),
        };
        attributes.push(KeyValue::new("tandem.operation", Operation::label_of(self.operation)));
        attributes.extend(reason.map(|reason| KeyValue::new("tandem.reason", reason.name())));
        let Trace { id: trace_id, parent_id, span_id: id } = self.trace;
        Span { trace_id, id, parent_id, is_request: true, name, begun, ended, attributes, failed }
    }
}

fn of_http(
    method: &Method,
    route: Option<&'static str>,
    status: StatusCode,
) -> (Cow<'static, str>, Vec<KeyValue>, bool) {
    let (_, method) = method_label(method);
    let verb = if method == "_OTHER" { "HTTP" } else { method };
    let name = route.map_or(Cow::Borrowed(verb), |route| format!("{verb} {route}").into());
    let failed = status.is_server_error();
    let mut attributes = vec![
        KeyValue::new("http.request.method", method),
        KeyValue::new("url.scheme", "http"),
        KeyValue::new("http.response.status_code", i64::from(status.as_u16())),
    ];
    attributes.extend(route.map(|route| KeyValue::new("http.route", route)));
    attributes.extend(failed.then(|| KeyValue::new("error.type", status.as_str().to_owned())));
    (name, attributes, failed)
}

fn of_grpc(method: &'static str, code: Code) -> (Cow<'static, str>, Vec<KeyValue>, bool) {
    let server_failed = matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    );
    let mut attributes = vec![
        KeyValue::new("rpc.system.name", "grpc"),
        KeyValue::new("rpc.method", method),
        KeyValue::new("rpc.response.status_code", code_label(code)),
    ];
    attributes.extend(server_failed.then(|| KeyValue::new("error.type", code_label(code))));
    (method.into(), attributes, server_failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{limits::Limits, metrics::Metrics, traces::Traces};

    fn service(threshold: Duration) -> Service {
        let limits = Limits { slow_request_threshold: threshold, ..Limits::default() };
        Service::new(limits, Metrics::new(true).unwrap(), Traces::off())
    }

    fn answer(service: &Service, operation: Operation, reason: Option<Reason>) {
        let trace = service.trace(&http::HeaderMap::new());
        let seen = Seen::Grpc { method: "tandem.v1.KvService/Put", code: Code::Ok };
        let answered = Answered { operation: Some(operation), trace, started: Instant::now(), seen };
        service.answered(&answered, || reason);
    }

    #[test]
    fn slow_requests_are_counted_and_kept_newest_first_and_quick_ones_are_not() {
        let quick = service(Duration::from_secs(3_600));
        answer(&quick, Operation::Put, None);
        assert!(quick.slow_requests(10).is_empty());
        let slow = service(Duration::ZERO);
        answer(&slow, Operation::Put, None);
        answer(&slow, Operation::Txn, Some(Reason::Deadline));
        let kept: Vec<_> = slow.slow_requests(10).iter().map(|kept| (kept.operation, kept.reason_name())).collect();
        assert_eq!(kept, [(Some(Operation::Txn), "DEADLINE"), (Some(Operation::Put), "OK")]);
        assert_eq!(slow.slow_requests(1).len(), 1);
        let nowhere = Seen::Grpc { method: "_OTHER", code: Code::Unimplemented };
        let trace = quick.trace(&http::HeaderMap::new());
        let answered = Answered { operation: None, trace, started: Instant::now(), seen: nowhere };
        quick.answered(&answered, || Some(Reason::RouteNotFound));
        let rejected = "tandem_rejected_requests_total{protocol=\"grpc\",reason=\"ROUTE_NOT_FOUND\"} 1";
        let scrape = String::from_utf8(quick.metrics().render().unwrap().1).unwrap();
        assert!(scrape.contains(rejected), "{rejected} in\n{scrape}");
        let scrape = String::from_utf8(slow.metrics().render().unwrap().1).unwrap();
        for line in [
            "tandem_slow_requests_total{operation=\"put\",protocol=\"grpc\"} 1",
            "tandem_slow_requests_total{operation=\"get\",protocol=\"grpc\"} 0",
            "rpc_server_call_duration_seconds_count{rpc_method=\"tandem.v1.KvService/Put\"",
        ] {
            assert!(scrape.contains(line), "{line} in\n{scrape}");
        }
    }

    #[test]
    fn spans_are_named_by_what_was_asked_and_hold_no_path() {
        let (name, attributes, failed) = of_http(&Method::PUT, Some("/v1/kv/{key}"), StatusCode::INSUFFICIENT_STORAGE);
        assert_eq!((name.as_ref(), failed), ("PUT /v1/kv/{key}", true));
        assert!(attributes.contains(&KeyValue::new("error.type", "507")));
        assert!(!attributes.iter().any(|attribute| attribute.key.as_str().starts_with("url.path")));
        let odd = Method::from_bytes(b"SECRET").unwrap();
        assert_eq!(of_http(&odd, None, StatusCode::NOT_FOUND).0, "HTTP");
        let (name, _, failed) = of_grpc("tandem.v1.KvService/Get", Code::NotFound);
        assert_eq!((name.as_ref(), failed), ("tandem.v1.KvService/Get", false));
    }
}
