//! Writes of several keys: batches, whose writes are independent, and transactions, which happen whole or not at all.

use std::collections::HashSet;

use bytes::Bytes;
use prost::Message as _;

use super::{Call, Service, checks, with_outcome};
use crate::{
    engine::{
        apply::Applied,
        completion::Committed,
        judge::{Change, Effect, Judgement, KeyWrite},
    },
    error::{Error, Reason, Result},
    limits::{BATCH_WRITES_MAX, RESPONSE_BYTES_MAX, TXN_OPERATIONS_MAX},
    metrics::Operation,
    model::{Conditions, Refusal},
    pb::{self, op_result::Kind, read_result, storage::log_record::Command, txn_op},
};

impl Service {
    /// Many independent writes in one record: OK even if some fail.
    pub async fn batch_write(&self, call: &Call, mut request: pb::BatchWriteRequest) -> Result<pb::BatchWriteResponse> {
        let options = request.options.take().unwrap_or_default();
        let answer = self.write_batch(call, request, options).await.map_err(with_outcome);
        self.counted(call, Operation::BatchWrite, answer)
    }

    /// Guards, then one of two branches.
    pub async fn txn(&self, call: &Call, mut request: pb::TxnRequest) -> Result<pb::TxnResponse> {
        let options = request.options.take().unwrap_or_default();
        let answer = self.write_txn(call, request, options).await.map_err(with_outcome);
        self.counted(call, Operation::Txn, answer)
    }

    async fn write_batch(
        &self,
        call: &Call,
        request: pb::BatchWriteRequest,
        options: pb::WriteOptions,
    ) -> Result<pb::BatchWriteResponse> {
        let engine = self.engine()?;
        checks::options(&options)?;
        check_count("writes", request.writes.len(), BATCH_WRITES_MAX)?;
        checks::request(request.encoded_len(), self.limits())?;
        self.check_ops(request.writes.iter().map(Some), engine.now_ms())?;
        let kinds: Vec<_> = request.writes.iter().map(OpKind::of).collect();
        if options.validate_only {
            let writes: Vec<_> = request.writes.iter().filter_map(KeyWrite::of_op).collect();
            engine.check_room(writes.iter().copied())?;
            let judged = engine.validate_many(&writes);
            let (items, seen): (Vec<_>, Vec<_>) = judged.into_iter().unzip();
            let results = batch_results(&kinds, &items, seen, pb::WriteResult::default());
            return Ok(pb::BatchWriteResponse { result: Some(pb::WriteResult::default()), results });
        }
        let done = engine.propose(Command::BatchWrite(request), options, call.deadline).await?;
        let (result, applied) = result_of(done);
        match applied.effect {
            Effect::Batch(items) => {
                let results = batch_results(&kinds, &items, applied.seen, result);
                Ok(pb::BatchWriteResponse { result: Some(result), results })
            }
            other => Err(refused(other, applied.replayed)),
        }
    }

    async fn write_txn(
        &self,
        call: &Call,
        request: pb::TxnRequest,
        options: pb::WriteOptions,
    ) -> Result<pb::TxnResponse> {
        let engine = self.engine()?;
        checks::options(&options)?;
        self.check_txn(&request, engine.now_ms())?;
        if options.validate_only {
            return self.validate_txn(&request);
        }
        let branches =
            [&request.then, &request.otherwise].map(|branch| branch.iter().map(OpKind::of_txn).collect::<Vec<_>>());
        let done = engine.propose(Command::Txn(request), options, call.deadline).await?;
        let (result, applied) = result_of(done);
        match applied.effect {
            Effect::Txn { succeeded, result: Ok(changes) } => {
                let kinds = if succeeded { &branches[0] } else { &branches[1] };
                let results = txn_results(kinds, &changes, applied.seen, result);
                Ok(pb::TxnResponse { result: Some(result), succeeded, results })
            }
            other => Err(refused(other, applied.replayed)),
        }
    }

