//! What ranges do, through any door: scans, deletes, watchers.

use tandem::{
    limits::DELETE_RANGE_KEYS_MAX,
    pb::{self, EventKind, key_range::Kind},
};

use crate::{
    cases::{delete, expires, increment, prefix, put, range, touch, ttl_ms},
    doors::Door,
    support::eventually,
};

/// Every case. Each uses keys of its own.
pub async fn all(door: &Door) {
    a_scan_gives_a_whole_range_in_order(door).await;
    a_scan_folds_and_takes_what_pages_take(door).await;
    a_range_is_deleted_whole_or_in_parts(door).await;
    bad_range_deletes_are_refused(door).await;
    a_watcher_hears_of_each_change_once_and_in_order(door).await;
    a_watcher_is_told_what_it_asked_for(door).await;
    a_revision_is_told_whole(door).await;
    a_watcher_begins_in_the_past(door).await;
    a_watcher_begins_with_the_state(door).await;
    bad_watches_are_refused(door).await;
}

fn keys(entries: &[pb::Entry]) -> Vec<String> {
    entries.iter().map(|entry| String::from_utf8(entry.key.to_vec()).unwrap()).collect()
}

async fn fill(door: &Door, prefix: &str, count: usize) -> Vec<String> {
    let names: Vec<_> = (0..count).map(|number| format!("{prefix}{number:04}")).collect();
    for chunk in names.chunks(500) {
        let op = |key: &String| pb::WriteOp { op: Some(pb::write_op::Op::Put(put(key, key))) };
        let writes = chunk.iter().map(op).collect();
        door.batch_write(pb::BatchWriteRequest { writes, options: None }).await.unwrap();
    }
    names
}

fn scan(prefix_of: &str) -> pb::ScanRequest {
    pb::ScanRequest { range: prefix(prefix_of), ..Default::default() }
}

async fn a_scan_gives_a_whole_range_in_order(door: &Door) {
    let names = fill(door, "scan/", 700).await;
    door.put(put("scan0", "behind")).await.unwrap();
    let scanned = door.scan(scan("scan/")).await.unwrap();
    assert_eq!(keys(&scanned.entries), names);
    assert!(scanned.entries.iter().all(|entry| entry.key == entry.value && entry.version == 1));
    let backward = door.scan(pb::ScanRequest { descending: true, ..scan("scan/") }).await.unwrap();
    let reversed: Vec<_> = names.iter().rev().cloned().collect();
    assert_eq!(keys(&backward.entries), reversed);
    assert!(door.scan(scan("scan/nothing")).await.unwrap().entries.is_empty());
}

async fn a_scan_folds_and_takes_what_pages_take(door: &Door) {
    for key in ["sdir/a", "sdir/b/1", "sdir/b/2", "sdir/c", "sdir/d/3"] {
        door.put(put(key, key)).await.unwrap();
    }
    for descending in [false, true] {
        let folded = door.scan(pb::ScanRequest { delimiter: "/".into(), descending, ..scan("sdir/") }).await.unwrap();
        let (mut entries, mut prefixes) = (keys(&folded.entries), folded.common_prefixes);
        if descending {
            entries.reverse();
            prefixes.reverse();
        }
        assert_eq!(entries, ["sdir/a", "sdir/c"]);
        assert_eq!(prefixes, ["sdir/b/", "sdir/d/"]);
    }
    let after = pb::ScanRequest { start_after: "sdir/b/1".into(), keys_only: true, ..scan("sdir/") };
    let scanned = door.scan(after).await.unwrap();
    assert_eq!(keys(&scanned.entries), ["sdir/b/2", "sdir/c", "sdir/d/3"]);
    assert!(scanned.entries.iter().all(|entry| entry.value.is_empty()));
    let unset = door.scan(pb::ScanRequest { range: None, ..scan("") }).await;
    assert_eq!(unset.unwrap_err().reason, "INVALID_FIELD");
}

