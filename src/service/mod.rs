//! What each RPC means, without a transport: a request of the schema in, a response or an [`Error`] out.
//!
//! Both doors call this and nothing below it, so what one can do the other can, with the same reasons.

mod admin;
mod answered;
mod budget;
mod checks;
mod health;
mod many;
mod range;
mod reads;
mod scan;
mod slow;
mod timing;
mod trace;
mod watch;

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use futures_util::{
    FutureExt as _,
    future::{Either, ready},
};
use prost::Message as _;

pub use self::{
    admin::{Admin, BackingUp},
    answered::{Answered, Seen, StreamSpan},
    budget::Share,
    health::{Check, Health},
    scan::Scanning,
    slow::SlowRequest,
    timing::{Timing, timing_asked},
    trace::Trace,
    watch::Watching,
};
use self::{budget::Budget, health::HealthBoard, slow::SlowLog};
use crate::{
    engine::{Engine, Progress, apply::Applied, completion::Committed, judge::Change, judge::Effect, judge::KeyWrite},
    error::{Error, Reason, Result},
    limits::Limits,
    metrics::{Metrics, Operation, Protocol},
    pb::{self, Durability, storage::log_record::Command},
    traces::Traces,
};

/// Where a request came from and until when its caller waits.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// The door.
    pub protocol: Protocol,
    /// After this nobody waits for the answer.
    pub deadline: Instant,
}

/// The store's operations. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Service {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    engine: OnceLock<Engine>,
    health: HealthBoard,
    limits: Limits,
    metrics: Metrics,
    bodies: Arc<Budget>,
    progress: Arc<Progress>,
    slow: SlowLog,
    traces: Traces,
}

impl Service {
    /// A service that answers LOADING until its engine is there.
    pub fn new(limits: Limits, metrics: Metrics, traces: Traces) -> Self {
        let bodies = Budget::new(limits.bodies_bytes);
        let slow = SlowLog::new(&limits);
        let (engine, health, progress) = (OnceLock::new(), HealthBoard::default(), Arc::default());
        Self { inner: Arc::new(Inner { engine, health, limits, metrics, bodies, progress, slow, traces }) }
    }

    /// Opens the service: from now on it reads and writes.
    pub fn open(&self, engine: Engine) {
        let health = engine.health();
        if self.inner.engine.set(engine).is_ok() {
            self.inner.health.opened(health);
        }
    }

    /// The engine, once it is open.
    pub fn engine(&self) -> Result<&Engine> {
        self.inner.engine.get().ok_or_else(|| {
            Error::new(Reason::Loading, "the server reads its data and is not ready yet: retry in a moment")
        })
    }

