//! Which keys a command is about.

use bytes::Bytes;
use clap::Args;

use super::{
    arguments::bytes,
    failure::{Failure, Result},
};
use crate::pb::{self, key_range::Kind};

/// A range of keys: one of prefix, span and all.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Which keys")]
pub struct RangeFlags {
    /// Keys that begin with this.
    #[arg(long, value_name = "PREFIX", value_parser = bytes(), conflicts_with_all = ["start", "end", "all"])]
    prefix: Option<Bytes>,
    /// From this key on.
    #[arg(long, value_name = "KEY", value_parser = bytes(), conflicts_with = "all")]
    start: Option<Bytes>,
    /// Up to this key, which is not part of the range.
    #[arg(long, value_name = "KEY", value_parser = bytes(), conflicts_with = "all")]
    end: Option<Bytes>,
    /// Every key.
    #[arg(long)]
    all: bool,
}

impl RangeFlags {
    /// As the schema says it, where one was given.
    pub fn given(&self) -> Option<pb::KeyRange> {
        let kind = match (&self.prefix, &self.start, &self.end, self.all) {
            (Some(prefix), ..) => Kind::Prefix(prefix.clone()),
            (None, None, None, false) => return None,
            (None, None, None, true) => Kind::All(true),
            (None, start, end, _) => {
                let (start, end) = (start.clone().unwrap_or_default(), end.clone().unwrap_or_default());
                Kind::Span(pb::Span { start, end })
            }
        };
        Some(pb::KeyRange { kind: Some(kind) })
    }

    /// Whether this is every key without saying so.
    pub fn is_all_unsaid(&self) -> bool {
        let empty = |bytes: &Option<Bytes>| bytes.as_ref().is_none_or(Bytes::is_empty);
        let given = self.prefix.is_some() || self.start.is_some() || self.end.is_some();
        given && empty(&self.prefix) && empty(&self.start) && empty(&self.end)
    }

    /// As the schema says it; it is usage that none was given.
    pub fn required(&self) -> Result<pb::KeyRange> {
        let missing = "which keys? Give --prefix PREFIX, --start KEY and --end KEY, or --all";
        self.given().ok_or_else(|| Failure::usage(missing))
    }
}

/// Every key.
pub fn all() -> pb::KeyRange {
    pb::KeyRange { kind: Some(Kind::All(true)) }
}
