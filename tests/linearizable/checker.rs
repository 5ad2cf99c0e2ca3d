//! Is a concurrent history linearizable? Every answer carries its revision, so nothing has to be searched for: each call is
//! held against the log at its own revision, and revisions and times must rise as calls follow each other.
//!
//! A call is placed at a revision, and at a time of the server's clock, by which expiry is judged. Writes are placed where
//! they say, and so are reads. A refused call says no more than what it met, and is placed as early as that allows.
//! A call without an answer, cut off by a crash, happened once or not at all.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Bound,
};

use bytes::Bytes;
use tandem::pb::{self, EventKind};

use super::timeline::{Group, Timeline, expire_ms, key_of};
use crate::{
    asks::{Ask, Told},
    reference::{Done, Expected},
};

/// How far the machine's clock, as clients read it, and the server's may lie apart.
const CLOCKS_APART_MS: u64 = 1_000;

/// A call as its client saw it.
#[derive(Clone, Debug)]
pub struct Call {
    /// By one clock for all clients.
    pub start: u64,
    pub end: u64,
    /// Wall clock at its end.
    pub end_ms: u64,
    pub over_rest: bool,
    pub ask: Ask,
    pub answer: Answer,
}

#[derive(Clone, Debug)]
pub enum Answer {
    Told(Told),
    Refused {
        reason: String,
        current_revision: Option<u64>,
        store_revision: Option<u64>,
    },
    /// None came.
    Lost,
}

/// A place in the order of things: revision, and milliseconds of record time.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    revision: u64,
    time_ms: u64,
}

/// How a call is rightly answered.
type Right = Result<Expected, &'static str>;

/// What was checked.
#[derive(Debug, Default)]
pub struct Report {
    pub reads: usize,
    pub writes: usize,
    pub refused: usize,
    pub lost: usize,
    pub lost_but_done: usize,
    pub expired: usize,
}

struct Checker<'history> {
    timeline: &'history Timeline,
    calls: &'history [Call],
    /// Records that a client was told of.
    acknowledged: HashMap<u64, usize>,
    report: Report,
}

/// Holds a history against the log.
pub fn check(timeline: &Timeline, calls: &[Call]) -> Result<Report, String> {
    let mut checker = Checker { timeline, calls, acknowledged: HashMap::new(), report: Report::default() };
    let floors = checker.sweep()?;
    checker.explain_the_rest(&floors)?;
    Ok(checker.report)
}

