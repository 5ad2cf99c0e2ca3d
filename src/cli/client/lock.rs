//! `tandem lock`: runs a command while a key is ours.
//!
//! The recipe: put the key if it is absent, with a time to live and a value that nobody else writes; touch it well
//! before it expires, on condition that version and value are still ours; delete it on the same condition. The key's
//! create revision rises with every holder: a resource that refuses smaller ones than it has seen (a fence) is safe
//! even from a holder that was paused for longer than its lock.

use std::{ffi::OsString, time::Duration};

use bytes::Bytes;
use clap::Args;
use tokio::time::Instant;
use tonic::{Code, Status};

use super::{
    arguments::{bytes, time_span},
    backoff::Backoff,
    child::{Child, Signals, exit_by, exit_code},
    connection::{ConnectionFlags, Store},
    failure::{Failure, Result, describe, may_pass, say},
};
use crate::{
    model::duration_to_pb,
    pb::{self, EventKind, condition::Kind as Is, expiry::Kind as Expires, key_range},
};

const TTL_MIN: Duration = Duration::from_secs(1);
/// A touch is due after this part of the time to live.
const TOUCH_PART: u32 = 3;
/// A touch that failed is tried again after this part.
const RETRY_PART: u32 = 12;
/// So long before the lock runs out the command is asked to end; when it runs out it is killed.
const GRACE_PART: u32 = 6;

/// What to run, and under which key.
#[derive(Args, Debug)]
pub struct Lock {
    /// The key that is the lock.
    #[arg(value_parser = bytes())]
    key: Bytes,
    /// How long the lock outlives a holder that vanished; it is prolonged while the command runs.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = time_span)]
    ttl: Duration,
    /// Wait until the key is free: for ever, or for so long.
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "3650d", value_parser = time_span)]
    wait: Option<Duration>,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
    #[command(flatten)]
    connection: ConnectionFlags,
}

/// A lock that is ours until `good_until` at least.
#[derive(Debug)]
struct Held {
    store: Store,
    key: Bytes,
    /// The value: nobody else writes it.
    owner: Bytes,
    version: u64,
    create_revision: u64,
    ttl: Duration,
    good_until: Instant,
}

impl Lock {
    pub async fn run(self) -> Result<()> {
        if self.ttl < TTL_MIN {
            return Err(Failure::usage("--ttl: a lock lives for 1s or longer"));
        }
        let internal = |error: std::io::Error| Failure::unavailable(format!("INTERNAL: {error}"));
        let mut signals = Signals::new().map_err(internal)?;
        let mut held = tokio::select! {
            taken = self.take() => taken?,
            number = signals.next() => return Err(Failure::of_child(exit_by(number))),
        };
        let mut child = match Child::start(&self.command, "TANDEM_FENCE", &held.create_revision.to_string()) {
            Ok(child) => child,
            Err(error) => {
                held.release().await;
                return Err(Failure::usage(format!("COMMAND: {:?} cannot be started: {error}", self.command[0])));
            }
        };
        let lost = tokio::select! {
            status = child.wait(&mut signals) => {
                let code = exit_code(status.map_err(internal)?);
                held.release().await;
                return if code == 0 { Ok(()) } else { Err(Failure::of_child(code)) };
            }
            lost = held.keep() => lost,
        };
        say(format_args!("LOCK_LOST: {lost}: the command is ended"));
        child.end(&mut signals, held.ttl / GRACE_PART).await.map_err(internal)?;
        Err(Failure::unavailable("LOCK_LOST: the command was ended before it was done: run it again"))
    }

    /// Takes the lock, and waits for it where that was asked for.
    async fn take(&self) -> Result<Held> {
        let mut held = self.wanted(self.connection.connect().await?);
        let Some(wait) = self.wait else {
            held.put().await?;
            return Ok(held);
        };
        match tokio::time::timeout(wait, held.put_when_free()).await {
            Ok(Ok(())) => Ok(held),
            Ok(Err(status)) => Err(status.into()),
            Err(_) => Err(Failure::condition("KEY_EXISTS: another held the lock for all the time of --wait")),
        }
    }

    /// What is to be held, before it is.
    fn wanted(&self, store: Store) -> Held {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let owner = format!("{host} process {} {:032x}", std::process::id(), rand::random::<u128>());
        let (key, now) = (self.key.clone(), Instant::now());
        Held { store, key, owner: owner.into(), version: 0, create_revision: 0, ttl: self.ttl, good_until: now }
    }
}

