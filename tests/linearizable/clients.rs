//! Clients that do everything with a few keys at once, through both doors, and write down what they saw.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};
use tandem::{
    model::duration_to_pb,
    pb::{
        self, condition::Kind as Is, expiry::Kind as Expires, op_result::Kind, read_result::Kind as Read, txn_op,
        write_op::Op,
    },
};

use super::checker::{Answer, Call};
use crate::{
    asks::{Ask, Told},
    doors::{BROKEN_OFF, Door, Refused},
};

const REGISTERS: [&str; 4] = ["k/a", "k/b", "k/c", "k/d"];
const COUNTERS: [&str; 2] = ["n/1", "n/2"];
/// What an expired or short-lived entry may live: it ends while clients run.
const SHORT_MS: std::ops::Range<u64> = 1..30;

/// A client: its own door, its own dice, and what it last saw of each key.
pub struct Client {
    name: usize,
    door: Door,
    dice: SmallRng,
    seen: HashMap<Bytes, pb::Entry>,
    written: u64,
}

/// The clock of all clients.
#[derive(Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    pub fn start() -> Self {
        Self(Instant::now())
    }

    fn now(self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap()
    }
}

impl Client {
    pub fn new(name: usize, door: Door) -> Self {
        Self { name, door, dice: SmallRng::seed_from_u64(name as u64), seen: HashMap::new(), written: 0 }
    }

    /// Works until its calls are done, or the server is gone.
    pub async fn work(mut self, clock: Clock, calls: usize, answered: Arc<AtomicUsize>) -> Vec<Call> {
        let mut history = Vec::new();
        for _ in 0..calls {
            let ask = self.next_ask();
            let call = self.call(clock, ask).await;
            let lost = matches!(call.answer, Answer::Lost);
            history.push(call);
            if lost {
                break;
            }
            answered.fetch_add(1, Ordering::Relaxed);
        }
        history
    }

    /// One call, and what came of it.
    pub async fn call(&mut self, clock: Clock, ask: Ask) -> Call {
        let start = clock.now();
        let answer = ask.through(&self.door).await;
        let end = clock.now();
        let end_ms = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
        let answer = match answer {
            Ok(told) => {
                self.learn(&told);
                Answer::Told(told)
            }
            Err(refused) if refused.reason == BROKEN_OFF => Answer::Lost,
            Err(Refused { reason, current_revision, store_revision, .. }) => {
                Answer::Refused { reason, current_revision, store_revision }
            }
        };
        let end = if matches!(answer, Answer::Lost) { u64::MAX } else { end };
        let over_rest = matches!(self.door, Door::Rest { .. });
        Call { start, end, end_ms, over_rest, ask, answer }
    }

    fn learn(&mut self, told: &Told) {
        for result in &told.results {
            if let Kind::Get(pb::ReadResult { kind: Some(Read::Entry(entry)) }) = result {
                self.seen.insert(entry.key.clone(), entry.clone());
            }
        }
    }

    fn key(&mut self) -> Bytes {
        REGISTERS[self.dice.random_range(0..REGISTERS.len())].into()
    }

    fn value(&mut self) -> Bytes {
        self.written += 1;
        format!("{}.{}", self.name, self.written).into()
    }

    fn expiry(&mut self) -> Option<pb::Expiry> {
        let kind = match self.dice.random_range(0..8) {
            0..3 => Expires::Ttl(duration_to_pb(Duration::from_millis(self.dice.random_range(SHORT_MS)))),
            3 => Expires::Ttl(duration_to_pb(Duration::from_secs(3_600))),
            4 => Expires::Keep(true),
            _ => Expires::Never(true),
        };
        Some(pb::Expiry { kind: Some(kind) })
    }

    /// Often none, else one that may hold: the world goes on while it is on its way.
    fn conditions(&mut self, key: &Bytes) -> Vec<pb::Condition> {
        let seen = self.seen.get(key).map(|entry| (entry.revision, entry.version));
        let kind = match (self.dice.random_range(0..10), seen) {
            (0, _) => Is::Exists(false),
            (1, _) => Is::Exists(true),
            (2..5, Some((revision, _))) => Is::Revision(revision),
            (5, Some((_, version))) => Is::Version(version),
            _ => return Vec::new(),
        };
        vec![pb::Condition { kind: Some(kind) }]
    }

    fn write(&mut self) -> Op {
        let (key, return_previous) = (self.key(), self.dice.random());
        let conditions = self.conditions(&key);
        match self.dice.random_range(0..10) {
            0..5 => Op::Put(pb::PutRequest {
                value: self.value(),
                expiry: self.expiry(),
                key,
                conditions,
                return_previous,
                ..Default::default()
            }),
            5..7 => Op::Delete(pb::DeleteRequest { key, conditions, return_previous, options: None }),
            7..9 => {
                // REST's route has no touch that keeps what there is.
                let keeps = |expiry: &pb::Expiry| matches!(expiry.kind, Some(Expires::Keep(_)));
                let never = pb::Expiry { kind: Some(Expires::Never(true)) };
                let expiry = Some(self.expiry().filter(|expiry| !keeps(expiry)).unwrap_or(never));
                Op::Touch(pb::TouchRequest { key, expiry, conditions, return_previous, options: None })
            }
            _ => {
                let key = COUNTERS[self.dice.random_range(0..COUNTERS.len())].into();
                let by = Some(self.dice.random_range(-3..10));
                Op::Increment(pb::IncrementRequest { key, by, return_previous, ..Default::default() })
            }
        }
    }

    /// Writes of different keys.
    fn writes(&mut self) -> Vec<Op> {
        let (one, other) = (self.write(), self.write());
        let same = crate::reference::key_of(&one) == crate::reference::key_of(&other);
        if same { vec![one] } else { vec![one, other] }
    }

    fn next_ask(&mut self) -> Ask {
        match self.dice.random_range(0..20) {
            0..5 => Ask::Get(self.key()),
            5 => Ask::Get(COUNTERS[0].into()),
            6..8 => Ask::BatchGet(REGISTERS.iter().chain(&COUNTERS).map(|key| Bytes::from(*key)).collect()),
            8..16 => Ask::Write(self.write()),
            16..18 => {
                let writes = self.writes().into_iter().map(|op| pb::WriteOp { op: Some(op) }).collect();
                Ask::Batch(pb::BatchWriteRequest { writes, options: None })
            }
            _ => {
                let key = self.key();
                let conditions = self.conditions(&key);
                let guards = if conditions.is_empty() { Vec::new() } else { vec![pb::Guard { key, conditions }] };
                let op = |op| pb::TxnOp { op: Some(txn_op::Op::Write(pb::WriteOp { op: Some(op) })) };
                let get =
                    |key: Bytes| pb::TxnOp { op: Some(txn_op::Op::Get(pb::GetRequest { key, metadata_only: false })) };
                let mut then: Vec<_> = self.writes().into_iter().map(op).collect();
                then.push(get(self.key()));
                let otherwise = REGISTERS.iter().map(|key| get((*key).into())).collect();
                Ask::Txn(pb::TxnRequest { guards, then, otherwise, options: None })
            }
        }
    }
}
