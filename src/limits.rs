//! Every bound of the server: defaults, hard caps, and the relations between them, asserted at compile time.
//!
//! Names end in their unit. `*_MAX` is a hard cap that configuration cannot pass; [`Limits`] are the values in force.

use std::time::Duration;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Longest key that configuration may allow.
pub const KEY_BYTES_MAX: usize = 4 * KIB;
/// Longest value that configuration may allow.
pub const VALUE_BYTES_MAX: usize = 8 * MIB;
/// Largest request that configuration may allow.
pub const REQUEST_BYTES_MAX: usize = 16 * MIB;
/// Longest content type.
pub const CONTENT_TYPE_BYTES_MAX: usize = 255;
/// Longest request id.
pub const REQUEST_ID_BYTES_MAX: usize = 128;
/// No answer is larger, but for one larger value: previous values are left out past it.
pub const RESPONSE_BYTES_MAX: usize = 4 * MIB;
/// Entries on a page that does not ask for a number.
pub const PAGE_ENTRIES_DEFAULT: usize = 100;
/// Entries on a page at most.
pub const PAGE_ENTRIES_MAX: usize = 1_000;
/// Keys that a page may pass over (expired, or folded one by one) before it ends early.
pub const PAGE_STEPS_MAX: usize = 2 * PAGE_ENTRIES_MAX;
/// Keys of one BatchGet at most.
pub const BATCH_KEYS_MAX: usize = 1_000;
/// Operations of one BatchWrite at most.
pub const BATCH_WRITES_MAX: usize = 1_000;
/// Guards, and operations of each branch, of one Txn at most.
pub const TXN_OPERATIONS_MAX: usize = 128;
/// Keys that one record of a DeleteRange removes at most: a short step under the locks.
pub const DELETE_RANGE_KEYS_MAX: usize = 64;
/// Records of one DeleteRange on their way at once at most: what one sync pays for, and no more than others wait for.
pub const DELETE_RANGE_RECORDS_MAX: usize = 4;
/// Entries of one batch of a Scan at most.
pub const SCAN_BATCH_ENTRIES_MAX: usize = 256;
/// Bytes of one batch of a Scan at most, but for one larger value.
pub const SCAN_BATCH_BYTES_MAX: usize = 256 * KIB;
/// Records that a watcher takes out of the history at once.
pub const CATCH_UP_RECORDS_MAX: usize = 256;
/// Published records that wait to be handed to watchers at most; past it every watcher is ended.
pub const DISPATCH_RECORDS_MAX: usize = 16_384;
/// What a watcher's initial state keeps at most of entries that were changed while it is read.
pub const INITIAL_STATE_BYTES_MAX: usize = 64 * MIB;
/// How often a watcher's initial state is begun, when writes outrun its reading, before the watcher is ended.
pub const INITIAL_STATE_TRIES_MAX: usize = 3;
/// Slow requests that are told in the log each second at most.
pub const SLOW_REQUEST_LINES_PER_SECOND_MAX: u32 = 10;
/// Spans that wait to be sent to the collector at most; past it they are dropped.
pub const TRACE_QUEUE_SPANS_MAX: usize = 4_096;
/// Spans that are sent at once at most.
pub const TRACE_BATCH_SPANS_MAX: usize = 512;
/// How long sending them may take.
pub const TRACE_EXPORT_MAX: Duration = Duration::from_secs(5);
/// How long a stop waits for the last ones to be sent.
pub const TRACE_FLUSH_MAX: Duration = Duration::from_secs(2);
/// A watcher that hears nothing is told this often how far it has come.
pub const PROGRESS_EVERY: Duration = Duration::from_secs(15);
/// Most conditions of one write: one of each kind.
pub const CONDITIONS_MAX: usize = 4;
/// Shortest time to live.
pub const TTL_MS_MIN: u64 = 1;
/// Longest time to live: ten years.
pub const TTL_MS_MAX: u64 = 10 * 366 * 24 * 3_600_000;
/// Longest `?wait=`.
pub const WAIT_MAX: Duration = Duration::from_secs(60);

