//! Deleting a range: in records of few keys, each atomic, so that millions of keys pause nobody; several of them to a sync.

use std::time::Instant;

use futures_util::future::join_all;

use super::{Call, Service, checks, with_outcome};
use crate::{
    engine::{
        apply::Applied,
        completion::Committed,
        judge::Effect,
        phases::{self, Phases},
    },
    error::{Error, Outcome, Reason, Result},
    limits::{DELETE_RANGE_KEYS_MAX, DELETE_RANGE_RECORDS_MAX},
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
        // Most ranges are small, and a record that finds nothing more is logged for nothing.
        let mut records = 1;
        loop {
            let commands = commands(&span, limit - done.deleted, records);
            let proposed = commands.map(|command| engine.propose(command, options.clone(), call.deadline));
            let answers = join_all(proposed).await;
            spent = phases::carry(spent);
            let mut failed = None;
            let mut rest = None;
            for answer in answers {
                let Committed { applied: Applied { revision, effect, .. }, durability, .. } = match answer {
                    Ok(committed) => committed,
                    Err(error) => {
                        failed.get_or_insert(error);
                        continue;
                    }
                };
                let Effect::Range { deleted, next } = effect else {
                    return Err(Error::internal("an answer of another kind"));
                };
                done.result = Some(pb::WriteResult { revision, durability: durability.into(), replayed: false });
                done.deleted += deleted;
                done.complete = next.is_none();
                rest = next;
            }
            match failed {
                None => {}
                Some(error) if done.result.is_none() => return Err(error),
                // What was removed so far is told rather than lost.
                Some(error) if may_go_on_later(error.reason) => return Ok(done),
                Some(error) => return Err(error.with_outcome(Outcome::Unknown)),
            }
            match rest {
                Some(next) if done.deleted < limit && Instant::now() < call.deadline => span.start = next,
                _ => return Ok(done),
            }
            records = (2 * records).min(DELETE_RANGE_RECORDS_MAX);
        }
    }
}

/// So many records, or fewer where that is enough for `keys`. All begin at the same key: each finds what those before it
/// left.
fn commands(span: &KeySpan, keys: u64, records: usize) -> impl Iterator<Item = Command> {
    let step = DELETE_RANGE_KEYS_MAX as u64;
    let range = range_of(span);
    let counts = (0..records as u64).map(move |number| keys.saturating_sub(number * step).min(step));
    counts.take_while(|max_keys| *max_keys > 0).map(move |max_keys| {
        Command::DeleteRange(pb::DeleteRangeRequest { range: Some(range.clone()), max_keys, options: None })
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_ask_for_no_more_keys_than_the_request() {
        let span = KeySpan { start: "a".into(), end: None, prefix_bytes: 0 };
        let counts = |keys, records| -> Vec<_> {
            let max_keys = |command| match command {
                Command::DeleteRange(request) => request.max_keys,
                other => panic!("{other:?}"),
            };
            commands(&span, keys, records).map(max_keys).collect()
        };
        assert_eq!(counts(10, 1), [10]);
        assert_eq!(counts(10, 4), [10]);
        assert_eq!(counts(64, 4), [64]);
        assert_eq!(counts(150, 4), [64, 64, 22]);
        assert_eq!(counts(u64::MAX, 4), [64; 4]);
    }
}
