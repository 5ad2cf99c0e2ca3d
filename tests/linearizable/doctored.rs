//! The checker itself is put to the test: a history that is right passes, and each that was tampered with is found out.

use std::time::Duration;

use bytes::Bytes;
use tandem::{
    model::duration_to_pb,
    pb::{self, EventKind, condition::Kind as Is, expiry::Kind as Expires, op_result::Kind, txn_op, write_op::Op},
};

use super::{
    checker::{Answer, Call, Report, Watched, check, check_watched},
    timeline::{Group, Timeline},
};
use crate::{
    asks::{Ask, Told},
    reference,
};

/// A log and the calls of one client, by whose clock 100 ms pass from call to call.
#[derive(Clone, Default)]
struct History {
    log: Vec<Group>,
    calls: Vec<Call>,
}

fn put(key: &str, value: &str) -> pb::PutRequest {
    pb::PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..Default::default() }
}

fn write(request: pb::PutRequest) -> Ask {
    Ask::Write(Op::Put(request))
}

fn get(key: &str) -> Ask {
    Ask::Get(key.to_owned().into())
}

fn short(key: &str) -> Ask {
    let ttl = Expires::Ttl(duration_to_pb(Duration::from_millis(50)));
    write(pb::PutRequest { expiry: Some(pb::Expiry { kind: Some(ttl) }), ..put(key, "short") })
}

fn if_absent(key: &str) -> Ask {
    let conditions = vec![pb::Condition { kind: Some(Is::Exists(false)) }];
    write(pb::PutRequest { conditions, ..put(key, "first") })
}

fn transfer() -> Ask {
    let write = |request| txn_op::Op::Write(pb::WriteOp { op: Some(Op::Put(request)) });
    let then = [put("a", "9"), put("b", "11")].map(|request| pb::TxnOp { op: Some(write(request)) });
    Ask::Txn(pb::TxnRequest { then: then.into(), ..Default::default() })
}

impl History {
    fn revision(&self) -> u64 {
        self.log.last().map_or(0, |group| group.revision)
    }

    fn entry(&self, key: &Bytes) -> Option<pb::Entry> {
        let entries = self.log.iter().rev().flat_map(|group| &group.events).filter_map(|event| event.entry.as_ref());
        entries.into_iter().find(|entry| entry.key == *key).filter(|entry| entry.version > 0).cloned()
    }

    /// One call after all others, answered rightly.
    fn then(mut self, ask: Ask) -> Self {
        let start = self.calls.len() as u64 * 100;
        let revision = self.revision() + u64::from(ask.writes());
        let answer = match ask.expected(|key| self.entry(key), revision) {
            Ok(expected) => {
                let event = |done: &reference::Done| pb::Event {
                    kind: done.kind.into(),
                    entry: done.entry(start).or_else(|| removed(&done.key, revision)),
                    previous: self.entry(&done.key),
                };
                let events: Vec<_> = expected.done.iter().map(event).collect();
                if !events.is_empty() {
                    self.log.push(Group { revision, events });
                }
                Answer::Told(Told { revision, succeeded: expected.succeeded, results: expected.results })
            }
            Err(reason) => {
                let store_revision = (!ask.writes()).then_some(revision);
                Answer::Refused { reason: reason.into(), current_revision: None, store_revision }
            }
        };
        self.calls.push(Call { start, end: start + 50, end_ms: start + 50, over_rest: false, ask, answer });
        self
    }

    /// A key's time comes: it is removed.
    fn expire(mut self, key: &'static str) -> Self {
        let (key, revision) = (Bytes::from(key), self.revision() + 1);
        let (previous, entry) = (self.entry(&key), removed(&key, revision));
        let event = pb::Event { kind: EventKind::Expire.into(), entry, previous };
        self.log.push(Group { revision, events: vec![event] });
        self
    }

    /// The same with something changed.
    fn but(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut other = self.clone();
        change(&mut other);
        other
    }

    fn verdict(&self) -> Result<Report, String> {
        check(&Timeline::new(&self.log)?, &self.calls)
    }
}

fn removed(key: &Bytes, revision: u64) -> Option<pb::Entry> {
    Some(pb::Entry { key: key.clone(), revision, ..Default::default() })
}

/// Calls 0 to 10; the log has the revisions 1 to 7.
fn history() -> History {
    History::default()
        .then(write(put("a", "10")))
        .then(write(put("b", "10")))
        .then(get("a"))
        .then(transfer())
        .then(get("a"))
        .then(Ask::BatchGet(vec!["a".into(), "b".into()]))
        .then(if_absent("a"))
        .then(short("s"))
        .expire("s")
        .then(get("s"))
        .then(Ask::Write(Op::Delete(pb::DeleteRequest { key: "b".into(), ..Default::default() })))
        .then(write(put("a", "12")))
}

fn told(history: &mut History, call: usize) -> &mut Told {
    match &mut history.calls[call].answer {
        Answer::Told(told) => told,
        other => panic!("not told: {other:?}"),
    }
}

#[track_caller]
fn found_out(history: &History, why: &str) {
    let verdict = history.verdict();
    assert!(verdict.as_ref().is_err_and(|found| found.contains(why)), "{why}: {verdict:?}");
}

#[test]
fn a_right_history_passes() {
    let report = history().verdict().unwrap();
    assert_eq!((report.reads, report.writes, report.refused, report.expired), (4, 6, 1, 1));
}

