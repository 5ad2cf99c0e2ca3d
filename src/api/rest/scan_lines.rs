//! A scanned range as JSON, line by line.

use bytes::Bytes;
use serde::Serialize;
use utoipa::ToSchema;

use super::json::{EntryJson, text_or_base64};
use crate::pb;

/// One line of a scanned range.
#[derive(Clone, Copy, Debug)]
pub enum ScanItem<'batch> {
    /// A key and what it holds.
    Entry(&'batch pb::Entry),
    /// Keys that were folded.
    CommonPrefix(&'batch Bytes),
}

/// Entries and prefixes of one batch or page, merged back into the order of their keys.
pub fn in_key_order<'batch>(
    entries: &'batch [pb::Entry],
    prefixes: &'batch [Bytes],
    descending: bool,
) -> impl Iterator<Item = ScanItem<'batch>> {
    let (mut entries, mut prefixes) = (entries.iter().peekable(), prefixes.iter().peekable());
    std::iter::from_fn(move || {
        let prefix_first = match (prefixes.peek(), entries.peek()) {
            (Some(prefix), Some(entry)) if descending => **prefix > entry.key,
            (Some(prefix), Some(entry)) => **prefix < entry.key,
            (prefix, _) => prefix.is_some(),
        };
        match prefix_first {
            true => prefixes.next().map(ScanItem::CommonPrefix),
            false => entries.next().map(ScanItem::Entry),
        }
    })
}

/// The JSON of a line.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = ScanLine)]
pub enum ScanLineJson<'batch> {
    /// A key and what it holds.
    Entry(EntryJson<'batch>),
    /// Keys that were folded.
    CommonPrefix {
        /// The prefix as text.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schema(nullable = false)]
        common_prefix: Option<&'batch str>,
        /// Or as base64.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schema(nullable = false)]
        common_prefix_base64: Option<String>,
    },
    /// The last line of what was read to its end.
    End {
        /// True.
        end: bool,
        /// The revision that the last batch shows.
        store_revision: u64,
    },
}

impl<'batch> ScanLineJson<'batch> {
    /// The JSON of an item, with its value or without.
    pub fn new(item: ScanItem<'batch>, with_value: bool, force_base64: bool) -> Self {
        match item {
            ScanItem::Entry(entry) => Self::Entry(EntryJson::new(entry, with_value, force_base64)),
            ScanItem::CommonPrefix(prefix) => {
                let (common_prefix, common_prefix_base64) = text_or_base64(prefix, force_base64);
                Self::CommonPrefix { common_prefix, common_prefix_base64 }
            }
        }
    }

    /// The last line.
    pub fn end(store_revision: u64) -> Self {
        Self::End { end: true, store_revision }
    }
}
