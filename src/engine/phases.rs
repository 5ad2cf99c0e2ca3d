//! How long a write spent where. The log looks at the clock three times for each group, whatever its size, and a write
//! once before it waits; the rest is told only of requests that somebody asks about: slow or traced ones, and those whose
//! callers want to know.
//!
//! An answer of the log reaches the door within one poll of its request's task. So what the last write went through is
//! kept for each thread, with the task that made it, and nothing needs to travel with the answers.

use std::{
    cell::Cell,
    ops::Add,
    time::{Duration, Instant},
};

use tokio::task;

/// When a group passed through the log.
#[derive(Clone, Copy, Debug)]
pub struct GroupTimes {
    /// Out of the queue.
    pub taken: Instant,
    /// Written.
    pub written: Instant,
    /// Synced, if it had to be; otherwise as `written`.
    pub synced: Instant,
}

/// The time that a request's writes spent in each phase, all of its records together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Phases {
    /// Waiting for the log.
    pub queue: Duration,
    /// Being framed and written.
    pub commit: Duration,
    /// Waiting for the disk.
    pub sync: Duration,
    /// Being applied, and the answer finding its caller.
    pub apply: Duration,
}

impl Phases {
    /// Each by its name, in the order in which a write goes through them.
    pub fn by_name(self) -> [(&'static str, Duration); 4] {
        [("queue", self.queue), ("commit", self.commit), ("sync", self.sync), ("apply", self.apply)]
    }
}

impl Add for Phases {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            queue: self.queue + other.queue,
            commit: self.commit + other.commit,
            sync: self.sync + other.sync,
            apply: self.apply + other.apply,
        }
    }
}

/// The way of a request's last record.
#[derive(Clone, Copy, Debug)]
struct Way {
    /// Who went it.
    task: Option<task::Id>,
    begun: Instant,
    times: GroupTimes,
    /// What earlier records of the request took.
    before: Phases,
}

impl Way {
    fn phases_until(&self, end: Instant) -> Phases {
        let Self { begun, times: GroupTimes { taken, written, synced }, before, .. } = *self;
        before
            + Phases {
                queue: taken.saturating_duration_since(begun),
                commit: written.saturating_duration_since(taken),
                sync: synced.saturating_duration_since(written),
                apply: end.saturating_duration_since(synced),
            }
    }
}

thread_local! {
    static LAST: Cell<Option<Way>> = const { Cell::new(None) };
}

/// A record that went into the queue at `begun` is back.
pub(super) fn note(begun: Instant, times: GroupTimes) {
    LAST.set(Some(Way { task: task::try_id(), begun, times, before: Phases::default() }));
}

/// A record that went into the queue at `begun` was taken back before the log had it.
pub(super) fn note_given_up(begun: Instant) {
    let now = Instant::now();
    note(begun, GroupTimes { taken: now, written: now, synced: now });
}

/// The record that was just written is one of several: those `before` it count too. Gives what all of them took.
pub fn carry(before: Phases) -> Phases {
    let Some(way) = LAST.get() else { return before };
    let way = Way { before, ..way };
    LAST.set(Some(way));
    way.phases_until(Instant::now())
}

/// What the running request, which came at `started`, spent its time on up to `end`; `None` if it wrote nothing. To be
/// asked within the poll in which the answer came.
pub fn of_request(started: Instant, end: Instant) -> Option<Phases> {
    let way = LAST.get().filter(|way| way.task == task::try_id() && way.begun >= started)?;
    Some(way.phases_until(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(begun: Instant, ms: [u64; 3]) -> GroupTimes {
        let [taken, written, synced] = ms.map(|ms| begun + Duration::from_millis(ms));
        GroupTimes { taken, written, synced }
    }

    #[test]
    fn a_write_is_told_of_until_its_answer_and_never_as_another_requests() {
        let started = Instant::now();
        let ms = Duration::from_millis;
        let begun = started + ms(1);
        note(begun, times(begun, [2, 5, 9]));
        let phases = of_request(started, begun + ms(14)).unwrap();
        assert_eq!(phases, Phases { queue: ms(2), commit: ms(3), sync: ms(4), apply: ms(5) });
        assert_eq!(
            of_request(begun + ms(1), begun + ms(14)),
            None,
            "the next request of this connection wrote nothing"
        );
    }

    #[tokio::test]
    async fn tasks_of_one_thread_do_not_see_each_others_writes() {
        let started = Instant::now();
        note(started, times(started, [1, 2, 3]));
        assert!(of_request(started, Instant::now()).is_some());
        let other = tokio::spawn(async move { of_request(started, Instant::now()) });
        assert_eq!(other.await.unwrap(), None);
    }

    #[test]
    fn records_of_one_request_add_up() {
        let begun = Instant::now();
        let ms = Duration::from_millis;
        note(begun, times(begun, [1, 2, 3]));
        let first = carry(Phases::default());
        assert_eq!((first.queue, first.commit, first.sync), (ms(1), ms(1), ms(1)));
        note(begun, times(begun, [10, 20, 30]));
        let both = carry(first);
        assert_eq!((both.queue, both.commit, both.sync), (ms(11), ms(11), ms(11)));
        assert_eq!(of_request(begun, begun + ms(30)).map(|phases| phases.sync), Some(ms(11)));
    }
}
