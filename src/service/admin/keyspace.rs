//! What the keys take, for operators: the one place where the server tells keys that nobody asked for by name.

use super::Admin;
use crate::{
    engine::{
        Engine,
        keyspace::{Level, Walk},
    },
    error::Result,
    metrics::Operation,
    model::{duration_to_pb, timestamp_from_ms},
    pb::admin::{KeyspaceStatsRequest, KeyspaceStatsResponse, KeyspaceWalk, LargeKey, Prefix, PrefixLevel, SizeClass},
    service::Call,
};

impl Admin {
    /// Keys by size, as of now; by prefix, and the largest, as the last walk found them.
    pub fn keyspace_stats(&self, call: &Call, _: KeyspaceStatsRequest) -> Result<KeyspaceStatsResponse> {
        let answer = self.check_allowed().and_then(|()| self.service().engine()).map(look_at);
        self.service().counted(call, Operation::KeyspaceStats, answer)
    }
}

fn look_at(engine: &Engine) -> KeyspaceStatsResponse {
    // First: it is never said to have begun after what is there now.
    let walk = engine.last_walk().map(|walk| walk_to_pb(&walk));
    let (sizes, store_revision) = engine.sizes();
    let classes = sizes.classes();
    KeyspaceStatsResponse {
        store_revision,
        keys: sizes.total().keys,
        data_bytes: sizes.total().bytes,
        size_classes: classes
            .map(|(bytes_max, class)| SizeClass { bytes_max, keys: class.keys, bytes: class.bytes })
            .collect(),
        walk,
    }
}

fn walk_to_pb(walk: &Walk) -> KeyspaceWalk {
    KeyspaceWalk {
        store_revision: walk.revision,
        finish_time: Some(timestamp_from_ms(walk.finish_time_ms)),
        age: Some(duration_to_pb(walk.finished.elapsed())),
        elapsed: Some(duration_to_pb(walk.elapsed)),
        keys: walk.entries.keys,
        bytes: walk.entries.bytes,
        levels: (1..).zip(&walk.levels).map(|(depth, level)| level_to_pb(depth, level)).collect(),
        largest: walk.largest.iter().map(|(key, bytes)| LargeKey { key: key.clone(), bytes: *bytes }).collect(),
    }
}

fn level_to_pb(depth: u32, level: &Level) -> PrefixLevel {
    let prefixes = level.prefixes.iter().map(|prefix| Prefix {
        prefix: prefix.bytes.clone(),
        keys: prefix.entries.keys,
        bytes: prefix.entries.bytes,
        update_time: Some(timestamp_from_ms(prefix.update_time_ms)),
    });
    PrefixLevel {
        depth,
        prefixes: prefixes.collect(),
        other_prefixes: level.others,
        other_keys: level.other_entries.keys,
        other_bytes: level.other_entries.bytes,
        bare_keys: level.bare_entries.keys,
        bare_bytes: level.bare_entries.bytes,
    }
}
