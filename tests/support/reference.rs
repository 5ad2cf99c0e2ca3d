//! What a write does to a key, told as plainly as can be: the reference that the real server is held against.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use bytes::Bytes;
use prost_types::Timestamp;
use tandem::{
    model::{ms_from_duration, ms_from_timestamp, timestamp_from_ms},
    pb::{
        self, EventKind, condition::Kind as Is, expiry::Kind as Expires, op_result::Kind, read_result, txn_op,
        write_op::Op,
    },
};

/// When an entry that was written expires.
#[derive(Clone, Debug, PartialEq)]
pub enum Lease {
    Never,
    At(Timestamp),
    /// Milliseconds after the write's own time.
    After(u64),
}

/// What a write that happens makes of its key.
#[derive(Clone, Debug)]
pub struct Done {
    pub key: Bytes,
    pub kind: EventKind,
    /// The entry after it, but for its times, and when it expires; `None`: removed.
    after: Option<(pb::Entry, Lease)>,
}

/// How a request is answered, and what it does.
#[derive(Clone, Debug)]
pub struct Expected {
    pub succeeded: bool,
    /// In the order of the operations; without revision and durability.
    pub results: Vec<Kind>,
    pub done: Vec<Done>,
}

pub fn key_of(op: &Op) -> &Bytes {
    match op {
        Op::Put(request) => &request.key,
        Op::Delete(request) => &request.key,
        Op::Increment(request) => &request.key,
        Op::Touch(request) => &request.key,
    }
}

fn conditions_of(op: &Op) -> (&[pb::Condition], bool) {
    match op {
        Op::Put(request) => (&request.conditions, request.return_previous),
        Op::Delete(request) => (&request.conditions, request.return_previous),
        Op::Increment(request) => (&request.conditions, request.return_previous),
        Op::Touch(request) => (&request.conditions, request.return_previous),
    }
}

/// The reason for which conditions refuse, if they do.
pub fn refusal(conditions: &[pb::Condition], entry: Option<&pb::Entry>) -> Option<&'static str> {
    let (revision, version) = entry.map_or((0, 0), |entry| (entry.revision, entry.version));
    let holds = |condition: &pb::Condition| match condition.kind.as_ref().unwrap() {
        Is::Exists(exists) => *exists == entry.is_some(),
        Is::Revision(wanted) => *wanted == revision,
        Is::Version(wanted) => *wanted == version,
        Is::Value(wanted) => entry.is_some_and(|entry| entry.value == wanted),
    };
    let wants_absent = |condition: &pb::Condition| {
        matches!(condition.kind, Some(Is::Exists(false) | Is::Revision(0) | Is::Version(0)))
    };
    match conditions.iter().all(holds) {
        true => None,
        false if conditions.iter().any(wants_absent) => Some("KEY_EXISTS"),
        false => Some("CONDITION_FAILED"),
    }
}

fn lease(expiry: Option<&pb::Expiry>, before: Option<&pb::Entry>) -> Lease {
    match expiry.and_then(|expiry| expiry.kind.as_ref()) {
        None | Some(Expires::Never(_)) => Lease::Never,
        Some(Expires::Ttl(ttl)) => Lease::After(ms_from_duration(ttl).unwrap()),
        Some(Expires::ExpireTime(time)) => Lease::At(*time),
        Some(Expires::Keep(_)) => kept(before),
    }
}

fn kept(before: Option<&pb::Entry>) -> Lease {
    before.and_then(|entry| entry.expire_time).map_or(Lease::Never, Lease::At)
}

