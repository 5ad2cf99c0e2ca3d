//! Watch history as a snapshot holds it.

use std::sync::Arc;

use crate::{
    engine::watch::{
        changes::{Change, Changes},
        hub::Hub,
    },
    pb,
};

/// Records that are taken from the history under one lock.
const STEP_RECORDS: usize = 1_000;

/// A part of the history without a gap.
#[derive(Debug, Default)]
pub struct Kept {
    /// It begins after this revision.
    pub after_revision: u64,
    /// Its records.
    pub records: Vec<Arc<Changes>>,
}

/// Takes from the history what it has up to a revision, in short steps. What it forgets meanwhile is left out.
pub fn collect(hub: &Hub, until_revision: u64) -> Kept {
    let mut after_revision = hub.with_history(|history| history.oldest_revision() - 1);
    let mut records: Vec<Arc<Changes>> = Vec::new();
    loop {
        let last_revision = records.last().map_or(after_revision, |last| last.revision());
        let step = hub.with_history(|history| match history.between(last_revision, until_revision) {
            Some(next) => Ok(next.take(STEP_RECORDS).map(Arc::clone).collect::<Vec<_>>()),
            None => Err(history.oldest_revision() - 1),
        });
        match step {
            Ok(next) if next.is_empty() => {
                return Kept { after_revision: after_revision.min(until_revision), records };
            }
            Ok(next) => records.extend(next),
            Err(forgotten_revision) => {
                after_revision = forgotten_revision;
                records.clear();
            }
        }
    }
}

/// The record's changes with its revision, from events in their order; `None` for what this version would not write.
pub fn of_events(events: impl Iterator<Item = pb::Event>) -> Option<Vec<Changes>> {
    let mut all = Vec::new();
    let mut record: (u64, Vec<Change>) = (0, Vec::new());
    for event in events {
        let revision = event.entry.as_ref()?.revision;
        let change = Change::of_event(&event)?;
        if revision < record.0 {
            return None;
        }
        if revision > record.0 && !record.1.is_empty() {
            all.push(Changes::new(record.0, std::mem::take(&mut record.1)));
        }
        record.0 = revision;
        record.1.push(change);
    }
    if !record.1.is_empty() {
        all.push(Changes::new(record.0, record.1));
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{engine::watch::changes::samples::put, limits::Limits};

    fn hub_of(records: u64, events_max: usize) -> Hub {
        let hub = Hub::new(&Limits { watch_history_events: events_max, ..Limits::default() });
        for revision in 1..=records {
            let changes =
                (revision % 3 != 0).then(|| Changes::new(revision, vec![put("a", revision), put("b", revision)]));
            hub.add(revision, changes);
        }
        hub
    }

    #[test]
    fn the_history_up_to_a_revision_reads_back() {
        let hub = hub_of(5_000, 100_000);
        let kept = collect(&hub, 4_000);
        assert_eq!((kept.after_revision, kept.records.len()), (0, 2_667));
        let events = kept
            .records
            .iter()
            .flat_map(|record| record.list().iter().map(|change| change.to_event(record.revision(), true)));
        let read = of_events(events).unwrap();
        assert_eq!(format!("{:?}", read.iter().collect::<Vec<_>>()), format!("{:?}", kept.records));
    }

    #[test]
    fn a_history_that_begins_later_says_so_and_one_that_has_passed_is_empty() {
        let hub = hub_of(5_000, 100);
        let kept = collect(&hub, 4_990);
        assert!(
            kept.after_revision > 4_900 && kept.records.iter().all(|record| record.revision() > kept.after_revision)
        );
        let kept = collect(&hub, 100);
        assert_eq!((kept.after_revision, kept.records.len()), (100, 0));
    }

    #[test]
    fn events_out_of_order_are_refused() {
        let event = |revision| put("a", revision).to_event(revision, true);
        assert!(of_events([event(2), event(1)].into_iter()).is_none());
    }
}
