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
}

impl ContentTypes {
    /// The number of a content type, given out now if need be; `None` when all are taken.
    pub fn number(&mut self, name: &str) -> Option<u16> {
        if let Some(number) = self.numbers.get(name) {
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