#[test]
fn a_lost_write_is_found_out() {
    found_out(&history().but(|history| drop(history.log.pop())), "revision 7 lacks");
    found_out(&history().but(|history| drop(history.log.remove(1))), "the entry before was None");
}

#[test]
fn a_stale_read_is_found_out() {
    let stale = history().but(|history| *told(history, 4) = told(history, 2).clone());
    found_out(&stale, "a stale read");
    let wrong = history().but(|history| told(history, 4).results = told(history, 2).results.clone());
    found_out(&wrong, "should be answered by");
    // Of a state that no write can have made yet.
    let future = history().then(get("a")).but(|history| *told(history, 4) = told(history, 11).clone());
    // Told by the next one, which now would go back.
    found_out(&future, "a stale read");
}

#[test]
fn half_a_transaction_is_found_out() {
    found_out(&history().but(|history| drop(history.log[2].events.pop())), "the entry before was");
    let half = history().but(|history| {
        let Kind::Get(b) = &mut told(history, 5).results[1] else { panic!("not a read") };
        let Some(pb::read_result::Kind::Entry(entry)) = &mut b.kind else { panic!("not there") };
        entry.value = "10".into();
    });
    found_out(&half, "should be answered by");
}

#[test]
fn reordered_events_are_found_out() {
    let swapped = history().but(|history| {
        let (one, other) = (history.log[0].clone(), history.log[1].clone());
        history.log[0].events = other.events;
        history.log[1].events = one.events;
    });
    found_out(&swapped, "another revision in the entry");
    found_out(&history().but(|history| history.log.swap(0, 1)), "follows 2");
    found_out(&history().but(|history| history.log[2].events.reverse()), "tells");
}

#[test]
fn writes_out_of_order_are_found_out() {
    let before = history().but(|history| {
        history.calls[11 - 1].start = 0;
        history.calls[11 - 1].end = 1;
    });
    found_out(&before, "does not come after");
    let twice = history().but(|history| {
        let call = Call { start: 2_000, end: 2_001, ..history.calls[0].clone() };
        history.calls.push(call);
    });
    found_out(&twice, "does not come after");
}

#[test]
fn a_write_that_nobody_asked_for_is_found_out() {
    found_out(&history().but(|history| drop(history.calls.remove(10))), "nobody asked for revision 7");
}

#[test]
fn a_refusal_without_its_cause_is_found_out() {
    let refused = history().then(if_absent("new")).but(|history| {
        history.log.pop();
        history.calls[11].answer =
            Answer::Refused { reason: "KEY_EXISTS".into(), current_revision: None, store_revision: None };
    });
    found_out(&refused, "KEY_EXISTS was right at no time");
}

/// A read of what expired and is not removed yet.
fn after_expiry() -> History {
    History::default().then(short("s")).then(get("s")).but(|history| {
        history.calls[1].answer =
            Answer::Refused { reason: "KEY_NOT_FOUND".into(), current_revision: None, store_revision: Some(1) };
    })
}

#[test]
fn expiry_that_reverts_or_comes_early_is_found_out() {
    assert!(after_expiry().verdict().is_ok());
    let reverted = after_expiry().then(get("s"));
    found_out(&reverted, "KEY_NOT_FOUND would be right");
    let early = after_expiry().but(|history| {
        let entry = history.log[0].events[0].entry.as_mut().unwrap();
        entry.expire_time = Some(tandem::model::timestamp_from_ms(1_000_000));
    });
    assert!(early.verdict().is_err());
}

#[test]
fn a_call_without_an_answer_happened_once_or_not_at_all() {
    let lost = |history: &mut History| {
        history.calls[10].answer = Answer::Lost;
        history.calls[10].end = u64::MAX;
    };
    let report = history().but(lost).verdict().unwrap();
    assert_eq!((report.lost, report.lost_but_done), (1, 1));
    let report = history().but(lost).but(|history| drop(history.log.pop())).verdict().unwrap();
    assert_eq!((report.lost, report.lost_but_done), (1, 0));
    let twice = history().then(write(put("a", "12"))).but(lost).but(|history| drop(history.calls.pop()));
    found_out(&twice, "nobody asked for revision 8");
}

type Tampering = &'static dyn Fn(&mut Vec<Group>);

#[test]
fn a_watcher_told_anything_but_the_log_is_found_out() {
    let log = history().log;
    let timeline = Timeline::new(&log).unwrap();
    let watched = Watched {
        name: "it".into(),
        prefix: "".into(),
        after: 2,
        state: None,
        previous: true,
        groups: log[2..].to_vec(),
    };
    let verdict = |change: &dyn Fn(&mut Vec<Group>)| {
        let mut watched = watched.clone();
        change(&mut watched.groups);
        check_watched(&timeline, &watched)
    };
    assert_eq!(verdict(&|_| ()), Ok(()));
    let tampered: [Tampering; 6] = [
        &|groups| drop(groups.remove(1)),
        &|groups| drop(groups.pop()),
        &|groups| groups.insert(1, groups[0].clone()),
        &|groups| groups.swap(0, 1),
        &|groups| drop(groups[0].events.pop()),
        &|groups| groups[0].events.reverse(),
    ];
    for (number, change) in tampered.into_iter().enumerate() {
        assert!(verdict(change).is_err(), "{number}");
    }
    let state = Some(timeline.state(b"", 1));
    assert!(check_watched(&timeline, &Watched { state, ..watched.clone() }).is_err(), "the state of another revision");
    let part = Watched { prefix: "b".into(), ..watched };
    assert!(check_watched(&timeline, &part).is_err(), "what lies outside");
}