async fn a_range_is_deleted_whole_or_in_parts(door: &Door) {
    fill(door, "range/", 700).await;
    door.put(put("range", "before")).await.unwrap();
    door.put(put("range0", "behind")).await.unwrap();
    let remove = || pb::DeleteRangeRequest { range: prefix("range/"), ..Default::default() };
    let only = Some(pb::WriteOptions { validate_only: true, ..Default::default() });
    let counted = door.delete_range(pb::DeleteRangeRequest { options: only, ..remove() }).await.unwrap();
    assert_eq!((counted.deleted, counted.complete, counted.result.unwrap().revision), (700, true, 0));
    let part = door.delete_range(pb::DeleteRangeRequest { max_keys: 300, ..remove() }).await.unwrap();
    assert_eq!((part.deleted, part.complete), (300, false));
    assert_eq!(keys(&door.scan(scan("range/")).await.unwrap().entries)[0], "range/0300", "the first ones went");
    let rest = door.delete_range(remove()).await.unwrap();
    assert_eq!((rest.deleted, rest.complete), (400, true));
    let result = rest.result.unwrap();
    assert!(result.revision > part.result.unwrap().revision);
    assert_eq!(result.durability(), pb::Durability::Fsynced);
    let nothing = door.delete_range(remove()).await.unwrap();
    assert_eq!((nothing.deleted, nothing.complete), (0, true));
    for key in ["range", "range0"] {
        assert!(door.get(key.as_bytes()).await.is_ok(), "{key} lies outside");
    }
    let span = pb::Span { start: "range".into(), end: "range0".into() };
    let one = pb::DeleteRangeRequest { range: range(Kind::Span(span)), ..Default::default() };
    assert_eq!(door.delete_range(one).await.unwrap().deleted, 1);
    let key = pb::DeleteRangeRequest { range: range(Kind::Key("range0".into())), ..Default::default() };
    assert_eq!(door.delete_range(key).await.unwrap().deleted, 1);
}

async fn bad_range_deletes_are_refused(door: &Door) {
    door.put(put("survivor", "x")).await.unwrap();
    let everything = pb::Span::default();
    for range in [None, prefix(""), range(Kind::Span(everything)), range(Kind::All(false))] {
        let shown = format!("{range:?}");
        let refused = door.delete_range(pb::DeleteRangeRequest { range, ..Default::default() }).await.unwrap_err();
        assert_eq!(
            (refused.reason.as_str(), refused.outcome.as_deref()),
            ("INVALID_FIELD", Some("NOT_APPLIED")),
            "{shown}"
        );
    }
    let options = Some(pb::WriteOptions { request_id: "id".into(), ..Default::default() });
    let with_id = pb::DeleteRangeRequest { range: prefix("survivor"), options, ..Default::default() };
    assert_eq!(door.delete_range(with_id).await.unwrap_err().reason, "INVALID_FIELD");
    assert!(door.get(b"survivor").await.is_ok());
}

fn watch(prefix_of: &str) -> pb::WatchRequest {
    pb::WatchRequest { range: prefix(prefix_of), ..Default::default() }
}

fn shape(message: &pb::WatchResponse) -> Vec<(EventKind, String, String)> {
    let text = |bytes: &bytes::Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    let entry = |event: &pb::Event| event.entry.clone().unwrap();
    message.events.iter().map(|event| (event.kind(), text(&entry(event).key), text(&entry(event).value))).collect()
}

fn revision(result: Option<pb::WriteResult>) -> u64 {
    result.unwrap().revision
}

async fn a_watcher_hears_of_each_change_once_and_in_order(door: &Door) {
    door.put(put("w/before", "x")).await.unwrap();
    let mut watcher = door.watch(watch("w/")).await.unwrap();
    let hello = watcher.next().await.unwrap();
    assert!(hello.events.is_empty() && hello.revision > 0, "it learns at once from where it watches");
    let mut expected = Vec::new();
    let first = revision(door.put(put("w/a", "1")).await.unwrap().result);
    assert!(first > hello.revision);
    expected.push((first, EventKind::Put, "w/a", "1"));
    door.put(put("elsewhere", "x")).await.unwrap();
    expected.push((revision(door.increment(increment("w/n", 5)).await.unwrap().result), EventKind::Put, "w/n", "5"));
    let touched = door.touch(touch("w/a", ttl_ms(60_000))).await.unwrap();
    expected.push((revision(touched.result), EventKind::Touch, "w/a", "1"));
    door.delete(delete("w/absent")).await.unwrap_err();
    expected.push((revision(door.delete(delete("w/a")).await.unwrap().result), EventKind::Delete, "w/a", ""));
    for (revision, kind, key, value) in expected {
        let message = watcher.next_news().await;
        assert_eq!(message.revision, revision);
        assert_eq!(shape(&message), [(kind, key.to_owned(), value.to_owned())]);
        let entry = message.events[0].entry.as_ref().unwrap();
        assert_eq!(entry.revision, revision);
        assert_eq!(entry.version == 0, kind == EventKind::Delete, "of what was removed key and revision only");
        assert!(message.events[0].previous.is_none());
    }
    door.put(pb::PutRequest { expiry: expires(ttl_ms(1)), ..put("w/short", "x") }).await.unwrap();
    assert_eq!(shape(&watcher.next_news().await)[0].0, EventKind::Put);
    assert_eq!(shape(&watcher.next_news().await), [(EventKind::Expire, "w/short".to_owned(), String::new())]);
}

