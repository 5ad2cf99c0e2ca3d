//! The lines of an import: entries as `tandem export` and the REST door write them, gathered into batches.

use std::{
    collections::HashSet,
    io::{BufRead, Read as _},
};

use serde::{Deserialize, de::IgnoredAny};
use serde_json::Value;

use super::{
    arguments::{time, unreadable},
    failure::{Failure, Result},
};
use crate::{
    api::rest::bytes_from_json,
    limits::{BATCH_WRITES_MAX, IMPORT_BATCH_BYTES, IMPORT_LINE_BYTES_MAX},
    pb,
};

/// A line: an entry, or the end. What the store itself gives anew is read over.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Line {
    key: Option<String>,
    key_base64: Option<String>,
    value: Option<String>,
    value_base64: Option<String>,
    content_type: String,
    expire_time: Option<String>,
    end: bool,
    error: Option<Value>,
    #[serde(rename = "revision")]
    _revision: IgnoredAny,
    #[serde(rename = "create_revision")]
    _create_revision: IgnoredAny,
    #[serde(rename = "version")]
    _version: IgnoredAny,
    #[serde(rename = "update_time")]
    _update_time: IgnoredAny,
    #[serde(rename = "store_revision")]
    _store_revision: IgnoredAny,
}

/// Entries that are written together.
#[derive(Debug, Default)]
pub struct Batch {
    pub entries: Vec<(u64, pb::Entry)>,
    /// Bytes of the input up to here.
    pub read_bytes: u64,
    /// The input's end mark has come.
    pub ended: bool,
}

/// An input, line by line.
#[derive(Debug)]
pub struct Lines<Input> {
    input: Input,
    number: u64,
    read_bytes: u64,
    ended: bool,
    /// The first entry of the next batch: it had no room in the one before.
    held_over: Option<(u64, pb::Entry)>,
}

impl<Input: BufRead> Lines<Input> {
    pub fn new(input: Input) -> Self {
        Self { input, number: 0, read_bytes: 0, ended: false, held_over: None }
    }

    /// The next entries: bounded in number and in bytes, and no key twice, so that the last of several lines wins.
    /// Empty behind the last.
    pub fn next_batch(&mut self) -> Result<Batch> {
        let mut batch = Batch::default();
        let (mut keys, mut bytes) = (HashSet::new(), 0);
        while batch.entries.len() < BATCH_WRITES_MAX {
            let next = match self.held_over.take() {
                Some(entry) => Some(entry),
                None => self.next_entry()?,
            };
            let Some((number, entry)) = next else { break };
            let takes = entry.key.len() + entry.value.len();
            let room = batch.entries.is_empty() || bytes + takes <= IMPORT_BATCH_BYTES;
            if !room || !keys.insert(entry.key.clone()) {
                self.held_over = Some((number, entry));
                break;
            }
            bytes += takes;
            batch.entries.push((number, entry));
        }
        (batch.read_bytes, batch.ended) = (self.read_bytes, self.ended);
        Ok(batch)
    }

    fn next_entry(&mut self) -> Result<Option<(u64, pb::Entry)>> {
        let mut text = Vec::new();
        loop {
            text.clear();
            let mut bounded = (&mut self.input).take(IMPORT_LINE_BYTES_MAX as u64 + 1);
            let read = bounded.read_until(b'\n', &mut text).map_err(|error| unreadable("standard input", &error))?;
            if read == 0 {
                return Ok(None);
            }
            self.number += 1;
            self.read_bytes += read as u64;
            if read > IMPORT_LINE_BYTES_MAX {
                return Err(
                    self.refuse(format_args!("REQUEST_TOO_LARGE: it has more than {IMPORT_LINE_BYTES_MAX} bytes"))
                );
            }
            if text.trim_ascii().is_empty() {
                continue;
            }
            if self.ended {
                return Err(self.refuse("MALFORMED: it stands behind the end mark: import one export at a time"));
            }
            let line: Line = serde_json::from_slice(&text).map_err(|error| {
                self.refuse(format_args!("MALFORMED: not an entry as `tandem export` writes it: {error}"))
            })?;
            if let Some(error) = &line.error {
                return Err(self.refuse(format_args!("INCOMPLETE: the export failed here: {error}: export again")));
            }
            if line.end {
                self.ended = true;
                continue;
            }
            let entry = line.into_entry().map_err(|error| self.refuse(error))?;
            return Ok(Some((self.number, entry)));
        }
    }