/// Largest answer that the command line takes: a largest value and what stands around it.
pub const CLIENT_ANSWER_BYTES_MAX: usize = 2 * VALUE_BYTES_MAX;
/// Bytes of keys and values that the command line's import sends at once, but for one larger value.
pub const IMPORT_BATCH_BYTES: usize = MIB;
/// Longest line of an import: a largest entry, every byte of it escaped.
pub const IMPORT_LINE_BYTES_MAX: usize = 6 * (KEY_BYTES_MAX + VALUE_BYTES_MAX + KIB);
/// Largest value or transaction that the command line reads from a file or standard input.
pub const CLIENT_INPUT_BYTES_MAX: usize = REQUEST_BYTES_MAX;
/// Of a body that was refused already so much is read and dropped: most HTTP/1 clients look for the answer only once they
/// have sent it all, and a connection closed under them would lose it.
pub const DRAINED_BODY_BYTES_MAX: usize = 2 * REQUEST_BYTES_MAX;
/// Smaller JSON bodies and messages are not worth compressing.
pub const COMPRESSED_BODY_BYTES_MIN: u64 = KIB as u64;
/// A larger answer is not written as JSON on the core that serves.
pub const JSON_INLINE_BYTES_MAX: usize = 32 * KIB;
/// Bytes that are compressed or decompressed at once, before others get their turn.
pub const COMPRESSION_STEP_BYTES: usize = 8 * KIB;

/// Bytes that one group commit writes at most; a larger record goes alone.
pub const GROUP_BYTES_MAX: usize = 4 * MIB;
/// Bytes that a log record may take beyond its request: head, times, request id, fingerprint, padding.
pub const RECORD_OVERHEAD_BYTES_MAX: usize = KIB;
/// Largest payload of a frame.
pub const RECORD_BYTES_MAX: usize = REQUEST_BYTES_MAX + RECORD_OVERHEAD_BYTES_MAX;
/// Smallest segment that configuration may ask for.
pub const SEGMENT_BYTES_MIN: u64 = 64 * KIB as u64;
/// Largest segment that configuration may ask for.
pub const SEGMENT_BYTES_MAX: u64 = 1024 * MIB as u64;
/// Payload at which a frame of a snapshot ends.
pub const SNAPSHOT_FRAME_BYTES: usize = 256 * KIB;
/// Largest payload of a frame of a snapshot: a frame that was not full takes one more entry, or event with two of them.
pub const SNAPSHOT_FRAME_BYTES_MAX: usize = SNAPSHOT_FRAME_BYTES + 2 * REQUEST_BYTES_MAX;
/// Bytes of a backup's file that are read and sent at once.
pub const BACKUP_CHUNK_BYTES: usize = 256 * KIB;
/// Backups that are sent at once at most.
pub const BACKUPS_MAX: usize = 2;
/// Bytes of a segment that verifying reads at once, but for one larger record.
pub const VERIFY_STEP_BYTES: usize = MIB;
/// Bytes of entries that writes have handed over to a snapshot and it has not written yet, at most; past it the snapshot is
/// begun anew.
pub const SNAPSHOT_OVERTAKEN_BYTES_MAX: usize = 32 * MIB;
/// Bytes of a removed file whose room is given back at once: as long as the disk is busy with it, a sync of the log waits.
pub const REMOVAL_STEP_BYTES: u64 = MIB as u64;
/// Removed files that wait for their readers, or for a snapshot, at most: with so many no more segments are removed, and no
/// snapshot comes first.
pub const REMOVED_WAITING_MAX: usize = 8;
/// Size of a new store's first segment, so that a cold start is quick; each next one is four times as large, up to the
/// configured size.
pub const SEGMENT_FIRST_BYTES: u64 = MIB as u64;
/// The revision offset rises by this after an unclean stop: more than records can be lost.
pub const OFFSET_STEP_UNCLEAN: u64 = 1 << 20;
/// The revision offset rises by this on a restore.
pub const OFFSET_STEP_RESTORE: u64 = 1 << 40;
/// Revisions stay below this, so that JSON numbers carry them exactly.
pub const REVISION_MAX: u64 = 1 << 53;
/// Pairs in one Expire record at most.
pub const EXPIRE_KEYS_MAX: usize = 1_000;
/// Pairs in one Evict record at most: applied within a millisecond.
pub const EVICT_KEYS_MAX: usize = 256;
/// Records between two syncs at most in weak modes: keeps what a crash can lose below [`OFFSET_STEP_UNCLEAN`].
pub const UNSYNCED_RECORDS_MAX: u64 = OFFSET_STEP_UNCLEAN / 2;

