//! Requests that took long: each is counted, kept in a ring of the last ones with where its time went, and told in the
//! log, as long as there are not too many. Streams and requests held by `?wait=` last as long as their callers like and
//! are none of these.

use std::{
    collections::VecDeque,
    time::{Duration, Instant, SystemTime},
};

use parking_lot::Mutex;

use super::{Service, Trace};
use crate::{
    engine::phases::Phases,
    error::Reason,
    limits::{Limits, SLOW_REQUEST_LINES_PER_SECOND_MAX},
    metrics::{Operation, Protocol},
};

/// A request that took long.
#[derive(Clone, Copy, Debug)]
pub struct SlowRequest {
    /// When it came.
    pub time: SystemTime,
    /// The door.
    pub protocol: Protocol,
    /// What it asked for; `None`: none of the store's operations.
    pub operation: Option<Operation>,
    /// By which it is found in logs and traces.
    pub trace: Trace,
    /// How long it took.
    pub total: Duration,
    /// Where its writes spent that time; `None`: it wrote nothing, or its time ran out before the log was done.
    pub phases: Option<Phases>,
    /// Why it failed; `None`: it went well.
    pub reason: Option<Reason>,
}

/// The last slow requests.
#[derive(Debug)]
pub(super) struct SlowLog {
    capacity: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    /// Oldest first.
    requests: VecDeque<SlowRequest>,
    lines: Lines,
}

impl SlowLog {
    /// An empty log that keeps so many.
    pub(super) fn new(limits: &Limits) -> Self {
        let lines = Lines { since: Instant::now(), written: 0, withheld: 0 };
        Self { capacity: limits.slow_requests, kept: Mutex::new(Kept { requests: VecDeque::new(), lines }) }
    }

    /// Keeps a request, and tells of it.
    pub(super) fn add(&self, request: SlowRequest) {
        let allowed = {
            let mut kept = self.kept.lock();
            kept.requests.push_back(request);
            if kept.requests.len() > self.capacity {
                kept.requests.pop_front();
            }
            kept.lines.allow(Instant::now())
        };
        if let Some(withheld) = allowed {
            tell(&request, withheld);
        }
    }
}

/// How many lines were written of late: when everything is slow, telling of it must not make it slower.
#[derive(Debug)]
struct Lines {
    since: Instant,
    written: u32,
    withheld: u64,
}

impl Lines {
    /// Whether a line may be written now; if so, how many were withheld before it.
    fn allow(&mut self, now: Instant) -> Option<u64> {
        if now.saturating_duration_since(self.since) >= Duration::from_secs(1) {
            (self.since, self.written) = (now, 0);
        }
        if self.written >= SLOW_REQUEST_LINES_PER_SECOND_MAX {
            self.withheld += 1;
            return None;
        }
        self.written += 1;
        Some(std::mem::take(&mut self.withheld))
    }
}

/// Neither keys nor values: what was asked for, how it ended and where the time went.
fn tell(request: &SlowRequest, withheld: u64) {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let SlowRequest { protocol, trace, total, .. } = request;
    let (protocol, operation) = (protocol.label(), Operation::label_of(request.operation));
    let (reason, total_ms) = (request.reason_name(), ms(*total));
    match request.phases {
        Some(Phases { queue, commit, sync, apply }) => {
            let (queue_ms, commit_ms, sync_ms, apply_ms) = (ms(queue), ms(commit), ms(sync), ms(apply));
            tracing::warn!(
                %trace, protocol, operation, reason, total_ms, queue_ms, commit_ms, sync_ms, apply_ms, withheld,
                "a slow request"
            );
        }
        None => tracing::warn!(%trace, protocol, operation, reason, total_ms, withheld, "a slow request"),
    }
}

impl SlowRequest {
    /// Why it failed, or `OK`.
    pub fn reason_name(&self) -> &'static str {
        self.reason.map_or("OK", Reason::name)
    }
}

impl Service {
    /// The last slow requests, newest first, `limit` at most.
    pub fn slow_requests(&self, limit: usize) -> Vec<SlowRequest> {
        self.inner.slow.kept.lock().requests.iter().rev().take(limit).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_slow_requests_are_kept() {
        let log = SlowLog::new(&Limits { slow_requests: 2, ..Limits::default() });
        for operation in [Operation::Put, Operation::Get, Operation::Txn] {
            log.add(SlowRequest {
                time: SystemTime::now(),
                protocol: Protocol::Grpc,
                operation: Some(operation),
                trace: Trace { id: 1, parent_id: 0, span_id: 0 },
                total: Duration::from_secs(1),
                phases: None,
                reason: None,
            });
        }
        let kept: Vec<_> = log.kept.lock().requests.iter().map(|request| request.operation).collect();
        assert_eq!(kept, [Some(Operation::Get), Some(Operation::Txn)]);
    }

    #[test]
    fn a_flood_of_slow_requests_is_no_flood_of_lines() {
        let started = Instant::now();
        let mut lines = Lines { since: started, written: 0, withheld: 0 };
        let allowed = (0..1_000).filter(|_| lines.allow(started).is_some()).count();
        assert_eq!(allowed, SLOW_REQUEST_LINES_PER_SECOND_MAX as usize);
        let later = started + Duration::from_secs(1);
        assert_eq!(lines.allow(later), Some(1_000 - allowed as u64));
        assert_eq!(lines.allow(later), Some(0));
    }
}
