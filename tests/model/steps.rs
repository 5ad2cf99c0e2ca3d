//! Random steps: what a client may do with a handful of keys, and what may befall the server.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use proptest::{collection::vec, prelude::*, sample::select};
use tandem::{
    model::{duration_to_pb, timestamp_from_ms},
    pb::{self, condition::Kind as Is, expiry::Kind as Expires, key_range::Kind as Range},
};

/// Keys that lie in folders, beside each other, and at the edges of what bytes can be.
const KEYS: [&[u8]; 12] =
    [b"\0", b"a", b"a/", b"a/b", b"a/b/c", b"a/b/d", b"a/c", b"a0", b"b", b"b/\xff\xff", b"n", b"\xff"];

/// A condition, told by how it relates to what is there.
#[derive(Clone, Debug)]
pub enum If {
    Exists(bool),
    /// Of the entry as it is, or of another.
    Revision(bool),
    Version(bool),
    Value(bool),
}

impl If {
    pub fn to_pb(&self, entry: Option<&pb::Entry>) -> pb::Condition {
        let number = |current: u64, right: bool| if right { current } else { current + 7 };
        let kind = match self {
            Self::Exists(exists) => Is::Exists(*exists),
            Self::Revision(right) => Is::Revision(number(entry.map_or(0, |entry| entry.revision), *right)),
            Self::Version(right) => Is::Version(number(entry.map_or(0, |entry| entry.version), *right)),
            Self::Value(right) => match entry.filter(|_| *right) {
                Some(entry) => Is::Value(entry.value.clone()),
                None => Is::Value("never written".into()),
            },
        };
        pb::Condition { kind: Some(kind) }
    }
}

/// A write of one key.
#[derive(Clone, Debug)]
pub struct Write {
    pub key: Bytes,
    pub kind: WriteKind,
    pub condition: Option<If>,
    pub return_previous: bool,
}