/// Part of the machine's memory, or of its cgroup's limit, that the store may use where nothing else is said.
pub const MEMORY_PERCENT_DEFAULT: u8 = 70;
/// Smallest memory limit that configuration may ask for.
pub const MEMORY_BYTES_MIN: u64 = MIB as u64;

/// Part of the disk that is kept free, in hundredths …
pub const DISK_RESERVE_PERCENT: u64 = 5;
/// … and how much that is at most.
pub const DISK_RESERVE_BYTES_MAX: u64 = 1024 * MIB as u64;

/// Depth of the prefixes whose bytes are told, at most.
pub const KEYSPACE_DEPTH_MAX: usize = 8;
/// Prefixes that are told of each depth at most.
pub const KEYSPACE_PREFIXES_MAX: usize = 1_000;
/// Longest prefix that is told: no delimiter is looked for behind it.
pub const KEYSPACE_PREFIX_BYTES_MAX: usize = 256;
/// Largest keys that are told at most.
pub const KEYSPACE_LARGEST_MAX: usize = 256;
/// Bytes that can end a prefix, at most.
pub const KEYSPACE_DELIMITERS_MAX: usize = 16;

/// Connections too many that are told so at one time; those beyond it are closed without a word.
pub const REFUSALS_MAX: usize = 64;

/// Bytes of headers that the HTTP parsers accept; what lies between this and [`Limits::header_bytes`] gets a
/// well-formed HEADER_TOO_LARGE, what lies beyond gets the parser's own bare 431.
pub const HEADER_PARSER_BYTES: usize = 64 * KIB;

/// What goes when memory is short.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Eviction {
    /// Nothing: growth is refused.
    #[default]
    None,
    /// Entries that were not used for a while.
    All,
    /// Of these only such as have a deadline.
    Expiring,
}

