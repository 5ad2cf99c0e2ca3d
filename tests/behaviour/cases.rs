//! What a key does, through any door.

use std::time::Duration;

use tandem::{
    model::{ms_from_timestamp, timestamp_from_ms},
    pb::{self, condition::Kind as Is, expiry::Kind as Expires},
};

use crate::{
    doors::{Answered, Door, Refused},
    support::eventually,
};

pub fn put(key: &str, value: &str) -> pb::PutRequest {
    pb::PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..Default::default() }
}

pub fn delete(key: &str) -> pb::DeleteRequest {
    pb::DeleteRequest { key: key.to_owned().into(), ..Default::default() }
}

pub fn increment(key: &str, by: i64) -> pb::IncrementRequest {
    pb::IncrementRequest { key: key.to_owned().into(), by: Some(by), ..Default::default() }
}

pub fn touch(key: &str, expiry: Expires) -> pb::TouchRequest {
    pb::TouchRequest { key: key.to_owned().into(), expiry: expires(expiry), ..Default::default() }
}

pub fn when(kind: Is) -> Vec<pb::Condition> {
    vec![pb::Condition { kind: Some(kind) }]
}

pub fn expires(kind: Expires) -> Option<pb::Expiry> {
    Some(pb::Expiry { kind: Some(kind) })
}

pub fn ttl_ms(ms: u64) -> Expires {
    Expires::Ttl(tandem::model::duration_to_pb(Duration::from_millis(ms)))
}

fn request_id(id: &str) -> Option<pb::WriteOptions> {
    Some(pb::WriteOptions { request_id: id.into(), ..Default::default() })
}

fn reason<T: std::fmt::Debug>(answer: Answered<T>) -> String {
    answer.unwrap_err().reason
}

fn refused<T: std::fmt::Debug>(answer: Answered<T>) -> Refused {
    let refused = answer.unwrap_err();
    assert_eq!(refused.outcome.as_deref(), Some("NOT_APPLIED"));
    refused
}

fn revision(result: &Option<pb::WriteResult>) -> u64 {
    result.as_ref().unwrap().revision
}

/// Every case. Each uses keys of its own.
pub async fn all(door: &Door) {
    a_put_is_read_back(door).await;
    revisions_rise_and_versions_count(door).await;
    conditions_must_all_hold(door).await;
    deletes_and_their_refusals(door).await;
    counters_count(door).await;
    touches_change_expiry_alone(door).await;
    expiries_are_kept_replaced_and_dropped(door).await;
    an_expired_entry_is_absent_and_then_gone(door).await;
    validation_changes_nothing(door).await;
    a_retry_gets_the_first_answer(door).await;
    durability_is_what_was_asked_or_more(door).await;
    odd_keys_and_values_survive(door).await;
    batches_read_in_the_order_asked(door).await;
    pages_come_in_order_and_go_on(door).await;
    folders_are_folded(door).await;
    ranges_are_counted(door).await;
    bad_ranges_and_tokens_are_refused(door).await;
    a_batch_writes_each_on_its_own(door).await;
    a_transaction_happens_whole_or_not_at_all(door).await;
    a_transaction_takes_one_branch_judged_before_it(door).await;
    many_writes_are_retried_and_validated(door).await;
    bad_batches_and_transactions_are_refused(door).await;
}

async fn a_put_is_read_back(door: &Door) {
    let typed = pb::PutRequest { content_type: "text/html; charset=utf-8".into(), ..put("a", "1") };
    let written = door.put(typed).await.unwrap();
    assert!(written.created && written.version == 1 && written.previous.is_none());
    let result = written.result.unwrap();
    assert_eq!(result.durability(), pb::Durability::Fsynced);
    assert!(!result.replayed);
    let read = door.get(b"a").await.unwrap();
    let entry = read.entry.unwrap();
    assert_eq!((&entry.value[..], entry.content_type.as_str()), (&b"1"[..], "text/html; charset=utf-8"));
    assert_eq!((entry.revision, entry.create_revision, entry.version), (result.revision, result.revision, 1));
    assert!(entry.expire_time.is_none() && entry.update_time.is_some());
    assert!(read.store_revision >= entry.revision);
    door.put(put("a2", "x")).await.unwrap();
    assert_eq!(door.get(b"a2").await.unwrap().entry.unwrap().content_type, "application/octet-stream");
    assert_eq!(reason(door.get(b"nothing").await), "KEY_NOT_FOUND");
}