async fn a_watcher_is_told_what_it_asked_for(door: &Door) {
    let kinds = vec![EventKind::Delete.into(), EventKind::Touch.into()];
    let mut watcher = door.watch(pb::WatchRequest { previous: true, kinds, ..watch("ask/") }).await.unwrap();
    door.put(put("ask/a", "old")).await.unwrap();
    door.touch(touch("ask/a", ttl_ms(60_000))).await.unwrap();
    door.delete(delete("ask/a")).await.unwrap();
    for kind in [EventKind::Touch, EventKind::Delete] {
        let message = watcher.next_news().await;
        assert_eq!(message.events[0].kind(), kind);
        let previous = message.events[0].previous.as_ref().unwrap();
        assert_eq!((&previous.key[..], &previous.value[..], previous.version), (&b"ask/a"[..], &b"old"[..], 1));
        assert_eq!(previous.expire_time.is_some(), kind == EventKind::Delete);
    }
}

async fn a_revision_is_told_whole(door: &Door) {
    let mut watcher = door.watch(watch("whole/")).await.unwrap();
    fill(door, "whole/", 200).await;
    let message = watcher.next_news().await;
    assert_eq!(message.events.len(), 200);
    door.delete_range(pb::DeleteRangeRequest { range: prefix("whole/"), ..Default::default() }).await.unwrap();
    let mut removed = 0;
    while removed < 200 {
        let message = watcher.next_news().await;
        let expected = (200 - removed).min(DELETE_RANGE_KEYS_MAX);
        assert_eq!(message.events.len(), expected, "all that one record removed");
        assert!(message.events.iter().all(|event| event.kind() == EventKind::Delete));
        assert!(!message.partial);
        removed += expected;
    }
}

async fn a_watcher_begins_in_the_past(door: &Door) {
    let mut revisions = Vec::new();
    for number in 0..5 {
        revisions.push(revision(door.put(put("past/a", &number.to_string())).await.unwrap().result));
    }
    let start_revision = revisions[2];
    let mut watcher = door.watch(pb::WatchRequest { start_revision, ..watch("past/") }).await.unwrap();
    for revision in &revisions[2..] {
        assert_eq!(watcher.next_news().await.revision, *revision);
    }
    // What was read is followed without a gap: from the state's revision on.
    let read = door.get(b"past/a").await.unwrap();
    let start_revision = read.store_revision + 1;
    let mut watcher = door.watch(pb::WatchRequest { start_revision, ..watch("past/") }).await.unwrap();
    let next = revision(door.put(put("past/a", "next")).await.unwrap().result);
    assert_eq!(watcher.next_news().await.revision, next);
}

async fn a_watcher_begins_with_the_state(door: &Door) {
    let names = fill(door, "state/", 600).await;
    door.put(put("state/0007", "changed")).await.unwrap();
    door.delete(delete("state/0008")).await.unwrap();
    let mut watcher = door.watch(pb::WatchRequest { initial_state: true, ..watch("state/") }).await.unwrap();
    let mut seen = Vec::new();
    let shown = loop {
        let message = watcher.next_news().await;
        if message.synced {
            assert!(message.events.is_empty() && !message.partial);
            break message.revision;
        }
        assert!(message.partial, "no part of the state can be taken for the whole");
        seen.extend(shape(&message));
    };
    let expected: Vec<_> = names.iter().filter(|name| *name != "state/0008").cloned().collect();
    assert_eq!(seen.iter().map(|(_, key, _)| key.clone()).collect::<Vec<_>>(), expected);
    assert_eq!(seen[7], (EventKind::Put, "state/0007".to_owned(), "changed".to_owned()));
    let next = revision(door.put(put("state/next", "x")).await.unwrap().result);
    assert!(next > shown);
    assert_eq!(watcher.next_news().await.revision, next);
    // The history reaches back: no state is sent.
    let request = pb::WatchRequest { initial_state: true, start_revision: next, ..watch("state/") };
    assert_eq!(door.watch(request).await.unwrap().next_news().await.revision, next);
}

async fn bad_watches_are_refused(door: &Door) {
    let newest = eventually("a revision", async || door.get(b"survivor").await.ok()).await.store_revision;
    let cases = [
        (pb::WatchRequest { range: None, ..watch("") }, "INVALID_FIELD"),
        (pb::WatchRequest { kinds: vec![77], ..watch("x") }, "INVALID_FIELD"),
        (pb::WatchRequest { start_revision: newest + 1_000_000, ..watch("x") }, "REVISION_FUTURE"),
        (pb::WatchRequest { range: range(Kind::Key("".into())), ..watch("") }, "KEY_EMPTY"),
    ];
    for (request, reason) in cases {
        let shown = format!("{request:?}");
        let refused = door.watch(request).await.err().unwrap_or_else(|| panic!("{shown}"));
        assert_eq!(refused.reason, reason, "{shown}");
    }
}
