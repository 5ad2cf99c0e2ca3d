//! The requests of a load, before they are of a door.

use bytes::Bytes;

use super::{
    keys::{Chance, Keys, Values},
    options::Workload,
    plan::Plan,
};

/// One request.
#[derive(Debug)]
pub enum Ask {
    Get(Bytes),
    Put(Bytes, Bytes),
    BatchGet(Vec<Bytes>),
    BatchWrite(Vec<(Bytes, Bytes)>),
    /// From the first key to before the second.
    Scan(Bytes, Bytes),
    /// Every key of the load, counted.
    Count(Bytes, Bytes),
}

/// What a request did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    /// Keys that were read or written.
    pub keys: u64,
    /// Of a write.
    pub revision: u64,
}

/// Why one did not.
#[derive(Debug)]
pub struct Refusal {
    /// As the server calls it, or the client where there was no answer.
    pub reason: String,
    /// For people.
    pub message: String,
    /// The connection is of no more use.
    pub broken: bool,
}

impl Refusal {
    /// Something about the answer is wrong that the server did not say.
    pub fn unexpected(message: impl Into<String>) -> Self {
        Self { reason: "UNEXPECTED_ANSWER".to_owned(), message: message.into(), broken: false }
    }

    /// There is no connection any more.
    pub fn broken(message: impl Into<String>) -> Self {
        Self { reason: "UNAVAILABLE".to_owned(), message: message.into(), broken: true }
    }
}

/// Makes up the requests of one place of a load.
#[derive(Debug)]
pub struct Asking {
    workload: Workload,
    chance: Chance,
    read_ratio: f64,
    batch_keys: u64,
    /// The only key that this place writes, if its watcher waits for it.
    own: Option<Bytes>,
}

impl Asking {
    /// The requests of place `place`.
    pub fn new(plan: &Plan, values: &Values, place: u64) -> Self {
        Self {
            workload: plan.workload,
            chance: Chance::new(plan, values, place),
            read_ratio: plan.read_ratio.unwrap_or_default(),
            batch_keys: plan.batch_keys(),
            own: (plan.workload == Workload::Watch).then(|| Keys::of(plan).key(place)),
        }
    }

    /// The next request.
    pub fn next(&mut self) -> Ask {
        let chance = &mut self.chance;
        match self.workload {
            Workload::Get => Ask::Get(chance.key()),
            Workload::Put => Ask::Put(chance.key(), chance.value()),
            Workload::Mixed if chance.happens(self.read_ratio) => Ask::Get(chance.key()),
            Workload::Mixed => Ask::Put(chance.key(), chance.value()),
            Workload::BatchGet => Ask::BatchGet(chance.distinct_keys(self.batch_keys)),
            Workload::BatchWrite => {
                let keys = chance.distinct_keys(self.batch_keys);
                Ask::BatchWrite(keys.into_iter().map(|key| (key, chance.value())).collect())
            }
            Workload::Scan => {
                let (first, behind) = chance.span(self.batch_keys);
                Ask::Scan(first, behind)
            }
            Workload::Watch => {
                let key = self.own.clone().unwrap_or_else(|| chance.key());
                Ask::Put(key, chance.value())
            }
        }
    }
}