impl Checker<'_> {
    /// Goes through starts and ends in the order of the clients' clock. Gives of each call the place that it cannot lie
    /// before.
    fn sweep(&mut self) -> Result<Vec<Place>, String> {
        let ceilings = self.ceilings();
        // At one moment starts come first: what the clock cannot tell apart ran side by side.
        let starts = self.calls.iter().enumerate().map(|(number, call)| (call.start, false, number));
        let ends = self.calls.iter().enumerate().map(|(number, call)| (call.end, true, number));
        let moments: BTreeSet<_> = starts.chain(ends).collect();
        let mut floors = vec![Place::default(); self.calls.len()];
        let mut floor = Place::default();
        for (_, ends, number) in moments {
            if !ends {
                floors[number] = floor;
                continue;
            }
            let call = &self.calls[number];
            let placed = self
                .place(number, floors[number], ceilings[number])
                .map_err(|why| format!("{why}\nfloor {:?}, call {call:?}", floors[number]))?;
            floor.revision = floor.revision.max(placed.revision);
            floor.time_ms = floor.time_ms.max(placed.time_ms);
        }
        Ok(floors)
    }

    /// Of each call the revision before the first write that began after it.
    fn ceilings(&self) -> Vec<u64> {
        let mut first_after = BTreeMap::new();
        for call in self.calls {
            if let (Answer::Told(told), true) = (&call.answer, call.ask.writes()) {
                let least: &mut u64 = first_after.entry(call.start).or_insert(u64::MAX);
                *least = told.revision.min(*least);
            }
        }
        let mut least = u64::MAX;
        for revision in first_after.values_mut().rev() {
            least = least.min(*revision);
            *revision = least;
        }
        let behind = |end: u64| first_after.range((Bound::Excluded(end), Bound::Unbounded)).next();
        let ceiling = |call: &Call| behind(call.end).map_or(u64::MAX, |(_, least)| least - 1);
        self.calls.iter().map(ceiling).collect()
    }

    fn place(&mut self, number: usize, floor: Place, ceiling: u64) -> Result<Place, String> {
        let call = &self.calls[number];
        match &call.answer {
            Answer::Lost => {
                self.report.lost += 1;
                Ok(Place::default())
            }
            Answer::Told(told) if call.ask.writes() => {
                self.report.writes += 1;
                if told.revision <= floor.revision {
                    return Err("a write does not come after what was there before it began".into());
                }
                if self.acknowledged.insert(told.revision, number).is_some() {
                    return Err("two writes of one revision".into());
                }
                let time_ms = self.written(call, told, floor)?;
                Ok(Place { revision: told.revision, time_ms })
            }
            Answer::Told(told) => {
                self.report.reads += 1;
                self.seen(call, told.revision, floor, &|expected| match expected {
                    Ok(expected) => call.ask.check(told, expected, call.over_rest),
                    Err(reason) => Err(format!("{reason} would be right")),
                })
            }
            Answer::Refused { reason, store_revision: Some(revision), .. } if !call.ask.writes() => {
                self.report.reads += 1;
                self.seen(call, *revision, floor, &|expected| match expected {
                    Err(expected) if expected == reason => Ok(()),
                    other => Err(format!("{reason}, where {other:?} would be right")),
                })
            }
            Answer::Refused { reason, current_revision, .. } => {
                self.report.refused += 1;
                self.met(call, reason, *current_revision, floor, ceiling)
            }
        }
    }

    /// A read shows exactly the state at the revision that it names.
    fn seen(
        &self,
        call: &Call,
        revision: u64,
        floor: Place,
        check: &dyn Fn(&Right) -> Result<(), String>,
    ) -> Result<Place, String> {
        if revision < floor.revision {
            return Err("a stale read".into());
        }
        let mut why = String::new();
        for time_ms in self.times(call, revision, floor) {
            match check(&self.expected(call, revision, revision, time_ms)) {
                Ok(()) => return Ok(Place { revision, time_ms }),
                Err(reason) => why = reason,
            }
        }
        Err(why)
    }

    /// A write is answered, and in the log, as the state before it has it. Gives its time.
    fn written(&self, call: &Call, told: &Told, floor: Place) -> Result<u64, String> {
        let before = told.revision - 1;
        let mut why = String::new();
        for time_ms in self.stamps(call, told.revision, floor)? {
            let expected = match self.expected(call, before, told.revision, time_ms) {
                Ok(expected) => expected,
                Err(reason) => {
                    why = format!("{reason} would be right");
                    continue;
                }
            };
            match call
                .ask
                .check(told, &expected, call.over_rest)
                .and_then(|()| self.logged(&expected.done, told.revision, time_ms))
            {
                Ok(()) => return Ok(time_ms),
                Err(reason) => why = reason,
            }
        }
        Err(why)
    }

    /// A refused call met what its reason says at some revision while it ran.
    fn met(
        &self,
        call: &Call,
        reason: &str,
        current_revision: Option<u64>,
        floor: Place,
        ceiling: u64,
    ) -> Result<Place, String> {
        let keys = call.ask.keys();
        let changes = keys.iter().flat_map(|key| self.timeline.changes(key, floor.revision, ceiling));
        let candidates: BTreeSet<u64> = std::iter::once(floor.revision).chain(changes).collect();
        let mut earliest: Option<Place> = None;
        for revision in candidates {
            for time_ms in self.times(call, revision, floor) {
                let alive = |key: &Bytes| self.alive(key, revision, time_ms).map_or(0, |entry| entry.revision);
                let agrees = match (current_revision, keys.as_slice()) {
                    (Some(current_revision), [key]) => alive(key) == current_revision,
                    _ => true,
                };
                if agrees && self.expected(call, revision, revision + 1, time_ms).is_err_and(|right| right == reason) {
                    // Which of several it was is not known: it counts as early as any could be.
                    let place = earliest.get_or_insert(Place { revision, time_ms });
                    place.time_ms = place.time_ms.min(time_ms);
                }
            }
        }
        earliest.ok_or_else(|| format!("{reason} was right at no time, up to revision {ceiling}"))
    }

    /// Times at which a call may be placed: from the earliest on, each at which one more of its keys is expired.
    fn times(&self, call: &Call, revision: u64, floor: Place) -> BTreeSet<u64> {
        let keys = call.ask.keys();
        let least_ms = floor.time_ms.max(self.timeline.least_ms(revision));
        // The next record that touches what it met was stamped later.
        let next = keys.iter().filter_map(|key| self.timeline.changes(key, revision, u64::MAX).next()).min();
        let most_ms = next.map_or(u64::MAX, |next| self.timeline.most_ms(next));
        let most_ms = most_ms.min(call.end_ms.saturating_add(CLOCKS_APART_MS));
        let deadlines = keys.iter().filter_map(|key| self.timeline.at(key, revision).and_then(expire_ms));
        let mut times: BTreeSet<u64> = deadlines.filter(|time_ms| (least_ms..=most_ms).contains(time_ms)).collect();
        times.insert(least_ms);
        times
    }

    /// The same of a write, which the log may time exactly.
    fn stamps(&self, call: &Call, revision: u64, floor: Place) -> Result<BTreeSet<u64>, String> {
        let events = self.timeline.groups.get(&revision);
        if !events.is_some_and(|events| events.iter().any(is_written)) {
            return Ok(self.times(call, revision - 1, floor));
        }
        let stamp_ms = self.timeline.most_ms(revision);
        match floor.time_ms.max(self.timeline.least_ms(revision - 1)) {
            least_ms if least_ms <= stamp_ms => Ok(BTreeSet::from([stamp_ms])),
            least_ms => Err(format!("it is stamped {stamp_ms}, and it was {least_ms} before")),
        }
    }

    fn alive(&self, key: &Bytes, revision: u64, time_ms: u64) -> Option<&pb::Entry> {
        self.timeline.at(key, revision).filter(|entry| expire_ms(entry).is_none_or(|deadline_ms| deadline_ms > time_ms))
    }

    fn expected(&self, call: &Call, state: u64, revision: u64, time_ms: u64) -> Right {
        call.ask.expected(|key| self.alive(key, state, time_ms).cloned(), revision)
    }

    /// The log holds at a revision what these writes make of their keys, in their order, and nothing else. What is written
    /// over an expired entry is told as an expiry first.
    fn logged(&self, done: &[Done], revision: u64, time_ms: u64) -> Result<(), String> {
        let none = Vec::new();
        let mut events = self.timeline.groups.get(&revision).unwrap_or(&none).iter();
        for done in done {
            let over = self.timeline.at(&done.key, revision - 1).and_then(expire_ms);
            if over.is_some_and(|deadline_ms| deadline_ms <= time_ms) {
                let event = events.next();
                if event.map(|event| (event.kind(), key_of(event))) != Some((EventKind::Expire, &done.key)) {
                    return Err(format!("no expiry of {:?} at revision {revision}: {event:?}", done.key));
                }
            }
            let event = events.next().ok_or_else(|| format!("revision {revision} lacks {done:?}"))?;
            if (event.kind(), key_of(event)) != (done.kind, &done.key) {
                return Err(format!("revision {revision} tells {event:?} where {done:?} happened"));
            }
            done.check(event.entry.as_ref().filter(|_| is_written(event)))?;
        }
        events.next().map_or(Ok(()), |event| Err(format!("revision {revision} tells more: {event:?}")))
    }

    /// What no client was told of is expiry, or the work of a call whose answer was lost: of each once at most.
    fn explain_the_rest(&mut self, floors: &[Place]) -> Result<(), String> {
        let lost = self.calls.iter().enumerate().filter(|(_, call)| matches!(call.answer, Answer::Lost));
        let mut lost: Vec<_> = lost.filter(|(_, call)| call.ask.writes()).collect();
        for (revision, events) in &self.timeline.groups {
            self.report.expired += events.iter().filter(|event| event.kind() == EventKind::Expire).count();
            if self.acknowledged.contains_key(revision) || events.iter().all(|event| event.kind() == EventKind::Expire)
            {
                continue;
            }
            let explains = |(number, call): &(usize, &Call)| {
                let floor = floors[*number];
                floor.revision < *revision
                    && self.stamps(call, *revision, floor).is_ok_and(|times| {
                        times.into_iter().any(|time_ms| {
                            self.expected(call, revision - 1, *revision, time_ms)
                                .is_ok_and(|expected| self.logged(&expected.done, *revision, time_ms).is_ok())
                        })
                    })
            };
            let Some(found) = lost.iter().position(explains) else {
                return Err(format!("nobody asked for revision {revision}: {events:?}"));
            };
            lost.remove(found);
            self.report.lost_but_done += 1;
        }
        Ok(())
    }
}

