//! Commands about many keys.

use crate::Store;

fn fill(store: &Store) {
    for (key, value) in [("a/1", "x"), ("a/2", "y"), ("b", "tab\there")] {
        store.run(&["put", key, value]).done();
    }
}

#[test]
fn a_page_is_listed_in_each_format() {
    let store = Store::start();
    fill(&store);
    assert_eq!(store.run(&["list", "--prefix", "a/"]).done().text(), "a/1\tx\na/2\ty\n");
    assert_eq!(store.run(&["list", "--all", "--keys-only", "--descending"]).done().text(), "b\na/2\na/1\n");
    assert_eq!(store.run(&["list", "--start", "a/2", "--end", "b"]).done().text(), "a/2\ty\n");
    assert_eq!(store.run(&["list", "--all", "--start-after", "a/2"]).done().text(), "b\ttab\there\n");
    assert_eq!(store.run(&["list", "--all", "--delimiter", "/", "--keys-only"]).done().text(), "a/\nb\n");
    let table = store.run(&["list", "--all", "-o", "text"]).done();
    let lines: Vec<_> = table.text().lines().collect();
    assert!(lines.len() == 4 && lines[0].starts_with("KEY ") && lines[3].ends_with("tab\\there"), "{lines:#?}");
    assert_eq!(store.run(&["list", "--prefix", "none"]).done().out, b"");
}

#[test]
fn json_is_what_the_rest_door_answers() {
    let store = Store::start();
    fill(&store);
    for (arguments, path) in [
        (&["list", "--all", "--limit", "2"][..], "/v1/kv?all&page_size=2"),
        (&["list", "--prefix", "a", "--keys-only"], "/v1/kv?prefix=a&keys_only"),
        (&["list", "--all", "--delimiter", "/"], "/v1/kv?all&delimiter=/"),
        (&["count", "--prefix", "a"], "/v1/kv:count?prefix=a"),
        (&["get", "a/1"], "/v1/kv/a/1?format=json"),
    ] {
        let shown = store.run(&[arguments, &["-o", "json"]].concat()).done().json();
        assert_eq!(shown, rest(&store, "GET", path, b""), "{arguments:?}");
    }
}

fn rest(store: &Store, method: &str, path: &str, body: &[u8]) -> serde_json::Value {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let url = store.server.url(path);
    let headers = [("content-type", "application/json")];
    runtime.block_on(crate::support::send(&crate::support::client(), method, &url, &headers, body)).json()
}

#[test]
fn a_page_says_how_to_go_on() {
    let store = Store::start();
    fill(&store);
    let first = store.run(&["list", "--all", "--limit", "2", "--keys-only"]).done();
    let token = first.err.trim().rsplit(' ').next().unwrap().to_owned();
    assert!(first.err.contains("there is more: --page-token "), "{first:?}");
    let second = store.run(&["list", "--all", "--limit", "2", "--keys-only", "--page-token", &token]).done();
    assert_eq!((second.text(), second.err.as_str()), ("b\n", ""));
    let other = store.run(&["list", "--prefix", "a", "--limit", "2", "--page-token", &token]).ends(2);
    assert!(other.err.starts_with("tandem: PAGE_TOKEN_INVALID: "), "{other:?}");
}

#[test]
fn ranges_are_counted() {
    let store = Store::start();
    fill(&store);
    assert_eq!(store.run(&["count", "--all"]).done().out, b"3\n");
    assert_eq!(store.run(&["count", "--prefix", "a/", "-o", "text"]).done().out, b"2\n");
    let ran = store.run(&["count"]).ends(64);
    assert!(ran.err.contains("--prefix"), "{ran:?}");
}

const TXN: &str = r#"{"guards":[{"key":"a/1","conditions":[{"value":"x"}]}],
    "then":[{"put":{"key":"a/1","value":"z"}},{"increment":{"key":"n"}},{"get":{"key":"none"}}],
    "otherwise":[{"get":{"key":"a/1"}}]}"#;

#[test]
fn a_transaction_takes_and_gives_the_json_of_the_rest_door() {
    let store = Store::start();
    fill(&store);
    let held = store.run_with_input(&["txn", "-", "-o", "json"], TXN.as_bytes()).done().json();
    assert_eq!(held["succeeded"], true, "{held}");
    assert_eq!(held["results"][1]["increment"]["value"], "1", "{held}");
    assert_eq!(held["results"][2]["get"]["absent"], true, "{held}");
    // A guard that does not hold is exit code 1, with an answer.
    std::fs::write(store.directory.path().join("txn.json"), TXN).unwrap();
    let not_held = store.run(&["txn", "txn.json", "-o", "json"]).ends(1);
    let by_rest = rest(&store, "POST", "/v1/kv:txn", TXN.as_bytes());
    assert_eq!(not_held.json()["results"], by_rest["results"]);
    let text = store.run(&["txn", "txn.json", "-o", "text"]).ends(1);
    assert!(text.text().contains("otherwise") && text.text().contains("get        z"), "{text:?}");
}

#[test]
fn a_transaction_that_cannot_be_read_is_refused_with_its_place() {
    let store = Store::start();
    for (body, said) in [
        ("{", "MALFORMED: the body is not JSON, line 1 column 1"),
        (
            r#"{"than":[]}"#,
            "INVALID_FIELD: unknown field `than`, expected one of `guards`, `then`, `otherwise`, line 1",
        ),
        (r#"{"then":[{"put":{"key":"a","value":{"secret":1}}}]}"#, "INVALID_FIELD: expected a string, line 1"),
        (r#"{"then":[{}]}"#, "INVALID_FIELD: an object of exactly one field is expected, line 1"),
        (r#"{"then":[{"get":{"key":"a"}},{"put":{"key":"a"}}]}"#, "INVALID_FIELD: operation 1: send exactly one of"),
    ] {
        let ran = store.run_with_input(&["txn"], body.as_bytes()).ends(2);
        assert!(ran.err.starts_with(&format!("tandem: {said}")), "{body}: {ran:?}");
    }
}

#[test]
fn a_transaction_that_is_aborted_names_the_operation() {
    let store = Store::start();
    let body = br#"{"then":[{"get":{"key":"a"}},{"delete":{"key":"absent"}}]}"#;
    let ran = store.run_with_input(&["txn"], body).ends(1);
    assert!(ran.err.starts_with("tandem: KEY_NOT_FOUND: operation 1: "), "{ran:?}");
    let guard = br#"{"guards":[{"key":"a","conditions":[{"version":1}]},{"key":"b"}]}"#;
    let ran = store.run_with_input(&["txn"], guard).ends(2);
    assert!(ran.err.starts_with("tandem: INVALID_FIELD: guard 1: "), "{ran:?}");
}