async fn revisions_rise_and_versions_count(door: &Door) {
    let first = door.put(put("b", "1")).await.unwrap();
    let second = door.put(pb::PutRequest { return_previous: true, ..put("b", "2") }).await.unwrap();
    assert!(!second.created && second.version == 2);
    assert!(revision(&second.result) > revision(&first.result));
    let previous = second.previous.unwrap();
    assert_eq!((&previous.value[..], previous.revision), (&b"1"[..], revision(&first.result)));
    let entry = door.get(b"b").await.unwrap().entry.unwrap();
    assert_eq!((entry.create_revision, entry.version), (revision(&first.result), 2));
    door.delete(delete("b")).await.unwrap();
    let again = door.put(put("b", "3")).await.unwrap();
    assert!(again.created && again.version == 1, "version and creation start again");
}

async fn conditions_must_all_hold(door: &Door) {
    let created = door.put(pb::PutRequest { conditions: when(Is::Exists(false)), ..put("c", "1") }).await.unwrap();
    let at = revision(&created.result);
    for absent in [Is::Exists(false), Is::Version(0)] {
        let failed = refused(door.put(pb::PutRequest { conditions: when(absent), ..put("c", "x") }).await);
        assert_eq!((failed.reason.as_str(), failed.current_revision), ("KEY_EXISTS", Some(at)));
    }
    for wrong in [Is::Revision(at + 1), Is::Version(9)] {
        let failed = refused(door.put(pb::PutRequest { conditions: when(wrong), ..put("c", "x") }).await);
        assert_eq!((failed.reason.as_str(), failed.current_revision), ("CONDITION_FAILED", Some(at)));
    }
    for present in [Is::Exists(true), Is::Revision(at), Is::Version(1)] {
        let failed = refused(door.put(pb::PutRequest { conditions: when(present), ..put("c-absent", "x") }).await);
        assert_eq!((failed.reason.as_str(), failed.current_revision), ("CONDITION_FAILED", Some(0)));
    }
    let both = [when(Is::Revision(at)), when(Is::Version(7))].concat();
    assert_eq!(reason(door.put(pb::PutRequest { conditions: both, ..put("c", "x") }).await), "CONDITION_FAILED");
    assert_eq!(&door.get(b"c").await.unwrap().entry.unwrap().value[..], b"1", "refused writes changed nothing");
    let both = [when(Is::Revision(at)), when(Is::Version(1))].concat();
    door.put(pb::PutRequest { conditions: both, ..put("c", "2") }).await.unwrap();
    let counted = pb::IncrementRequest { conditions: when(Is::Exists(false)), ..increment("c", 1) };
    assert_eq!(reason(door.increment(counted).await), "KEY_EXISTS");
    let gone = pb::DeleteRequest { conditions: when(Is::Revision(at)), ..delete("c") };
    assert_eq!(reason(door.delete(gone).await), "CONDITION_FAILED");
    let touched = pb::TouchRequest { conditions: when(Is::Revision(at)), ..touch("c", ttl_ms(9_000)) };
    assert_eq!(reason(door.touch(touched).await), "CONDITION_FAILED");
    let clash = [when(Is::Exists(false)), when(Is::Exists(true))].concat();
    assert_eq!(reason(door.put(pb::PutRequest { conditions: clash, ..put("c", "x") }).await), "INVALID_FIELD");
}

async fn deletes_and_their_refusals(door: &Door) {
    assert_eq!(refused(door.delete(delete("d")).await).reason, "KEY_NOT_FOUND");
    let conditional = pb::DeleteRequest { conditions: when(Is::Exists(true)), ..delete("d") };
    assert_eq!(reason(door.delete(conditional).await), "CONDITION_FAILED", "conditions are judged first");
    let written = door.put(put("d", "1")).await.unwrap();
    let removed = door.delete(pb::DeleteRequest { return_previous: true, ..delete("d") }).await.unwrap();
    assert!(revision(&removed.result) > revision(&written.result));
    assert_eq!(&removed.previous.unwrap().value[..], b"1");
    assert_eq!(reason(door.get(b"d").await), "KEY_NOT_FOUND");
}

async fn counters_count(door: &Door) {
    let first = door.increment(pb::IncrementRequest { initial: 10, ..increment("e", 5) }).await.unwrap();
    assert!(first.created && first.value == 15);
    let second = door.increment(pb::IncrementRequest { by: None, initial: 10, ..increment("e", 0) }).await.unwrap();
    assert!(!second.created && second.value == 16 && second.version == 2);
    assert_eq!(door.increment(increment("e", -20)).await.unwrap().value, -4);
    let entry = door.get(b"e").await.unwrap().entry.unwrap();
    assert_eq!((&entry.value[..], entry.content_type.as_str()), (&b"-4"[..], "text/plain"));
    door.put(put("e", "7")).await.unwrap();
    assert_eq!(door.increment(increment("e", 1)).await.unwrap().value, 8, "a counter is a key like any other");
    for no_number in ["", "07", "+7", "7.0", " 7", "seven", "9223372036854775808"] {
        door.put(put("e", no_number)).await.unwrap();
        assert_eq!(refused(door.increment(increment("e", 1)).await).reason, "NOT_AN_INTEGER", "{no_number:?}");
    }
    door.put(put("e", "9223372036854775807")).await.unwrap();
    assert_eq!(refused(door.increment(increment("e", 1)).await).reason, "INTEGER_OVERFLOW");
    assert_eq!(door.increment(increment("e", i64::MIN)).await.unwrap().value, -1);
}

