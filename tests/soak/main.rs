//! Everything at once, for as long as there is time: random load through both doors, snapshots all the while, `kill -9`,
//! clean stops, memory and disk that run short; after each start everything acknowledged is there, and at the end the live
//! state, its replay and its backup have one hash.
//!
//! `TANDEM_SOAK_SECONDS` sets how long, `TANDEM_SOAK_SEED` repeats a run's choices (its timing is the machine's).
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

#[path = "../support/doors/mod.rs"]
mod doors;
mod hashes;
#[path = "../support/ledger.rs"]
mod ledger;
mod load;
mod small_disk;
#[path = "../support/mod.rs"]
mod support;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng, seq::SliceRandom as _};
use tandem::pb;

use self::{
    doors::{Door, Refused},
    ledger::Ledger,
    load::{Load, held},
    small_disk::{Kind, SmallDisk},
    support::{Server, eventually},
};

/// What a server starts with: small, so that everything happens often.
const SETTINGS: [(&str, &str); 6] = [
    ("TANDEM__LIMITS__REQUEST_BYTES", "64KiB"),
    ("TANDEM__LIMITS__VALUE_BYTES", "32KiB"),
    ("TANDEM__WAL__SEGMENT_BYTES", "256KiB"),
    ("TANDEM__SNAPSHOT__LOG_BYTES", "256KiB"),
    ("TANDEM__WAL__DISK_RESERVE", "64MiB"),
    // It is a part of every snapshot: by default more than twenty times what the writers keep, and too much for a small disk.
    ("TANDEM__LIMITS__WATCH_HISTORY_BYTES", "2MiB"),
];
/// Less than the reserve by little: growth is refused within a second, and what is written until then has room.
const BELOW_RESERVE_BYTES: u64 = 60 << 20;

#[derive(Clone, Copy, Debug)]
enum Event {
    Kill,
    Stop,
    MemoryShort,
    DiskFull,
}

struct Soak {
    ledger: Ledger,
    random: SmallRng,
    data: PathBuf,
    disk: Option<SmallDisk>,
    cycle: u64,
}

fn all() -> Option<pb::KeyRange> {
    Some(pb::KeyRange { kind: Some(pb::key_range::Kind::All(true)) })
}

/// A key that only the test itself writes.
fn probe(key: &str) -> pb::PutRequest {
    pb::PutRequest { key: format!("probe-{key}").into(), value: "v".into(), ..Default::default() }
}

/// Everything that was acknowledged is there.
async fn check(server: &Server, ledger: &Ledger, what: &str) {
    let door = Door::over_grpc(&server.grpc).await;
    let found = door.scan(pb::ScanRequest { range: all(), ..Default::default() }).await.unwrap().entries;
    let found = found.iter().filter(|entry| !entry.key.starts_with(b"probe-")).map(held);
    let found: HashMap<_, _> = found.map(|(key, number)| (key, number.unwrap())).collect();
    ledger.check(&found, what);
}

async fn alarms(server: &Server) -> String {
    let url = format!("http://{}/readyz?verbose", server.ops);
    let answer = support::send(&support::client(), "GET", &url, &[], b"").await;
    assert_eq!(answer.status, 200, "an alarm is no reason to send no requests");
    answer.text()
}

/// Growth is taken again.
async fn grows_again(load: &Load) {
    eventually("growth is taken again", async || load.doors[1].put(probe("again")).await.ok()).await;
}

impl Soak {
    async fn start(&self, more: &[(&str, &str)], what: &str) -> Server {
        let server = Server::start_with(&self.data, &[&SETTINGS[..], more].concat());
        check(&server, &self.ledger, &format!("cycle {}, {what}", self.cycle)).await;
        server
    }

    async fn load(&mut self, server: &Server) -> Load {
        self.cycle += 1;
        let load = Load::start(server, &self.ledger, &mut self.random, self.cycle).await;
        let goal = self.ledger.total() + self.random.random_range(100..1_500);
        eventually("writes are under way", async || (self.ledger.total() >= goal).then_some(())).await;
        load
    }

    async fn kill_or_stop(&mut self, kill: bool) {
        let server = self.start(&[], "before a kill or a stop").await;
        let load = self.load(&server).await;
        if kill {
            server.kill();
        } else {
            assert_eq!(server.stop(), Some(0));
        }
        load.end().await;
    }

    /// Refused at the limit, deletes go on, and make room.
    async fn memory_short(&mut self) {
        // Half of what the writers keep at a time.
        let server = self.start(&[("TANDEM__STORE__MEMORY_LIMIT", "1MiB")], "memory is short").await;
        self.cycle += 1;
        let load = Load::start(&server, &self.ledger, &mut self.random, self.cycle).await;
        let refused = async || (load.refusals.memory_limit.load(Ordering::Relaxed) > 0).then_some(());
        eventually("growth is refused for want of memory", refused).await;
        load.refusals.shrink.store(true, Ordering::Relaxed);
        grows_again(&load).await;
        server.kill();
        load.end().await;
    }

