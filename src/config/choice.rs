//! Keys that take one of a few words.

use super::{AdminAccess, LogFormat, SyncMode};
use crate::limits::Eviction;

/// What such a key takes.
pub trait Choice: Copy + 'static {
    /// Every choice, in the order in which people are told.
    const ALL: &'static [Self];

    /// As the configuration says it.
    fn word(self) -> &'static str;
}

impl Choice for SyncMode {
    const ALL: &'static [Self] = &[Self::Always, Self::Interval, Self::Never];

    fn word(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::Interval => "interval",
            Self::Never => "never",
        }
    }
}

impl Choice for Eviction {
    const ALL: &'static [Self] = &[Self::None, Self::All, Self::Expiring];

    fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::All => "all",
            Self::Expiring => "expiring",
        }
    }
}

impl Choice for AdminAccess {
    const ALL: &'static [Self] = &[Self::Auto, Self::On, Self::Off];

    fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::On => "on",
            Self::Off => "off",
        }
    }
}

impl Choice for LogFormat {
    const ALL: &'static [Self] = &[Self::Auto, Self::Text, Self::Json];

    fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// The choice that a word names.
pub fn choice_of<C: Choice>(text: &str) -> Result<C, String> {
    let named = C::ALL.iter().copied().find(|choice| choice.word() == text);
    named.ok_or_else(|| format!("{text:?} is no choice"))
}

/// All words, for people.
pub fn words_of<C: Choice>() -> String {
    let words: Vec<_> = C::ALL.iter().map(|choice| choice.word()).collect();
    match words.split_last() {
        Some((last, before)) if !before.is_empty() => format!("{} or {last}", before.join(", ")),
        _ => words.concat(),
    }
}
