//! Writes on their way into the log: what can be refused before the queue is refused here, and what was queued is waited
//! for.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use bytes::Bytes;
use futures_util::future::{BoxFuture, Either};
use prost::Message as _;
use twox_hash::XxHash3_128;

use super::{
    Core, Engine,
    apply::Applied,
    completion::{self, Committed, Pending},
    judge::{Change, Judgement, KeyWrite, judge},
    log::disk_full,
    memory, phases,
    queue::Proposal,
};
use crate::{
    config::SyncMode,
    error::{Error, Outcome, Reason, Result},
    model::EntryRef,
    pb::{
        self,
        storage::{LogRecord, log_record::Command},
    },
};

impl Engine {
    /// Proposes a write of one key and waits until it is durable as asked and applied.
    ///
    /// The command was checked before; `deadline` bounds the wait. Errors of the log say whether the write happened.
    ///
    /// It is in the queue when this returns, not when the future is first polled: so no future carries it.
    pub fn propose(
        &self,
        command: Command,
        options: pb::WriteOptions,
        deadline: Instant,
    ) -> impl Future<Output = Result<Committed>> + Send + use<> {
        if self.core.shared.memory.is_full() {
            let core = Arc::clone(&self.core);
            return Either::Left(Box::pin(async move {
                core.shared.memory.wait_for_eviction().await;
                core.propose(command, options, deadline).await
            }) as BoxFuture<'static, _>);
        }
        Either::Right(self.core.propose(command, options, deadline))
    }

    /// Judges a write against the state as it is now and changes nothing.
    pub fn validate(&self, write: KeyWrite<'_>) -> Result<(Change, Option<pb::Entry>)> {
        let time_ms = self.core.time_ms();
        self.get(write.key(), |entry| {
            let (change, _) = judge(write, entry, time_ms, 0).map_err(|refusal| refusal.to_error())?;
            let previous = entry.filter(|_| write.return_previous()).map(|entry| entry.to_pb(true));
            Ok((change, previous))
        })
    }

    /// Judges several writes against one state and changes nothing. Each comes with what its key held.
    pub fn validate_many(&self, writes: &[KeyWrite<'_>]) -> Vec<(Judgement, Option<pb::Entry>)> {
        let time_ms = self.core.time_ms();
        let keys: Vec<_> = writes.iter().map(|write| write.key().clone()).collect();
        let mut judged = Vec::with_capacity(writes.len());
        self.get_many(&keys, |number, entry| {
            let judgement = judge(writes[number], entry, time_ms, 0).map(|(change, _)| change);
            let previous = entry.filter(|_| judgement.is_ok() && writes[number].return_previous());
            judged.push((judgement, previous.map(|entry| entry.to_pb(true))));
        });
        judged
    }

    /// Judges a write against an entry that was read.
    pub fn judge_entry(&self, write: KeyWrite<'_>, entry: Option<&pb::Entry>) -> Judgement {
        let entry = entry.map(EntryRef::of_pb);
        judge(write, entry.as_ref(), self.core.time_ms(), 0).map(|(change, _)| change)
    }

    /// Whether there is room for what writes add: DISK_FULL or MEMORY_LIMIT where there is none.
    pub fn check_room<'write>(&self, writes: impl Iterator<Item = KeyWrite<'write>> + Clone) -> Result<()> {
        let shared = &self.core.shared;
        if writes.clone().any(KeyWrite::grows) {
            self.core.check_disk()?;
        }
        if self.core.memory_is_full() && memory::growth_bytes(&self.core.store, writes) > 0 {
            return Err(shared.memory.refusal());
        }
        Ok(())
    }
}

impl Core {
    fn propose(
        &self,
        command: Command,
        options: pb::WriteOptions,
        deadline: Instant,
    ) -> impl Future<Output = Result<Committed>> + Send + use<> {
        let begun = Instant::now();
        let pending = self.admit(&command, &options).and_then(|()| {
            let fsynced = match options.durability() {
                pb::Durability::Unspecified => self.sync == SyncMode::Always,
                pb::Durability::Written => false,
                pb::Durability::Fsynced => true,
            };
            self.enqueue(command, options.request_id, fsynced)
        });
        async move {
            let mut pending = pending?;
            match tokio::time::timeout_at(deadline.into(), &mut pending).await {
                Ok(answer) => answer.inspect(|committed| phases::note(begun, committed.times)),
                Err(_) => {
                    let outcome = if pending.abandon() {
                        phases::note_given_up(begun);
                        Outcome::NotApplied
                    } else {
                        Outcome::Unknown
                    };
                    Err(Error::new(Reason::Deadline, "the time for this request ran out before its write was durable")
                        .with_outcome(outcome))
                }
            }
        }
    }

