//! Reads of a whole range, batch by batch as the reader takes them: nothing is built ahead, and no lock outlives a batch.

use super::{
    Call, Service,
    reads::{Page, narrow},
};
use crate::{
    error::Result,
    limits::{SCAN_BATCH_BYTES_MAX, SCAN_BATCH_ENTRIES_MAX},
    metrics::Operation,
    model::KeySpan,
    pb,
};

/// A scan in progress. Ends when dropped.
#[derive(Debug)]
pub struct Scanning {
    service: Service,
    /// The same query as pages have it.
    request: pb::ListRequest,
    /// What is left to read; `None`: nothing.
    rest: Option<KeySpan>,
}

impl Service {
    /// All of a range. Each batch is exact at its own revision.
    pub async fn scan(&self, call: &Call, request: pb::ScanRequest) -> Result<Scanning> {
        self.counted(call, Operation::Scan, self.begin_scan(request))
    }

    fn begin_scan(&self, request: pb::ScanRequest) -> Result<Scanning> {
        self.engine()?;
        let mut span = KeySpan::from_pb(request.range.as_ref())?;
        let pb::ScanRequest { range, start_after, delimiter, descending, keys_only } = request;
        if !start_after.is_empty() {
            narrow(&mut span, super::reads::After::Key(start_after), descending);
        }
        let request = pb::ListRequest { range, delimiter, descending, keys_only, ..Default::default() };
        Ok(Scanning { service: self.clone(), request, rest: Some(span) })
    }
}

impl Scanning {
    /// The next batch; `None` behind the last. There is one at least, so that an empty range has its revision too.
    pub async fn next(&mut self) -> Option<Result<pb::ScanResponse>> {
        let mut span = self.rest.take()?;
        // Others on this core have their turn between two batches.
        tokio::task::yield_now().await;
        let engine = match self.service.engine() {
            Ok(engine) => engine,
            Err(error) => return Some(Err(error)),
        };
        engine.read_barrier();
        let mut page = Page::new(SCAN_BATCH_ENTRIES_MAX, SCAN_BATCH_BYTES_MAX, &span, &self.request);
        let store_revision = engine.walk(&span, self.request.descending, |entry| page.visit(entry));
        if let (true, Some(last)) = (page.more, page.last) {
            narrow(&mut span, last, self.request.descending);
            self.rest = Some(span);
        }
        let (entries, common_prefixes) = (page.entries, page.common_prefixes);
        Some(Ok(pb::ScanResponse { entries, common_prefixes, store_revision }))
    }
}
