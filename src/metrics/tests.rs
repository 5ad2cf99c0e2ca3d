//! The catalogue, held to the names that boards, alerts and other people rely on.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use http::{Method, StatusCode};

use super::*;
use crate::error::Reason;

/// Every metric with what it means, for operators.
const LIST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/prometheus/metrics.md");

fn scrape(metrics: &Metrics) -> String {
    String::from_utf8(metrics.render().unwrap().1).unwrap()
}

#[test]
fn counters_and_gauges_are_there_from_the_first_scrape_by_their_contracted_names() {
    let text = scrape(&Metrics::new(true).unwrap());
    for name in [
        "tandem_operations_total{operation=\"put\",protocol=\"grpc\",reason=\"OK\"} 0",
        "tandem_wal_written_bytes_total 0",
        "tandem_ready 0",
        "tandem_recovery_cut_bytes 0",
        "tandem_commit_queue_depth 0",
        "tandem_keys 0",
        "tandem_data_bytes 0",
        "tandem_memory_used_bytes 0",
        "tandem_memory_allocated_bytes 0",
        "tandem_memory_limit_bytes 0",
        "tandem_evictions_total 0",
        "tandem_expirations_total 0",
        "tandem_expiry_lag_seconds 0",
        "tandem_connections{door=\"grpc\"} 0",
        "tandem_connections_accepted_total{door=\"http\"} 0",
        "tandem_connections_refused_total{door=\"ops\",reason=\"limit\"} 0",
        "tandem_streams{protocol=\"http\"} 0",
        "tandem_rejected_requests_total{protocol=\"grpc\",reason=\"ROUTE_NOT_FOUND\"} 0",
        "tandem_slow_requests_total{operation=\"put\",protocol=\"http\"} 0",
        "tandem_trace_spans_sent_total 0",
        "tandem_trace_spans_failed_total 0",
        "tandem_alarms{alarm=\"disk\"} 0",
        "tandem_disk_free_bytes 0",
        "tandem_disk_reserve_bytes 0",
        "tandem_memory_overhead_bytes 0",
        "tandem_revision 0",
        "tandem_request_window_seconds 0",
        "tandem_recovery_duration_seconds 0",
        "tandem_watchers 0",
        "tandem_watch_events_total 0",
        "tandem_watch_dropped_total 0",
        "tandem_watch_history_events 0",
        "tandem_watch_history_bytes 0",
        "tandem_snapshot_written_bytes_total 0",
        "tandem_snapshot_failures_total 0",
        "tandem_snapshot_last_bytes 0",
        "tandem_snapshot_last_index 0",
        "tandem_snapshot_last_time_seconds 0",
        "tandem_build_info{version=",
        "process_resident_memory_bytes ",
        "process_cpu_seconds_total ",
        "process_start_time_seconds ",
    ] {
        assert!(text.contains(name), "{name} in\n{text}");
    }
    assert!(!text.contains("otel_scope") && !text.contains("target_info"));
}

/// Says everything once.
fn use_every_verb(metrics: &Metrics) {
    let elapsed = Duration::from_micros(150);
    metrics.answered(Operation::Put, Protocol::Http, Some(Reason::KeyExists));
    metrics.http_request(&Method::PUT, Some("/v1/kv/{key}"), StatusCode::CREATED, elapsed);
    metrics.http_request(&Method::from_bytes(b"BREW").unwrap(), None, StatusCode::NOT_FOUND, elapsed);
    metrics.rpc_call("tandem.v1.KvService/Get", tonic::Code::Ok, elapsed);
    metrics.synced(elapsed);
    metrics.evacuated(elapsed);
    metrics.waited(elapsed);
    drop(metrics.stream_begins(Some(Operation::Scan), Protocol::Http));
    drop(metrics.connected(Door::Grpc));
    metrics.turned_away(Door::Http, Turned::Limit);
    metrics.rejected(Protocol::Http, Reason::HeaderTooLarge);
    metrics.alarm("memory", true);
    metrics.alarm("no such alarm", true);
    metrics.expired(2);
    metrics.expiry_lag(elapsed * 10_000);
    metrics.core_lagged(elapsed);
    metrics.committed(3);
    metrics.applied(elapsed);
    metrics.read_locked(elapsed);
    metrics.snapshot_taken(Duration::from_secs(20), 77);
    metrics.snapshot_there(5, 77, 1_500);
    metrics.snapshot_failed();
    metrics.watch_core(0, tokio::runtime::Builder::new_current_thread().build().unwrap().metrics());
}

