//! `tandem del`: removes one key, or a range.

use bytes::Bytes;
use clap::Args;
use serde::Serialize;

use super::{
    arguments::bytes,
    connection::ConnectionFlags,
    failure::{Failure, Result},
    output::{Format, OutputFlags},
    range::RangeFlags,
    write::{ConditionFlags, HowFlags, ResultJson, Written},
};
use crate::pb;

/// What to remove.
#[derive(Args, Debug)]
pub struct Delete {
    /// The key.
    #[arg(value_parser = bytes(), conflicts_with_all = ["prefix", "start", "end", "all"])]
    key: Option<Bytes>,
    #[command(flatten)]
    range: RangeFlags,
    /// Print the entry that was removed; raw: its value.
    #[arg(long)]
    previous: bool,
    #[command(flatten)]
    conditions: ConditionFlags,
    #[command(flatten)]
    how: HowFlags,
    #[command(flatten)]
    output: OutputFlags,
    #[command(flatten)]
    connection: ConnectionFlags,
}

#[derive(Debug, Serialize)]
struct DeletedJson {
    #[serde(flatten)]
    result: ResultJson,
    deleted: u64,
    complete: bool,
}

impl Delete {
    pub async fn run(mut self) -> Result<()> {
        match self.key.take() {
            Some(key) => self.delete_key(key).await,
            None => self.delete_range().await,
        }
    }

    async fn delete_key(self, key: Bytes) -> Result<()> {
        let request = pb::DeleteRequest {
            key,
            conditions: self.conditions.to_pb(),
            return_previous: self.previous,
            options: Some(self.how.to_pb()),
        };
        let done = self.connection.connect().await?.delete(request).await?.into_inner();
        let result = done.result.unwrap_or_default();
        let written = Written { verb: "deleted", result, previous: done.previous, ..Written::default() };
        let mut output = self.output.open();
        written.show(&mut output)?;
        output.flush()
    }

    async fn delete_range(self) -> Result<()> {
        let Some(range) = self.range.given() else {
            return Err(Failure::usage("what? Give a KEY, --prefix PREFIX, --start KEY and --end KEY, or --all"));
        };
        if self.range.is_all_unsaid() {
            return Err(Failure::usage("this range is every key: to delete that, give --all"));
        }
        if self.previous || !self.conditions.to_pb().is_empty() {
            return Err(Failure::usage("conditions and --previous are about one key: a range is deleted as it is"));
        }
        let options = self.how.to_pb();
        let mut store = self.connection.connect().await?;
        let mut all = pb::DeleteRangeResponse::default();
        // The server takes as much of the range as its time for a request allows.
        while !all.complete {
            let request =
                pb::DeleteRangeRequest { range: Some(range.clone()), max_keys: 0, options: Some(options.clone()) };
            let done = store.delete_range(request).await?.into_inner();
            all = pb::DeleteRangeResponse { deleted: all.deleted + done.deleted, ..done };
        }
        let mut output = self.output.open();
        let result = all.result.unwrap_or_default();
        match output.format() {
            Format::Json => output.json(&DeletedJson {
                result: ResultJson::new(result),
                deleted: all.deleted,
                complete: all.complete,
            })?,
            Format::Raw => output.line(all.deleted)?,
            Format::Text if options.validate_only => {
                output.line(format_args!("{} keys would be deleted (dry run: nothing was changed)", all.deleted))?;
            }
            Format::Text => output.line(format_args!("{} keys deleted (revision {})", all.deleted, result.revision))?,
        }
        output.flush()
    }
}
