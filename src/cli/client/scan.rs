//! `tandem scan`: all of a range, in key order.

use clap::Args;

use super::{
    connection::ConnectionFlags,
    failure::Result,
    list::ReadingFlags,
    output::{Format, OutputFlags},
    range::RangeFlags,
};
use crate::{
    api::rest::{ScanLineJson, in_key_order},
    pb,
};

/// What to read.
#[derive(Args, Debug)]
pub struct Scan {
    #[command(flatten)]
    range: RangeFlags,
    #[command(flatten)]
    reading: ReadingFlags,
    /// Stop after so many lines.
    #[arg(long, value_name = "NUMBER")]
    limit: Option<usize>,
    #[command(flatten)]
    output: OutputFlags,
    #[command(flatten)]
    connection: ConnectionFlags,
}

impl Scan {
    pub async fn run(self) -> Result<()> {
        let ReadingFlags { keys_only, descending, delimiter, start_after } = self.reading;
        let range = Some(self.range.required()?);
        let request = pb::ScanRequest { range, start_after, delimiter, descending, keys_only };
        let mut batches = self.connection.connect().await?.scan(request).await?.into_inner();
        let mut output = self.output.open();
        let mut left = self.limit.unwrap_or(usize::MAX);
        let mut store_revision = 0;
        while left > 0 {
            let Some(batch) = batches.message().await? else {
                // Only what was read to its end says so.
                if output.format() == Format::Json {
                    output.json(&ScanLineJson::end(store_revision))?;
                }
                break;
            };
            store_revision = batch.store_revision;
            let items: Vec<_> = in_key_order(&batch.entries, &batch.common_prefixes, descending).take(left).collect();
            left -= items.len();
            match output.format() {
                Format::Json => {
                    for item in items {
                        output.json(&ScanLineJson::new(item, !keys_only, false))?;
                    }
                }
                Format::Text | Format::Raw => output.items(&items, !keys_only)?,
            }
            output.flush()?;
        }
        output.flush()
    }
}
