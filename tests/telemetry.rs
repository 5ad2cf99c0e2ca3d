//! What operators see of single requests: slow ones in the log and as a metric, sampled ones as traces at a collector.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::{process::Command, sync::Arc};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::any_value::Value,
    trace::v1::{Span, span::SpanKind},
};
use parking_lot::Mutex;
use support::{Server, client, send};
use tandem::pb::{self, kv_service_client::KvServiceClient};
use tonic::{
    Request, Response, Status,
    transport::{Channel, Endpoint, server::TcpIncoming},
};

const CALLER: &str = "00f067aa0ba902b7";

/// A collector that keeps what it gets.
#[derive(Clone, Default)]
struct Collector {
    spans: Arc<Mutex<Vec<Span>>>,
    services: Arc<Mutex<Vec<String>>>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for resource in request.into_inner().resource_spans {
            let attributes = resource.resource.unwrap().attributes;
            let name = attributes.into_iter().find(|attribute| attribute.key == "service.name").unwrap();
            self.services.lock().push(format!("{:?}", name.value.unwrap().value.unwrap()));
            self.spans.lock().extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// Starts one, and gives where it listens.
    fn start() -> (Self, String) {
        let collector = Self::default();
        let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let endpoint = format!("http://{}", incoming.local_addr().unwrap());
        let service = TraceServiceServer::new(collector.clone());
        tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
        (collector, endpoint)
    }

    /// The spans of a trace, once there are so many.
    async fn spans(&self, trace_id: &str, count: usize) -> Vec<Span> {
        support::eventually("the spans arrive", async || {
            let spans = self.known(trace_id);
            (spans.len() >= count).then_some(spans)
        })
        .await
    }

    fn known(&self, trace_id: &str) -> Vec<Span> {
        self.spans.lock().iter().filter(|span| hex(&span.trace_id) == trace_id).cloned().collect()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn attribute(span: &Span, name: &str) -> Option<String> {
    let found = span.attributes.iter().find(|attribute| attribute.key == name)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        other => panic!("{other:?}"),
    }
}

fn traceparent(trace_id: &str, flags: &str) -> String {
    format!("00-{trace_id}-{CALLER}-{flags}")
}

async fn grpc(server: &Server) -> KvServiceClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{}", server.grpc)).unwrap();
    KvServiceClient::new(endpoint.connect().await.unwrap())
}

fn put(key: &str, traceparent: Option<&str>) -> Request<pb::PutRequest> {
    let put = pb::PutRequest { key: key.to_owned().into(), value: "secret".into(), ..Default::default() };
    let mut request = Request::new(put);
    if let Some(traceparent) = traceparent {
        request.metadata_mut().insert("traceparent", traceparent.parse().unwrap());
    }
    request
}

/// The request's own span and its phases, in order, held to what every trace of a write looks like.
fn check_write(spans: &[Span], name: &str) -> Span {
    let request = spans.iter().find(|span| span.kind() == SpanKind::Server).unwrap().clone();
    assert_eq!((request.name.as_str(), hex(&request.parent_span_id).as_str()), (name, CALLER));
    let mut phases: Vec<_> = spans.iter().filter(|span| span.kind() == SpanKind::Internal).collect();
    phases.sort_by_key(|span| (span.start_time_unix_nano, span.end_time_unix_nano));
    let mut names: Vec<_> = phases.iter().map(|span| span.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["apply", "commit", "queue", "sync"]);
    let mut begun = request.start_time_unix_nano;
    for phase in phases {
        assert_eq!(phase.parent_span_id, request.span_id);
        assert!(phase.start_time_unix_nano >= begun && phase.end_time_unix_nano >= phase.start_time_unix_nano);
        begun = phase.end_time_unix_nano;
    }
    assert!(begun <= request.end_time_unix_nano, "phases lie within their request");
    assert!(!format!("{spans:?}").contains("secret"), "no key, no value, no path: {spans:?}");
    request
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sampled_requests_of_both_doors_are_traced_as_children_of_their_callers() {
    let (collector, endpoint) = Collector::start();
    let data = tempfile::tempdir().unwrap();
    let settings =
        [("TANDEM__TELEMETRY__OTLP_ENDPOINT", endpoint.as_str()), ("TANDEM__TELEMETRY__TRACE_SAMPLE_RATIO", "0")];
    let server = Server::start_with(data.path(), &settings);
    let client = client();
    let [over_rest, over_grpc, of_stream, unwanted, last] =
        [1, 2, 3, 4, 5].map(|number: u128| format!("{number:032x}"));
    let rest = |method: &'static str, path: &str, trace: String| {
        let (client, url) = (client.clone(), server.url(path));
        async move {
            send(&client, method, &url, &[("traceparent", &trace), ("accept", "application/x-ndjson")], b"secret").await
        }
    };

    let answer = rest("PUT", "/v1/kv/secret", traceparent(&over_rest, "01")).await;
    let said = answer.header("traceresponse").unwrap().to_owned();
    assert_eq!(answer.header("kv-trace-id"), Some(over_rest.as_str()));
    let request = check_write(&collector.spans(&over_rest, 5).await, "PUT /v1/kv/{key}");
    assert_eq!(said, format!("00-{over_rest}-{}-01", hex(&request.span_id)));
    for (name, value) in [
        ("http.request.method", "PUT"),
        ("http.route", "/v1/kv/{key}"),
        ("http.response.status_code", "201"),
        ("tandem.operation", "put"),
    ] {
        assert_eq!(attribute(&request, name).as_deref(), Some(value), "{name}");
    }

    let mut grpc = grpc(&server).await;
    let answer = grpc.put(put("secret", Some(&traceparent(&over_grpc, "01")))).await.unwrap();
    assert!(answer.metadata().get("traceresponse").is_some());
    let request = check_write(&collector.spans(&over_grpc, 5).await, "tandem.v1.KvService/Put");
    for (name, value) in
        [("rpc.system.name", "grpc"), ("rpc.method", "tandem.v1.KvService/Put"), ("rpc.response.status_code", "OK")]
    {
        assert_eq!(attribute(&request, name).as_deref(), Some(value), "{name}");
    }

    rest("GET", "/v1/kv?all=true", traceparent(&of_stream, "01")).await;
    let stream = collector.spans(&of_stream, 1).await;
    assert_eq!((stream.len(), stream[0].name.as_str()), (1, "GET /v1/kv"));

    // What nobody wants, and then something that comes after it.
    let answer = rest("PUT", "/v1/kv/secret", traceparent(&unwanted, "00")).await;
    assert_eq!((answer.header("kv-trace-id"), answer.header("traceresponse")), (Some(unwanted.as_str()), None));
    let alone = send(&client, "PUT", &server.url("/v1/kv/secret"), &[], b"secret").await;
    let answer = grpc.get(Request::new(pb::GetRequest { key: "secret".into(), metadata_only: false })).await.unwrap();
    assert!(answer.metadata().get("traceresponse").is_none());
    rest("PUT", "/v1/kv/secret", traceparent(&last, "01")).await;
    drop(grpc);
    assert_eq!(server.stop(), Some(0));
    assert_eq!(collector.known(&last).len(), 5, "a stop sends what waits");
    assert!(collector.known(&unwanted).is_empty() && collector.known(alone.header("kv-trace-id").unwrap()).is_empty());
    assert!(collector.services.lock().iter().all(|name| name.contains("\"tandem\"")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_caller_the_ratio_decides_and_the_trace_bears_the_id_of_the_answer() {
    let (collector, endpoint) = Collector::start();
    let data = tempfile::tempdir().unwrap();
    let settings =
        [("TANDEM__TELEMETRY__OTLP_ENDPOINT", endpoint.as_str()), ("TANDEM__TELEMETRY__TRACE_SAMPLE_RATIO", "1")];
    let server = Server::start_with(data.path(), &settings);
    let answer = send(&client(), "GET", &server.url("/v1/kv/absent"), &[], b"").await;
    let spans = collector.spans(answer.header("kv-trace-id").unwrap(), 1).await;
    assert!(spans[0].parent_span_id.iter().all(|byte| *byte == 0));
    assert_eq!(attribute(&spans[0], "tandem.reason").as_deref(), Some("KEY_NOT_FOUND"));
    let metrics = format!("http://{}/metrics", server.ops);
    support::eventually("what was sent is counted", async || {
        let text = send(&client(), "GET", &metrics, &[], b"").await.text();
        (!text.contains("tandem_trace_spans_sent_total 0\n")).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_collector_nothing_is_traced_and_one_that_is_away_holds_nothing_up() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let headers = [("traceparent", &*traceparent(&format!("{:032x}", 1), "01"))];
    let answer = send(&client(), "PUT", &server.url("/v1/kv/a"), &headers, b"1").await;
    assert_eq!((answer.status, answer.header("traceresponse")), (201, None));
    assert_eq!(server.stop(), Some(0));

    // A port that nobody listens on: it was free a moment ago, and is held but not served.
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", held.local_addr().unwrap());
    drop(held);
    let server = Server::start_with(data.path(), &[("TANDEM__TELEMETRY__OTLP_ENDPOINT", &endpoint)]);
    for _ in 0..20 {
        let answer = send(&client(), "PUT", &server.url("/v1/kv/a"), &headers, b"1").await;
        assert_eq!(answer.status, 200);
    }
    let metrics = format!("http://{}/metrics", server.ops);
    support::eventually("what could not be sent is counted", async || {
        let text = send(&client(), "GET", &metrics, &[], b"").await.text();
        (!text.contains("tandem_trace_spans_failed_total 0\n")).then_some(())
    })
    .await;
    assert_eq!(server.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_requests_are_told_with_their_phases_and_without_keys() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let mut command = Command::new("sh");
    command.args(["-c", &format!("exec \"$0\" \"$@\" 2>{}", log.display())]).arg(support::binary());
    let every_request = [("TANDEM__TELEMETRY__SLOW_REQUEST_THRESHOLD", "0ms")];
    let server = Server::try_start_by(command, &directory.path().join("data"), &[], &every_request).unwrap();
    let answer = send(&client(), "PUT", &server.url("/v1/kv/secret"), &[], b"secret").await;
    let trace = answer.header("kv-trace-id").unwrap().to_owned();
    grpc(&server).await.put(put("secret", None)).await.unwrap();
    send(&client(), "GET", &server.url("/v1/kv/secret-too"), &[], b"").await;
    send(&client(), "GET", &server.url("/v1/kv/secret-too?wait=1ms"), &[], b"").await;
    let metrics = send(&client(), "GET", &format!("http://{}/metrics", server.ops), &[], b"").await.text();
    for line in [
        "tandem_slow_requests_total{operation=\"put\",protocol=\"http\"} 1",
        "tandem_slow_requests_total{operation=\"put\",protocol=\"grpc\"} 1",
        "tandem_slow_requests_total{operation=\"get\",protocol=\"http\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} in\n{metrics}");
    }
    assert_eq!(server.stop(), Some(0));
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(!text.contains("secret"), "{text}");
    let told: Vec<serde_json::Value> = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter(|line: &serde_json::Value| line["message"] == "a slow request")
        .collect();
    let seen: Vec<_> = told.iter().map(|line| [&line["protocol"], &line["operation"], &line["reason"]]).collect();
    assert_eq!(seen, [["http", "put", "OK"], ["grpc", "put", "OK"], ["http", "get", "KEY_NOT_FOUND"]]);
    assert_eq!(told[0]["trace"], trace.as_str());
    for write in &told[..2] {
        let ms = |name: &str| write[name].as_f64().unwrap_or_else(|| panic!("{name} in {write}"));
        let phases = ["queue_ms", "commit_ms", "sync_ms", "apply_ms"].map(ms);
        assert!(phases[2] > 0.0 && phases.iter().sum::<f64>() <= ms("total_ms"), "{write}");
    }
    assert!(told[2].get("queue_ms").is_none(), "a read waits for no log");
}
