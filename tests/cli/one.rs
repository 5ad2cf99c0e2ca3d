//! Commands about one key.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};

use crate::Store;

#[test]
fn what_was_put_is_read_back_to_the_byte() {
    let store = Store::start();
    store.run(&["put", "greeting", "hello"]).done();
    assert_eq!(store.run(&["get", "greeting"]).done().out, b"hello");
    assert_eq!(store.run(&["get", "greeting", "--output", "text"]).done().out, b"hello\n");

    let bytes: Vec<u8> = (0..=255).collect();
    store.run_with_input(&["put", "photo", "-", "--content-type", "image/png"], &bytes).done();
    assert_eq!(store.run(&["get", "photo", "-o", "raw"]).done().out, bytes);
    let photo = store.run(&["get", "photo", "--output", "json"]).done().json();
    assert_eq!(photo["content_type"], "image/png");
    assert!(photo["value_base64"].is_string() && photo["value"].is_null(), "{photo}");
    let shown = store.run(&["get", "photo", "-o", "text"]).done();
    assert!(shown.out.iter().all(|byte| *byte == b'\n' || !byte.is_ascii_control()), "{shown:?}");
}

#[test]
fn keys_and_values_are_bytes() {
    let store = Store::start();
    let (key, value) = (OsStr::from_bytes(b"\xff/\x01 +"), OsStr::from_bytes(b"\xfe"));
    store.run(&[OsStr::new("put"), key, value]).done();
    assert_eq!(store.run(&[OsStr::new("get"), key]).done().out, b"\xfe");
    store.run(&["put", "empty", ""]).done();
    assert_eq!(store.run(&["get", "empty"]).done().out, b"");
    store.run(&["put", "--", "--key", "--value"]).done();
    assert_eq!(store.run(&["get", "--", "--key"]).done().out, b"--value");
    store.run(&["put", "temperature", "-5"]).done();
    assert_eq!(store.run(&["get", "temperature"]).done().out, b"-5");
}

#[test]
fn a_missing_key_is_exit_code_1() {
    let store = Store::start();
    for arguments in [&["get", "nothing"][..], &["del", "nothing"], &["touch", "nothing", "--ttl", "1m"]] {
        let ran = store.run(arguments).ends(1);
        assert!(ran.err.starts_with("tandem: KEY_NOT_FOUND: ") && ran.out.is_empty(), "{arguments:?}: {ran:?}");
    }
}

#[test]
fn a_condition_that_does_not_hold_is_exit_code_1_and_changes_nothing() {
    let store = Store::start();
    let revision = store.run(&["put", "k", "1", "--if-absent"]).done().text().trim().to_owned();
    for arguments in [
        &["put", "k", "2", "--if-absent"][..],
        &["put", "k", "2", "--if-version", "7"],
        &["put", "k", "2", "--if-revision", "7"],
        &["put", "k", "2", "--if-value", "0"],
        &["put", "other", "2", "--if-exists"],
        &["incr", "k", "--if-version", "9"],
        &["touch", "k", "--never", "--if-version", "9"],
        &["del", "k", "--if-value", "2"],
    ] {
        let ran = store.run(arguments).ends(1);
        assert!(ran.err.contains("KEY_EXISTS: ") || ran.err.contains("CONDITION_FAILED: "), "{arguments:?}: {ran:?}");
    }
    assert_eq!(store.run(&["get", "k"]).done().out, b"1");
    store.run(&["put", "k", "2", "--if-version", "1", "--if-revision", &revision, "--if-value", "1"]).done();
    store.run(&["del", "k", "--if-exists", "--if-version", "2"]).done();
}

#[test]
fn writes_print_what_they_did_in_each_format() {
    let store = Store::start();
    let created = store.run(&["put", "k", "1", "--output", "json"]).done().json();
    assert_eq!((&created["created"], &created["version"]), (&true.into(), &1.into()), "{created}");
    assert!(created["revision"].is_u64() && created["durability"] == "fsynced", "{created}");
    let text = store.run(&["put", "k", "2", "--output", "text", "--previous"]).done();
    assert!(text.text().starts_with("replaced (version 2, revision "), "{text:?}");
    assert!(text.text().contains("KEY") && text.text().trim_end().ends_with('1'), "{text:?}");
    assert_eq!(store.run(&["put", "k", "3", "--previous"]).done().out, b"2");
    let revision: u64 = store.run(&["put", "k", "4"]).done().text().trim().parse().unwrap();
    assert_eq!(store.run(&["get", "k", "--metadata"]).done().text().trim(), revision.to_string());
    let metadata = store.run(&["get", "k", "--metadata", "-o", "json"]).done().json();
    assert!(metadata["value"].is_null() && metadata["version"] == 4, "{metadata}");
    let facts = store.run(&["get", "k", "--metadata", "-o", "text"]).done();
    assert!(facts.text().contains(&format!("revision         {revision}\n")), "{facts:?}");
    let gone = store.run(&["del", "k", "--previous", "-o", "json"]).done().json();
    assert_eq!(gone["previous"]["value"], "4", "{gone}");
}

#[test]
fn counters_count() {
    let store = Store::start();
    assert_eq!(store.run(&["incr", "n"]).done().out, b"1\n");
    assert_eq!(store.run(&["incr", "n", "--by", "-5"]).done().out, b"-4\n");
    assert_eq!(store.run(&["incr", "m", "--initial", "1000", "--by", "10"]).done().out, b"1010\n");
    let counted = store.run(&["incr", "n", "-o", "json"]).done().json();
    assert_eq!(counted["value"], "-3", "a string, as REST writes it: {counted}");
    store.run(&["put", "text", "abc"]).done();
    let refused = store.run(&["incr", "text"]).ends(2);
    assert!(refused.err.starts_with("tandem: NOT_AN_INTEGER: "), "{refused:?}");
}

#[test]
fn expiries_are_set_kept_and_taken_off() {
    let store = Store::start();
    let expires = |key: &str| store.run(&["get", key, "-o", "json"]).done().json()["expire_time"].clone();
    store.run(&["put", "a", "1", "--ttl", "1h"]).done();
    assert!(expires("a").is_string());
    store.run(&["put", "a", "2", "--keep-ttl"]).done();
    assert!(expires("a").is_string());
    store.run(&["touch", "a", "--never"]).done();
    assert!(expires("a").is_null());
    store.run(&["touch", "a", "--expire-time", "2035-01-01T00:00:00Z"]).done();
    assert_eq!(expires("a"), "2035-01-01T00:00:00.000Z");
    store.run(&["incr", "n", "--ttl", "1h"]).done();
    assert!(expires("n").is_string());
}

#[test]
fn a_dry_run_answers_and_changes_nothing() {
    let store = Store::start();
    let ran = store.run(&["put", "k", "1", "--dry-run", "-o", "text"]).done();
    assert!(ran.text().contains("nothing was changed"), "{ran:?}");
    store.run(&["get", "k"]).ends(1);
}

#[test]
fn a_request_id_makes_a_repetition_safe() {
    let store = Store::start();
    let add = ["incr", "n", "--request-id", "order-17", "-o", "json"];
    let first = store.run(&add).done().json();
    let second = store.run(&add).done().json();
    assert_eq!((&first["value"], &second["value"]), (&"1".into(), &"1".into()));
    assert_eq!(second["replayed"], true);
}
