//! Entries in aligned columns for people, with what cannot be printed escaped.

use std::fmt::Write as _;

use console::Alignment;
use console::{Term, measure_text_width, pad_str, truncate_str};

use crate::api::rest::{ScanItem, time_text};

const COLUMNS: [&str; 5] = ["KEY", "VERSION", "REVISION", "EXPIRES", "VALUE"];
/// A column of keys grows to this; longer keys push their own line's columns on.
const KEY_WIDTH_MAX: usize = 48;
/// What a value may take where the width of the terminal is not known.
const VALUE_WIDTH: usize = 60;
/// What a value gets at least.
const VALUE_WIDTH_MIN: usize = 16;

/// A table that goes on: columns get wider as they must, and the head comes once.
#[derive(Debug)]
pub struct Table {
    widths: [usize; 4],
    line_width: Option<usize>,
    head_shown: bool,
}

impl Table {
    /// An empty table; on a terminal its lines fit the width.
    pub fn new(on_terminal: bool) -> Self {
        let line_width = if on_terminal { Term::stdout().size_checked().map(|(_, width)| width.into()) } else { None };
        Self { widths: [16, 7, 8, 7], line_width, head_shown: false }
    }

    /// The lines of these entries and folded prefixes.
    pub fn lines(&mut self, items: &[ScanItem<'_>], with_values: bool) -> Vec<String> {
        let rows: Vec<_> = items.iter().map(cells).collect();
        for (column, width) in self.widths.iter_mut().enumerate() {
            let most = if column == 0 { KEY_WIDTH_MAX } else { usize::MAX };
            let widest = rows.iter().map(|row| measure_text_width(&row[column])).max().unwrap_or(0);
            *width = widest.min(most).max(*width);
        }
        let head = (!self.head_shown && !rows.is_empty()).then(|| COLUMNS.map(str::to_owned));
        self.head_shown |= head.is_some();
        head.iter().chain(&rows).map(|row| self.line(row, with_values)).collect()
    }

    fn line(&self, row: &[String; 5], with_values: bool) -> String {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(self.widths) {
            line.push_str(&pad_str(cell, width, Alignment::Left, None));
            line.push_str("  ");
        }
        if with_values {
            let left = self.line_width.map_or(VALUE_WIDTH, |width| width.saturating_sub(measure_text_width(&line)));
            line.push_str(&truncate_str(&row[4], left.max(VALUE_WIDTH_MIN), "…"));
        }
        line.truncate(line.trim_end().len());
        line
    }
}

fn cells(item: &ScanItem<'_>) -> [String; 5] {
    let entry = match item {
        ScanItem::Entry(entry) => entry,
        ScanItem::CommonPrefix(prefix) => {
            return [escape(prefix), String::new(), String::new(), String::new(), String::new()];
        }
    };
    let expires = entry.expire_time.as_ref().and_then(time_text).unwrap_or_else(|| "never".to_owned());
    [escape(&entry.key), entry.version.to_string(), entry.revision.to_string(), expires, beginning(&entry.value)]
}

/// What a value begins with: of a long one no more can be shown.
fn beginning(value: &[u8]) -> String {
    escape(&value[..value.len().min(4 * 1024)])
}

/// A value in a few words.
pub fn preview(value: &[u8]) -> String {
    truncate_str(&beginning(value), VALUE_WIDTH, "…").into_owned()
}

/// Text as it is, and what cannot be printed escaped: no byte of a key or a value steers the terminal.
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' | '\'' => text.push(character),
                other => text.extend(other.escape_debug()),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb;

    fn entry(key: &'static [u8], value: &'static [u8]) -> pb::Entry {
        pb::Entry { key: key.into(), value: value.into(), version: 1, revision: 7, ..Default::default() }
    }

    #[test]
    fn no_byte_steers_the_terminal() {
        assert_eq!(escape("grün \"'\\".as_bytes()), "grün \"'\\\\");
        assert_eq!(escape(b"\x1b[2J\n\t\xff\x00"), "\\u{1b}[2J\\n\\t\\xff\\0");
        assert_eq!(escape("\u{202e}x".as_bytes()), "\\u{202e}x");
    }

    #[test]
    fn columns_stand_in_line_and_the_head_comes_once() {
        let mut table = Table::new(false);
        let lines = table.lines(
            &[ScanItem::Entry(&entry(b"a", b"1")), ScanItem::Entry(&entry(b"a-key-of-twenty-bytes", b"2"))],
            true,
        );
        assert_eq!(lines.len(), 3);
        let value_at = lines[0].find("VALUE").unwrap();
        assert!(lines[1..].iter().all(|line| line.len() == value_at + 1), "{lines:#?}");
        let more = table.lines(&[ScanItem::Entry(&entry(b"b", b"3"))], true);
        assert_eq!((more.len(), more[0].find('3')), (1, Some(value_at)));
    }

    #[test]
    fn a_long_value_is_cut_and_keys_alone_need_no_value() {
        let mut table = Table::new(false);
        let lines =
            table.lines(&[ScanItem::Entry(&pb::Entry { value: vec![b'x'; 10_000].into(), ..entry(b"a", b"") })], true);
        assert!(lines[1].ends_with("x…") && lines[1].chars().count() < 120, "{lines:#?}");
        assert!(table.lines(&[ScanItem::Entry(&entry(b"a", b"hidden"))], false)[0].ends_with("never"));
    }
}