    /// Judges a transaction as it would be judged, against one state.
    fn validate_txn(&self, request: &pb::TxnRequest) -> Result<pb::TxnResponse> {
        let engine = self.engine()?;
        for branch in [&request.then, &request.otherwise] {
            engine.check_room(branch.iter().filter_map(KeyWrite::of_txn_op))?;
        }
        let guards: Vec<_> = request.guards.iter().map(|guard| guard.key.clone()).collect();
        let ops: Vec<_> = request.then.iter().chain(&request.otherwise).collect();
        let keys: Vec<_> = guards.iter().cloned().chain(ops.iter().filter_map(|op| key_of(op).cloned())).collect();
        let mut succeeded = true;
        let mut entries = Vec::with_capacity(ops.len());
        engine.get_many(&keys, |number, entry| match request.guards.get(number) {
            Some(guard) => {
                let holds = Conditions::from_pb(&guard.conditions).is_ok_and(|all| all.check(entry).is_ok());
                succeeded &= holds;
            }
            None => {
                let with_value = ops.get(number - guards.len()).is_some_and(|op| KeyWrite::reads_value(op));
                entries.push(entry.map(|entry| entry.to_pb(with_value)));
            }
        });
        let (branch, first) = match succeeded {
            true => (&request.then, 0),
            false => (&request.otherwise, request.then.len()),
        };
        let mut changes = Vec::new();
        let mut seen = Vec::new();
        for (number, op) in branch.iter().enumerate() {
            let entry = entries.get_mut(first + number).and_then(Option::take);
            match &op.op {
                Some(txn_op::Op::Write(write)) => {
                    let Some(write) = KeyWrite::of_op(write) else { continue };
                    let judged = engine.judge_entry(write, entry.as_ref());
                    let change = judged.map_err(|refusal| refusal.to_error().at_operation(number))?;
                    changes.push(Some(change));
                    seen.push(entry.filter(|_| write.return_previous()));
                }
                Some(txn_op::Op::Get(_)) | None => {
                    changes.push(None);
                    seen.push(entry);
                }
            }
        }
        let kinds: Vec<_> = branch.iter().map(OpKind::of_txn).collect();
        let results = txn_results(&kinds, &changes, seen, pb::WriteResult::default());
        Ok(pb::TxnResponse { result: Some(pb::WriteResult::default()), succeeded, results })
    }

    fn check_txn(&self, request: &pb::TxnRequest, now_ms: u64) -> Result<()> {
        check_count("guards", request.guards.len(), TXN_OPERATIONS_MAX)?;
        checks::request(request.encoded_len(), self.limits())?;
        for (number, guard) in request.guards.iter().enumerate() {
            let checked = checks::key(&guard.key, self.limits()).and_then(|()| {
                if guard.conditions.is_empty() {
                    return Err(Error::invalid_field("guards", "a guard without conditions: say what must hold"));
                }
                checks::conditions(&guard.conditions, self.limits())
            });
            checked.map_err(|error| at_guard(error, number))?;
        }
        for (name, branch) in [("then", &request.then), ("otherwise", &request.otherwise)] {
            check_count(name, branch.len(), TXN_OPERATIONS_MAX)?;
            for (number, op) in branch.iter().enumerate() {
                match &op.op {
                    Some(txn_op::Op::Get(get)) => {
                        checks::key(&get.key, self.limits()).map_err(|error| error.at_operation(number))?;
                    }
                    Some(txn_op::Op::Write(_)) => {}
                    None => return Err(empty_operation().at_operation(number)),
                }
            }
            let writes = branch.iter().map(|op| match &op.op {
                Some(txn_op::Op::Write(write)) => Some(write),
                Some(txn_op::Op::Get(_)) | None => None,
            });
            self.check_ops(writes, now_ms)?;
        }
        Ok(())
    }

    /// Checks writes of one record: each by itself, none with options of its own, no key twice.
    fn check_ops<'ops>(&self, writes: impl Iterator<Item = Option<&'ops pb::WriteOp>>, now_ms: u64) -> Result<()> {
        let mut keys = HashSet::new();
        for (number, op) in writes.enumerate() {
            let Some(op) = op else { continue };
            let write = KeyWrite::of_op(op).ok_or_else(|| empty_operation().at_operation(number))?;
            self.check_key_write(write, || now_ms).map_err(|error| error.at_operation(number))?;
            if has_options(op) {
                let error =
                    Error::invalid_field("options", "options are set for the whole request, not for an operation");
                return Err(error.at_operation(number));
            }
            if !keys.insert(write.key()) {
                let error = Error::invalid_field("key", "a record writes a key once: this key is written twice");
                return Err(error.at_operation(number));
            }
        }
        Ok(())
    }
}

fn check_count(field: &'static str, count: usize, limit: usize) -> Result<()> {
    if count <= limit {
        return Ok(());
    }
    let text = format!("{count} {field}, the limit is {limit}: send them in several requests");
    Err(Error::new(Reason::BatchTooLarge, text).with(|details| {
        details.limit = Some(limit as u64);
        details.field = Some(field.into());
    }))
}

fn empty_operation() -> Error {
    Error::invalid_field("op", "an operation is empty: set what it does")
}

/// Names the guard at fault. It is no operation, and has no number among them.
fn at_guard(mut error: Error, number: usize) -> Error {
    error.message = format!("guard {number}: {}", error.message).into();
    error
}

fn has_options(op: &pb::WriteOp) -> bool {
    use pb::write_op::Op;
    match &op.op {
        Some(Op::Put(request)) => request.options.is_some(),
        Some(Op::Delete(request)) => request.options.is_some(),
        Some(Op::Increment(request)) => request.options.is_some(),
        Some(Op::Touch(request)) => request.options.is_some(),
        None => false,
    }
}

fn key_of(op: &pb::TxnOp) -> Option<&Bytes> {
    match op.op.as_ref()? {
        txn_op::Op::Get(get) => Some(&get.key),
        txn_op::Op::Write(write) => KeyWrite::of_op(write).map(KeyWrite::key),
    }
}