    /// Refuses before the queue what can be refused there.
    fn admit(&self, command: &Command, options: &pb::WriteOptions) -> Result<()> {
        if let Err(full) = self.check_disk()
            && grows(command)
        {
            return Err(full);
        }
        // The retry of a write that was taken must find its answer: only the log knows it.
        let memory = &self.shared.memory;
        if self.memory_is_full() && options.request_id.is_empty() && memory::growth_of(&self.store, command) > 0 {
            return Err(memory.refusal());
        }
        let Some(write) = KeyWrite::of(command) else { return Ok(()) };
        // The retry of an answered write must find its first answer, so its conditions are judged in the log alone.
        let may_refuse = match write {
            KeyWrite::Put(_) | KeyWrite::Increment(_) => !write.conditions().is_empty(),
            KeyWrite::Delete(_) | KeyWrite::Touch(_) => true,
        };
        if may_refuse && options.request_id.is_empty() {
            let time_ms = self.time_ms();
            self.get(write.key(), |entry, _| judge(write, entry, time_ms, 0).map(|_| ()))
                .map_err(|refusal| refusal.to_error())?;
        }
        Ok(())
    }

    /// Whether growth is refused, as of now: memory also comes back between groups, and after a refusal there may be no
    /// further group that would look.
    fn memory_is_full(&self) -> bool {
        let memory = &self.shared.memory;
        if memory.is_full() {
            memory.observe(self.store.totals().used_bytes);
        }
        memory.is_full()
    }

    /// DISK_FULL while the disk has no room for growth.
    pub fn check_disk(&self) -> Result<()> {
        if self.shared.disk_full.load(Ordering::Relaxed) {
            return Err(disk_full());
        }
        if self.shared.disk_room.is_low() { Err(self.shared.disk_room.refusal()) } else { Ok(()) }
    }

    fn enqueue(&self, command: Command, request_id: String, fsynced: bool) -> Result<Pending> {
        let mut record = LogRecord { command: Some(command), ..LogRecord::default() };
        if !request_id.is_empty() {
            record.fingerprint = fingerprint(&record);
            record.request_id = request_id;
        }
        let body = record.encode_to_vec();
        let (ticket, pending) = completion::ticket();
        self.shared.queue.push(Proposal { record, body, fsynced, ticket })?;
        Ok(pending)
    }

    /// Proposes a command of the engine's own, to be synced before it is applied or not.
    pub async fn propose_internal(&self, command: Command, fsynced: bool) -> Result<Applied> {
        let answer = self.enqueue(command, String::new(), fsynced)?.await?;
        Ok(answer.applied)
    }
}

/// Whether a command may take more memory or log for good.
fn grows(command: &Command) -> bool {
    match command {
        Command::BatchWrite(batch) => batch.writes.iter().filter_map(KeyWrite::of_op).any(KeyWrite::grows),
        Command::Txn(txn) => txn.then.iter().chain(&txn.otherwise).filter_map(KeyWrite::of_txn_op).any(KeyWrite::grows),
        command => KeyWrite::of(command).is_some_and(KeyWrite::grows),
    }
}

/// 128 bits that tell one command from another.
pub fn fingerprint(record: &LogRecord) -> Bytes {
    Bytes::copy_from_slice(&XxHash3_128::oneshot(&record.encode_to_vec()).to_be_bytes())
}
