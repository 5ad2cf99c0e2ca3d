//! The domain's words for what keys hold, and the only conversions between them and the schema.

pub mod wire;

use std::time::Duration;

use bytes::Bytes;
use prost_types::Timestamp;

use crate::{
    error::{Error, Reason, Result},
    limits::{TTL_MS_MAX, TTL_MS_MIN},
    pb,
};

/// Content type of values that came without one.
pub const CONTENT_TYPE_DEFAULT: &str = "application/octet-stream";
/// Content type of counters.
pub const CONTENT_TYPE_COUNTER: &str = "text/plain";

/// What the store keeps of an entry besides key, value and content type. Times are milliseconds since 1970 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Revision of the write that last changed the entry.
    pub revision: u64,
    /// Revision of the write that created the key.
    pub create_revision: u64,
    /// 1 at creation, one more with each write.
    pub version: u64,
    /// When the entry was last written or touched.
    pub update_time_ms: u64,
    /// When it expires; `None`: never.
    pub expire_time_ms: Option<u64>,
}

impl Metadata {
    /// The entry of this metadata as clients read it.
    pub fn to_pb(&self, key: Bytes, value: Bytes, content_type: String) -> pb::Entry {
        pb::Entry {
            key,
            value,
            revision: self.revision,
            create_revision: self.create_revision,
            version: self.version,
            expire_time: self.expire_time_ms.map(timestamp_from_ms),
            update_time: Some(timestamp_from_ms(self.update_time_ms)),
            content_type,
        }
    }

    /// Whether the entry is gone at `time_ms`: from its deadline on.
    pub fn expired_at(&self, time_ms: u64) -> bool {
        self.expire_time_ms.is_some_and(|deadline_ms| deadline_ms <= time_ms)
    }
}

/// A value where the store keeps it: small ones in place, large ones shared.
#[derive(Clone, Copy, Debug)]
pub enum ValueRef<'store> {
    /// Bytes within the arena: copied out.
    Inline(&'store [u8]),
    /// Bytes outside it: shared.
    Shared(&'store Bytes),
}

impl ValueRef<'_> {
    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::Inline(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }

    /// The bytes, to keep: a copy of a small value, a share of a large one.
    pub fn to_bytes(&self) -> Bytes {
        match self {
            Self::Inline(bytes) => Bytes::copy_from_slice(bytes),
            Self::Shared(bytes) => Bytes::clone(bytes),
        }
    }
}

/// An entry where the store keeps it.
#[derive(Clone, Copy, Debug)]
pub struct EntryRef<'store> {
    /// The key.
    pub key: &'store [u8],
    /// The value.
    pub value: ValueRef<'store>,
    /// Media type of the value.
    pub content_type: &'store str,
    /// The rest.
    pub metadata: Metadata,
}

impl<'entry> EntryRef<'entry> {
    /// An entry that was read, as if it were still in the store.
    pub fn of_pb(entry: &'entry pb::Entry) -> Self {
        Self {
            key: &entry.key,
            value: ValueRef::Shared(&entry.value),
            content_type: &entry.content_type,
            metadata: Metadata {
                revision: entry.revision,
                create_revision: entry.create_revision,
                version: entry.version,
                update_time_ms: entry.update_time.as_ref().and_then(ms_from_timestamp).unwrap_or(0),
                expire_time_ms: entry.expire_time.as_ref().and_then(ms_from_timestamp),
            },
        }
    }

    /// The entry as clients read it, with or without its value.
    pub fn to_pb(&self, with_value: bool) -> pb::Entry {
        let value = if with_value { self.value.to_bytes() } else { Bytes::new() };
        self.metadata.to_pb(Bytes::copy_from_slice(self.key), value, self.content_type.to_owned())
    }

    /// Bytes of its content type and of its value, unless that is shared.
    pub fn inline_bytes(&self) -> usize {
        let value_bytes = match self.value {
            ValueRef::Inline(value) => value.len(),
            ValueRef::Shared(_) => 0,
        };
        self.content_type.len() + value_bytes
    }
}

/// Milliseconds as the schema's timestamp.
pub fn timestamp_from_ms(time_ms: u64) -> Timestamp {
    Timestamp {
        seconds: i64::try_from(time_ms / 1_000).unwrap_or(i64::MAX),
        nanos: i32::try_from(time_ms % 1_000 * 1_000_000).unwrap_or(0),
    }
}

