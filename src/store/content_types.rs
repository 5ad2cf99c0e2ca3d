//! Content types by number: thousands of entries share a few. Bounded, since clients choose them; a type that finds no
//! number is kept within its record.

use std::collections::HashMap;

/// Numbers that are given out at most.
const TYPES_MAX: usize = 1_024;

/// Numbered content types. Numbers are never taken back: there are few.
#[derive(Debug, Default)]
pub struct ContentTypes {
    names: Vec<Box<str>>,
    numbers: HashMap<Box<str>, u16>,
    /// The number that was asked for last: mostly it is asked for again.
    last: u16,
}

impl ContentTypes {
    /// The number of a content type, given out now if need be; `None` when all are taken.
    pub fn number(&mut self, name: &str) -> Option<u16> {
        if self.names.get(usize::from(self.last)).is_some_and(|last| **last == *name) {
            return Some(self.last);
        }
        if let Some(number) = self.numbers.get(name) {
            self.last = *number;
            return Some(*number);
        }
        let number = u16::try_from(self.names.len()).ok().filter(|number| usize::from(*number) < TYPES_MAX)?;
        self.names.push(name.into());
        self.numbers.insert(name.into(), number);
        Some(number)
    }

    /// The content type of a number.
    pub fn name(&self, number: u16) -> &str {
        self.names.get(usize::from(number)).map_or("", |name| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_keeps_its_number_and_the_last_ones_find_none() {
        let mut types = ContentTypes::default();
        assert_eq!(["a/b", "", "a/b", "a/b", "c/d", ""].map(|name| types.number(name)), [0, 1, 0, 0, 2, 1].map(Some));
        let names: Vec<_> = (3..TYPES_MAX).map(|number| number.to_string()).collect();
        assert!(names.iter().zip(3..).all(|(name, number)| types.number(name) == Some(number)));
        assert_eq!((types.number("one too many"), types.number("c/d")), (None, Some(2)));
        assert_eq!([types.name(0), types.name(1), types.name(1_023), types.name(1_024)], ["a/b", "", "1023", ""]);
    }
}