async fn touches_change_expiry_alone(door: &Door) {
    assert_eq!(refused(door.touch(touch("f", ttl_ms(1_000))).await).reason, "KEY_NOT_FOUND");
    let written = door.put(put("f", "1")).await.unwrap();
    let touched = door.touch(touch("f", ttl_ms(60_000))).await.unwrap();
    assert!(touched.version == 1 && revision(&touched.result) > revision(&written.result));
    let entry = door.get(b"f").await.unwrap().entry.unwrap();
    assert_eq!((&entry.value[..], entry.version, entry.revision), (&b"1"[..], 1, revision(&touched.result)));
    let (expires, updated) = (entry.expire_time.unwrap(), entry.update_time.unwrap());
    assert_eq!(ms_from_timestamp(&expires).unwrap() - ms_from_timestamp(&updated).unwrap(), 60_000);
    let previous =
        door.touch(pb::TouchRequest { return_previous: true, ..touch("f", Expires::Never(true)) }).await.unwrap();
    assert_eq!(&previous.previous.unwrap().value[..], b"1");
    assert!(door.get(b"f").await.unwrap().entry.unwrap().expire_time.is_none());
    door.touch(touch("f", ttl_ms(60_000))).await.unwrap();
    let before = door.get(b"f").await.unwrap().entry.unwrap();
    let kept = door.touch(touch("f", Expires::Keep(true))).await.unwrap();
    let after = door.get(b"f").await.unwrap().entry.unwrap();
    assert_eq!((after.expire_time, after.version), (before.expire_time, 1));
    assert!(after.revision == revision(&kept.result) && after.revision > before.revision, "a new revision alone");
}

async fn expiries_are_kept_replaced_and_dropped(door: &Door) {
    let expire_time = async |key: &str| {
        let entry = door.get(key.as_bytes()).await.unwrap().entry.unwrap();
        entry.expire_time.as_ref().and_then(ms_from_timestamp)
    };
    let at_ms = 4_000_000_000_123;
    let absolute = Expires::ExpireTime(timestamp_from_ms(at_ms));
    // Ten years at most.
    assert_eq!(reason(door.put(pb::PutRequest { expiry: expires(absolute), ..put("g", "1") }).await), "INVALID_FIELD");
    let soon_ms = ms_from_timestamp(&{
        door.put(put("g", "0")).await.unwrap();
        door.get(b"g").await.unwrap().entry.unwrap().update_time.unwrap()
    })
    .unwrap()
        + 100_000;
    let absolute = || expires(Expires::ExpireTime(timestamp_from_ms(soon_ms)));
    door.put(pb::PutRequest { expiry: absolute(), ..put("g", "1") }).await.unwrap();
    assert_eq!(expire_time("g").await, Some(soon_ms));
    door.put(pb::PutRequest { expiry: expires(Expires::Keep(true)), ..put("g", "2") }).await.unwrap();
    assert_eq!(expire_time("g").await, Some(soon_ms));
    door.put(put("g", "3")).await.unwrap();
    assert_eq!(expire_time("g").await, None, "a put without expiry never expires");
    door.put(pb::PutRequest { expiry: expires(Expires::Keep(true)), ..put("g2", "1") }).await.unwrap();
    assert_eq!(expire_time("g2").await, None, "keep on an absent key is never");
    door.increment(pb::IncrementRequest { expiry: absolute(), ..increment("g3", 1) }).await.unwrap();
    door.increment(increment("g3", 1)).await.unwrap();
    assert_eq!(expire_time("g3").await, Some(soon_ms), "an increment keeps the expiry");
    for bad in [ttl_ms(0), ttl_ms(11 * 366 * 86_400_000), Expires::ExpireTime(timestamp_from_ms(1_000))] {
        assert_eq!(reason(door.put(pb::PutRequest { expiry: expires(bad), ..put("g", "x") }).await), "INVALID_FIELD");
    }
}