fn is_written(event: &pb::Event) -> bool {
    matches!(event.kind(), EventKind::Put | EventKind::Touch)
}

/// What a watcher was told.
#[derive(Clone, Debug)]
pub struct Watched {
    pub name: String,
    pub prefix: Bytes,
    /// It was told all that came after this revision.
    pub after: u64,
    /// The state it began with, at `after`.
    pub state: Option<Vec<pb::Entry>>,
    pub previous: bool,
    pub groups: Vec<Group>,
}

/// A watcher must have been told exactly the log: each revision once, whole and in order.
pub fn check_watched(timeline: &Timeline, watched: &Watched) -> Result<(), String> {
    let name = &watched.name;
    if let Some(state) = &watched.state {
        let right = timeline.state(&watched.prefix, watched.after);
        if *state != right {
            return Err(format!("{name} began at {} with {state:?} instead of {right:?}", watched.after));
        }
    }
    let mut told = watched.groups.iter();
    for (revision, events) in timeline.groups.range(watched.after + 1..) {
        let mut events: Vec<_> =
            events.iter().filter(|event| key_of(event).starts_with(&watched.prefix)).cloned().collect();
        if events.is_empty() {
            continue;
        }
        if !watched.previous {
            events.iter_mut().for_each(|event| event.previous = None);
        }
        let right = Group { revision: *revision, events };
        match told.next() {
            Some(group) if *group == right => {}
            other => return Err(format!("{name} was told {other:?} instead of {right:?}")),
        }
    }
    told.next().map_or(Ok(()), |group| Err(format!("{name} was told more than there is: {group:?}")))
}
