//! What a write would do to what its key holds: a pure function, and so the one truth for `apply`, for `validate_only`
//! and for refusals before the queue.

use bytes::Bytes;

use crate::{
    error::Reason,
    model::{
        CONTENT_TYPE_COUNTER, CONTENT_TYPE_DEFAULT, Conditions, EntryRef, Expiry, Metadata, Refusal, parse_counter,
    },
    pb::{self, storage::log_record::Command},
};

/// What a write did, or would do: small, because the retry window remembers it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// The key was absent before.
    pub created: bool,
    /// The entry's version now; 0: removed.
    pub version: u64,
    /// A counter's new number.
    pub number: i64,
}

/// What became of one write.
pub type Judgement = Result<Change, Refusal>;

/// What a record did, without entries: what the retry window remembers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A write of one key.
    One(Judgement),
    /// Independent writes.
    Batch(Box<[Judgement]>),
    /// A transaction: whether its guards held; and of each operation what it did, `None` for a read. An operation that
    /// failed aborted them all, and is named by its number.
    Txn {
        /// The guards held.
        succeeded: bool,
        /// What the branch did.
        result: Result<Box<[Option<Change>]>, (usize, Refusal)>,
    },
    /// A part of a range was removed. Never remembered: a range is deleted without a request id.
    Range {
        /// So many entries.
        deleted: u64,
        /// The first key that is left behind them.
        next: Option<Bytes>,
    },
}

/// How to carry a write out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan<'write> {
    /// Store a value.
    Put {
        /// The value.
        value: Bytes,
        /// Its media type; `None`: as before.
        content_type: Option<&'write str>,
        /// The entry's new metadata.
        metadata: Metadata,
    },
    /// Give the entry new metadata.
    Touch(Metadata),
    /// Remove the entry.
    Remove,
}

