//! Scans and pages while writers run: keys in order, each at most once, and one that did not change exactly once.

use std::collections::BTreeSet;

use bytes::Bytes;
use rand::RngExt as _;
use tandem::pb;

use super::{Scene, batches, prefix, put, write_together};
use crate::doors::Door;

/// Each holds one key that stays, and others that come and go.
const FOLDERS: usize = 350;
/// Of each door.
const LOOKS: usize = 12;

fn folder() -> String {
    format!("page/{:03}/", rand::rng().random_range(0..FOLDERS))
}

fn staying() -> BTreeSet<Bytes> {
    (0..FOLDERS).map(|number| format!("page/{number:03}/stays").into()).collect()
}

/// Keys come and go, one by one, a few in one record, and folder by folder.
async fn stir(door: &Door) {
    let guest = || format!("{}guest{}", folder(), rand::rng().random_range(0..4));
    let what = rand::rng().random_range(0..4);
    match what {
        0 => {
            let request = pb::PutRequest { key: guest().into(), value: "guest".into(), ..Default::default() };
            door.put(request).await.unwrap();
        }
        1 => {
            // Perhaps it was not there.
            let _ = door.delete(pb::DeleteRequest { key: guest().into(), ..Default::default() }).await;
        }
        2 => {
            let guests: BTreeSet<_> = (0..20).map(|_| guest()).collect();
            write_together(door, guests.into_iter().map(|guest| put(guest, "guest")).collect()).await;
        }
        _ => {
            let range = prefix(&format!("{}guest", folder()));
            door.delete_range(pb::DeleteRangeRequest { range, ..Default::default() }).await.unwrap();
        }
    }
}

#[track_caller]
fn in_order(keys: &[Bytes], descending: bool, how: &str) {
    let right = |pair: &[Bytes]| if descending { pair[0] > pair[1] } else { pair[0] < pair[1] };
    let wrong = keys.windows(2).find(|pair| !right(pair));
    assert!(wrong.is_none(), "{how}, descending {descending}: {wrong:?}");
}

/// In order and so each at most once, and all that stay: exactly once.
#[track_caller]
fn complete(entries: Vec<pb::Entry>, descending: bool, how: &str) {
    let keys: Vec<_> = entries.into_iter().map(|entry| entry.key).collect();
    in_order(&keys, descending, how);
    let missing: Vec<_> = staying().difference(&keys.into_iter().collect()).cloned().collect();
    assert!(missing.is_empty(), "{how}, descending {descending}: {missing:?} stayed and was not found");
}

async fn scan(door: &Door, descending: bool) {
    let request = pb::ScanRequest { range: prefix("page/"), descending, ..Default::default() };
    let entries = match door {
        Door::Grpc(_) => batches(door, request).await.into_iter().flat_map(|batch| batch.entries).collect(),
        _ => door.scan(request).await.unwrap().entries,
    };
    complete(entries, descending, "scanned");
}

async fn turn_pages(door: &Door, descending: bool, folded: bool) {
    let page_size = rand::rng().random_range(40..200);
    let delimiter = if folded { Bytes::from("/") } else { Bytes::new() };
    let mut request =
        pb::ListRequest { range: prefix("page/"), page_size, delimiter, descending, ..Default::default() };
    let (mut entries, mut folders, mut revision) = (Vec::new(), Vec::new(), 0);
    loop {
        let page = door.list(request.clone()).await.unwrap();
        assert!(page.store_revision >= revision, "a later page shows no earlier state");
        revision = page.store_revision;
        entries.extend(page.entries);
        folders.extend(page.common_prefixes);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    if folded {
        in_order(&folders, descending, "folded");
        assert_eq!((entries.len(), folders.len()), (0, FOLDERS), "each folder holds something that stays");
    } else {
        complete(entries, descending, "listed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scans_and_pages_miss_nothing_that_stays_and_repeat_nothing_while_keys_come_and_go() {
    let mut scene = Scene::start().await;
    let keys = staying().into_iter().map(|key| put(String::from_utf8(key.to_vec()).unwrap(), "stays"));
    write_together(&scene.doors[0], keys.collect()).await;
    scene.again_and_again(|door| async move { stir(&door).await }).await;
    let readers = scene.doors.clone().map(|door| {
        tokio::spawn(async move {
            for turn in 0..LOOKS {
                scan(&door, turn % 2 == 1).await;
                turn_pages(&door, turn % 2 == 0, turn % 3 == 0).await;
            }
        })
    });
    for reader in readers {
        reader.await.unwrap();
    }
    scene.end().await;
}