/// What an operation was, to answer it in kind.
#[derive(Clone, Copy, Debug)]
enum OpKind {
    Put,
    Delete,
    Increment,
    Touch,
    Get,
}

impl OpKind {
    fn of(op: &pb::WriteOp) -> Self {
        use pb::write_op::Op;
        match &op.op {
            Some(Op::Put(_)) => Self::Put,
            Some(Op::Delete(_)) | None => Self::Delete,
            Some(Op::Increment(_)) => Self::Increment,
            Some(Op::Touch(_)) => Self::Touch,
        }
    }

    fn of_txn(op: &pb::TxnOp) -> Self {
        match &op.op {
            Some(txn_op::Op::Write(write)) => Self::of(write),
            Some(txn_op::Op::Get(_)) | None => Self::Get,
        }
    }

    fn result(self, change: Change, previous: Option<pb::Entry>, result: pb::WriteResult) -> Kind {
        let Change { created, version, number } = change;
        let result = Some(result);
        match self {
            Self::Put => Kind::Put(pb::PutResponse { result, created, version, previous }),
            Self::Delete => Kind::Delete(pb::DeleteResponse { result, previous }),
            Self::Increment => {
                Kind::Increment(pb::IncrementResponse { result, created, version, previous, value: number })
            }
            Self::Touch => Kind::Touch(pb::TouchResponse { result, version, previous }),
            Self::Get => Kind::Get(pb::ReadResult { kind: Some(read_result::Kind::Absent(true)) }),
        }
    }
}

/// Entries that still fit into an answer. Past 4 MiB previous ones are left out and read ones are unprocessed; one
/// larger entry may go alone.
#[derive(Debug, Default)]
struct Room {
    bytes: usize,
}

impl Room {
    fn fits(&mut self, entry: &pb::Entry) -> bool {
        let bytes = entry.encoded_len();
        let fits = self.bytes == 0 || self.bytes + bytes <= RESPONSE_BYTES_MAX;
        if fits {
            self.bytes += bytes;
        }
        fits
    }
}

fn batch_results(
    kinds: &[OpKind],
    items: &[Judgement],
    seen: Vec<Option<pb::Entry>>,
    result: pb::WriteResult,
) -> Vec<pb::OpResult> {
    let mut room = Room::default();
    let seen = seen.into_iter().chain(std::iter::repeat_with(|| None));
    let results = kinds.iter().zip(items).zip(seen).map(|((kind, item), previous)| {
        let kind = match item {
            Ok(change) => kind.result(*change, previous.filter(|entry| room.fits(entry)), result),
            Err(refusal) => Kind::Error(op_error(*refusal)),
        };
        pb::OpResult { kind: Some(kind) }
    });
    results.collect()
}

fn txn_results(
    kinds: &[OpKind],
    changes: &[Option<Change>],
    seen: Vec<Option<pb::Entry>>,
    result: pb::WriteResult,
) -> Vec<pb::OpResult> {
    let mut room = Room::default();
    // A remembered answer has no entries: its reads are unprocessed.
    let remembered = seen.is_empty() && !changes.is_empty();
    let seen = seen.into_iter().chain(std::iter::repeat_with(|| None));
    let results = kinds.iter().zip(changes).zip(seen).map(|((kind, change), entry)| {
        let kind = match (change, entry) {
            (Some(change), previous) => kind.result(*change, previous.filter(|entry| room.fits(entry)), result),
            (None, entry) => Kind::Get(pb::ReadResult {
                kind: Some(match entry {
                    Some(entry) if room.fits(&entry) => read_result::Kind::Entry(entry),
                    None if !remembered => read_result::Kind::Absent(true),
                    Some(_) | None => read_result::Kind::Unprocessed(true),
                }),
            }),
        };
        pb::OpResult { kind: Some(kind) }
    });
    results.collect()
}

fn op_error(refusal: Refusal) -> pb::OpError {
    let error = refusal.to_error();
    pb::OpError { reason: error.reason.name().to_owned(), message: error.message.into_owned() }
}

fn result_of(done: Committed) -> (pb::WriteResult, Applied) {
    let Committed { applied, durability, .. } = done;
    let result =
        pb::WriteResult { revision: applied.revision, durability: durability.into(), replayed: applied.replayed };
    (result, applied)
}

/// The error of a record that did nothing.
fn refused(effect: Effect, replayed: bool) -> Error {
    let error = match effect {
        Effect::One(Err(refusal)) => refusal.to_error(),
        Effect::Txn { result: Err((number, refusal)), .. } => refusal.to_error().at_operation(number),
        // The window compares fingerprints: the answer of another kind of command never comes here.
        Effect::One(Ok(_)) | Effect::Batch(_) | Effect::Txn { .. } | Effect::Range { .. } => {
            Error::internal("an answer of another kind")
        }
    };
    error.with(|details| details.replayed = replayed)
}
