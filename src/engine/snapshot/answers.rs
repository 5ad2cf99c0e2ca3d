//! Remembered answers as a snapshot holds them.

use bytes::Bytes;

use crate::{
    engine::{
        judge::{Change, Effect, Judgement},
        window::Remembered,
    },
    error::Reason,
    model::Refusal,
    pb::storage::{Aborted, Outcome, Outcomes, RememberedAnswer, TxnOutcome, remembered_answer},
};

/// A remembered answer for a snapshot.
pub fn to_pb(id: &str, answered_ms: u64, remembered: &Remembered) -> RememberedAnswer {
    let effect = match &remembered.effect {
        Effect::One(judgement) => Some(remembered_answer::Effect::One(outcome(*judgement))),
        Effect::Batch(items) => {
            Some(remembered_answer::Effect::Batch(Outcomes { outcomes: items.iter().copied().map(outcome).collect() }))
        }
        Effect::Txn { succeeded, result } => Some(remembered_answer::Effect::Txn(match result {
            Ok(items) => TxnOutcome {
                succeeded: *succeeded,
                outcomes: items.iter().copied().map(outcome_or_read).collect(),
                aborted: None,
            },
            Err((operation, refusal)) => {
                let aborted = Aborted { operation: *operation as u64, outcome: Some(outcome(Err(*refusal))) };
                TxnOutcome { succeeded: *succeeded, outcomes: Vec::new(), aborted: Some(aborted) }
            }
        })),
        // Never remembered.
        Effect::Range { .. } => None,
    };
    RememberedAnswer {
        request_id: id.to_owned(),
        answered_ms,
        fingerprint: Bytes::copy_from_slice(&remembered.fingerprint),
        revision: remembered.revision,
        effect,
    }
}

fn outcome(judgement: Judgement) -> Outcome {
    match judgement {
        Ok(Change { created, version, number }) => Outcome { created, version, number, ..Outcome::default() },
        Err(Refusal { reason, current_revision }) => {
            Outcome { reason: reason.into(), current_revision, ..Outcome::default() }
        }
    }
}

fn outcome_or_read(change: Option<Change>) -> Outcome {
    change.map_or(Outcome { read: true, ..Outcome::default() }, |change| outcome(Ok(change)))
}

/// The id, time and answer that a snapshot holds; `None` for what this version would not write.
pub fn of_pb(answer: RememberedAnswer) -> Option<(String, u64, Remembered)> {
    let effect = match answer.effect? {
        remembered_answer::Effect::One(outcome) => Effect::One(judgement(&outcome)?),
        remembered_answer::Effect::Batch(batch) => {
            Effect::Batch(batch.outcomes.iter().map(judgement).collect::<Option<_>>()?)
        }
        remembered_answer::Effect::Txn(txn) => {
            let result = match txn.aborted {
                None => Ok(txn.outcomes.iter().map(change_or_read).collect::<Option<_>>()?),
                Some(aborted) => Err((usize::try_from(aborted.operation).ok()?, judgement(&aborted.outcome?)?.err()?)),
            };
            Effect::Txn { succeeded: txn.succeeded, result }
        }
    };
    let fingerprint = answer.fingerprint[..].try_into().ok()?;
    Some((answer.request_id, answer.answered_ms, Remembered { fingerprint, revision: answer.revision, effect }))
}

fn judgement(outcome: &Outcome) -> Option<Judgement> {
    let Outcome { current_revision, created, version, number, read, .. } = *outcome;
    match Reason::try_from(outcome.reason).ok()? {
        _ if read => None,
        Reason::Unspecified => Some(Ok(Change { created, version, number })),
        reason => Some(Err(Refusal { reason, current_revision })),
    }
}

fn change_or_read(outcome: &Outcome) -> Option<Option<Change>> {
    if outcome.read { Some(None) } else { judgement(outcome)?.ok().map(Some) }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    #[test]
    fn every_kind_of_answer_reads_back() {
        let done = Change { created: true, version: 7, number: -5 };
        let refusal = Refusal { reason: Reason::ConditionFailed, current_revision: 9 };
        for effect in [
            Effect::One(Ok(done)),
            Effect::One(Ok(Change::default())),
            Effect::One(Err(refusal)),
            Effect::Batch([Ok(done), Err(refusal)].into()),
            Effect::Txn { succeeded: true, result: Ok([Some(done), None, Some(Change::default())].into()) },
            Effect::Txn { succeeded: false, result: Ok([].into()) },
            Effect::Txn { succeeded: false, result: Err((0, refusal)) },
        ] {
            let remembered = Remembered { fingerprint: [3; 16], revision: 4, effect };
            let bytes = to_pb("id", 11, &remembered).encode_to_vec();
            let read = of_pb(RememberedAnswer::decode(&bytes[..]).unwrap());
            assert_eq!(read, Some(("id".to_owned(), 11, remembered)));
        }
    }

    #[test]
    fn an_answer_that_makes_no_sense_is_refused() {
        let good = to_pb(
            "id",
            1,
            &Remembered { fingerprint: [0; 16], revision: 1, effect: Effect::One(Ok(Change::default())) },
        );
        assert!(of_pb(RememberedAnswer { effect: None, ..good.clone() }).is_none());
        assert!(of_pb(RememberedAnswer { fingerprint: Bytes::new(), ..good.clone() }).is_none());
        let unknown = Outcome { reason: 9_999, ..Outcome::default() };
        assert!(of_pb(RememberedAnswer { effect: Some(remembered_answer::Effect::One(unknown)), ..good }).is_none());
    }
}
