//! The log as watchers tell it, replayed: what each key held at each revision, and what is known of the time then.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use tandem::{
    model::ms_from_timestamp,
    pb::{self, EventKind},
};

/// All that one record changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    pub revision: u64,
    /// Each with the entry before.
    pub events: Vec<pb::Event>,
}

/// What every key held, and when.
#[derive(Debug)]
pub struct Timeline {
    pub groups: BTreeMap<u64, Vec<pb::Event>>,
    keys: HashMap<Bytes, Vec<(u64, Option<pb::Entry>)>>,
    /// Record time by revision: of a record that wrote exactly its own, of one that only expired at least the deadline.
    times_ms: BTreeMap<u64, Time>,
}

#[derive(Clone, Copy, Debug)]
struct Time {
    /// The latest time told by a record up to this one.
    least_ms: u64,
    exact: bool,
}

pub fn key_of(event: &pb::Event) -> &Bytes {
    &event.entry.as_ref().unwrap().key
}

pub fn expire_ms(entry: &pb::Entry) -> Option<u64> {
    entry.expire_time.as_ref().map(|time| ms_from_timestamp(time).unwrap())
}

fn update_ms(entry: &pb::Entry) -> u64 {
    ms_from_timestamp(entry.update_time.as_ref().unwrap()).unwrap()
}

impl Timeline {
    /// Replays a log; an error where it contradicts itself.
    pub fn new(log: &[Group]) -> Result<Self, String> {
        let mut timeline = Self { groups: BTreeMap::new(), keys: HashMap::new(), times_ms: BTreeMap::new() };
        let (mut last_revision, mut last_ms) = (0, 0);
        for group in log {
            let Group { revision, events } = group;
            if *revision <= last_revision || events.is_empty() {
                return Err(format!("revision {revision} with {} events follows {last_revision}", events.len()));
            }
            last_revision = *revision;
            let mut exact = false;
            for event in events {
                let now_ms = timeline.happen(*revision, event)?;
                let written = matches!(event.kind(), EventKind::Put | EventKind::Touch);
                if written && (now_ms < last_ms || exact && now_ms != last_ms) {
                    return Err(format!("time falls, or something expired too early: {event:?} after {last_ms}"));
                }
                exact |= written;
                last_ms = last_ms.max(now_ms);
            }
            timeline.times_ms.insert(*revision, Time { least_ms: last_ms, exact });
            timeline.groups.insert(*revision, events.clone());
        }
        Ok(timeline)
    }

    /// Takes an event in; gives what it tells of its record's time.
    fn happen(&mut self, revision: u64, event: &pb::Event) -> Result<u64, String> {
        let wrong = |what: &str| Err(format!("{what} at revision {revision}: {event:?}"));
        let states = self.keys.entry(key_of(event).clone()).or_default();
        let before = states.last().and_then(|(_, entry)| entry.as_ref());
        if event.previous.as_ref() != before {
            return wrong(&format!("the entry before was {before:?}"));
        }
        let entry = event.entry.clone().unwrap();
        if entry.revision != revision {
            return wrong("another revision in the entry");
        }
        let (after, time_ms) = match (event.kind(), before) {
            (EventKind::Put, _) | (EventKind::Touch, Some(_)) => (Some(entry.clone()), update_ms(&entry)),
            (EventKind::Delete, Some(_)) => (None, 0),
            (EventKind::Expire, Some(before)) => match expire_ms(before) {
                Some(deadline_ms) => (None, deadline_ms),
                None => return wrong("what never expires expired"),
            },
            _ => return wrong("what is not there cannot change so"),
        };
        states.push((revision, after));
        Ok(time_ms)
    }

    /// What a key held at a revision, expired or not.
    pub fn at(&self, key: &Bytes, revision: u64) -> Option<&pb::Entry> {
        let states = self.keys.get(key)?;
        let next = states.partition_point(|(since, _)| *since <= revision);
        states[..next].last()?.1.as_ref()
    }

    /// Revisions after one, up to another, at which a key changed.
    pub fn changes(&self, key: &Bytes, after: u64, until: u64) -> impl Iterator<Item = u64> {
        let states = self.keys.get(key).map_or(&[][..], Vec::as_slice);
        let first = states.partition_point(|(since, _)| *since <= after);
        states[first..].iter().map(|(since, _)| *since).take_while(move |since| *since <= until)
    }

    /// Everything of a prefix at a revision, in key order.
    pub fn state(&self, prefix: &[u8], revision: u64) -> Vec<pb::Entry> {
        let keys = self.keys.keys().filter(|key| key.starts_with(prefix));
        let mut state: Vec<_> = keys.filter_map(|key| self.at(key, revision)).cloned().collect();
        state.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        state
    }

    /// The earliest that it can have been at a revision.
    pub fn least_ms(&self, revision: u64) -> u64 {
        self.times_ms.range(..=revision).next_back().map_or(0, |(_, time)| time.least_ms)
    }

    /// The latest that it can have been when a record of this revision was stamped: exact where it wrote something.
    pub fn most_ms(&self, revision: u64) -> u64 {
        self.times_ms.range(revision..).find(|(_, time)| time.exact).map_or(u64::MAX, |(_, time)| time.least_ms)
    }
}