/// The schema's timestamp as milliseconds, what is finer cut off; `None` before 1970 or with nanos out of range.
pub fn ms_from_timestamp(timestamp: &Timestamp) -> Option<u64> {
    let nanos = u64::try_from(timestamp.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    u64::try_from(timestamp.seconds).ok()?.checked_mul(1_000)?.checked_add(nanos / 1_000_000)
}

/// The schema's duration as milliseconds, what is finer cut off; `None` if negative or with nanos out of range.
pub fn ms_from_duration(duration: &prost_types::Duration) -> Option<u64> {
    let nanos = u64::try_from(duration.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    u64::try_from(duration.seconds).ok()?.checked_mul(1_000)?.checked_add(nanos / 1_000_000)
}

/// A duration as the schema's.
pub fn duration_to_pb(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0),
    }
}

/// When a write lets its entry expire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// So many milliseconds after the write.
    TtlMs(u64),
    /// At this time.
    AtMs(u64),
    /// As before; a new key never.
    Keep,
    /// Never.
    Never,
}

impl Expiry {
    /// The checked meaning of the schema's expiry; `None` where it is unset.
    pub fn from_pb(expiry: Option<&pb::Expiry>) -> Result<Option<Self>> {
        use pb::expiry::Kind;
        let Some(kind) = expiry.and_then(|expiry| expiry.kind.as_ref()) else {
            return Ok(None);
        };
        match kind {
            Kind::Ttl(ttl) => match ms_from_duration(ttl) {
                Some(ttl_ms) if (TTL_MS_MIN..=TTL_MS_MAX).contains(&ttl_ms) => Ok(Some(Self::TtlMs(ttl_ms))),
                _ => Err(Error::invalid_field(
                    "expiry.ttl",
                    "a ttl lies between 1 ms and 10 years; to let an entry stay, ask for `never`",
                )
                .with(|details| details.limit = Some(TTL_MS_MAX))),
            },
            Kind::ExpireTime(time) => match ms_from_timestamp(time) {
                Some(time_ms) if time_ms > 0 && time_ms < 1 << 48 => Ok(Some(Self::AtMs(time_ms))),
                _ => Err(Error::invalid_field(
                    "expiry.expire_time",
                    "the time is out of range: send one that lies ahead",
                )),
            },
            Kind::Keep(true) => Ok(Some(Self::Keep)),
            Kind::Never(true) => Ok(Some(Self::Never)),
            Kind::Keep(false) => Err(Error::invalid_field("expiry.keep", "`keep` is true or left out")),
            Kind::Never(false) => Err(Error::invalid_field("expiry.never", "`never` is true or left out")),
        }
    }

    /// The meaning of an expiry that the log holds: it was checked before it was logged, and `apply` knows no limits.
    pub fn from_record(expiry: Option<&pb::Expiry>) -> Option<Self> {
        use pb::expiry::Kind;
        match expiry?.kind.as_ref()? {
            Kind::Ttl(ttl) => ms_from_duration(ttl).map(Self::TtlMs),
            Kind::ExpireTime(time) => ms_from_timestamp(time).map(Self::AtMs),
            Kind::Keep(_) => Some(Self::Keep),
            Kind::Never(_) => Some(Self::Never),
        }
    }

    /// The deadline of an entry written at `time_ms` whose deadline before was `current_ms`.
    pub fn deadline_ms(self, time_ms: u64, current_ms: Option<u64>) -> Option<u64> {
        match self {
            Self::TtlMs(ttl_ms) => Some(time_ms.saturating_add(ttl_ms)),
            Self::AtMs(deadline_ms) => Some(deadline_ms),
            Self::Keep => current_ms,
            Self::Never => None,
        }
    }
}

/// The conditions of a write: all that are set must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// The key exists, or is absent.
    pub exists: Option<bool>,
    /// The entry has this revision; 0: the key is absent.
    pub revision: Option<u64>,
    /// The entry has this version; 0: the key is absent.
    pub version: Option<u64>,
    /// The entry has this value.
    pub value: Option<Bytes>,
}

impl Conditions {
    /// The checked meaning of the schema's conditions: one of each kind at most, none that clash.
    pub fn from_pb(conditions: &[pb::Condition]) -> Result<Self> {
        use pb::condition::Kind;
        let mut all = Self::default();
        for condition in conditions {
            let repeated = match &condition.kind {
                None => {
                    return Err(Error::invalid_field(
                        "conditions",
                        "a condition is empty: set exists, revision, version or value",
                    ));
                }
                Some(Kind::Exists(exists)) => all.exists.replace(*exists).is_some(),
                Some(Kind::Revision(revision)) => all.revision.replace(*revision).is_some(),
                Some(Kind::Version(version)) => all.version.replace(*version).is_some(),
                Some(Kind::Value(value)) => all.value.replace(value.clone()).is_some(),
            };
            if repeated {
                return Err(Error::invalid_field(
                    "conditions",
                    "two conditions of one kind: send one of each kind at most",
                ));
            }
        }
        if all.wants_absent() && all.wants_present() {
            return Err(Error::invalid_field(
                "conditions",
                "the conditions clash: one wants the key absent, another present",
            ));
        }
        Ok(all)
    }