/// The limits in force: defaults here, set by configuration's sections `limits` and `wal`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest key.
    pub key_bytes: usize,
    /// Longest value.
    pub value_bytes: usize,
    /// Largest request body or message.
    pub request_bytes: usize,
    /// Largest header section of a request.
    pub header_bytes: usize,
    /// Writes that wait for the log at most.
    pub queue_items: usize,
    /// Bytes of writes that wait for the log at most.
    pub queue_bytes: usize,
    /// Bytes of request bodies that are being read or answered at most, over all connections.
    pub bodies_bytes: usize,
    /// Time a request may take.
    pub request_timeout: Duration,
    /// Time in which a request's headers must arrive.
    pub header_timeout: Duration,
    /// Time in which a request's body must arrive.
    pub body_timeout: Duration,
    /// Connections of each door at most.
    pub connections: usize,
    /// Streams of one HTTP/2 connection at most.
    pub streams_per_connection: u32,
    /// HTTP/2 pings a silent peer this often.
    pub keepalive_interval: Duration,
    /// How long it may take to answer, before its connection is dropped.
    pub keepalive_timeout: Duration,
    /// Requests held by `?wait=` at once at most.
    pub waits: usize,
    /// Watchers at once at most.
    pub watches: usize,
    /// Revisions that wait for a slow watcher at most.
    pub watcher_buffer_revisions: usize,
    /// Bytes that wait for a slow watcher at most, but for one larger revision.
    pub watcher_buffer_bytes: usize,
    /// Events that the watch history keeps at most.
    pub watch_history_events: usize,
    /// Bytes that the watch history takes at most.
    pub watch_history_bytes: usize,
    /// A request that takes this long is slow.
    pub slow_request_threshold: Duration,
    /// Slow requests that are kept to be shown.
    pub slow_requests: usize,
    /// Time that a stop waits for requests in flight.
    pub drain_timeout: Duration,
    /// How long answers to request ids are remembered.
    pub request_window: Duration,
    /// How many answers to request ids are remembered at most.
    pub request_window_ids: usize,
    /// Bytes that remembered answers may take at most.
    pub request_window_bytes: usize,
    /// What goes when memory is short.
    pub eviction: Eviction,
    /// Bytes of the disk that are kept free; `None`: as many as disk, segments and snapshots call for.
    pub disk_reserve_bytes: Option<u64>,
    /// Bytes that entries and indexes may use; resolved from `store.memory_limit` at the start.
    pub memory_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            key_bytes: KIB,
            value_bytes: MIB,
            request_bytes: 8 * MIB,
            header_bytes: 16 * KIB,
            queue_items: 65_536,
            queue_bytes: 64 * MIB,
            bodies_bytes: 256 * MIB,
            request_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(30),
            connections: 10_000,
            streams_per_connection: 256,
            keepalive_interval: Duration::from_secs(20),
            keepalive_timeout: Duration::from_secs(10),
            waits: 10_000,
            watches: 100_000,
            watcher_buffer_revisions: 1_024,
            watcher_buffer_bytes: 4 * MIB,
            watch_history_events: 100_000,
            watch_history_bytes: 64 * MIB,
            slow_request_threshold: Duration::from_millis(100),
            slow_requests: 128,
            drain_timeout: Duration::from_secs(20),
            request_window: Duration::from_secs(600),
            request_window_ids: 1_000_000,
            request_window_bytes: 256 * MIB,
            eviction: Eviction::None,
            disk_reserve_bytes: None,
            memory_bytes: u64::MAX,
        }
    }
}

// The relations that the code relies on.
const _: () = assert!(KEY_BYTES_MAX + VALUE_BYTES_MAX + CONTENT_TYPE_BYTES_MAX < REQUEST_BYTES_MAX);
const _: () = assert!(DELETE_RANGE_KEYS_MAX * DELETE_RANGE_RECORDS_MAX <= EVICT_KEYS_MAX);
const _: () = assert!(REQUEST_ID_BYTES_MAX + 128 < RECORD_OVERHEAD_BYTES_MAX);
// Every frame takes more than 64 bytes: a segment holds fewer records than the offset rises by.
const _: () = assert!(SEGMENT_BYTES_MAX / 64 > 0 && UNSYNCED_RECORDS_MAX < OFFSET_STEP_UNCLEAN);
const _: () = assert!(OFFSET_STEP_RESTORE < REVISION_MAX && OFFSET_STEP_UNCLEAN < OFFSET_STEP_RESTORE);
// What is told of the keys is one answer: counts and times take less than 64 bytes of each row.
const _: () = assert!(
    KEYSPACE_DEPTH_MAX * KEYSPACE_PREFIXES_MAX * (KEYSPACE_PREFIX_BYTES_MAX + 64)
        + KEYSPACE_LARGEST_MAX * (KEY_BYTES_MAX + 64)
        < RESPONSE_BYTES_MAX
);
const _: () = assert!(SEGMENT_FIRST_BYTES >= SEGMENT_BYTES_MIN && SEGMENT_BYTES_MAX <= u32::MAX as u64);