impl Held {
    /// Puts the key if it is absent.
    async fn put(&mut self) -> Result<(), Status> {
        let request_id = format!("{:032x}", rand::random::<u128>());
        let request = pb::PutRequest {
            key: self.key.clone(),
            value: self.owner.clone(),
            expiry: Some(expiry(self.ttl)),
            content_type: "text/plain".to_owned(),
            conditions: vec![condition(Is::Exists(false))],
            return_previous: false,
            options: Some(pb::WriteOptions { request_id, ..Default::default() }),
        };
        let sent = Instant::now();
        let done = self.store.put(request).await?.into_inner();
        self.version = done.version;
        self.create_revision = done.result.unwrap_or_default().revision;
        self.good_until = sent + self.ttl;
        Ok(())
    }

    /// The same, as often as it takes: after each refusal the key is watched until it is gone.
    async fn put_when_free(&mut self) -> Result<(), Status> {
        let mut backoff = Backoff::new();
        loop {
            let refused = match self.put().await {
                Ok(()) => return Ok(()),
                Err(status) if status.code() == Code::AlreadyExists => self.wait_until_free().await,
                Err(status) => Err(status),
            };
            match refused {
                Ok(()) => {}
                Err(status) if may_pass(&status) => tokio::time::sleep(backoff.next()).await,
                Err(status) => return Err(status),
            }
        }
    }

    async fn wait_until_free(&mut self) -> Result<(), Status> {
        let read = self.store.get(pb::GetRequest { key: self.key.clone(), metadata_only: true }).await;
        let held = match read {
            Ok(read) => read.into_inner(),
            Err(status) if status.code() == Code::NotFound => return Ok(()),
            Err(status) => return Err(status),
        };
        let gone = [EventKind::Delete, EventKind::Expire, EventKind::Evict];
        let request = pb::WatchRequest {
            range: Some(pb::KeyRange { kind: Some(key_range::Kind::Key(self.key.clone())) }),
            start_revision: held.store_revision + 1,
            kinds: gone.map(Into::into).to_vec(),
            ..Default::default()
        };
        let mut messages = self.store.watch(request).await?.into_inner();
        while let Some(message) = messages.message().await? {
            if !message.events.is_empty() {
                return Ok(());
            }
        }
        Err(Status::unavailable("the server ended the stream"))
    }

    /// Keeps the lock ours, for ever: ends only when it is lost, and says why.
    async fn keep(&mut self) -> String {
        let mut pause = self.ttl / TOUCH_PART;
        loop {
            // In time for the command to end before the lock does.
            let last_moment = self.good_until - self.ttl / GRACE_PART;
            tokio::time::sleep_until(last_moment.min(Instant::now() + pause)).await;
            let sent = Instant::now();
            match tokio::time::timeout_at(last_moment, self.touch()).await {
                Ok(Ok(())) => {
                    self.good_until = sent + self.ttl;
                    pause = self.ttl / TOUCH_PART;
                }
                Ok(Err(status)) if may_pass(&status) => pause = self.ttl / RETRY_PART,
                Ok(Err(status)) => return describe(&status),
                Err(_) => return "the server did not prolong it in time".to_owned(),
            }
        }
    }

    async fn touch(&self) -> Result<(), Status> {
        let request = pb::TouchRequest {
            key: self.key.clone(),
            expiry: Some(expiry(self.ttl)),
            conditions: self.ours(),
            return_previous: false,
            options: None,
        };
        self.store.clone().touch(request).await.map(|_| ())
    }

    /// Lets it go. Where that fails, it expires.
    async fn release(&self) {
        let request =
            pb::DeleteRequest { key: self.key.clone(), conditions: self.ours(), return_previous: false, options: None };
        match self.store.clone().delete(request).await {
            Ok(_) => {}
            Err(status) if may_pass(&status) => {
                let within_s = self.ttl.as_secs_f32();
                say(format_args!("{}: the lock is not released and expires within {within_s} s", describe(&status)));
            }
            Err(status) => say(format_args!("LOCK_LOST: {}: before the command ended", describe(&status))),
        }
    }

    /// Holds only while the entry is the one that we put.
    fn ours(&self) -> Vec<pb::Condition> {
        vec![condition(Is::Version(self.version)), condition(Is::Value(self.owner.clone()))]
    }
}

fn condition(kind: Is) -> pb::Condition {
    pb::Condition { kind: Some(kind) }
}

fn expiry(ttl: Duration) -> pb::Expiry {
    pb::Expiry { kind: Some(Expires::Ttl(duration_to_pb(ttl))) }
}