/// The part of a command that judging needs: every write of one key has it.
#[derive(Clone, Copy, Debug)]
pub enum KeyWrite<'command> {
    /// Writes a value.
    Put(&'command pb::PutRequest),
    /// Removes the key.
    Delete(&'command pb::DeleteRequest),
    /// Adds to a number.
    Increment(&'command pb::IncrementRequest),
    /// Changes the expiry.
    Touch(&'command pb::TouchRequest),
}

impl<'command> KeyWrite<'command> {
    /// The write of a command, where it is one of a single key.
    pub fn of(command: &'command Command) -> Option<Self> {
        match command {
            Command::Put(request) => Some(Self::Put(request)),
            Command::Delete(request) => Some(Self::Delete(request)),
            Command::Increment(request) => Some(Self::Increment(request)),
            Command::Touch(request) => Some(Self::Touch(request)),
            Command::BatchWrite(_) | Command::Txn(_) => None,
            Command::DeleteRange(_) | Command::Open(_) | Command::Settings(_) => None,
            Command::Expire(_) | Command::Evict(_) => None,
        }
    }

    /// The write of one of several operations.
    pub fn of_op(op: &'command pb::WriteOp) -> Option<Self> {
        use pb::write_op::Op;
        Some(match op.op.as_ref()? {
            Op::Put(request) => Self::Put(request),
            Op::Delete(request) => Self::Delete(request),
            Op::Increment(request) => Self::Increment(request),
            Op::Touch(request) => Self::Touch(request),
        })
    }

    /// The write of one operation of a transaction; `None` where it reads.
    pub fn of_txn_op(op: &'command pb::TxnOp) -> Option<Self> {
        match op.op.as_ref()? {
            pb::txn_op::Op::Get(_) => None,
            pb::txn_op::Op::Write(write) => Self::of_op(write),
        }
    }

    /// Whether one operation of a transaction, if it reads, asks for the value.
    pub fn reads_value(op: &pb::TxnOp) -> bool {
        !matches!(&op.op, Some(pb::txn_op::Op::Get(get)) if get.metadata_only)
    }

    /// The key.
    pub fn key(self) -> &'command Bytes {
        match self {
            Self::Put(request) => &request.key,
            Self::Delete(request) => &request.key,
            Self::Increment(request) => &request.key,
            Self::Touch(request) => &request.key,
        }
    }

    /// The conditions.
    pub fn conditions(self) -> &'command [pb::Condition] {
        match self {
            Self::Put(request) => &request.conditions,
            Self::Delete(request) => &request.conditions,
            Self::Increment(request) => &request.conditions,
            Self::Touch(request) => &request.conditions,
        }
    }

    /// Whether the answer shows the entry before.
    pub fn return_previous(self) -> bool {
        match self {
            Self::Put(request) => request.return_previous,
            Self::Delete(request) => request.return_previous,
            Self::Increment(request) => request.return_previous,
            Self::Touch(request) => request.return_previous,
        }
    }

    /// Whether it may take more memory or log for good: refused while the disk is full.
    pub fn grows(self) -> bool {
        match self {
            Self::Put(_) | Self::Increment(_) | Self::Touch(_) => true,
            Self::Delete(_) => false,
        }
    }
}

/// Judges `write` against `entry`, which is what its key holds at `time_ms` (never an expired entry).
pub fn judge<'write>(
    write: KeyWrite<'write>,
    entry: Option<&EntryRef<'_>>,
    time_ms: u64,
    revision: u64,
) -> Result<(Change, Plan<'write>), Refusal> {
    let conditions = write.conditions();
    if !conditions.is_empty() {
        // Conditions that clash are refused before they are logged; one that slipped through can never hold.
        Conditions::from_pb(conditions).map_err(|error| Refusal::new(error.reason, entry))?.check(entry)?;
    }
    let before = entry.map(|entry| entry.metadata);
    let written = |expiry: Expiry| Metadata {
        revision,
        create_revision: before.map_or(revision, |before| before.create_revision),
        version: before.map_or(0, |before| before.version) + 1,
        update_time_ms: time_ms,
        expire_time_ms: expiry.deadline_ms(time_ms, before.and_then(|before| before.expire_time_ms)),
    };
    let change = |metadata: &Metadata| Change { created: before.is_none(), version: metadata.version, number: 0 };
    match write {
        KeyWrite::Put(request) => {
            let metadata = written(Expiry::from_record(request.expiry.as_ref()).unwrap_or(Expiry::Never));
            let content_type = match request.content_type.as_str() {
                "" => CONTENT_TYPE_DEFAULT,
                given => given,
            };
            Ok((
                change(&metadata),
                Plan::Put { value: request.value.clone(), content_type: Some(content_type), metadata },
            ))
        }
        KeyWrite::Increment(request) => {
            let current = match entry {
                None => request.initial,
                Some(entry) => parse_counter(entry.value.as_slice())
                    .ok_or_else(|| Refusal::new(Reason::NotAnInteger, Some(entry)))?,
            };
            let number = current
                .checked_add(request.by.unwrap_or(1))
                .ok_or_else(|| Refusal::new(Reason::IntegerOverflow, entry))?;
            // The expiry is for a counter that this call creates; an existing one keeps its own.
            let expiry = match before {
                None => Expiry::from_record(request.expiry.as_ref()).unwrap_or(Expiry::Never),
                Some(_) => Expiry::Keep,
            };
            let metadata = written(expiry);
            let content_type = before.is_none().then_some(CONTENT_TYPE_COUNTER);
            let value = Bytes::from(number.to_string());
            Ok((Change { number, ..change(&metadata) }, Plan::Put { value, content_type, metadata }))
        }
        KeyWrite::Touch(request) => {
            let before = before.ok_or_else(|| Refusal::new(Reason::KeyNotFound, None))?;
            let expiry = Expiry::from_record(request.expiry.as_ref()).unwrap_or(Expiry::Keep);
            let metadata = Metadata { version: before.version, ..written(expiry) };
            Ok((change(&metadata), Plan::Touch(metadata)))
        }
        KeyWrite::Delete(_) => match before {
            None => Err(Refusal::new(Reason::KeyNotFound, None)),
            Some(_) => Ok((Change::default(), Plan::Remove)),
        },
    }
}
