//! Real `kill -9` under load from both doors: acknowledged writes lost, counted over many cycles, must be none.
//!
//! `TANDEM_KILL_CYCLES` sets the number of cycles.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

#[path = "support/doors/mod.rs"]
mod doors;
#[path = "support/ledger.rs"]
mod ledger;
mod support;

use std::{collections::HashMap, sync::Arc};

use tandem::pb;

use self::{doors::Door, ledger::Ledger};

/// Writers of each door. Each writes keys of its own, one after another.
const WRITERS: usize = 8;
const KEYS_EACH: u64 = 50;

async fn write(door: Arc<Door>, name: String, first: u64, ledger: Ledger) {
    for number in first.. {
        let key = format!("{name}-{}", number % KEYS_EACH);
        ledger.tried(&key, Some(number), false);
        let value = number.to_string().into();
        match door.put(pb::PutRequest { key: key.clone().into(), value, ..Default::default() }).await {
            Ok(_) => ledger.acknowledged(&key),
            Err(_) => return,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_write_is_lost_to_kill_9() {
    let cycles: u64 = std::env::var("TANDEM_KILL_CYCLES").ok().and_then(|text| text.parse().ok()).unwrap_or(20);
    let data = tempfile::tempdir().unwrap();
    let ledger = Ledger::default();
    let mut checked = 0;
    for cycle in 0..cycles {
        let server = support::Server::start(data.path());
        if cycle > 0 {
            assert!(server.banner[2].contains("unclean stop"), "{}", server.banner[2]);
        }
        let doors = [Arc::new(Door::over_grpc(&server.grpc).await), Arc::new(Door::over_rest(&server.http))];
        let all = pb::KeyRange { kind: Some(pb::key_range::Kind::All(true)) };
        let scan = pb::ScanRequest { range: Some(all), ..Default::default() };
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let found = doors[(cycle % 2) as usize].scan(scan).await.unwrap().entries;
        let found: HashMap<_, _> =
            found.iter().map(|entry| (text(&entry.key), text(&entry.value).parse().unwrap())).collect();
        checked += ledger.check(&found, &format!("cycle {cycle}"));
        let before = ledger.total();
        let first = (cycle + 1) * 1_000_000;
        let mut writers = Vec::new();
        for writer in 0..WRITERS {
            for (door, name) in doors.iter().zip(["grpc", "rest"]) {
                let name = format!("{name}-{writer}");
                writers.push(tokio::spawn(write(Arc::clone(door), name, first, ledger.clone())));
            }
        }
        // Under way, and at another moment of it in each cycle.
        let goal = before + 100 + cycle * 97 % 1_000;
        support::eventually("writes are under way", async || (ledger.total() >= goal).then_some(())).await;
        server.kill();
        for writer in writers {
            writer.await.unwrap();
        }
    }
    println!("{cycles} kills, {} acknowledged writes, {checked} checks, 0 lost", ledger.total());
}