    /// Whether a condition can hold for an absent key only.
    fn wants_absent(&self) -> bool {
        self.exists == Some(false) || self.revision == Some(0) || self.version == Some(0)
    }

    /// Whether a condition can hold for an existing key only.
    fn wants_present(&self) -> bool {
        self.exists == Some(true)
            || self.revision.is_some_and(|revision| revision > 0)
            || self.version.is_some_and(|version| version > 0)
            || self.value.is_some()
    }

    /// Whether there is nothing to check.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Judges the conditions against what the key holds.
    pub fn check(&self, entry: Option<&EntryRef<'_>>) -> Result<(), Refusal> {
        let holds = match entry {
            None => !self.wants_present(),
            Some(entry) => {
                !self.wants_absent()
                    && self.revision.is_none_or(|revision| revision == entry.metadata.revision)
                    && self.version.is_none_or(|version| version == entry.metadata.version)
                    && self.value.as_ref().is_none_or(|value| value == entry.value.as_slice())
            }
        };
        if holds {
            return Ok(());
        }
        let reason = if self.wants_absent() { Reason::KeyExists } else { Reason::ConditionFailed };
        Err(Refusal::new(reason, entry))
    }
}

/// Why a write did not happen when it was judged: small, because the retry window remembers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The reason.
    pub reason: Reason,
    /// Revision of what the key held; 0: it was absent.
    pub current_revision: u64,
}

impl Refusal {
    /// A refusal of a write that met `entry`.
    pub fn new(reason: Reason, entry: Option<&EntryRef<'_>>) -> Self {
        Self { reason, current_revision: entry.map_or(0, |entry| entry.metadata.revision) }
    }

    /// As clients see it.
    pub fn to_error(self) -> Error {
        let absent = self.current_revision == 0;
        let text = match self.reason {
            Reason::KeyNotFound => "the key is absent",
            Reason::KeyExists => "the key exists, and the write asked for an absent one",
            Reason::ConditionFailed if absent => "the key is absent, and a condition asked for it to be there",
            Reason::ConditionFailed => "a condition did not hold: read the entry again and decide anew",
            Reason::NotAnInteger => {
                "the value is not an integer that could be added to: it takes decimal digits, perhaps a leading minus, no \
                 leading zeros, and 64 bits"
            }
            Reason::IntegerOverflow => "the sum does not fit in a signed 64-bit integer: nothing was added",
            Reason::RequestIdReused => {
                "the request id was used before for another command: choose a new id for each new command"
            }
            Reason::MemoryLimit => "the store's address space is used up: delete keys",
            _ => "the write was refused",
        };
        let error = Error::new(self.reason, text);
        match self.reason {
            Reason::KeyExists | Reason::ConditionFailed => {
                error.with(|details| details.current_revision = Some(self.current_revision))
            }
            _ => error,
        }
    }
}

/// A half-open range of keys in byte order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySpan {
    /// First key.
    pub start: Bytes,
    /// First key behind the range; `None`: it is open.
    pub end: Option<Bytes>,
    /// How many bytes of each key the range's own prefix takes: folding begins behind it.
    pub prefix_bytes: usize,
}

impl KeySpan {
    /// The checked meaning of the schema's range. An empty prefix means all.
    pub fn from_pb(range: Option<&pb::KeyRange>) -> Result<Self> {
        use pb::key_range::Kind;
        let kind = range
            .and_then(|range| range.kind.as_ref())
            .ok_or_else(|| Error::invalid_field("range", "the range is unset: send prefix, span, key or all"))?;
        match kind {
            Kind::Prefix(prefix) => {
                Ok(Self { start: prefix.clone(), end: successor(prefix), prefix_bytes: prefix.len() })
            }
            Kind::Span(span) => {
                let end = Some(span.end.clone()).filter(|end| !end.is_empty());
                if end.as_ref().is_some_and(|end| *end < span.start) {
                    return Err(Error::invalid_field("range.span", "the span's end lies before its start"));
                }
                Ok(Self { start: span.start.clone(), end, prefix_bytes: 0 })
            }
            Kind::Key(key) if key.is_empty() => {
                Err(Error::new(Reason::KeyEmpty, "the key is empty: a key has at least one byte")
                    .with(|details| details.field = Some("range.key".into())))
            }
            Kind::Key(key) => {
                let end = [&key[..], &[0]].concat().into();
                Ok(Self { start: key.clone(), end: Some(end), prefix_bytes: 0 })
            }
            Kind::All(true) => Ok(Self { start: Bytes::new(), end: None, prefix_bytes: 0 }),
            Kind::All(false) => Err(Error::invalid_field("range.all", "`all` is true or left out")),
        }
    }