async fn an_expired_entry_is_absent_and_then_gone(door: &Door) {
    let short = pb::PutRequest { expiry: expires(ttl_ms(40)), ..put("h", "1") };
    let written = door.put(short).await.unwrap();
    door.put(pb::PutRequest { expiry: expires(ttl_ms(40)), ..put("h2", "1") }).await.unwrap();
    eventually("the entry expires", async || door.get(b"h").await.err()).await;
    // Absence by expiry never reverts, and a new entry starts from nothing.
    assert_eq!(reason(door.get(b"h").await), "KEY_NOT_FOUND");
    let again = door.put(pb::PutRequest { return_previous: true, ..put("h", "2") }).await.unwrap();
    assert!(again.created && again.version == 1 && again.previous.is_none());
    assert!(revision(&again.result) > revision(&written.result));
    eventually("the other one too", async || door.get(b"h2").await.err()).await;
    assert_eq!(reason(door.touch(touch("h2", ttl_ms(1_000))).await), "KEY_NOT_FOUND");
}

async fn validation_changes_nothing(door: &Door) {
    let only = || Some(pb::WriteOptions { validate_only: true, ..Default::default() });
    let would = door.put(pb::PutRequest { options: only(), ..put("i", "1") }).await.unwrap();
    assert!(would.created && revision(&would.result) == 0);
    assert_eq!(reason(door.get(b"i").await), "KEY_NOT_FOUND");
    door.put(put("i", "1")).await.unwrap();
    let refused = pb::PutRequest { options: only(), conditions: when(Is::Exists(false)), ..put("i", "2") };
    assert_eq!(reason(door.put(refused).await), "KEY_EXISTS");
    assert_eq!(door.increment(pb::IncrementRequest { options: only(), ..increment("i", 4) }).await.unwrap().value, 5);
    door.delete(pb::DeleteRequest { options: only(), ..delete("i") }).await.unwrap();
    assert_eq!(&door.get(b"i").await.unwrap().entry.unwrap().value[..], b"1");
}

async fn a_retry_gets_the_first_answer(door: &Door) {
    let once = || pb::PutRequest { options: request_id("put-1"), conditions: when(Is::Exists(false)), ..put("j", "1") };
    let first = door.put(once()).await.unwrap();
    assert!(!first.result.unwrap().replayed);
    let again = door.put(once()).await.unwrap();
    assert!(again.result.unwrap().replayed && again.created, "though the key exists by now");
    assert_eq!(again.result.unwrap().revision, first.result.unwrap().revision);
    let other = pb::PutRequest { options: request_id("put-1"), ..put("j", "2") };
    assert_eq!(refused(door.put(other).await).reason, "REQUEST_ID_REUSED");
    let counted = || pb::IncrementRequest { options: request_id("count-1"), ..increment("j2", 3) };
    assert_eq!(door.increment(counted()).await.unwrap().value, 3);
    assert_eq!(door.increment(counted()).await.unwrap().value, 3, "counted once");
    let failing = || pb::DeleteRequest { options: request_id("delete-1"), ..delete("j3") };
    assert!(!door.delete(failing()).await.unwrap_err().replayed);
    door.put(put("j3", "1")).await.unwrap();
    let remembered = door.delete(failing()).await.unwrap_err();
    assert_eq!((remembered.reason.as_str(), remembered.replayed), ("KEY_NOT_FOUND", true));
    door.get(b"j3").await.unwrap();
}

async fn durability_is_what_was_asked_or_more(door: &Door) {
    for (asked, given) in [(pb::Durability::Written, 1), (pb::Durability::Fsynced, 2)] {
        let options = Some(pb::WriteOptions { durability: asked.into(), ..Default::default() });
        let written = door.put(pb::PutRequest { options, ..put("k", "1") }).await.unwrap();
        assert!(written.result.unwrap().durability >= given, "{asked:?}");
    }
}

async fn odd_keys_and_values_survive(door: &Door) {
    let every_byte: Vec<u8> = (0..=255).collect();
    for key in
        [&every_byte[..], b"/", b"//", b"a/", b"/a//b", b":txn", b"%41", b"a b+c", b"\xff\xfe", "ключ".as_bytes()]
    {
        for value in [&b""[..], &every_byte, &[7; 20_000]] {
            let request =
                pb::PutRequest { key: key.to_vec().into(), value: value.to_vec().into(), ..Default::default() };
            door.put(request).await.unwrap();
            let entry = door.get(key).await.unwrap().entry.unwrap();
            assert_eq!((&entry.key[..], &entry.value[..]), (key, value));
        }
        door.delete(pb::DeleteRequest { key: key.to_vec().into(), ..Default::default() }).await.unwrap();
    }
}

pub fn range(kind: pb::key_range::Kind) -> Option<pb::KeyRange> {
    Some(pb::KeyRange { kind: Some(kind) })
}

pub fn prefix(prefix: &str) -> Option<pb::KeyRange> {
    range(pb::key_range::Kind::Prefix(prefix.to_owned().into()))
}

