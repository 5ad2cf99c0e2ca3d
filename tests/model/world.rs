//! A server, its two doors, and the map that it must be like: takes steps, and compares each answer.

use std::sync::Arc;

use bytes::Bytes;
use tandem::{
    model::duration_to_pb,
    pb::{self, EventKind, expiry::Kind as Expires, key_range::Kind as Range, txn_op, write_op::Op},
};

use crate::{
    asks::{Ask, Told},
    doors::{Answered, BROKEN_OFF, Door},
    map::{Item, Map, contains},
    steps::{From, If, Query, Step, Write, WriteKind},
    support::Server,
};

pub struct World {
    data: tempfile::TempDir,
    server: Server,
    /// gRPC, REST.
    doors: [Arc<Door>; 2],
    map: Map,
    /// The newest that an answer named.
    revision: u64,
}

fn all() -> pb::KeyRange {
    pb::KeyRange { kind: Some(Range::All(true)) }
}

fn put(key: Bytes, ttl_ms: Option<u64>) -> Op {
    let ttl = |ms| Expires::Ttl(duration_to_pb(std::time::Duration::from_millis(ms)));
    let expiry = ttl_ms.map(|ms| pb::Expiry { kind: Some(ttl(ms)) });
    Op::Put(pb::PutRequest { key, value: "here".into(), expiry, ..Default::default() })
}

/// The condition is that of REST's routes for one key too.
fn rest_can(ask: &Ask) -> bool {
    use pb::condition::Kind as Is;
    let conditions = match ask {
        Ask::Write(Op::Put(request)) => &request.conditions,
        Ask::Write(Op::Delete(request)) => &request.conditions,
        Ask::Write(Op::Increment(request)) => &request.conditions,
        Ask::Write(Op::Touch(request)) => &request.conditions,
        _ => return true,
    };
    !conditions.iter().any(|condition| matches!(condition.kind, Some(Is::Value(_) | Is::Revision(0))))
}

