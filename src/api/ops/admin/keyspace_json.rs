//! What the keys take, as JSON for people: keys and prefixes are text where they are UTF-8 and base64 where not.

use serde::Serialize;

use super::json::duration_text;
use crate::{
    api::rest::{text_or_base64, time_text},
    pb::admin::{KeyspaceStatsResponse, KeyspaceWalk, PrefixLevel},
};

/// What the keys take.
#[derive(Debug, Serialize)]
pub struct KeyspaceJson<'answer> {
    store_revision: u64,
    keys: u64,
    data_bytes: u64,
    size_classes: Vec<SizeClassJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    walk: Option<WalkJson<'answer>>,
}

#[derive(Debug, Serialize)]
struct SizeClassJson {
    bytes_max: u64,
    keys: u64,
    bytes: u64,
}

#[derive(Debug, Serialize)]
struct WalkJson<'answer> {
    store_revision: u64,
    finish_time: Option<String>,
    age: Option<String>,
    elapsed: Option<String>,
    keys: u64,
    bytes: u64,
    levels: Vec<LevelJson<'answer>>,
    largest: Vec<LargeKeyJson<'answer>>,
}

#[derive(Debug, Serialize)]
struct LevelJson<'answer> {
    depth: u32,
    prefixes: Vec<PrefixJson<'answer>>,
    other_prefixes: u64,
    other_keys: u64,
    other_bytes: u64,
    bare_keys: u64,
    bare_bytes: u64,
}

#[derive(Debug, Serialize)]
struct PrefixJson<'answer> {
    #[serde(skip_serializing_if = "Option::is_none")]
    prefix: Option<&'answer str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prefix_base64: Option<String>,
    keys: u64,
    bytes: u64,
    update_time: Option<String>,
}

#[derive(Debug, Serialize)]
struct LargeKeyJson<'answer> {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'answer str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    bytes: u64,
}

impl<'answer> KeyspaceJson<'answer> {
    /// The JSON of what the keys take.
    pub fn new(stats: &'answer KeyspaceStatsResponse) -> Self {
        let classes = stats.size_classes.iter();
        Self {
            store_revision: stats.store_revision,
            keys: stats.keys,
            data_bytes: stats.data_bytes,
            size_classes: classes
                .map(|class| SizeClassJson { bytes_max: class.bytes_max, keys: class.keys, bytes: class.bytes })
                .collect(),
            walk: stats.walk.as_ref().map(WalkJson::new),
        }
    }
}

impl<'answer> WalkJson<'answer> {
    fn new(walk: &'answer KeyspaceWalk) -> Self {
        let largest = walk.largest.iter().map(|large| {
            let (key, key_base64) = text_or_base64(&large.key, false);
            LargeKeyJson { key, key_base64, bytes: large.bytes }
        });
        Self {
            store_revision: walk.store_revision,
            finish_time: walk.finish_time.as_ref().and_then(time_text),
            age: duration_text(walk.age.as_ref()),
            elapsed: duration_text(walk.elapsed.as_ref()),
            keys: walk.keys,
            bytes: walk.bytes,
            levels: walk.levels.iter().map(LevelJson::new).collect(),
            largest: largest.collect(),
        }
    }
}

impl<'answer> LevelJson<'answer> {
    fn new(level: &'answer PrefixLevel) -> Self {
        let prefixes = level.prefixes.iter().map(|told| {
            let (prefix, prefix_base64) = text_or_base64(&told.prefix, false);
            let update_time = told.update_time.as_ref().and_then(time_text);
            PrefixJson { prefix, prefix_base64, keys: told.keys, bytes: told.bytes, update_time }
        });
        Self {
            depth: level.depth,
            prefixes: prefixes.collect(),
            other_prefixes: level.other_prefixes,
            other_keys: level.other_keys,
            other_bytes: level.other_bytes,
            bare_keys: level.bare_keys,
            bare_bytes: level.bare_bytes,
        }
    }
}