/// One write, judged against what its key holds.
fn judge(op: &Op, before: Option<&pb::Entry>, revision: u64) -> Result<(Kind, Done), &'static str> {
    let (conditions, return_previous) = conditions_of(op);
    if let Some(reason) = refusal(conditions, before) {
        return Err(reason);
    }
    let key = key_of(op).clone();
    let previous = before.filter(|_| return_previous).cloned();
    let created = before.is_none();
    let (result, version) = (None, before.map_or(0, |entry| entry.version) + 1);
    let entry = |value: Bytes, version, content_type: &str| pb::Entry {
        key: key.clone(),
        value,
        revision,
        create_revision: before.map_or(revision, |entry| entry.create_revision),
        version,
        content_type: content_type.to_owned(),
        ..pb::Entry::default()
    };
    let (kind, event, after) = match op {
        Op::Put(put) => {
            let content_type = Some(put.content_type.as_str()).filter(|given| !given.is_empty());
            let entry = entry(put.value.clone(), version, content_type.unwrap_or("application/octet-stream"));
            let response = pb::PutResponse { result, created, version, previous };
            (Kind::Put(response), EventKind::Put, Some((entry, lease(put.expiry.as_ref(), before))))
        }
        Op::Increment(increment) => {
            let value = match before {
                None => increment.initial,
                Some(entry) => counter(&entry.value).ok_or("NOT_AN_INTEGER")?,
            };
            let value = value.checked_add(increment.by.unwrap_or(1)).ok_or("INTEGER_OVERFLOW")?;
            let content_type = before.map_or("text/plain", |entry| entry.content_type.as_str());
            let entry = entry(value.to_string().into(), version, content_type);
            let lease = if created { lease(increment.expiry.as_ref(), None) } else { kept(before) };
            let response = pb::IncrementResponse { result, created, version, previous, value };
            (Kind::Increment(response), EventKind::Put, Some((entry, lease)))
        }
        Op::Touch(touch) => {
            let before = before.ok_or("KEY_NOT_FOUND")?;
            let entry = entry(before.value.clone(), before.version, &before.content_type);
            let response = pb::TouchResponse { result, version: before.version, previous };
            (Kind::Touch(response), EventKind::Touch, Some((entry, lease(touch.expiry.as_ref(), Some(before)))))
        }
        Op::Delete(_) => {
            before.ok_or("KEY_NOT_FOUND")?;
            (Kind::Delete(pb::DeleteResponse { result, previous }), EventKind::Delete, None)
        }
    };
    Ok((kind, Done { key, kind: event, after }))
}

fn counter(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    text.parse().ok().filter(|number: &i64| number.to_string() == text)
}

pub fn read(entry: Option<pb::Entry>) -> Kind {
    let kind = entry.map_or(read_result::Kind::Absent(true), read_result::Kind::Entry);
    Kind::Get(pb::ReadResult { kind: Some(kind) })
}

/// One write on its own.
pub fn write(op: &Op, before: impl Fn(&Bytes) -> Option<pb::Entry>, revision: u64) -> Result<Expected, &'static str> {
    let (result, done) = judge(op, before(key_of(op)).as_ref(), revision)?;
    Ok(Expected { succeeded: true, results: vec![result], done: vec![done] })
}

/// Many, each on its own.
pub fn batch(writes: &[pb::WriteOp], before: impl Fn(&Bytes) -> Option<pb::Entry>, revision: u64) -> Expected {
    let mut expected = Expected { succeeded: true, results: Vec::new(), done: Vec::new() };
    for op in writes.iter().filter_map(|write| write.op.as_ref()) {
        match judge(op, before(key_of(op)).as_ref(), revision) {
            Ok((result, done)) => {
                expected.results.push(result);
                expected.done.push(done);
            }
            Err(reason) => {
                expected.results.push(Kind::Error(pb::OpError { reason: reason.into(), message: String::new() }));
            }
        }
    }
    expected
}

/// Guards, then one of two branches, whole or not at all.
pub fn txn(
    request: &pb::TxnRequest,
    before: impl Fn(&Bytes) -> Option<pb::Entry>,
    revision: u64,
) -> Result<Expected, &'static str> {
    let holds = |guard: &pb::Guard| refusal(&guard.conditions, before(&guard.key).as_ref()).is_none();
    let succeeded = request.guards.iter().all(holds);
    let mut expected = Expected { succeeded, results: Vec::new(), done: Vec::new() };
    for op in if succeeded { &request.then } else { &request.otherwise } {
        match op.op.as_ref().unwrap() {
            txn_op::Op::Get(get) => expected.results.push(read(before(&get.key))),
            txn_op::Op::Write(write) => {
                let op = write.op.as_ref().unwrap();
                let (result, done) = judge(op, before(key_of(op)).as_ref(), revision)?;
                expected.results.push(result);
                expected.done.push(done);
            }
        }
    }
    Ok(expected)
}

impl Done {
    /// The entry that this leaves when it happens at a time; `None`: nothing.
    pub fn entry(&self, time_ms: u64) -> Option<pb::Entry> {
        let (entry, lease) = self.after.as_ref()?;
        let expire_time = match lease {
            Lease::Never => None,
            Lease::At(time) => Some(*time),
            Lease::After(ttl_ms) => Some(timestamp_from_ms(time_ms + ttl_ms)),
        };
        Some(pb::Entry { update_time: Some(timestamp_from_ms(time_ms)), expire_time, ..entry.clone() })
    }

    /// Whether the key holds what this write makes of it. Only the time is taken from what is seen.
    pub fn check(&self, seen: Option<&pb::Entry>) -> Result<(), String> {
        let time = seen.and_then(|seen| seen.update_time.as_ref());
        let expected = self.entry(time.and_then(ms_from_timestamp).unwrap_or(0));
        match expected.as_ref() == seen {
            true => Ok(()),
            false => Err(format!("{:?} should hold {expected:?}, and holds {seen:?}", self.key)),
        }
    }
}