    fn refuse(&self, why: impl std::fmt::Display) -> Failure {
        Failure::refused(format!("line {}: {why}", self.number))
    }
}

impl Line {
    fn into_entry(self) -> Result<pb::Entry, String> {
        let bytes = |name, text, base64| bytes_from_json(name, text, base64).map_err(|error| error.to_string());
        let expire_time = self.expire_time.as_deref().map(time).transpose();
        Ok(pb::Entry {
            key: bytes("key", self.key, self.key_base64)?,
            value: bytes("value", self.value, self.value_base64)?,
            content_type: self.content_type,
            expire_time: expire_time.map_err(|error| format!("MALFORMED: `expire_time`: {error}"))?,
            ..Default::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Lines<&[u8]> {
        Lines::new(text.as_bytes())
    }

    #[test]
    fn a_key_that_comes_twice_begins_a_batch() {
        let mut lines =
            lines("{\"key\":\"a\",\"value\":\"1\"}\n\n{\"key_base64\":\"YQ==\",\"value\":\"2\"}\n{\"end\":true}\n");
        let numbers = |batch: Batch| batch.entries.iter().map(|(number, _)| *number).collect::<Vec<_>>();
        assert_eq!(numbers(lines.next_batch().unwrap()), [1]);
        let second = lines.next_batch().unwrap();
        assert!(second.ended);
        assert_eq!(numbers(second), [3]);
        assert!(lines.next_batch().unwrap().entries.is_empty());
    }

    #[test]
    fn batches_are_bounded_in_number_and_in_bytes() {
        let many: String = (0..2_500).map(|number| format!("{{\"key\":\"{number}\",\"value\":\"\"}}\n")).collect();
        let mut lines_of_many = lines(&many);
        let sizes: Vec<_> = (0..4).map(|_| lines_of_many.next_batch().unwrap().entries.len()).collect();
        assert_eq!(sizes, [1_000, 1_000, 500, 0]);
        let value = "x".repeat(IMPORT_BATCH_BYTES - 100);
        let large: String = (0..3).map(|number| format!("{{\"key\":\"{number}\",\"value\":\"{value}\"}}\n")).collect();
        let mut lines_of_large = lines(&large);
        let sizes: Vec<_> = (0..4).map(|_| lines_of_large.next_batch().unwrap().entries.len()).collect();
        assert_eq!(sizes, [1, 1, 1, 0]);
    }

    #[test]
    fn what_is_no_entry_is_refused_with_its_line() {
        for bad in [
            "{",
            "[]",
            "{}",
            "{\"key\":\"a\"}",
            "{\"key\":\"a\",\"key_base64\":\"YQ==\",\"value\":\"\"}",
            "{\"key\":\"a\",\"value_base64\":\"?\"}",
            "{\"key\":\"a\",\"value\":\"\",\"ttl\":\"1s\"}",
            "{\"key\":\"a\",\"value\":\"\",\"expire_time\":\"soon\"}",
            "{\"common_prefix\":\"a/\"}",
            "{\"error\":{\"reason\":\"DRAINING\"}}",
            "{\"end\":true}\n{\"key\":\"a\",\"value\":\"\"}",
        ] {
            let refused = lines(&format!("\n{bad}\n")).next_batch().unwrap_err();
            assert!(format!("{refused:?}").contains("line "), "{bad}: {refused:?}");
        }
    }
}
