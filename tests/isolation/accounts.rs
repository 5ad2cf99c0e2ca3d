//! Money is moved between accounts, and coins between purses: whoever looks, however, finds as much as there always was.

use std::collections::BTreeMap;

use bytes::Bytes;
use tandem::pb::{self, condition::Kind as Is, op_result::Kind, txn_op};

use super::{Scene, delete, entry_of, list, number, prefix, put, write_together};
use crate::doors::Door;

const ACCOUNTS: usize = 10;
const BALANCE: i64 = 100;
const TOTAL: i64 = BALANCE * ACCOUNTS as i64;
/// Of each of four movers.
const TRANSFERS: usize = 60;
const COINS: usize = 40;

fn account(number: usize) -> String {
    format!("account/{}", number % ACCOUNTS)
}

fn keys() -> Vec<Bytes> {
    (0..ACCOUNTS).map(|number| account(number).into()).collect()
}

fn total<'entry>(entries: impl IntoIterator<Item = &'entry pb::Entry>) -> i64 {
    entries.into_iter().map(number).sum()
}

/// Moves an amount, if neither account changed since it was read. Gives whether it did.
async fn transfer(door: &Door, from: usize, to: usize, amount: i64) -> bool {
    let request = pb::BatchGetRequest { keys: vec![account(from).into(), account(to).into()], metadata_only: false };
    let read = door.batch_get(request).await.unwrap();
    let entries: Vec<_> = read.results.into_iter().map(entry_of).collect();
    let guard = |entry: &pb::Entry| pb::Guard {
        key: entry.key.clone(),
        conditions: vec![pb::Condition { kind: Some(Is::Revision(entry.revision)) }],
    };
    let guards = entries.iter().map(guard).collect();
    let balances = [(from, number(&entries[0]) - amount), (to, number(&entries[1]) + amount)];
    let then = balances
        .map(|(number, balance)| pb::TxnOp { op: Some(txn_op::Op::Write(put(account(number), balance))) })
        .into();
    door.txn(pb::TxnRequest { guards, then, ..Default::default() }).await.unwrap().succeeded
}

async fn look(door: &Door) {
    let request = pb::BatchGetRequest { keys: keys(), metadata_only: false };
    let read = door.batch_get(request).await.unwrap();
    let entries: Vec<_> = read.results.into_iter().map(entry_of).collect();
    assert_eq!(total(&entries), TOTAL, "read in a batch");
    assert!(entries.iter().all(|entry| entry.revision <= read.store_revision));
    assert_eq!(total(&list(door, "account/").await), TOTAL, "listed");
    let scan = pb::ScanRequest { range: prefix("account/"), ..Default::default() };
    // So few come in one batch.
    assert_eq!(total(&door.scan(scan).await.unwrap().entries), TOTAL, "scanned");
    let get = |key| pb::TxnOp { op: Some(txn_op::Op::Get(pb::GetRequest { key, metadata_only: false })) };
    let then = keys().into_iter().map(get).collect();
    let read = door.txn(pb::TxnRequest { then, ..Default::default() }).await.unwrap();
    let entry = |result: pb::OpResult| match result.kind {
        Some(Kind::Get(read)) => entry_of(read),
        other => panic!("not a read: {other:?}"),
    };
    assert_eq!(total(&read.results.into_iter().map(entry).collect::<Vec<_>>()), TOTAL, "read in a transaction");
}

/// What a watcher knows of a prefix after each message, from the state on, until `last` changes.
async fn watch(door: &Door, of: &str, last: &str, mut check: impl FnMut(&BTreeMap<Bytes, pb::Entry>)) {
    let request = pb::WatchRequest { range: prefix(of), initial_state: true, ..Default::default() };
    let mut watcher = door.watch(request).await.unwrap();
    let mut known = BTreeMap::new();
    let mut synced = false;
    loop {
        let message = watcher.next_news().await;
        assert!(!message.reset && (!synced || !message.partial));
        synced |= message.synced;
        for event in message.events {
            let entry = event.entry.unwrap();
            if entry.key == last {
                return;
            }
            match entry.version {
                0 => known.remove(&entry.key),
                _ => known.insert(entry.key.clone(), entry),
            };
        }
        if synced {
            check(&known);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_reader_sees_half_a_transaction() {
    let mut scene = Scene::start().await;
    write_together(&scene.doors[0], (0..ACCOUNTS).map(|number| put(account(number), BALANCE)).collect()).await;
    scene.again_and_again(|door| async move { look(&door).await }).await;
    for door in scene.doors.clone() {
        scene.busy.spawn(async move {
            watch(&door, "account", "account.last", |known| {
                assert_eq!((known.len(), total(known.values())), (ACCOUNTS, TOTAL), "watched");
            })
            .await;
        });
    }
    let movers = (0..4_usize).map(|mover| {
        let door = scene.doors[mover % 2].clone();
        tokio::spawn(async move {
            let mut moved = 0;
            for turn in 0..TRANSFERS {
                let (from, to) = (mover + turn * 7, mover + turn * 7 + 1 + turn % (ACCOUNTS - 1));
                moved += usize::from(transfer(&door, from, to, 1 + (turn % 5) as i64).await);
            }
            moved
        })
    });
    let mut moved = 0;
    for mover in movers.collect::<Vec<_>>() {
        moved += mover.await.unwrap();
    }
    assert!(moved > TRANSFERS, "{moved} of {} transfers", 4 * TRANSFERS);
    write_together(&scene.doors[1], vec![put("account.last".into(), 0)]).await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_batch_moves_from_key_to_key_is_never_gone_and_never_doubled() {
    let mut scene = Scene::start().await;
    let coin = |number: usize, purse: usize| format!("coin/{:02}/{number}", purse * 37 % 100);
    let mut purses = vec![0; COINS];
    write_together(&scene.doors[0], (0..COINS).map(|number| put(coin(number, 0), number)).collect()).await;
    scene
        .again_and_again(|door| async move {
            let counted = door.count(pb::CountRequest { range: prefix("coin/") }).await.unwrap();
            assert_eq!(counted.count, COINS as u64, "counted");
            let mut numbers: Vec<_> = list(&door, "coin/").await.iter().map(number).collect();
            numbers.sort_unstable();
            assert_eq!(numbers, (0..COINS as i64).collect::<Vec<_>>(), "listed");
        })
        .await;
    for door in scene.doors.clone() {
        scene.busy.spawn(async move {
            watch(&door, "coin", "coin.last", |known| assert_eq!(known.len(), COINS, "watched")).await;
        });
    }
    for turn in 0..80 {
        let mut writes = Vec::new();
        for (number, purse) in purses.iter_mut().enumerate().filter(|(number, _)| (number + turn) % 3 == 0) {
            writes.extend([delete(coin(number, *purse)), put(coin(number, *purse + 1), number)]);
            *purse += 1;
        }
        write_together(&scene.doors[turn % 2], writes).await;
    }
    write_together(&scene.doors[0], vec![put("coin.last".into(), 0)]).await;
    scene.end().await;
}
