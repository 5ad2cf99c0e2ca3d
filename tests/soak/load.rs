//! Random writes through both doors, each told to the ledger.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};
use tandem::pb::{self, write_op::Op};
use tokio::task::JoinHandle;

use crate::{
    doors::{Answered, Door, Refused},
    ledger::{Held, Ledger},
    support::Server,
};

const WRITERS: usize = 6;
const KEYS_EACH: u64 = 60;
const VALUE_BYTES_MAX: usize = 8_000;
const BATCH_WRITES_MAX: u64 = 5;
/// Longest life of what expires.
pub const TTL_MS_MAX: i32 = 100;

/// What the writers were refused.
#[derive(Debug, Default)]
pub struct Refusals {
    pub memory_limit: AtomicU64,
    pub disk_full: AtomicU64,
    /// Only deletes from now on.
    pub shrink: AtomicBool,
}

/// Writers at work on a server.
pub struct Load {
    pub doors: [Arc<Door>; 2],
    pub refusals: Arc<Refusals>,
    writers: Vec<JoinHandle<()>>,
}

impl Load {
    /// Begins to write. Numbers rise from cycle to cycle, so that no two writes are alike.
    pub async fn start(server: &Server, ledger: &Ledger, random: &mut SmallRng, cycle: u64) -> Self {
        let doors = [Arc::new(Door::over_grpc(&server.grpc).await), Arc::new(Door::over_rest(&server.http))];
        let refusals = Arc::new(Refusals::default());
        let writers = (0..WRITERS).flat_map(|writer| [(0, writer), (1, writer)]).map(|(door, writer)| {
            let writer = Writer {
                name: format!("{}-{writer}", ["grpc", "rest"][door]),
                door: Arc::clone(&doors[door]),
                ledger: ledger.clone(),
                refusals: Arc::clone(&refusals),
                random: SmallRng::seed_from_u64(random.random()),
                number: (cycle + 1) << 32,
            };
            tokio::spawn(writer.run())
        });
        let writers = writers.collect();
        Self { doors, refusals, writers }
    }

    /// Waits for the writers, whose server has gone.
    pub async fn end(self) {
        for writer in self.writers {
            writer.await.unwrap();
        }
    }
}

struct Writer {
    name: String,
    door: Arc<Door>,
    ledger: Ledger,
    refusals: Arc<Refusals>,
    random: SmallRng,
    number: u64,
}

impl Writer {
    /// Writes until the server is gone.
    async fn run(mut self) {
        loop {
            let batch = self.random.random_ratio(1, 5);
            let going_on = if batch { self.write_many().await } else { self.write_one().await };
            if !going_on {
                return;
            }
        }
    }

    fn key(&mut self) -> String {
        format!("{}-{}", self.name, self.random.random_range(0..KEYS_EACH))
    }

    /// Another write of this key, as the ledger knows it from now on.
    fn op(&mut self, key: &str) -> Op {
        self.number += 1;
        if self.refusals.shrink.load(Ordering::Relaxed) || self.random.random_ratio(1, 6) {
            self.ledger.tried(key, None, false);
            return Op::Delete(pb::DeleteRequest { key: key.to_owned().into(), ..Default::default() });
        }
        let lapses = self.random.random_ratio(1, 8);
        self.ledger.tried(key, Some(self.number), lapses);
        let ttl = prost_types::Duration { seconds: 0, nanos: self.random.random_range(1..=TTL_MS_MAX) * 1_000_000 };
        let expiry = lapses.then_some(pb::Expiry { kind: Some(pb::expiry::Kind::Ttl(ttl)) });
        let padding = "x".repeat(self.random.random_range(0..VALUE_BYTES_MAX));
        let value = format!("{} {padding}", self.number).into();
        Op::Put(pb::PutRequest { key: key.to_owned().into(), value, expiry, ..Default::default() })
    }

    async fn write_one(&mut self) -> bool {
        let key = self.key();
        let answer = match self.op(&key) {
            Op::Put(request) => self.door.put(request).await.map(|_| ()),
            Op::Delete(request) => self.door.delete(request).await.map(|_| ()),
            _ => unreachable!("only puts and deletes are made"),
        };
        self.note(&[key], answer).await
    }

    async fn write_many(&mut self) -> bool {
        let first = self.random.random_range(0..KEYS_EACH - BATCH_WRITES_MAX);
        let keys: Vec<_> = (0..BATCH_WRITES_MAX).map(|number| format!("{}-{}", self.name, first + number)).collect();
        let writes = keys.iter().map(|key| pb::WriteOp { op: Some(self.op(key)) }).collect();
        // Of items only deletes of what is not there fail, and these hold nothing afterwards all the same.
        let answer = self.door.batch_write(pb::BatchWriteRequest { writes, options: None }).await.map(|_| ());
        self.note(&keys, answer).await
    }

    /// Tells the ledger. False: there is nobody to write to any more.
    async fn note(&self, keys: &[String], answer: Answered<()>) -> bool {
        match answer {
            Ok(()) => keys.iter().for_each(|key| self.ledger.acknowledged(key)),
            Err(Refused { reason, .. }) if reason == "KEY_NOT_FOUND" => self.ledger.acknowledged(&keys[0]),
            Err(Refused { reason, outcome, .. }) if outcome.as_deref() == Some("NOT_APPLIED") => {
                keys.iter().for_each(|key| self.ledger.refused(key));
                match reason.as_str() {
                    "MEMORY_LIMIT" => self.refusals.memory_limit.fetch_add(1, Ordering::Relaxed),
                    "DISK_FULL" => self.refusals.disk_full.fetch_add(1, Ordering::Relaxed),
                    "DRAINING" => return false,
                    other => panic!("refused: {other}"),
                };
                tokio::task::yield_now().await;
            }
            Err(_) => return false,
        }
        true
    }
}

/// What a value holds.
pub fn held(entry: &pb::Entry) -> (String, Held) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let value = text(&entry.value);
    (text(&entry.key), value.split(' ').next().and_then(|number| number.parse().ok()))
}
