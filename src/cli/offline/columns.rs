//! Rows in aligned columns, one after another.

use std::borrow::Cow;

use console::{Alignment, measure_text_width, pad_str};

/// Columns that get wider as they must.
#[derive(Debug)]
pub struct Columns<const N: usize> {
    head: [&'static str; N],
    right: [bool; N],
    widths: [usize; N],
    head_shown: bool,
}

impl<const N: usize> Columns<N> {
    /// Columns under these heads; numbers stand to the right under a head that begins with a blank.
    pub fn new(head: [&'static str; N]) -> Self {
        let right = head.map(|text| text.starts_with(' '));
        let head = head.map(str::trim_start);
        Self { head, right, widths: head.map(measure_text_width), head_shown: false }
    }

    /// The lines of these rows, with the head before the first.
    pub fn lines(&mut self, rows: &[[String; N]]) -> Vec<String> {
        for row in rows {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = measure_text_width(cell).max(*width);
            }
        }
        let head = (!self.head_shown && !rows.is_empty()).then(|| self.head.map(str::to_owned));
        self.head_shown |= head.is_some();
        head.iter().chain(rows).map(|row| self.line(row)).collect()
    }

    fn line(&self, row: &[String; N]) -> String {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let alignment = if self.right[column] { Alignment::Right } else { Alignment::Left };
            let padded = match column + 1 == N && alignment == Alignment::Left {
                true => Cow::Borrowed(cell.as_str()),
                false => pad_str(cell, self.widths[column], alignment, None),
            };
            line.push_str(&padded);
            line.push_str("  ");
        }
        line.truncate(line.trim_end().len());
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_to_the_right_and_the_head_comes_once() {
        let mut columns = Columns::new(["NAME", " COUNT", "REST"]);
        let row = |name: &str, count: &str| [name.to_owned(), count.to_owned(), "x".to_owned()];
        let lines = columns.lines(&[row("a", "1"), row("longer", "12")]);
        assert_eq!(lines, ["NAME    COUNT  REST", "a           1  x", "longer     12  x"]);
        assert_eq!(columns.lines(&[row("b", "2")]), ["b           2  x"]);
    }
}