impl World {
    pub async fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let server = Server::start(data.path());
        let doors = doors(&server).await;
        Self { data, server, doors, map: Map::default(), revision: 0 }
    }

    /// The whole once more, and a clean stop.
    pub async fn end(self) {
        self.compare().await;
        assert_eq!(self.server.stop(), Some(0));
    }

    pub async fn take(&mut self, step: Step, over_rest: bool) {
        match step {
            Step::Get(key) => self.ask(Ask::Get(key), over_rest).await,
            Step::BatchGet(keys) => self.ask(Ask::BatchGet(keys), over_rest).await,
            Step::Write(write) => self.ask(Ask::Write(self.op(&write)), over_rest).await,
            Step::Batch(writes) => self.ask(self.batch(&writes), over_rest).await,
            Step::Txn { guards, then, otherwise, reads } => {
                let ask = self.txn(&guards, &then, &otherwise, &reads);
                self.ask(ask, over_rest).await;
            }
            Step::List(query) => self.list(&query, over_rest).await,
            Step::Scan(query) => self.scan(&query, over_rest).await,
            Step::Count(range) => self.count(range, over_rest).await,
            Step::DeleteRange { range, max_keys } => self.delete_range(range, max_keys, over_rest).await,
            Step::Watch { range, from, previous, without_deletes } => {
                self.watch(range, from, previous, without_deletes, over_rest).await;
            }
            Step::Lapse(key) => self.lapse(key, over_rest).await,
            Step::Restart => self.restart().await,
            Step::Kill { writes, answered } => self.kill(&writes, answered, over_rest).await,
        }
    }

    fn op(&self, write: &Write) -> Op {
        let Write { key, return_previous, .. } = write;
        let (key, return_previous, options) = (key.clone(), *return_previous, None);
        let entry = self.map.entries.get(&key);
        let conditions = write.condition.iter().map(|condition| condition.to_pb(entry)).collect();
        match write.kind.clone() {
            WriteKind::Put { value, content_type, expiry } => Op::Put(pb::PutRequest {
                key,
                value,
                expiry,
                content_type: content_type.into(),
                conditions,
                return_previous,
                options,
            }),
            WriteKind::Delete => Op::Delete(pb::DeleteRequest { key, conditions, return_previous, options }),
            WriteKind::Increment { by, initial, expiry } => {
                Op::Increment(pb::IncrementRequest { key, by, expiry, conditions, return_previous, initial, options })
            }
            WriteKind::Touch(expiry) => {
                Op::Touch(pb::TouchRequest { key, expiry: Some(expiry), conditions, return_previous, options })
            }
        }
    }

    fn batch(&self, writes: &[Write]) -> Ask {
        let writes = writes.iter().map(|write| pb::WriteOp { op: Some(self.op(write)) }).collect();
        Ask::Batch(pb::BatchWriteRequest { writes, options: None })
    }

    fn txn(&self, guards: &[(Bytes, If)], then: &[Write], otherwise: &[Write], reads: &[Bytes]) -> Ask {
        let guard = |(key, condition): &(Bytes, If)| pb::Guard {
            key: key.clone(),
            conditions: vec![condition.to_pb(self.map.entries.get(key))],
        };
        let branch = |writes: &[Write]| {
            let write = |write| txn_op::Op::Write(pb::WriteOp { op: Some(self.op(write)) });
            let get = |key: &Bytes| txn_op::Op::Get(pb::GetRequest { key: key.clone(), metadata_only: false });
            let ops = writes.iter().map(write).chain(reads.iter().map(get));
            ops.map(|op| pb::TxnOp { op: Some(op) }).collect()
        };
        let guards = guards.iter().map(guard).collect();
        Ask::Txn(pb::TxnRequest { guards, then: branch(then), otherwise: branch(otherwise), options: None })
    }

    fn door(&self, over_rest: bool) -> &Arc<Door> {
        &self.doors[usize::from(over_rest)]
    }

    /// A state that was read shows at least all that is known.
    fn saw(&mut self, revision: u64) {
        assert!(revision >= self.revision, "a read shows {revision} after {}", self.revision);
        self.revision = revision;
    }

    async fn ask(&mut self, ask: Ask, over_rest: bool) {
        let over_rest = over_rest && rest_can(&ask);
        let answer = ask.through(self.door(over_rest)).await;
        self.compare_answer(&ask, &answer, over_rest);
        let Ok(told) = answer else { return };
        if !ask.writes() {
            return self.saw(told.revision);
        }
        assert!(told.revision > self.revision, "a write of {} after {}", told.revision, self.revision);
        self.revision = told.revision;
        // Read back through the other door.
        let keys = ask.keys();
        let request = pb::BatchGetRequest { keys, metadata_only: false };
        let read = self.door(!over_rest).batch_get(request).await.unwrap();
        let entries: Vec<_> = read
            .results
            .into_iter()
            .filter_map(|result| match result.kind {
                Some(pb::read_result::Kind::Entry(entry)) => Some(entry),
                _ => None,
            })
            .collect();
        let expected = ask.expected(|key| self.map.get(key), told.revision).unwrap();
        self.map.happen(told.revision, &expected.done, |key| entries.iter().find(|entry| entry.key == key).cloned());
        self.saw(read.store_revision);
    }

    fn compare_answer(&self, ask: &Ask, answer: &Answered<Told>, over_rest: bool) {
        let revision = answer.as_ref().map_or(u64::MAX, |told| told.revision);
        match (answer, ask.expected(|key| self.map.get(key), revision)) {
            (Ok(told), Ok(expected)) => ask.check(told, &expected, over_rest).unwrap_or_else(|why| panic!("{why}")),
            (Err(refused), Err(reason)) => {
                assert_eq!(refused.reason, reason, "{ask:?}");
                assert_eq!(refused.outcome.as_deref(), ask.writes().then_some("NOT_APPLIED"), "{ask:?}");
                if let (Some(revision), [key]) = (refused.current_revision, ask.keys().as_slice()) {
                    assert_eq!(revision, self.map.get(key).map_or(0, |entry| entry.revision), "{ask:?}");
                }
            }
            (answer, expected) => panic!("{ask:?} should be answered by {expected:?}, and was by {answer:?}"),
        }
    }

    async fn list(&mut self, query: &Query, over_rest: bool) {
        let mut request = pb::ListRequest {
            range: Some(query.range.clone()),
            page_size: query.page_size,
            start_after: query.start_after.clone(),
            delimiter: if query.folded { "/".into() } else { Bytes::new() },
            descending: query.descending,
            keys_only: query.keys_only,
            page_token: Bytes::new(),
        };
        let (mut entries, mut prefixes) = (Vec::new(), Vec::new());
        loop {
            let page = self.door(over_rest).list(request.clone()).await.unwrap();
            let found = page.entries.len() + page.common_prefixes.len();
            assert!(found <= if query.page_size == 0 { 100 } else { query.page_size as usize }, "{query:?}: {found}");
            entries.extend(page.entries);
            prefixes.extend(page.common_prefixes);
            self.saw(page.store_revision);
            if page.next_page_token.is_empty() {
                break;
            }
            request.page_token = page.next_page_token;
            let other = pb::ListRequest { descending: !query.descending, ..request.clone() };
            let refused = self.door(over_rest).list(other).await.unwrap_err();
            assert_eq!(refused.reason, "PAGE_TOKEN_INVALID");
        }
        self.compare_found(query, entries, prefixes);
    }

    async fn scan(&mut self, query: &Query, over_rest: bool) {
        let request = pb::ScanRequest {
            range: Some(query.range.clone()),
            start_after: query.start_after.clone(),
            delimiter: if query.folded { "/".into() } else { Bytes::new() },
            descending: query.descending,
            keys_only: query.keys_only,
        };
        let found = self.door(over_rest).scan(request).await.unwrap();
        self.compare_found(query, found.entries, found.common_prefixes);
    }

    fn compare_found(&self, query: &Query, entries: Vec<pb::Entry>, prefixes: Vec<Bytes>) {
        let (expected_entries, expected_prefixes): (Vec<_>, Vec<_>) =
            self.map.find(query).into_iter().partition(|item| matches!(item, Item::Entry(_)));
        let entries: Vec<_> = entries.into_iter().map(Item::Entry).collect();
        let prefixes: Vec<_> = prefixes.into_iter().map(Item::Folder).collect();
        assert_eq!((entries, prefixes), (expected_entries, expected_prefixes), "{query:?}");
    }

    async fn count(&mut self, range: pb::KeyRange, over_rest: bool) {
        let expected = self.map.keys(&range).len() as u64;
        let counted = self.door(over_rest).count(pb::CountRequest { range: Some(range.clone()) }).await.unwrap();
        assert_eq!(counted.count, expected, "{range:?}");
        self.saw(counted.store_revision);
    }

    async fn delete_range(&mut self, range: pb::KeyRange, max_keys: u64, over_rest: bool) {
        let mut keys = self.map.keys(&range);
        let most = if max_keys == 0 { usize::MAX } else { max_keys as usize };
        let complete = keys.len() <= most;
        keys.truncate(most);
        let request = pb::DeleteRangeRequest { range: Some(range), max_keys, options: None };
        let told = self.door(over_rest).delete_range(request.clone()).await.unwrap();
        assert_eq!((told.deleted, told.complete), (keys.len() as u64, complete), "{request:?}");
        let revision = told.result.unwrap().revision;
        assert!(revision > self.revision);
        self.revision = revision;
        self.map.remove(revision, EventKind::Delete, keys);
    }

    async fn watch(&mut self, range: pb::KeyRange, from: From, previous: bool, without_deletes: bool, over_rest: bool) {
        let kinds = [EventKind::Put, EventKind::Touch, EventKind::Expire].map(i32::from);
        let mut request = pb::WatchRequest {
            range: Some(range.clone()),
            initial_state: matches!(from, From::State),
            previous,
            kinds: if without_deletes { kinds.to_vec() } else { Vec::new() },
            ..Default::default()
        };
        let mut first = self.map.log.len();
        if let From::Past(records) = from {
            first = first.saturating_sub(records);
            request.start_revision = self.map.log.get(first).map_or(self.revision + 1, |(revision, _)| *revision);
        }
        let mut watcher = self.door(over_rest).watch(request).await.unwrap();
        if let From::State = from {
            let mut state = Vec::new();
            let synced = loop {
                let message = watcher.next_news().await;
                if message.synced {
                    break message.revision;
                }
                assert!(message.partial);
                state.extend(message.events.into_iter().map(|event| event.entry.unwrap()));
            };
            let expected: Vec<_> = self.map.keys(&range).iter().filter_map(|key| self.map.get(key)).collect();
            assert_eq!(state, expected, "{range:?}");
            self.saw(synced);
        } else {
            let hello = watcher.next().await.unwrap();
            assert!(hello.events.is_empty(), "{hello:?}");
        }
        // Something that it must hear, so that what it did not hear is known.
        let within = match range.kind.clone().unwrap() {
            Range::Prefix(key) | Range::Key(key) => key,
            Range::Span(span) => span.start,
            Range::All(_) => "a".into(),
        };
        self.ask(Ask::Write(put(within, None)), !over_rest).await;
        for (revision, events) in &self.map.log[first..] {
            let mut expected: Vec<_> = events
                .iter()
                .filter(|event| contains(&range, &event.entry.as_ref().unwrap().key))
                .filter(|event| !without_deletes || event.kind() != EventKind::Delete)
                .cloned()
                .collect();
            if expected.is_empty() {
                continue;
            }
            if !previous {
                expected.iter_mut().for_each(|event| event.previous = None);
            }
            let message = watcher.next_news().await;
            assert_eq!((message.revision, message.events, message.partial), (*revision, expected, false), "{range:?}");
        }
    }

    /// Puts a key whose time comes at once, and hears of both from a watcher.
    async fn lapse(&mut self, key: Bytes, over_rest: bool) {
        let ask = Ask::Write(put(key.clone(), Some(1)));
        let told = ask.through(self.door(over_rest)).await.unwrap();
        let expected = ask.expected(|key| self.map.get(key), told.revision).unwrap();
        ask.check(&told, &expected, over_rest).unwrap_or_else(|why| panic!("{why}"));
        let range = Some(pb::KeyRange { kind: Some(Range::Key(key.clone())) });
        let request = pb::WatchRequest { range, start_revision: told.revision, ..Default::default() };
        let mut watcher = self.door(!over_rest).watch(request).await.unwrap();
        let written = watcher.next_news().await;
        assert_eq!(written.revision, told.revision);
        self.map.happen(told.revision, &expected.done, |_| written.events[0].entry.clone());
        let expired = watcher.next_news().await;
        assert_eq!((expired.events.len(), expired.events[0].kind()), (1, EventKind::Expire));
        self.map.remove(expired.revision, EventKind::Expire, vec![key.clone()]);
        self.revision = expired.revision;
        self.ask(Ask::Get(key), over_rest).await;
    }

    async fn restart(&mut self) {
        self.server.signal("TERM");
        assert_eq!(self.server.exit_code(), Some(0));
        self.start_again().await;
        self.compare().await;
    }

    async fn start_again(&mut self) {
        self.server = Server::start(self.data.path());
        self.doors = doors(&self.server).await;
    }

    /// Kills the server while writes are under way, once some are answered. What was acknowledged is there, what was not is
    /// there or not, whole.
    async fn kill(&mut self, writes: &[Vec<Write>], answered: usize, over_rest: bool) {
        let (sender, mut answers) = tokio::sync::mpsc::unbounded_channel();
        for (number, writes) in writes.iter().enumerate() {
            let ask = match writes.as_slice() {
                [write] => Ask::Write(self.op(write)),
                writes => self.batch(writes),
            };
            let over_rest = (over_rest ^ (number % 2 == 1)) && rest_can(&ask);
            let (door, sender) = (Arc::clone(self.door(over_rest)), sender.clone());
            tokio::spawn(async move {
                let answer = ask.through(&door).await;
                let _ = sender.send((ask, answer, over_rest));
            });
        }
        drop(sender);
        let mut asked = Vec::new();
        while asked.len() < answered {
            asked.push(answers.recv().await.unwrap());
        }
        self.server.signal("KILL");
        self.server.exit_code();
        while let Some(answer) = answers.recv().await {
            asked.push(answer);
        }
        self.start_again().await;
        self.resolve(asked).await;
        self.compare().await;
    }

    /// Finds out by the log what happened of what was asked. Each has keys of its own.
    async fn resolve(&mut self, mut asked: Vec<(Ask, Answered<Told>, bool)>) {
        let request = pb::WatchRequest {
            range: Some(all()),
            start_revision: self.revision + 1,
            previous: true,
            ..Default::default()
        };
        let mut watcher = self.door(false).watch(request).await.unwrap();
        // Something that comes last.
        let last = Ask::Write(put("last".into(), None));
        let told = last.through(self.door(true)).await.unwrap();
        let last_revision = told.revision;
        asked.push((last, Ok(told), true));
        while self.revision < last_revision {
            let message = watcher.next_news().await;
            let (revision, events) = (message.revision, message.events);
            let is_it = |(ask, answer, _): &(Ask, Answered<Told>, bool)| {
                let state = |key: &Bytes| self.map.get(key);
                answer.as_ref().map_or_else(|lost| lost.reason == BROKEN_OFF, |told| told.revision == revision)
                    && ask.expected(state, revision).is_ok_and(|expected| {
                        expected.done.len() == events.len()
                            && expected.done.iter().zip(&events).all(|(done, event)| {
                                let entry = event.entry.as_ref().unwrap();
                                let after = Some(entry).filter(|_| event.kind() != EventKind::Delete);
                                entry.key == done.key && event.kind() == done.kind && done.check(after).is_ok()
                            })
                    })
            };
            let found = asked.iter().position(is_it).unwrap_or_else(|| panic!("{events:?} is none of {asked:?}"));
            let (ask, answer, over_rest) = asked.remove(found);
            if answer.is_ok() {
                self.compare_answer(&ask, &answer, over_rest);
            }
            let expected = ask.expected(|key| self.map.get(key), revision).unwrap();
            let entry =
                |key: &Bytes| events.iter().filter_map(|event| event.entry.clone()).find(|entry| entry.key == key);
            self.map.happen(revision, &expected.done, |key| entry(key).filter(|entry| entry.version > 0));
            assert_eq!(self.map.log.last().unwrap().1, events);
            self.revision = revision;
        }
        for (ask, answer, over_rest) in asked {
            match &answer {
                // It did not happen: the comparison of everything will tell.
                Err(lost) if lost.reason == BROKEN_OFF => {}
                Err(_) => self.compare_answer(&ask, &answer, over_rest),
                Ok(told) => {
                    let expected = ask.expected(|key| self.map.get(key), told.revision).unwrap();
                    assert!(expected.done.is_empty(), "acknowledged and lost: {ask:?} {told:?}");
                    self.compare_answer(&ask, &answer, over_rest);
                }
            }
        }
    }

    /// Everything, through both doors.
    async fn compare(&self) {
        for door in &self.doors {
            let found = door.scan(pb::ScanRequest { range: Some(all()), ..Default::default() }).await.unwrap();
            let expected: Vec<_> = self.map.entries.values().cloned().collect();
            assert_eq!(found.entries, expected);
        }
    }
}

async fn doors(server: &Server) -> [Arc<Door>; 2] {
    [Arc::new(Door::over_grpc(&server.grpc).await), Arc::new(Door::over_rest(&server.http))]
}