#[test]
fn verbs_show_up_under_their_contracted_names_and_labels() {
    let metrics = Metrics::new(true).unwrap();
    use_every_verb(&metrics);
    let _open = (metrics.stream_begins(None, Protocol::Grpc), metrics.connected(Door::Grpc));
    let text = scrape(&metrics);
    for line in [
        "tandem_streams{protocol=\"grpc\"} 1",
        "tandem_connections{door=\"grpc\"} 1",
        "tandem_connections_accepted_total{door=\"grpc\"} 2",
        "tandem_connections_refused_total{door=\"http\",reason=\"limit\"} 1",
        "tandem_rejected_requests_total{protocol=\"http\",reason=\"HEADER_TOO_LARGE\"} 1",
        "tandem_alarms{alarm=\"memory\"} 1",
        "tandem_expirations_total 2",
        "tandem_expiry_lag_seconds 1.5",
        "tandem_core_lag_seconds_count 1",
        "tandem_operations_total{operation=\"put\",protocol=\"http\",reason=\"KEY_EXISTS\"} 1",
        "http_server_request_duration_seconds_count{http_request_method=\"PUT\",http_response_status_code=\"201\",http_route=\"/v1/kv/{key}\",url_scheme=\"http\"} 1",
        "http_server_request_duration_seconds_count{http_request_method=\"_OTHER\",http_response_status_code=\"404\",url_scheme=\"http\"} 1",
        "rpc_server_call_duration_seconds_count{rpc_method=\"tandem.v1.KvService/Get\",rpc_response_status_code=\"OK\",rpc_system_name=\"grpc\"} 1",
        "tandem_wal_sync_duration_seconds_bucket{le=\"0.0002\"} 1",
        "tandem_evacuation_step_duration_seconds_count 1",
        "tandem_wait_duration_seconds_count 1",
        "tandem_apply_duration_seconds_count 1",
        "tandem_read_lock_duration_seconds_count 1",
        "tandem_stream_duration_seconds_count{operation=\"scan\",protocol=\"http\"} 1",
        "tandem_commit_group_records_bucket{le=\"2\"} 0",
        "tandem_commit_group_records_bucket{le=\"4\"} 1",
        "tandem_snapshot_duration_seconds_bucket{le=\"30\"} 1",
        "tandem_snapshot_written_bytes_total 77",
        "tandem_snapshot_last_bytes 77",
        "tandem_snapshot_last_index 5",
        "tandem_snapshot_last_time_seconds 1.5",
        "tandem_snapshot_failures_total 1",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
}

/// The list as it should be. To write it: `TANDEM_WRITE_EXAMPLE=1 cargo test --lib metrics`.
#[test]
fn every_metric_is_listed_with_its_meaning() {
    let metrics = Metrics::new(true).unwrap();
    use_every_verb(&metrics);
    let text = scrape(&metrics);
    let told = |kind: &str| -> BTreeMap<String, String> {
        let lines = text.lines().filter_map(|line| line.strip_prefix(kind)?.split_once(' '));
        lines.map(|(name, rest)| (name.to_owned(), rest.to_owned())).collect()
    };
    let (kinds, meanings) = (told("# TYPE "), told("# HELP "));
    let mut list = String::from(
        "# Metrics\n\nWhat `/metrics` on the ops port tells, held to the server by a test. Histograms have `_bucket`, `_sum` and \
         `_count`, and\nappear with their first record; everything else is there from the first scrape. No label holds a key, a path or \
         a client's text.\n\n| metric | kind | meaning |\n|---|---|---|\n",
    );
    for (name, kind) in &kinds {
        let meaning = meanings.get(name).map_or("", String::as_str);
        assert!(meaning.len() > 10, "{name} does not say what it means");
        writeln!(list, "| `{name}` | {kind} | {meaning} |").unwrap();
    }
    if std::env::var_os("TANDEM_WRITE_EXAMPLE").is_some() {
        std::fs::write(LIST, &list).unwrap();
    }
    assert_eq!(std::fs::read_to_string(LIST).unwrap(), list, "write it anew: TANDEM_WRITE_EXAMPLE=1");
}
