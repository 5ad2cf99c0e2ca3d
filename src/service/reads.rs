//! Reads of several keys: batches, pages, counts.

use bytes::Bytes;
use prost::Message as _;
use twox_hash::XxHash3_64;

use super::{Call, Service, checks};
use crate::{
    engine::Step,
    error::{Error, Reason, Result},
    limits::{BATCH_KEYS_MAX, PAGE_ENTRIES_DEFAULT, PAGE_ENTRIES_MAX, PAGE_STEPS_MAX, RESPONSE_BYTES_MAX},
    metrics::Operation,
    model::{EntryRef, KeySpan, successor},
    pb::{self, read_result::Kind},
};

/// What an entry takes in an answer besides key, value and content type.
const ENTRY_OVERHEAD_BYTES: usize = 96;

impl Service {
    /// Many entries, exact at one revision.
    pub async fn batch_get(&self, call: &Call, request: pb::BatchGetRequest) -> Result<pb::BatchGetResponse> {
        self.counted(call, Operation::BatchGet, self.read_batch(&request))
    }

    /// A page of a range, exact at one revision.
    pub async fn list(&self, call: &Call, request: pb::ListRequest) -> Result<pb::ListResponse> {
        self.counted(call, Operation::List, self.read_page(&request))
    }

    /// How many keys a range holds, exact at one revision.
    pub async fn count(&self, call: &Call, request: pb::CountRequest) -> Result<pb::CountResponse> {
        self.counted(call, Operation::Count, self.count_range(&request))
    }

    fn read_batch(&self, request: &pb::BatchGetRequest) -> Result<pb::BatchGetResponse> {
        let engine = self.engine()?;
        if request.keys.len() > BATCH_KEYS_MAX {
            let text = format!("{} keys, the limit is {BATCH_KEYS_MAX}: ask in several batches", request.keys.len());
            return Err(Error::new(Reason::BatchTooLarge, text).with(|details| {
                details.limit = Some(BATCH_KEYS_MAX as u64);
                details.field = Some("keys".into());
            }));
        }
        for key in &request.keys {
            checks::key(key, self.limits())?;
        }
        engine.read_barrier();
        let mut results = Vec::with_capacity(request.keys.len());
        let mut bytes = 0;
        let store_revision = engine.get_many(&request.keys, |_, entry| {
            let kind = match entry {
                _ if bytes > RESPONSE_BYTES_MAX => Kind::Unprocessed(true),
                None => Kind::Absent(true),
                Some(entry) => {
                    let takes = entry_bytes(entry, !request.metadata_only);
                    // One larger value may go alone.
                    if bytes > 0 && bytes + takes > RESPONSE_BYTES_MAX {
                        bytes = usize::MAX;
                        Kind::Unprocessed(true)
                    } else {
                        bytes += takes;
                        Kind::Entry(entry.to_pb(!request.metadata_only))
                    }
                }
            };
            results.push(pb::ReadResult { kind: Some(kind) });
        });
        Ok(pb::BatchGetResponse { results, store_revision })
    }

    fn count_range(&self, request: &pb::CountRequest) -> Result<pb::CountResponse> {
        let engine = self.engine()?;
        let span = KeySpan::from_pb(request.range.as_ref())?;
        engine.read_barrier();
        let (count, store_revision) = engine.count(&span);
        Ok(pb::CountResponse { count, store_revision })
    }

    fn read_page(&self, request: &pb::ListRequest) -> Result<pb::ListResponse> {
        let engine = self.engine()?;
        let page_size = match usize::try_from(request.page_size) {
            Ok(0) => PAGE_ENTRIES_DEFAULT,
            Ok(size) => size.min(PAGE_ENTRIES_MAX),
            Err(_) => return Err(Error::invalid_field("page_size", "page_size is negative: 0 asks for the default")),
        };
        let mut span = KeySpan::from_pb(request.range.as_ref())?;
        if !request.start_after.is_empty() {
            narrow(&mut span, After::Key(request.start_after.clone()), request.descending);
        }
        let query = query_hash(request);
        if !request.page_token.is_empty() {
            narrow(&mut span, After::from_token(&request.page_token, query)?, request.descending);
        }
        let mut page = Page::new(page_size, RESPONSE_BYTES_MAX, &span, request);
        engine.read_barrier();
        let store_revision = engine.walk(&span, request.descending, |entry| page.visit(entry));
        let next_page_token = match (page.more, page.last) {
            (true, Some(last)) => last.to_token(query),
            _ => Bytes::new(),
        };
        let (entries, common_prefixes) = (page.entries, page.common_prefixes);
        Ok(pb::ListResponse { entries, common_prefixes, next_page_token, store_revision })
    }
}

fn entry_bytes(entry: &EntryRef<'_>, with_value: bool) -> usize {
    let value_bytes = if with_value { entry.value.as_slice().len() } else { 0 };
    entry.key.len() + value_bytes + entry.content_type.len() + ENTRY_OVERHEAD_BYTES
}