async fn batches_read_in_the_order_asked(door: &Door) {
    use pb::read_result::Kind;
    door.put(put("batch/b", "2")).await.unwrap();
    let last = door.put(put("batch/a", "1")).await.unwrap();
    let keys = ["batch/b", "batch/none", "batch/a", "batch/b"].map(|key| key.to_owned().into()).to_vec();
    let found = door.batch_get(pb::BatchGetRequest { keys, metadata_only: false }).await.unwrap();
    assert!(found.store_revision >= revision(&last.result));
    let values = found.results.iter().map(|result| match result.kind.as_ref().unwrap() {
        Kind::Entry(entry) => Some(entry.value.to_vec()),
        Kind::Absent(_) => None,
        Kind::Unprocessed(_) => panic!("small enough for one answer"),
    });
    assert!(values.eq([Some(b"2".to_vec()), None, Some(b"1".to_vec()), Some(b"2".to_vec())]));
    assert!(door.batch_get(pb::BatchGetRequest::default()).await.unwrap().results.is_empty());
    let many = vec!["batch/a".to_owned().into(); 1_001];
    assert_eq!(
        reason(door.batch_get(pb::BatchGetRequest { keys: many, metadata_only: true }).await),
        "BATCH_TOO_LARGE"
    );
    let empty = pb::BatchGetRequest { keys: vec![bytes::Bytes::new()], metadata_only: false };
    assert_eq!(reason(door.batch_get(empty).await), "KEY_EMPTY");
    for number in 0..6 {
        door.put(put(&format!("batch/large-{number}"), &"v".repeat(1 << 20))).await.unwrap();
    }
    let keys: Vec<_> = (0..6).map(|number| format!("batch/large-{number}").into()).collect();
    let found = door.batch_get(pb::BatchGetRequest { keys, metadata_only: false }).await.unwrap();
    let unprocessed = |result: &&pb::ReadResult| matches!(result.kind, Some(Kind::Unprocessed(true)));
    assert_eq!(found.results.iter().filter(unprocessed).count(), 3, "an answer stays below 4 MiB");
    let page = door.list(pb::ListRequest { range: prefix("batch/large"), ..Default::default() }).await.unwrap();
    assert!(page.entries.len() == 3 && !page.next_page_token.is_empty());
}

/// All keys of a query, page by page.
async fn pages(door: &Door, request: pb::ListRequest) -> (Vec<String>, Vec<String>) {
    let text = |bytes: &bytes::Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    let (mut keys, mut folded) = (Vec::new(), Vec::new());
    let mut page_token = bytes::Bytes::new();
    loop {
        let page = door.list(pb::ListRequest { page_token, ..request.clone() }).await.unwrap();
        let found = page.entries.len() + page.common_prefixes.len();
        assert!(found <= request.page_size as usize);
        keys.extend(page.entries.iter().map(|entry| text(&entry.key)));
        folded.extend(page.common_prefixes.iter().map(text));
        if page.next_page_token.is_empty() {
            return (keys, folded);
        }
        assert_eq!(found, request.page_size as usize, "a page with a next one is full");
        page_token = page.next_page_token;
    }
}

async fn pages_come_in_order_and_go_on(door: &Door) {
    let mut expected: Vec<_> = (0..57).map(|number| format!("page/{number}")).collect();
    for key in &expected {
        door.put(put(key, key)).await.unwrap();
    }
    door.put(put("page", "before")).await.unwrap();
    door.put(put("page0", "behind")).await.unwrap();
    door.put(pb::PutRequest { expiry: expires(ttl_ms(1)), ..put("page/expired", "x") }).await.unwrap();
    eventually("it expires", async || door.get(b"page/expired").await.err()).await;
    expected.sort();
    for page_size in [1, 7, 57, 100] {
        let request = pb::ListRequest { range: prefix("page/"), page_size, ..Default::default() };
        assert_eq!(pages(door, request.clone()).await, (expected.clone(), vec![]));
        let (mut backward, _) = pages(door, pb::ListRequest { descending: true, ..request }).await;
        backward.reverse();
        assert_eq!(backward, expected);
    }
    let after = pb::ListRequest {
        range: prefix("page/"),
        page_size: 10,
        start_after: "page/50".into(),
        keys_only: true,
        ..Default::default()
    };
    let page = door.list(after).await.unwrap();
    assert_eq!(page.entries[0].key, "page/51");
    assert!(page.entries.iter().all(|entry| entry.value.is_empty() && entry.version == 1));
    let span = pb::Span { start: "page/3".into(), end: "page/31".into() };
    let request =
        pb::ListRequest { range: range(pb::key_range::Kind::Span(span)), page_size: 50, ..Default::default() };
    assert_eq!(pages(door, request).await.0, ["page/3", "page/30"]);
    let one = range(pb::key_range::Kind::Key("page".into()));
    assert_eq!(pages(door, pb::ListRequest { range: one, page_size: 5, ..Default::default() }).await.0, ["page"]);
}

