//! `tandem import`: writes what an export holds, in batches that are safe to repeat.

use std::{fs, io, io::BufReader, os::fd::AsFd as _, path::Path, path::PathBuf, time::Duration};

use clap::Args;
use tokio::{sync::mpsc, time::Instant};
use tonic::Status;
use tonic_types::StatusExt as _;

use super::{
    arguments::{time_span, unreadable},
    backoff::Backoff,
    connection::{ConnectionFlags, Store},
    failure::{Failure, Result, describe, may_pass, say},
    import_lines::{Batch, Lines},
    progress::Progress,
};
use crate::{
    model::ms_from_timestamp,
    pb::{self, condition::Kind as Is, expiry::Kind as Expires, op_result::Kind, write_op::Op},
};

/// Batches that are read ahead.
const READ_AHEAD: usize = 2;
/// Refused entries that are named one by one; the rest is counted.
const NAMED_MAX: u64 = 10;
/// An entry that the server takes for expired is, if its time is no further ahead of our own clock than this.
const CLOCKS_DIFFER_MS: u64 = 24 * 3_600_000;

/// What to import.
#[derive(Args, Debug)]
pub struct Import {
    /// A file that `tandem export` wrote, or NDJSON of GET /v1/kv; - reads standard input.
    #[arg(default_value = "-")]
    file: PathBuf,
    /// Leave alone keys that exist.
    #[arg(long)]
    if_absent: bool,
    /// How long a batch is tried again while the server cannot be reached or cannot take it.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = time_span)]
    retry_for: Duration,
    #[command(flatten)]
    connection: ConnectionFlags,
}

/// What became of the entries.
#[derive(Debug)]
struct Tally {
    progress: Progress,
    kept: u64,
    expired: u64,
    refused: u64,
}

impl Import {
    pub async fn run(self) -> Result<()> {
        let store = self.connection.connect().await?;
        let (file, bytes) = open(&self.file)?;
        let mut batches = read_ahead(Lines::new(BufReader::new(file)));
        let mut tally = Tally { progress: Progress::new("imported", bytes, false), kept: 0, expired: 0, refused: 0 };
        let mut ended = false;
        let mut outcome = Ok(());
        while let Some(batch) = batches.recv().await {
            let written = match batch {
                Ok(batch) => {
                    tally.progress.at(batch.read_bytes);
                    ended = batch.ended;
                    self.write(&store, batch, &mut tally).await
                }
                Err(failure) => Err(failure),
            };
            if let Err(failure) = written {
                outcome = Err(failure);
                break;
            }
        }
        let refused = tally.refused;
        tally.finish();
        outcome?;
        if !ended {
            say("the input has no end mark: if it is an export, it is not whole");
        }
        match refused {
            0 => Ok(()),
            refused => Err(Failure::refused(format!("{refused} entries were refused"))),
        }
    }

    /// Writes a batch, without the entries whose time has come.
    async fn write(&self, store: &Store, batch: Batch, tally: &mut Tally) -> Result<()> {
        let mut entries = batch.entries;
        let before = entries.len();
        entries.retain(|(_, entry)| !expires_within(entry, 0));
        tally.expired += (before - entries.len()) as u64;
        while !entries.is_empty() {
            let status = match self.send(store, &entries).await {
                Ok(done) => {
                    tally.count(&entries, &done);
                    return Ok(());
                }
                Err(status) => status,
            };
            // The server names the one that is at fault, and wrote none.
            let Some(number) = operation_index(&status).filter(|number| *number < entries.len()) else {
                return Err(status.into());
            };
            let (line, entry) = &entries[number];
            if !(expires_within(entry, CLOCKS_DIFFER_MS) && is_about_expiry(&status)) {
                // The line is what people know it by.
                let text = describe(&status).replacen(&format!(" operation {number}:"), "", 1);
                return Err(Failure::refused(format!("line {line}: {text}")));
            }
            entries.remove(number);
            tally.expired += 1;
        }
        Ok(())
    }

