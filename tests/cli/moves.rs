//! `tandem export` and `tandem import`: what goes out comes in again, to the byte.

use std::{io::Write as _, process::Stdio};

use crate::{Store, relay::Relay, support};

/// Keys and values of every kind.
fn fill(store: &Store) {
    let bytes: Vec<u8> = (0..=255).collect();
    let input: String = (0..2_300).map(|n| format!("{{\"key\":\"many/{n:05}\",\"value\":\"{n}\"}}\n")).collect();
    store.run_with_input(&["import"], input.as_bytes()).done();
    for key in [&b"\xff\xfe"[..], b"with\nline", b"zero\0byte"] {
        let line = serde_json::json!({ "key_base64": base64(key), "value_base64": base64(&bytes) });
        store.run_with_input(&["import"], format!("{line}\n").as_bytes()).done();
    }
    store.run(&["put", "text", "grün", "--content-type", "text/plain; charset=utf-8"]).done();
    store.run(&["put", "session", "s", "--expire-time", "2035-01-01T00:00:00Z"]).done();
    store.run(&["put", "empty", ""]).done();
    store.run_with_input(&["put", "large", "-"], &vec![b'\x01'; 1 << 20]).done();
}

fn base64(bytes: &[u8]) -> String {
    use base64::prelude::{BASE64_STANDARD, Engine as _};
    BASE64_STANDARD.encode(bytes)
}

/// An export without what a store gives anew.
fn contents(store: &Store) -> Vec<serde_json::Value> {
    let exported = store.run(&["export"]).done();
    let lines = exported.text().lines().map(|line| serde_json::from_str(line).unwrap());
    let mut lines: Vec<serde_json::Value> = lines.collect();
    assert_eq!(lines.pop().unwrap()["end"], true);
    for line in &mut lines {
        let entry = line.as_object_mut().unwrap();
        for anew in ["revision", "create_revision", "version", "update_time"] {
            assert!(entry.remove(anew).is_some(), "{entry:?}");
        }
    }
    lines
}

#[test]
fn what_is_exported_is_imported_to_the_byte() {
    let (from, to) = (Store::start(), Store::start());
    fill(&from);
    let export = from.run(&["export"]).done();
    assert!(export.err.contains("exported 2,307 entries"), "{}", export.err);
    let import = to.run_with_input(&["import"], &export.out).done();
    assert!(import.err.contains("imported 2,307 entries") && !import.err.contains("no end mark"), "{}", import.err);
    assert_eq!(contents(&to), contents(&from));
    // A part of it, from a file.
    std::fs::write(to.directory.path().join("part.ndjson"), from.run(&["export", "--prefix", "many/0000"]).done().out)
        .unwrap();
    to.run(&["del", "--all"]).done();
    to.run(&["import", "part.ndjson"]).done();
    assert_eq!(to.run(&["count", "--all"]).done().out, b"10\n");
}

#[test]
fn what_the_rest_door_streams_is_imported() {
    let (from, to) = (Store::start(), Store::start());
    from.run(&["put", "a", "1"]).done();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let headers = [("accept", "application/x-ndjson")];
    let url = from.server.url("/v1/kv?all");
    let streamed = runtime.block_on(support::send(&support::client(), "GET", &url, &headers, b""));
    to.run_with_input(&["import", "-"], &streamed.body).done();
    assert_eq!(to.run(&["get", "a"]).done().out, b"1");
}

#[test]
fn keys_that_exist_are_left_alone_if_asked() {
    let store = Store::start();
    store.run(&["put", "a", "mine"]).done();
    let input = b"{\"key\":\"a\",\"value\":\"theirs\"}\n{\"key\":\"b\",\"value\":\"1\"}\n{\"end\":true}\n";
    let import = store.run_with_input(&["import", "--if-absent"], input).done();
    assert!(import.err.contains("imported 1 entries") && import.err.contains("left alone 1"), "{}", import.err);
    assert_eq!(store.run(&["get", "a"]).done().out, b"mine");
    store.run_with_input(&["import"], input).done();
    assert_eq!(store.run(&["get", "a"]).done().out, b"theirs");
}

#[test]
fn the_last_of_several_lines_of_a_key_wins() {
    let store = Store::start();
    let input: String = (0..10).map(|n| format!("{{\"key\":\"a\",\"value\":\"{n}\"}}\n")).collect();
    store.run_with_input(&["import"], input.as_bytes()).done();
    assert_eq!(store.run(&["get", "a"]).done().out, b"9");
}

#[test]
fn entries_that_have_expired_are_left_out() {
    let store = Store::start();
    let input = b"{\"key\":\"old\",\"value\":\"1\",\"expire_time\":\"2001-01-01T00:00:00Z\"}\n{\"key\":\"b\",\"value\":\"1\"}\n";
    let import = store.run_with_input(&["import"], input).done();
    assert!(import.err.contains("left out 1 that have expired"), "{}", import.err);
    assert_eq!(store.run(&["count", "--all"]).done().out, b"1\n");
}

#[test]
fn an_import_says_where_it_cannot_go_on_and_what_is_missing() {
    let store = Store::start();
    let good = "{\"key\":\"a\",\"value\":\"1\"}\n";
    for (input, said) in [
        ("{\"key\":\"b\"\n", "line 1: MALFORMED: "),
        ("\n{\"key\":\"b\",\"ttl\":1,\"value\":\"\"}\n", "line 2: MALFORMED: "),
        ("{\"key\":\"\",\"value\":\"\"}\n", "line 1: KEY_EMPTY: "),
        ("{\"error\":{\"reason\":\"DRAINING\"}}\n", "line 1: INCOMPLETE: "),
    ] {
        let refused = store.run_with_input(&["import"], input.as_bytes()).ends(2);
        assert!(refused.err.contains(said), "{input}: {}", refused.err);
    }
    let without_end = store.run_with_input(&["import"], good.as_bytes()).done();
    assert!(without_end.err.contains("no end mark"), "{}", without_end.err);
    let too_long = format!("{good}{{\"key\":\"{}\",\"value\":\"\"}}\n", "k".repeat(1_025));
    let refused = store.run_with_input(&["import"], too_long.as_bytes()).ends(2);
    assert!(refused.err.contains("line 2: KEY_TOO_LONG: "), "{}", refused.err);
}

#[test]
fn an_import_goes_on_when_the_server_is_back() {
    let mut store = Store::start();
    let relay = Relay::to(&store.server.grpc);
    let import = ["import", "--endpoint", &relay.address];
    let mut child = store.command(&import).stdin(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut lines = |numbers: std::ops::Range<u32>| {
        let text: String = numbers.map(|n| format!("{{\"key\":\"{n:06}\",\"value\":\"{n}\"}}\n")).collect();
        input.write_all(text.as_bytes()).unwrap();
    };
    lines(0..5_000);
    store.server.signal("KILL");
    store.server.exit_code();
    store.server = support::Server::start(&store.directory.path().join("data"));
    lines(5_000..6_000);
    relay.turn_to(&store.server.grpc);
    lines(6_000..10_000);
    drop(input);
    let ended = crate::ran(child.wait_with_output().unwrap()).done();
    assert!(ended.err.contains("imported 10,000 entries"), "{}", ended.err);
    assert_eq!(store.run(&["count", "--all"]).done().out, b"10000\n");
}