    /// Refused before it is full, everything else goes on, clears itself; killed and started again while it is full.
    async fn disk_full(&mut self) {
        let server = self.start(&[], "before the disk is full").await;
        let mut load = self.load(&server).await;
        let second = prost_types::Duration { seconds: 1, nanos: 0 };
        let expiry = Some(pb::Expiry { kind: Some(pb::expiry::Kind::Ttl(second)) });
        for request in [probe("kept"), probe("deleted"), pb::PutRequest { expiry, ..probe("lapses") }] {
            let put = load.doors[0].put(request).await;
            put.unwrap_or_else(|refused| panic!("{refused:?} on a disk with room:\n{}", self.on_disk()));
        }
        self.fill(&load).await;
        for door in &load.doors {
            let refused = self.refused_on_a_full_disk(door).await;
            assert_eq!((refused.reason.as_str(), refused.outcome.as_deref()), ("DISK_FULL", Some("NOT_APPLIED")));
            assert_eq!(door.get(b"probe-kept").await.unwrap().entry.unwrap().value, "v", "reads go on");
        }
        let delete = pb::DeleteRequest { key: "probe-deleted".into(), ..Default::default() };
        load.doors[1].delete(delete).await.unwrap();
        eventually("expiry goes on", async || load.doors[0].get(b"probe-lapses").await.err()).await;
        self.refused_on_a_full_disk(&load.doors[1]).await;
        assert!(alarms(&server).await.contains("[-]disk failed"));
        self.release();
        grows_again(&load).await;
        assert!(alarms(&server).await.contains("[+]disk ok"));
        self.fill(&load).await;
        server.kill();
        load.end().await;
        let server = self.start(&[], "the disk is full").await;
        load = Load::start(&server, &self.ledger, &mut self.random, self.cycle + 1).await;
        self.cycle += 1;
        self.refused_on_a_full_disk(&load.doors[0]).await;
        self.release();
        grows_again(&load).await;
        server.kill();
        load.end().await;
    }

    /// Leaves less room than the reserve, and waits until that is noticed.
    async fn fill(&self, load: &Load) {
        let Some(disk) = &self.disk else { return };
        let before = load.refusals.disk_full.load(Ordering::Relaxed);
        let refused = async || {
            disk.fill(BELOW_RESERVE_BYTES);
            (load.refusals.disk_full.load(Ordering::Relaxed) > before).then_some(())
        };
        eventually("growth is refused for want of room", refused).await;
        assert!(disk.free_bytes() > 0, "before it is really full");
    }

    /// What a new key is told, on a disk that stays full: snapshots and old segments that are removed give room back.
    async fn refused_on_a_full_disk(&self, door: &Door) -> Refused {
        let refused = async || {
            self.disk.iter().for_each(|disk| disk.fill(BELOW_RESERVE_BYTES));
            door.put(probe("new")).await.err()
        };
        eventually("a new key is refused for want of room", refused).await
    }

    /// What takes room, to be shown.
    fn on_disk(&self) -> String {
        let folders = ["wal", "snapshots"].map(|folder| self.data.join(folder));
        let files = folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().flatten();
        let mut lines: Vec<_> = files
            .map(|file| format!("{:>12} {}", file.metadata().map_or(0, |data| data.len()), file.path().display()))
            .collect();
        lines.sort();
        lines.extend(self.disk.as_ref().map(|disk| format!("{:>12} free", disk.free_bytes())));
        lines.join("\n")
    }

    fn release(&self) {
        if let Some(disk) = &self.disk {
            disk.release();
        }
    }

    async fn end(self, elapsed: Duration) {
        let server = self.start(&[], "the end").await;
        assert_eq!(server.stop(), Some(0));
        let restored = hashes::compare(&self.data).await;
        let server = Server::start(&restored.path().join("data"));
        check(&server, &self.ledger, "the restored backup").await;
        println!(
            "{} s, {} cycles, {} acknowledged writes, 0 lost; one hash live, replayed and backed up",
            elapsed.as_secs(),
            self.cycle,
            self.ledger.total()
        );
    }
}

fn number_of(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_write_is_lost_whatever_happens_for_however_long() {
    let patience = Duration::from_secs(number_of("TANDEM_SOAK_SECONDS").unwrap_or(5));
    let seed = number_of("TANDEM_SOAK_SEED").unwrap_or_else(rand::random);
    println!("soaking for {patience:?}; seed {seed}");
    let directory = tempfile::tempdir().unwrap();
    let disk = SmallDisk::mount(Kind::Ext4, 256)
        .inspect_err(|reason| println!("SKIPPED: full disks, because no small one can be mounted here: {reason}"))
        .ok();
    let data = disk.as_ref().map_or(directory.path().join("data"), SmallDisk::data);
    let random = SmallRng::seed_from_u64(seed);
    let mut soak = Soak { ledger: Ledger::default(), random, data, disk, cycle: 0 };
    let started = Instant::now();
    while started.elapsed() < patience {
        let mut events = vec![Event::Kill, Event::Kill, Event::Stop, Event::MemoryShort];
        events.extend(soak.disk.is_some().then_some(Event::DiskFull));
        events.shuffle(&mut soak.random);
        for event in events {
            match event {
                Event::Kill => soak.kill_or_stop(true).await,
                Event::Stop => soak.kill_or_stop(false).await,
                Event::MemoryShort => soak.memory_short().await,
                Event::DiskFull => soak.disk_full().await,
            }
            let (seconds, total) = (started.elapsed().as_secs(), soak.ledger.total());
            println!("{seconds:>5} s of {}: {event:?} survived, {total} acknowledged, 0 lost", patience.as_secs());
        }
    }
    soak.end(started.elapsed()).await;
}

async fn a_full_disk(kind: Kind, mib: u64) {
    let disk = match SmallDisk::mount(kind, mib) {
        Ok(disk) => disk,
        Err(reason) => return println!("SKIPPED: no {kind:?} can be mounted here: {reason}"),
    };
    let data = disk.data();
    let random = SmallRng::seed_from_u64(1);
    let mut soak = Soak { ledger: Ledger::default(), random, data, disk: Some(disk), cycle: 0 };
    let started = Instant::now();
    soak.disk_full().await;
    soak.end(started.elapsed()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_ext4_refuses_growth_keeps_everything_and_clears_itself() {
    a_full_disk(Kind::Ext4, 256).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_xfs_refuses_growth_keeps_everything_and_clears_itself() {
    a_full_disk(Kind::Xfs, 384).await;
}