    /// Sends a batch until it is answered. Its request id makes that safe: a batch that was written and not answered
    /// is not written again.
    async fn send(&self, store: &Store, entries: &[(u64, pb::Entry)]) -> Result<pb::BatchWriteResponse, Status> {
        let options = pb::WriteOptions { request_id: format!("{:032x}", rand::random::<u128>()), ..Default::default() };
        let writes = entries.iter().map(|(_, entry)| put(entry, self.if_absent)).collect();
        let request = pb::BatchWriteRequest { writes, options: Some(options) };
        let give_up = Instant::now() + self.retry_for;
        let mut backoff = Backoff::new();
        let mut said = false;
        loop {
            match store.clone().batch_write(request.clone()).await {
                Ok(done) => return Ok(done.into_inner()),
                Err(status) if may_pass(&status) && Instant::now() < give_up => {
                    if !std::mem::replace(&mut said, true) {
                        say(format_args!("{}: trying again", describe(&status)));
                    }
                }
                Err(status) => return Err(status),
            }
            tokio::time::sleep(backoff.next()).await;
        }
    }
}

/// The input, and its size where it is a file.
fn open(path: &Path) -> Result<(fs::File, Option<u64>)> {
    let opened = match path == Path::new("-") {
        true => io::stdin().as_fd().try_clone_to_owned().map(fs::File::from),
        false => fs::File::open(path),
    };
    let file = opened.map_err(|error| unreadable(&path.display().to_string(), &error))?;
    let bytes = file.metadata().ok().filter(fs::Metadata::is_file).map(|metadata| metadata.len());
    Ok((file, bytes))
}

/// Reads batches on a thread of their own, a few ahead.
fn read_ahead(mut lines: Lines<BufReader<fs::File>>) -> mpsc::Receiver<Result<Batch>> {
    let (sender, receiver) = mpsc::channel(READ_AHEAD);
    std::thread::spawn(move || {
        loop {
            let batch = lines.next_batch();
            let last = batch.as_ref().map_or(true, |batch| batch.entries.is_empty());
            if sender.blocking_send(batch).is_err() || last {
                return;
            }
        }
    });
    receiver
}

fn put(entry: &pb::Entry, if_absent: bool) -> pb::WriteOp {
    let absent = if_absent.then_some(pb::Condition { kind: Some(Is::Exists(false)) });
    pb::WriteOp {
        op: Some(Op::Put(pb::PutRequest {
            key: entry.key.clone(),
            value: entry.value.clone(),
            expiry: entry.expire_time.map(|time| pb::Expiry { kind: Some(Expires::ExpireTime(time)) }),
            content_type: entry.content_type.clone(),
            conditions: absent.into_iter().collect(),
            return_previous: false,
            options: None,
        })),
    }
}

fn expires_within(entry: &pb::Entry, ahead_ms: u64) -> bool {
    let now_ms = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0);
    entry.expire_time.as_ref().is_some_and(|time| ms_from_timestamp(time).is_none_or(|ms| ms <= now_ms + ahead_ms))
}

fn operation_index(status: &Status) -> Option<usize> {
    status.get_details_error_info()?.metadata.get("operation_index")?.parse().ok()
}

fn is_about_expiry(status: &Status) -> bool {
    let violations = status.get_details_bad_request().map(|bad| bad.field_violations).unwrap_or_default();
    violations.iter().any(|violation| violation.field == "expiry.expire_time")
}

impl Tally {
    fn count(&mut self, entries: &[(u64, pb::Entry)], done: &pb::BatchWriteResponse) {
        let (mut written, mut bytes) = (0, 0);
        for ((line, entry), result) in entries.iter().zip(&done.results) {
            match &result.kind {
                Some(Kind::Error(error)) if error.reason == "KEY_EXISTS" => self.kept += 1,
                Some(Kind::Error(error)) => {
                    self.refused += 1;
                    if self.refused <= NAMED_MAX {
                        say(format_args!("line {line}: {}: {}", error.reason, error.message));
                    }
                }
                _ => {
                    written += 1;
                    bytes += (entry.key.len() + entry.value.len()) as u64;
                }
            }
        }
        self.progress.add(written, bytes);
    }

    fn finish(self) {
        self.progress.finish();
        if self.kept > 0 {
            say(format_args!("left alone {} that exist", self.kept));
        }
        if self.expired > 0 {
            say(format_args!("left out {} that have expired", self.expired));
        }
    }
}