async fn folders_are_folded(door: &Door) {
    for key in ["dir/a", "dir/b/1", "dir/b/2", "dir/b/c/3", "dir/c", "dir/d/", "dir/e/4", "dirx"] {
        door.put(put(key, key)).await.unwrap();
    }
    for page_size in [1, 2, 10] {
        for descending in [false, true] {
            let delimiter = "/".into();
            let request =
                pb::ListRequest { range: prefix("dir/"), page_size, delimiter, descending, ..Default::default() };
            let (mut keys, mut folded) = pages(door, request).await;
            if descending {
                keys.reverse();
                folded.reverse();
            }
            assert_eq!(keys, ["dir/a", "dir/c"]);
            assert_eq!(folded, ["dir/b/", "dir/d/", "dir/e/"]);
        }
    }
}

async fn ranges_are_counted(door: &Door) {
    let count = async |range| door.count(pb::CountRequest { range }).await.unwrap().count;
    let before = count(range(pb::key_range::Kind::All(true))).await;
    for number in 0..20 {
        door.put(put(&format!("count/{number:02}"), "x")).await.unwrap();
    }
    assert_eq!(count(prefix("count/")).await, 20);
    assert_eq!(count(prefix("")).await, before + 20);
    let span = pb::Span { start: "count/05".into(), end: "count/10".into() };
    assert_eq!(count(range(pb::key_range::Kind::Span(span))).await, 5);
    assert_eq!(count(range(pb::key_range::Kind::Key("count/05".into()))).await, 1);
    door.put(pb::PutRequest { expiry: expires(ttl_ms(1)), ..put("count/00", "x") }).await.unwrap();
    eventually("it expires", async || door.get(b"count/00").await.err()).await;
    assert_eq!(count(prefix("count/")).await, 19, "what is expired does not count");
    door.delete(delete("count/01")).await.unwrap();
    assert_eq!(count(prefix("count/")).await, 18);
}

async fn bad_ranges_and_tokens_are_refused(door: &Door) {
    let list = async |request| reason(door.list(request).await);
    assert_eq!(list(pb::ListRequest::default()).await, "INVALID_FIELD");
    assert_eq!(reason(door.count(pb::CountRequest::default()).await), "INVALID_FIELD");
    let negative = pb::ListRequest { range: prefix("x"), page_size: -1, ..Default::default() };
    assert_eq!(list(negative).await, "INVALID_FIELD");
    let backwards = pb::Span { start: "b".into(), end: "a".into() };
    let request = pb::ListRequest { range: range(pb::key_range::Kind::Span(backwards)), ..Default::default() };
    assert_eq!(list(request).await, "INVALID_FIELD");
    let first = pb::ListRequest { range: prefix("page/"), page_size: 2, ..Default::default() };
    let page_token = door.list(first.clone()).await.unwrap().next_page_token;
    let other = pb::ListRequest { range: prefix("dir/"), page_token: page_token.clone(), ..first.clone() };
    assert_eq!(list(other).await, "PAGE_TOKEN_INVALID");
    let turned = pb::ListRequest { descending: true, page_token: page_token.clone(), ..first.clone() };
    assert_eq!(list(turned).await, "PAGE_TOKEN_INVALID");
    let garbage = pb::ListRequest { page_token: "garbage!!".into(), ..first.clone() };
    assert_eq!(list(garbage).await, "PAGE_TOKEN_INVALID");
    let larger = pb::ListRequest { page_size: 50, page_token, ..first };
    assert_eq!(door.list(larger).await.unwrap().entries.len(), 50, "another size is the same query");
}

use pb::{op_result::Kind as Did, txn_op::Op as InTxn, write_op::Op as Writes};

fn op(op: Writes) -> pb::WriteOp {
    pb::WriteOp { op: Some(op) }
}

fn then_write(write: Writes) -> pb::TxnOp {
    pb::TxnOp { op: Some(InTxn::Write(op(write))) }
}

fn then_get(key: &str) -> pb::TxnOp {
    pb::TxnOp { op: Some(InTxn::Get(pb::GetRequest { key: key.to_owned().into(), metadata_only: false })) }
}

fn guard(key: &str, kind: Is) -> pb::Guard {
    pb::Guard { key: key.to_owned().into(), conditions: when(kind) }
}

fn did(result: &pb::OpResult) -> &Did {
    result.kind.as_ref().unwrap()
}

async fn held(door: &Door, key: &str) -> Option<String> {
    let found = door.get(key.as_bytes()).await.ok()?;
    Some(String::from_utf8(found.entry.unwrap().value.to_vec()).unwrap())
}

