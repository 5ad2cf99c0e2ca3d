//! Deleting a range: in records of few keys, each atomic, so that millions of keys pause nobody.

use std::time::Instant;

use super::{Call, Service, checks, with_outcome};
use crate::{
    engine::{
        apply::Applied,
        completion::Committed,
        judge::Effect,
        phases::{self, Phases},
    },
    error::{Error, Outcome, Reason, Result},
    limits::DELETE_RANGE_KEYS_MAX,
    metrics::Operation,
    model::KeySpan,
    pb::{self, key_range::Kind, storage::log_record::Command},
};

impl Service {
    /// Removes a range, or as much of it as the request's time allows.
    pub async fn delete_range(
        &self,
        call: &Call,
        mut request: pb::DeleteRangeRequest,
    ) -> Result<pb::DeleteRangeResponse> {
        let options = request.options.take().unwrap_or_default();
        let answer = self.remove_range(call, &request, options).await.map_err(with_outcome);
        self.counted(call, Operation::DeleteRange, answer)
    }

    async fn remove_range(
        &self,
        call: &Call,
        request: &pb::DeleteRangeRequest,
        options: pb::WriteOptions,
    ) -> Result<pb::DeleteRangeResponse> {
        let engine = self.engine()?;
        check(request, &options)?;
        let mut span = KeySpan::from_pb(request.range.as_ref())?;
        let limit = if request.max_keys == 0 { u64::MAX } else { request.max_keys };
        if options.validate_only {
            let (count, _) = engine.count(&span);
            let result = Some(pb::WriteResult::default());
            return Ok(pb::DeleteRangeResponse { result, deleted: count.min(limit), complete: count <= limit });
        }
        let mut done = pb::DeleteRangeResponse::default();
        let mut spent = Phases::default();
        loop {
            let command = Command::DeleteRange(pb::DeleteRangeRequest {
                range: Some(range_of(&span)),
                max_keys: (limit - done.deleted).min(DELETE_RANGE_KEYS_MAX as u64),
                options: None,
            });
            let committed = match engine.propose(command, options.clone(), call.deadline).await {
                Ok(committed) => committed,
                Err(error) if done.result.is_none() => return Err(error),
                // What was removed so far is told rather than lost.
                Err(error) if may_go_on_later(error.reason) => return Ok(done),
                Err(error) => return Err(error.with_outcome(Outcome::Unknown)),
            };
            spent = phases::carry(spent);
            let Committed { applied: Applied { revision, effect, .. }, durability, .. } = committed;
            let Effect::Range { deleted, next } = effect else {
                return Err(Error::internal("an answer of another kind"));
            };
            done.result = Some(pb::WriteResult { revision, durability: durability.into(), replayed: false });
            done.deleted += deleted;
            done.complete = next.is_none();
            match next {
                Some(next) if done.deleted < limit && Instant::now() < call.deadline => span.start = next,
                _ => return Ok(done),
            }
        }
    }
}

fn check(request: &pb::DeleteRangeRequest, options: &pb::WriteOptions) -> Result<()> {
    checks::options(options)?;
    if !options.request_id.is_empty() {
        let text = "a range is deleted without a request id: it takes several records, and may simply be sent again";
        return Err(Error::invalid_field("options.request_id", text));
    }
    let everything = match request.range.as_ref().and_then(|range| range.kind.as_ref()) {
        Some(Kind::Prefix(prefix)) => prefix.is_empty(),
        Some(Kind::Span(span)) => span.start.is_empty() && span.end.is_empty(),
        Some(Kind::Key(_) | Kind::All(_)) | None => false,
    };
    if everything {
        return Err(Error::invalid_field("range", "this range is everything: to delete that, ask for `all`"));
    }
    Ok(())
}

/// As a record names it: always a span, from where the record before left off.
fn range_of(span: &KeySpan) -> pb::KeyRange {
    let end = span.end.clone().unwrap_or_default();
    pb::KeyRange { kind: Some(Kind::Span(pb::Span { start: span.start.clone(), end })) }
}

/// Whether the same request may simply be sent again for the rest.
fn may_go_on_later(reason: Reason) -> bool {
    matches!(reason, Reason::Deadline | Reason::Overloaded | Reason::Draining)
}