#[derive(Clone, Debug)]
pub enum WriteKind {
    Put { value: Bytes, content_type: &'static str, expiry: Option<pb::Expiry> },
    Delete,
    Increment { by: Option<i64>, initial: i64, expiry: Option<pb::Expiry> },
    Touch(pb::Expiry),
}

/// What pages and scans take.
#[derive(Clone, Debug)]
pub struct Query {
    pub range: pb::KeyRange,
    pub start_after: Bytes,
    pub folded: bool,
    pub descending: bool,
    pub keys_only: bool,
    pub page_size: i32,
}

/// Where a watcher begins.
#[derive(Clone, Debug)]
pub enum From {
    Now,
    /// So many records back.
    Past(usize),
    State,
}

#[derive(Clone, Debug)]
pub enum Step {
    Get(Bytes),
    BatchGet(Vec<Bytes>),
    Write(Write),
    Batch(Vec<Write>),
    Txn {
        guards: Vec<(Bytes, If)>,
        then: Vec<Write>,
        otherwise: Vec<Write>,
        reads: Vec<Bytes>,
    },
    List(Query),
    Scan(Query),
    Count(pb::KeyRange),
    DeleteRange {
        range: pb::KeyRange,
        max_keys: u64,
    },
    Watch {
        range: pb::KeyRange,
        from: From,
        previous: bool,
        without_deletes: bool,
    },
    /// A key is put for a moment, and expires.
    Lapse(Bytes),
    Restart,
    /// `kill -9` once so many of these writes are answered.
    Kill {
        writes: Vec<Vec<Write>>,
        answered: usize,
    },
}

fn key() -> impl Strategy<Value = Bytes> {
    select(&KEYS[..]).prop_map(Bytes::from_static)
}

/// Two different keys in order, or a key and nothing.
fn range() -> impl Strategy<Value = pb::KeyRange> {
    let span = (key(), key()).prop_map(|(one, other)| match one.cmp(&other) {
        std::cmp::Ordering::Less => Range::Span(pb::Span { start: one, end: other }),
        std::cmp::Ordering::Greater => Range::Span(pb::Span { start: other, end: one }),
        std::cmp::Ordering::Equal => Range::Span(pb::Span { start: one, end: Bytes::new() }),
    });
    let prefix = select(&["a", "a/", "a/b", "b", "z"][..]).prop_map(|prefix| Range::Prefix(prefix.into()));
    let kind = prop_oneof![2 => span, 3 => prefix, 1 => key().prop_map(Range::Key), 2 => Just(Range::All(true))];
    kind.prop_map(|kind| pb::KeyRange { kind: Some(kind) })
}

/// Never one that comes while the test runs.
fn expiry() -> impl Strategy<Value = pb::Expiry> {
    let hours = (1..100_u64).prop_map(|hours| Expires::Ttl(duration_to_pb(Duration::from_secs(hours * 3_600))));
    let at = (3_600_000..1_000_000_000_u64).prop_map(|ms| {
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        Expires::ExpireTime(timestamp_from_ms(u64::try_from(now_ms).unwrap() + ms))
    });
    prop_oneof![hours, at, Just(Expires::Never(true))].prop_map(|kind| pb::Expiry { kind: Some(kind) })
}

fn condition() -> impl Strategy<Value = If> {
    prop_oneof![
        any::<bool>().prop_map(If::Exists),
        any::<bool>().prop_map(If::Revision),
        any::<bool>().prop_map(If::Version),
        any::<bool>().prop_map(If::Value),
    ]
}

fn write() -> impl Strategy<Value = Write> {
    let value = prop_oneof![
        4 => vec(any::<u8>(), 0..40).prop_map(Bytes::from),
        // Larger than what the arena keeps in place.
        1 => (any::<u8>(), 9_000..20_000_usize).prop_map(|(byte, length)| vec![byte; length].into()),
        2 => any::<i32>().prop_map(|number| number.to_string().into()),
        1 => Just(i64::MAX.to_string().into()),
    ];
    let keep = Just(pb::Expiry { kind: Some(Expires::Keep(true)) });
    let put = (
        value,
        select(&["", "text/plain", "a/b; c=d"][..]),
        proptest::option::of(prop_oneof![3 => expiry(), 1 => keep]),
    )
        .prop_map(|(value, content_type, expiry)| WriteKind::Put { value, content_type, expiry });
    let increment = (proptest::option::of(-5..1_000_i64), -3..3_i64, proptest::option::of(expiry()))
        .prop_map(|(by, initial, expiry)| WriteKind::Increment { by, initial, expiry });
    let kind = prop_oneof![
        5 => put,
        2 => Just(WriteKind::Delete),
        2 => increment,
        2 => expiry().prop_map(WriteKind::Touch),
    ];
    (key(), kind, proptest::option::weighted(0.3, condition()), any::<bool>())
        .prop_map(|(key, kind, condition, return_previous)| Write { key, kind, condition, return_previous })
}

/// Writes of different keys.
fn writes(most: usize) -> impl Strategy<Value = Vec<Write>> {
    vec(write(), 1..=most).prop_map(|mut writes| {
        let mut keys = std::collections::HashSet::new();
        writes.retain(|write| keys.insert(write.key.clone()));
        writes
    })
}

fn query() -> impl Strategy<Value = Query> {
    let start_after = prop_oneof![2 => Just(Bytes::new()), 1 => key()];
    (range(), start_after, any::<[bool; 3]>(), 0..6).prop_map(
        |(range, start_after, [folded, descending, keys_only], page_size)| Query {
            range,
            start_after,
            folded,
            descending,
            keys_only,
            page_size,
        },
    )
}

fn watch() -> impl Strategy<Value = Step> {
    let from = prop_oneof![Just(From::Now), (0..8_usize).prop_map(From::Past), Just(From::State)];
    (range(), from, any::<bool>(), any::<bool>()).prop_map(|(range, from, previous, without_deletes)| Step::Watch {
        range,
        from,
        previous,
        without_deletes,
    })
}

/// Writes that are under way when the server is killed: each request has keys of its own.
fn kill() -> impl Strategy<Value = Step> {
    (writes(6), 0..4_usize).prop_map(|(writes, answered)| {
        let (together, alone) = writes.split_at(writes.len() / 2);
        let mut writes: Vec<_> = alone.iter().map(|write| vec![write.clone()]).collect();
        if !together.is_empty() {
            writes.push(together.to_vec());
        }
        Step::Kill { answered: answered.min(writes.len()), writes }
    })
}

fn step() -> impl Strategy<Value = Step> {
    let txn = (
        vec((key(), condition()), 0..3),
        proptest::option::of(writes(4)),
        proptest::option::of(writes(2)),
        vec(key(), 0..3),
    )
        .prop_map(|(guards, then, otherwise, reads)| Step::Txn {
            guards,
            then: then.unwrap_or_default(),
            otherwise: otherwise.unwrap_or_default(),
            reads,
        });
    prop_oneof![
        4 => key().prop_map(Step::Get),
        2 => vec(key(), 1..8).prop_map(Step::BatchGet),
        24 => write().prop_map(Step::Write),
        6 => writes(6).prop_map(Step::Batch),
        8 => txn,
        4 => query().prop_map(Step::List),
        4 => query().prop_map(Step::Scan),
        2 => range().prop_map(Step::Count),
        2 => (range(), 0..4_u64).prop_map(|(range, max_keys)| Step::DeleteRange { range, max_keys }),
        4 => watch(),
        1 => key().prop_map(Step::Lapse),
        1 => Just(Step::Restart),
        1 => kill(),
    ]
}

/// Steps, and through which of the two doors each goes.
pub fn steps() -> impl Strategy<Value = Vec<(Step, bool)>> {
    vec((step(), any::<bool>()), 120..160)
}
