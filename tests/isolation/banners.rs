//! A banner of many keys is rewritten as a whole: whatever shows several of its keys at one revision shows one banner.

use std::collections::BTreeSet;

use tandem::pb;

use super::{Scene, batches, entry_of, list, number, prefix, put, write_together};
use crate::doors::Door;

/// More than two batches of a scan.
const KEYS: usize = 600;
const BANNERS: usize = 100;

fn key(number: usize) -> String {
    format!("banner/{number:03}")
}

fn banner(number: usize) -> Vec<pb::WriteOp> {
    (0..KEYS).map(|place| put(key(place), number)).collect()
}

/// All of one banner.
#[track_caller]
fn one_banner(entries: &[pb::Entry], how: &str) -> i64 {
    let numbers: BTreeSet<_> = entries.iter().map(number).collect();
    assert_eq!(numbers.len(), 1, "{how}: {numbers:?}");
    number(&entries[0])
}

/// Never an earlier one after a later one.
#[track_caller]
fn rising(numbers: &[i64], how: &str) {
    assert!(numbers.is_sorted(), "{how}: {numbers:?}");
}

async fn read(door: &Door) {
    let keys = (0..KEYS).map(|number| key(number).into()).collect();
    let read = door.batch_get(pb::BatchGetRequest { keys, metadata_only: false }).await.unwrap();
    one_banner(&read.results.into_iter().map(entry_of).collect::<Vec<_>>(), "read in a batch");
}

async fn one_page(door: &Door) {
    let listed = list(door, "banner/").await;
    assert_eq!(listed.len(), KEYS);
    one_banner(&listed, "listed");
}

async fn pages(door: &Door) {
    let mut request = pb::ListRequest { range: prefix("banner/"), page_size: 170, ..Default::default() };
    let (mut seen, mut count) = (Vec::new(), 0);
    loop {
        let page = door.list(request.clone()).await.unwrap();
        seen.push(one_banner(&page.entries, "a page"));
        count += page.entries.len();
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(count, KEYS);
    rising(&seen, "page by page");
}

async fn scan(door: &Door) {
    let request = pb::ScanRequest { range: prefix("banner/"), ..Default::default() };
    if let Door::Grpc(_) = door {
        let batches = batches(door, request).await;
        let shown: Vec<_> = batches.iter().map(|batch| one_banner(&batch.entries, "a batch of a scan")).collect();
        assert_eq!(batches.iter().map(|batch| batch.entries.len()).sum::<usize>(), KEYS);
        return rising(&shown, "batch by batch");
    }
    let entries = door.scan(request).await.unwrap().entries;
    assert_eq!(entries.len(), KEYS);
    let mut numbers: Vec<_> = entries.iter().map(number).collect();
    rising(&numbers, "line by line");
    numbers.dedup();
    assert!(numbers.len() <= KEYS.div_ceil(tandem::limits::SCAN_BATCH_ENTRIES_MAX), "more than batches: {numbers:?}");
}

async fn watch(door: &Door) {
    let mut watcher = door.watch(pb::WatchRequest { range: prefix("banner/"), ..Default::default() }).await.unwrap();
    let mut last = None;
    while last != Some(BANNERS as i64) {
        let message = watcher.next_news().await;
        assert!(!message.partial);
        let entries: Vec<_> = message.events.into_iter().map(|event| event.entry.unwrap()).collect();
        assert_eq!(entries.len(), KEYS, "a revision is told whole");
        let shown = one_banner(&entries, "watched");
        assert!(last.is_none_or(|last| shown == last + 1), "{shown} after {last:?}");
        last = Some(shown);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_reader_sees_half_a_batch() {
    let mut scene = Scene::start().await;
    write_together(&scene.doors[0], banner(0)).await;
    // Side by side, so that there is always one that reads while a banner is written.
    scene.again_and_again(|door| async move { read(&door).await }).await;
    scene.again_and_again(|door| async move { one_page(&door).await }).await;
    scene.again_and_again(|door| async move { pages(&door).await }).await;
    scene.again_and_again(|door| async move { scan(&door).await }).await;
    for door in scene.doors.clone() {
        scene.busy.spawn(async move { watch(&door).await });
    }
    for number in 1..=BANNERS {
        write_together(&scene.doors[number % 2], banner(number)).await;
    }
    scene.end().await;
}