async fn a_batch_writes_each_on_its_own(door: &Door) {
    door.put(put("w/old", "1")).await.unwrap();
    let writes = vec![
        op(Writes::Put(put("w/new", "n"))),
        op(Writes::Put(pb::PutRequest { conditions: when(Is::Exists(false)), ..put("w/old", "x") })),
        op(Writes::Increment(pb::IncrementRequest { return_previous: true, ..increment("w/old2", 7) })),
        op(Writes::Delete(delete("w/absent"))),
        op(Writes::Touch(touch("w/absent2", ttl_ms(1_000)))),
    ];
    let done = door.batch_write(pb::BatchWriteRequest { writes, options: None }).await.unwrap();
    let at = revision(&done.result);
    assert!(matches!(did(&done.results[0]), Did::Put(done) if done.created && done.version == 1));
    assert!(matches!(did(&done.results[1]), Did::Error(error) if error.reason == "KEY_EXISTS"));
    assert!(matches!(did(&done.results[2]), Did::Increment(done) if done.value == 7));
    assert!(matches!(did(&done.results[3]), Did::Error(error) if error.reason == "KEY_NOT_FOUND"));
    assert!(matches!(did(&done.results[4]), Did::Error(error) if error.reason == "KEY_NOT_FOUND"));
    assert_eq!(door.get(b"w/new").await.unwrap().entry.unwrap().revision, at, "one revision for all");
    assert_eq!((held(door, "w/old").await.unwrap(), held(door, "w/old2").await.unwrap()), ("1".into(), "7".into()));
    assert!(door.batch_write(pb::BatchWriteRequest::default()).await.unwrap().results.is_empty());
}

async fn a_transaction_happens_whole_or_not_at_all(door: &Door) {
    door.put(put("t/from", "10")).await.unwrap();
    door.put(put("t/text", "ten")).await.unwrap();
    let then = vec![
        then_write(Writes::Increment(increment("t/from", -3))),
        then_write(Writes::Increment(increment("t/text", 3))),
    ];
    let failed = refused(door.txn(pb::TxnRequest { then, ..Default::default() }).await);
    assert_eq!(failed.reason, "NOT_AN_INTEGER");
    assert_eq!(held(door, "t/from").await.unwrap(), "10", "nothing of it happened");
    let then = vec![
        then_get("t/from"),
        then_write(Writes::Increment(increment("t/from", -3))),
        then_write(Writes::Increment(increment("t/to", 3))),
        then_get("t/to"),
        then_write(Writes::Delete(pb::DeleteRequest { return_previous: true, ..delete("t/text") })),
    ];
    let done = door.txn(pb::TxnRequest { then, ..Default::default() }).await.unwrap();
    assert!(done.succeeded);
    use pb::read_result::Kind::{Absent, Entry};
    let read = |number: usize| match did(&done.results[number]) {
        Did::Get(read) => read.kind.clone().unwrap(),
        other => panic!("{other:?}"),
    };
    assert!(matches!(read(0), Entry(entry) if &entry.value[..] == b"10"), "reads show the state before");
    assert!(matches!(read(3), Absent(true)));
    assert!(matches!(did(&done.results[4]), Did::Delete(done) if &done.previous.as_ref().unwrap().value[..] == b"ten"));
    let (from, to) =
        (door.get(b"t/from").await.unwrap().entry.unwrap(), door.get(b"t/to").await.unwrap().entry.unwrap());
    assert_eq!((&from.value[..], &to.value[..]), (&b"7"[..], &b"3"[..]));
    assert_eq!((from.revision, to.revision), (revision(&done.result), revision(&done.result)));
}

async fn a_transaction_takes_one_branch_judged_before_it(door: &Door) {
    door.put(put("u/lock", "mine")).await.unwrap();
    let request = |value: &str| pb::TxnRequest {
        guards: vec![guard("u/lock", Is::Exists(true)), guard("u/none", Is::Exists(false))],
        then: vec![then_write(Writes::Put(put("u/lock", value))), then_write(Writes::Put(put("u/none", "made")))],
        otherwise: vec![then_get("u/lock"), then_write(Writes::Put(put("u/lock", "otherwise")))],
        options: None,
    };
    let first = door.txn(request("then")).await.unwrap();
    assert!(first.succeeded && first.results.len() == 2);
    assert_eq!(held(door, "u/lock").await.unwrap(), "then");
    let second = door.txn(request("again")).await.unwrap();
    assert!(!second.succeeded, "a failed guard is an answer, not an error");
    assert!(matches!(did(&second.results[0]), Did::Get(_)));
    assert_eq!(
        (held(door, "u/lock").await.unwrap(), held(door, "u/none").await.unwrap()),
        ("otherwise".into(), "made".into())
    );
}