    /// How far the engine's opening has come: the opening writes it, the probes read it.
    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.inner.progress)
    }

    /// The limits in force.
    pub fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    /// Where everything is counted.
    pub fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    /// What one more request may take of the memory for bodies.
    pub fn body_share(&self) -> Share {
        self.inner.bodies.share()
    }

    /// Counts an operation that a door refused before it came here, and gives a write's error its outcome.
    pub fn refuse(&self, protocol: Protocol, operation: Operation, error: Error) -> Error {
        self.inner.metrics.answered(operation, protocol, Some(error.reason));
        if operation.is_write() { with_outcome(error) } else { error }
    }

    /// One entry. KEY_NOT_FOUND, with the store's revision, when the key is absent.
    pub async fn get(&self, call: &Call, request: pb::GetRequest) -> Result<pb::GetResponse> {
        self.counted(call, Operation::Get, self.read(&request))
    }

    /// One entry, held back until `is_news` likes the answer or `wait` is over; then the newest answer.
    pub async fn get_waiting(
        &self,
        call: &Call,
        request: pb::GetRequest,
        wait: Duration,
        is_news: impl Fn(&Result<pb::GetResponse>) -> bool + Send,
    ) -> Result<pb::GetResponse> {
        let answer = self.wait_for_news(&request, Instant::now() + wait, is_news).await;
        self.counted(call, Operation::Get, answer)
    }

    async fn wait_for_news(
        &self,
        request: &pb::GetRequest,
        until: Instant,
        is_news: impl Fn(&Result<pb::GetResponse>) -> bool + Send,
    ) -> Result<pb::GetResponse> {
        let answer = self.read(request);
        let waitable = answer.as_ref().err().is_none_or(|error| error.reason == Reason::KeyNotFound);
        if is_news(&answer) || !waitable {
            return answer;
        }
        let waiter = self.engine()?.wait_for(&request.key)?;
        loop {
            let changed = waiter.changed();
            tokio::pin!(changed);
            // Listening before looking: a change in between is not missed.
            changed.as_mut().enable();
            let answer = self.read(request);
            if is_news(&answer) {
                return answer;
            }
            tokio::select! {
                () = changed => {}
                () = self.inner.health.until_draining() => return self.read(request),
                () = tokio::time::sleep_until(until.into()) => return self.read(request),
            }
        }
    }

    fn read(&self, request: &pb::GetRequest) -> Result<pb::GetResponse> {
        let engine = self.engine()?;
        checks::key(&request.key, &self.inner.limits)?;
        engine.read_barrier();
        let (entry, store_revision) = engine.get_with_revision(&request.key, |entry, revision| {
            (entry.map(|entry| entry.to_pb(!request.metadata_only)), revision)
        });
        match entry {
            Some(entry) => Ok(pb::GetResponse { entry: Some(entry), store_revision }),
            None => Err(Error::new(Reason::KeyNotFound, "the key is absent")
                .with(|details| details.store_revision = Some(store_revision))),
        }
    }

    /// Writes one key.
    pub fn put(
        &self,
        call: &Call,
        mut request: pb::PutRequest,
    ) -> impl Future<Output = Result<pb::PutResponse>> + Send + use<'_> {
        let options = request.options.take().unwrap_or_default();
        self.write(call, Operation::Put, Command::Put(request), options, Written::into_put)
    }

    /// Removes one key.
    pub fn delete(
        &self,
        call: &Call,
        mut request: pb::DeleteRequest,
    ) -> impl Future<Output = Result<pb::DeleteResponse>> + Send + use<'_> {
        let options = request.options.take().unwrap_or_default();
        self.write(call, Operation::Delete, Command::Delete(request), options, Written::into_delete)
    }

    /// Adds to a number.
    pub fn increment(
        &self,
        call: &Call,
        mut request: pb::IncrementRequest,
    ) -> impl Future<Output = Result<pb::IncrementResponse>> + Send + use<'_> {
        let options = request.options.take().unwrap_or_default();
        self.write(call, Operation::Increment, Command::Increment(request), options, Written::into_increment)
    }

    /// Changes an expiry.
    pub fn touch(
        &self,
        call: &Call,
        mut request: pb::TouchRequest,
    ) -> impl Future<Output = Result<pb::TouchResponse>> + Send + use<'_> {
        let options = request.options.take().unwrap_or_default();
        self.write(call, Operation::Touch, Command::Touch(request), options, Written::into_touch)
    }

    /// Checks and proposes at once; what is left for the future is to wait. So it is small, whatever is written.
    fn write<R: 'static>(
        &self,
        call: &Call,
        operation: Operation,
        command: Command,
        options: pb::WriteOptions,
        answer_of: fn(Written) -> R,
    ) -> impl Future<Output = Result<R>> + Send + use<'_, R> {
        let call = *call;
        let begun = self.begin_write(&call, command, options);
        let written = async move { begun?.await };
        written.map(move |written| self.counted(&call, operation, written.map(answer_of).map_err(with_outcome)))
    }

    fn begin_write(
        &self,
        call: &Call,
        command: Command,
        options: pb::WriteOptions,
    ) -> Result<impl Future<Output = Result<Written>> + Send + use<>> {
        let engine = self.engine()?;
        self.check_write(&command, &options, || engine.now_ms())?;
        if options.validate_only {
            let write = KeyWrite::of(&command).ok_or_else(|| Error::internal("not a write of a key"))?;
            engine.check_room(std::iter::once(write))?;
            let (change, previous) = engine.validate(write)?;
            let result = pb::WriteResult::default();
            return Ok(Either::Left(Box::pin(ready(Ok(Written { result, change, previous })))));
        }
        let committed = engine.propose(command, options, call.deadline);
        Ok(Either::Right(committed.map(|committed| {
            let Committed { applied, durability, .. } = committed?;
            Written::from_applied(applied, durability)
        })))
    }

    fn check_write(&self, command: &Command, options: &pb::WriteOptions, now_ms: impl FnOnce() -> u64) -> Result<()> {
        let write = KeyWrite::of(command).ok_or_else(|| Error::internal("not a write of a key"))?;
        checks::options(options)?;
        self.check_key_write(write, now_ms)?;
        let bytes = match write {
            KeyWrite::Put(request) => request.encoded_len(),
            KeyWrite::Delete(request) => request.encoded_len(),
            KeyWrite::Increment(request) => request.encoded_len(),
            KeyWrite::Touch(request) => request.encoded_len(),
        };
        checks::request(bytes, &self.inner.limits)
    }

    /// Shape and limits of a write, alone or among others.
    fn check_key_write(&self, write: KeyWrite<'_>, now_ms: impl FnOnce() -> u64) -> Result<()> {
        let limits = &self.inner.limits;
        checks::key(write.key(), limits)?;
        checks::conditions(write.conditions(), limits)?;
        match write {
            KeyWrite::Put(request) => {
                checks::value(request.value.len(), limits)?;
                checks::content_type(&request.content_type)?;
                checks::expiry(request.expiry.as_ref(), now_ms).map(drop)
            }
            KeyWrite::Delete(_) => Ok(()),
            KeyWrite::Increment(request) => checks::expiry(request.expiry.as_ref(), now_ms).map(drop),
            KeyWrite::Touch(request) => match checks::expiry(request.expiry.as_ref(), now_ms)? {
                Some(_) => Ok(()),
                None => Err(Error::invalid_field("expiry", "a touch needs an expiry: ttl, expire_time, keep or never")),
            },
        }
    }

    fn counted<T>(&self, call: &Call, operation: Operation, answer: Result<T>) -> Result<T> {
        let reason = answer.as_ref().err().map(|error| error.reason);
        self.inner.metrics.answered(operation, call.protocol, reason);
        answer
    }
}

