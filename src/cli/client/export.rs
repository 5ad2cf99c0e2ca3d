//! `tandem export`: a range as NDJSON, to be imported elsewhere.

use clap::Args;

use super::{
    connection::ConnectionFlags,
    failure::Result,
    output::{Format, Output},
    progress::Progress,
    range::{RangeFlags, all},
};
use crate::{
    api::rest::{ScanItem, ScanLineJson},
    pb,
};

/// What to export.
#[derive(Args, Debug)]
pub struct Export {
    #[command(flatten)]
    range: RangeFlags,
    #[command(flatten)]
    connection: ConnectionFlags,
}

impl Export {
    pub async fn run(self) -> Result<()> {
        let range = self.range.given().unwrap_or_else(all);
        let mut store = self.connection.connect().await?;
        let total = store.count(pb::CountRequest { range: Some(range.clone()) }).await?.into_inner().count;
        let mut batches = store.scan(pb::ScanRequest { range: Some(range), ..Default::default() }).await?.into_inner();
        let mut output = Output::new(Format::Json);
        let mut progress = Progress::new("exported", Some(total), true);
        let (mut store_revision, mut exported) = (0, 0);
        while let Some(batch) = batches.message().await? {
            store_revision = batch.store_revision;
            for entry in &batch.entries {
                output.json(&ScanLineJson::new(ScanItem::Entry(entry), true, false))?;
            }
            let bytes = batch.entries.iter().map(|entry| (entry.key.len() + entry.value.len()) as u64).sum();
            exported += batch.entries.len() as u64;
            progress.add(batch.entries.len() as u64, bytes);
            progress.at(exported);
        }
        // Only what is whole has an end.
        output.json(&ScanLineJson::end(store_revision))?;
        output.flush()?;
        progress.finish();
        Ok(())
    }
}