async fn many_writes_are_retried_and_validated(door: &Door) {
    let batch = |options| pb::BatchWriteRequest {
        writes: vec![op(Writes::Increment(increment("v/n", 1))), op(Writes::Delete(delete("v/x")))],
        options,
    };
    let only = || Some(pb::WriteOptions { validate_only: true, ..Default::default() });
    let would = door.batch_write(batch(only())).await.unwrap();
    assert!(revision(&would.result) == 0 && matches!(did(&would.results[0]), Did::Increment(done) if done.value == 1));
    assert!(held(door, "v/n").await.is_none());
    let first = door.batch_write(batch(request_id("batch-1"))).await.unwrap();
    let again = door.batch_write(batch(request_id("batch-1"))).await.unwrap();
    assert!(again.result.unwrap().replayed && revision(&again.result) == revision(&first.result));
    assert!(matches!(did(&again.results[0]), Did::Increment(done) if done.value == 1));
    assert!(matches!(did(&again.results[1]), Did::Error(error) if error.reason == "KEY_NOT_FOUND"));
    assert_eq!(held(door, "v/n").await.unwrap(), "1", "counted once");
    let txn = |options| pb::TxnRequest {
        then: vec![then_get("v/n"), then_write(Writes::Increment(increment("v/n", 1)))],
        options,
        ..Default::default()
    };
    let would = door.txn(txn(only())).await.unwrap();
    assert!(would.succeeded && matches!(did(&would.results[1]), Did::Increment(done) if done.value == 2));
    use pb::read_result::Kind::{Entry, Unprocessed};
    let bare = pb::GetRequest { key: "v/n".into(), metadata_only: true };
    let bare = pb::TxnOp { op: Some(InTxn::Get(bare)) };
    let would = door.txn(pb::TxnRequest { then: vec![bare], options: only(), ..Default::default() }).await.unwrap();
    let Did::Get(pb::ReadResult { kind: Some(Entry(entry)) }) = did(&would.results[0]) else { panic!("{would:?}") };
    assert!(entry.value.is_empty() && entry.version == 1, "validated, too, a read leaves out what it was told to");
    let first = door.txn(txn(request_id("txn-1"))).await.unwrap();
    let again = door.txn(txn(request_id("txn-1"))).await.unwrap();
    assert!(again.result.unwrap().replayed && revision(&again.result) == revision(&first.result));
    assert!(matches!(did(&again.results[0]), Did::Get(read) if read.kind == Some(Unprocessed(true))));
    assert_eq!(held(door, "v/n").await.unwrap(), "2");
    let aborting = || pb::TxnRequest {
        then: vec![then_write(Writes::Delete(delete("v/x")))],
        options: request_id("txn-2"),
        ..Default::default()
    };
    assert!(!door.txn(aborting()).await.unwrap_err().replayed);
    door.put(put("v/x", "1")).await.unwrap();
    let remembered = door.txn(aborting()).await.unwrap_err();
    assert_eq!((remembered.reason.as_str(), remembered.replayed), ("KEY_NOT_FOUND", true));
    let reused = door.batch_write(pb::BatchWriteRequest { options: request_id("txn-2"), ..batch(None) }).await;
    assert_eq!(refused(reused).reason, "REQUEST_ID_REUSED");
}

async fn bad_batches_and_transactions_are_refused(door: &Door) {
    let batch = async |writes| refused(door.batch_write(pb::BatchWriteRequest { writes, options: None }).await).reason;
    assert_eq!(batch(vec![op(Writes::Put(put("x", "1"))), op(Writes::Delete(delete("x")))]).await, "INVALID_FIELD");
    assert_eq!(batch(vec![op(Writes::Put(put("", "1")))]).await, "KEY_EMPTY");
    let many = (0..1_001).map(|number| op(Writes::Put(put(&format!("x{number}"), "1")))).collect();
    assert_eq!(batch(many).await, "BATCH_TOO_LARGE");
    let never = pb::TouchRequest { expiry: None, ..touch("x", ttl_ms(1)) };
    assert_eq!(batch(vec![op(Writes::Touch(never))]).await, "INVALID_FIELD");
    let txn = async |request| refused(door.txn(request).await).reason;
    let twice = vec![then_write(Writes::Put(put("x", "1"))), then_write(Writes::Put(put("x", "2")))];
    assert_eq!(txn(pb::TxnRequest { then: twice, ..Default::default() }).await, "INVALID_FIELD");
    let bare = vec![pb::Guard { key: "x".into(), conditions: vec![] }];
    assert_eq!(txn(pb::TxnRequest { guards: bare, ..Default::default() }).await, "INVALID_FIELD");
    let many = vec![then_get("x"); 129];
    assert_eq!(txn(pb::TxnRequest { otherwise: many, ..Default::default() }).await, "BATCH_TOO_LARGE");
    assert!(held(door, "x").await.is_none());
}