/// A failed write says whether it happened.
fn with_outcome(error: Error) -> Error {
    let outcome = error.reason.write_outcome();
    error.with_outcome(outcome)
}

/// What a write of one key answers, whatever its kind.
struct Written {
    result: pb::WriteResult,
    change: Change,
    previous: Option<pb::Entry>,
}

impl Written {
    fn from_applied(applied: Applied, durability: Durability) -> Result<Self> {
        let Applied { revision, effect, seen, replayed } = applied;
        match effect {
            Effect::One(Ok(change)) => {
                let result = pb::WriteResult { revision, durability: durability.into(), replayed };
                Ok(Self { result, change, previous: seen.into_iter().next().flatten() })
            }
            Effect::One(Err(refusal)) => Err(refusal.to_error().with(|details| details.replayed = replayed)),
            // The window compares fingerprints: the answer of another kind of command never comes here.
            Effect::Batch(_) | Effect::Txn { .. } | Effect::Range { .. } => {
                Err(Error::internal("an answer of another kind"))
            }
        }
    }

    fn into_put(self) -> pb::PutResponse {
        let Change { created, version, .. } = self.change;
        pb::PutResponse { result: Some(self.result), created, version, previous: self.previous }
    }

    fn into_delete(self) -> pb::DeleteResponse {
        pb::DeleteResponse { result: Some(self.result), previous: self.previous }
    }

    fn into_increment(self) -> pb::IncrementResponse {
        let Change { created, version, number } = self.change;
        pb::IncrementResponse { result: Some(self.result), created, version, previous: self.previous, value: number }
    }

    fn into_touch(self) -> pb::TouchResponse {
        pb::TouchResponse { result: Some(self.result), version: self.change.version, previous: self.previous }
    }
}
