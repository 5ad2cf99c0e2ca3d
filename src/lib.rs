//! Tandem: an in-memory, durable key-value store with two doors, gRPC and REST, over one engine.
//!
//! **One protobuf schema is the wire, the log and the snapshot.** The request a client sends is the command that the
//! write-ahead log stores; the entry that a client reads is the entry that a snapshot holds.
//!
//! # The map
//!
//! A module imports modules of lower layers only; `tests/tidy.rs` holds that.
//!
//! | layer | room | its job |
//! |---|---|---|
//! | 0 | [`pb`] | the one door to generated code |
//! | 1 | [`limits`] | every bound |
//! | 1 | [`error`] | one error, one table of reasons |
//! | 1 | [`notation`] | sizes and times as people write them |
//! | 2 | [`model`] | the domain's words and their conversions |
//! | 2 | [`config`] | raw settings to checked settings |
//! | 2 | [`metrics`] | every instrument |
//! | 2 | [`traces`] | spans of sampled requests, on their way to a collector |
//! | 3 | [`disk`] | bytes: file-system seam, frames, segments, log, snapshots, recovery |
//! | 3 | [`store`] | memory: arenas, shards, indexes, evacuation, accounting |
//! | 4 | [`engine`] | where disk and store meet: propose, log, apply, read, take snapshots |
//! | 5 | [`service`] | what each RPC means, without a transport |
//! | 6 | [`api`] | the doors: parse, call the service, map the error |
//! | 7 | [`app`], [`telemetry`] | cores, listeners, life and end of the process |
//! | 8 | [`cli`] | the command line, the client's commands in `cli/client`, those over files in `cli/offline`, the load generator in `cli/bench` |
//!
//! Where does it live? Bytes: `disk`. Maps and locks: `store`. Order and durability: `engine`. Meaning of a request:
//! `service`. Status codes: `error`. Knobs: `config`. Numbers on a graph: `metrics`.
//!
//! # Where this differs from the first design
//!
//! - Log and apply are one thread (`engine::log`): a hand-over costs a wake, and a group's apply is short beside its sync.
//! - The time by which reads judge expiry is moved by the readers themselves (`engine::clock::VisibleTime`): no idle tick.
//! - The first segments of a log grow from 1 MiB by fours (`limits::SEGMENT_FIRST_BYTES`): an idle store stays small on disk.
//! - `app` and `telemetry` stand one layer below `cli`, which calls them, and `pb` one below `error`, whose reasons are the
//!   schema's own enum.
//! - The retry window spreads its ids over many small maps (`engine::window`): no insertion moves more than a few kilobytes.
//! - Entries lie at multiples of 4 bytes with heads of about 14, in pages of 256 KiB mapped from the operating system one
//!   by one (`store::record`, `store::page`); the hash index is made of small sorted tables instead of hashbrown's
//!   (`store::index`), and all indexes lie in an arena as well (`store::block`): less memory, and all of it comes back.
//! - A record publishes its revision before it lets its shards go (`engine::apply::Applier::published`): a reader that holds
//!   its shards' locks tells exactly the revision that they show.
//! - A range is deleted in records of 64 keys, not of 1,000, up to four of them to a sync (`limits::DELETE_RANGE_KEYS_MAX`): a
//!   step under all locks stays below a millisecond.
//! - `api::ops` stands above `api::grpc` and `api::rest`, which never see each other: its listener speaks both, each through
//!   a door of their make.
//! - A gRPC call of one message that came whole is answered without tonic's codec, a sixth of a small call's work
//!   (`api::grpc::unary`); whatever is out of the ordinary goes to tonic as it came.
//! - Size classes of keys are counted with every write (`store::sizes`); bytes by prefix and the largest keys are found by a
//!   slow walk (`engine::keyspace`), since counting them live would hold each prefix in memory.
//! - Watchers are served by a thread of their own (`engine::watch::hub`): the log thread only asks whether a record
//!   concerns anyone.
//!
//! # Absent on purpose
//!
//! Leases across keys, reads of past revisions, glob match, namespaces.

pub mod api;
pub mod app;
pub mod cli;
pub mod config;
pub mod disk;
pub mod engine;
pub mod error;
pub mod limits;
pub mod metrics;
pub mod model;
pub mod notation;
pub mod pb;
pub mod service;
pub mod store;
pub mod telemetry;
pub mod traces;
