//! `tandem del`: removes one key.

use bytes::Bytes;
use clap::Args;

use super::{
    arguments::bytes,
    connection::ConnectionFlags,
    failure::Result,
    output::OutputFlags,
    write::{ConditionFlags, HowFlags, Written},
};
use crate::pb;

/// What to remove.
#[derive(Args, Debug)]
pub struct Delete {
    /// The key.
    #[arg(value_parser = bytes())]
    key: Bytes,
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

impl Delete {
    pub async fn run(self) -> Result<()> {
        let request = pb::DeleteRequest {
            key: self.key,
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
}
