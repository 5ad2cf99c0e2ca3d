//! Which watchers a key concerns, without asking each of them.
//!
//! A watcher is filed under the longest prefix that all keys of its range share. A key is looked up once for each length
//! of prefix in use: so what a change costs does not grow with the number of watchers, only with the number of different
//! lengths, and with the watchers that share the very prefix. A watcher of one key or of a prefix is found by one lookup;
//! spans that share no prefix (`a` to `c`) are asked one by one.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use bytes::Bytes;

use super::{changes::Change, inbox::Inbox};
use crate::model::KeySpan;

/// Watchers by prefix.
#[derive(Debug, Default)]
pub struct Matching {
    by_prefix: HashMap<Bytes, Vec<Arc<Inbox>>>,
    /// How many prefixes there are of each length.
    lengths: BTreeMap<usize, usize>,
}

impl Matching {
    /// Files a watcher.
    pub fn insert(&mut self, inbox: Arc<Inbox>) {
        let prefix = shared_prefix(&inbox.filter().span);
        let watchers = self.by_prefix.entry(prefix.clone()).or_default();
        if watchers.is_empty() {
            *self.lengths.entry(prefix.len()).or_default() += 1;
        }
        watchers.push(inbox);
    }

    /// Takes a watcher out.
    pub fn remove(&mut self, inbox: &Arc<Inbox>) {
        let prefix = shared_prefix(&inbox.filter().span);
        let Some(watchers) = self.by_prefix.get_mut(&prefix) else { return };
        watchers.retain(|other| !Arc::ptr_eq(other, inbox));
        if watchers.is_empty() {
            self.by_prefix.remove(&prefix);
            if let Some(count) = self.lengths.get_mut(&prefix.len()) {
                *count -= 1;
                if *count == 0 {
                    self.lengths.remove(&prefix.len());
                }
            }
        }
    }

    /// The watchers that want a change.
    pub fn of<'matching>(&'matching self, change: &'matching Change) -> impl Iterator<Item = &'matching Arc<Inbox>> {
        let key = change.key();
        let found = self.lengths.range(..=key.len()).filter_map(|(length, _)| self.by_prefix.get(&key[..*length]));
        found.flatten().filter(|inbox| inbox.filter().wants(change))
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Inbox>> {
        self.by_prefix.values().flatten()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_prefix.is_empty()
    }
}

/// The longest prefix of all keys of a span.
fn shared_prefix(span: &KeySpan) -> Bytes {
    let Some(end) = &span.end else { return Bytes::new() };
    let start = &span.start;
    let mut length = start.iter().zip(end).take_while(|(one, other)| one == other).count();
    // `[ab…, ac)` holds keys that begin with `ab` only; and then with every 0xff that follows, there being no larger byte.
    if length + 1 == end.len() && start.get(length).is_some_and(|byte| byte.checked_add(1) == Some(end[length])) {
        length += 1;
        length += start[length..].iter().take_while(|byte| **byte == u8::MAX).count();
    }
    start.slice(..length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::{changes::samples::put, inbox::Filter},
        *,
    };
    use crate::pb::{self, key_range::Kind};

    fn span(kind: Kind) -> KeySpan {
        KeySpan::from_pb(Some(&pb::KeyRange { kind: Some(kind) })).unwrap()
    }

    #[test]
    fn keys_and_prefixes_are_filed_under_themselves() {
        assert_eq!(shared_prefix(&span(Kind::Key("abc".into()))), "abc");
        assert_eq!(shared_prefix(&span(Kind::Prefix("abc".into()))), "abc");
        assert_eq!(shared_prefix(&span(Kind::Prefix(Bytes::from_static(b"a\xff\xff")))), &b"a\xff\xff"[..]);
        assert_eq!(shared_prefix(&span(Kind::All(true))), "");
        let between = pb::Span { start: "user/10".into(), end: "user/90".into() };
        assert_eq!(shared_prefix(&span(Kind::Span(between))), "user/");
    }

    fn bytes() -> impl Strategy<Value = Bytes> {
        proptest::collection::vec(prop_oneof![Just(0_u8), Just(b'a'), Just(b'b'), Just(u8::MAX)], 0..4)
            .prop_map(Bytes::from)
    }

    fn spans() -> impl Strategy<Value = KeySpan> {
        let kind = prop_oneof![
            bytes().prop_map(Kind::Prefix),
            bytes().prop_filter("a key", |key| !key.is_empty()).prop_map(Kind::Key),
            (bytes(), bytes()).prop_map(|(one, other)| {
                let (start, end) = if one <= other || other.is_empty() { (one, other) } else { (other, one) };
                Kind::Span(pb::Span { start, end })
            }),
        ];
        kind.prop_map(span)
    }

    proptest! {
        #[test]
        fn exactly_those_watchers_are_found_whose_range_holds_the_key(
            spans in proptest::collection::vec(spans(), 0..12), gone in 0_usize..12, key in "[ab]{1,3}",
        ) {
            let mut matching = Matching::default();
            let inboxes: Vec<_> =
                spans.iter().map(|span| Arc::new(Inbox::new(Filter::new(span.clone(), &[]).unwrap(), 0, 1, 1))).collect();
            for inbox in &inboxes {
                matching.insert(Arc::clone(inbox));
            }
            if let Some(inbox) = inboxes.get(gone) {
                matching.remove(inbox);
            }
            let change = put(&key, 1);
            let found: Vec<_> = matching.of(&change).collect();
            for (number, inbox) in inboxes.iter().enumerate() {
                let expected = number != gone && spans[number].contains(key.as_bytes());
                prop_assert_eq!(found.iter().filter(|found| Arc::ptr_eq(found, inbox)).count(), usize::from(expected));
            }
            for inbox in &inboxes {
                matching.remove(inbox);
            }
            prop_assert!(matching.is_empty() && matching.lengths.is_empty());
        }
    }
}