    /// Whether a key lies in it.
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= &self.start[..] && self.end.as_ref().is_none_or(|end| key < &end[..])
    }
}

/// The first key behind all keys with this prefix; `None` if there is none.
pub fn successor(prefix: &[u8]) -> Option<Bytes> {
    let kept = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut next = prefix[..=kept].to_vec();
    next[kept] += 1;
    Some(next.into())
}

/// Reads a counter's text: `-?[0-9]+` without leading zeros, within a signed 64-bit number.
pub fn parse_counter(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let plain = match digits {
        [] => false,
        [b'0'] => text.len() == 1,
        [b'0', ..] => false,
        _ => digits.iter().all(u8::is_ascii_digit),
    };
    if plain { std::str::from_utf8(text).ok()?.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn counters_are_plain_decimal_numbers() {
        assert_eq!(parse_counter(b"0"), Some(0));
        assert_eq!(parse_counter(b"-12"), Some(-12));
        assert_eq!(parse_counter(b"9223372036854775807"), Some(i64::MAX));
        for text in [&b""[..], b"-", b"-0", b"01", b"+1", b" 1", b"1\n", b"9223372036854775808", b"1e3", "١".as_bytes()]
        {
            assert_eq!(parse_counter(text), None, "{text:?}");
        }
    }

    #[test]
    fn conditions_that_clash_are_refused() {
        let exists = |exists| pb::Condition { kind: Some(pb::condition::Kind::Exists(exists)) };
        let revision = |revision| pb::Condition { kind: Some(pb::condition::Kind::Revision(revision)) };
        assert!(Conditions::from_pb(&[exists(false), revision(7)]).is_err());
        assert!(Conditions::from_pb(&[exists(true), revision(0)]).is_err());
        assert!(Conditions::from_pb(&[exists(true), exists(true)]).is_err());
        assert!(Conditions::from_pb(&[pb::Condition { kind: None }]).is_err());
        assert!(Conditions::from_pb(&[exists(false), revision(0)]).is_ok());
    }

    #[test]
    fn only_a_wish_for_absence_fails_as_key_exists() {
        let metadata =
            Metadata { revision: 5, create_revision: 5, version: 1, update_time_ms: 0, expire_time_ms: None };
        let entry = EntryRef { key: b"k", value: ValueRef::Inline(b"v"), content_type: "", metadata };
        let absent = Conditions { version: Some(0), ..Conditions::default() };
        let refusal = absent.check(Some(&entry)).unwrap_err();
        assert_eq!((refusal.reason, refusal.current_revision), (Reason::KeyExists, 5));
        let present = Conditions { exists: Some(true), ..Conditions::default() };
        let refusal = present.check(None).unwrap_err();
        assert_eq!((refusal.reason, refusal.current_revision), (Reason::ConditionFailed, 0));
    }

    proptest! {
        #[test]
        fn a_prefix_is_the_span_up_to_its_successor(prefix in proptest::collection::vec(250_u8.., 0..4), key in proptest::collection::vec(249_u8.., 0..5)) {
            let within = key >= prefix && successor(&prefix).is_none_or(|end| key[..] < end[..]);
            prop_assert_eq!(within, key.starts_with(&prefix));
        }

        #[test]
        fn a_counter_reads_back_as_written(number: i64) {
            prop_assert_eq!(parse_counter(number.to_string().as_bytes()), Some(number));
        }

        #[test]
        fn times_survive_the_schema(time_ms in 0_u64..1 << 48) {
            prop_assert_eq!(ms_from_timestamp(&timestamp_from_ms(time_ms)), Some(time_ms));
        }

        #[test]
        fn a_deadline_never_wraps(time_ms: u64, ttl_ms in TTL_MS_MIN..=TTL_MS_MAX) {
            let deadline_ms = Expiry::TtlMs(ttl_ms).deadline_ms(time_ms, None);
            prop_assert!(deadline_ms >= Some(time_ms));
        }
    }
}
