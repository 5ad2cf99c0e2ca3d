//! Requests as data: put through either door, their answers told in one form and compared with what is expected.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use bytes::Bytes;
use tandem::pb::{self, op_result::Kind, write_op::Op};

use crate::{
    doors::{Answered, Door},
    reference::{self, Expected},
};

/// A request for keys by name.
#[derive(Clone, Debug)]
pub enum Ask {
    Get(Bytes),
    BatchGet(Vec<Bytes>),
    /// One write, by the RPC of its kind.
    Write(Op),
    Batch(pb::BatchWriteRequest),
    Txn(pb::TxnRequest),
}

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// Of a read that of the state shown, of a write its own.
    pub revision: u64,
    pub succeeded: bool,
    /// In the order of the operations; without revision and durability.
    pub results: Vec<Kind>,
}

impl Ask {
    pub async fn through(&self, door: &Door) -> Answered<Told> {
        let told = |result: Option<pb::WriteResult>, succeeded, results: Vec<Kind>| {
            let result = result.unwrap();
            assert!(!result.replayed && result.durability() != pb::Durability::Unspecified);
            Told { revision: result.revision, succeeded, results: results.into_iter().map(plain).collect() }
        };
        let kinds = |results: Vec<pb::OpResult>| results.into_iter().map(|result| result.kind.unwrap()).collect();
        Ok(match self {
            Self::Get(key) => {
                let answer = door.get(key).await?;
                let results = vec![reference::read(answer.entry)];
                Told { revision: answer.store_revision, succeeded: true, results }
            }
            Self::BatchGet(keys) => {
                let request = pb::BatchGetRequest { keys: keys.clone(), metadata_only: false };
                let answer = door.batch_get(request).await?;
                let results = answer.results.into_iter().map(Kind::Get).collect();
                Told { revision: answer.store_revision, succeeded: true, results }
            }
            Self::Write(Op::Put(request)) => {
                let answer = door.put(request.clone()).await?;
                told(answer.result, true, vec![Kind::Put(answer)])
            }
            Self::Write(Op::Delete(request)) => {
                let answer = door.delete(request.clone()).await?;
                told(answer.result, true, vec![Kind::Delete(answer)])
            }
            Self::Write(Op::Increment(request)) => {
                let answer = door.increment(request.clone()).await?;
                told(answer.result, true, vec![Kind::Increment(answer)])
            }
            Self::Write(Op::Touch(request)) => {
                let answer = door.touch(request.clone()).await?;
                told(answer.result, true, vec![Kind::Touch(answer)])
            }
            Self::Batch(request) => {
                let answer = door.batch_write(request.clone()).await?;
                told(answer.result, true, kinds(answer.results))
            }
            Self::Txn(request) => {
                let answer = door.txn(request.clone()).await?;
                told(answer.result, answer.succeeded, kinds(answer.results))
            }
        })
    }

    pub fn writes(&self) -> bool {
        !matches!(self, Self::Get(_) | Self::BatchGet(_))
    }

    /// The keys that it names, each once.
    pub fn keys(&self) -> Vec<Bytes> {
        let of = |write: &pb::WriteOp| reference::key_of(write.op.as_ref().unwrap()).clone();
        let mut keys = match self {
            Self::Get(key) => vec![key.clone()],
            Self::BatchGet(keys) => keys.clone(),
            Self::Write(op) => vec![reference::key_of(op).clone()],
            Self::Batch(request) => request.writes.iter().map(of).collect(),
            Self::Txn(request) => {
                let guarded = request.guards.iter().map(|guard| guard.key.clone());
                let op = |op: &pb::TxnOp| match op.op.as_ref().unwrap() {
                    pb::txn_op::Op::Get(get) => get.key.clone(),
                    pb::txn_op::Op::Write(write) => of(write),
                };
                guarded.chain(request.then.iter().chain(&request.otherwise).map(op)).collect()
            }
        };
        keys.sort();
        keys.dedup();
        keys
    }

    /// How it is answered in a state; a single read of an absent key is an error, as a refused write is.
    pub fn expected(
        &self,
        state: impl Fn(&Bytes) -> Option<pb::Entry>,
        revision: u64,
    ) -> Result<Expected, &'static str> {
        let reads = |results| Expected { succeeded: true, results, done: Vec::new() };
        match self {
            Self::Get(key) => match state(key) {
                None => Err("KEY_NOT_FOUND"),
                found => Ok(reads(vec![reference::read(found)])),
            },
            Self::BatchGet(keys) => Ok(reads(keys.iter().map(|key| reference::read(state(key))).collect())),
            Self::Write(op) => reference::write(op, state, revision),
            Self::Batch(request) => Ok(reference::batch(&request.writes, state, revision)),
            Self::Txn(request) => reference::txn(request, state, revision),
        }
    }

    /// Compares an answer with what is expected. Of the entry before, REST's routes for one key show less.
    pub fn check(&self, told: &Told, expected: &Expected, over_rest: bool) -> Result<(), String> {
        let partly = over_rest && matches!(self, Self::Write(_));
        let mut results = expected.results.clone();
        if partly {
            results.iter_mut().for_each(as_rest_shows);
        }
        match told.results == results && told.succeeded == expected.succeeded {
            true => Ok(()),
            false => Err(format!("{self:?} should be answered by {results:?}, and was by {told:?}")),
        }
    }
}

/// A result without revision, durability and the wording of errors.
fn plain(mut result: Kind) -> Kind {
    match &mut result {
        Kind::Put(done) => done.result = None,
        Kind::Delete(done) => done.result = None,
        Kind::Increment(done) => done.result = None,
        Kind::Touch(done) => done.result = None,
        Kind::Error(error) => error.message.clear(),
        Kind::Get(_) => {}
    }
    result
}

fn as_rest_shows(result: &mut Kind) {
    let less = |previous: &mut Option<pb::Entry>| {
        if let Some(entry) = previous.take() {
            let pb::Entry { value, revision, content_type, .. } = entry;
            *previous = Some(pb::Entry { value, revision, content_type, ..pb::Entry::default() });
        }
    };
    match result {
        Kind::Put(done) => less(&mut done.previous),
        Kind::Delete(done) => less(&mut done.previous),
        Kind::Touch(done) => less(&mut done.previous),
        Kind::Increment(done) => done.previous = None,
        Kind::Get(_) | Kind::Error(_) => {}
    }
}
