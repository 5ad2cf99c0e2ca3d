//! `tandem bench`: it does what it says, counts as the server does, and says what went wrong.

use std::{
    io::{BufReader, Read as _},
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::{Ran, Store, finish, support};

/// A load that is over soon.
const SHORT: [[&str; 2]; 5] =
    [["--keys", "500"], ["--duration", "300ms"], ["--warmup", "0s"], ["--connections", "3"], ["--output", "json"]];

fn bench(store: &Store, protocol: &str, arguments: &[&str]) -> Ran {
    let listener = if protocol == "rest" { &store.server.http } else { &store.server.grpc };
    let short = SHORT.into_iter().filter(|[name, _]| !arguments.contains(name)).flatten();
    let short: Vec<_> = short.collect();
    store.run(&[&["bench", "--protocol", protocol, "--endpoint", listener], &short[..], arguments].concat())
}

/// How often the server did something by its own count.
fn counted(store: &Store, operation: &str, protocol: &str) -> u64 {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let url = format!("http://{}/metrics", store.server.ops);
    let metrics = runtime.block_on(support::send(&support::client(), "GET", &url, &[], b"")).text();
    let label = if protocol == "rest" { "http" } else { "grpc" };
    let series = format!("tandem_operations_total{{operation=\"{operation}\",protocol=\"{label}\",reason=\"OK\"}} ");
    metrics.lines().find_map(|line| line.strip_prefix(&series)).map_or(0, |count| count.parse().unwrap())
}

/// Everything that a document has to hold whatever the load.
fn check_document(json: &Value, protocol: &str, workload: &str, batch: u64) {
    assert_eq!((&json["settings"]["protocol"], &json["settings"]["workload"]), (&protocol.into(), &workload.into()));
    let requests = json["requests"].as_u64().unwrap();
    assert!(requests > 0, "{json:#}");
    assert_eq!(json["keys"].as_u64(), Some(requests * batch), "{json:#}");
    assert_eq!(json["errors"], serde_json::json!({}), "{json:#}");
    let elapsed = json["elapsed_s"].as_f64().unwrap();
    assert!(elapsed >= 0.3, "{json:#}");
    let rate = json["requests_per_second"].as_f64().unwrap();
    assert!((rate * elapsed / requests as f64 - 1.0).abs() < 0.01, "{json:#}");
    let percentiles = ["p50", "p90", "p99", "p99.9", "p99.99", "max"];
    let latencies =
        percentiles.map(|name| json["latency_us"][name].as_f64().unwrap_or_else(|| panic!("{name}: {json:#}")));
    assert!(latencies[0] > 0.0 && latencies.is_sorted(), "{json:#}");
    let points = json["time_series"].as_array().unwrap();
    assert_eq!(points.iter().map(|point| point["requests"].as_u64().unwrap()).sum::<u64>(), requests, "{json:#}");
}

#[test]
fn each_load_runs_over_both_doors_and_counts_as_the_server_does() {
    let store = Store::start();
    for protocol in ["grpc", "rest"] {
        for (workload, batch, arguments, operations) in [
            ("get", 1, &[][..], &["get"][..]),
            ("put", 1, &["--durability", "written"], &["put"]),
            ("mixed", 1, &["--read-ratio", "0.7", "--in-flight", "2"], &["get", "put"]),
            ("batch-get", 20, &["--batch-size", "20", "--distribution", "zipf"], &["batch_get"]),
            ("batch-write", 500, &["--batch-size", "500"], &["batch_write"]),
            ("scan", 100, &[], &["scan"]),
            ("watch", 1, &["--in-flight", "2"], &["put"]),
        ] {
            let count = || operations.iter().map(|operation| counted(&store, operation, protocol)).sum::<u64>();
            let before = count();
            let json = bench(&store, protocol, &[&["--workload", workload], arguments].concat()).done().json();
            check_document(&json, protocol, workload, batch);
            assert_eq!(count() - before, json["requests"].as_u64().unwrap(), "{protocol} {workload}: {json:#}");
        }
    }
    // All of it went into the load's own keys.
    assert_eq!(store.run(&["count", "--all"]).done().out, b"500\n");
    assert_eq!(store.run(&["count", "--prefix", "bench/"]).done().out, b"500\n");
}

#[test]
fn an_open_loop_asks_as_often_as_its_rate_says_and_tells_how_late_it_was() {
    let store = Store::start();
    for protocol in ["grpc", "rest"] {
        let before = counted(&store, "put", protocol);
        let timing = ["--workload", "put", "--rate", "400", "--duration", "500ms", "--warmup", "250ms"];
        let json = bench(&store, protocol, &timing).done().json();
        assert_eq!((&json["requests"], &json["settings"]["rate"]), (&200.into(), &400.into()), "{json:#}");
        assert!(json["late_us"]["p50"].as_f64().is_some(), "{json:#}");
        // Those of the warm-up are sent and not measured.
        assert_eq!(counted(&store, "put", protocol) - before, 300);
    }
}

#[test]
fn a_mixed_load_tells_reads_from_writes() {
    let store = Store::start();
    let json = bench(&store, "grpc", &["--workload", "mixed", "--rate", "1000", "--read-ratio", "0.8"]).done().json();
    assert!(json["read_latency_us"]["p99"].as_f64().is_some(), "{json:#}");
    assert!(json["write_latency_us"]["p99"].as_f64().is_some(), "{json:#}");
    let (reads, writes) = (counted(&store, "get", "grpc"), counted(&store, "put", "grpc"));
    assert!(reads + writes == 300 && reads > 2 * writes && writes > 0, "{reads} reads, {writes} writes");
    // The same seed asks the same, however fast.
    let again = Store::start();
    bench(&again, "grpc", &["--workload", "mixed", "--rate", "1000", "--read-ratio", "0.8", "--connections", "1"])
        .done();
    let fresh = Store::start();
    bench(&fresh, "grpc", &["--workload", "mixed", "--rate", "1000", "--read-ratio", "0.8", "--connections", "1"])
        .done();
    assert_eq!(counted(&again, "get", "grpc"), counted(&fresh, "get", "grpc"));
}

#[test]
fn a_table_is_for_people_and_progress_goes_to_standard_error() {
    let store = Store::start();
    let ran = store.run(&["bench", "--keys", "100", "--duration", "2s", "--warmup", "100ms", "--load"]).done();
    for part in ["get over gRPC, 16 connections x 1 in flight, closed loop", "requests", "p99.9", "errors"] {
        assert!(ran.text().contains(part), "no {part}: {ran:?}");
    }
    assert!(ran.err.contains("tandem: loaded 100 entries") && ran.err.contains("tandem: 1 s: "), "{ran:?}");
}

#[test]
fn a_plot_is_well_formed_svg_that_names_what_it_shows() {
    let store = Store::start();
    for (workload, axis) in [("put", "requests a second"), ("batch-write", "keys a second")] {
        bench(&store, "rest", &["--workload", workload, "--plot", "out.svg"]).done();
        let text = std::fs::read_to_string(store.directory.path().join("out.svg")).unwrap();
        let svg = roxmltree::Document::parse(&text).unwrap();
        assert_eq!(svg.root_element().tag_name().name(), "svg");
        let texts: Vec<_> = svg.descendants().filter_map(|node| node.text()).map(str::trim).collect();
        for expected in [axis, "latency over time", "latency by percentile", "99.9"] {
            assert!(texts.contains(&expected), "no {expected}: {texts:?}");
        }
        assert!(svg.descendants().any(|node| node.tag_name().name() == "polyline"), "no curve");
    }
}

#[test]
fn what_is_refused_is_counted_by_reason_and_fails_the_run() {
    let store = Store::start();
    for protocol in ["grpc", "rest"] {
        let ran = bench(&store, protocol, &["--no-load"]).ends(1);
        let json = ran.json();
        assert_eq!(json["requests"], 0, "{json:#}");
        let failed = json["errors"]["KEY_NOT_FOUND"].as_u64().unwrap();
        assert!(
            failed > 0 && ran.err.contains(&format!("KEY_NOT_FOUND: {failed} of {failed} requests failed")),
            "{ran:?}"
        );
    }
}

#[test]
fn a_server_that_goes_away_is_told_and_the_run_comes_to_its_end() {
    for protocol in ["grpc", "rest"] {
        let store = Store::start();
        let listener = if protocol == "rest" { &store.server.http } else { &store.server.grpc };
        let arguments = ["bench", "--protocol", protocol, "--endpoint", listener, "--duration", "3s", "--warmup", "0s"];
        let mut command = store.command(&arguments);
        command.args(["--keys", "10", "--timeout", "1s", "--output", "json"]);
        let mut child = command.spawn().unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        until(&mut said, "1 s: ");
        store.server.signal("KILL");
        let mut rest = String::new();
        said.read_to_string(&mut rest).unwrap();
        let ran = crate::ran(child.wait_with_output().unwrap()).ends(1);
        let json = ran.json();
        assert!(json["requests"].as_u64() > Some(0) && json["errors"]["UNAVAILABLE"].as_u64() > Some(0), "{json:#}");
        assert!(rest.contains("requests failed"), "{rest}");
    }
}

/// Reads lines until one holds this.
fn until(lines: &mut impl std::io::BufRead, part: &str) {
    let mut line = String::new();
    while !line.contains(part) {
        line.clear();
        assert!(lines.read_line(&mut line).unwrap() > 0, "it ended without {part}");
    }
}

#[test]
fn an_interrupt_ends_it_with_a_report_of_what_was_measured() {
    let store = Store::start();
    for arguments in [&[][..], &["--rate", "100"]] {
        let mut command =
            store.command(&["bench", "--duration", "10s", "--warmup", "0s", "--keys", "10", "-o", "json"]);
        let mut child = command.args(arguments).spawn().unwrap();
        until(&mut BufReader::new(child.stderr.take().unwrap()), "1 s: ");
        let interrupted = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
        assert!(interrupted.success());
        let json = crate::ran(child.wait_with_output().unwrap()).done().json();
        assert_eq!(json["interrupted"], true, "{json:#}");
        assert!(json["elapsed_s"].as_f64() < Some(10.0) && json["requests"].as_u64() > Some(0), "{json:#}");
    }
}

#[test]
fn options_that_make_no_sense_are_refused_with_a_remedy() {
    for (arguments, said) in [
        (&["--key-size", "8"][..], "choose a size between"),
        (&["--value-size", "9MiB"], "lower it"),
        (&["--value-size", "9 megs"], "such as 4KiB"),
        (&["--read-ratio", "0.5"], "--workload mixed"),
        (&["--workload", "mixed", "--read-ratio", "1.5"], "0 to 1"),
        (&["--batch-size", "5"], "--workload batch-get"),
        (&["--workload", "scan", "--batch-size", "200", "--keys", "100"], "raise --keys"),
        (&["--workload", "batch-get", "--batch-size", "1000", "--value-size", "1MiB"], "lower one of them"),
        (&["--workload", "watch", "--keys", "5"], "raise --keys"),
        (&["--zipf-exponent", "1"], "--distribution zipf"),
        (&["--distribution", "zipf", "--zipf-exponent", "0"], "at most 10"),
        (&["--plot", "out.gif"], ".svg"),
        (&["--plot", "/nowhere/out.svg"], "name another file"),
        (&["--duration", "0s"], "a second or more"),
        (&["--duration", "10"], "such as 60s"),
        (&["--rate", "0"], "--rate"),
        (&["--connections", "0"], "--connections"),
        (&["--workload", "delete"], "batch-get"),
        (&["--endpoint", "https://127.0.0.1:1"], "only http://"),
        (&["--endpoint", "127.0.0.1"], "http://HOST:PORT"),
    ] {
        let ran = finish(Command::new(support::binary()).arg("bench").args(arguments).stdin(Stdio::null())).ends(64);
        assert!(ran.err.contains(said), "{arguments:?}: {ran:?}");
    }
}

#[test]
fn a_server_that_is_not_there_or_another_door_is_exit_code_69() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let store = Store::start();
    for (protocol, endpoint, variable) in [
        ("grpc", &closed, "TANDEM_ENDPOINT"),
        ("rest", &closed, "TANDEM_REST_ENDPOINT"),
        ("grpc", &store.server.http, "TANDEM_ENDPOINT"),
        ("rest", &store.server.grpc, "TANDEM_REST_ENDPOINT"),
    ] {
        let ran = store.run(&["bench", "--protocol", protocol, "--endpoint", endpoint]).ends(69);
        assert!(ran.err.contains(variable) && ran.err.contains("--endpoint"), "{protocol}: {ran:?}");
    }
}