/// Where the next page begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// Next to this key.
    Key(Bytes),
    /// Next to all keys that were folded into this prefix.
    Prefix(Bytes),
}

impl After {
    /// Opaque to clients: a kind, the query's hash, the key.
    fn to_token(&self, query: u64) -> Bytes {
        let (kind, key) = match self {
            Self::Key(key) => (0, key),
            Self::Prefix(prefix) => (1, prefix),
        };
        [&[kind][..], &query.to_le_bytes(), key].concat().into()
    }

    fn from_token(token: &Bytes, query: u64) -> Result<Self> {
        let invalid = || {
            Error::new(
                Reason::PageTokenInvalid,
                "the page token is not of this query: send it with the range and options of the page it came with",
            )
            .with(|details| details.field = Some("page_token".into()))
        };
        let (kind, rest) = token.split_first().ok_or_else(invalid)?;
        let (found, _) = rest.split_first_chunk::<8>().ok_or_else(invalid)?;
        let key = token.slice(9..);
        match kind {
            _ if u64::from_le_bytes(*found) != query || key.is_empty() => Err(invalid()),
            0 => Ok(Self::Key(key)),
            1 => Ok(Self::Prefix(key)),
            _ => Err(invalid()),
        }
    }
}

/// Binds a token to its query: everything but the token and the size of the page.
fn query_hash(request: &pb::ListRequest) -> u64 {
    let query = pb::ListRequest { page_token: Bytes::new(), page_size: 0, ..request.clone() };
    XxHash3_64::oneshot(&query.encode_to_vec())
}

/// Leaves what comes next to `after`, in the direction of the walk.
pub(super) fn narrow(span: &mut KeySpan, after: After, descending: bool) {
    if descending {
        let (After::Key(end) | After::Prefix(end)) = after;
        span.end = Some(span.end.take().map_or(end.clone(), |old| old.min(end)));
        return;
    }
    let start = match after {
        // The next key in byte order.
        After::Key(key) => Some([&key[..], &[0]].concat().into()),
        After::Prefix(prefix) => successor(&prefix),
    };
    match start {
        Some(start) => span.start = span.start.clone().max(start),
        // Nothing follows: an empty span.
        None => span.end = Some(span.start.clone()),
    }
}

/// A page that fills.
pub(super) struct Page<'request> {
    size: usize,
    bytes_max: usize,
    prefix_bytes: usize,
    request: &'request pb::ListRequest,
    pub(super) entries: Vec<pb::Entry>,
    pub(super) common_prefixes: Vec<Bytes>,
    bytes: usize,
    steps: usize,
    pub(super) last: Option<After>,
    /// There is something behind the last one.
    pub(super) more: bool,
}

impl<'request> Page<'request> {
    /// An empty page for `size` entries and `bytes_max` bytes, but for one larger value.
    pub(super) fn new(size: usize, bytes_max: usize, span: &KeySpan, request: &'request pb::ListRequest) -> Self {
        Self {
            size,
            bytes_max,
            prefix_bytes: span.prefix_bytes,
            request,
            entries: Vec::new(),
            common_prefixes: Vec::new(),
            bytes: 0,
            steps: 0,
            last: None,
            more: false,
        }
    }

    pub(super) fn visit(&mut self, entry: &EntryRef<'_>) -> Step {
        self.steps += 1;
        let folded = self.fold(entry.key);
        let takes = match &folded {
            Some(prefix) => prefix.len() + ENTRY_OVERHEAD_BYTES,
            None => entry_bytes(entry, !self.request.keys_only),
        };
        let found = self.entries.len() + self.common_prefixes.len();
        // One larger value may go alone.
        let full = found == self.size || (found > 0 && self.bytes + takes > self.bytes_max);
        if full || self.steps > PAGE_STEPS_MAX {
            self.more = true;
            return Step::Stop;
        }
        self.bytes += takes;
        match folded {
            None => {
                self.entries.push(entry.to_pb(!self.request.keys_only));
                self.last = Some(After::Key(Bytes::copy_from_slice(entry.key)));
                Step::Next
            }
            Some(prefix) => {
                let beyond = if self.request.descending { Some(prefix.clone()) } else { successor(&prefix) };
                self.common_prefixes.push(prefix.clone());
                self.last = Some(After::Prefix(prefix));
                // Behind the last key of all there is nothing.
                beyond.map_or(Step::Stop, Step::Jump)
            }
        }
    }

    /// The common prefix that a key is folded into.
    fn fold(&self, key: &[u8]) -> Option<Bytes> {
        let delimiter = &self.request.delimiter;
        if delimiter.is_empty() {
            return None;
        }
        let at = key.get(self.prefix_bytes..)?.windows(delimiter.len()).position(|part| part == delimiter)?;
        Some(Bytes::copy_from_slice(&key[..self.prefix_bytes + at + delimiter.len()]))
    }
}
